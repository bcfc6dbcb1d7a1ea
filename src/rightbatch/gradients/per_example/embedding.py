"""Norms of single examples' gradients of an embedding's table."""

from torch import Tensor

from rightbatch.gradients.per_example.linear import widened


def row_gradients(ids: Tensor, g: Tensor, padding_idx: int | None) -> Tensor:
    """Return the gradient of each looked-up row, zero where padding was looked up.

    Args:
        ids: Shape (B, T).
        g: Gradient of the rows, shape (B, T, d).
        padding_idx: The row that is not trained; None for none.
    """
    if padding_idx is None:
        return g
    return g * (ids != padding_idx).unsqueeze(-1)


def table_squares(ids: Tensor, g: Tensor) -> Tensor:
    r"""Return squared norms of the table's gradients, shape (B,).

    .. math:: \sum_{st} [\mathrm{id}_s = \mathrm{id}_t]\, g_s \cdot g_t

    Args:
        ids: Shape (B, T).
        g: Gradient of the rows looked up, shape (B, T, d).

    Example:
        >>> import torch
        >>> ids, g = torch.tensor([[0, 1, 0]]), torch.ones(1, 3, 1)
        >>> table_squares(ids, g)  # 2 for row 0, 1 for row 1
        tensor([5.])
    """
    g = widened(g)
    if ids.shape[1] == 1:
        return g[:, 0].square().sum(1)
    same = ids.unsqueeze(2) == ids.unsqueeze(1)
    products = g @ g.transpose(1, 2)
    return (products * same).flatten(1).sum(1)


def table_gradient(ids: Tensor, g: Tensor, num_rows: int) -> Tensor:
    """Return the table's gradient summed over examples, shape (rows, d)."""
    table = g.new_zeros(num_rows, g.shape[-1])
    return table.index_add_(0, ids.flatten(), g.flatten(0, 1))
