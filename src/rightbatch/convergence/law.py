"""Steps to a target as a function of the batch size: the law itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rightbatch import _checks
from rightbatch.convergence.equivalents import best_lr, improvement_per_step
from rightbatch.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvergenceLaw:
    r"""Steps to a target loss as a function of the global batch size.

    .. math:: S(B) = \left( S_{\min}^s + (E_{\min} / (B - F))^s \right)^{1/s}

    With the knee exponent s = 1 and the floor F = 0 this is the inverse law of Perrone
    et al. (2019), eq. 2, the same curve as the steps-examples hyperbola of McCandlish
    et al. (2018). A larger s has a sharper knee, as sweeps with a learning rate tuned
    at every batch size can show. A floor F > 0 is what a learning rate held fixed
    brings: at batch sizes up to F the noise keeps the loss above the target for ever.

    Args:
        min_steps: Steps as :math:`B \to \infty`, :math:`S_{\min}`. Unit: steps. A fit
            may find it negative (s = 1 only): then no batch size trades evenly.
        min_examples: Examples as :math:`B \to 0`, :math:`E_{\min}`. Unit: examples.
            With a floor: what one more example a step saves, as large batches see it.
        knee_exponent: s, positive; 1 where there is a floor.
        min_batch_size: F, the feasibility floor. Unit: examples.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> law = ConvergenceLaw(min_steps=1_000, min_examples=256_000)
        >>> law.critical_batch_size
        256.0
        >>> law.steps([64, 256])
        array([5000., 2000.])
    """

    min_steps: float
    min_examples: float
    knee_exponent: float = 1.0
    min_batch_size: float = 0.0

    def __post_init__(self) -> None:
        _checks.finite("ConvergenceLaw", "min_steps", self.min_steps)
        _checks.positive("ConvergenceLaw", "min_examples", self.min_examples)
        _checks.positive("ConvergenceLaw", "knee_exponent", self.knee_exponent)
        if self.min_steps < 0 and self.knee_exponent != 1:
            raise InputError(
                "ConvergenceLaw: a knee needs `min_steps` >= 0, got "
                f"{self.min_steps:g} with `knee_exponent` {self.knee_exponent:g}."
            )
        _checks.nonnegative("ConvergenceLaw", "min_batch_size", self.min_batch_size)
        if self.min_batch_size and self.knee_exponent != 1:
            raise InputError(
                "ConvergenceLaw: a floor needs `knee_exponent` 1, got "
                f"{self.knee_exponent:g} with `min_batch_size` {self.min_batch_size:g}."
            )

    @property
    def name(self) -> str:
        """``inverse``, ``knee`` or ``floor``."""
        if self.min_batch_size:
            return "floor"
        return "inverse" if self.knee_exponent == 1 else "knee"

    def steps(self, batch_size: ArrayLike) -> Any:
        """Return the steps to the target at each batch size.

        Args:
            batch_size: Global batch size in examples, any shape.

        Returns:
            Steps: a float for a number, else an array of the same shape. Never below
            zero, where only a negative `min_steps` far beyond the data would lead;
            infinity up to `min_batch_size`.
        """
        batch = np.asarray(batch_size, dtype=float)
        if self.min_batch_size:
            above = batch - self.min_batch_size
            with np.errstate(divide="ignore", invalid="ignore"):
                steps = np.where(above > 0, self.min_examples / above, np.inf)
            steps = np.maximum(self.min_steps + steps, 0.0)
        elif self.knee_exponent == 1:
            steps = np.maximum(self.min_steps + self.min_examples / batch, 0.0)
        else:
            # Factor out the larger term: a power of a large count would overflow.
            large = np.maximum(self.min_steps, self.min_examples / batch)
            small = np.minimum(self.min_steps, self.min_examples / batch)
            s = self.knee_exponent
            steps = large * (1 + (small / large) ** s) ** (1 / s)
        return float(steps) if steps.ndim == 0 else steps

    def examples(self, batch_size: ArrayLike) -> Any:
        """Return the examples to the target, B S(B), at each batch size.

        Args:
            batch_size: Global batch size in examples, any shape.

        Returns:
            Examples, shaped like `batch_size`.
        """
        examples = np.asarray(batch_size, dtype=float) * self.steps(batch_size)
        return float(examples) if np.ndim(examples) == 0 else examples

    @property
    def critical_batch_size(self) -> float:
        r"""Batch size of the even trade, :math:`\phi = E_{\min}/S_{\min}`, in examples.

        Under the inverse law both steps and examples are twice their minimum there.

        Raises:
            InputError: `min_steps` is not positive, so no batch size trades evenly.
        """
        if self.min_steps <= 0:
            raise InputError(
                "critical_batch_size: needs `min_steps` > 0, got "
                f"{self.min_steps:g}; larger batches cost no extra examples here."
            )
        return self.min_examples / self.min_steps

    def batch_size_at_overhead(
        self, overhead: float, *, reference: float | None = None
    ) -> float:
        r"""Return the batch size that needs so many more examples than a reference.

        From tiny batches :math:`\epsilon\phi`; from a reference batch
        :math:`(1+\epsilon) B_{ref} + \epsilon\phi` (Zhang et al. 2024). For the inverse
        law only.

        Args:
            overhead: Extra examples, a fraction: .2 is 20 % more.
            reference: Batch size compared with; None for batches towards zero.

        Returns:
            The batch size, in examples.

        Raises:
            InputError: The law has a knee, or an argument is out of its range.

        Example:
            >>> law = ConvergenceLaw(min_steps=1_000, min_examples=256_000)
            >>> law.batch_size_at_overhead(0.25), law.batch_size_at_overhead(1)
            (64.0, 256.0)
        """
        _checks.positive("batch_size_at_overhead", "overhead", overhead)
        self._inverse_only("batch_size_at_overhead")
        even = overhead * self.critical_batch_size
        if reference is None:
            return even
        _checks.positive("batch_size_at_overhead", "reference", reference)
        return (1 + overhead) * reference + even

    def gain(self, batch_size: ArrayLike, *, reference: float) -> Any:
        r"""Return AdaScale's gain: steps at the reference batch for one step here.

        .. math:: r = S(B_0)/S(B) = (1 + \phi/B_0)/(1 + \phi/B)

        the second form for the inverse law (Johnson et al. 2020).

        Args:
            batch_size: B, any shape.
            reference: B_0.

        Returns:
            The gain, between 1 and B/B_0 for a larger batch.

        Example:
            >>> ConvergenceLaw(min_steps=10, min_examples=640).gain(64, reference=16)
            2.5
        """
        return self.steps(reference) / self.steps(batch_size)

    def efficiency(self, batch_size: ArrayLike, *, reference: float) -> Any:
        r"""Return Pollux's statistical efficiency: the reference's examples over these.

        .. math:: E(B_0)/E(B) = (\phi + B_0)/(\phi + B)

        the second form for the inverse law (Qiao et al. 2021).

        Args:
            batch_size: B, any shape.
            reference: B_0.

        Returns:
            1 at the reference, less for larger batches.
        """
        return self.examples(reference) / self.examples(batch_size)

    def improvement_per_step(self, batch_size: ArrayLike, *, best: float) -> Any:
        r"""Return what one step at the best learning rate takes off the loss.

        .. math:: \Delta L = \Delta L_{\max}/(1 + \phi/B)

        McCandlish et al. (2018), eq. 2.7; for the inverse law only.

        Args:
            batch_size: B, any shape.
            best: Improvement with the full gradient.

        Returns:
            In the unit of `best`.

        Raises:
            InputError: The law has a knee or a floor, or no critical batch size.
        """
        self._inverse_only("improvement_per_step")
        return improvement_per_step(batch_size, self.critical_batch_size, best=best)

    def best_lr(self, batch_size: ArrayLike, *, lr_max: float) -> Any:
        r"""Return the best learning rate of SGD.

        .. math:: \eta = \eta_{\max}/(1 + \phi/B)

        McCandlish et al. (2018), eq. 2.6; for the inverse law only.

        Args:
            batch_size: B, any shape.
            lr_max: Best rate with the full gradient.

        Returns:
            In the unit of `lr_max`.

        Raises:
            InputError: The law has a knee or a floor, or no critical batch size.
        """
        self._inverse_only("best_lr")
        return best_lr(batch_size, self.critical_batch_size, lr_max=lr_max)

    def _inverse_only(self, who: str) -> None:
        if self.name != "inverse":
            raise InputError(
                f"{who}: defined for the inverse law, got a law with a {self.name}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return name and parameters."""
        return {
            "name": self.name,
            "min_steps": self.min_steps,
            "min_examples": self.min_examples,
            "knee_exponent": self.knee_exponent,
            "min_batch_size": self.min_batch_size,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvergenceDraws:
    """Laws that the data could as well have given: one bootstrap draw each.

    Args:
        min_steps: Shape (n,), steps.
        min_examples: Shape (n,), examples.
        knee_exponent: Shape (n,).
        min_batch_size: Shape (n,), examples, or 0 for all.

    Example:
        >>> one = np.ones(2)
        >>> ConvergenceDraws(
        ...     min_steps=100 * one,
        ...     min_examples=3200 * one,
        ...     knee_exponent=one,
        ... ).steps([32])
        array([[200.],
               [200.]])
    """

    min_steps: NDArray[np.float64]
    min_examples: NDArray[np.float64]
    knee_exponent: NDArray[np.float64]
    min_batch_size: NDArray[np.float64] | float = 0.0

    def __len__(self) -> int:
        return len(self.min_steps)

    def steps(self, batch_size: ArrayLike) -> NDArray[np.float64]:
        """Return the steps of each draw at each batch size.

        Args:
            batch_size: Shape (m,), examples.

        Returns:
            Shape (n, m), steps; infinity up to the floor of a draw.
        """
        batch = np.atleast_1d(np.asarray(batch_size, dtype=float))
        above = batch - np.reshape(self.min_batch_size, (-1, 1))
        with np.errstate(divide="ignore"):
            noisy = self.min_examples[:, None] / np.maximum(above, 0.0)
        floor = np.broadcast_to(self.min_steps[:, None], noisy.shape)
        s = self.knee_exponent[:, None]
        if np.all(s == 1):
            return np.maximum(floor + noisy, 0.0)
        large, small = np.maximum(floor, noisy), np.minimum(floor, noisy)
        return np.where(
            s == 1,
            np.maximum(floor + noisy, 0.0),
            large * (1 + (np.maximum(small, 0.0) / large) ** s) ** (1 / s),
        )
