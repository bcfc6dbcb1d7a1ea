"""What a batch that follows a policy adds to a training step.

    python benchmarks/training_overhead.py [--only "lenet, noise"] [--cpu-clock]

Each line is the time of updates under the controller over that of a plain vectorised
loop with the same network, optimizer and batch sizes: rows gathered by a permutation,
zero_grad, forward, mean loss, backward, step. The two run in turn in one process on
one thread, a pair at a time; what counts is the upper end of the 90 % interval of the
median ratio. Evaluations of the whole loss are counted apart, by the controller's own
clock.
The exit status is 1 where that is above the bar.

* loss-driven: RadaDamp, which looks at each batch's loss and gradient norm; AdaDamp,
  which has the loss evaluated every 20 updates;
* noise: NoiseFollowing with AdaScale, noise measured at every 10th update;
* grown: the batch grows from 16 to 512 first, and is timed there.

glibc's allocator is told to keep its memory, for every loop alike, as sweep_rate.py
explains; --default-malloc leaves it alone.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from sweep_rate import KEEP_MEMORY, median_interval
from torch.nn import functional
from torch.optim import SGD
from torch.utils.data import TensorDataset

from rightbatch.controller import Acting, BatchSizeController, MeanLoss, Sensing
from rightbatch.experiments.workloads import digits, mnist
from rightbatch.policies import (
    AdaDamp,
    Clip,
    Dwell,
    Geometric,
    NoiseFollowing,
    Policy,
    RadaDamp,
)
from rightbatch.sampler import MicroBatchStream
from rightbatch.workload import Workload

Updates = Iterator[None]


# 1) Settings --------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    name: str
    workload: Workload
    policy: Policy
    batch_size: int
    bar: float
    micro_batch_size: int = 16
    rule: str = "none"
    every: int = 10
    growing: int = 0  # updates before the clock starts


def cases() -> list[Case]:
    mlp, lenet = digits.mlp(), images(mnist.lenet_small())

    def held(policy: Policy, size: int) -> Policy:
        # It is asked at every update and looks at all it wants, at one batch size.
        return Clip(policy, low=size, high=size)

    def rada(size: int) -> Policy:
        return held(RadaDamp(initial_batch_size=size), size)

    def ada(size: int) -> Policy:
        return Dwell(held(AdaDamp(initial_batch_size=size), size), updates=20)

    noise = NoiseFollowing(initial_batch_size=64)
    grown = Clip(Geometric(initial_batch_size=16, factor=1.05), high=512)
    return [
        Case("lenet 64, RadaDamp", lenet, rada(64), 64, 1.05),
        Case("lenet 64, AdaDamp", lenet, ada(64), 64, 1.05),
        Case("lenet 64, noise", lenet, held(noise, 64), 64, 1.05, rule="adascale"),
        Case("lenet 256, noise", lenet, held(noise, 256), 256, 1.05, rule="adascale"),
        Case("digits 16, RadaDamp", mlp, rada(16), 16, 1.10),
        Case("digits 16, AdaDamp", mlp, ada(16), 16, 1.10),
        Case("digits 512, grown", mlp, grown, 512, 1.25, growing=100),
        Case("digits 512, RadaDamp", mlp, rada(512), 512, 1.25),
    ]


def images(workload: Workload) -> Workload:
    """Return the network with images made up: nothing has to be there for its speed."""
    from dataclasses import replace

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 1, 28, 28, generator=generator)
    y = torch.randint(10, (4096,), generator=generator)
    return replace(workload, train=TensorDataset(x, y))


# 2) The two loops ---------------------------------------------------------------------


def plain(case: Case) -> Updates:
    model = case.workload.model(0)
    optimizer = SGD(model.parameters(), lr=0.01)
    x, y = case.workload.train.tensors
    rows, place = torch.randperm(len(x)), 0
    while True:
        if place + case.batch_size > len(x):
            rows, place = torch.randperm(len(x)), 0
        own = rows[place : place + case.batch_size]
        place += case.batch_size
        a, b = x[own], y[own]
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(a), b)
        loss.backward()
        optimizer.step()
        yield


def followed(case: Case) -> tuple[Updates, BatchSizeController]:
    model = case.workload.model(0)
    losses = case.workload.loss
    controller = BatchSizeController(
        model,
        SGD(model.parameters(), lr=0.01),
        case.policy,
        MicroBatchStream(case.workload.train, case.micro_batch_size),
        lr_rule=case.rule,
        sensing=Sensing(
            every=case.every, evaluate=MeanLoss(model, losses, case.workload.train)
        ),
        acting=Acting(lr_batch_size=case.batch_size / 2),
    )

    def updates() -> Updates:
        for update in controller.updates(max_steps=10**9):
            for part in update:
                a, b = part.batch
                update.backward(functional.cross_entropy(model(a), b))
            update.step()
            yield

    return updates(), controller


# 3) Turn by turn ----------------------------------------------------------------------


def ratios(case: Case, args: argparse.Namespace) -> list[float]:
    clock = time.process_time if args.cpu_clock else time.perf_counter
    ours, controller = followed(case)
    theirs = plain(case)

    def timed(updates: Updates, count: int, apart: Callable[[], float]) -> float:
        begin, before = clock(), apart()
        for _ in range(count):
            next(updates)
        return clock() - begin - (apart() - before)

    def evaluating() -> float:
        return controller.evaluating_seconds

    for _ in range(case.growing):
        next(ours)
    size = controller.records[-1].batch_size if case.growing else case.batch_size
    assert size == case.batch_size, size
    once = timed(theirs, 20, float) / 20
    timed(ours, 20, evaluating)
    # Multiples of 20: every turn has its share of measured and evaluated updates.
    count = max(20, 20 * round(args.seconds / once / 20))
    found = []
    for pair in range(args.pairs):
        if pair % 2:
            second = timed(theirs, count, float)
            first = timed(ours, count, evaluating)
        else:
            first = timed(ours, count, evaluating)
            second = timed(theirs, count, float)
        found.append(first / second)
        controller.records.clear()  # a pair's records are none of the next one's memory
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn")
    parser.add_argument("--only", default="", help="lines whose name holds this")
    parser.add_argument("--cpu-clock", action="store_true")
    parser.add_argument("--default-malloc", action="store_true")
    args = parser.parse_args()
    if not args.default_malloc and not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    torch.set_num_threads(1)
    good = True
    print(f"{'':24s}{'median':>8s}{'90 % interval':>20s}{'bar':>7s}")
    for case in cases():
        if args.only not in case.name:
            continue
        found = ratios(case, args)
        low, high = median_interval(found, 0.9)
        middle = statistics.median(found)
        good &= high <= case.bar
        verdict = "" if high <= case.bar else "  missed"
        print(
            f"{case.name:24s}{middle:8.3f}{low:12.3f}-{high:.3f}{case.bar:9.2f}"
            f"{verdict}",
            flush=True,
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
