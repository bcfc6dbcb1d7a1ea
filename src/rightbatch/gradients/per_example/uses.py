r"""A matrix that serves more than once in a forward pass: cross terms of its uses.

Each use u adds :math:`\sum_t l_{ut} r_{ut}^\top` to the gradient of one example, so the
squared norm of all of them together is the sum over all pairs of uses of
:math:`\sum_{st} (l_{us} \cdot l_{vt})(r_{us} \cdot r_{vt})`. A row looked up by its
number has a unit vector on the left, which is kept as the number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rightbatch.gradients.per_example.linear import widened


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a matrix by a batch.

    Args:
        left: Vectors along the matrix's rows, shape (B, T, rows), or numbers of rows,
            shape (B, T).
        right: Vectors along its columns, shape (B, T, columns).
    """

    left: Tensor
    right: Tensor

    def widened(self) -> "Use":
        """Return the use in float32 at least."""
        left = self.left if self.is_lookup else widened(self.left)
        return Use(left, widened(self.right))

    @property
    def is_lookup(self) -> bool:
        """Whether rows were looked up by number."""
        return self.left.ndim == 2


def squares_of_uses(uses: Sequence[Use]) -> Tensor:
    """Return the squared norm of each example's gradient over all uses, shape (B,).

    Args:
        uses: Of one matrix.

    Example:
        >>> import torch
        >>> looked_up = Use(torch.tensor([[1]]), torch.ones(1, 1, 2))
        >>> multiplied = Use(torch.tensor([[[0.0, 3.0]]]), torch.ones(1, 1, 2))
        >>> squares_of_uses([looked_up, multiplied])  # the row is (1 + 3) * (1, 1)
        tensor([32.])
    """
    wide = [use.widened() for use in uses]
    total = _product(wide[0], wide[0])
    for place, one in enumerate(wide[1:], start=1):
        total = total + _product(one, one)
        for other in wide[:place]:
            total = total + 2 * _product(one, other)
    return total


def _product(one: Use, other: Use) -> Tensor:
    rights = one.right @ other.right.transpose(1, 2)
    return (_lefts(one, other) * rights).flatten(1).sum(1)


def _lefts(one: Use, other: Use) -> Tensor:
    """Return the products of the left vectors, shape (B, S, T)."""
    if one.is_lookup and other.is_lookup:
        return (one.left.unsqueeze(2) == other.left.unsqueeze(1)).to(one.right.dtype)
    if one.is_lookup:
        return _looked_up(other.left, one.left).transpose(1, 2)
    if other.is_lookup:
        return _looked_up(one.left, other.left)
    return one.left @ other.left.transpose(1, 2)


def _looked_up(vectors: Tensor, numbers: Tensor) -> Tensor:
    """Return each vector's entries at the numbers, shape (B, vectors, numbers)."""
    where = numbers.unsqueeze(1).expand(-1, vectors.shape[1], -1)
    return vectors.gather(2, where)
