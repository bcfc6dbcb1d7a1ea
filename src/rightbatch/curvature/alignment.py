r"""How far a step from one batch goes down the loss, for any optimizer.

.. math:: a(b) = E\, \langle u(g_S), g_T \rangle

with S a batch of b examples, T examples apart from them and u the update rule: what
one step lowers the loss by to first order, per learning rate. A product with the
gradient of the same batch would count its noise as progress.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rightbatch import _checks
from rightbatch.curvature.loss_surface import flatten, unflatten
from rightbatch.curvature.products import checked_vector
from rightbatch.curvature.trace import mean_and_error
from rightbatch.curvature.unit_gradients import UnitGradients
from rightbatch.errors import InputError

UpdateRule = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentCurve:
    """Expected first-order progress of an update per batch size.

    Args:
        batch_sizes: b, in examples.
        progress: a(b), in loss per learning rate, without bias.
        standard_errors: Of each, from the spread over independent blocks; the values at
            different batch sizes share their gradients and are correlated.
        num_blocks: How many blocks.

    Example:
        >>> print(AlignmentCurve(batch_sizes=(8, 64), progress=(0.12, 0.5),
        ...     standard_errors=(0.01, 0.02), num_blocks=8))
         batch size   progress
                  8       0.12 +- 0.01
                 64        0.5 +- 0.02
    """

    batch_sizes: tuple[int, ...]
    progress: tuple[float, ...]
    standard_errors: tuple[float, ...]
    num_blocks: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, with lists."""
        return {
            "batch_sizes": list(self.batch_sizes),
            "progress": list(self.progress),
            "standard_errors": list(self.standard_errors),
            "num_blocks": self.num_blocks,
        }

    def __str__(self) -> str:
        rows = zip(self.batch_sizes, self.progress, self.standard_errors, strict=True)
        lines = [f"{b:>11,} {a:>10.3g} +- {error:.2g}" for b, a, error in rows]
        return "\n".join([" batch size   progress", *lines])


def alignment_curve(
    blocks: Iterable[UnitGradients], update: UpdateRule, batch_sizes: Sequence[int]
) -> AlignmentCurve:
    """Return how far an update goes down the loss, for each batch size.

    In each block every group of units that makes a batch is S once, with the block's
    other units as T; blocks are independent and give the standard error.

    Args:
        blocks: Two at least, of equal units, each larger than the largest batch; made
            one at a time if they come from a generator. ``units.blocks(8)`` cuts one.
        update: Takes a flat gradient and returns the flat direction the parameters are
            moved against, times the learning rate. ``lambda g: g`` is SGD, `torch.sign`
            sign descent, `update_of` any optimizer with the state it is in.
        batch_sizes: Multiples of the unit's size.

    Returns:
        The curve.

    Raises:
        InputError: There are fewer than two blocks, a batch size is not a multiple of
            the unit's or leaves no unit over, or the update is of another shape.

    Example:
        >>> rows = torch.tensor([[1.0], [3.0], [2.0], [2.0]])
        >>> blocks = UnitGradients(rows=rows, unit_size=4).blocks(2)
        >>> alignment_curve(blocks, lambda gradient: gradient, [4]).progress
        (3.5,)
    """
    who = "alignment_curve"
    sizes = [_checks.positive_integer(who, "batch_sizes", b) for b in batch_sizes]
    values = [[_block_progress(b, block, update) for b in sizes] for block in blocks]
    if len(values) < 2 or not sizes:
        raise InputError(
            f"{who}: `blocks` and `batch_sizes` must be at least 2 and 1, got "
            f"{len(values)} and {len(sizes)}.",
            "units.blocks(8) cuts units into independent blocks",
        )
    found = [mean_and_error(list(column)) for column in zip(*values, strict=True)]
    return AlignmentCurve(
        batch_sizes=tuple(sizes),
        progress=tuple(mean for mean, _ in found),
        standard_errors=tuple(error for _, error in found),
        num_blocks=len(values),
    )


def update_of(optimizer: Optimizer, model: nn.Module) -> UpdateRule:
    """Return what an optimizer would move by, from the state it is in.

    Each call makes a step with a copy; neither the optimizer nor the model is touched.
    The update is the move over the largest learning rate of all groups; momentum and
    weight decay are in it as the optimizer has them.

    Args:
        optimizer: Any whose ``step()`` needs nothing but gradients.
        model: Whose trainable parameters the optimizer holds.

    Returns:
        A function from a flat gradient to a flat update, shape (n,).

    Raises:
        InputError: The optimizer lacks a parameter, or all rates are zero.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> update_of(sgd, model)(torch.tensor([1.0, -2.0])).round(decimals=4).tolist()
        [1.0, -2.0]
    """
    places = {
        id(p): (i, j)
        for i, group in enumerate(optimizer.param_groups)
        for j, p in enumerate(group["params"])
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained or not all(id(p) in places for p in trained):
        raise InputError(
            "update_of: `optimizer` must hold every trainable parameter of the model."
        )
    rate = max(float(group["lr"]) for group in optimizer.param_groups)
    if rate <= 0:
        raise InputError(
            f"update_of: `optimizer` must have a positive learning rate, got {rate:g}."
        )

    def update(gradient: Tensor) -> Tensor:
        checked_vector(
            "update_of", "gradient", gradient, sum(map(torch.numel, trained))
        )
        copied = deepcopy(optimizer)
        groups = copied.param_groups
        moved = [groups[i]["params"][j] for i, j in (places[id(p)] for p in trained)]
        for parameter, part in zip(moved, unflatten(gradient, trained), strict=True):
            parameter.grad = part.clone()
        copied.step()
        pairs = zip(trained, moved, strict=True)
        return flatten((p.detach() - q.detach()) / rate for p, q in pairs)

    return update


def _block_progress(size: int, block: UnitGradients, update: UpdateRule) -> float:
    """Return the mean of <u(g_S), g_T> over the batches S of a block.

    Raises:
        InputError: The batch is not of whole units, or leaves none over.
    """
    length, rest = divmod(size, block.unit_size)
    if rest or not 0 < length < len(block):
        raise InputError(
            f"alignment_curve: `batch_sizes` must be multiples of the unit's "
            f"{block.unit_size} below the block's {block.unit_size * len(block)}, "
            f"got {size}."
        )
    return sum(_progresses(block.rows, length, update)) / (len(block) // length)


def _progresses(rows: Tensor, length: int, update: UpdateRule) -> Iterator[float]:
    total = rows.sum(0)
    for start in range(0, len(rows) - length + 1, length):
        batch = rows[start : start + length].sum(0)
        apart = (total - batch) / (len(rows) - length)
        moved = update(batch / length)
        checked_vector("alignment_curve", "update", moved, rows.shape[1])
        yield float(moved.dot(apart))
