"""The loss after so many steps at a batch size, and the steps it takes to a target.

A sweep that stops at a target keeps one number per run. This law uses every pair of
steps and loss, so runs that never reached the target count too.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLaw:
    r"""Loss as a function of the batch size and of the steps trained.

    .. math:: L(B, S) = L_0 + C_B / B^b + C_S / S^c

    The first term is what neither steps nor examples take away, the second what the
    noise of a batch leaves, the third what so few steps leave.

    Args:
        irreducible_loss: :math:`L_0`.
        batch_coefficient: :math:`C_B`, not negative.
        batch_exponent: b, positive.
        steps_coefficient: :math:`C_S`, not negative.
        steps_exponent: c, positive.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> law = LossLaw(
        ...     irreducible_loss=1.5,
        ...     batch_coefficient=8,
        ...     batch_exponent=1,
        ...     steps_coefficient=100,
        ...     steps_exponent=1,
        ... )
        >>> law.loss(16, [100, 1_000])
        array([3. , 2.1])
        >>> law.steps([8, 16, 64], target=2.5)
        array([         inf, 200.        , 114.28571429])
        >>> law.min_batch_size(2.5), law.data_optimal_batch_size(2.5)
        (8.0, 16.0)
    """

    irreducible_loss: float
    batch_coefficient: float
    batch_exponent: float
    steps_coefficient: float
    steps_exponent: float

    def __post_init__(self) -> None:
        who = "LossLaw"
        _checks.finite(who, "irreducible_loss", self.irreducible_loss)
        _checks.nonnegative(who, "batch_coefficient", self.batch_coefficient)
        _checks.positive(who, "batch_exponent", self.batch_exponent)
        _checks.nonnegative(who, "steps_coefficient", self.steps_coefficient)
        _checks.positive(who, "steps_exponent", self.steps_exponent)

    def loss(self, batch_size: ArrayLike, steps: ArrayLike) -> Any:
        """Return the loss after so many steps.

        Args:
            batch_size: Examples per step, any shape.
            steps: Any shape that broadcasts with it.

        Returns:
            Loss: a float for numbers, else an array.
        """
        batch = np.asarray(batch_size, dtype=float)
        count = np.asarray(steps, dtype=float)
        loss = (
            self.irreducible_loss
            + self.batch_coefficient * batch**-self.batch_exponent
            + self.steps_coefficient * count**-self.steps_exponent
        )
        return float(loss) if np.ndim(loss) == 0 else loss

    def steps(self, batch_size: ArrayLike, target: float) -> Any:
        r"""Return the steps to a target loss, :math:`(C_S/(D - C_B B^{-b}))^{1/c}`.

        D is the target less the irreducible loss.

        Args:
            batch_size: Examples per step, any shape.
            target: Loss to reach.

        Returns:
            Steps, shaped like `batch_size`; infinity where the noise of the batch keeps
            the loss above the target for ever.
        """
        batch = np.asarray(batch_size, dtype=float)
        room = (
            target
            - self.irreducible_loss
            - self.batch_coefficient * batch**-self.batch_exponent
        )
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            ratio = self.steps_coefficient / np.maximum(room, 0.0)
            steps = np.where(room > 0, ratio ** (1 / self.steps_exponent), np.inf)
        return float(steps) if steps.ndim == 0 else steps

    def examples(self, batch_size: ArrayLike, target: float) -> Any:
        """Return the examples to a target loss, B S(B).

        Args:
            batch_size: Examples per step, any shape.
            target: Loss to reach.

        Returns:
            Examples, shaped like `batch_size`.
        """
        examples = np.asarray(batch_size, dtype=float) * self.steps(batch_size, target)
        return float(examples) if np.ndim(examples) == 0 else examples

    def min_batch_size(self, target: float) -> float:
        r"""Return the batch size up to which a target is out of reach.

        .. math:: B_{\min} = (C_B / D)^{1/b}

        Args:
            target: Loss to reach.

        Returns:
            Examples; zero where the batch leaves no noise, infinity where the target is
            not above the irreducible loss.
        """
        room = target - self.irreducible_loss
        if room <= 0:
            return math.inf
        return _power(self.batch_coefficient / room, 1 / self.batch_exponent)

    def data_optimal_batch_size(self, target: float) -> float:
        r"""Return the batch size that reaches a target with the fewest examples.

        .. math:: B_{opt} = (C_B (1 + b/c) / D)^{1/b}

        where the derivative of B S(B) is zero. Smaller batches need more examples since
        they stall just above the target, larger ones since they average more than it
        takes.

        Args:
            target: Loss to reach.

        Returns:
            Examples; zero and infinity as for :meth:`min_batch_size`.
        """
        gain = (1 + self.batch_exponent / self.steps_exponent) ** (
            1 / self.batch_exponent
        )
        return gain * self.min_batch_size(target)

    def at_target(self, target: float) -> "StepsToLoss":
        """Return the curve of steps to one target; it serves wherever a law does.

        Args:
            target: Loss to reach.

        Returns:
            The curve.

        Example:
            >>> law = LossLaw(
            ...     irreducible_loss=1.5,
            ...     batch_coefficient=8,
            ...     batch_exponent=1,
            ...     steps_coefficient=100,
            ...     steps_exponent=1,
            ... )
            >>> curve = law.at_target(2.5)
            >>> curve.steps(16), curve.min_steps, curve.least_examples
            (200.0, 100.0, 3200.0)
        """
        return StepsToLoss(law=self, target=target)

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters."""
        return {
            "name": "loss",
            "irreducible_loss": self.irreducible_loss,
            "batch_coefficient": self.batch_coefficient,
            "batch_exponent": self.batch_exponent,
            "steps_coefficient": self.steps_coefficient,
            "steps_exponent": self.steps_exponent,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsToLoss:
    r"""Steps to one target loss against the batch size, by a law of the loss.

    With b = c = 1 this is a :class:`ConvergenceLaw` with a feasibility floor F =
    :math:`B_{\min}` and :math:`E_{\min} = S_{\min} F`.

    Args:
        law: Of the loss.
        target: Loss to reach.

    Raises:
        InputError: `target` is not a finite number.
    """

    law: LossLaw
    target: float

    def __post_init__(self) -> None:
        _checks.finite("StepsToLoss", "target", self.target)

    @property
    def min_steps(self) -> float:
        r"""Steps as :math:`B \to \infty`, :math:`(C_S/D)^{1/c}`."""
        room = self.target - self.law.irreducible_loss
        if room <= 0:
            return math.inf
        return _power(self.law.steps_coefficient / room, 1 / self.law.steps_exponent)

    @property
    def min_batch_size(self) -> float:
        """Batch size up to which the target is out of reach."""
        return self.law.min_batch_size(self.target)

    @property
    def data_optimal_batch_size(self) -> float:
        """Batch size that needs the fewest examples."""
        return self.law.data_optimal_batch_size(self.target)

    @property
    def least_examples(self) -> float:
        """Examples at the data-optimal batch size; infinity out of reach."""
        best = self.data_optimal_batch_size
        return self.examples(best) if 0 < best < math.inf else best

    def steps(self, batch_size: ArrayLike) -> Any:
        """Return the steps to the target.

        Args:
            batch_size: Examples per step, any shape.

        Returns:
            Steps, shaped like `batch_size`.
        """
        return self.law.steps(batch_size, self.target)

    def examples(self, batch_size: ArrayLike) -> Any:
        """Return the examples to the target, B S(B).

        Args:
            batch_size: Examples per step, any shape.

        Returns:
            Examples, shaped like `batch_size`.
        """
        return self.law.examples(batch_size, self.target)


def _power(base: float, exponent: float) -> float:
    # A tiny exponent b makes C^(1/b) too large for a float: as good as infinite.
    try:
        return base**exponent
    except OverflowError:
        return math.inf
