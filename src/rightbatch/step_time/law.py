r"""Seconds per step: the law with a knee, and the measured times joined by lines.

.. math:: T(B, P) = o + \gamma \max(B/P, M_T) + \Delta(P), \qquad \Delta(1) = 0

Perrone et al. (2019), eqs. 3 and 4, with the fixed cost `o` that small models pay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import nonnegative, positive, positive_array
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray
from rightbatch.step_time.communication import NO_COMMUNICATION, Communication


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeLaw:
    r"""Seconds per step: a fixed cost, flat up to a knee, then a straight line.

    .. math:: T(B, P) = o + \gamma \max(B/P, M_T) + \Delta(P)

    Args:
        seconds_per_example: Marginal time past the knee, :math:`\gamma`.
        saturation_batch_size: Local batch up to which a step takes no longer,
            :math:`M_T`, in examples; 1 where there is no knee.
        overhead_seconds: Fixed cost of a step, `o`; paid at one replica too.
        communication: :math:`\Delta(P)`, zero at one replica.

    Example:
        >>> law = StepTimeLaw(seconds_per_example=0.001, saturation_batch_size=20)
        >>> law.seconds_per_step([10, 40, 80], 2).tolist()
        [0.02, 0.02, 0.04]
    """

    seconds_per_example: float
    saturation_batch_size: float
    overhead_seconds: float = 0.0
    communication: Communication = NO_COMMUNICATION

    def __post_init__(self) -> None:
        nonnegative("StepTimeLaw", "seconds_per_example", self.seconds_per_example)
        positive("StepTimeLaw", "saturation_batch_size", self.saturation_batch_size)
        nonnegative("StepTimeLaw", "overhead_seconds", self.overhead_seconds)
        if self.seconds_per_example == 0 and self.overhead_seconds == 0:
            raise InputError(
                "StepTimeLaw: `seconds_per_example` or `overhead_seconds` must be "
                "positive, got 0 for both: a step takes time."
            )

    def seconds_per_step(
        self, batch_size: ArrayLike, num_replicas: ArrayLike = 1
    ) -> Any:
        """Return seconds per step: a float, or an array as the arguments broadcast."""
        replicas = np.asarray(num_replicas, dtype=float)
        local = np.asarray(batch_size, dtype=float) / replicas
        compute = self.seconds_per_example * np.maximum(
            local, self.saturation_batch_size
        )
        fixed = self.overhead_seconds + self.communication.comm_seconds(replicas)
        return _plain(compute + fixed)


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

    Example:
        >>> measured = MeasuredStepTime(batch_sizes=[8, 16], seconds=[0.2, 0.3])
        >>> measured.seconds_per_step([4, 12, 24])
        array([0.2 , 0.25, 0.4 ])
    """

    batch_sizes: Sequence[float]
    seconds: Sequence[float]
    communication: Communication = NO_COMMUNICATION

    def __post_init__(self) -> None:
        who = "MeasuredStepTime"
        sizes = positive_array(who, "batch_sizes", self.batch_sizes)
        times = positive_array(who, "seconds", self.seconds)
        checked_lengths(who, sizes, "seconds", times)
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
        rise = self.seconds[-1] - self.seconds[-2]
        slope = max(rise, 0.0) / (self.batch_sizes[-1] - self.batch_sizes[-2])
        past = slope * np.maximum(local - self.batch_sizes[-1], 0.0)
        between = np.interp(local, self.batch_sizes, self.seconds)
        return _plain(between + past + self.communication.comm_seconds(replicas))


def checked_lengths(
    who: str, batch_sizes: FloatArray, name: str, values: FloatArray
) -> None:
    """Check that there is a value for each batch size.

    Args:
        who: Who refuses.
        batch_sizes: Shape (rows,).
        name: Argument name of `values`.
        values: Shape (rows,), or it is refused.

    Raises:
        InputError: The lengths differ.
    """
    if len(values) != len(batch_sizes):
        raise InputError(
            f"{who}: `{name}` must be as many as `batch_sizes`, got {len(values)} and "
            f"{len(batch_sizes)}."
        )


def two_or_more(who: str, batch_sizes: FloatArray) -> FloatArray:
    """Return the different local batch sizes, increasing.

    Args:
        who: Who refuses.
        batch_sizes: Local batch sizes.

    Returns:
        Shape (sizes,), two at least.

    Raises:
        InputError: There is only one.
    """
    sizes = np.unique(batch_sizes)
    if len(sizes) < 2:
        raise InputError(
            f"{who}: `batch_sizes` must hold at least two different local batch sizes, "
            f"got {sizes[0]:g} alone."
        )
    return sizes


def _plain(values: FloatArray) -> float | FloatArray:
    return float(values) if values.ndim == 0 else values
