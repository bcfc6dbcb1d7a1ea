r"""Moments where the loss is a mean over tokens and sequences differ in length.

A step of R sequences has L tokens. Sequence i adds :math:`c_i`, its token gradients
summed and divided by L, so that :math:`\sum c_i` is the gradient. The ratio of two
random sums, it is no weighted mean of independent units with given weights: with tokens
as weights, the formulas for units would read tr Sigma too low.
"""

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray
from rightbatch.noise_scale.moments import GradientMoments
from rightbatch.noise_scale.units import UnitSums


def token_mean_moments(
    contribution_sq_norms: ArrayLike, total_sq_norm: float
) -> GradientMoments:
    r"""Return both moments per sequence, each a unit of its own with equal weight.

    .. math:: \mathrm{tr}\,\Sigma = R \frac{R \sum |c_i|^2 - M}{R - 1},\quad
              |G|^2 = M - \mathrm{tr}\,\Sigma/R

    Lengths that vary add a little to the variance, of order of their squared relative
    spread times :math:`|G|^2`.

    Args:
        contribution_sq_norms: :math:`|c_i|^2`, shape (R,).
        total_sq_norm: M, the squared norm of the gradient.

    Returns:
        The moments; the noise scale they give is in sequences.

    Raises:
        InputError: There is only one sequence, or a norm is out of range.

    Example:
        >>> token_mean_moments([1.0, 1.0], 2.0)
        GradientMoments(grad_sq_norm=0.0, grad_variance=4.0)
    """
    return UnitSums.of(contribution_sq_norms, 1.0).moments(total_sq_norm)


def token_residual_moments(
    contribution_sq_norms: ArrayLike,
    total_products: ArrayLike,
    total_sq_norm: float,
    lengths: ArrayLike,
) -> GradientMoments:
    r"""Return both moments per sequence with the lengths taken out of the variance.

    The error of a ratio estimate, :math:`\sum |c_i - (L_i/L) \bar g|^2`, in place of
    :math:`\sum |c_i - \bar g/R|^2`: what a longer sequence adds only by being longer is
    not noise, as the mean over tokens divides it out again.

    Args:
        contribution_sq_norms: :math:`|c_i|^2`, shape (R,).
        total_products: :math:`\langle c_i, \bar g\rangle`, shape (R,), with the
            gradient :math:`\bar g = \sum c_i`.
        total_sq_norm: :math:`|\bar g|^2`.
        lengths: :math:`L_i`, in tokens, shape (R,).

    Returns:
        The moments; the noise scale they give is in sequences.

    Raises:
        InputError: There is only one sequence, a shape differs, or a number is out of
            range.

    Example:
        >>> token_residual_moments([1.0, 1.0], [1.0, 1.0], 2.0, [30, 30])
        GradientMoments(grad_sq_norm=0.0, grad_variance=4.0)
    """
    who = "token_residual_moments"
    tokens = _checks.positive_array(who, "lengths", lengths)
    norms = _numbers(who, "contribution_sq_norms", contribution_sq_norms, tokens.size)
    products = _numbers(who, "total_products", total_products, tokens.size)
    total = _checks.nonnegative(who, "total_sq_norm", total_sq_norm)
    num = tokens.size
    if num < 2:
        raise InputError(
            f"{who}: one sequence alone tells no noise, got {num}.",
            "take at least two in a step",
        )
    shares = tokens / tokens.sum()
    residual = float((norms - 2 * shares * products + shares**2 * total).sum())
    variance = num**2 * max(0.0, residual) / (num - 1)
    return GradientMoments(grad_sq_norm=total - variance / num, grad_variance=variance)


def _numbers(who: str, name: str, values: ArrayLike, size: int) -> FloatArray:
    array = np.asarray(values, dtype=float)
    if array.shape != (size,) or not np.all(np.isfinite(array)):
        raise InputError(
            f"{who}: `{name}` must be {size} finite numbers, one for each sequence, "
            f"got {values!r}."
        )
    return array
