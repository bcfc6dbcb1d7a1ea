"""Seconds to a target as steps times seconds per step; what batches can be served."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import positive_integer
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray
from rightbatch.training_time.factorisation import Factorisation


class StepsModel(Protocol):
    """Steps to the target at each batch size; arrays broadcast."""

    def steps(self, batch_size: ArrayLike) -> Any:
        """Return the steps to the target."""
        ...


class StepTimeModel(Protocol):
    """Seconds per step at each batch size and number of replicas; arrays broadcast."""

    def seconds_per_step(
        self, batch_size: ArrayLike, num_replicas: ArrayLike = 1
    ) -> Any:
        """Return the seconds of one step, communication included."""
        ...


@runtime_checkable
class PassTimeModel(Protocol):
    """A step-time model that also knows a pass which sums and checks nothing."""

    def pass_seconds(self, micro_batch_size: ArrayLike) -> Any:
        """Return the seconds of a forward and a backward pass on one replica."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What batch sizes can be served.

    Args:
        max_batch_size: Largest global batch: the data set, or what may be asked for.
        max_micro_batch_size: Largest forward pass of one replica that fits in memory;
            larger shares are accumulated over several passes.
        max_accumulation_steps: Most passes per step; 1 forbids accumulation, which
            makes memory a hard limit. Needs `max_micro_batch_size`.
        candidates: The only batch sizes to choose from, such as powers of two.
        min_batch_size: Smallest global batch: above those that were run and did not
            reach the target.

    Example:
        >>> limits = BatchLimits(max_batch_size=1438, max_micro_batch_size=100)
        >>> limits.split(1000, num_replicas=4)
        (84, 3)
    """

    max_batch_size: int | None = None
    max_micro_batch_size: int | None = None
    max_accumulation_steps: int | None = None
    candidates: Sequence[int] | None = None
    min_batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in (
            "min_batch_size",
            "max_batch_size",
            "max_micro_batch_size",
            "max_accumulation_steps",
        ):
            value = getattr(self, name)
            if value is not None:
                positive_integer("BatchLimits", name, value)
        low, high = self.min_batch_size, self.max_batch_size
        if low is not None and high is not None and low > high:
            raise InputError(
                "BatchLimits: `min_batch_size` must be at most `max_batch_size`, got "
                f"{low} and {high}."
            )
        if self.max_accumulation_steps and not self.max_micro_batch_size:
            raise InputError(
                "BatchLimits: `max_accumulation_steps` needs `max_micro_batch_size`, "
                f"got {self.max_accumulation_steps} alone."
            )
        if self.candidates is not None:
            chosen = {
                positive_integer("BatchLimits", "candidates", size)
                for size in self.candidates
            }
            object.__setattr__(self, "candidates", tuple(sorted(chosen)))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {
            "min_batch_size": self.min_batch_size,
            "max_batch_size": self.max_batch_size,
            "max_micro_batch_size": self.max_micro_batch_size,
            "max_accumulation_steps": self.max_accumulation_steps,
            "candidates": None if self.candidates is None else list(self.candidates),
        }

    def split(self, batch_size: int, num_replicas: int = 1) -> tuple[int, int]:
        """Return micro-batch size and accumulation steps of one replica.

        Args:
            batch_size: Global batch size.
            num_replicas: Replicas that share it; the largest share is split.

        Returns:
            Examples per forward pass, and passes per step. Their product times
            `num_replicas` is the batch size, or the least above it where it cannot be
            shared evenly: `factorise` tells the exact shares.
        """
        micro, passes = self.shares(np.array(batch_size), num_replicas)
        return int(micro), int(passes)

    def factorise(self, batch_size: int, num_replicas: int = 1) -> Factorisation:
        """Return who computes how many examples, and what is wasted.

        Args:
            batch_size: Global batch size.
            num_replicas: Replicas that share it.

        Returns:
            Shares and passes; as few passes as memory allows.

        Example:
            >>> limits = BatchLimits(max_micro_batch_size=100)
            >>> print(limits.factorise(1000, num_replicas=4))
            84 x 3 x 4 = 1,008 places for 1,000 examples (0.79 % wasted)
        """
        _, passes = self.split(batch_size, num_replicas)
        return Factorisation(
            batch_size=batch_size,
            num_replicas=num_replicas,
            accumulation_steps=passes,
        )

    def shares(
        self, batch_size: FloatArray, num_replicas: float
    ) -> tuple[FloatArray, FloatArray]:
        """Return the same for many batch sizes, as arrays.

        Args:
            batch_size: Global batch sizes, any shape.
            num_replicas: Replicas that share each.

        Returns:
            Micro-batch sizes and accumulation steps, whole numbers.
        """
        share = np.ceil(batch_size / num_replicas)
        if self.max_micro_batch_size is None:
            return share, np.ones_like(share)
        passes = np.ceil(share / self.max_micro_batch_size)
        return np.ceil(share / passes), passes

    def served_step_seconds(
        self, step_time: StepTimeModel, batch_size: FloatArray, num_replicas: float
    ) -> Any:
        r"""Return seconds per step at the pace of the largest share, in whole examples.

        With `m` passes of `b` examples each, all but the last without communication
        and without the checks between steps:

        .. math:: (m - 1)\, T_{pass}(b) + T(b P, P)

        which is Pollux's :math:`(m - 1) T_{micro} + (T_{micro}^q + T_{comm}^q)^{1/q}`
        with a fixed cost for every pass: an upper bound where a part of it, the
        optimizer's, is paid once a step. A model that does not tell a pass is asked
        for a step of one replica.

        Args:
            step_time: Model of one step.
            batch_size: Global batch sizes (m,).
            num_replicas: Replicas that share each.

        Returns:
            Seconds, as `step_time` shapes them.
        """
        micro, passes = self.shares(batch_size, num_replicas)
        seconds = step_time.seconds_per_step(micro * num_replicas, num_replicas)
        if self.max_micro_batch_size is None or np.all(passes == 1):
            return seconds
        if isinstance(step_time, PassTimeModel):
            return seconds + (passes - 1) * step_time.pass_seconds(micro)
        return seconds + (passes - 1) * step_time.seconds_per_step(micro, 1)


NO_LIMITS = BatchLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTimeLaw:
    r"""Seconds to the target: any model of steps times any model of one step's time.

    .. math:: T_C(B, P) = S(B) \, T(B, P)

    Perrone et al. (2019), eqs. 1 and 5.

    Args:
        steps: Steps to the target against batch size.
        step_time: Seconds per step against batch size and replicas.

    Example:
        >>> from rightbatch.convergence import ConvergenceLaw
        >>> from rightbatch.step_time import StepTimeLaw
        >>> law = TrainingTimeLaw(
        ...     steps=ConvergenceLaw(min_steps=1000, min_examples=7e5),
        ...     step_time=StepTimeLaw(
        ...         seconds_per_example=0.001, saturation_batch_size=20
        ...     ),
        ... )
        >>> law.seconds_to_target(20)
        720.0
    """

    steps: StepsModel
    step_time: StepTimeModel

    def seconds_to_target(
        self, batch_size: ArrayLike, num_replicas: ArrayLike = 1
    ) -> Any:
        """Return seconds with the batch shared evenly, fractions of examples allowed.

        Args:
            batch_size: Global batch size, any shape.
            num_replicas: Replicas; broadcasts with `batch_size`.

        Returns:
            Seconds: a float for numbers, else an array.
        """
        seconds = self.step_time.seconds_per_step(batch_size, num_replicas)
        return self.steps.steps(batch_size) * seconds

    def seconds_as_served(
        self,
        batch_size: ArrayLike,
        num_replicas: int = 1,
        limits: BatchLimits = NO_LIMITS,
    ) -> Any:
        """Return seconds with whole examples: the largest share sets the pace.

        Args:
            batch_size: Global batch sizes, whole numbers.
            num_replicas: Replicas that share each.
            limits: Memory limits, for accumulation.

        Returns:
            Seconds: a float for a number, else an array.
        """
        batch = np.asarray(batch_size, dtype=float)
        step = limits.served_step_seconds(self.step_time, batch, num_replicas)
        return self.steps.steps(batch_size) * step
