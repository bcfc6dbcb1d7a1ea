"""Rows of (batch size, steps, loss) cut down to what a law is fitted to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Curve = dict[float, list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Where the losses of one run pass a target.

    Args:
        batch_size: Examples per step.
        lr: Learning rate; None where unknown.
        steps: Steps to the target, NaN where the last loss is still above it.
        run: Name of the run; empty where rows of several names make one curve.
        is_mean: True where several losses after as many steps were averaged.
    """

    batch_size: float
    lr: float | None
    steps: float
    run: str = ""
    is_mean: bool = False


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
    *,
    runs: Sequence[str] | None = None,
) -> list[Crossing]:
    """Return where the losses first pass a target, ln loss interpolated in ln steps.

    Nothing is extrapolated: a curve whose first loss is below the target already is
    left out, for when it passed is not known. Each run is a curve of its own, so that
    repeats stay repeats. Without `runs`, or where no run of a batch size and learning
    rate has two lengths, the curve is of the mean losses.

    Args:
        batch_sizes: One per row, shape (N,).
        lrs: Learning rate of each row; None where unknown.
        steps: Shape (N,).
        losses: Shape (N,), positive.
        target: Loss to reach.
        runs: Name of each row's run, any text; shape (N,).

    Returns:
        One entry per batch size, learning rate and run.

    Example:
        >>> steps_to_loss([8, 8], [None, None], [100, 400], [4.0, 1.0], 2.0)[0].steps
        200.0
    """
    names = [""] * len(losses) if runs is None else runs
    cells: dict[tuple[float, float | None], dict[str, Curve]] = {}
    for size, lr, name, count, loss in zip(
        batch_sizes, lrs, names, steps, losses, strict=True
    ):
        curves = cells.setdefault((size, lr), {})
        curves.setdefault(name, {}).setdefault(count, []).append(loss)
    found: list[Crossing] = []
    for (size, lr), curves in cells.items():
        for name, curve in _followed(curves).items():
            passed = _crossing(curve, target)
            if passed is None:
                continue
            is_mean = any(len(repeats) > 1 for repeats in curve.values())
            found.append(
                Crossing(
                    batch_size=size, lr=lr, steps=passed, run=name, is_mean=is_mean
                )
            )
    return found


def _followed(curves: dict[str, Curve]) -> dict[str, Curve]:
    # Runs of one length each are points of one curve, not curves.
    if any(len(curve) > 1 for curve in curves.values()):
        return curves
    joined: Curve = {}
    for curve in curves.values():
        for count, losses in curve.items():
            joined.setdefault(count, []).extend(losses)
    name = next(iter(curves)) if len(curves) == 1 else ""
    return {name: joined}


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
