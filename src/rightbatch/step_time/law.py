r"""Seconds per step: flat up to a knee, then a straight line, and communication.

.. math:: T(B, P) = o + e + \left[\left(\gamma \max(B/P, M_T)\right)^q
    + \Delta(P)^q\right]^{1/q}, \qquad \Delta(1) = 0

Perrone et al. (2019), eqs. 3 and 4 at q = 1, with the fixed cost `o` that small models
pay, the checks `e` of eq. 6, and the overlap exponent q of Qiao et al. (2021), Pollux.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import nonnegative, positive
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray
from rightbatch.step_time.communication import NO_COMMUNICATION, Communication
from rightbatch.step_time.evaluation import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeLaw:
    r"""Seconds per step: a fixed cost, flat up to a knee, then a straight line.

    .. math:: T(B, P) = o + e + \left[\left(\gamma \max(B/P, M_T)\right)^q
        + \Delta(P)^q\right]^{1/q}

    Args:
        seconds_per_example: Marginal time past the knee, :math:`\gamma`.
        saturation_batch_size: Local batch up to which a step takes no longer,
            :math:`M_T`, in examples; 1 where there is no knee.
        overhead_seconds: Fixed cost of a step, `o`; paid at one replica too.
        communication: :math:`\Delta(P)`, zero at one replica.
        overlap_exponent: q >= 1: at 1 the two times add up, at infinity the longer one
            hides the other.
        evaluation: Checks between steps; `e` is their time over the steps between
            them, paid at one replica too.

    Example:
        >>> law = StepTimeLaw(seconds_per_example=0.001, saturation_batch_size=20)
        >>> law.seconds_per_step([10, 40, 80], 2).tolist()
        [0.02, 0.02, 0.04]
    """

    seconds_per_example: float
    saturation_batch_size: float
    overhead_seconds: float = 0.0
    communication: Communication = NO_COMMUNICATION
    overlap_exponent: float = 1.0
    evaluation: Evaluation | None = None

    def __post_init__(self) -> None:
        nonnegative("StepTimeLaw", "seconds_per_example", self.seconds_per_example)
        positive("StepTimeLaw", "saturation_batch_size", self.saturation_batch_size)
        nonnegative("StepTimeLaw", "overhead_seconds", self.overhead_seconds)
        checked_overlap("StepTimeLaw", self.overlap_exponent)
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
        both = overlapped(
            self._compute(local),
            self.communication.comm_seconds(replicas),
            self.overlap_exponent,
        )
        fixed = self.overhead_seconds + self.evaluation_seconds(replicas)
        return plain(both + fixed)

    def pass_seconds(self, micro_batch_size: ArrayLike) -> Any:
        """Return seconds of a pass whose gradients are kept, not yet summed.

        The fixed cost counts in full: what of it is paid once a step, the optimizer's
        part, is not told apart, so several passes are an upper bound.

        Args:
            micro_batch_size: Examples of the pass on one replica, any shape.

        Returns:
            Seconds: a float for a number, else an array.
        """
        micro = np.asarray(micro_batch_size, dtype=float)
        return plain(self.overhead_seconds + self._compute(micro))

    def evaluation_seconds(self, num_replicas: ArrayLike = 1) -> Any:
        """Return what checks add to a step, 0 without them.

        Args:
            num_replicas: P, any shape.

        Returns:
            Seconds per step: a float for a number, else an array.
        """
        if self.evaluation is None:
            return plain(np.zeros(np.shape(num_replicas)))
        return self.evaluation.seconds_per_step(
            self.seconds_per_example, self.saturation_batch_size, num_replicas
        )

    def _compute(self, local: FloatArray) -> FloatArray:
        flat = np.maximum(local, self.saturation_batch_size)
        return np.asarray(self.seconds_per_example * flat)


def overlapped(
    compute: ArrayLike, comm: ArrayLike, exponent: ArrayLike = 1.0
) -> FloatArray:
    r"""Return computing and communicating together, partly at the same time.

    .. math:: (T_{comp}^q + T_{comm}^q)^{1/q}

    The sum at q = 1, the longer of the two at infinity: Qiao et al. (2021), Pollux.

    Args:
        compute: Seconds, any shape.
        comm: Seconds, any shape.
        exponent: q, any shape, 1 or more.

    Returns:
        Seconds, an array as the arguments broadcast.

    Example:
        >>> [float(overlapped(3.0, 4.0, q)) for q in (1, 2, math.inf)]
        [7.0, 5.0, 4.0]
    """
    power = np.asarray(exponent, dtype=float)
    if np.all(power == 1):
        # Powers of a thousand draws on a grid take longer than all the rest.
        shape = np.broadcast(compute, comm, power).shape
        return np.broadcast_to(np.add(compute, comm), shape).astype(float)
    longer, shorter = np.maximum(compute, comm), np.minimum(compute, comm)
    share = shorter / np.where(longer > 0, longer, 1.0)
    # Infinite exponents would leave 1 ** inf to the order of rounding.
    finite = np.where(np.isfinite(power), power, 1.0)
    both = longer * (1 + share**finite) ** (1 / finite)
    both = np.where(finite == 1, longer + shorter, both)
    return np.asarray(np.where(np.isfinite(power), both, longer), dtype=float)


def checked_overlap(who: str, value: float) -> float:
    """Return an overlap exponent: 1 or more, infinity allowed.

    Args:
        who: Who refuses.
        value: q.

    Returns:
        The same.

    Raises:
        InputError: It is less than 1, or not a number.
    """
    positive(who, "overlap_exponent", 1.0 if value == math.inf else value)
    if value < 1:
        raise InputError(
            f"{who}: `overlap_exponent` must be at least 1, got {value:g}: apart, "
            "computing and communicating take their sum."
        )
    return value


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


def plain(values: FloatArray) -> float | FloatArray:
    """Return a float where there is one value, else the array."""
    return float(values) if values.ndim == 0 else values
