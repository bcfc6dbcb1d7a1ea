"""Intervals of a plan: the joint fits of both curves carried to the best batch size."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import finite
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, Interval
from rightbatch.training_time.law import BatchLimits, StepTimeModel
from rightbatch.training_time.search import FARTHEST, served_range

# Shares looked at in each draw: steps of 2 % over six decades.
GRID = 700
# A side on which more than this share of draws runs into the cap is not known.
AT_CAP = 0.05
# Draws are followed this far past the best batch where nothing caps it.
REACH = 1000


class StepsDraws(Protocol):
    """Convergence laws drawn from a fit."""

    def steps(self, batch_size: ArrayLike) -> FloatArray:
        """Return steps at batch sizes (m,), shape (n, m)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDraws:
    """What a plan may be wrong by.

    Args:
        steps: Drawn convergence laws, n of them.
        step_time: Drawn step-time laws, n of them (their `seconds_per_step` returns
            shape (n, m)), or one model taken as exact, such as measured times.
        level: Level of the intervals.

    Raises:
        InputError: `level` is not between 0 and 1.
    """

    steps: StepsDraws
    step_time: StepTimeModel
    level: float = 0.9

    def __post_init__(self) -> None:
        finite("PlanDraws", "level", self.level)
        if not 0 < self.level < 1:
            raise InputError(
                f"PlanDraws: `level` must be between 0 and 1, got {self.level!r}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanIntervals:
    """How well a plan for one number of replicas is known.

    Args:
        batch_size: Of the best batch size; no upper end where more than 5 % of the
            draws want the largest batch that can be served.
        steps: Of the steps at the recommended batch.
        seconds: Of the seconds to target there.
        regret: Of the share of time lost by training there instead of at the best
            batch of the draw; its value is the median.
    """

    batch_size: Interval
    steps: Interval
    seconds: Interval
    regret: Interval


def plan_intervals(
    draws: PlanDraws,
    num_replicas: int,
    limits: BatchLimits,
    best: int,
    expected: tuple[float, float],
) -> PlanIntervals:
    """Return the intervals of a plan.

    Each draw's best batch is found on a grid of evenly shared batches some 2 % apart.
    A law with S_min <= 0 wants the largest batch there is.

    Args:
        draws: Drawn laws.
        num_replicas: P.
        limits: What can be served.
        best: The recommended batch size.
        expected: Its steps and seconds by the fitted laws.

    Returns:
        Quantiles over the draws.

    Raises:
        InputError: The two kinds of draws differ in number.
    """
    grid = _grid(num_replicas, limits, best)
    steps, step_seconds = _drawn(draws, num_replicas, limits, grid)
    place = (steps * step_seconds).argmin(1)
    last = len(grid) - 1
    place[steps[:, -1] <= 0] = last
    # No run takes less than one step, whatever a law says far outside its data.
    steps = np.maximum(steps, 1.0)
    times = steps * step_seconds
    here = int(np.searchsorted(grid, best))
    lost = times[:, here] / times.min(1) - 1
    size = _interval(draws, float(best), grid[place], "examples", "best batch size")
    if np.mean(place == last) > AT_CAP:
        size = replace(size, high=None)
    return PlanIntervals(
        batch_size=size,
        steps=_interval(draws, expected[0], steps[:, here], "steps", "steps to target"),
        seconds=_interval(
            draws, expected[1], times[:, here], "seconds", "seconds to target"
        ),
        regret=_interval(
            draws, float(np.median(lost)), lost, "", "time lost against the best batch"
        ),
    )


def _drawn(
    draws: PlanDraws, num_replicas: int, limits: BatchLimits, grid: FloatArray
) -> tuple[FloatArray, FloatArray]:
    steps = np.atleast_2d(draws.steps.steps(grid))
    step_seconds = np.atleast_2d(
        limits.served_step_seconds(draws.step_time, grid, num_replicas)
    )
    if len(step_seconds) not in {1, len(steps)}:
        raise InputError(
            "PlanDraws: `steps` and `step_time` must be drawn equally often, got "
            f"{len(steps)} and {len(step_seconds)}."
        )
    return steps, step_seconds


def _interval(
    draws: PlanDraws, value: float, drawn: FloatArray, unit: str, definition: str
) -> Interval:
    tail = (1 - draws.level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]).tolist()
    return Interval(
        value=value,
        low=low,
        high=high,
        level=draws.level,
        unit=unit,
        definition=definition,
    )


def _grid(num_replicas: int, limits: BatchLimits, best: int) -> FloatArray:
    low, high = served_range(num_replicas, limits)
    if limits.candidates is not None:
        sizes = np.asarray(limits.candidates, dtype=float)
        return sizes[(low <= sizes) & (sizes <= high)]
    if high == FARTHEST:
        high = min(best * REACH, FARTHEST)
    shares = np.rint(np.geomspace(1, max(high // num_replicas, 1), GRID))
    sizes = np.append(shares * num_replicas, [best, high])
    return np.unique(np.clip(sizes, low, high))
