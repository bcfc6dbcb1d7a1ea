"""Steps to a target as a function of the batch size: the law itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rightbatch import _checks
from rightbatch.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvergenceLaw:
    r"""Steps to a target loss as a function of the global batch size.

    .. math:: S(B) = \left( S_{\min}^s + (E_{\min} / B)^s \right)^{1/s}

    With the knee exponent s = 1 this is the inverse law of Perrone et al. (2019),
    eq. 2, the same curve as the steps-examples hyperbola of McCandlish et al. (2018). A
    larger s has a sharper knee, as sweeps with a learning rate tuned at every batch
    size can show.

    Args:
        min_steps: Steps as :math:`B \to \infty`, :math:`S_{\min}`. Unit: steps. A fit
            may find it negative (s = 1 only): then no batch size trades evenly.
        min_examples: Examples as :math:`B \to 0`, :math:`E_{\min}`. Unit: examples.
        knee_exponent: s, positive.

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

    def __post_init__(self) -> None:
        _checks.finite("ConvergenceLaw", "min_steps", self.min_steps)
        _checks.positive("ConvergenceLaw", "min_examples", self.min_examples)
        _checks.positive("ConvergenceLaw", "knee_exponent", self.knee_exponent)
        if self.min_steps < 0 and self.knee_exponent != 1:
            raise InputError(
                "ConvergenceLaw: a knee needs `min_steps` >= 0, got "
                f"{self.min_steps:g} with `knee_exponent` {self.knee_exponent:g}."
            )

    @property
    def name(self) -> str:
        """``inverse`` or ``knee``."""
        return "inverse" if self.knee_exponent == 1 else "knee"

    def steps(self, batch_size: ArrayLike) -> Any:
        """Return the steps to the target at each batch size.

        Args:
            batch_size: Global batch size in examples, any shape.

        Returns:
            Steps: a float for a number, else an array of the same shape. Never below
            zero, where only a negative `min_steps` far beyond the data would lead.
        """
        batch = np.asarray(batch_size, dtype=float)
        if self.knee_exponent == 1:
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
        if self.knee_exponent != 1:
            raise InputError(
                "batch_size_at_overhead: defined for the inverse law, got a knee of "
                f"exponent {self.knee_exponent:g}."
            )
        even = overhead * self.critical_batch_size
        if reference is None:
            return even
        _checks.positive("batch_size_at_overhead", "reference", reference)
        return (1 + overhead) * reference + even

    def to_dict(self) -> dict[str, Any]:
        """Return name and parameters."""
        return {
            "name": self.name,
            "min_steps": self.min_steps,
            "min_examples": self.min_examples,
            "knee_exponent": self.knee_exponent,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvergenceDraws:
    """Laws that the data could as well have given: one bootstrap draw each.

    Args:
        min_steps: Shape (n,), steps.
        min_examples: Shape (n,), examples.
        knee_exponent: Shape (n,).

    Example:
        >>> one = np.ones(2)
        >>> ConvergenceDraws(
        ...     min_steps=100 * one, min_examples=3200 * one, knee_exponent=one
        ... ).steps([32])
        array([[200.],
               [200.]])
    """

    min_steps: NDArray[np.float64]
    min_examples: NDArray[np.float64]
    knee_exponent: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.min_steps)

    def steps(self, batch_size: ArrayLike) -> NDArray[np.float64]:
        """Return the steps of each draw at each batch size.

        Args:
            batch_size: Shape (m,), examples.

        Returns:
            Shape (n, m), steps.
        """
        batch = np.atleast_1d(np.asarray(batch_size, dtype=float))
        noisy = self.min_examples[:, None] / batch
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
