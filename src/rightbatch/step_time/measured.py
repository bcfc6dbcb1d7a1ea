"""Seconds per step as measured, joined by straight lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import nonnegative, positive_array
from rightbatch.fitting import FloatArray
from rightbatch.step_time.communication import NO_COMMUNICATION, Communication
from rightbatch.step_time.evaluation import Evaluation
from rightbatch.step_time.law import (
    StepTimeLaw,
    checked_lengths,
    checked_overlap,
    overlapped,
    plain,
    two_or_more,
)

# A row whose error would come out more than this many times larger, once the time
# between replicas is taken off, tells of that time and not of its local batch.
MOST_MAGNIFIED = 3.0
# Where the longer time hides the other, computing must be longer by more than noise.
MOST_HIDDEN = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStepTime:
    """Seconds per step as measured on one replica, straight lines between the points.

    Below the smallest batch timed the time is held; above the largest it goes on with
    the last slope, never falling. A local batch is `batch_size / num_replicas`.

    Args:
        batch_sizes: Batch sizes timed, at least two different ones, in any order;
            repeats are replaced by their median.
        seconds: Seconds per step at each.
        communication: What more than one replica add.
        overlap_exponent: As for :class:`StepTimeLaw`.
        overhead_seconds: The part of every measured time that hides no communication;
            of no consequence at `overlap_exponent` 1.
        evaluation: Checks between steps; where they name no time per example, one
            takes as long as a measured step of as many examples, less the overhead.

    Example:
        >>> measured = MeasuredStepTime(batch_sizes=[8, 16], seconds=[0.2, 0.3])
        >>> measured.seconds_per_step([4, 12, 24])
        array([0.2 , 0.25, 0.4 ])
    """

    batch_sizes: Sequence[float]
    seconds: Sequence[float]
    communication: Communication = NO_COMMUNICATION
    overlap_exponent: float = 1.0
    overhead_seconds: float = 0.0
    evaluation: Evaluation | None = None

    def __post_init__(self) -> None:
        who = "MeasuredStepTime"
        sizes = positive_array(who, "batch_sizes", self.batch_sizes)
        times = positive_array(who, "seconds", self.seconds)
        checked_lengths(who, sizes, "seconds", times)
        checked_overlap(who, self.overlap_exponent)
        nonnegative(who, "overhead_seconds", self.overhead_seconds)
        knots = two_or_more(who, sizes)
        medians = tuple(float(np.median(times[sizes == knot])) for knot in knots)
        object.__setattr__(self, "batch_sizes", tuple(knots.tolist()))
        object.__setattr__(self, "seconds", medians)

    @property
    def measured_range(self) -> tuple[float, float]:
        """Smallest and largest local batch size timed."""
        return self.batch_sizes[0], self.batch_sizes[-1]

    def seconds_per_step(
        self, batch_size: ArrayLike, num_replicas: ArrayLike = 1
    ) -> Any:
        """Return seconds per step: a float, or an array as the arguments broadcast."""
        replicas = np.asarray(num_replicas, dtype=float)
        local = np.asarray(batch_size, dtype=float) / replicas
        alone = self._interpolated(local)
        fixed = np.minimum(self.overhead_seconds, alone)
        if self.overlap_exponent == 1:
            fixed = np.zeros_like(fixed)
        comm = self.communication.comm_seconds(replicas)
        both = fixed + overlapped(alone - fixed, comm, self.overlap_exponent)
        return plain(both + self.evaluation_seconds(replicas))

    def pass_seconds(self, micro_batch_size: ArrayLike) -> Any:
        """Return seconds of a pass whose gradients are kept, not yet summed.

        Args:
            micro_batch_size: Examples of the pass on one replica, any shape.

        Returns:
            Seconds: a float for a number, else an array.
        """
        return plain(self._interpolated(np.asarray(micro_batch_size, dtype=float)))

    def evaluation_seconds(self, num_replicas: ArrayLike = 1) -> Any:
        """Return what checks add to a step, 0 without them.

        Args:
            num_replicas: P, any shape.

        Returns:
            Seconds per step: a float for a number, else an array.
        """
        if self.evaluation is None:
            return plain(np.zeros(np.shape(num_replicas)))
        local = self.evaluation.local_examples(num_replicas)
        each = self.evaluation.seconds_per_example
        if each is None:
            alone = self._interpolated(local)
            seconds = alone - np.minimum(self.overhead_seconds, alone)
        else:
            seconds = each * local
        return plain(np.asarray(seconds / self.evaluation.every))

    def _interpolated(self, local: FloatArray) -> FloatArray:
        rise = self.seconds[-1] - self.seconds[-2]
        slope = max(rise, 0.0) / (self.batch_sizes[-1] - self.batch_sizes[-2])
        past = slope * np.maximum(local - self.batch_sizes[-1], 0.0)
        between = np.interp(local, self.batch_sizes, self.seconds)
        return np.asarray(between + past)


def local_seconds(
    batch_sizes: ArrayLike,
    seconds: ArrayLike,
    num_replicas: ArrayLike,
    law: StepTimeLaw,
) -> tuple[FloatArray, FloatArray]:
    r"""Return what each row tells of a step on one replica: its communication off.

    .. math:: T(B/P, 1) = o + \left[(T(B, P) - o)^q - \Delta(P)^q\right]^{1/q}

    Taking communication off makes the relative error of a row larger,
    :math:`((T - o) / (T(B/P, 1) - o))^q` times. Rows where it would be more than
    three times larger are left out, unless fewer than two local batch sizes would
    remain; then all are kept, with at least a hundredth of their time.

    Args:
        batch_sizes: Of the rows, over all replicas, shape (rows,).
        seconds: Per step as timed.
        num_replicas: Of each row.
        law: Fitted to them: its communication, its overlap and its fixed cost.

    Returns:
        Local batch sizes and seconds of the rows kept, in their order.

    Example:
        >>> from rightbatch.step_time import ConstantCommunication
        >>> law = StepTimeLaw(
        ...     seconds_per_example=0.01,
        ...     saturation_batch_size=1,
        ...     communication=ConstantCommunication(seconds=0.05),
        ... )
        >>> times = [0.08, 0.09, 0.06]
        >>> local, seconds = local_seconds([8, 8, 8], times, [1, 2, 8], law)
        >>> local.tolist(), seconds.round(3).tolist()
        ([8.0, 4.0], [0.08, 0.04])
    """
    times = np.asarray(seconds, dtype=float)
    replicas = np.asarray(num_replicas, dtype=float)
    local = np.asarray(batch_sizes, dtype=float) / replicas
    comm = np.asarray(law.communication.comm_seconds(replicas), dtype=float)
    exponent = law.overlap_exponent
    # With nothing hidden the fixed cost need not be told apart.
    fixed = 0.0 if exponent == 1 else np.minimum(law.overhead_seconds, times)
    rest = times - fixed
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(rest > 0, comm / rest, np.where(comm > 0, np.inf, 0.0))
        # At q = inf: 0 where computing took longer, and infinite elsewhere.
        hidden = part**exponent
    share = np.clip(1 - hidden, 0.0, 1.0)
    kept = (share >= 1 / MOST_MAGNIFIED) & (part <= MOST_HIDDEN)
    if len(np.unique(local[kept])) < 2:
        kept = np.ones_like(kept)
    alone = fixed + rest * share ** (1 / exponent)
    return local[kept], np.maximum(alone, 0.01 * times)[kept]
