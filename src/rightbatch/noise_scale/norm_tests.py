r"""Batch sizes that keep a batch's gradient close to the true one.

Three tests ask that the variance of a batch's gradient be small: all of it beside
:math:`|G|^2` (the norm test), what lies along G beside :math:`|G|^4` (the inner-product
test), and beside that what lies across (the augmented test). The first needs the two
moments, the others :math:`G'\Sigma G`, the variance of one example's product with G.
"""

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.noise_scale.moments import GradientMoments


def norm_test_batch(moments: GradientMoments, theta: float) -> float | None:
    r"""Return the smallest batch that passes the norm test, :math:`\phi/\theta^2`.

    :math:`E|g_B - G|^2 \le \theta^2 |G|^2` (Byrd et al., 2012).

    Args:
        moments: Averages.
        theta: Tolerated noise over signal, positive.

    Returns:
        Examples, not rounded; None where :math:`|G|^2` is not above zero.

    Raises:
        InputError: `theta` is not positive.

    Example:
        >>> moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
        >>> norm_test_batch(moments, theta=0.5)
        2800.0
    """
    _checks.positive("norm_test_batch", "theta", theta)
    if moments.grad_sq_norm <= 0:
        return None
    return moments.simple_noise_scale / theta**2


def inner_product_variance(
    first_products: ArrayLike, second_products: ArrayLike, examples_per_unit: float
) -> float:
    r"""Return :math:`G'\Sigma G` without bias from three disjoint groups of examples.

    :math:`b\,\mathrm{cov}_j(\langle g_j, u\rangle, \langle g_j, v\rangle)`: given u
    and v the covariance over units is :math:`u'\Sigma v/b`, and u and v are independent
    with mean G. Products with the batch's own mean, :math:`b\,\mathrm{var}_j \langle
    g_j, g_B\rangle`, would be too large by about :math:`\mathrm{tr}\,\Sigma^2/B`.

    Args:
        first_products: :math:`\langle g_j, u\rangle` for units j of the first group,
            shape (R,), u the mean gradient of the second.
        second_products: :math:`\langle g_j, v\rangle` for the same units, v the mean
            gradient of the third.
        examples_per_unit: b.

    Returns:
        The estimate of one step; may be below zero, and is to be averaged like that.

    Raises:
        InputError: There are fewer than two units, the shapes differ, a product is not
            finite, or `examples_per_unit` is not positive.

    Example:
        >>> inner_product_variance([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], 8)
        16.0
    """
    who = "inner_product_variance"
    size = _checks.positive(who, "examples_per_unit", examples_per_unit)
    first = np.asarray(first_products, dtype=float)
    second = np.asarray(second_products, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or first.size < 2:
        raise InputError(
            f"{who}: products must be two lists of the same length, two at least, "
            f"got shapes {first.shape} and {second.shape}."
        )
    if not (np.all(np.isfinite(first)) and np.all(np.isfinite(second))):
        raise InputError(f"{who}: a product is not finite.", "skip the update")
    spread = (first - first.mean()) @ (second - second.mean())
    return float(size * spread / (first.size - 1))


def inner_product_test_batch(
    moments: GradientMoments, inner_product_variance: float, theta: float
) -> float | None:
    r"""Return the smallest batch that passes the inner-product test.

    :math:`G'\Sigma G/(\theta^2 |G|^4)`: a batch's gradient then rarely points away
    (Bollapragada et al., 2018).

    Args:
        moments: Averages.
        inner_product_variance: :math:`G'\Sigma G`, an average.
        theta: Tolerated relative standard deviation of the product with G, positive.

    Returns:
        Examples, not rounded, none below zero, infinity past the range of floats; None
        where :math:`|G|^2` is not above zero, or too near it to be told from it.

    Raises:
        InputError: `theta` is not positive, or the variance is not finite.

    Example:
        >>> moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
        >>> inner_product_test_batch(moments, 4.0, theta=0.5)
        64.0
    """
    who = "inner_product_test_batch"
    _checks.positive(who, "theta", theta)
    _checks.finite(who, "inner_product_variance", inner_product_variance)
    tolerated = theta * moments.grad_sq_norm
    if tolerated <= 0:
        return None
    # Not by the square, which leaves the range of floats where the answer need not.
    return max(0.0, inner_product_variance) / tolerated / tolerated


def augmented_test_batch(
    moments: GradientMoments,
    inner_product_variance: float,
    theta: float,
    nu: float,
) -> float | None:
    r"""Return the smallest batch that passes the augmented inner-product test.

    The larger of the inner-product test's and that of the noise across the gradient,
    :math:`(\mathrm{tr}\,\Sigma - G'\Sigma G/|G|^2)/(\nu^2 |G|^2)` (Bollapragada et al.,
    2018).

    Args:
        moments: Averages.
        inner_product_variance: :math:`G'\Sigma G`, an average.
        theta: Tolerated relative standard deviation of the product with G, positive.
        nu: Tolerated noise across the gradient over the signal, positive.

    Returns:
        Examples, not rounded; infinity and None as for the inner-product test.

    Raises:
        InputError: A tolerance is not positive, or the variance is not finite.

    Example:
        >>> moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
        >>> augmented_test_batch(moments, 4.0, theta=0.5, nu=2.0)
        171.0
    """
    _checks.positive("augmented_test_batch", "nu", nu)
    along = inner_product_test_batch(moments, inner_product_variance, theta)
    if along is None:
        return None
    square = moments.grad_sq_norm
    across = moments.grad_variance - inner_product_variance / square
    return max(along, across / nu / nu / square)
