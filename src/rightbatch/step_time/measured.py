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
    checked_lengths,
    checked_overlap,
    overlapped,
    plain,
    two_or_more,
)


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
