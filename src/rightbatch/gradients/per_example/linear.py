r"""Norms of single examples' gradients of a linear layer's weight and bias.

The weight's gradient from example i is :math:`\sum_t g_{it} a_{it}^\top` over its T
rows. For one row its squared norm is :math:`|g_i|^2 |a_i|^2` (Goodfellow, 2015); for
several it is :math:`\sum_{st} (a_s \cdot a_t)(g_s \cdot g_t)`, or the norm of the sum
itself, made example by example while it is summed for the whole batch.
"""

import torch
from torch import Tensor

# Numbers of single examples' gradients held at once: 16 MB, and few calls.
CHUNK_NUMBERS = 2**22
# A number written, squared and summed takes as long as this many multiplications of a
# product of matrices: measured on one core (docs/log.md, 2026-11-30).
_PRODUCTS_PER_NUMBER = 16


def row_squares(rows: Tensor) -> Tensor:
    """Return the squared norm of each row, shape (B,), in float32 at least.

    Args:
        rows: Shape (B, n).

    Example:
        >>> row_squares(torch.tensor([[3.0, 4.0]]))
        tensor([25.])
    """
    return row_norms(rows).square()


def row_norms(rows: Tensor) -> Tensor:
    """Return the norm of each row, shape (B,), in float32 at least.

    Args:
        rows: Shape (B, n).

    Example:
        >>> row_norms(torch.tensor([[3.0, 4.0]]))
        tensor([5.])
    """
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    return torch.linalg.vector_norm(rows, dim=1, dtype=wide)


def gram_is_cheaper(num_rows: int, num_in: int, num_out: int) -> bool:
    """Return whether products of rows beat sums that spare autograd its own.

    Args:
        num_rows: T, rows of an example.
        num_in: Width of a row before the layer.
        num_out: Width after it.

    Example:
        >>> gram_is_cheaper(64, 128, 384), gram_is_cheaper(8, 1024, 1024)
        (False, True)
    """
    products = 2 * num_rows**2 * (num_in + num_out)
    return products < _PRODUCTS_PER_NUMBER * num_in * num_out


def gram_has_fewer_products(num_rows: int, num_in: int, num_out: int) -> bool:
    """Return whether products of rows are fewer than those of a gradient's making.

    Args:
        num_rows: T, rows of an example.
        num_in: Width of a row before the layer.
        num_out: Width after it.

    Example:
        >>> gram_has_fewer_products(64, 128, 384), gram_has_fewer_products(64, 32, 32)
        (True, False)
    """
    return num_rows * (num_in + num_out) < num_in * num_out


def gram_squares(a: Tensor, g: Tensor) -> Tensor:
    """Return squared norms of the weight's gradients, shape (B,), by products of rows.

    Args:
        a: The layer's input, shape (B, T, p).
        g: Gradient of its output, shape (B, T, q).

    Example:
        >>> a, g = torch.ones(1, 2, 3), torch.ones(1, 2, 5)
        >>> gram_squares(a, g), (2 * torch.ones(5, 3)).square().sum()
        (tensor([60.]), tensor(60.))
    """
    if a.shape[1] == 1:
        return row_squares(a[:, 0]) * row_squares(g[:, 0])
    a, g = widened(a), widened(g)
    inputs, outputs = a @ a.transpose(1, 2), g @ g.transpose(1, 2)
    return (inputs * outputs).flatten(1).sum(1)


def summed(a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared norms of the weight's gradients, and the sum of the gradients.

    Args:
        a: The layer's input, shape (B, T, p).
        g: Gradient of its output, shape (B, T, q).

    Returns:
        Shapes (B,) and (q, p).

    Example:
        >>> a, g = torch.ones(2, 2, 3), torch.ones(2, 2, 5)
        >>> squares, gradient = summed(a, g)
        >>> squares.round().tolist(), bool((gradient == 4).all())
        ([60.0, 60.0], True)
    """
    chunk = max(1, CHUNK_NUMBERS // (a.shape[2] * g.shape[2]))
    if chunk >= len(a):
        each = torch.bmm(g.transpose(1, 2), a)
        return squares_of(each), each.sum(0)
    total: Tensor | None = None
    squares: list[Tensor] = []
    for inputs, outputs in zip(a.split(chunk), g.split(chunk), strict=True):
        each = torch.bmm(outputs.transpose(1, 2), inputs)
        squares.append(squares_of(each))
        part = each.sum(0)
        total = part if total is None else total.add_(part)
    assert total is not None
    return torch.cat(squares), total


def squares_of(each: Tensor) -> Tensor:
    """Return the squared norm of each example's gradient, shape (B,).

    Args:
        each: Shape (B, ...).
    """
    wide = torch.float32 if _is_half(each) else each.dtype
    return torch.linalg.vector_norm(each.flatten(1), dim=1, dtype=wide).square()


def widened(values: Tensor) -> Tensor:
    """Return values whose products neither overflow nor vanish: float32 at least.

    Args:
        values: Of any floating precision.
    """
    return values.float() if _is_half(values) else values


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)
