r"""Newton's method on log L_T over an optimizer's settings, many cells at once.

Each cell keeps settings that reach the target at its T; a step is taken only if the
target is still reached at that T or before, and T shrinks with it. Derivatives come
from a stencil: the loss is exact to about twelve digits, so differences over 1e-3 give
a Hessian to six.
"""

from itertools import product

import numpy as np

from rightbatch.quadratic.recursions.doubling import IntArray
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.tuning.tuning_space import Cells, Space

_WIDTH = 1e-3
_SHRINK = 1 - np.array([0, 5e-4, 4e-3, 0.02, 0.1, 0.3, 0.7])
_BETWEEN = np.array([0.35, 0.7])


def descend(space: Space, cells: Cells, rounds: int) -> Cells:
    """Return the cells after some Newton steps, none with more steps than before.

    Args:
        space: The settings.
        cells: Where to start; every one reaches the target.
        rounds: How many steps to take at most.

    Returns:
        The cells, in the same order.
    """
    points, steps = cells.points.copy(), cells.steps.copy()
    radius = np.full(len(steps), 1.0)
    _, gradient, hessian = derivatives(space, points, steps, cells.sizes)
    active = np.arange(len(steps))
    for _ in range(rounds):
        move, length = newton_move(
            space, points[active], gradient[active], hessian[active], radius[active]
        )
        trial = points[active] + move
        found = crossing(space, trial, steps[active], cells.sizes[active])
        better = found <= steps[active]
        radius[active] = (
            np.where(better, np.where(length > 0.9 * radius[active], 2, 1), 0.25)
            * radius[active]
        )
        gain = np.where(better, steps[active] - found, 0)
        won = active[better]
        points[won], steps[won] = trial[better], found[better]
        settled = (gain <= 1e-9 * steps[active]) & (length < 1e-3)
        settled |= ~better & (length < 1e-6)
        won, active = active[better & ~settled], active[~settled]
        if won.size:
            _, gradient[won], hessian[won] = derivatives(
                space, points[won], steps[won], cells.sizes[won]
            )
        if not active.size:
            break
    return Cells(cells.places, cells.sizes, points, steps)


def polish(space: Space, cells: Cells, rounds: int = 3) -> Cells:
    """Return the cells with the fewest whole steps near where they are.

    At one step less, a Newton step and a local grid around the point look for settings
    that still reach the target; whoever finds some goes on from there.

    Args:
        space: The settings.
        cells: One per batch size.
        rounds: How often to try.

    Returns:
        The cells.
    """
    points, steps = cells.points.copy(), cells.steps.copy()
    steps = _fewest(space, points, steps, cells.sizes)
    active = np.flatnonzero(steps > 1)
    for _ in range(rounds if active.size else 0):
        sizes, fewer = cells.sizes[active], steps[active] - 1
        trial = _lowest_nearby(space, points[active], fewer, sizes)
        better = space.height(trial, fewer, sizes) <= 0
        active, trial = active[better], trial[better]
        if not active.size:
            break
        points[active] = trial
        steps[active] = _fewest(space, trial, fewer[better], sizes[better])
        active = active[steps[active] > 1]
    return Cells(cells.places, cells.sizes, points, steps)


def derivatives(
    space: Space, points: FloatArray, steps: IntArray, sizes: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the height (m,), its gradient (m, d) and its Hessian (m, d, d)."""
    d = space.num_dims
    offsets, pairs = _stencil(d)
    around = (points[:, None] + _WIDTH * offsets).reshape(-1, d)
    count = len(offsets)
    heights = space.height(around, np.repeat(steps, count), np.repeat(sizes, count))
    heights = heights.reshape(-1, count)
    here = heights[:, 0]
    ups, downs = heights[:, 1 : 1 + d], heights[:, 1 + d : 1 + 2 * d]
    gradient = (ups - downs) / (2 * _WIDTH)
    hessian = np.zeros((len(points), d, d))
    span = np.arange(d)
    hessian[:, span, span] = (ups + downs - 2 * here[:, None]) / _WIDTH**2
    for place, (i, j) in enumerate(pairs):
        both = heights[:, 1 + 2 * d + place]
        mixed = (both - ups[:, i] - ups[:, j] + here) / _WIDTH**2
        hessian[:, i, j] = hessian[:, j, i] = mixed
    return here, gradient, hessian


def newton_move(
    space: Space,
    points: FloatArray,
    gradient: FloatArray,
    hessian: FloatArray,
    radius: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return steps downhill within the radius, and how long they wanted to be."""
    held = (points >= space.limits - 1e-12) & (gradient < 0)
    slope = np.where(held | ~np.isfinite(gradient), 0, gradient)
    bend = np.where(held[:, :, None] | held[:, None, :], 0, hessian)
    bend = np.where(np.isfinite(bend), bend, 0)
    values, vectors = np.linalg.eigh(bend)
    along = np.einsum("mji,mj->mi", vectors, slope) / np.maximum(np.abs(values), 1e-9)
    move = -np.einsum("mij,mj->mi", vectors, along)
    length = np.abs(move).max(axis=1)
    move *= np.minimum(1, radius / np.maximum(length, 1e-300))[:, None]
    move = np.minimum(points + move, space.limits) - points
    return move, np.minimum(length, radius)


def crossing(
    space: Space, points: FloatArray, steps: IntArray, sizes: FloatArray
) -> IntArray:
    """Return at most `steps` after which the target is reached, or more if it is not.

    A ladder down to a quarter of `steps`, then a few numbers around where the line
    between two rungs crosses.
    """
    found = steps + 1
    here = space.height(points, steps, sizes)
    on = np.flatnonzero(here <= 0)
    if not on.size:
        return found
    rungs = np.maximum(1, np.ceil(steps[on, None] * _SHRINK)).astype(np.int64)
    heights = space.heights(points[on], rungs[:, 1:], sizes[on])
    heights = np.concatenate([here[on, None], heights], axis=1)
    row, last = np.arange(len(on)), rungs.shape[1] - 1
    lowest = last - (heights <= 0)[:, ::-1].argmax(axis=1)
    high, low = rungs[row, lowest], rungs[row, np.minimum(lowest + 1, last)]
    above, below = heights[row, np.minimum(lowest + 1, last)], heights[row, lowest]
    with np.errstate(invalid="ignore"):
        share = above / np.maximum(above - below, 1e-300)
    share = np.where(np.isfinite(share), share, 0.5)[:, None]
    shares = np.sort(np.concatenate([share, share + 0.02, _BETWEEN + 0 * share], 1), 1)
    near = np.ceil(low[:, None] + (high - low)[:, None] * shares).astype(np.int64)
    near = np.clip(near, np.minimum(low + 1, high)[:, None], high[:, None])
    reached = space.heights(points[on], near, sizes[on]) <= 0
    first = near[row, reached.argmax(axis=1)]
    found[on] = np.where(reached.any(axis=1), first, high)
    return found


def _fewest(
    space: Space, points: FloatArray, steps: IntArray, sizes: FloatArray
) -> IntArray:
    """Return the fewest steps, from `steps` down, after which the target is reached."""
    most = max(int(steps.max()).bit_length() - 1, 1)
    down = np.concatenate([[0], 2 ** np.arange(most)])
    rungs = np.maximum(1, steps[:, None] - down)
    reached = space.heights(points, rungs, sizes) <= 0
    # The first rung that fails ends the run of those that do not.
    fails = np.where(reached.all(axis=1), rungs.shape[1], (~reached).argmax(axis=1))
    row = np.arange(len(steps))
    high = rungs[row, np.maximum(fails - 1, 0)]
    low = np.where(fails < rungs.shape[1], rungs[row, np.minimum(fails, most)], 0)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        middle = np.maximum(middle, 1)
        ok = space.height(points, middle, sizes) <= 0
        high, low = np.where(ok, middle, high), np.where(ok, low, middle)
    return high


def _lowest_nearby(
    space: Space, points: FloatArray, steps: IntArray, sizes: FloatArray
) -> FloatArray:
    """Return where a Newton step or a point of a local grid has the least loss."""
    _, gradient, hessian = derivatives(space, points, steps, sizes)
    move, _ = newton_move(space, points, gradient, hessian, np.full(len(steps), 0.3))
    d = space.num_dims
    grid = np.array(list(product((-1.0, 0.0, 1.0), repeat=d)))
    offsets = np.concatenate([grid * 0.03, grid * 0.2])
    trials = np.concatenate(
        [points[:, None] + move[:, None], points[:, None] + offsets], 1
    )
    trials = np.minimum(trials, space.limits)
    heights = space.heights_at(trials, steps, sizes)
    return trials[np.arange(len(steps)), heights.argmin(axis=1)]


def _stencil(d: int) -> tuple[FloatArray, list[tuple[int, int]]]:
    pairs = [(i, j) for i in range(d) for j in range(i)]
    eye = np.eye(d)
    both = [eye[i] + eye[j] for i, j in pairs]
    return np.array([np.zeros(d), *eye, *-eye, *both]), pairs
