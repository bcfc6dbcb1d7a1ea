"""Any batch size against the best one, and against another, with what is not known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightbatch._checks import positive_integer
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, Interval
from rightbatch.training_time.law import NO_LIMITS, BatchLimits, TrainingTimeLaw
from rightbatch.training_time.search import served_range
from rightbatch.training_time.uncertainty import (
    WITHIN,
    PlanDraws,
    Probability,
    drawn_times,
    share,
)

# Of the best batch of a draw beneath a curve: steps of 7 % cost it 0.1 % of the time.
CURVE_GRID = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A batch size beside the recommended one.

    Args:
        batch_size: Global batch size.
        num_replicas: P.
        steps: Steps to the target by the fitted law.
        seconds: Seconds to the target by the fitted laws.
        regret: Share of time lost there against the best batch of each draw; its value
            is the median. None without draws, and so are the rest.
        than: The batch size that it is compared with, the recommended one.
        probability_faster: That it reaches the target sooner than that one.
        probability_within_5_percent: That no batch is more than 5 % faster.
    """

    batch_size: int
    num_replicas: int
    steps: float
    seconds: float
    regret: Interval | None
    than: int
    probability_faster: Probability | None
    probability_within_5_percent: Probability | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        faster, within = self.probability_faster, self.probability_within_5_percent
        return {
            "num_replicas": self.num_replicas,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "seconds": self.seconds,
            "regret": self.regret and self.regret.to_dict(),
            "than": self.than,
            "probability_faster": faster and faster.to_dict(),
            "probability_within_5_percent": within and within.to_dict(),
        }


def compare_batch_sizes(
    training_time: TrainingTimeLaw,
    batch_sizes: Sequence[int],
    than: int,
    num_replicas: int = 1,
    *,
    limits: BatchLimits = NO_LIMITS,
    draws: PlanDraws | None = None,
) -> tuple[Comparison, ...]:
    """Return how batch sizes compare with the recommended one.

    Args:
        training_time: Steps and step times.
        batch_sizes: Those to compare.
        than: The recommended one.
        num_replicas: P.
        limits: What can be served; candidates bind the best batch, not these.
        draws: Drawn laws, for regrets and probabilities.

    Returns:
        One entry per batch size, as asked for.

    Raises:
        InputError: A batch size cannot be served.
    """
    sizes = _checked(batch_sizes, num_replicas, limits)
    found: list[Comparison] = []
    times = draws and drawn_times(draws, num_replicas, limits, [*sizes, than])
    for size in sizes:
        within = None if times is None else share(times.regrets(size) <= WITHIN)
        found.append(
            Comparison(
                batch_size=size,
                num_replicas=num_replicas,
                steps=float(training_time.steps.steps(size)),
                seconds=float(
                    training_time.seconds_as_served(size, num_replicas, limits)
                ),
                regret=times and times.regret(size),
                than=than,
                probability_faster=times
                and _faster(times.seconds_at(size), times.seconds_at(than)),
                probability_within_5_percent=within,
            )
        )
    return tuple(found)


def regret_interval(
    draws: PlanDraws,
    num_replicas: int,
    limits: BatchLimits,
    batch_sizes: Sequence[int],
) -> tuple[Interval, ...]:
    """Return the share of time that batch sizes lose against the best of each draw.

    Args:
        draws: Drawn laws.
        num_replicas: P.
        limits: What can be served.
        batch_sizes: Batch sizes, whole numbers.

    Returns:
        An interval for each, its value the median; no upper end where it would be set
        by how far the draws were followed.

    Raises:
        InputError: A batch size cannot be served.

    Example:
        >>> from rightbatch.convergence import ConvergenceDraws
        >>> from rightbatch.step_time import StepTimeLaw
        >>> one = ConvergenceDraws(
        ...     min_steps=np.array([1000.0]),
        ...     min_examples=np.array([9e4]),
        ...     knee_exponent=np.ones(1),
        ...     min_batch_size=np.zeros(1),
        ... )
        >>> law = StepTimeLaw(
        ...     seconds_per_example=1e-3,
        ...     saturation_batch_size=1,
        ...     overhead_seconds=1e-2,
        ... )
        >>> draws = PlanDraws(steps=one, step_time=law)
        >>> [round(i.value, 3) for i in regret_interval(draws, 1, NO_LIMITS, [30, 60])]
        [0.0, 0.094]
    """
    sizes = _checked(batch_sizes, num_replicas, limits)
    times = drawn_times(draws, num_replicas, limits, sizes)
    return tuple(times.regret(size) for size in sizes)


def probability_faster(
    draws: PlanDraws,
    batch_size: int,
    than: int,
    num_replicas: int = 1,
    limits: BatchLimits = NO_LIMITS,
) -> Probability:
    """Return the probability that one batch size reaches the target before another.

    Args:
        draws: Drawn laws.
        batch_size: The one.
        than: The other.
        num_replicas: P.
        limits: What can be served.

    Returns:
        The share of draws in which it does, ties counted half, with its Monte-Carlo
        error.

    Raises:
        InputError: A batch size cannot be served.
    """
    one, other = _checked([batch_size, than], num_replicas, limits)
    times = drawn_times(draws, num_replicas, limits, [one, other], num=2)
    return _faster(times.seconds_at(one), times.seconds_at(other))


def regret_curve(
    draws: PlanDraws, num_replicas: int, limits: BatchLimits, batch_sizes: FloatArray
) -> dict[str, list[float | None]]:
    """Return the regret at many batch sizes, for a figure.

    Args:
        draws: Drawn laws.
        num_replicas: P.
        limits: What can be served; batch sizes outside are left out.
        batch_sizes: Increasing, any numbers; rounded to evenly shared ones.

    Returns:
        Lists under `batch_size`, `value` (the median), `low`, `high`; None where open.
    """
    low, high = served_range(num_replicas, limits)
    even = np.rint(np.asarray(batch_sizes) / num_replicas) * num_replicas
    sizes = [int(size) for size in np.unique(even) if low <= size <= high]
    if not sizes:
        return {"batch_size": [], "value": [], "low": [], "high": []}
    times = drawn_times(draws, num_replicas, limits, sizes, CURVE_GRID)
    found = [times.regret(size) for size in sizes]
    return {
        "batch_size": list(map(float, sizes)),
        "value": [one.value for one in found],
        "low": [one.low for one in found],
        "high": [one.high for one in found],
    }


def _checked(
    batch_sizes: Sequence[int], num_replicas: int, limits: BatchLimits
) -> list[int]:
    if not len(batch_sizes):
        raise InputError("compare: `batch_sizes` must hold at least one, got none.")
    sizes = [positive_integer("compare", "batch_sizes", size) for size in batch_sizes]
    for size in sizes:
        most = limits.max_batch_size
        if size < num_replicas or (most is not None and size > most):
            raise InputError(
                f"compare: batch size {size} cannot be served: {num_replicas} replicas "
                f"need an example each{'' if most is None else f', at most {most}'}."
            )
    return sizes


def _faster(one: FloatArray, other: FloatArray) -> Probability:
    return share((one < other) + 0.5 * (one == other))
