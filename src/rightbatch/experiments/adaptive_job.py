"""One purchase of runs: a batch size, a seed, and the learning rates it needs.

The first two batch sizes try all learning rates of the workload. Later ones try the
neighbours of the best, interpolated between the batch sizes run; a seed after the first
tries those that the earlier ones left in play. Where the best of those tried is the
least or the largest, the next one beyond is tried too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.convergence import best_learning_rates
from rightbatch.experiments.race import FIRST_BUDGET
from rightbatch.experiments.record import Run
from rightbatch.experiments.sweep import SweepSettings
from rightbatch.training_time.next_run import Purchase

# A learning rate this much slower than the best of its batch size is out of play: two
# runs at a usual noise of 10 to 15 % seldom lie farther apart by chance.
IN_PLAY = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A batch size and a seed to run, and the learning rates to begin with.

    Args:
        batch_size: Examples per step.
        seed: Of the initialisation and the order of the data.
        lrs: To begin with.
        tried: Those that earlier seeds tried at this batch size.
    """

    batch_size: int
    seed: int
    lrs: tuple[float, ...]
    tried: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"batch size {self.batch_size}, seed {self.seed}"


def jobs_of(
    purchases: Sequence[Purchase], runs: Sequence[Run], lrs: Sequence[float]
) -> tuple[Job, ...]:
    """Return purchases with the next unused seed, and the learning rates to try.

    Args:
        purchases: What was decided.
        runs: Those there are.
        lrs: Learning rates of the workload, ascending.

    Returns:
        One job per purchase.
    """
    jobs: list[Job] = []
    for purchase in purchases:
        size = purchase.batch_size
        there = [run for run in runs if run.batch_size == size]
        seeds = {run.seed for run in there}
        seeds |= {job.seed for job in jobs if job.batch_size == size}
        job = Job(
            batch_size=size,
            seed=max(seeds, default=-1) + 1,
            lrs=lrs_in_play(runs, size, lrs),
            tried=tuple(sorted({run.lr for run in there})),
        )
        jobs.append(job)
    return tuple(jobs)


def lrs_in_play(
    runs: Sequence[Run], batch_size: int, lrs: Sequence[float]
) -> tuple[float, ...]:
    """Return the learning rates that a run at a batch size begins with.

    Args:
        runs: Those there are.
        batch_size: Where to run.
        lrs: Learning rates of the workload, ascending.

    Returns:
        All of them before two batch sizes have reached the target; at a batch size
        that has, those within 1.3 times the fewest mean steps; elsewhere the best as
        interpolated, and its two neighbours.
    """
    best = _best(runs)
    if batch_size in best:
        means = _mean_steps(runs, batch_size)
        most = IN_PLAY * min(means.values())
        return tuple(lr for lr in sorted(means) if means[lr] <= most)
    if len(best) < 2:
        return tuple(lrs)
    sizes = np.log(list(best))
    wanted = np.interp(math.log(batch_size), sizes, np.log(list(best.values())))
    nearest = int(np.abs(np.log(lrs) - wanted).argmin())
    return tuple(lrs[max(nearest - 1, 0) : nearest + 2])


def best_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that reached the target at the best rate of their batch size.

    Args:
        runs: Those there are.

    Returns:
        What a law is fitted to, as :func:`rightbatch.convergence.fit_tuned` does.
    """
    best = _best(runs)
    return [
        run
        for run in runs
        if run.steps() is not None and best.get(run.batch_size) == run.lr
    ]


def run_job(
    job: Job,
    settings: SweepSettings,
    run: Callable[[tuple[float, ...], int | None], tuple[Run, ...]],
) -> tuple[Run, ...]:
    """Return the runs of a job, further learning rates tried where they may be better.

    Args:
        job: What to run.
        settings: All learning rates, and the budget of a run.
        run: Takes learning rates and the updates allowed, None for the usual; returns
            a run for each.

    Returns:
        The runs.
    """
    runs = list(run(job.lrs, settings.max_steps))
    while further := _further(runs, job, settings.lrs or ()):
        runs += run(further, _cap(runs, settings))
    return tuple(runs)


def _further(runs: Sequence[Run], job: Job, lrs: Sequence[float]) -> tuple[float, ...]:
    tried = {*job.tried, *(run.lr for run in runs)}
    arrived = [(steps, run.lr) for run in runs if (steps := run.steps()) is not None]
    if not arrived:
        # Nothing is known of where the best one lies, unless another seed found it.
        return () if job.tried else tuple(lr for lr in lrs if lr not in tried)
    _, best = min(arrived)
    if best == min(tried):
        return tuple(lr for lr in lrs if lr < best)[-1:]
    if best == max(tried):
        return tuple(lr for lr in lrs if lr > best)[:1]
    return ()


def _cap(runs: Sequence[Run], settings: SweepSettings) -> int | None:
    # As in a race: late ones are capped at a multiple of the steps of the fastest.
    fastest = [run.last_step for run in runs if run.status == "reached"]
    if not fastest:
        return settings.max_steps
    cap = max(FIRST_BUDGET, math.ceil(settings.cap_factor * min(fastest)))
    return cap if settings.max_steps is None else min(cap, settings.max_steps)


def _mean_steps(runs: Sequence[Run], batch_size: int) -> dict[float, float]:
    """Return the mean steps of each rate all of whose runs there reached the target."""
    found: dict[float, list[int | None]] = {}
    for run in runs:
        if run.batch_size == batch_size:
            found.setdefault(run.lr, []).append(run.steps())
    means = {
        lr: float(np.mean([count for count in counts if count is not None]))
        for lr, counts in found.items()
        if any(count is not None for count in counts)
    }
    whole = {lr: mean for lr, mean in means.items() if None not in found[lr]}
    return whole or means


def _best(runs: Sequence[Run]) -> dict[int, float]:
    best = best_learning_rates(
        [run.batch_size for run in runs],
        [run.lr for run in runs],
        [math.nan if (count := run.steps()) is None else count for run in runs],
    )
    return {int(size): lr for size, lr in best.items()}
