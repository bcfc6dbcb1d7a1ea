"""Updates per second of the sweep's inner loop, beside the typical DataLoader loop.

    python benchmarks/sweep_rate.py [--cpu-clock]

The two run in turn in one process on one thread, a pair at a time. What counts is the
low end of the 90 % interval of the median ratio; the exit status is 1 when it is below
the bar: 1.5 on the MLP at every batch size, .97 on LeNet. On a machine that others use
too, --cpu-clock counts the process's own seconds only.

glibc gives freed memory back and takes it anew, page by page, when a step's tensors are
large; whether it does changes from turn to turn (LeNet at 32: 5 to 8 ms a step), for
either loop. Both therefore run with it told not to; --default-malloc leaves it alone.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

import torch
from scipy.stats import binom
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from rightbatch.engine import make_update
from rightbatch.experiments.workloads import digits, mnist
from rightbatch.sampler import ExampleStream
from rightbatch.workload import Workload

KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
}
BARS = {"mlp": 1.5, "lenet": 0.97}


def typical_loop(
    workload: Workload, data: TensorDataset, batch_size: int, args: argparse.Namespace
) -> Callable[[int], float]:
    """Return a function that takes n steps and returns the seconds they took."""
    model = workload.model(0)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=args.lr, weight_decay=weight_decay(workload)
    )
    # Without the epoch's short last batch: both loops see the same number of examples.
    loader = DataLoader(data, batch_size=batch_size, shuffle=True, drop_last=True)

    def steps():
        while True:
            for images, labels in loader:
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(images), labels)
                loss.backward()
                optimizer.step()
                yield

    stepping = steps()

    def run(num_steps: int) -> float:
        start = args.clock()
        for _ in range(num_steps):
            next(stepping)
        return args.clock() - start

    return run


def our_loop(
    workload: Workload, data: TensorDataset, batch_size: int, args: argparse.Namespace
) -> Callable[[int], float]:
    """Return a function that takes n steps and returns the seconds they took."""
    stream = ExampleStream(data, seed=0)
    update = make_update(workload.model(0), workload.optimizer, workload.loss, args.lr)

    def run(num_steps: int) -> float:
        start = args.clock()
        for _ in range(num_steps):
            update(stream.next(batch_size))
        return args.clock() - start

    return run


def weight_decay(workload: Workload) -> float:
    optimizer = workload.optimizer(workload.model(0).parameters(), 0.1)
    return optimizer.param_groups[0]["weight_decay"]


def median_interval(values: Sequence[float], level: float) -> tuple[float, float]:
    """Return an interval of order statistics that covers the median."""
    ordered, count = sorted(values), len(values)
    below = binom.cdf(range(count), count, 0.5) <= (1 - level) / 2
    rank = max(int(below.sum()), 1)
    return ordered[rank - 1], ordered[count - rank]


def compare(
    workload: Workload, data: TensorDataset, batch_size: int, args: argparse.Namespace
) -> tuple[float, list[float]]:
    """Return the median updates per second of ours, and the ratios."""
    typical = typical_loop(workload, data, batch_size, args)
    ours = our_loop(workload, data, batch_size, args)
    for loop in (typical, ours):
        loop(3)
    # As many steps a turn as fill the time asked for, by the slower loop.
    num_steps = max(2, int(args.turn / (typical(5) / 5)))
    rates: list[float] = []
    ratios: list[float] = []
    for pair in range(args.pairs):
        # Who goes first changes: neither always follows the other.
        if pair % 2:
            theirs, mine = typical(num_steps), ours(num_steps)
        else:
            mine, theirs = ours(num_steps), typical(num_steps)
        rates.append(num_steps / mine)
        ratios.append(theirs / mine)
    return sorted(rates)[len(rates) // 2], ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=41)
    parser.add_argument("--turn", type=float, default=0.1, help="seconds a turn")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument(
        "--cpu-clock",
        dest="clock",
        action="store_const",
        const=time.process_time,
        default=time.perf_counter,
    )
    parser.add_argument("--default-malloc", action="store_true")
    parser.add_argument("--only", choices=("mlp", "lenet"))
    args = parser.parse_args()
    # glibc reads these when a process starts.
    if not args.default_malloc and not KEEP_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **KEEP_MEMORY})
    torch.set_num_threads(1)

    # 1) The two networks. LeNet's data is random: only its shape matters here.
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4096, 1, 28, 28, generator=generator)
    labels = torch.randint(10, (4096,), generator=generator)
    mlp_data = TensorDataset(*digits.Digits(held_out=False).tensors)
    settings = {
        "mlp": (digits.mlp(), mlp_data, (1, 2, 8, 32, 128, 512)),
        "lenet": (mnist.lenet_small(), TensorDataset(images, labels), (1, 8, 32, 128)),
    }

    # 2) Pairs, and a line for each batch size.
    missed = 0
    print(f"{'model':>8}{'batch':>7}{'ours/s':>9}{'ratio':>7}{'90 %':>15}{'bar':>6}")
    for name, (workload, data, batch_sizes) in settings.items():
        if args.only not in (None, name):
            continue
        for batch_size in batch_sizes:
            rate, ratios = compare(workload, data, batch_size, args)
            low, high = median_interval(ratios, 0.9)
            median = sorted(ratios)[len(ratios) // 2]
            verdict = "" if low >= BARS[name] else "  missed"
            missed += bool(verdict)
            print(
                f"{name:>8}{batch_size:>7}{rate:>9.0f}{median:>7.2f}"
                f"{f'{low:.2f} to {high:.2f}':>15}{BARS[name]:>6}{verdict}",
                flush=True,
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
