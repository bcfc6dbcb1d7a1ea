r"""The settings that reach a target in the fewest steps.

The fewest steps over all settings are the smallest T at which *some* settings have
L_T <= C: whoever dips below the target earlier has done so at a smaller T. So nothing
has to follow a loss that wobbles: the search lowers log L_T at a fixed T, a smooth
function, by Newton's method from several starts, and shrinks T as long as the loss
stays at or below the target. Starts come from one doubling pass over a coarse grid,
which sees the loss after 1, 2, 4, ... steps and, since only the noise knows the batch
size, serves all batch sizes at once.

Coordinates are logit(lr/edge) - log(1 - momentum), which is the logarithm of the rate
that small batches feel, log(1 - momentum) and log(1 - ema_decay).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rightbatch import _checks
from rightbatch.quadratic.dynamics import loss_ladder
from rightbatch.quadratic.optimizers import OPTIMIZERS, Optimizer, OptimizerName
from rightbatch.quadratic.problem import (
    NoisyQuadratic,
    check_target,
    refuse_label_noise,
)
from rightbatch.quadratic.recursions.doubling import IntArray
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.recursions.transition import Settings
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.tuning.descent import descend, polish
from rightbatch.quadratic.tuning.ripples import best_valley, borrow
from rightbatch.quadratic.tuning.tuning_space import Cells, Space

MOST_LEVELS = 36
"""Steps up to 2^36 are looked at; what needs more counts as unreachable."""
_FEW_SIZES = 4
_INERTIA_GAPS = (1.0, 0.4, 0.16, 0.064, 0.0256, 0.01, 0.004, 0.0016, 6e-4)
_EMA_GAPS = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
_NEAR_EDGE = (0.97, 0.85, 0.6, 0.35)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The best settings found at one batch size.

    Args:
        name: The optimizer.
        batch_size: Examples per step.
        steps: First step at which the loss is at or below the target; None where no
            settings reach it.
        optimizer: With the settings; None where no settings reach the target.
        loss: Expected loss at that step, None where the target is not reached.
    """

    name: OptimizerName
    batch_size: float
    steps: int | None
    optimizer: Optimizer | None = None
    loss: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the cell for a program; None where the target is unreachable."""
        best = self.optimizer
        return {
            "optimizer": self.name,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "lr": best and best.lr,
            "momentum": best.momentum if best and best.has_momentum else None,
            "ema_decay": best.ema_decay if best and best.has_ema else None,
            "loss": self.loss,
        }


def search(
    problem: NoisyQuadratic,
    name: OptimizerName,
    batch_sizes: FloatArray | list[float] | tuple[float, ...],
    target: float,
    *,
    num_starts: int | None = None,
    tail_fraction: float = 0.5,
    backend: Backend = "auto",
) -> tuple[Found, ...]:
    """Return the settings that reach the target in the fewest steps, per batch size.

    Args:
        problem: What is minimised; without label noise.
        name: The optimizer; its lr, momentum and EMA decay are searched together.
        batch_sizes: Examples per step. Shape (b,).
        target: Expected loss to reach, between the irreducible and the initial one.
        num_starts: How many starts each batch size gets; one more than the settings
            searched by default.
        tail_fraction: What a tail average takes.
        backend: numpy, numba, or whichever is there.

    Returns:
        One answer per batch size, in the order given.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> [found.steps for found in search(problem, "sgd", [16, 256], 0.01)]
        [2037, 169]
    """
    _checks.one_of("search", "name", name, OPTIMIZERS)
    refuse_label_noise("search", problem)
    check_target("search", problem, target)
    sizes = _checks.positive_array("search", "batch_sizes", batch_sizes)
    space = Space(problem, name, target, tail_fraction, backend)
    if num_starts is None:
        num_starts = 1 + space.num_dims
    _checks.positive_integer("search", "num_starts", num_starts)
    around = _with_neighbours(space, sizes)
    cells = _starts(space, around, num_starts)
    if cells.steps.size:
        cells = descend(space, cells, rounds=3)
        cells = descend(space, _promising(cells, 2), rounds=8)
        cells = _best(cells.join(_inherited(space, around)))
        if space.num_dims > 1:
            cells = descend(space, borrow(space, cells), rounds=3)
        if space.tunes("momentum"):
            cells = borrow(space, best_valley(space, cells))
            cells = descend(space, cells, rounds=8)
        cells = _hand_up(polish(space, cells))
    return _found(space, cells, sizes)


def _with_neighbours(space: Space, sizes: FloatArray) -> FloatArray:
    """Return the batch sizes, and two larger ones where too few lend each other.

    The same valley in fewer steps is easier to find, and scaled settings carry over.
    """
    if space.num_dims == 1 or sizes.size >= _FEW_SIZES:
        return sizes
    return np.concatenate([sizes, sizes.max() * np.array([16.0, 256.0])])


def _inherited(space: Space, sizes: FloatArray) -> Cells:
    """Return what momentum alone and a moving average alone reach, as cells of both."""
    names: tuple[OptimizerName, ...] = ()
    if space.tunes("momentum") and space.tunes("ema_decay"):
        momentum: OptimizerName = "nesterov" if "nest" in space.name else "momentum"
        names = (momentum, "ema")
    target = space.goal + space.problem.irreducible_loss
    rows = [
        (place, found.steps + late, one.lr, 1 - one.momentum, 1 - one.ema_decay)
        for name in names
        for place, found in enumerate(
            search(space.problem, name, sizes, target, backend=space.backend)
        )
        if found.steps is not None and (one := found.optimizer) is not None
        for late in (0, 1, 2)
    ]
    columns = np.array(rows, dtype=float).reshape(-1, 5).T
    places, steps = columns[:2].astype(np.int64)
    points = space.locate(Settings(*columns[2:]))
    cells = Cells(places, sizes[places], points, steps)
    if not steps.size:
        return cells
    # Coordinates round, so a step or two are added; what misses is left out.
    return cells.pick(np.flatnonzero(space.height(points, steps, cells.sizes) <= 0))


def _hand_up(cells: Cells) -> Cells:
    """Return the cells with the settings of a smaller batch where those need less.

    Noise only falls with the batch size, so they reach the target there as well.
    """
    points, steps = cells.points.copy(), cells.steps.copy()
    order = np.argsort(cells.sizes, kind="stable")
    for smaller, larger in pairwise(order.tolist()):
        if steps[smaller] < steps[larger]:
            points[larger], steps[larger] = points[smaller], steps[smaller]
    return Cells(cells.places, cells.sizes, points, steps)


def _starts(space: Space, sizes: FloatArray, num_starts: int) -> Cells:
    """Return the best points of a coarse grid, apart from each other."""
    settings = _coarse_grid(space, sizes)
    points = space.locate(settings)
    parts = loss_ladder(
        space.problem,
        space.name,
        settings,
        MOST_LEVELS,
        tail_fraction=space.tail_fraction,
        exact=space.exact,
        backend=space.backend,
    )
    chosen: list[tuple[int, int, int]] = []
    for place, size in enumerate(sizes):
        with np.errstate(divide="ignore"):
            height = np.log(parts.at(size) / space.goal)
        reached = height <= 0
        rung = np.where(reached.any(axis=0), reached.argmax(axis=0), MOST_LEVELS)
        guess = _interpolate(height, rung)
        chosen += [
            (place, int(point), 2 ** int(rung[point]))
            for point in _apart(points, guess, num_starts)
        ]
    rows = np.array(chosen, dtype=np.int64).reshape(-1, 3)
    places, at, steps = rows.T
    return Cells(places, sizes[places], points[at], steps)


def _coarse_grid(space: Space, sizes: FloatArray) -> Settings:
    """Return settings from the smallest rate that noise can ask for to the edge."""
    problem = space.problem
    top = float(problem.rates.max())
    noise = float(problem.weights @ (problem.preconditioner * problem.noise_variances))
    # At this lr SGD's steady state, lr sum(w p c) / 4B, is a quarter of the target.
    calm = space.goal * float(sizes.min()) / max(noise, 1e-300)
    lowest = min(calm, 0.25 / top)
    num = int(np.ceil(np.log2(2 / top / lowest))) + 2
    ladder = 2 / top * 2.0 ** -np.arange(num)
    rows: list[tuple[float, float, float]] = []
    for gap in _INERTIA_GAPS if space.tunes("momentum") else (1.0,):
        edge = space.edge(gap)
        lrs = [*(ladder * gap), *(edge * np.array(_NEAR_EDGE))]
        rows += [
            (lr, gap, ema_gap)
            for lr in lrs
            if lr < 0.99 * edge
            for ema_gap in (_EMA_GAPS if space.tunes("ema_decay") else (1.0,))
        ]
    return Settings(*np.array(rows).T)


def _interpolate(height: FloatArray, rung: IntArray) -> FloatArray:
    """Return log2 of the crossing, between the rungs around it."""
    levels = height.shape[0]
    upper = np.clip(rung, 1, levels - 1)
    column = np.arange(rung.size)
    low, high = height[upper, column], height[upper - 1, column]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(high / (high - low), 0, 1)
    between = upper - 1 + np.where(np.isfinite(share), share, 1.0)
    return np.where(rung < levels, np.where(rung == 0, 0.0, between), np.inf)


def _apart(points: FloatArray, guess: FloatArray, many: int) -> list[int]:
    """Return the best points that are not neighbours of a better one."""
    chosen: list[int] = []
    for point in np.argsort(guess, kind="stable"):
        if not np.isfinite(guess[point]) or len(chosen) == many:
            break
        gaps = np.abs(points[chosen] - points[point])
        if not chosen or gaps.max(axis=1).min() > 1.2:
            chosen.append(int(point))
    return chosen


def _promising(cells: Cells, many: int) -> Cells:
    """Return the best few starts of each batch size, if they may still win."""
    order = np.lexsort((cells.steps, cells.places))
    places = cells.places[order]
    first = np.searchsorted(places, places)
    least = cells.steps[order][first]
    keep = (np.arange(len(order)) - first < many) & (
        cells.steps[order] <= 1.25 * least + 8
    )
    return cells.pick(order[keep])


def _best(cells: Cells) -> Cells:
    order = np.lexsort((cells.steps, cells.places))
    first = np.unique(cells.places[order], return_index=True)[1]
    return cells.pick(order[first])


def _found(space: Space, cells: Cells, sizes: FloatArray) -> tuple[Found, ...]:
    """Return an answer for every batch size; cells hold those that reach the target."""
    heights = space.height(cells.points, cells.steps, cells.sizes)
    losses = space.problem.irreducible_loss + space.goal * np.exp(heights)
    rows = {place: row for row, place in enumerate(cells.places.tolist())}
    return tuple(
        Found(
            name=space.name,
            batch_size=size,
            steps=int(cells.steps[rows[place]]),
            optimizer=space.optimizer(cells.points[rows[place]][None]),
            loss=float(losses[rows[place]]),
        )
        if place in rows
        else Found(name=space.name, batch_size=size, steps=None)
        for place, size in enumerate(sizes.tolist())
    )
