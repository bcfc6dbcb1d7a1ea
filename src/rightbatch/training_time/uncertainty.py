"""Intervals of a plan: the joint fits of both curves carried to the best batch size.

A draw is one law of steps with one law of step times. Its best batch, its time there
and what any other batch would lose follow as for the fitted laws, so that quantiles
over the draws are intervals of them all.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rightbatch._checks import confidence_level
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
WITHIN = 0.05
LEVEL = 0.9


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
    level: float = LEVEL

    def __post_init__(self) -> None:
        confidence_level("PlanDraws", self.level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probability:
    """A share of draws, and how far chance moves such a share.

    Args:
        value: The share.
        num_draws: Draws it was counted over.

    Example:
        >>> print(Probability(value=0.9, num_draws=1000))
        90 % (+-1 %)
    """

    value: float
    num_draws: int

    @property
    def standard_error(self) -> float:
        """Monte-Carlo error of the share; above zero at shares of 0 and 1 too."""
        count, num = self.value * self.num_draws, self.num_draws
        share = (count + 1) / (num + 2)
        return float(np.sqrt(share * (1 - share) / (num + 2)))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "value": self.value,
            "standard_error": self.standard_error,
            "num_draws": self.num_draws,
        }

    def __str__(self) -> str:
        return f"{100 * self.value:.0f} % (+-{100 * self.standard_error:.0f} %)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanIntervals:
    """How well a plan for one number of replicas is known.

    Args:
        batch_size: Of the best batch size; no upper end where more than 5 % of the
            draws want the largest batch that can be served.
        steps: Of the steps at the recommended batch.
        seconds: Of the seconds to target there.
        speedup: Of the time of the batch recommended for one replica over that.
        regret: Of the share of time lost by training there instead of at the best
            batch of the draw; its value is the median.
        probability_within_5_percent: That no batch is more than 5 % faster; None where
            nothing tells the noise of the runs.
    """

    batch_size: Interval
    steps: Interval
    seconds: Interval
    speedup: Interval
    regret: Interval
    probability_within_5_percent: Probability | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnTimes:
    """Times to the target of every draw at every batch size looked at.

    Args:
        batch_sizes: Increasing whole numbers, shape (m,).
        steps: Shape (n, m), one at least.
        seconds: To the target, shape (n, m).
        best: Place of each draw's best batch size, shape (n,).
        least: Each draw's least seconds, shape (n,).
        is_open: True where nothing limits the batch size but the grid.
        level: Of the intervals.
    """

    batch_sizes: FloatArray
    steps: FloatArray
    seconds: FloatArray
    best: NDArray[np.intp]
    least: FloatArray
    is_open: bool
    level: float

    @property
    def share_at_end(self) -> float:
        """Share of the draws that want the largest batch size."""
        return float(np.mean(self.best == len(self.batch_sizes) - 1))

    def place(self, batch_size: float) -> int:
        """Return the column of a batch size that is among those looked at."""
        return int(np.searchsorted(self.batch_sizes, batch_size))

    def seconds_at(self, batch_size: float) -> FloatArray:
        """Return each draw's seconds at a batch size looked at, shape (n,)."""
        return self.seconds[:, self.place(batch_size)]

    def regrets(self, batch_size: float) -> FloatArray:
        """Return what each draw loses there against its best batch, shape (n,)."""
        with np.errstate(invalid="ignore"):
            lost = self.seconds_at(batch_size) / self.least - 1
        # A draw that reaches the target nowhere says nothing about one batch size.
        return np.where(np.isnan(lost), np.inf, lost)

    def regret(self, batch_size: float) -> Interval:
        """Return the interval of the regret there; its value is the median."""
        lost = self.regrets(batch_size)
        found = self.interval(
            _finite(np.quantile(lost, 0.5, method="nearest")),
            lost,
            "",
            "time lost against the best batch",
        )
        # How much a draw without an optimum loses is set by where the grid ends.
        if self.is_open and self.share_at_end > AT_CAP:
            value = None if self.share_at_end > 0.5 else found.value
            return replace(found, value=value, high=None)
        return found

    def best_batch_size(self, value: float) -> Interval:
        """Return the interval of the best batch size around its value."""
        found = self.interval(
            value, self.batch_sizes[self.best], "examples", "best batch size", True
        )
        return replace(found, high=None) if self.share_at_end > AT_CAP else found

    def interval(
        self,
        value: float | None,
        drawn: FloatArray,
        unit: str,
        definition: str,
        whole: bool = False,
    ) -> Interval:
        """Return the interval of what was drawn, shape (n,); infinite ends are open.

        Args:
            value: In it.
            drawn: One number a draw.
            unit: Of both.
            definition: In words.
            whole: Let the ends be draws, such as batches that can be served.

        Returns:
            The interval.
        """
        tail = (1 - self.level) / 2
        # Infinite draws cannot be interpolated between.
        method = "linear" if np.isfinite(drawn).all() and not whole else "nearest"
        low, high = np.quantile(drawn, [tail, 1 - tail], method=method)
        return Interval(
            value=value,
            low=_finite(low),
            high=_finite(high),
            level=self.level,
            unit=unit,
            definition=definition,
        )


def drawn_times(
    draws: PlanDraws,
    num_replicas: int,
    limits: BatchLimits,
    batch_sizes: Iterable[int],
    num: int = GRID,
) -> DrawnTimes:
    """Return the times of every draw on a grid of batch sizes.

    The grid is of evenly shared batches some 2 % apart, or of the candidates. A law
    with S_min <= 0 wants the largest batch there is.

    Args:
        draws: Drawn laws.
        num_replicas: P.
        limits: What can be served.
        batch_sizes: Looked at besides; one at least, as the grid is laid around them.
        num: Points of the grid.

    Returns:
        The times.

    Raises:
        InputError: The two kinds of draws differ in number, or nothing can be served.
    """
    asked = sorted(set(batch_sizes))
    _, high = served_range(num_replicas, limits)
    grid = _grid(num_replicas, limits, asked, num)
    steps, step_seconds = _drawn(draws, num_replicas, limits, grid)
    with np.errstate(invalid="ignore"):
        best = (steps * step_seconds).argmin(1)
    best[steps[:, -1] <= 0] = len(grid) - 1
    # No run takes less than one step, whatever a law says far outside its data.
    steps = np.maximum(steps, 1.0)
    seconds = steps * step_seconds
    return DrawnTimes(
        batch_sizes=grid,
        steps=steps,
        seconds=seconds,
        best=best,
        least=seconds.min(1),
        is_open=high == FARTHEST,
        level=draws.level,
    )


def plan_intervals(
    draws: PlanDraws,
    num_replicas: int,
    limits: BatchLimits,
    best: tuple[int, int],
    expected: tuple[float, float, float],
) -> PlanIntervals:
    """Return the intervals of a plan.

    Args:
        draws: Drawn laws.
        num_replicas: P.
        limits: What can be served.
        best: The recommended batch sizes, on P replicas and on one.
        expected: Steps, seconds and speed-up by the fitted laws.

    Returns:
        Quantiles over the draws.

    Raises:
        InputError: The two kinds of draws differ in number.
    """
    here, alone = best
    times = drawn_times(draws, num_replicas, limits, [here])
    steps, step_seconds = _drawn(draws, 1, limits, np.array([float(alone)]))
    slowest = (np.maximum(steps, 1.0) * step_seconds)[:, 0]
    at_best = times.seconds_at(here)
    steps_here = times.steps[:, times.place(here)]
    with np.errstate(invalid="ignore"):
        faster = np.nan_to_num(slowest / at_best, nan=1.0, posinf=np.inf)
    return PlanIntervals(
        batch_size=times.best_batch_size(float(here)),
        steps=times.interval(expected[0], steps_here, "steps", "steps to target"),
        seconds=times.interval(expected[1], at_best, "seconds", "seconds to target"),
        speedup=times.interval(
            expected[2], faster, "", "time of the batch for one replica over this time"
        ),
        regret=times.regret(here),
        probability_within_5_percent=share(times.regrets(here) <= WITHIN),
    )


def unknown_intervals(
    best: int, expected: tuple[float, float, float], level: float
) -> PlanIntervals:
    """Return the intervals where nothing tells the noise of the runs: all unbounded.

    Args:
        best: The recommended batch size.
        expected: Steps, seconds and speed-up by the fitted laws.
        level: Of the intervals.

    Returns:
        Values without ends.
    """

    def unbounded(value: float | None, unit: str, definition: str) -> Interval:
        return Interval(
            value=value,
            low=None,
            high=None,
            level=level,
            unit=unit,
            definition=definition,
        )

    steps, seconds, speedup = expected
    return PlanIntervals(
        batch_size=unbounded(float(best), "examples", "best batch size"),
        steps=unbounded(steps, "steps", "steps to target"),
        seconds=unbounded(seconds, "seconds", "seconds to target"),
        speedup=unbounded(
            speedup, "", "time of the batch for one replica over this time"
        ),
        regret=unbounded(None, "", "time lost against the best batch"),
        probability_within_5_percent=None,
    )


def beyond_runs(
    known: PlanIntervals,
    draws: PlanDraws,
    num_replicas: int,
    limits: BatchLimits,
    best: int,
) -> PlanIntervals:
    """Return the intervals of a plan that had to stop at the largest batch run.

    Args:
        known: Its intervals within the batch sizes run.
        draws: Drawn laws.
        num_replicas: P.
        limits: What can be served, whatever was run.
        best: The recommended batch size.

    Returns:
        The same with the regret against batches of any size.
    """
    times = drawn_times(draws, num_replicas, limits, [best])
    return replace(
        known,
        regret=times.regret(best),
        probability_within_5_percent=share(times.regrets(best) <= WITHIN),
    )


def share(of: NDArray[np.bool_] | FloatArray) -> Probability:
    """Return the share of draws for which something holds, shape (n,)."""
    return Probability(value=float(np.mean(of)), num_draws=len(of))


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


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _grid(
    num_replicas: int, limits: BatchLimits, asked: list[int], num: int
) -> FloatArray:
    low, high = served_range(num_replicas, limits)
    if limits.candidates is not None:
        sizes = np.append(np.asarray(limits.candidates, dtype=float), asked)
        within = (low <= sizes) & (sizes <= high) | np.isin(sizes, asked)
        return np.unique(sizes[within])
    if high == FARTHEST:
        high = min(asked[-1] * REACH, FARTHEST)
    shares = np.rint(np.geomspace(1, max(high // num_replicas, 1), num))
    sizes = np.clip(np.append(shares * num_replicas, high), low, high)
    return np.unique(np.append(sizes, asked))
