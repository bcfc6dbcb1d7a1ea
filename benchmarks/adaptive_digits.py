"""Growing batches on digits: adadamp rerun, and what a learning-rate rule adds.

    python benchmarks/adaptive_digits.py [--part parity|rules] [--seeds 5]

Digits (pixels / 16, RandomState(0) permutation, the first 1,437 rows train), a network
of 64-64-10, SGD at lr .1, batch 16 growing to 512 at most, 40 epochs: 57.5k examples.

*Parity*: each policy of adadamp 0.2, its formula written out below in a plain loop,
beside ours under the controller: same initial weights, same split, same order of
examples. The bars: updates at most 1.02x, loss at most 1.05x at equal examples.

*Rules*: updates until the training loss of SGD at batch 16 after 40 epochs, for
constant batches at their best learning rate and for policies with a learning-rate rule.
The bar: some policy needs at most a quarter of SGD-16's updates.

The exit status is 1 where a bar is missed.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from statistics import fmean, median

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.optim import SGD
from torch.utils.data import TensorDataset

from rightbatch.controller import Acting, BatchSizeController, MeanLoss, Sensing
from rightbatch.policies import (
    AdaDamp,
    Clip,
    CntsDampLR,
    Constant,
    Dwell,
    GeoDamp,
    GeoDampLR,
    NoiseFollowing,
    OnlyIfSure,
    PadaDamp,
    RadaDamp,
    RoundTo,
)
from rightbatch.sampler import ExampleStream, Loading, MicroBatchStream
from rightbatch.training import Until, train

# 1) Data, network, protocol -----------------------------------------------------------

START, CAP, LR, EPOCHS = 16, 512, 0.1, 40
DWELL, WAIT = 20, 100  # adadamp's own for RadaDamp; AdaDamp is asked every 20 updates


def digits() -> TensorDataset:
    images, labels = load_digits(return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(labels))[:1437]
    x = torch.tensor(images[rows] / 16, dtype=torch.float32)
    return TensorDataset(x, torch.tensor(labels[rows]))


DATA = digits()
N = len(DATA)
EXAMPLES = EPOCHS * N


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def losses_of(model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def whole_loss(model: nn.Module) -> float:
    with torch.no_grad():
        return float(functional.cross_entropy(model(DATA.tensors[0]), DATA.tensors[1]))


# 2) adadamp's formulas in a plain loop, slow and obvious ------------------------------

# A rule sees the run so far and gives the batch size and the learning rate.
Formula = Callable[["PlainRun"], tuple[int, float]]


class PlainRun:
    """A loop as anyone would write it, and what its formulas may look at."""

    def __init__(self, seed: int) -> None:
        self.model = network(seed)
        self.k = self.examples = 0
        self.losses: list[float] = []  # of the batches
        self.norms: list[float] = []  # squared, of the batches' gradients
        self.memory: dict[str, float] = {}

    def train(self, formula: Formula, seed: int) -> None:
        optimizer = SGD(self.model.parameters(), lr=LR)
        stream = ExampleStream(DATA, seed)
        while self.examples < EXAMPLES:
            batch_size, lr = formula(self)
            batch_size = max(1, min(batch_size, CAP))
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            loss = losses_of(self.model, stream.next(batch_size)).mean()
            loss.backward()
            optimizer.step()
            self.losses.append(float(loss.detach()))
            square = sum(float(p.grad.square().sum()) for p in self.model.parameters())
            self.norms.append(square)
            self.k += 1
            self.examples += batch_size


def adadamp(run: PlainRun) -> tuple[int, float]:
    if run.k % DWELL == 0:
        loss = whole_loss(run.model)
        first = run.memory.setdefault("F0", loss)
        run.memory["B"] = math.ceil(START * first / loss)
    return int(run.memory["B"]), LR


def padadamp(run: PlainRun) -> tuple[int, float]:
    return math.ceil(START + 0.05 * run.k), LR


def geodamp(run: PlainRun) -> tuple[int, float]:
    return START * 2 ** (run.examples // N // 5), LR


def geodamp_lr(run: PlainRun) -> tuple[int, float]:
    return START, LR / 2 ** (run.examples // N // 5)


def cntsdamp_lr(run: PlainRun) -> tuple[int, float]:
    return START, LR * START / (START + 0.05 * run.k)


def radadamp(run: PlainRun) -> tuple[int, float]:
    size = int(run.memory.get("B", START))
    if run.k == 0 or run.k < WAIT or run.k % DWELL:
        return size, LR
    begin = int(run.memory.get("begin", 0))
    loss, norm = fmean(run.losses[begin:]), fmean(run.norms[begin:])
    if "L0" not in run.memory:
        run.memory |= {"L0": loss, "N0": norm, "L": loss, "N": norm}
        return size, LR
    run.memory["begin"] = run.k
    for name, new in (("L", loss), ("N", norm)):
        run.memory[name] = 0.2 * run.memory[name] + 0.8 * new
    left = run.memory["L"] / run.memory["L0"] + run.memory["N"] / run.memory["N0"]
    run.memory["B"] = max(START, math.ceil(START / (0.5 * left)))
    return int(run.memory["B"]), LR


FORMULAS: dict[str, tuple[Formula, object]] = {
    "SGD 16": (lambda run: (16, LR), Constant(batch_size=16)),
    "SGD 128": (lambda run: (128, LR), Constant(batch_size=128)),
    "AdaDamp": (adadamp, Dwell(AdaDamp(initial_batch_size=START), updates=DWELL)),
    "PadaDamp .05": (padadamp, PadaDamp(initial_batch_size=START, rate=0.05)),
    "GeoDamp": (geodamp, GeoDamp(initial_batch_size=START, delay=5, factor=2)),
    "GeoDampLR": (geodamp_lr, GeoDampLR(initial_batch_size=START, delay=5, factor=2)),
    "CntsDampLR": (cntsdamp_lr, CntsDampLR(initial_batch_size=START, rate=0.05)),
    "RadaDamp": (
        radadamp,
        RadaDamp(initial_batch_size=START, dwell=DWELL, wait=WAIT, rho=0.2),
    ),
}


# 3) Ours ------------------------------------------------------------------------------


def controlled(
    policy: object, seed: int, *, lr: float = LR, rule: str = "none", cap: int = CAP
) -> BatchSizeController:
    model = network(seed)
    return BatchSizeController(
        model,
        SGD(model.parameters(), lr=lr),
        RoundTo(Clip(policy, high=cap), multiple=1, how="up"),
        MicroBatchStream(DATA, 1, seed=seed, loading=Loading(join="any")),
        lr_rule=rule,
        sensing=Sensing(evaluate=MeanLoss(model, losses_of, DATA)),
        acting=Acting(lr_batch_size=START),
    )


def show_parity(seeds: int) -> bool:
    print("Updates and training loss after 57.5k examples, medians over the seeds")
    print(f"{'':14s}{'plain loop':>20s}{'rightbatch':>20s}{'updates':>10s}{'loss':>8s}")
    good = True
    for name, (formula, policy) in FORMULAS.items():
        pairs = []
        for seed in range(seeds):
            plain = PlainRun(seed)
            plain.train(formula, seed)
            own = controlled(policy, seed)
            train(own, losses_of, until=Until(max_examples=EXAMPLES))
            pairs.append(
                (plain.k, own.step, whole_loss(plain.model), whole_loss(own.model))
            )
        updates, own_updates, loss, own_loss = map(median, zip(*pairs, strict=True))
        worst = max(b / a for a, b, _, _ in pairs), max(b / a for _, _, a, b in pairs)
        good &= worst[0] <= 1.02 and worst[1] <= 1.05
        print(
            f"{name:14s}{updates:12.0f}{loss:8.4f}{own_updates:12.0f}{own_loss:8.4f}"
            f"{worst[0]:9.3f}x{worst[1]:7.3f}x"
        )
    print("the ratios are the worst of the seeds; bars 1.02 and 1.05")
    return good


# 4) What a learning-rate rule adds ----------------------------------------------------

RATES = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 1.6)
SIZES = (16, 32, 64, 96, 128, 192)


def updates_to(target: float, controller: BatchSizeController) -> float:
    """Return the updates until the training loss is at the target; inf for never."""
    reached = math.inf

    def check(record) -> bool:
        nonlocal reached
        if record.step % 5 or record.loss > 4 * target:
            return False
        if whole_loss(controller.model) <= target:
            reached = record.step
            return True
        return False

    train(controller, losses_of, until=Until(max_examples=EXAMPLES), on_update=check)
    return reached


def best_of(
    target: float, seeds: int, made: Callable[[float, int], BatchSizeController]
) -> tuple[float, float, list[float]]:
    """Return the least median updates over the rates, its rate, and each seed's.

    A rate at which every seed gets there comes before one at which some do not.
    """
    tried = []
    for lr in RATES:
        found = [updates_to(target, made(lr, seed)) for seed in range(seeds)]
        tried.append((median(found), lr, found))
    return min(tried, key=lambda one: (max(one[2]) == math.inf, *one[:2]))


def policies() -> Iterator[tuple[str, object, str, int]]:
    noise = Clip(NoiseFollowing(initial_batch_size=START), low=START)
    yield "NoiseFollowing", noise, "adascale", CAP
    sure = Clip(OnlyIfSure(NoiseFollowing(initial_batch_size=START)), low=START)
    yield "NoiseFollowing if sure", sure, "adascale", CAP
    adadamp = Dwell(AdaDamp(initial_batch_size=START), updates=5)
    for cap in (128, 192, 256, CAP):
        yield f"AdaDamp to {cap}", adadamp, "square_root", cap
    yield "AdaDamp to 192", adadamp, "adascale", 192
    yield "AdaDamp to 192", adadamp, "none", 192
    geodamp = GeoDamp(initial_batch_size=START, delay=5, factor=2)
    yield "GeoDamp", geodamp, "adascale", CAP
    padadamp = PadaDamp(initial_batch_size=START, rate=0.2)
    yield "PadaDamp .2", padadamp, "adascale", CAP
    yield "PadaDamp .2", padadamp, "none", CAP


def show_rules(seeds: int) -> bool:
    finals = []
    for seed in range(seeds):
        sgd = controlled(Constant(batch_size=START), seed)
        train(sgd, losses_of, until=Until(max_examples=EXAMPLES))
        finals.append((sgd.step, whole_loss(sgd.model)))
    updates, target = map(median, zip(*finals, strict=True))
    print(f"\nSGD at 16, lr {LR}: {updates:.0f} updates, training loss {target:.4f}")
    print(f"updates to {target:.4f} within 57.5k examples; the best of lrs {RATES}")
    print(f"{'':32s}{'lr':>6s}{'median':>8s}  seeds")
    constants, adaptive = [], []
    for size in SIZES:
        found = best_of(target, seeds, lambda lr, seed, b=size: _constant(b, lr, seed))
        constants.append(found[0])
        _print_row(f"constant {size}", found)
    for name, policy, rule, cap in policies():
        found = best_of(
            target,
            seeds,
            lambda lr, seed, p=policy, r=rule, c=cap: controlled(
                p, seed, lr=lr, rule=r, cap=c
            ),
        )
        adaptive.append(found[0])
        _print_row(f"{name}, {rule}", found)
    print(
        f"best policy {min(adaptive):.0f} updates, {min(adaptive) / updates:.3f} of "
        f"SGD-16's; best constant batch {min(constants):.0f}"
    )
    return min(adaptive) <= 0.25 * updates


def _constant(size: int, lr: float, seed: int) -> BatchSizeController:
    return controlled(Constant(batch_size=size), seed, lr=lr)


def _print_row(name: str, found: tuple[float, float, list[float]]) -> None:
    seeds = " ".join(f"{one:.0f}" for one in found[2])
    print(f"{name:32s}{found[1]:6g}{found[0]:8.0f}  {seeds}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--part", choices=["parity", "rules", "both"], default="both")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    good = True
    if args.part != "rules":
        good &= show_parity(args.seeds)
    if args.part != "parity":
        good &= show_rules(args.seeds)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
