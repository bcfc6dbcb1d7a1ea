"""Updates per second by themselves, stacked, and compiled; and what compiling costs.

    python benchmarks/compiled_rate.py [--model mlp|lenet] [--batch-size 1]
        [--members 18] [--steps 4] [--turns 21]

The digits MLP, or Perrone et al.'s small LeNet on random images of 28 x 28; SGD. All in
CPU seconds of one thread, the three in turn, a fifth of a second each; the ratio of the
last two of each turn, its median, and the sixth and the sixteenth of 21. A compile is
made with an empty cache; its seconds are those of this process and of its C++ compiler.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.utils.data import TensorDataset

from rightbatch.engine import (
    CompiledStack,
    Stack,
    Update,
    compile_steps,
    find_forward,
    make_update,
)
from rightbatch.experiments.workloads import digits, mnist
from rightbatch.sampler import ExampleStream, SideBySide
from rightbatch.sampler.image_layout import layout_for
from rightbatch.workload import Workload

TURN_SECONDS = 0.2
FEWEST = 20  # updates of a turn


def problem(model: str) -> tuple[Workload, TensorDataset]:
    if model == "mlp":
        return digits.mlp(), TensorDataset(*digits.Digits(held_out=False).tensors)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4096, 1, 28, 28, generator=generator)
    labels = torch.randint(10, (4096,), generator=generator)
    return mnist.lenet_small(), TensorDataset(images, labels)


def cpu_seconds() -> tuple[float, float]:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, children = (usage.ru_utime + usage.ru_stime for usage in usages)
    return own, children


def updates(workload: Workload, count: int) -> list[Update]:
    models = [workload.model(seed).train() for seed in range(count)]
    return [
        make_update(
            model, workload.optimizer_for(model), workload.loss, 0.01 * (1 + seed % 6)
        )
        for seed, model in enumerate(models)
    ]


def ways(args: argparse.Namespace) -> dict[str, Callable[[int], int]]:
    """Return what makes n steps of all members, and returns the updates made."""
    workload, data = problem(args.model)
    size, members = args.batch_size, args.members

    def streams(count: int) -> list[ExampleStream]:
        return [ExampleStream(data, seed) for seed in range(count)]

    alone, stream = updates(workload, 1)[0], streams(1)[0]
    layout = layout_for(alone.model, workload.loss, stream.next(size))

    def plain(steps: int) -> int:
        for _ in range(steps):
            alone(layout(stream.next(size)))
        return steps

    probes = [one.next(min(size, 8)) for one in streams(2)]
    forward = find_forward(updates(workload, 2), probes).forward
    assert forward is not None
    stack = Stack(updates(workload, members), forward)
    rows = SideBySide(streams(members), size)

    def stacked(steps: int) -> int:
        for _ in range(steps):
            stack(rows.next())
        return steps * members

    to_compile = Stack(updates(workload, members), forward)
    own, children = cpu_seconds()
    batches = [rows.next() for _ in range(2 * args.steps)]
    made, reason = compile_steps(to_compile, batches, num_steps=args.steps)
    if made is None:
        sys.exit(f"compiled_rate: {reason}")
    now, later = cpu_seconds()
    print(
        f"{args.model} at batch {size}, {members} members, {args.steps} steps a call: "
        f"compiled in {now - own:.1f} + {later - children:.1f} s",
        flush=True,
    )
    compiled_stack = CompiledStack(to_compile, made)
    others = SideBySide(streams(members), size, width=members)

    def compiled(steps: int) -> int:
        compiled_stack(others.next() for _ in range(steps))
        return steps * members

    return {"plain": plain, "stacked": stacked, "compiled": compiled}


def rate(way: Callable[[int], int], steps: int) -> float:
    start = time.process_time()
    made = way(steps)
    return made / (time.process_time() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", choices=["mlp", "lenet"], default="mlp")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--members", type=int, default=18)
    parser.add_argument("--steps", type=int, default=4, help="unrolled in one call")
    parser.add_argument("--turns", type=int, default=21)
    args = parser.parse_args()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    torch.set_num_threads(1)

    tried = ways(args)
    steps: dict[str, int] = {}
    for name, way in tried.items():
        way(8)
        start = time.process_time()
        way(FEWEST)
        each = (time.process_time() - start) / FEWEST
        steps[name] = max(FEWEST, round(TURN_SECONDS / each))
    rates: dict[str, list[float]] = {name: [] for name in tried}
    for _ in range(args.turns):
        for name, way in tried.items():
            rates[name].append(rate(way, steps[name]))
    for name, found in rates.items():
        print(f"  {name:10}{median(found):>10,.0f} updates/s")
    pairs = zip(rates["compiled"], rates["stacked"], strict=True)
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    low = len(ratios) // 4
    print(
        f"  compiled over stacked: {median(ratios):.2f} "
        f"({ratios[low]:.2f} to {ratios[-1 - low]:.2f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
