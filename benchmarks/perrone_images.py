"""Perrone et al.'s image experiments: updates to a loss against batch size.

    python benchmarks/perrone_images.py --data-dir DATA --out FOLDER [--only NAME ...]

Each experiment is a sweep kept in FOLDER/NAME.sqlite; run again, it goes on.
Prints N_inf, alpha and the critical batch alpha/N_inf for every target, on the training
fifth and, where recorded, on the held-out one; then the paper's claims with a verdict;
and draws FOLDER/perrone-images.svg. With --no-runs only what is stored is read.

The whole takes hours on one core, which is why it is cut down beside the paper: one to
four seeds instead of ten, larger targets at small learning rates, batches up to where
an update of the larger nets still takes seconds.
"""

import argparse
import math
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import matplotlib
import torch

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from rightbatch.convergence import TunedFit, fit_tuned
from rightbatch.errors import InputError
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.identity import open_store
from rightbatch.experiments.record import Run
from rightbatch.experiments.sweep import SweepSettings, sweep
from rightbatch.workload import load_workload

# Two seeds do not tell means apart that are this close.
AS_GOOD = 1.25

# 1) What is run -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Experiment:
    name: str
    workload: str
    lrs: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    targets: tuple[float, ...]
    seeds: int = 1
    gate: float = 1.3
    held_out: bool = False
    # Of a batch size, where not all of `lrs` are tried.
    lrs_at: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    # Besides, at the best learning rate of each batch size and those about as good.
    more_seeds: int = 0

    def settings(self, batch_size: int) -> SweepSettings:
        return SweepSettings(
            batch_sizes=(batch_size,),
            lrs=self.lrs_at.get(batch_size, self.lrs),
            seeds=tuple(range(self.seeds)),
            targets=self.targets,
            crossing=Crossing(gate=self.gate),
            record_held_out=self.held_out,
        )


def doubling(low: int, high: int, factor: int = 2) -> tuple[int, ...]:
    sizes = [low]
    while sizes[-1] < high:
        sizes.append(sizes[-1] * factor)
    return tuple(sizes)


EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            name="small-tuned",
            workload="mnist-lenet-small",
            lrs=(0.05, 0.1, 0.2, 0.4, 0.8),
            lrs_at={
                8: (0.05, 0.1),
                16: (0.05, 0.1, 0.2),
                **dict.fromkeys((32, 64), (0.1, 0.2, 0.4)),
                **dict.fromkeys(doubling(128, 1024), (0.2, 0.4, 0.8)),
            },
            batch_sizes=doubling(8, 1024),
            targets=(0.3, 0.2, 0.1),
            seeds=2,
            more_seeds=2,
        ),
        Experiment(
            name="small-.01",
            workload="mnist-lenet-small",
            lrs=(0.01,),
            batch_sizes=(8, 32, 128, 512, 1024),
            targets=(0.7, 0.5, 0.3),
            gate=1.15,
        ),
        Experiment(
            name="medium-.01",
            workload="mnist-lenet-medium",
            lrs=(0.01,),
            batch_sizes=(8, 32, 128, 256),
            targets=(0.7, 0.5, 0.3),
            gate=1.15,
        ),
        Experiment(
            name="medium-.05",
            workload="mnist-lenet-medium",
            lrs=(0.05,),
            batch_sizes=(8, 32, 128, 512, 1024),
            targets=(0.7, 0.5, 0.3),
            held_out=True,
        ),
        Experiment(
            name="even-odd-.05",
            workload="mnist-even-odd",
            lrs=(0.05,),
            batch_sizes=(8, 32, 128, 512, 1024),
            targets=(0.35, 0.25, 0.15),
        ),
        Experiment(
            name="large-.01",
            workload="mnist-lenet-large",
            lrs=(0.01,),
            batch_sizes=(8, 16, 64, 128),
            targets=(0.7, 0.5, 0.3),
            gate=1.15,
        ),
        Experiment(
            name="cifar10-lenet-.05",
            workload="cifar10-lenet",
            lrs=(0.05,),
            batch_sizes=doubling(8, 512, 4),
            targets=(1.7, 1.5, 1.3),
            held_out=True,
        ),
    )
}


def runs_of(experiment: Experiment, args: argparse.Namespace) -> tuple[Run, ...]:
    """Return the runs of an experiment: from its store, and trained where they lack."""
    path = args.out / f"{experiment.name}.sqlite"
    workload = load_workload(experiment.workload, args.data_dir)
    if args.no_runs and not path.exists():
        return ()
    with open_store(path, workload) as store:
        if args.no_runs:
            return tuple(r for r in store.runs() if r.targets == experiment.targets)

        def said(done: int, total: int, run: Run) -> None:
            told = f"{experiment.name} {done}/{total}: M {run.batch_size} lr {run.lr:g}"
            print(f"  {told} {run.status} {run.steps()}", file=sys.stderr, flush=True)

        def swept(settings: SweepSettings) -> tuple[Run, ...]:
            return sweep(
                experiment.workload,
                settings,
                processes=args.processes,
                data_dir=args.data_dir,
                store=store,
                resume=True,
                on_progress=said,
            )

        runs: tuple[Run, ...] = ()
        for batch_size in reversed(experiment.batch_sizes):
            settings = experiment.settings(batch_size)
            here = swept(settings)
            if experiment.more_seeds:
                here += swept(more_seeds(experiment, settings, here))
            runs += here
        return runs


def more_seeds(
    experiment: Experiment, settings: SweepSettings, runs: tuple[Run, ...]
) -> SweepSettings:
    """Return what runs the best learning rates of one batch size with further seeds."""
    hardest = min(experiment.targets)

    def mean(lr: float) -> float:
        steps = [run.steps(hardest) for run in runs if run.lr == lr]
        return math.inf if None in steps else sum(s or 0 for s in steps) / len(steps)

    first = experiment.seeds
    means = {lr: mean(lr) for lr in settings.lrs or ()}
    near = tuple(lr for lr in means if means[lr] <= AS_GOOD * min(means.values()))
    seeds = tuple(range(first, first + experiment.more_seeds))
    return replace(settings, lrs=near, seeds=seeds)


MIN_BATCH_SIZES = 4

# 2) What is read off ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reading:
    experiment: Experiment
    target: float
    held_out: bool
    fit: TunedFit
    # One of several; None where the best of each batch size was taken, or there is one.
    lr: float | None = None

    @property
    def title(self) -> str:
        if self.lr is not None:
            return f"{self.experiment.name}, lr {self.lr:g} alone"
        return f"{self.experiment.name}, {'held-out' if self.held_out else 'training'}"

    def line(self) -> str:
        fit = self.fit.fit
        phi, least, examples = (
            self._shown(interval)
            for interval in (fit.critical_batch_size, fit.min_steps, fit.min_examples)
        )
        law = fit.candidates[0].law
        return (
            f"{self.title:30s}{self.target:>6g}{least:>24s}{examples:>28s}{phi:>22s}"
            f"{fit.median_relative_error:8.1%}{inverse_error(self):9.1%}  "
            f"{law}, {fit.status}"
        )

    @staticmethod
    def _shown(interval: object) -> str:
        value, low, high = interval.value, interval.low, interval.high
        ends = [
            f"{end:,.0f}" if end is not None and math.isfinite(end) else "none"
            for end in (low, high)
        ]
        return f"{'none' if value is None else f'{value:,.0f}'} ({' to '.join(ends)})"


def inverse_error(reading: Reading) -> float:
    """Return the median error of the inverse law fitted to the same runs."""
    points = reading.fit.fit.points
    sizes, steps = [p.batch_size for p in points], [p.mean_steps for p in points]
    fit = fit_tuned(sizes, steps, law="inverse").fit
    return fit.median_relative_error


def readings(experiment: Experiment, runs: tuple[Run, ...]) -> Iterator[Reading]:
    for held_out in (False, True) if experiment.held_out else (False,):
        for target in experiment.targets:
            steps = [
                run.held_out_steps(target) if held_out else run.steps(target)
                for run in runs
            ]
            counts = [math.nan if count is None else count for count in steps]
            sizes, lrs = [r.batch_size for r in runs], [r.lr for r in runs]
            everything = list(zip(sizes, counts, lrs, strict=True))
            for lr in (None, *(experiment.lrs if len(experiment.lrs) > 1 else ())):
                # Rates that fail at some batch sizes are fitted to the others.
                part = [
                    one
                    for one in everything
                    if lr is None or (one[2] == lr and not math.isnan(one[1]))
                ]
                if len({size for size, *_ in part}) < MIN_BATCH_SIZES:
                    continue
                try:
                    fit = fit_tuned(*zip(*part, strict=True))
                except InputError as error:
                    print(f"{experiment.name} at {target:g}, lr {lr}: {error}")
                    continue
                yield Reading(
                    experiment=experiment,
                    target=target,
                    held_out=held_out,
                    fit=fit,
                    lr=lr,
                )


def table_of_steps(experiment: Experiment, runs: tuple[Run, ...]) -> None:
    print(f"\n{experiment.name}: mean updates to a loss of {experiment.targets}")
    for size in experiment.batch_sizes:
        cells: list[str] = []
        for lr in experiment.lrs:
            here = [run for run in runs if (run.batch_size, run.lr) == (size, lr)]
            means = [mean_steps(here, target) for target in experiment.targets]
            cells.append(f"{lr:g}: {' '.join(means)}")
        print(f"  M {size:5d}   {'   '.join(cells)}")


def mean_steps(runs: list[Run], target: float) -> str:
    steps = [run.steps(target) for run in runs]
    if not steps or None in steps:
        return "-"
    return f"{sum(steps) / len(steps):.0f}"


# 3) The claims ------------------------------------------------------------------------


def verdicts(found: list[Reading]) -> None:
    print("\nclaims")
    for target in sorted({r.target for r in found if r.lr is not None}, reverse=True):
        said = [
            f"{r.lr:g}: {r.fit.fit.min_steps.value or math.nan:,.0f}"
            for r in found
            if r.lr is not None and r.target == target
        ]
        print(f"- N_inf by learning rate, to {target:g}: {', '.join(said)}")
    found = [r for r in found if r.lr is None]
    good = [r for r in found if r.fit.fit.status == "ok"]
    near = sum(inverse_error(r) <= 0.1 for r in found)
    print(
        f"- N = N_inf + alpha/M: median error at most 10 % in {near} of {len(found)} "
        f"curves; alpha and N_inf both known in {len(good)}"
    )
    for name, one, other in (
        ("a larger learning rate has the smaller N_inf", "medium-.01", "medium-.05"),
        ("even/odd against ten classes, N_inf", "medium-.05", "even-odd-.05"),
    ):
        print(
            f"- {name}: {of(found, one, 'min_steps')}; {of(found, other, 'min_steps')}"
        )
    print(
        "- alpha grows from MNIST to CIFAR10 at lr .05: "
        f"{of(found, 'medium-.05', 'min_examples')}; "
        f"{of(found, 'cifar10-lenet-.05', 'min_examples')}"
    )


def of(found: list[Reading], name: str, field: str) -> str:
    said = [
        f"{r.target:g} {getattr(r.fit.fit, field).value or math.nan:,.0f}"
        for r in found
        if r.experiment.name == name and not r.held_out
    ]
    return f"{name} {', '.join(said) or 'not run'}"


# 4) The figure ------------------------------------------------------------------------


def draw(found: list[Reading], path: Path) -> None:
    plt.rcParams.update(
        {
            "svg.hashsalt": "rightbatch",
            "font.size": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9,
            "axes.titlelocation": "left",
        }
    )
    titles = list(dict.fromkeys(reading.title for reading in found))
    rows = -(-len(titles) // 3)
    figure, panels = plt.subplots(rows, 3, figsize=(9.6, 2.6 * rows), squeeze=False)
    colors = ("#8a8f98", "#2f6db3", "#d1722b")
    for panel in panels.flat[len(titles) :]:
        panel.remove()
    for title, panel in zip(titles, panels.flat, strict=False):
        here = [reading for reading in found if reading.title == title]
        for color, reading in zip(colors, here, strict=False):
            fit = reading.fit.fit
            grid = np.geomspace(*fit.fitted_range, 100)
            sizes, steps = zip(
                *((p.batch_size, p.mean_steps) for p in fit.points), strict=True
            )
            panel.loglog(grid, fit.steps(grid), color=color)
            label = f"{reading.target:g}"
            panel.loglog(sizes, steps, "o", ms=3.5, color=color, label=label)
        panel.set_title(title)
        panel.legend(frameon=False, title="loss", fontsize=7, title_fontsize=7)
        panel.set_xlabel("batch size M")
        panel.set_ylabel("updates")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS)
    parser.add_argument("--processes", type=int, help="one per core by default")
    parser.add_argument("--no-runs", action="store_true", help="read the stores alone")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    found: list[Reading] = []
    seconds = 0.0
    for name in args.only:
        runs = runs_of(EXPERIMENTS[name], args)
        if not runs:
            print(f"{name}: not run")
            continue
        table_of_steps(EXPERIMENTS[name], runs)
        seconds += sum(r.seconds_training + r.seconds_checking for r in runs)
        found += readings(EXPERIMENTS[name], runs)
    print(
        f"\n{'':30s}{'loss':>6s}{'N_inf':>24s}{'alpha':>28s}{'alpha/N_inf':>22s}"
        f"{'error':>8s}{'inverse':>9s}  law"
    )
    for reading in found:
        print(reading.line())
    verdicts(found)
    if found:
        tuned = [reading for reading in found if reading.lr is None]
        draw(tuned, args.out / "perrone-images.svg")
    print(
        f"\n{seconds / 60:.1f} minutes of runs; python {platform.python_version()}, "
        f"torch {torch.__version__}, one thread a process"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
