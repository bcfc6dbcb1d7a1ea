"""Runs under a shape of the learning rate, as points without bounds but the cap."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rightbatch.quadratic.optimizers import Optimizer, OptimizerName
from rightbatch.quadratic.pieces import loss_after_schedule
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.schedules.adjoint import Directions, loss_of
from rightbatch.quadratic.schedules.folding import loss_of_steps
from rightbatch.quadratic.schedules.piecewise import piece_lengths
from rightbatch.quadratic.schedules.shapes import Shape
from rightbatch.quadratic.spectrum import FloatArray

COARSE_PIECES = 128
"""How many pieces stand for the steps of a long run in a first search."""
MOST_STEPPED = 2**22
"""Longer runs are not stepped through: 2^14 pieces stand for the steps."""
_FINE_PIECES = 2**14
AT_CAP = 30.0
"""The coordinate logit(peak / cap) from which the peak counts as the cap."""
_BELOW_CAP = 8.0
_FROM_CAP = 4.0  # where Newton's method starts over, and from where the cap is tried
_NOTHING = 1e-300  # a loss that counts as none
_LEAST_GAP = float(np.log(1e-9))
_WIDTH = 1e-3  # of the differences that give derivatives
_MOST_NEWTON = 40
_FARTHEST = 1.5
_FLATTEST = 1e-6
_SETTLED = 1e-10
_CLEAR = 0.02  # of the distance to the target

Heights = Callable[[FloatArray], FloatArray]


class Space(NamedTuple):
    """What is tuned, in coordinates: peak, shape's parameter, momentum, EMA decay.

    The first is logit(peak / cap) - log(1 - momentum), about the logarithm of the rate
    that small batches feel, the others are logarithms, all at most 0: of the tail, the
    final factor or one over the step, of 1 - momentum and of 1 - ema_decay.

    Args:
        name: The optimizer.
        shape: With or without its parameter.
        log_rate: Of the largest p h, which sets the stability edge.
        log_top: Of the largest peak allowed; not a number for the edge.
    """

    name: OptimizerName
    shape: Shape
    log_rate: float
    log_top: float

    @property
    def limits(self) -> FloatArray:
        """The largest value of each coordinate."""
        peak = AT_CAP if self.log_top < np.inf or np.isnan(self.log_top) else np.inf
        return np.array([peak, *([0.0] * (self.num_dims - 1))])

    @property
    def has_momentum(self) -> bool:
        """Whether a momentum is tuned."""
        return self.name.startswith(("momentum", "nesterov"))

    @property
    def has_ema(self) -> bool:
        """Whether an EMA decay is tuned."""
        return self.name.endswith("ema")

    @property
    def num_dims(self) -> int:
        """How many coordinates there are."""
        return 1 + self.shape.is_tuned + self.has_momentum + self.has_ema

    def log_caps(self, points: FloatArray) -> FloatArray:
        """Return the log of the largest peak at each point, shape (m,)."""
        if not np.isnan(self.log_top):
            return np.full(len(points), self.log_top)
        momentum = 1 - self._gaps(points, self.has_momentum, 0)
        ahead = 2 * momentum * self.name.startswith("nesterov")
        return np.log(2 * (1 + momentum) / (1 + ahead)) - self.log_rate

    def peaks(self, points: FloatArray) -> FloatArray:
        """Return the peak of each point, shape (m,)."""
        caps, first = self.log_caps(points), points[:, 0]
        shift = first + np.log(self._gaps(points, self.has_momentum, 0))
        if np.isinf(self.log_top):
            return np.exp(shift - self.log_rate)
        share = np.where(first >= AT_CAP, 1.0, 1 / (1 + np.exp(-shift)))
        return np.exp(caps) * share

    def shape_at(self, point: FloatArray) -> Shape:
        """Return the shape with the parameter of a point."""
        if not self.shape.is_tuned:
            return self.shape
        low, high = self.shape.parameter_bounds
        value = float(np.exp(point[1]))
        value = value if np.isfinite(high) else 1 / value
        return self.shape.with_parameter(min(max(value, low), high))

    def optimizer(self, point: FloatArray) -> Optimizer:
        """Return the optimizer at a point, its lr being the peak."""
        one = point[None]
        return Optimizer(
            name=self.name,
            lr=float(self.peaks(one)[0]),
            momentum=float(1 - self._gaps(one, self.has_momentum, 0)[0]),
            ema_decay=float(
                1 - self._gaps(one, self.has_ema, int(self.has_momentum))[0]
            ),
        )

    def log_gaps(self, optimizer: Optimizer) -> FloatArray:
        """Return the coordinates of an optimizer's momentum and EMA decay."""
        gaps = [1 - optimizer.momentum] * self.has_momentum
        return np.log([*gaps, *([1 - optimizer.ema_decay] * self.has_ema)])

    def point(self, peak: float, rest: FloatArray) -> FloatArray:
        """Return the point of a peak and the other coordinates; at most the cap."""
        found = np.concatenate([[0.0], rest])
        log_peak = float(np.log(peak))
        shift = float(np.log(self._gaps(found[None], self.has_momentum, 0)[0]))
        if np.isinf(self.log_top):
            found[0] = log_peak + self.log_rate - shift
            return found
        below = log_peak - float(self.log_caps(found[None])[0])
        if below > -1e-13:
            found[0] = AT_CAP
            return found
        logit = below - np.log(-np.expm1(below))
        found[0] = min(logit - shift, AT_CAP)
        return found

    def _gaps(self, points: FloatArray, there: bool, place: int) -> FloatArray:
        if not there:
            return np.ones(len(points))
        column = 1 + self.shape.is_tuned + place
        return np.exp(np.clip(points[:, column], _LEAST_GAP, 0))


class Runs(Protocol):
    """Runs of some length, for any points of a space."""

    space: Space

    def heights(self, points: FloatArray, steps: int) -> FloatArray:
        """Return log(loss / goal) after `steps` at points (m, d), shape (m,)."""
        ...


class SgdRuns:
    """Runs of SGD; in a first search, pieces stand for the steps.

    Args:
        space: What is tuned.
        along: The directions.
        goal: The target above the irreducible loss.
        kernels: Compiled loops, or None for numpy.
        every_step: Whether each step is taken, or pieces stand for them.
    """

    def __init__(
        self,
        space: Space,
        along: Directions,
        goal: float,
        kernels: Any,
        *,
        every_step: bool,
    ) -> None:
        self.space = space
        self.along = along
        self.goal = goal
        self.kernels = kernels
        self.every_step = every_step

    def heights(self, points: FloatArray, steps: int) -> FloatArray:
        """Return log(loss / goal) after `steps` at points (m, d), shape (m,)."""
        shapes = [self.space.shape_at(point) for point in points]
        peaks = self.space.peaks(points)
        coarse = not self.every_step
        if coarse or steps > MOST_STEPPED or shapes[0].name == "constant":
            num = min(steps, COARSE_PIECES if coarse else _FINE_PIECES)
            if shapes[0].name == "constant":
                num = 1
            losses = self._by_pieces(shapes, peaks, steps, num)
        else:
            rows = (
                shape.lrs(float(peak), steps)[None]
                for shape, peak in zip(shapes, peaks, strict=True)
            )
            losses = np.array(
                [loss_of_steps(self.along, row, self.kernels)[0] for row in rows]
            )
        return np.log(np.maximum(losses, _NOTHING) / self.goal)

    def _by_pieces(
        self, shapes: list[Shape], peaks: FloatArray, steps: int, num: int
    ) -> FloatArray:
        counts = piece_lengths(steps, num)
        middles = (np.cumsum(counts) - 0.5 * counts - 0.5) / max(steps - 1, 1)
        factors = np.array([shape.factors(middles) for shape in shapes])
        # A logarithm of 0 would do, but for what it is multiplied with.
        logs = np.log(np.maximum(peaks[:, None] * factors, 1e-100))
        return np.array([loss_of(self.along, row, counts) for row in logs])


class SteppedRuns:
    """Runs of any optimizer, every step taken.

    Args:
        space: What is tuned.
        problem: What is minimised.
        batch_size: Examples per step.
        goal: The target above the irreducible loss.
        backend: numpy, numba, or whichever is there.
    """

    def __init__(
        self,
        space: Space,
        problem: NoisyQuadratic,
        batch_size: float,
        goal: float,
        backend: Backend,
    ) -> None:
        self.space = space
        self.problem = problem
        self.batch_size = batch_size
        self.goal = goal
        self.backend: Backend = backend

    def heights(self, points: FloatArray, steps: int) -> FloatArray:
        """Return log(loss / goal) after `steps` at points (m, d), shape (m,)."""
        losses = np.array([self._loss(point, steps) for point in points])
        above = losses - self.problem.irreducible_loss
        return np.log(np.maximum(above, _NOTHING) / self.goal)

    def _loss(self, point: FloatArray, steps: int) -> float:
        optimizer = self.space.optimizer(point)
        lrs = self.space.shape_at(point).lrs(optimizer.lr, steps)
        return float(
            loss_after_schedule(
                self.problem, optimizer, lrs, self.batch_size, backend=self.backend
            )
        )


def lowest(runs: Runs, point: FloatArray, steps: int) -> tuple[FloatArray, float]:
    """Return the point of least height near one, and the height.

    Newton's method by differences, bends taken as positive. A peak at the cap stays
    there as long as one a little below is no better, and one that comes near the cap
    is compared with the cap itself.

    Args:
        runs: The runs.
        point: Where to start. Shape (d,).
        steps: Their length.

    Returns:
        A point whose height is not above that of the start, and its height.
    """
    limits = runs.space.limits
    start = np.minimum(point, limits)
    free = np.ones(start.size, dtype=bool)
    if start[0] < AT_CAP:
        point, height = _descend(runs, start, steps, free)
        if not _FROM_CAP < point[0] < AT_CAP:
            return point, height
        capped = np.array([AT_CAP, *point[1:]])
        found = float(runs.heights(capped[None], steps)[0])
        return (capped, found) if found < height else (point, height)
    below = np.array([_BELOW_CAP, *start[1:]])
    at, under = runs.heights(np.array([start, below]), steps)
    if at <= under:
        free[0] = False
        return _descend(runs, start, steps, free) if free.any() else (start, float(at))
    point, height = _descend(runs, np.array([_FROM_CAP, *start[1:]]), steps, free)
    return (point, height) if height < at else (start, float(at))


def _descend(
    runs: Runs, point: FloatArray, steps: int, free: NDArray[np.bool_]
) -> tuple[FloatArray, float]:
    """Return where Newton's method leads from a point along its free coordinates."""
    limits = runs.space.limits
    height, slope, bend = _derivatives(runs, point, steps, free)
    radius = _FARTHEST
    for _ in range(_MOST_NEWTON):
        move, fall = _newton(slope, bend, radius)
        move = np.minimum(point + move, limits) - point
        if not fall > max(_SETTLED, _CLEAR * abs(height)):
            break
        there = _derivatives(runs, point + move, steps, free)
        if there[0] < height:
            point = point + move
            height, slope, bend = there
            radius = min(2 * radius, _FARTHEST)
        else:
            radius = 0.25 * float(np.abs(move).max())
            if radius < 1e-6:
                break
    return point, height


def _derivatives(
    runs: Runs, point: FloatArray, steps: int, free: NDArray[np.bool_]
) -> tuple[float, FloatArray, FloatArray]:
    """Return the height, and gradient and Hessian taken a little below the limits."""
    limits = runs.space.limits
    places = np.flatnonzero(free)
    d = places.size
    centre = np.where(free, np.minimum(point, limits - _WIDTH), point)
    pairs = [(i, j) for i in range(d) for j in range(i)]
    eye = _WIDTH * np.eye(point.size)[places]
    both = [eye[i] + eye[j] for i, j in pairs]
    around = centre + np.array([0 * point, *eye, *-eye, *both])
    moved = not np.array_equal(centre, point)
    heights = runs.heights(np.array([*around, *([point] * moved)]), steps)
    here, ups, downs = heights[0], heights[1 : 1 + d], heights[1 + d : 1 + 2 * d]
    slope, bend = np.zeros(point.size), np.zeros((point.size, point.size))
    slope[places] = (ups - downs) / (2 * _WIDTH)
    bend[places, places] = (ups + downs - 2 * here) / _WIDTH**2
    for place, (i, j) in enumerate(pairs):
        mixed = (heights[1 + 2 * d + place] - ups[i] - ups[j] + here) / _WIDTH**2
        bend[places[i], places[j]] = bend[places[j], places[i]] = mixed
    # What presses against a limit is left where it is.
    held = (point >= limits) & (slope < 0)
    slope = np.where(held | ~np.isfinite(slope), 0, slope)
    bend = np.where(held[:, None] | held | ~np.isfinite(bend), 0, bend)
    return float(heights[-1] if moved else here), slope, bend


def _newton(
    slope: FloatArray, bend: FloatArray, radius: float
) -> tuple[FloatArray, float]:
    values, vectors = np.linalg.eigh(bend)
    steep = np.abs(values)
    floor = max(_FLATTEST * float(steep.max()), 1e-9)
    move = -vectors @ ((vectors.T @ slope) / np.maximum(steep, floor))
    longest = float(np.abs(move).max())
    move = move * min(1.0, radius / max(longest, 1e-300))
    return move, -float(slope @ move)
