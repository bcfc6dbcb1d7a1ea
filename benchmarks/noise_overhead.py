"""What measuring gradient noise adds to a training step, beside what others add.

    python benchmarks/noise_overhead.py [--only mlp] [--cpu-clock] [--device cuda]

Each line is the time of a step that measures over the time of the same step that does
not: forward, backward, SGD with momentum. The two run in turn in one process on one
thread, a pair at a time; what counts is the upper end of the 90 % interval of the
median ratio. The exit status is 1 where that is above a bar of ours.

* units: 8 micro-batches accumulated, each a unit, over the same 8 accumulated;
* all examples: the norm of every example at every step;
* a quarter: the norms of a quarter of the examples, at every 12th step;
* Opacus (its norms, as ghost clipping takes them, and its gradients of every example),
  torch.func's vmap(grad) and BackPACK (squared norms): where they can be imported.

Peers are no part of any extra: `pip install --no-deps opacus opt_einsum` and
`backpack-for-pytorch einops unfoldNd` into a folder on PYTHONPATH will do.

glibc's allocator is told to keep its memory, for every loop alike, as sweep_rate.py
explains; --default-malloc leaves it alone.
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from sweep_rate import KEEP_MEMORY, median_interval
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from rightbatch.experiments.workloads import mnist
from rightbatch.gradients import NoiseMeter

BARS = {
    ("mlp", "units"): 1.08,
    ("lenet", "units"): 1.06,
    ("transformer", "units"): 1.05,
    ("mlp", "all examples"): 1.08,
    ("lenet", "all examples"): 1.35,
    ("transformer", "all examples"): 1.22,
    ("mlp", "a quarter"): 1.015,
    ("lenet", "a quarter"): 1.015,
    ("transformer", "a quarter"): 1.015,
}
EVERY = 12
Step = Callable[[], None]


# 1) Three networks ------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, vocabulary=256, width=128, layers=4, length=64):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids):
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        return self.head(self.norm(self.blocks(self.token(ids) + self.place(places))))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def token_loss(logits, targets):
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


@dataclass(frozen=True)
class Case:
    name: str
    model: Callable[[], nn.Module]
    x: torch.Tensor
    y: torch.Tensor
    loss: Callable


def cases(device: str) -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 1, 28, 28, generator=generator)
    labels = torch.randint(10, (64,), generator=generator)
    ids = torch.randint(256, (16, 65), generator=generator)
    entropy = functional.cross_entropy
    lenet = lambda: mnist.lenet_small().model(0)  # noqa: E731
    found = [
        Case("mlp", mlp, images.flatten(1), labels, entropy),
        Case("lenet", lenet, images, labels, entropy),
        Case("transformer", Transformer, ids[:, :-1], ids[:, 1:], token_loss),
    ]
    return [
        Case(c.name, c.model, c.x.to(device), c.y.to(device), c.loss) for c in found
    ]


def fresh(case: Case) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = case.model().to(case.x.device)
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


# 2) Ways to take a step -------------------------------------------------------------


def plain(case: Case, parts: int = 1, meter: dict | None = None) -> Step:
    model, optimizer = fresh(case)
    pieces = list(zip(case.x.chunk(parts), case.y.chunk(parts), strict=True))
    reader = None if meter is None else NoiseMeter(model, **meter)

    def step():
        optimizer.zero_grad()
        for a, b in pieces:
            loss = case.loss(model(a), b) / parts
            if reader is None:
                loss.backward()
            else:
                with reader.unit(examples=len(a)):
                    loss.backward()
        if reader is not None:
            reader.update()
        optimizer.step()

    return step


def opacus_norms(case: Case) -> Step:
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
        GradSampleModuleFastGradientClipping,
    )

    model, optimizer = fresh(case)
    wrapped = GradSampleModuleFastGradientClipping(model, loss_reduction="mean")

    def step():
        optimizer.zero_grad()
        case.loss(wrapped(case.x), case.y).backward()
        wrapped.get_norm_sample()
        optimizer.step()

    return step


def opacus_gradients(case: Case) -> Step:
    from opacus.grad_sample import GradSampleModule

    model, optimizer = fresh(case)
    wrapped = GradSampleModule(model, loss_reduction="mean")
    parameters = list(model.parameters())

    def step():
        optimizer.zero_grad()
        case.loss(wrapped(case.x), case.y).backward()
        for p in parameters:
            p.grad_sample.flatten(1).square().sum(1)
            p.grad_sample = None
        optimizer.step()

    return step


def vmap_gradients(case: Case) -> Step:
    model, optimizer = fresh(case)
    named = dict(model.named_parameters())

    def one(values, a, b):
        out = functional_call(model, values, (a.unsqueeze(0),))
        return case.loss(out, b.unsqueeze(0))

    every = vmap(grad(one), in_dims=(None, 0, 0))

    def step():
        values = {name: p.detach() for name, p in named.items()}
        for name, gradients in every(values, case.x, case.y).items():
            gradients.flatten(1).square().sum(1)
            named[name].grad = gradients.mean(0)
        optimizer.step()

    return step


def backpack_norms(case: Case) -> Step:
    from backpack import backpack, extend
    from backpack.extensions import BatchL2Grad

    model, optimizer = fresh(case)
    extend(model)
    entropy = extend(nn.CrossEntropyLoss())

    def step():
        optimizer.zero_grad()
        out = model(case.x)
        targets = case.y
        if case.loss is token_loss:
            out, targets = out.flatten(0, -2), targets.flatten()
        with backpack(BatchL2Grad()):
            entropy(out, targets).backward()
        optimizer.step()

    return step


# 3) Pairs ---------------------------------------------------------------------------


def ratios(first: Step, second: Step, args: argparse.Namespace) -> list[float]:
    """Return the time of the second over that of the first, a pair at a time."""

    def run(step: Step, count: int) -> float:
        start = args.clock()
        for _ in range(count):
            step()
        if args.device != "cpu":
            torch.cuda.synchronize()
        return args.clock() - start

    for step in (first, second):
        run(step, 4)
    seconds = run(first, 4) / 4
    # Whole rounds of EVERY, so that each turn holds as many measured steps.
    count = max(1, round(args.turn / seconds / EVERY)) * EVERY
    found = []
    for pair in range(args.pairs):
        if pair % 2:
            a, b = run(first, count), run(second, count)
        else:
            b, a = run(second, count), run(first, count)
        found.append(b / a)
    return found


def rows(case: Case) -> list[tuple[str, Callable[[], tuple[Step, Step]]]]:
    quarter = {
        "source": "examples",
        "every": EVERY,
        "num_examples": len(case.x) // 4,
    }
    units, examples = {"source": "units"}, {"source": "examples"}
    parts = 8
    return [
        ("units", lambda: (plain(case, parts), plain(case, parts, units))),
        ("all examples", lambda: (plain(case), plain(case, 1, examples))),
        ("a quarter", lambda: (plain(case), plain(case, 1, quarter))),
        ("Opacus norms", lambda: (plain(case), opacus_norms(case))),
        ("Opacus gradients", lambda: (plain(case), opacus_gradients(case))),
        ("vmap(grad)", lambda: (plain(case), vmap_gradients(case))),
        ("BackPACK norms", lambda: (plain(case), backpack_norms(case))),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--turn", type=float, default=0.15, help="seconds a turn")
    parser.add_argument("--only", help="one network")
    parser.add_argument("--ours", action="store_true", help="without the peers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--cpu-clock",
        dest="clock",
        action="store_const",
        const=time.process_time,
        default=time.perf_counter,
    )
    parser.add_argument("--default-malloc", action="store_true")
    args = parser.parse_args()
    if not args.default_malloc and not KEEP_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **KEEP_MEMORY})
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    missed = 0
    print(f"{'network':>12}{'what':>18}{'ratio':>8}{'90 %':>16}{'bar':>7}")
    for case in cases(args.device):
        if args.only not in (None, case.name):
            continue
        for name, pair in rows(case):
            bar = BARS.get((case.name, name))
            if args.ours and bar is None:
                continue
            try:
                found = ratios(*pair(), args)
            except Exception as error:
                said = f"{type(error).__name__}: {error}".splitlines()[0]
                print(f"{case.name:>12}{name:>18}  not run: {said[:60]}")
                continue
            low, high = median_interval(found, 0.9)
            late = bar is not None and high > bar
            missed += late
            print(
                f"{case.name:>12}{name:>18}{statistics.median(found):>8.3f}"
                f"{f'{low:.3f} to {high:.3f}':>16}{bar or '':>7}"
                f"{'  missed' if late else ''}",
                flush=True,
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
