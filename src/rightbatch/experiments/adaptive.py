"""Runs to a target bought one at a time, each where it lowers the regret most.

What to run next is decided by :class:`rightbatch.training_time.next_run.Buyer`, and at
which learning rates by :mod:`rightbatch.experiments.adaptive_job`. Every decision
follows from the runs and the step times alone, so that from a store that holds them the
same purchases come again, without training.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from rightbatch._checks import positive, positive_integer
from rightbatch.errors import InputError
from rightbatch.experiments.adaptive_job import (
    Job,
    best_runs,
    jobs_of,
    lrs_in_play,
    run_job,
)
from rightbatch.experiments.identity import open_store
from rightbatch.experiments.record import Run
from rightbatch.experiments.store import RunStore
from rightbatch.experiments.sweep import SweepSettings, sweep
from rightbatch.experiments.workers import run_in_processes
from rightbatch.training_time.next_run import Bought, Buyer, Purchase
from rightbatch.workload import Workload

Stopped = Literal["met", "budget", "most", "missed"]

# Where the seeds scatter so far that the regret stays, more than the grid would take.
MOST_PURCHASES = 40
# So many seeds that miss at a batch size with every rate, and no more are run there.
MOST_MISSED_SEEDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Buying:
    """What runs are bought for, and within which bounds.

    Args:
        settings: The learning rates, targets and budget of a run; its batch sizes are
            those that may be run. Its seeds say nothing here.
        buyer: Decides what to run next, among the same batch sizes.
        budget_seconds: No purchase begins once the runs have taken so long, training
            and checks; None for no bound. The first two always do.
        most_purchases: No more than these.
        at_once: Purchases decided on together, and run in as many processes.
        resume: Take runs that the store has.

    Raises:
        InputError: A number is not positive, or the batch sizes differ.
    """

    settings: SweepSettings
    buyer: Buyer
    budget_seconds: float | None = None
    most_purchases: int = MOST_PURCHASES
    at_once: int = 1
    resume: bool = False

    def __post_init__(self) -> None:
        if self.budget_seconds is not None:
            positive("buy_runs", "budget_seconds", self.budget_seconds)
        positive_integer("buy_runs", "most_purchases", self.most_purchases)
        positive_integer("buy_runs", "at_once", self.at_once)
        if tuple(self.buyer.candidates) != self.settings.batch_sizes:
            raise InputError(
                "buy_runs: the buyer's `candidates` must be the `batch_sizes` of the "
                f"settings, got {self.buyer.candidates} and "
                f"{self.settings.batch_sizes}."
            )


Train = Callable[[Sequence[Job]], Sequence[tuple[Run, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """One purchase: what was run, what it took, what was known then.

    Args:
        batch_size: Examples per step.
        lrs: Learning rates tried.
        seed: The seed.
        reason: As :class:`~rightbatch.training_time.next_run.Purchase` has it.
        seconds: Training and checks of all its runs. Unit: seconds.
        regret: The largest of the strict quantiles after it; None before two batch
            sizes have reached the target.
    """

    batch_size: int
    lrs: tuple[float, ...]
    seed: int
    reason: str
    seconds: float
    regret: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {
            "batch_size": self.batch_size,
            "lrs": list(self.lrs),
            "seed": self.seed,
            "reason": self.reason,
            "seconds": self.seconds,
            "regret": self.regret,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BoughtRuns:
    """The runs bought, and why no more were.

    Args:
        runs: Sorted by batch size, learning rate and seed.
        bills: One per purchase, in order.
        bought: The runs that count, at the best rate of each batch size.
        stopped: ``met``: the regret is small enough and the law was tested, if it can
            be; ``budget``; ``most``: purchases; ``missed``: too few batch sizes reached
            the target, or seeds miss it too often to go on.
    """

    runs: tuple[Run, ...]
    bills: tuple[Bill, ...]
    bought: Bought
    stopped: Stopped

    @property
    def seconds(self) -> float:
        """What all purchases took."""
        return sum(bill.seconds for bill in self.bills)


def buy_runs(
    workload: Workload | str,
    buying: Buying,
    store: RunStore,
    *,
    data_dir: Path | None = None,
    on_purchase: Callable[[Bill], None] | None = None,
) -> BoughtRuns:
    """Return runs to the target, bought until the regret is small enough.

    Args:
        workload: A name that :func:`rightbatch.workload.load_workload` knows, or a
            workload itself, which is run in this process.
        buying: What for, and within which bounds.
        store: Takes each run as it ends; begins a session if none was.
        data_dir: Where a workload given by name looks for its data.
        on_purchase: Called with each bill.

    Returns:
        The runs and their bills.

    Raises:
        InputError: A setting is out of range, or several purchases are to be run at
            once of a workload that has no name.
        WorkloadFailedError: The workload's own code raised.
        StoreError: The store cannot be written.
        RightbatchError: A worker process was killed.
    """
    spec = workload if isinstance(workload, str) else None
    if isinstance(workload, str):
        workload = buying.settings.load(workload, data_dir)
    settings = buying.settings.resolved(workload)
    buying = replace(buying, settings=settings)
    if store.session is None:
        store.begin(resume=buying.resume)
    here = partial(_train, workload, settings, store, buying.resume)

    def train(jobs: Sequence[Job]) -> Sequence[tuple[Run, ...]]:
        if len(jobs) == 1:
            return [here(jobs[0])]
        if spec is None:
            raise InputError(
                "buy_runs: `workload` must be a name where several purchases are run "
                f"at once, got a Workload, {workload.name}.",
                "buy one at a time",
            )
        arguments = (spec, data_dir, settings, store.path, buying.resume)
        done = dict(run_in_processes(_prepare, arguments, enumerate(jobs), len(jobs)))
        return [done[place] for place in range(len(jobs))]

    return buy(buying, train, on_purchase)


def buy(
    buying: Buying,
    train: Train,
    on_purchase: Callable[[Bill], None] | None = None,
) -> BoughtRuns:
    """Return runs bought until the regret is small enough, however they are made.

    Args:
        buying: What for, and within which bounds; its learning rates given.
        train: Makes the runs of some jobs, as :func:`run_job` does.
        on_purchase: Called with each bill.

    Returns:
        The runs and their bills.
    """
    runs: list[Run] = []
    bills: list[Bill] = []
    while True:
        bought = _bought(runs, bills)
        lrs = buying.settings.lrs or ()
        counts = [len(lrs_in_play(runs, b, lrs)) for b in buying.buyer.candidates]
        at_once = max(min(buying.at_once, buying.most_purchases - len(bills)), 1)
        purchases = buying.buyer.next_purchases(bought, at_once, counts)
        # What is met is met, whatever bound it has come to meanwhile.
        stopped = _limit(buying, bills) if purchases else _end(buying.buyer, bought)
        if stopped is not None:
            break
        jobs = jobs_of(purchases, runs, lrs)
        for purchase, done in zip(purchases, train(jobs), strict=True):
            runs += done
            bill = _bill(purchase, done)
            bought = _bought(runs, [*bills, bill])
            bills.append(replace(bill, regret=_regret(buying.buyer, bought)))
            if on_purchase is not None:
                on_purchase(bills[-1])
    runs.sort(key=lambda run: (run.batch_size, run.lr, run.seed))
    return BoughtRuns(
        runs=tuple(runs), bills=tuple(bills), bought=bought, stopped=stopped
    )


def _limit(buying: Buying, bills: Sequence[Bill]) -> Stopped | None:
    """Return the bound that ends the buying; None while there is none."""
    if len(bills) >= buying.most_purchases:
        return "most"
    spent = sum(bill.seconds for bill in bills)
    is_started = bool(bills) and bills[-1].regret is not None
    if is_started and buying.budget_seconds and spent >= buying.budget_seconds:
        return "budget"
    return None


def _end(buyer: Buyer, bought: Bought) -> Stopped:
    """Return what ends the buying where there is nothing left to buy."""
    regret = _regret(buyer, bought)
    return "met" if regret is not None and regret <= buyer.goal else "missed"


def _bought(runs: Sequence[Run], bills: Sequence[Bill]) -> Bought:
    counted = best_runs(runs)
    reached = {run.batch_size for run in counted}
    missed = {run.batch_size for run in runs} - reached
    return Bought(
        batch_sizes=tuple(run.batch_size for run in counted),
        steps=tuple(float(run.steps() or 0) for run in counted),
        missed=tuple(sorted(missed)),
        closed=_closed(runs),
        num_tests=sum(bill.reason == "law" for bill in bills),
    )


def _closed(runs: Sequence[Run]) -> tuple[int, ...]:
    arrived: dict[tuple[int, int], bool] = {}
    for run in runs:
        key = (run.batch_size, run.seed)
        arrived[key] = arrived.get(key, False) or run.steps() is not None
    missed = Counter(size for (size, _), did in arrived.items() if not did)
    return tuple(
        sorted(size for size, num in missed.items() if num >= MOST_MISSED_SEEDS)
    )


def _bill(purchase: Purchase, runs: Sequence[Run]) -> Bill:
    return Bill(
        batch_size=purchase.batch_size,
        lrs=tuple(sorted(run.lr for run in runs)),
        seed=runs[0].seed,
        reason=purchase.reason,
        seconds=sum(run.seconds_training + run.seconds_checking for run in runs),
        regret=None,
    )


def _regret(buyer: Buyer, bought: Bought) -> float | None:
    if len(set(bought.batch_sizes)) < 2:
        return None
    return buyer.assess(bought).value


def _train(
    workload: Workload,
    settings: SweepSettings,
    store: RunStore,
    resume: bool,
    job: Job,
) -> tuple[Run, ...]:
    def run(lrs: tuple[float, ...], max_steps: int | None) -> tuple[Run, ...]:
        cell = replace(
            settings,
            batch_sizes=(job.batch_size,),
            seeds=(job.seed,),
            lrs=lrs,
            max_steps=max_steps,
        )
        return sweep(workload, cell, processes=1, store=store, resume=resume)

    return run_job(job, settings, run)


def _prepare(
    spec: str, data_dir: Path | None, settings: SweepSettings, path: Path, resume: bool
) -> Callable[[tuple[int, Job]], Iterator[tuple[int, tuple[Run, ...]]]]:
    torch.set_num_threads(1)
    workload = settings.load(spec, data_dir)

    def work(placed: tuple[int, Job]) -> Iterator[tuple[int, tuple[Run, ...]]]:
        place, job = placed
        with open_store(path, workload) as store:
            # The session that the parent has begun.
            store.begin(resume=True)
            yield place, _train(workload, settings, store, resume, job)

    return work
