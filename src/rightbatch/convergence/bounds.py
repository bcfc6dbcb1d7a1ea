r"""Laws of steps that theory bounds give: Perrone's own, and Bottou's turned around.

Both have a feasibility floor: at a fixed learning rate the noise of small batches keeps
the loss above the target for ever.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.convergence.law import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvexBound:
    r"""Updates that suffice on a convex problem, after Perrone et al. (2019).

    The expected gap to the optimum obeys
    :math:`\Delta_{k+1} \le \Delta_k - \lambda \Delta_k^2 + \lambda \sigma^2` with
    :math:`\sigma^2 = \theta/B`. Solved for the target gap :math:`\epsilon`:

    .. math:: S(B) = \frac{\ln\frac{\epsilon + \sigma}{\epsilon - \sigma}
        + \ln\frac{\Delta_0 - \sigma}{\Delta_0 + \sigma}}{\ln(1 + 2 \lambda \sigma)}

    The paper prints it as a lower bound ("updates >="); it is on the steps that are
    enough, so it bounds the steps needed from above.

    Args:
        contraction: :math:`\lambda`, share of the gap lost per step and unit of gap.
        initial_gap: :math:`\Delta_0`, loss above the optimum at the start.
        target_gap: :math:`\epsilon`, at the target; below `initial_gap`.
        noise: :math:`\theta`, squared noise gap of a batch of one example.

    Raises:
        InputError: A value is not positive, or the target is not below the start.

    Example:
        >>> bound = ConvexBound(
        ...     contraction=0.01, initial_gap=2.0, target_gap=0.125, noise=0.5
        ... )
        >>> bound.min_batch_size
        32.0
        >>> bound.steps([32, 128, 512]).round().tolist()
        [inf, 829.0, 768.0]
    """

    contraction: float
    initial_gap: float
    target_gap: float
    noise: float

    def __post_init__(self) -> None:
        who = "ConvexBound"
        for name in ("contraction", "initial_gap", "target_gap", "noise"):
            _checks.positive(who, name, getattr(self, name))
        if self.target_gap >= self.initial_gap:
            raise InputError(
                f"{who}: `target_gap` must be below `initial_gap`, got "
                f"{self.target_gap:g} and {self.initial_gap:g}."
            )

    @property
    def min_batch_size(self) -> float:
        r"""Feasibility floor :math:`\theta/\epsilon^2`: no target at or below it."""
        return self.noise / self.target_gap**2

    def steps(self, batch_size: ArrayLike) -> Any:
        """Return the steps that suffice, the exact form.

        Args:
            batch_size: Examples per step, any shape.

        Returns:
            Steps, infinity up to `min_batch_size`; shaped like `batch_size`.
        """
        batch = np.asarray(batch_size, dtype=float)
        sigma = np.sqrt(self.noise / batch)
        share = np.minimum(sigma / self.target_gap, 1.0)
        with np.errstate(divide="ignore"):
            start = np.arctanh(share * self.target_gap / self.initial_gap)
            logs = 2 * (np.arctanh(share) - start)
        steps = np.where(share < 1, logs, np.inf)
        return _plain(steps / np.log1p(2 * self.contraction * sigma))

    def expanded(self) -> ConvergenceLaw:
        r"""Return the bound for small noise: an inverse law.

        .. math:: S \approx \frac1\lambda \left(\frac1\epsilon -
            \frac1{\Delta_0}\right) \left(1 + \frac{\theta}{3B}\left(\frac1{\epsilon^2}
            + \frac1{\Delta_0^2} + \frac1{\epsilon\Delta_0}\right)\right)

        Neglects a relative :math:`\lambda\sigma` and higher powers of the noise. The
        paper's last line lacks the 3.

        Returns:
            The law; its critical batch size lies between a third of the feasibility
            floor and all of it.
        """
        low, high = 1 / self.initial_gap, 1 / self.target_gap
        min_steps = (high - low) / self.contraction
        critical = self.noise / 3 * (high**2 + low**2 + high * low)
        return ConvergenceLaw(min_steps=min_steps, min_examples=min_steps * critical)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRateBound:
    r"""Bottou, Curtis and Nocedal's (2018) bound on SGD, solved for the steps.

    From :math:`E_N \le A/B + (1 - C/B)^{N-1} (E_1 - A/B)`:

    .. math:: S(B) = 1 + \frac{\ln\frac{\epsilon B - A}{E_1 B - A}}{\ln(1 - C/B)}

    Perrone et al. print it with B/(B - C) in front and no minus sign, which no positive
    number of steps satisfies. It grows in proportion to B for large batches, so it is a
    rival that measured tables refute.

    Args:
        noise_gap: A, gap of a batch of one at the noise floor, times B.
        contraction: C, share of the gap lost per step at a batch of one.
        initial_gap: E_1.
        target_gap: :math:`\epsilon`, below `initial_gap`.

    Raises:
        InputError: A value is not positive, or the target is not below the start.

    Example:
        >>> bound = LinearRateBound(
        ...     noise_gap=1.0, contraction=0.5, initial_gap=2.0, target_gap=0.1
        ... )
        >>> bound.steps([10, 20, 40, 80]).round().tolist()
        [inf, 146.0, 261.0, 499.0]
    """

    noise_gap: float
    contraction: float
    initial_gap: float
    target_gap: float

    def __post_init__(self) -> None:
        who = "LinearRateBound"
        for name in ("noise_gap", "contraction", "initial_gap", "target_gap"):
            _checks.positive(who, name, getattr(self, name))
        if self.target_gap >= self.initial_gap:
            raise InputError(
                f"{who}: `target_gap` must be below `initial_gap`, got "
                f"{self.target_gap:g} and {self.initial_gap:g}."
            )

    @property
    def min_batch_size(self) -> float:
        r"""Feasibility floor :math:`A/\epsilon`, or C where that is larger."""
        return max(self.noise_gap / self.target_gap, self.contraction)

    def steps(self, batch_size: ArrayLike) -> Any:
        """Return the steps that suffice.

        Args:
            batch_size: Examples per step, any shape.

        Returns:
            Steps, infinity up to `min_batch_size`; shaped like `batch_size`.
        """
        batch = np.asarray(batch_size, dtype=float)
        above = np.maximum(batch, self.min_batch_size * (1 + 1e-12))
        gap = (self.target_gap * above - self.noise_gap) / (
            self.initial_gap * above - self.noise_gap
        )
        steps = 1 + np.log(gap) / np.log1p(-self.contraction / above)
        return _plain(np.where(batch > self.min_batch_size, steps, np.inf))


def _plain(values: FloatArray) -> float | FloatArray:
    return float(values) if np.ndim(values) == 0 else values
