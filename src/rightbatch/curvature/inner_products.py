r"""The spread of gradients along the gradient, :math:`G^\top \Sigma G`, without bias.

It is what the inner-product test (Bollapragada, Byrd and Nocedal, 2018) compares with
:math:`|G|^4`. All of it is in the inner products of gradients with each other.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from rightbatch import _checks
from rightbatch.curvature.loss_surface import (
    Loss,
    LossSurface,
    listed,
    own_differentiation,
)
from rightbatch.curvature.unit_gradients import (
    UnitGradients,
    equal_size,
    need_units,
    refuse_batch_norm,
)
from rightbatch.errors import InputError

FloatArray = NDArray[np.float64]


def group_products(
    model: nn.Module, loss: Loss, batches: Iterable[Any]
) -> tuple[FloatArray, FloatArray]:
    r"""Return units' products with the mean gradients of two groups of others.

    The first half of the batches are the units j, the next quarter make u, the last v:
    :math:`\langle g_j, u\rangle` and :math:`\langle g_j, v\rangle` are what
    :func:`rightbatch.noise_scale.inner_product_variance` takes. Three gradients are
    held at a time, where :func:`variance_along_gradient` needs all, and varies less.

    Args:
        model: Left as it is; in eval mode if it holds batch normalisation.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,).
        batches: Four at least, independent and of the same number of examples.

    Returns:
        The two products of each unit, each of shape (R,).

    Raises:
        InputError: Batches are fewer than four or differ in size, examples see each
            other, or a gradient is not finite.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> slope = lambda model, x: model(x).squeeze(1)
        >>> batches = [torch.full((2, 1), x) for x in (1.0, 2.0, 3.0, 4.0)]
        >>> [products.tolist() for products in group_products(model, slope, batches)]
        [[3.0, 6.0], [4.0, 8.0]]
    """
    who = "group_products"
    surface = LossSurface(who, model)
    refuse_batch_norm(who, model)
    found = listed(who, batches)
    need_units(who, len(found), 4)
    quarter = len(found) // 4
    sizes: list[int] = []

    def gradient(batch: Any) -> Tensor:
        flat, examples = surface.gradient(loss, batch)
        sizes.append(examples)
        equal_size(who, sizes)
        return flat

    with own_differentiation(surface.leaves):
        means = [
            sum(map(gradient, group), start=torch.zeros(())) / quarter
            for group in (found[-2 * quarter : -quarter], found[-quarter:])
        ]
        products = [
            [float(flat.dot(mean)) for mean in means]
            for flat in map(gradient, found[: -2 * quarter])
        ]
    first, second = np.array(products).T
    return first, second


def variance_along_gradient(units: UnitGradients) -> float:
    """Return the variance of one example's gradient times the gradient, unbiased.

    See :func:`variance_of_dots`, which takes the inner products.

    Args:
        units: Four at least, of equal size.

    Returns:
        The estimate; it may fall below zero.

    Raises:
        InputError: There are fewer than four units.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[1.0], [3.0], [1.0], [3.0]])
        >>> round(variance_along_gradient(UnitGradients(rows=rows, unit_size=2)), 6)
        8.0
    """
    rows = units.rows.double()
    return variance_of_dots((rows @ rows.T).cpu().numpy(), units.unit_size)


def variance_of_dots(dots: ArrayLike, unit_size: int) -> float:
    r"""Return :math:`G^\top \Sigma G` from the inner products of units' gradients.

    .. math:: \frac b2 \langle g_i - g_j, g_k \rangle \langle g_i - g_j, g_l \rangle

    averaged over all i, j, k, l that differ: each such product is unbiased, as the
    spread, and both stand-ins for G, come from units apart. It is the mean of
    :math:`b\, \mathrm{cov}_j(\langle g_j, u \rangle, \langle g_j, v \rangle)`, u and v
    means over two further groups of units, over all ways to make three groups.

    The plug-in with the mean of all units for u and v takes noise for signal. With e an
    example's deviation from G and B examples in all, it is too large by about
    :math:`(\mathrm{tr}\, \Sigma^2 + 2 E[\langle e, G\rangle |e|^2]) / B`, where the
    second part, nothing for symmetric gradients, may well be the larger one.

    Args:
        dots: :math:`\langle g_i, g_j \rangle`, shape (R, R).
        unit_size: b, examples in each unit.

    Returns:
        The estimate; it may fall below zero.

    Raises:
        InputError: `dots` is not square or of fewer than four units.
    """
    who = "variance_of_dots"
    size = _checks.positive_integer(who, "unit_size", unit_size)
    gram = np.asarray(dots, dtype=float)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or len(gram) < 4:
        raise InputError(
            f"{who}: `dots` must be square, of 4 units at least, got shape "
            f"{gram.shape}."
        )
    count, total = len(gram), 0.0
    for i in range(count):
        apart = gram[i] - gram[i + 1 :]
        # Column i and each row's own j are no unit apart from the pair.
        apart[:, i] = 0.0
        apart[np.arange(count - 1 - i), np.arange(i + 1, count)] = 0.0
        total += float((apart.sum(1) ** 2 - (apart**2).sum(1)).sum())
    pairs = count * (count - 1) / 2
    return size / 2 * total / pairs / ((count - 2) * (count - 3))
