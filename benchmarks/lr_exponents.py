"""The best learning rate against the batch size, for SGD, Adam and RMSProp on digits.

    python benchmarks/lr_exponents.py --folder FOLDER [--sizes 8 16 ...] [--seeds 5]
        [--svg FILE] [--also STORE.sqlite]

The workload digits-mlp to its held-out loss of .15, by default at batches of 4 to 512
and five seeds. At each batch size seven learning rates a factor of sqrt 2 apart are
tried around the best of the size before, and more while fewer than two worse ones lie
on a side. Runs are kept in one store per optimizer, in the folder; a second call goes
on from them.

The law is fitted by `rightbatch.convergence.fit_learning_rate`: lr ~ B^p, or
lr_max/(1 + phi/B)^p where the runs tell it from the first. McCandlish et al. (2018)
have p = 1 for SGD, with phi the noise scale, and a power between .5 and 1 for Adam and
RMSProp. --also fits the runs of another store, of any workload.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import SGD, Adam, RMSprop

from rightbatch.convergence import LearningRateFit, fit_learning_rate, fit_tuned
from rightbatch.experiments.identity import open_store
from rightbatch.experiments.record import Run
from rightbatch.experiments.store import RunStore
from rightbatch.experiments.sweep import SweepSettings, sweep
from rightbatch.experiments.workloads import digits
from rightbatch.workload import Workload

SIZES = (4, 8, 16, 32, 64, 128, 256, 512)
RATIO, AROUND = math.sqrt(2), 3  # rates on either side of the best of the size before
# Where the search begins at the smallest batch.
OPTIMIZERS: dict[str, tuple[Any, float]] = {
    "SGD": (SGD, 0.2),
    "Adam": (Adam, 0.002),
    "RMSProp": (RMSprop, 0.001),
}
CLAIMS = {"SGD": (1.0, 1.0), "Adam": (0.5, 1.0), "RMSProp": (0.5, 1.0)}

# 1) Runs ------------------------------------------------------------------------------


def workload_of(name: str) -> Workload:
    made, _ = OPTIMIZERS[name]
    return replace(
        digits.mlp(),
        name=f"digits-mlp-{name.lower()}",
        optimizer=lambda parameters, lr: made(parameters, lr=lr),
    )


def tuned_runs(name: str, args: argparse.Namespace) -> list[Run]:
    """Return all runs; each best rate has two worse ones on either side."""
    workload = workload_of(name)
    runs: list[Run] = []
    centre = round(math.log(OPTIMIZERS[name][1], RATIO))
    with open_store(args.folder / f"{workload.name}.sqlite", workload) as store:
        seeds = tuple(range(args.seeds))
        for size in args.sizes:
            tried: dict[int, list[Run]] = {}
            wanted = set(range(centre - AROUND, centre + AROUND + 1))
            while wanted:
                tried |= tried_at(workload, store, (size, seeds), sorted(wanted))
                centre = min(tried, key=lambda place: mean_steps(tried[place]))
                # Two worse ones on either side: the floor of the valley is seen.
                wanted = set(range(centre - 2, centre + 3)) - tried.keys()
            runs += [run for group in tried.values() for run in group]
            best = mean_steps(tried[centre])
            print(
                f"{name} at {size}: {len(tried)} rates, best {RATIO**centre:.3g}, "
                f"{best:.0f} steps",
                file=sys.stderr,
                flush=True,
            )
    return runs


def tried_at(
    workload: Workload,
    store: RunStore,
    cell: tuple[int, tuple[int, ...]],
    places: list[int],
) -> dict[int, list[Run]]:
    size, seeds = cell
    rates = {float(f"{RATIO**place:.6g}"): place for place in places}
    settings = SweepSettings(batch_sizes=(size,), lrs=tuple(rates), seeds=seeds)
    found: dict[int, list[Run]] = {place: [] for place in places}
    for run in sweep(workload, settings, processes=1, store=store, resume=True):
        found[rates[run.lr]].append(run)
    return found


def mean_steps(runs: Sequence[Run]) -> float:
    steps = [run.steps() for run in runs]
    return math.inf if None in steps else sum(s or 0 for s in steps) / len(steps)


# 2) The law ---------------------------------------------------------------------------


def fitted(runs: Sequence[Run], target: float | None = None) -> LearningRateFit:
    return fit_learning_rate(*columns(runs, target))


def columns(runs: Sequence[Run], target: float | None) -> tuple[list[float], ...]:
    steps = [run.steps(target) for run in runs]
    return (
        [run.batch_size for run in runs],
        [run.lr for run in runs],
        [math.nan if count is None else count for count in steps],
    )


def show(
    name: str, runs: Sequence[Run], target: float | None = None
) -> LearningRateFit:
    law = fitted(runs, target)
    sizes, rates, steps = columns(runs, target)
    phi = fit_tuned(sizes, steps, rates).fit.critical_batch_size
    print(f"\n{name}: {len(runs)} runs, law {law.form}, {law.status}")
    for optimum in law.optima:
        low, high = (optimum.to_dict()[end] for end in ("low", "high"))
        span = f"{low:.3g} to {high:.3g}" if low else optimum.excluded
        print(
            f"  batch {optimum.batch_size:5g}  best lr {optimum.lr or 0:8.3g}  {span}"
        )
    print(f"  exponent at small batches: {law.exponent}")
    print(f"  it saturates at a batch of: {law.plateau_batch_size}")
    print(f"  critical batch size of the same runs' steps: {phi}")
    claim = CLAIMS.get(name)
    low, high = law.exponent.low, law.exponent.high
    if claim and low is not None and high is not None:
        agree = low <= claim[1] and claim[0] <= high
        shown = "to ".join(f"{end:g} " for end in dict.fromkeys(claim)).strip()
        print(f"  claimed {shown}: {'within' if agree else 'outside'} the interval")
    return law


def draw(laws: dict[str, LearningRateFit], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "svg.hashsalt": "rightbatch",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    figure, panel = plt.subplots(figsize=(5.6, 3.8))
    for (name, law), color in zip(
        laws.items(), ("#2f6db3", "#d1722b", "#3a8f5c"), strict=False
    ):
        seen = [o for o in law.optima if o.lr and o.log_error]
        panel.errorbar(
            [o.batch_size for o in seen],
            [o.lr for o in seen],
            yerr=[
                [o.lr * (1 - math.exp(-o.log_error)) for o in seen],
                [o.lr * (math.exp(o.log_error) - 1) for o in seen],
            ],
            fmt="o",
            ms=4,
            color=color,
            label=f"{name}, exponent {law.exponent.value or math.nan:.2f}",
        )
        curve = law.curve()
        if curve:
            panel.plot(curve["batch_size"], curve["lr"], color=color)
            panel.fill_between(
                curve["batch_size"], curve["low"], curve["high"], color=color, alpha=0.2
            )
    panel.set(xscale="log", yscale="log", xlabel="batch size", ylabel="best lr")
    panel.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--also", type=Path, nargs="*", default=())
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    begin, laws = time.process_time(), {}
    for name in OPTIMIZERS:
        laws[name] = show(name, tuned_runs(name, args))
    for path in args.also:
        with RunStore(path) as store:
            runs = store.runs()
            for target in runs[0].targets:
                show(f"{store.identity.workload} to {target:g}", runs, target)
    if args.svg:
        draw(laws, args.svg)
    print(f"\n{time.process_time() - begin:.0f} s of one core")
    return 0


if __name__ == "__main__":
    sys.exit(main())
