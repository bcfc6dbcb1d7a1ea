"""The slow way, which learns and checks: all uses of a parameter in one unit, together.

Taken for the first update that is read, to see which parameters serve more than once
and whether the examples' gradients add up to what autograd made; and ever after for
the parameters that do.
"""

from dataclasses import dataclass

from torch import Tensor

from rightbatch.gradients.per_example.entries import Entry, looks_unbatched
from rightbatch.gradients.per_example.layers import sum_of
from rightbatch.gradients.per_example.linear import squares_of
from rightbatch.gradients.per_example.uses import squares_of_uses

# Sums of the same numbers in another order; half precision has three digits.
_SAME = 1e-3
_SAME_HALF = 5e-2


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One pass of a batch through a layer.

    Args:
        entry: The layer.
        a: Its input.
        g: Gradient of its output.
    """

    entry: Entry
    a: Tensor
    g: Tensor


def passes_by_column(passes: list[Pass]) -> dict[int, list[tuple[Pass, str]]]:
    """Return all passes of each parameter, with its name in the layer.

    Args:
        passes: Of one unit.
    """
    found: dict[int, list[tuple[Pass, str]]] = {}
    for one in passes:
        for name, column in one.entry.columns.items():
            found.setdefault(column, []).append((one, name))
    return found


def wrong_rows(uses: list[tuple[Pass, str]], examples: float) -> str:
    """Return why rows are not the unit's examples; "" where they are.

    Args:
        uses: Of one parameter.
        examples: Of the unit.
    """
    for one, _ in uses:
        for rows in (one.a, one.g):
            if not rows.ndim or len(rows) != examples:
                size = len(rows) if rows.ndim else 0
                return (
                    f"called with {size} rows for {examples:g} examples: keep "
                    "the examples first"
                )
        if looks_unbatched(one.entry, one.a):
            return "called with positions, without the examples"
    return ""


def squares_and_sum(uses: list[tuple[Pass, str]]) -> tuple[Tensor, Tensor]:
    """Return squared norms per example and the summed gradient of one parameter.

    Args:
        uses: All of it in one unit.

    Returns:
        Shape (B,), and the parameter's.
    """
    if len(uses) == 1:
        ((one, name),) = uses
        return one.entry.kind.sums(one.entry.layer, one.a, one.g, [name])[name]
    matrices = [
        one.entry.kind.use(one.entry.layer, one.a, one.g)
        if name == "weight" and one.entry.kind.use
        else None
        for one, name in uses
    ]
    known = [use for use in matrices if use is not None]
    if len(known) == len(uses):
        sums = [
            one.entry.kind.sums(one.entry.layer, one.a, one.g, [n])[n][1]
            for one, n in uses
        ]
        return squares_of_uses(known), sum_of(sums)
    each = sum_of(
        [one.entry.kind.each(one.entry.layer, one.a, one.g, name) for one, name in uses]
    )
    return squares_of(each), each.sum(0)


def adds_up(total: Tensor, squares: Tensor, made: Tensor | None, slack: float) -> bool:
    """Return whether the sum over examples is the gradient that autograd made.

    Args:
        total: Summed over examples.
        squares: Squared norms of theirs: where they cancel, rounding is as large as
            they are.
        made: By autograd, in the same unit; None for nothing.
        slack: A difference of no account.
    """
    if made is None:
        return not bool(total.any())
    made = made.to_dense() if made.is_sparse else made
    tolerance = _SAME_HALF if total.element_size() < 4 else _SAME
    difference = (total.reshape(made.shape).to(made.dtype) - made).norm()
    size = made.norm() + squares.sum().sqrt()
    if not bool(size.isfinite()):
        return True
    return bool(difference <= tolerance * size + slack)
