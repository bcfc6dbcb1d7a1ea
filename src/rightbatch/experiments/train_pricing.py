"""What a run of changing batch sizes takes on some replicas, by the plan's law.

Numbers in, numbers out. The updates are those that were made: on P replicas the same
batches would have led to the same losses, only sooner.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.fitting import FloatArray
from rightbatch.training_time import StepTimeModel

HOUR = 3600.0  # seconds
NUM_TIMED = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PricedRun:
    """The clock of a run on some replicas.

    Args:
        num_replicas: P, all of them held for the whole run.
        clock: Seconds after each update, shape (k,).
        price_per_hour: Of one replica, in any currency; None where not told.

    Example:
        >>> priced = PricedRun(num_replicas=2, clock=np.array([900.0, 1800.0]),
        ...     price_per_hour=3.0)
        >>> priced.seconds, priced.replica_seconds, priced.cost
        (1800.0, 3600.0, 3.0)
    """

    num_replicas: int
    clock: FloatArray
    price_per_hour: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of the whole run."""
        return float(self.clock[-1]) if self.clock.size else 0.0

    @property
    def replica_seconds(self) -> float:
        """Seconds times replicas: what is paid for."""
        return self.num_replicas * self.seconds

    @property
    def cost(self) -> float | None:
        """Money for the whole run; None without a price."""
        if self.price_per_hour is None:
            return None
        return self.replica_seconds / HOUR * self.price_per_hour

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without the clock."""
        return {
            "num_replicas": self.num_replicas,
            "seconds": self.seconds,
            "replica_seconds": self.replica_seconds,
            "cost": self.cost,
        }


def price_run(
    batch_sizes: ArrayLike,
    step_time: StepTimeModel,
    num_replicas: int = 1,
    *,
    price_per_hour: float | None = None,
) -> PricedRun:
    r"""Return a run's clock on P replicas: the sum of the seconds of its updates.

    .. math:: t_k = \sum_{i \le k} T(B_i, \min(P, B_i))

    A replica needs one example: where the batch is below P, the rest stands by, and is
    paid for all the same.

    Args:
        batch_sizes: Of every update, in examples, shape (k,); may be empty.
        step_time: Seconds per step, such as a StepTimeLaw.
        num_replicas: P.
        price_per_hour: Of one replica.

    Returns:
        The clock, with what the replicas cost.

    Raises:
        InputError: An argument is not positive.

    Example:
        >>> from rightbatch.step_time import StepTimeLaw
        >>> law = StepTimeLaw(seconds_per_example=0.01, saturation_batch_size=1,
        ...     overhead_seconds=0.1)
        >>> price_run([10, 30], law).clock.round(9).tolist()
        [0.2, 0.6]
        >>> round(price_run([10, 30], law, 10).seconds, 9)
        0.24
    """
    who = "price_run"
    replicas = _checks.positive_integer(who, "num_replicas", num_replicas)
    if price_per_hour is not None:
        _checks.nonnegative(who, "price_per_hour", price_per_hour)
    sizes = np.asarray(batch_sizes, dtype=float)
    if not sizes.size:
        clock = np.zeros(0)
    else:
        _checks.positive_array(who, "batch_sizes", sizes)
        # A run of thousands of updates visits few batch sizes.
        different, place = np.unique(sizes, return_inverse=True)
        shared = np.minimum(replicas, np.maximum(1, np.floor(different)))
        each = np.asarray(step_time.seconds_per_step(different, shared), dtype=float)
        clock = np.cumsum(np.broadcast_to(each, different.shape)[place])
    return PricedRun(num_replicas=replicas, clock=clock, price_per_hour=price_per_hour)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnReplicas:
    """Step times of some replicas as those of one: for a policy that plans for them.

    Args:
        step_time: Seconds per step.
        num_replicas: That share every batch.

    Example:
        >>> from rightbatch.step_time import StepTimeLaw
        >>> law = StepTimeLaw(seconds_per_example=0.01, saturation_batch_size=1)
        >>> OnReplicas(step_time=law, num_replicas=4).seconds_per_step(40)
        0.1
    """

    step_time: StepTimeModel
    num_replicas: int

    def seconds_per_step(
        self, batch_size: ArrayLike, num_replicas: ArrayLike = 1
    ) -> Any:
        """Return seconds per step; the replicas are those it was made with."""
        del num_replicas
        shared = np.minimum(self.num_replicas, np.maximum(1, np.floor(batch_size)))
        return self.step_time.seconds_per_step(batch_size, shared)


def batch_sizes_to_time(visited: ArrayLike, replicas: Sequence[int]) -> tuple[int, ...]:
    """Return the few batch sizes whose step times tell those of whole runs.

    Evenly spaced in logarithms from the smallest share of a replica to the largest
    batch of one replica alone.

    Args:
        visited: Batch sizes of all runs, in examples.
        replicas: Numbers of replicas that are priced.

    Returns:
        Six at most and two at least, ascending.

    Raises:
        InputError: There are none, or they are not positive.

    Example:
        >>> batch_sizes_to_time([16, 512], [1, 8])
        (2, 6, 18, 56, 169, 512)
        >>> batch_sizes_to_time([1], [1])
        (1, 2)
    """
    sizes = _checks.positive_array("batch_sizes_to_time", "visited", visited)
    low = max(1, int(sizes.min() / max(replicas)))
    high = max(low + 1, round(float(sizes.max())))
    found = np.geomspace(low, high, NUM_TIMED).round().astype(int)
    return tuple(sorted({int(size) for size in found}))
