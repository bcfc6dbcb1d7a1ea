"""Seconds to a target against the number of replicas: strong, weak, optimal scaling.

Strong scaling holds the global batch, weak scaling the batch per replica; optimal
scaling chooses the best batch at each number of replicas and is never slower than
either (Perrone et al., 2019).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rightbatch._checks import (
    nonnegative,
    positive,
    positive_array,
    positive_integer,
)
from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray
from rightbatch.step_time import StepTimeLaw
from rightbatch.training_time import (
    BatchLimits,
    ClosedForm,
    FittedSteps,
    TrainingTimeLaw,
    best_batch_size,
)
from rightbatch.training_time.support import has_least_steps

# Beyond so many replicas no answer is looked for.
MOST_REPLICAS = 2**20
# Local batch sizes looked at when the best one need not be a whole number.
LOCAL_POINTS = 600


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scaling:
    """Time to the target against the number of replicas; arrays of shape (n,).

    Args:
        kind: ``strong``, ``weak`` or ``optimal``.
        replicas: Numbers of replicas at hand.
        replicas_used: Those put to work; the rest are left idle.
        batch_sizes: Global batch size on each.
        seconds: Seconds to the target.
        baseline_seconds: Time on one replica that speed-ups are against.
    """

    kind: Literal["strong", "weak", "optimal"]
    replicas: FloatArray
    replicas_used: FloatArray
    batch_sizes: FloatArray
    seconds: FloatArray
    baseline_seconds: float

    @property
    def speedup(self) -> FloatArray:
        """Baseline time over time, shape (n,)."""
        return self.baseline_seconds / self.seconds

    @property
    def efficiency(self) -> FloatArray:
        """Speed-up over the replicas at hand, idle ones included, shape (n,)."""
        return self.speedup / self.replicas

    @property
    def idle(self) -> FloatArray:
        """Replicas left idle because fewer are faster, shape (n,)."""
        return self.replicas - self.replicas_used

    def largest_useful_replicas(self, tolerance: float = 0.05) -> int:
        """Return the fewest replicas within `tolerance` of the least time here.

        Args:
            tolerance: Share of the least time; 0 asks for the least time itself.

        Returns:
            A number among `replicas_used`.

        Raises:
            InputError: `tolerance` is negative.
        """
        nonnegative("Scaling", "tolerance", tolerance)
        allowed = self.seconds.min() * (1 + max(tolerance, 1e-12))
        return int(self.replicas_used[self.seconds <= allowed].min())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "kind": self.kind,
            "replicas": self.replicas.astype(int).tolist(),
            "replicas_used": self.replicas_used.astype(int).tolist(),
            "batch_sizes": self.batch_sizes.astype(int).tolist(),
            "seconds": self.seconds.tolist(),
            "speedup": self.speedup.tolist(),
            "efficiency": self.efficiency.tolist(),
            "idle": self.idle.astype(int).tolist(),
            "baseline_seconds": self.baseline_seconds,
            "largest_useful_replicas": self.largest_useful_replicas(),
        }


def strong(
    training_time: TrainingTimeLaw,
    batch_size: int,
    replicas: Iterable[int],
    *,
    limits: BatchLimits | None = None,
    baseline_seconds: float | None = None,
) -> Scaling:
    """Return the times with the global batch held.

    The largest share sets the pace, so time no longer falls beyond B/M_T replicas;
    beyond B replicas some have no example and are left idle.

    Args:
        training_time: Steps and step times.
        batch_size: Global batch size.
        replicas: Numbers of replicas.
        limits: Memory limits, for accumulation.
        baseline_seconds: Time that speed-ups are against; this scheme's own on one
            replica if not given.

    Returns:
        The curve.

    Raises:
        InputError: A number is not a whole number of at least one.

    Example:
        >>> from rightbatch.convergence import ConvergenceLaw
        >>> from rightbatch.step_time import StepTimeLaw
        >>> law = TrainingTimeLaw(
        ...     steps=ConvergenceLaw(min_steps=1000, min_examples=7e5),
        ...     step_time=StepTimeLaw(
        ...         seconds_per_example=0.001, saturation_batch_size=16
        ...     ),
        ... )
        >>> strong(law, 64, [1, 2, 4, 8, 16]).speedup.tolist()
        [1.0, 2.0, 4.0, 4.0, 4.0]
    """
    batch = positive_integer("strong", "batch_size", batch_size)
    counts = _counts("strong", replicas)
    limits = limits or BatchLimits()
    if baseline_seconds is None:
        baseline_seconds = float(training_time.seconds_as_served(batch, 1, limits))
    used, batches = np.minimum(counts, batch), np.full_like(counts, batch)
    return Scaling(
        kind="strong",
        replicas=counts,
        replicas_used=used,
        batch_sizes=batches,
        seconds=_seconds(training_time, batches, used, limits),
        baseline_seconds=baseline_seconds,
    )


def weak(
    training_time: TrainingTimeLaw,
    local_batch_size: int,
    replicas: Iterable[int],
    *,
    limits: BatchLimits | None = None,
    baseline_seconds: float | None = None,
) -> Scaling:
    """Return the times with the batch per replica held.

    Args:
        training_time: Steps and step times.
        local_batch_size: Examples per replica and step.
        replicas: Numbers of replicas.
        limits: Memory limits, for accumulation.
        baseline_seconds: Time that speed-ups are against; this scheme's own on one
            replica if not given.

    Returns:
        The curve.

    Raises:
        InputError: A number is not a whole number of at least one.
    """
    local = positive_integer("weak", "local_batch_size", local_batch_size)
    counts = _counts("weak", replicas)
    limits = limits or BatchLimits()
    if baseline_seconds is None:
        baseline_seconds = float(training_time.seconds_as_served(local, 1, limits))
    return Scaling(
        kind="weak",
        replicas=counts,
        replicas_used=counts,
        batch_sizes=local * counts,
        seconds=_seconds(training_time, local * counts, counts, limits),
        baseline_seconds=baseline_seconds,
    )


def optimal(
    training_time: TrainingTimeLaw,
    replicas: Iterable[int],
    *,
    limits: BatchLimits | None = None,
    allow_idle: bool = True,
    baseline_seconds: float | None = None,
) -> Scaling:
    """Return the times with the best batch at each number of replicas.

    Args:
        training_time: Steps and step times.
        replicas: Numbers of replicas.
        limits: What can be served.
        allow_idle: Use fewer replicas, of the numbers asked for and one, where that is
            faster (as with communication that grows with P) or where the largest batch
            has no example for each.
        baseline_seconds: Time that speed-ups are against; the best batch on one replica
            if not given.

    Returns:
        The curve.

    Raises:
        InputError: A number is not a whole number of at least one, or nothing can be
            served.
    """
    counts = _counts("optimal", replicas)
    limits = limits or BatchLimits()
    tried = np.unique(counts)
    if allow_idle:
        # No replica may go without an example.
        within = np.minimum(counts, _most_replicas(limits))
        tried = np.unique(np.append(within, 1))
    batches = np.array(
        [best_batch_size(training_time, int(count), limits) for count in tried], float
    )
    seconds = _seconds(training_time, batches, tried, limits)
    # The place, among those tried, of the fastest no larger than each count.
    fastest = [
        int(seconds[: np.searchsorted(tried, count, "right")].argmin())
        if allow_idle
        else int(np.searchsorted(tried, count))
        for count in counts
    ]
    if baseline_seconds is None:
        baseline_seconds = _best_alone(training_time, limits)
    return Scaling(
        kind="optimal",
        replicas=counts,
        replicas_used=tried[fastest],
        batch_sizes=batches[fastest],
        seconds=seconds[fastest],
        baseline_seconds=baseline_seconds,
    )


def optimal_becomes_weak_at(training_time: TrainingTimeLaw) -> float | None:
    r"""Return the number of replicas from which optimal scaling is weak scaling.

    From there on the best local batch stays at the knee of the step time. Under
    constant communication it is the branch point of Perrone et al. (2019), eq. 10:

    .. math:: P = E_{\min} D / (\gamma M_T^2 S_{\min})

    Otherwise it is the fewest whole replicas, of two or more, from which a batch just
    above the knee is never faster; looked for up to 2^20.

    Args:
        training_time: Steps, and a step time with a knee.

    Returns:
        Replicas, at least 1; None where it never happens: S_min is not above zero, the
        step time has no knee, or communication grows too fast with P.

    Example:
        >>> from rightbatch.step_time import ConstantCommunication
        >>> law = TrainingTimeLaw(
        ...     steps=ConvergenceLaw(min_steps=1000, min_examples=7e5),
        ...     step_time=StepTimeLaw(
        ...         seconds_per_example=0.001,
        ...         saturation_batch_size=20,
        ...         communication=ConstantCommunication(seconds=0.02),
        ...     ),
        ... )
        >>> round(optimal_becomes_weak_at(law), 6)
        35.0
    """
    step_time = training_time.step_time
    if not has_least_steps(training_time.steps):
        return None
    if not isinstance(step_time, StepTimeLaw) or step_time.seconds_per_example == 0:
        return None
    known = _equation_10(training_time)
    if known is not None:
        return max(known[0], 1.0)
    counts = _replica_grid()[1:]
    knee = step_time.saturation_batch_size * counts
    at = training_time.seconds_to_target(knee, counts)
    above = training_time.seconds_to_target(knee * (1 + 1e-6), counts)
    with np.errstate(invalid="ignore"):
        balanced = np.flatnonzero(~(above >= at))
    if not balanced.size:
        return 1.0
    last = int(balanced[-1])
    return None if last == len(counts) - 1 else float(counts[last + 1])


def useful_replicas(
    training_time: TrainingTimeLaw,
    tolerance: float = 0.05,
    limits: BatchLimits | None = None,
) -> int | None:
    """Return the fewest replicas that no number of replicas beats by much.

    Batch sizes need not be whole here, and past 64 the numbers of replicas looked at
    are 2 % apart, up to 2^20.

    Args:
        training_time: Steps and step times.
        tolerance: Share of the least time, above zero.
        limits: The largest batch size; other limits are not looked at.

    Returns:
        Replicas; None where more still help at 2^20, or nothing is finite.

    Raises:
        InputError: `tolerance` is not positive.

    Example:
        >>> from rightbatch.step_time import ConstantCommunication
        >>> law = TrainingTimeLaw(
        ...     steps=ConvergenceLaw(min_steps=1000, min_examples=7e5),
        ...     step_time=StepTimeLaw(
        ...         seconds_per_example=0.001,
        ...         saturation_batch_size=20,
        ...         communication=ConstantCommunication(seconds=0.02),
        ...     ),
        ... )
        >>> 680 < useful_replicas(law) < 720  # phi / (.05 M_T) = 700
        True
    """
    positive("useful_replicas", "tolerance", tolerance)
    most = None if limits is None else limits.max_batch_size
    counts = _replica_grid(few=64, ratio=1.02)
    counts = counts if most is None else counts[counts <= most]
    local = np.geomspace(1, 2**20, LOCAL_POINTS)
    if isinstance(training_time.step_time, StepTimeLaw):
        # The time has a corner there, which is where it is often least.
        knee = max(training_time.step_time.saturation_batch_size, 1.0)
        local = np.unique(np.append(local, knee))
    batches = local * counts[:, None]
    if most is not None:
        batches = np.minimum(batches, most)
    times = np.asarray(training_time.seconds_to_target(batches, counts[:, None]))
    least = np.where(times > 0, times, np.inf).min(1)
    if not np.isfinite(least).any():
        return None
    # A larger batch is always faster here: the grid's end is no optimum.
    if most is None and np.any(times[:, -1] <= least * (1 + 1e-9)):
        return None
    end = limit_seconds(training_time) if most is None else None
    if end is None and most is None and least[-1] < least[-2] * (1 - 1e-4):
        return None
    goal = float(least.min() if end is None else min(least.min(), end))
    near = np.flatnonzero(least <= goal * (1 + tolerance))
    return int(counts[near[0]]) if near.size else None


def limit_seconds(training_time: TrainingTimeLaw) -> float | None:
    r"""Return the time to the target on ever more replicas.

    .. math:: S_{\min} (D + \gamma M_T)

    D is what a step costs whatever the batch: overhead, communication, and checks
    between steps, unless replicas share them.

    Args:
        training_time: An inverse law, with a floor or without, and a step time with a
            knee.

    Returns:
        Seconds; None where eq. 10 does not hold: another law, S_min not above zero, a
        step time that does not grow with the batch, communication that grows with the
        number of replicas or overlaps with computing, or checks shared among replicas.
    """
    known = _equation_10(training_time)
    return None if known is None else known[1]


def _equation_10(training_time: TrainingTimeLaw) -> tuple[float, float] | None:
    """Return the branch point and the limit; None where fixed costs change with P."""
    steps, step_time = training_time.steps, training_time.step_time
    steps = steps.law if isinstance(steps, FittedSteps) else steps
    if not isinstance(steps, ConvergenceLaw) or not isinstance(step_time, StepTimeLaw):
        return None
    try:
        form = ClosedForm(convergence=steps, step_time=step_time)
        return form.branch_point, form.limit_seconds
    except InputError:
        return None


def _replica_grid(few: int = 2**12, ratio: float = 1.002) -> FloatArray:
    # All whole numbers at first, then ever wider steps.
    num = int(np.log(MOST_REPLICAS / few) / np.log(ratio)) + 1
    many = np.rint(np.geomspace(few, MOST_REPLICAS, num))
    return np.unique(np.append(np.arange(1, few + 1), many)).astype(float)


def _best_alone(training_time: TrainingTimeLaw, limits: BatchLimits) -> float:
    best = best_batch_size(training_time, 1, limits)
    return float(training_time.seconds_as_served(best, 1, limits))


def _counts(who: str, replicas: Iterable[int]) -> FloatArray:
    counts = positive_array(who, "replicas", list(replicas))
    odd = counts[counts % 1 != 0]
    if odd.size:
        raise InputError(f"{who}: `replicas` must be whole numbers, got {odd[0]:g}.")
    return counts


def _most_replicas(limits: BatchLimits) -> float:
    largest = [limits.max_batch_size, *(limits.candidates or ())[-1:]]
    return min((size for size in largest if size is not None), default=np.inf)


def _seconds(
    training_time: TrainingTimeLaw,
    batches: FloatArray,
    replicas: FloatArray,
    limits: BatchLimits,
) -> FloatArray:
    return np.array(
        [
            float(training_time.seconds_as_served(batch, int(count), limits))
            for batch, count in zip(batches, replicas, strict=True)
        ]
    )
