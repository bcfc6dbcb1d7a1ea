"""The plan: the best batch size for each number of replicas, explained."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rightbatch.errors import InputError
from rightbatch.training_time.law import NO_LIMITS, BatchLimits, TrainingTimeLaw
from rightbatch.training_time.search import (
    LimitedBy,
    best_batch_size,
    limited_by,
    range_around,
)
from rightbatch.training_time.uncertainty import (
    PlanDraws,
    PlanIntervals,
    plan_intervals,
)

WITHIN = 0.05


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
        idle_replicas: Replicas better left idle, as fewer were faster in this plan.
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
    idle_replicas: int = 0
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        known = self.intervals
        return {
            "num_replicas": self.num_replicas,
            "batch_size": self.batch_size,
            "batch_size_interval": known and known.batch_size.to_dict(),
            "lr": self.lr,
            "micro_batch_size": self.micro_batch_size,
            "accumulation_steps": self.accumulation_steps,
            "steps": self.steps,
            "steps_interval": known and known.steps.to_dict(),
            "seconds": self.seconds,
            "seconds_interval": known and known.seconds.to_dict(),
            "seconds_per_step": self.seconds_per_step,
            "regret": known and known.regret.to_dict(),
            "speedup": self.speedup,
            "limited_by": self.limited_by,
            "within_5_percent": list(self.within_5_percent),
            "extrapolated": self.extrapolated,
            "idle_replicas": self.idle_replicas,
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
) -> PlanEntry:
    """Return the batch size that reaches the target soonest on P replicas.

    Args:
        training_time: Any models of steps and of step times.
        num_replicas: P.
        limits: What can be served: data set, memory, candidates.
        draws: Drawn laws, for intervals.
        lr_for: Learning rate of a batch size.
        fitted_range: Smallest and largest batch size at which steps were fitted.

    Returns:
        The plan for this number of replicas.

    Raises:
        InputError: Nothing can be served, or time falls without end and there is no
            `max_batch_size`.
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
    best = best_batch_size(training_time, num_replicas, limits)
    steps = float(training_time.steps.steps(best))
    seconds = float(training_time.seconds_as_served(best, num_replicas, limits))
    first = best_batch_size(training_time, 1, limits)
    alone = float(training_time.seconds_as_served(first, 1, limits))
    micro, passes = limits.split(best, num_replicas)
    within = range_around(training_time, num_replicas, limits, best, WITHIN)
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
        limited_by=limited_by(training_time, num_replicas, limits, best),
        within_5_percent=within,
        intervals=None
        if draws is None
        else plan_intervals(draws, num_replicas, limits, best, (steps, seconds)),
        extrapolated=fitted_range is not None
        and not fitted_range[0] <= best <= fitted_range[1],
    )
    return replace(entry, warnings=tuple(_warnings(entry, fitted_range)))


def plan_batch_sizes(
    training_time: TrainingTimeLaw,
    replicas: Iterable[int],
    *,
    limits: BatchLimits = NO_LIMITS,
    draws: PlanDraws | None = None,
    lr_for: Callable[[int], float | None] | None = None,
    fitted_range: tuple[float, float] | None = None,
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
        )
        for num_replicas in asked
    ]
    return Plan(entries=tuple(_with_idle(entry, entries) for entry in entries))


def _with_idle(entry: PlanEntry, entries: Sequence[PlanEntry]) -> PlanEntry:
    seconds = {1: entry.seconds * entry.speedup}
    seconds |= {other.num_replicas: other.seconds for other in entries}
    fewer = {
        count: time for count, time in seconds.items() if count <= entry.num_replicas
    }
    best = min(fewer, key=lambda count: (fewer[count], count))
    # Rounding to whole shares makes differences that nobody will see.
    if fewer[best] > entry.seconds * (1 - 1e-3):
        return entry
    idle = entry.num_replicas - best
    said = (
        f"{best} of {entry.num_replicas} replicas reach the target sooner "
        f"({duration(fewer[best])}) than all of them: leave {idle} idle."
    )
    return replace(entry, idle_replicas=idle, warnings=(*entry.warnings, said))


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
    if entry.limited_by == "dataset":
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
        str(entry.batch_size),
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
