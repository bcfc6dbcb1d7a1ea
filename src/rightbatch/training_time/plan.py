"""The plan: the best batch size for each number of replicas, explained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.training_time.factorisation import Factorisation
from rightbatch.training_time.law import NO_LIMITS, BatchLimits, TrainingTimeLaw
from rightbatch.training_time.search import (
    LimitedBy,
    best_batch_size,
    limited_by,
    range_around,
    served_range,
)
from rightbatch.training_time.support import (
    fitted_range_of,
    limits_of,
    noise_is_known,
)
from rightbatch.training_time.uncertainty import (
    LEVEL,
    WITHIN,
    PlanDraws,
    PlanIntervals,
    beyond_runs,
    plan_intervals,
    unknown_intervals,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """The best batch size on one number of replicas, and why.

    Args:
        num_replicas: P.
        batch_size: Global batch size with the least time to the target.
        lr: Learning rate to train it at; None where not asked for.
        micro_batch_size: Examples per forward pass of one replica.
        accumulation_steps: Passes per step.
        steps: Steps to the target.
        seconds: Seconds to the target.
        seconds_per_step: Seconds of one step.
        speedup: Time of the best batch on one replica over `seconds`.
        limited_by: ``balance``, ``saturation``, ``memory`` or ``dataset``; see
            :func:`rightbatch.training_time.limited_by`.
        within_5_percent: Range of batch sizes that take at most 5 % longer.
        intervals: How well all this is known; None where no draws were given.
        extrapolated: The batch size lies outside those at which steps were fitted.
        batch_size_is_lower_bound: True where S_min is not above zero, so that the law
            has no best batch size and the largest one run stands in for it.
        idle_replicas: Replicas better left idle, as fewer were faster in this plan.
            All else here is for all of them working.
        batch_size_with_idle: What to train at with those left idle; None without any.
        seconds_with_idle: Seconds to the target then.
        warnings: What to know before training, one sentence each.
    """

    num_replicas: int
    batch_size: int
    lr: float | None
    micro_batch_size: int
    accumulation_steps: int
    steps: float
    seconds: float
    seconds_per_step: float
    speedup: float
    limited_by: LimitedBy
    within_5_percent: tuple[int, int]
    intervals: PlanIntervals | None = None
    extrapolated: bool = False
    batch_size_is_lower_bound: bool = False
    idle_replicas: int = 0
    batch_size_with_idle: int | None = None
    seconds_with_idle: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def factorisation(self) -> Factorisation:
        """Who computes how many examples of the batch, in how many passes."""
        return Factorisation(
            batch_size=self.batch_size,
            num_replicas=self.num_replicas,
            accumulation_steps=self.accumulation_steps,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        known = self.intervals
        return {
            "num_replicas": self.num_replicas,
            "batch_size": self.batch_size,
            "batch_size_interval": known and known.batch_size.to_dict(),
            "batch_size_is_lower_bound": self.batch_size_is_lower_bound,
            "lr": self.lr,
            "micro_batch_size": self.micro_batch_size,
            "accumulation_steps": self.accumulation_steps,
            "factorisation": self.factorisation.to_dict(),
            "steps": self.steps,
            "steps_interval": known and known.steps.to_dict(),
            "seconds": self.seconds,
            "seconds_interval": known and known.seconds.to_dict(),
            "seconds_per_step": self.seconds_per_step,
            "regret": known and known.regret.to_dict(),
            "probability_within_5_percent": (
                known
                and known.probability_within_5_percent
                and known.probability_within_5_percent.to_dict()
            ),
            "speedup": self.speedup,
            "speedup_interval": known and known.speedup.to_dict(),
            "limited_by": self.limited_by,
            "within_5_percent": list(self.within_5_percent),
            "extrapolated": self.extrapolated,
            "idle_replicas": self.idle_replicas,
            "batch_size_with_idle": self.batch_size_with_idle,
            "seconds_with_idle": self.seconds_with_idle,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The best batch size for each number of replicas; prints as a table.

    Args:
        entries: One for each number of replicas, as asked for.
    """

    entries: tuple[PlanEntry, ...]

    @property
    def is_lower_bound(self) -> bool:
        """True where a batch size is the largest one run, for want of a best one."""
        return any(entry.batch_size_is_lower_bound for entry in self.entries)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of all entries, each once."""
        return tuple(
            dict.fromkeys(said for entry in self.entries for said in entry.warnings)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "optimal": [entry.to_dict() for entry in self.entries],
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        rows = [_HEADER, *(_row(entry) for entry in self.entries)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) for cell, width in zip(row, widths, strict=True)
            )
            for row in rows
        ]
        return "\n".join([*lines, *self.warnings])


def plan_batch_size(
    training_time: TrainingTimeLaw,
    num_replicas: int = 1,
    *,
    limits: BatchLimits = NO_LIMITS,
    draws: PlanDraws | None = None,
    lr_for: Callable[[int], float | None] | None = None,
    fitted_range: tuple[float, float] | None = None,
    batch_sizes: Mapping[int, int] | None = None,
) -> PlanEntry:
    """Return the batch size that reaches the target soonest on P replicas.

    Where the law's S_min is not above zero there is no best batch size: the largest
    one run is the limit, and the entry says that it is a lower bound.

    Args:
        training_time: Any models of steps and of step times.
        num_replicas: P.
        limits: What can be served: data set, memory, candidates.
        draws: Drawn laws, for intervals. Where the steps are a fit that cannot give
            any, since nothing tells its noise, all intervals are unbounded.
        lr_for: Learning rate of a batch size.
        fitted_range: Smallest and largest batch size at which steps were fitted; not
            needed where the steps are a fit.
        batch_sizes: What to train at by number of replicas, where something else than
            the least time of this one law has decided it; the best where it says
            nothing.

    Returns:
        The plan for this number of replicas.

    Raises:
        InputError: Nothing can be served, or time falls without end and there is
            neither a `max_batch_size` nor the range of the runs.
        NotReachedError: No batch size has a finite time.

    Example:
        >>> from rightbatch.convergence import ConvergenceLaw
        >>> from rightbatch.step_time import ConstantCommunication, StepTimeLaw
        >>> law = TrainingTimeLaw(
        ...     steps=ConvergenceLaw(min_steps=1000, min_examples=7e5),
        ...     step_time=StepTimeLaw(
        ...         seconds_per_example=0.001,
        ...         saturation_batch_size=20,
        ...         communication=ConstantCommunication(seconds=0.02),
        ...     ),
        ... )
        >>> entry = plan_batch_size(law, 4)
        >>> entry.batch_size, entry.limited_by, entry.within_5_percent
        (236, 'balance', (144, 392))
    """
    known = fitted_range or fitted_range_of(training_time.steps)
    if known is None:
        _check_bounded(training_time, limits)
    bounds = (training_time.steps, limits)
    single = limits_of(*bounds, 1, known)
    bounded = limits_of(*bounds, num_replicas, known)
    fastest = best_batch_size(training_time, num_replicas, bounded)
    given = batch_sizes or {}
    best = given.get(num_replicas, fastest)
    first = given.get(1) or best_batch_size(training_time, 1, single)
    steps = float(training_time.steps.steps(best))
    seconds = float(training_time.seconds_as_served(best, num_replicas, limits))
    alone = float(training_time.seconds_as_served(first, 1, limits))
    micro, passes = limits.split(best, num_replicas)
    within = range_around(training_time, num_replicas, bounded, fastest, WITHIN)
    _, high = served_range(num_replicas, bounded)
    is_bound = bounded is not limits and best > high - num_replicas
    intervals, expected = None, (steps, seconds, alone / seconds)
    if draws is None and not noise_is_known(training_time.steps):
        intervals = unknown_intervals(best, expected, LEVEL)
    if draws is not None:
        within_runs = (draws, num_replicas, bounded)
        intervals = plan_intervals(*within_runs, (best, first), expected)
        if is_bound:
            intervals = beyond_runs(intervals, draws, num_replicas, limits, best)
    entry = PlanEntry(
        num_replicas=int(num_replicas),
        batch_size=best,
        lr=None if lr_for is None else lr_for(best),
        micro_batch_size=micro,
        accumulation_steps=passes,
        steps=steps,
        seconds=seconds,
        seconds_per_step=seconds / steps,
        speedup=alone / seconds,
        limited_by="dataset"
        if is_bound
        else limited_by(training_time, num_replicas, bounded, fastest),
        within_5_percent=within,
        intervals=intervals,
        extrapolated=known is not None and not known[0] <= best <= known[1],
        batch_size_is_lower_bound=is_bound,
    )
    return replace(entry, warnings=tuple(_warnings(entry, known)))


def plan_batch_sizes(
    training_time: TrainingTimeLaw,
    replicas: Iterable[int],
    *,
    limits: BatchLimits = NO_LIMITS,
    draws: PlanDraws | None = None,
    lr_for: Callable[[int], float | None] | None = None,
    fitted_range: tuple[float, float] | None = None,
    batch_sizes: Mapping[int, int] | None = None,
) -> Plan:
    """Return the plan for several numbers of replicas.

    Args:
        training_time: As for :func:`plan_batch_size`, and so are the others.
        replicas: Numbers of replicas. Where fewer of them (or one) are faster, the
            entry says how many to leave idle.
        limits: What can be served.
        draws: Drawn laws, for intervals.
        lr_for: Learning rate of a batch size.
        fitted_range: Smallest and largest batch size at which steps were fitted.
        batch_sizes: What to train at by number of replicas, in place of the best.

    Returns:
        One entry for each number of replicas.

    Raises:
        InputError: `replicas` is empty, or as :func:`plan_batch_size`.
        NotReachedError: As :func:`plan_batch_size`.
    """
    asked = tuple(replicas)
    if not asked:
        raise InputError("plan: `replicas` must hold at least one number, got none.")
    entries = [
        plan_batch_size(
            training_time,
            num_replicas,
            limits=limits,
            draws=draws,
            lr_for=lr_for,
            fitted_range=fitted_range,
            batch_sizes=batch_sizes,
        )
        for num_replicas in asked
    ]
    known = fitted_range or fitted_range_of(training_time.steps)
    single = limits_of(training_time.steps, limits, 1, known)
    alone = (batch_sizes or {}).get(1) or best_batch_size(training_time, 1, single)
    return Plan(entries=tuple(_with_idle(entry, entries, alone) for entry in entries))


def _check_bounded(training_time: TrainingTimeLaw, limits: BatchLimits) -> None:
    # Such a law runs out of steps somewhere, and just before it is a senseless plan.
    law = training_time.steps
    if not isinstance(law, ConvergenceLaw) or law.min_steps >= 0:
        return
    if limits.max_batch_size is None and limits.candidates is None:
        raise InputError(
            "plan: `min_steps` must be above 0 where nothing limits the batch size, "
            f"got {law.min_steps:g}: larger batches cost no extra examples.",
            "give a `fitted_range`, a fit instead of its law, or a `max_batch_size`",
        )


def _with_idle(entry: PlanEntry, entries: Sequence[PlanEntry], alone: int) -> PlanEntry:
    fewer = {1: (entry.seconds * entry.speedup, alone)}
    fewer |= {
        other.num_replicas: (other.seconds, other.batch_size)
        for other in entries
        if other.num_replicas <= entry.num_replicas
    }
    best = min(fewer, key=lambda count: (fewer[count][0], count))
    seconds, batch_size = fewer[best]
    # Rounding to whole shares makes differences that nobody will see.
    if seconds > entry.seconds * (1 - 1e-3):
        return entry
    idle = entry.num_replicas - best
    said = (
        f"{best} of {entry.num_replicas} replicas reach the target sooner "
        f"({duration(seconds)} at batch size {batch_size}) than all of them: leave "
        f"{idle} idle."
    )
    return replace(
        entry,
        idle_replicas=idle,
        batch_size_with_idle=batch_size,
        seconds_with_idle=seconds,
        warnings=(*entry.warnings, said),
    )


def _warnings(entry: PlanEntry, fitted_range: tuple[float, float] | None) -> list[str]:
    said: list[str] = []
    batch, count = entry.batch_size, entry.num_replicas
    if entry.extrapolated and fitted_range is not None:
        said.append(
            f"Batch size {batch} lies outside {fitted_range[0]:g} to "
            f"{fitted_range[1]:g}, where steps were measured: run there before you "
            "rely on it."
        )
    if entry.steps < 1:
        said.append(
            f"The law leaves less than one step at batch size {batch}: its S_min is "
            "not above zero; set a largest batch size."
        )
    shared = entry.micro_batch_size * entry.accumulation_steps * count
    if shared != batch:
        said.append(
            f"Batch size {batch} cannot be shared evenly by {count} replicas in equal "
            f"passes; a step takes as long as {shared} examples do."
        )
    if entry.batch_size_is_lower_bound:
        said.append(
            "S_min is not above 0, so no batch size is too large for this law: "
            f"{batch} is the largest its runs support, a lower bound of the best one."
        )
    elif entry.limited_by == "dataset":
        said.append(
            f"On {count} replicas the largest batch size allowed, {batch}, is best; "
            "a larger one would be faster still."
        )
    return said


_HEADER = (
    "replicas",
    "batch",
    "interval",
    "within 5 %",
    "lr",
    "micro x accum",
    "steps",
    "time",
    "speed-up",
    "limited by",
)


def _row(entry: PlanEntry) -> tuple[str, ...]:
    low, high = entry.within_5_percent
    interval = "-"
    if entry.intervals is not None:
        size = entry.intervals.batch_size
        ends = ["?" if end is None else f"{end:.0f}" for end in (size.low, size.high)]
        interval = " to ".join(ends)
    return (
        str(entry.num_replicas),
        f"{'>=' * entry.batch_size_is_lower_bound}{entry.batch_size}",
        interval,
        f"{low} to {high}",
        "-" if entry.lr is None else f"{entry.lr:.3g}",
        f"{entry.micro_batch_size} x {entry.accumulation_steps}",
        f"{np.ceil(entry.steps):.0f}",
        duration(entry.seconds),
        f"{entry.speedup:.2f}",
        entry.limited_by,
    )


def duration(seconds: float) -> str:
    """Return a length of time as a person would say it.

    Example:
        >>> duration(0.25), duration(313.3), duration(1e6)
        ('0.25 s', '5.2 min', '11.6 d')
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"
