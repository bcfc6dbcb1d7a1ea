"""The valleys that momentum leaves in the loss over its settings.

Each slow direction swings at its own pace, so over lr and momentum the loss after T
steps is a bowl with a ripple for every phase, and Newton's method stays in the ripple
it starts from. Where steps are many the ripples are shallow: the bottom of the bowl is
found first, then the best ripple on a line across them. Where steps are few they are
as deep as the bowl, but steps are cheap: points spread over a box are tried at one step
less, again and again, until none is better.
"""

import numpy as np

from rightbatch.quadratic.recursions.doubling import IntArray
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.tuning.descent import crossing, derivatives, newton_move
from rightbatch.quadratic.tuning.tuning_space import Cells, Space

_SINK_ROUNDS = 4
_NUM_SUNK = 6
_NUM_BORROWED = 2
_NUM_POINTS = 128
_NUM_ACROSS = 256
_BOWL_WIDTHS = (0.5, 0.2)
_ACROSS_WIDTHS = (0.2, 0.07)
_ACROSS_PASSES = 6
_FEWEST_RIPPLES = 2
_NOT_A_BOTTOM = 1e3
_FEW_STEPS = 300
_NUM_ROAMED = 300
_ROAM_PASSES = 40
# Half-widths in logit(lr/edge), log(1 - momentum), log(1 - ema_decay), in turn.
_ROAM_WIDTHS = ((2.0, 0.3, 0.6), (1.0, 0.2, 0.4), (2.0, 0.2, 0.4), (0.4, 0.15, 0.3))


def best_valley(space: Space, cells: Cells) -> Cells:
    """Return the cells moved to the best valley around them.

    Args:
        space: The settings.
        cells: One per batch size.

    Returns:
        The cells, none with more steps than before.
    """
    few = np.flatnonzero(cells.steps < _FEW_STEPS)
    if few.size:
        cells = cells.put(few, _roam(space, cells.pick(few)))
    many = np.flatnonzero(cells.steps >= _FEW_STEPS)
    if many.size:
        heights = _look_across(space, cells.pick(many), cells.points[many], 0.2)[1]
        many = many[(heights < _NOT_A_BOTTOM).sum(axis=1) > _FEWEST_RIPPLES]
    return cells.put(many, _cross(space, cells.pick(many))) if many.size else cells


def _cross(space: Space, cells: Cells) -> Cells:
    """Return the cells moved to the lowest ripple near the bottom of the bowl."""
    centres = cells.points
    for width in _BOWL_WIDTHS:
        spread = width * _even_spread(_NUM_POINTS, space.num_dims)
        around = np.minimum(centres[:, None] + spread, space.limits)
        heights = space.heights_at(around, cells.steps, cells.sizes)
        centres = np.minimum(_bowl(around, heights, centres, width), space.limits)
    turns = len(_ACROSS_WIDTHS)
    in_vain = np.zeros(len(cells.steps), dtype=int)
    for turn in range(_ACROSS_PASSES):
        active = np.flatnonzero(in_vain < turns)
        if not active.size:
            break
        some, width = cells.pick(active), _ACROSS_WIDTHS[turn % turns]
        around, heights = _look_across(space, some, centres[active], width)
        some, better = _deepest(space, some, some.steps - 1, around, heights)
        cells = cells.put(active, some)
        centres = cells.points
        in_vain[active] = np.where(better, 0, in_vain[active] + 1)
    return cells


def borrow(space: Space, cells: Cells) -> Cells:
    """Return the cells moved to what other batch sizes have found, where it is better.

    Where noise rules, the same run takes a rate and averaging windows that follow the
    batch size, with or without the momentum's; where it does not, the same settings
    serve. All three are tried.

    Args:
        space: The settings.
        cells: One per batch size.

    Returns:
        The cells, none with more steps than before.
    """
    m, d = cells.points.shape
    follow = np.array([setting != "momentum" for setting in space.tuned], dtype=float)
    ratio = np.log(cells.sizes[:, None] / cells.sizes)
    moves = ratio[:, :, None, None] * np.array([follow, np.ones(d), np.zeros(d)])
    around = (cells.points[:, None] + moves).reshape(m, 3 * m, d)
    around = np.minimum(around, space.limits)
    fewer = np.maximum(cells.steps - 1, 1)
    heights = space.heights_at(around, fewer, cells.sizes)
    return _deepest(space, cells, fewer, around, heights, _NUM_BORROWED)[0]


def _roam(space: Space, cells: Cells) -> Cells:
    """Return the cells moved to ever lower valleys of a wider region."""
    d, turns = space.num_dims, len(_ROAM_WIDTHS)
    spread = _even_spread(_NUM_ROAMED * _ROAM_PASSES, d)
    in_vain = np.zeros(len(cells.steps), dtype=int)
    for turn in range(_ROAM_PASSES):
        active = np.flatnonzero((in_vain < turns) & (cells.steps > 1))
        if not active.size:
            break
        batch = spread[turn * _NUM_ROAMED : (turn + 1) * _NUM_ROAMED]
        offsets = batch * np.array(_ROAM_WIDTHS[turn % turns][:d])
        # The valleys run along a fixed lr/edge, so the box does as well.
        offsets[:, 0] -= offsets[:, 1]
        some = cells.pick(active)
        fewer = some.steps - 1
        around = np.minimum(some.points[:, None] + offsets, space.limits)
        heights = space.heights_at(around, fewer, some.sizes)
        some, better = _deepest(space, some, fewer, around, heights)
        cells = cells.put(active, some)
        in_vain[active] = np.where(better, 0, in_vain[active] + 1)
    return cells


def _look_across(
    space: Space, cells: Cells, centres: FloatArray, width: float
) -> tuple[FloatArray, FloatArray]:
    """Return points on a line across the ripples, and how high their bottoms are.

    Points that are no bottom stand higher than any.
    """
    fewer = cells.steps - 1
    _, _, hessian = derivatives(space, centres, fewer, cells.sizes)
    values, vectors = np.linalg.eigh(np.where(np.isfinite(hessian), hessian, 0))
    row = np.arange(len(centres))
    across = vectors[row, :, np.abs(values).argmax(axis=1)]
    spread = np.linspace(-width, width, _NUM_ACROSS)
    around = centres[:, None] + spread[:, None] * across[:, None]
    around = np.minimum(around, space.limits)
    heights = space.heights_at(around, fewer, cells.sizes)
    inside = heights[:, 1:-1]
    bottom = (inside <= heights[:, :-2]) & (inside <= heights[:, 2:])
    heights[:, 1:-1] = np.where(bottom, inside, inside + _NOT_A_BOTTOM)
    heights[:, [0, -1]] += _NOT_A_BOTTOM
    return around, heights


def _bowl(
    around: FloatArray, heights: FloatArray, centres: FloatArray, width: float
) -> FloatArray:
    """Return the bottom of a parabola through the lower half of the points."""
    m, count, d = around.shape
    lower = np.argsort(heights, axis=1)[:, : count // 2]
    row = np.arange(m)[:, None]
    x = (around[row, lower] - centres[:, None]) / width
    pairs = [(i, j) for i in range(d) for j in range(i + 1)]
    products = np.stack([x[:, :, i] * x[:, :, j] for i, j in pairs], axis=2)
    design = np.concatenate([np.ones((*x.shape[:2], 1)), x, products], axis=2)
    value = np.minimum(heights[row, lower], 50.0)
    gram = np.einsum("mri,mrj->mij", design, design) + 1e-9 * np.eye(design.shape[2])
    fit = np.linalg.solve(gram, np.einsum("mri,mr->mi", design, value)[..., None])[
        ..., 0
    ]
    bend = np.zeros((m, d, d))
    for place, (i, j) in enumerate(pairs):
        bend[:, i, j] += fit[:, 1 + d + place]
        bend[:, j, i] += fit[:, 1 + d + place]
    values, vectors = np.linalg.eigh(bend)
    along = np.einsum("mji,mj->mi", vectors, fit[:, 1 : 1 + d])
    along /= np.maximum(np.abs(values), 1e-9)
    move = -np.einsum("mij,mj->mi", vectors, along)
    return centres + width * np.clip(move, -1, 1)


def _deepest(
    space: Space,
    cells: Cells,
    steps: IntArray,
    around: FloatArray,
    heights: FloatArray,
    keep: int = _NUM_SUNK,
) -> tuple[Cells, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Return the cells at the deepest valley of the lowest points, and which moved.

    `steps` are those at which the points were looked at; a cell moves if the valley
    reaches the target there.
    """
    m, d = cells.points.shape
    row, keep = np.arange(m), min(keep, heights.shape[1])
    chosen = np.argsort(heights, axis=1, kind="stable")[:, :keep]
    trials = around[row[:, None], chosen].reshape(-1, d)
    sunk, depth = _sink(
        space, trials, np.repeat(steps, keep), np.repeat(cells.sizes, keep)
    )
    best = depth.reshape(m, keep).argmin(axis=1)
    points = sunk.reshape(m, keep, d)[row, best]
    found = crossing(space, points, steps, cells.sizes)
    better = found < cells.steps
    points = np.where(better[:, None], points, cells.points)
    fewest = np.where(better, found, cells.steps)
    return Cells(cells.places, cells.sizes, points, fewest), better


def _sink(
    space: Space, points: FloatArray, steps: IntArray, sizes: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return points after a few Newton steps at fixed `steps`, and their heights."""
    radius = np.full(len(steps), 0.1)
    points = points.copy()
    height, gradient, hessian = derivatives(space, points, steps, sizes)
    for _ in range(_SINK_ROUNDS):
        move, _ = newton_move(space, points, gradient, hessian, radius)
        found = derivatives(space, points + move, steps, sizes)
        better = found[0] < height
        radius = np.where(better, 2 * radius, radius / 8)
        points = np.where(better[:, None], points + move, points)
        height = np.where(better, found[0], height)
        gradient = np.where(better[:, None], found[1], gradient)
        hessian = np.where(better[:, None, None], found[2], hessian)
    return points, height


def _even_spread(num: int, d: int) -> FloatArray:
    """Return points of [-1, 1]^d that fill it evenly (Roberts' additive sequence)."""
    ratio = 2.0
    for _ in range(30):
        ratio = (1 + ratio) ** (1 / (d + 1))
    steps = ratio ** -np.arange(1.0, d + 1)
    return 2 * ((0.5 + np.arange(1, num + 1)[:, None] * steps) % 1) - 1
