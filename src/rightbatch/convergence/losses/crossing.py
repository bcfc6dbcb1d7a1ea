"""Rows of (batch size, steps, loss) cut down to what a law is fitted to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Curve = dict[float, list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Where the losses of one batch size and learning rate pass a target.

    Args:
        batch_size: Examples per step.
        lr: Learning rate; None where unknown.
        steps: Steps to the target, NaN where the last loss is still above it.
    """

    batch_size: float
    lr: float | None
    steps: float


def best_rows(
    batch_sizes: Sequence[float],
    lrs: Sequence[float | None],
    steps: Sequence[float],
    losses: Sequence[float],
) -> list[int]:
    """Return the places of the rows with the best learning rate for their length.

    Among rows of one batch size and number of steps the learning rate with the least
    mean loss is kept, repeats and all: the law describes tuned runs.

    Args:
        batch_sizes: One per row, shape (N,).
        lrs: Learning rate of each row; None where unknown.
        steps: Shape (N,).
        losses: Shape (N,).

    Returns:
        Indices, in order.

    Example:
        >>> best_rows([8, 8, 8], [0.1, 0.2, 0.2], [100, 100, 200], [3.0, 2.5, 2.0])
        [1, 2]
    """
    cells: dict[tuple[float, float], dict[float | None, list[int]]] = {}
    for place, (size, lr, count) in enumerate(
        zip(batch_sizes, lrs, steps, strict=True)
    ):
        cells.setdefault((size, count), {}).setdefault(lr, []).append(place)
    kept: list[int] = []
    for by_rate in cells.values():
        kept += min(
            by_rate.values(),
            key=lambda places: float(np.mean([losses[place] for place in places])),
        )
    return sorted(kept)


def steps_to_loss(
    batch_sizes: Sequence[float],
    lrs: Sequence[float | None],
    steps: Sequence[float],
    losses: Sequence[float],
    target: float,
) -> list[Crossing]:
    """Return where the losses first pass a target, ln loss interpolated in ln steps.

    Nothing is extrapolated: a curve whose first loss is below the target already is
    left out, for when it passed is not known.

    Args:
        batch_sizes: One per row, shape (N,).
        lrs: Learning rate of each row; None where unknown.
        steps: Shape (N,).
        losses: Shape (N,), positive.
        target: Loss to reach.

    Returns:
        One entry per batch size and learning rate.

    Example:
        >>> steps_to_loss([8, 8], [None, None], [100, 400], [4.0, 1.0], 2.0)[0].steps
        200.0
    """
    curves: dict[tuple[float, float | None], Curve] = {}
    for size, lr, count, loss in zip(batch_sizes, lrs, steps, losses, strict=True):
        curves.setdefault((size, lr), {}).setdefault(count, []).append(loss)
    found: list[Crossing] = []
    for (size, lr), curve in curves.items():
        passed = _crossing(curve, target)
        if passed is not None:
            found.append(Crossing(batch_size=size, lr=lr, steps=passed))
    return found


def _crossing(curve: Curve, target: float) -> float | None:
    counts = sorted(curve)
    losses = [float(np.mean(curve[count])) for count in counts]
    if losses[0] <= target:
        return counts[0] if losses[0] == target else None
    for i in range(1, len(counts)):
        if losses[i] <= target:
            share = math.log(losses[i - 1] / target) / math.log(
                losses[i - 1] / losses[i]
            )
            # Twelve digits undo the rounding of exp(log).
            return float(f"{counts[i - 1] * (counts[i] / counts[i - 1]) ** share:.12g}")
    return math.nan
