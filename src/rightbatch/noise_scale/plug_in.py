r"""What the usual short cuts read, and why it is only a lower bound.

They take a batch's own :math:`|g_B|^2` for :math:`|G|^2`. It is too large by
:math:`\mathrm{tr}\,\Sigma/B`, so that what they read is about :math:`\phi B/(\phi +
B)`: no more than the batch they read it from, however large :math:`\phi` is. (The
ratio of one batch can pass even that by chance; it is ratios of averages that cannot.)
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugInNoiseScale:
    r"""A noise scale read from one batch's own norm: "at least", never a point.

    Args:
        at_least: What was read, about :math:`\phi B/(\phi + B)`.
        batch_size: B, which averages cannot pass, in examples.

    Example:
        >>> found = plug_in_noise_scale(350.0, batch_grad_sq_norm=4.0, batch_size=100)
        >>> print(found)
        noise scale at least 87.5 examples, read from a batch of 100
        >>> found.inverted
        700.0
    """

    at_least: float
    batch_size: float

    @property
    def is_censored(self) -> bool:
        """True: there is a lower end only."""
        return True

    @property
    def inverted(self) -> float:
        r"""The :math:`\phi` that would read so, :math:`vB/(B - v)`; infinite at B.

        A rescaling, not an interval: near B it magnifies the scatter without bound.
        """
        if self.at_least >= self.batch_size:
            return math.inf
        return self.at_least * self.batch_size / (self.batch_size - self.at_least)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for a program; what is not finite is null."""
        inverted = self.inverted
        return {
            "at_least": self.at_least,
            "batch_size": self.batch_size,
            "is_censored": True,
            "inverted": inverted if math.isfinite(inverted) else None,
        }

    def __str__(self) -> str:
        return (
            f"noise scale at least {self.at_least:.3g} examples, read from a batch of "
            f"{self.batch_size:g}"
        )


def plug_in_noise_scale(
    grad_variance: float, batch_grad_sq_norm: float, batch_size: float
) -> PlugInNoiseScale:
    r"""Return tr Sigma over a batch's own squared norm, marked as what it is.

    Args:
        grad_variance: :math:`\mathrm{tr}\,\Sigma` of one example.
        batch_grad_sq_norm: :math:`|g_B|^2`, better an average of it.
        batch_size: B, in examples.

    Returns:
        The lower bound.

    Raises:
        InputError: A number is out of range.
    """
    who = "plug_in_noise_scale"
    variance = _checks.nonnegative(who, "grad_variance", grad_variance)
    square = _checks.positive(who, "batch_grad_sq_norm", batch_grad_sq_norm)
    batch = _checks.positive(who, "batch_size", batch_size)
    return PlugInNoiseScale(at_least=variance / square, batch_size=batch)


def naive_diversity_bound(example_sq_norms: ArrayLike, mean_sq_norm: float) -> float:
    r"""Return the diversity bound of a batch that is taken for the data.

    :math:`B \sum |g_i|^2/|\sum g_i|^2`, for comparison with
    `GradientMoments.diversity_batch_bound`, which is 1 plus a noise scale without
    the cap: with averages for the norms it is :math:`(1 + \phi)/(1 + \phi/B)`, below B.

    Args:
        example_sq_norms: :math:`|g_i|^2` of every example, shape (B,).
        mean_sq_norm: Squared norm of their mean.

    Returns:
        The bound, in examples (Yin et al., 2018, with the batch for the data set).

    Raises:
        InputError: There are no norms, one is below zero, or `mean_sq_norm` is not
            positive.

    Example:
        >>> naive_diversity_bound([1.0, 1.0, 1.0, 1.0], 0.5)
        2.0
    """
    who = "naive_diversity_bound"
    norms = np.asarray(example_sq_norms, dtype=float)
    if norms.ndim != 1 or norms.size == 0 or not np.all(norms >= 0):
        raise InputError(
            f"{who}: `example_sq_norms` must be numbers not below zero, "
            f"got {example_sq_norms!r}."
        )
    square = _checks.positive(who, "mean_sq_norm", mean_sq_norm)
    return float(norms.mean()) / square
