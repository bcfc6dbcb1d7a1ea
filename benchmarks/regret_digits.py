"""Runs bought by regret on digits-mlp, against a dense grid that was run once.

    python benchmarks/regret_digits.py [--replays 200] [--goal .05] [--live]

The dense grid is 11 batch sizes x 10 seeds x 6 learning rates, kept in
docs/results/data/digits-mlp-dense.csv; seconds per step are in digits-mlp-times.csv:

    rightbatch sweep digits-mlp --batch-sizes 1:1024:x2 --seeds 10 --store dense.sqlite
    rightbatch runs dense.sqlite --csv docs/results/data/digits-mlp-dense.csv
    rightbatch time digits-mlp --csv docs/results/data/digits-mlp-times.csv

The true time of a batch is the mean steps of its best learning rate times the seconds
of a step, both interpolated between the batch sizes of the grid. In each replay the
runs are looked up in the grid, the seeds of each batch size in an order of its own: the
same ten seeds whose mean is taken as true. The recommended batch is the one that buying
ends on, as `plan` prints it. It
prints how often the recommended batch truly loses at most the goal, and the examples
used as a share of the grid's. The exit status is 1 when the first is below .9, or the
second above a tenth. With --live the runs are trained once for real, and their seconds
are printed.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rightbatch.convergence import best_learning_rates
from rightbatch.experiments.adaptive import BoughtRuns, Buying, buy, buy_runs
from rightbatch.experiments.adaptive_job import Job, run_job
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.identity import open_store
from rightbatch.experiments.record import Run, TargetCrossing
from rightbatch.experiments.sweep import SweepSettings
from rightbatch.experiments.workloads.digits import mlp
from rightbatch.step_time import fit_step_time
from rightbatch.training_time import BatchLimits
from rightbatch.training_time.next_run import Buyer

DATA = Path(__file__).parents[1] / "docs" / "results" / "data"
KEPT, SHARE = 0.9, 0.1
TARGET, CAP_FACTOR, FIRST_BUDGET = 0.15, 2.5, 64
Cell = tuple[int, float, int]


def read_grid() -> dict[Cell, float]:
    """Return the steps by batch size, learning rate and seed, NaN if not reached."""
    with (DATA / "digits-mlp-dense.csv").open() as file:
        return {
            (int(row["batch_size"]), float(row["lr"]), int(row["seed"])): float(
                row["steps"] or "nan"
            )
            for row in csv.DictReader(file)
        }


def read_times() -> dict[int, float]:
    """Return the seconds per step of each batch size."""
    with (DATA / "digits-mlp-times.csv").open() as file:
        rows = csv.DictReader(file)
        return {int(row["batch_size"]): float(row["seconds"]) for row in rows}


class Grid:
    """The dense grid: what is true of it, and its runs looked up."""

    def __init__(self) -> None:
        self.steps, self.seconds = read_grid(), read_times()
        cells = list(self.steps)
        best = best_learning_rates(
            [size for size, _, _ in cells],
            [lr for _, lr, _ in cells],
            [self.steps[cell] for cell in cells],
        )
        self.batch_sizes = sorted(int(size) for size in best)
        self.lrs = tuple(sorted({lr for _, lr, _ in cells}))
        self.best_lrs = best
        self.mean_steps = {
            size: np.nanmean(
                [self.steps[c] for c in cells if c[0] == size and c[1] == best[size]]
            )
            for size in self.batch_sizes
        }
        self.least = float(self.time(np.arange(1, self.batch_sizes[-1] + 1)).min())

    def time(self, batch_size: ArrayLike) -> NDArray[np.float64]:
        """Return the true seconds to the target."""
        sizes = np.log(self.batch_sizes)
        steps = np.log([self.mean_steps[size] for size in self.batch_sizes])
        seconds = [self.seconds[size] for size in self.batch_sizes]
        wanted = np.log(batch_size)
        return np.exp(np.interp(wanted, sizes, steps)) * np.interp(
            batch_size, self.batch_sizes, seconds
        )

    def regret(self, batch_size: int) -> float:
        return float(self.time(batch_size)) / self.least - 1

    def examples(self, runs: Sequence[tuple[int, float, int]]) -> float:
        """Return the examples of some runs, late ones capped as in a race."""
        fastest: dict[tuple[int, int], float] = {}
        for size, lr, seed in runs:
            known = fastest.get((size, seed), np.inf)
            fastest[size, seed] = np.fmin(known, self.steps[size, lr, seed])
        return sum(
            size * np.fmin(self.steps[size, lr, seed], self.cap(fastest[size, seed]))
            for size, lr, seed in runs
        )

    @staticmethod
    def cap(fastest: float) -> float:
        return max(FIRST_BUDGET, CAP_FACTOR * fastest)

    def run(self, size: int, lr: float, seed: int, row: int) -> Run:
        """Return what is known of a run, under the seed that the buyer gave it."""
        steps = self.steps[size, lr, row]
        reached = bool(np.isfinite(steps))
        status = "reached" if reached else "not_reached"
        crossed = TargetCrossing(
            target=TARGET, status=status, steps=int(steps) if reached else None
        )
        made = int(steps) if reached else 0
        return Run(
            batch_size=size,
            lr=lr,
            seed=seed,
            status=status,
            last_step=made,
            budget=made,
            trace=(),
            crossings=(crossed,),
            nearest=None,
            crossing=Crossing(),
            seconds_training=made * self.seconds[size],
            seconds_checking=0.0,
            median_step_seconds=self.seconds[size],
        )


def buying_of(grid: Grid, goal: float) -> Buying:
    sizes, seconds = list(grid.seconds), list(grid.seconds.values())
    return Buying(
        settings=SweepSettings(batch_sizes=tuple(grid.batch_sizes), lrs=grid.lrs),
        buyer=Buyer(
            step_time=fit_step_time(sizes, seconds).law,
            candidates=grid.batch_sizes,
            limits=BatchLimits(max_batch_size=grid.batch_sizes[-1]),
            goal=goal,
        ),
    )


def replay(grid: Grid, buying: Buying, seed: int) -> tuple[float, float, int]:
    """Return the true regret of a replay, its share of examples, its purchases."""
    generator = np.random.default_rng(seed)
    order = {size: generator.permutation(10) for size in grid.batch_sizes}
    used: list[Cell] = []

    def looked_up(job: Job) -> tuple[Run, ...]:
        row = int(order[job.batch_size][job.seed % 10])

        def run(lrs: tuple[float, ...], _: int | None) -> tuple[Run, ...]:
            used.extend((job.batch_size, lr, row) for lr in lrs)
            return tuple(grid.run(job.batch_size, lr, job.seed, row) for lr in lrs)

        return run_job(job, buying.settings, run)

    found = buy(buying, lambda jobs: [looked_up(job) for job in jobs])
    share = grid.examples(used) / grid.examples(list(grid.steps))
    return grid.regret(recommended(found, buying)), share, len(found.bills)


def recommended(found: BoughtRuns, buying: Buying) -> int:
    return buying.buyer.assess(found.bought).regrets[0].batch_size


def show_live(grid: Grid, buying: Buying) -> None:
    """Train the runs for real, once."""
    workload = mlp()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_store(Path(folder) / "live.sqlite", workload) as store,
    ):
        found = buy_runs(workload, buying, store)
    for bill in found.bills:
        known = "" if bill.regret is None else f"regret {100 * bill.regret:.1f} %"
        rates = ", ".join(f"{lr:g}" for lr in bill.lrs)
        print(
            f"  batch size {bill.batch_size:4}, seed {bill.seed}, lrs {rates}: "
            f"{bill.seconds:.2f} s {known}"
        )
    best = recommended(found, buying)
    examples = sum(run.last_step * run.batch_size for run in found.runs)
    share = examples / grid.examples(list(grid.steps))
    print(
        f"live: batch size {best}, true regret {100 * grid.regret(best):.1f} %, "
        f"{found.seconds:.1f} s, {100 * share:.1f} % of the grid's examples"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs bought by regret, on digits.")
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--goal", type=float, default=0.05)
    parser.add_argument("--live", action="store_true")
    args = parser.parse_args()
    grid = Grid()
    print("  batch   lr  mean steps  seconds  loses")
    for size in grid.batch_sizes:
        lost = f"{100 * grid.regret(size):5.1f} %"
        steps, seconds = grid.mean_steps[size], float(grid.time(size))
        print(f"{size:7} {grid.best_lrs[size]:4g} {steps:11.1f} {seconds:8.3f} {lost}")
    buying = buying_of(grid, args.goal)
    found = np.array([replay(grid, buying, seed) for seed in range(args.replays)])
    kept, share = float(np.mean(found[:, 0] <= args.goal)), float(found[:, 1].mean())
    print(
        f"{args.replays} replays: {kept:.3f} lose at most {100 * args.goal:g} %; "
        f"{found[:, 2].mean():.1f} purchases and {100 * share:.1f} % of the grid's "
        f"examples on average, {100 * found[:, 1].max():.1f} % at most"
    )
    if args.live:
        show_live(grid, buying)
    return int(kept < KEPT or share > SHARE)


if __name__ == "__main__":
    sys.exit(main())
