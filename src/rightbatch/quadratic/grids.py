r"""The best point of a grid of settings, by first passage; the grids of the paper.

The smallest k at which any point of the grid reaches the target is found without
stepping, and without missing a dip: the loss is not monotone under momentum. Over the
steps from k_1 + 1 to k_2 it is at least

.. math:: L_\infty + \tfrac12 \sum_i w_i h_i \left( s_i \min_j a_{ij}^2
          + v_i S_i(k_1) \right)

as noise only adds up, S(k) being a sum of k squares, and what is left of the start is
monotone (real roots) or a damped sine that cannot turn between two steps of equal sign
less than half a turn apart. A range whose bound is above the target is done for all its
steps; another is halved.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.optimizers import OPTIMIZERS, Optimizer, OptimizerName
from rightbatch.quadratic.problem import (
    NoisyQuadratic,
    check_target,
    refuse_label_noise,
)
from rightbatch.quadratic.recursions.powers import (
    Backend,
    moments_after,
    moments_ladder,
)
from rightbatch.quadratic.recursions.transition import Settings
from rightbatch.quadratic.spectrum import FloatArray, frozen_array

IntArray = NDArray[np.int64]

MOST_STEPS = 10**9  # where the published search begins to bisect
MOST_AT_ONCE = 128  # points whose moments fit a cache
SLACK = 1 - 1e-9  # bounds are sums in another order than the loss is
PUBLISHED_FLOOR = 1e-8  # what the published SGD adds below a fraction
HALF_TURN = 3.14
WIDEST = 1e6  # a sine this wide leaves ten digits of what it is part of
NO_SETTING = frozen_array([0.0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Settings to try, every combination of them.

    Args:
        lrs: Learning rates, positive. Those beyond the stability edge are left out.
        momenta: In [0, 1); zero alone without momentum.
        ema_decays: In [0, 1); zero alone without a moving average.

    Raises:
        InputError: A list is empty or a value out of range.
    """

    lrs: FloatArray
    momenta: FloatArray = field(default_factory=lambda: NO_SETTING)
    ema_decays: FloatArray = field(default_factory=lambda: NO_SETTING)

    def __post_init__(self) -> None:
        lrs = _checks.positive_array("Grid", "lrs", self.lrs)
        object.__setattr__(self, "lrs", frozen_array(lrs))
        for name in ("momenta", "ema_decays"):
            # What they lack to one is what has to be positive, and at most one.
            given = np.asarray(getattr(self, name), dtype=float)
            gaps = 1 - given
            if (
                given.ndim != 1
                or not given.size
                or not np.all((gaps > 0) & (gaps <= 1))
            ):
                raise InputError(
                    f"Grid: `{name}` must be a list of numbers in [0, 1), got "
                    f"{getattr(self, name)!r}."
                )
            object.__setattr__(self, name, frozen_array(given))


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPoint:
    """The best point of a grid.

    Args:
        optimizer: Its settings; None where no point reaches the target.
        steps: The first k with a loss at or below the target; None likewise.
    """

    optimizer: Optimizer | None
    steps: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return steps and settings for a program."""
        settings = {} if self.optimizer is None else self.optimizer.to_dict()
        return {"steps": self.steps, **settings}


def published_grid(name: OptimizerName) -> Grid:
    """Return the grid of Zhang et al. (2019) for an optimizer.

    SGD: 100 learning rates from 1e-5 to 10^.5. Momentum and moving average: 100 from
    1e-8 to 10, times 20 values of one minus the momentum or the decay, from 1e-5 to 1,
    all evenly spaced in the logarithm. The paper has these three; others take the same
    axes, both lists of 20 where there are momentum and average.

    Args:
        name: One of :data:`~rightbatch.quadratic.optimizers.OPTIMIZERS`.

    Returns:
        The grid.

    Raises:
        InputError: There is no such optimizer.

    Example:
        >>> published_grid("momentum").momenta[:2].round(6).tolist()
        [0.99999, 0.999982]
    """
    _checks.one_of("published_grid", "name", name, OPTIMIZERS)
    memories = 1 - np.logspace(-5, 0, 20)
    has_momentum = name.startswith(("momentum", "nesterov"))
    return Grid(
        lrs=np.logspace(-5, 0.5, 100) if name == "sgd" else np.logspace(-8, 1, 100),
        momenta=memories if has_momentum else NO_SETTING,
        ema_decays=memories if name.endswith("ema") else NO_SETTING,
    )


def search_grid(
    problem: NoisyQuadratic,
    name: OptimizerName,
    batch_size: float,
    target: float,
    grid: Grid | None = None,
    *,
    emulate_published: bool = False,
    backend: Backend = "auto",
) -> GridPoint:
    """Return the point of a grid that reaches a target first, and when.

    Exact, whether or not the loss falls all the way: no step is passed over unless the
    loss is known to be above the target there.

    Args:
        problem: What is minimised.
        name: The optimizer; a tail average is not searched here.
        batch_size: Examples per step.
        target: Expected loss to reach.
        grid: Settings to try; the paper's by default.
        emulate_published: Answer as the published code does: the last step *above* the
            target, one less than the first passage, and for SGD with 1e-8 in a
            denominator and bisection from a thousand million steps.
        backend: numpy, numba, or whichever is there.

    Returns:
        The settings and the steps, at most a thousand million; of several points with
        the same steps one with the lowest loss.

    Raises:
        InputError: An argument is out of range, the grid has settings that the
            optimizer has not, or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic import Spectrum
        >>> from rightbatch.quadratic.binning import published_bins
        >>> problem = NoisyQuadratic(spectrum=published_bins(Spectrum.inverse(10_000)))
        >>> search_grid(problem, "sgd", 1024, 0.01).steps
        10610
    """
    who = "search_grid"
    _checks.one_of(who, "name", name, OPTIMIZERS)
    if name == "tail-average":
        raise InputError(f"{who}: `name` cannot be tail-average.", "try average")
    refuse_label_noise(who, problem)
    _checks.positive(who, "batch_size", batch_size)
    check_target(who, problem, target)
    grid = published_grid(name) if grid is None else grid
    choices = _stable_points(problem, name, grid)
    if emulate_published and name == "sgd":
        return _published_sgd(problem, batch_size, target, grid.lrs)
    pieces = -(-len(choices) // MOST_AT_ONCE)
    best, steps = None, MOST_STEPS + 1
    for first in range(pieces):  # each from all over the grid: limits come early
        some = choices[first::pieces]
        runs = _runs(problem, name, some, batch_size, target)
        found = runs._replace(backend=backend).first(steps - 1)
        if found is not None:
            steps, best = found[0], some[found[1]]
    if best is None:
        return GridPoint(optimizer=None, steps=None)
    return GridPoint(optimizer=_optimizer(name, best), steps=steps - emulate_published)


def _optimizer(name: OptimizerName, choice: FloatArray) -> Optimizer:
    lr, momentum, ema_decay = map(float, choice)
    return Optimizer(name=name, lr=lr, momentum=momentum, ema_decay=ema_decay)


def _stable_points(
    problem: NoisyQuadratic, name: OptimizerName, grid: Grid
) -> FloatArray:
    """Return lr, momentum and decay of the points that are stable, shape (m, 3)."""
    # As optimizers they are checked, and know their edge.
    heads = [
        _optimizer(name, np.array([1.0, momentum, decay]))
        for momentum in grid.momenta
        for decay in grid.ema_decays
    ]
    largest = float(problem.rates.max())
    points = [
        (lr, head.momentum, head.ema_decay)
        for lr in grid.lrs
        for head in heads
        if lr * largest < head.max_stable_rate
    ]
    return np.array(points).reshape(-1, 3)


# First passage of many runs ----------------------------------------------------------


class _Stop(NamedTuple):
    """Runs after some steps: what is left of the start (m, n), loss by noise (m,)."""

    steps: int
    mean: FloatArray
    noise: FloatArray

    def of(self, some: NDArray[np.bool_]) -> "_Stop":
        return _Stop(self.steps, self.mean[some], self.noise[some])


class _Swing(NamedTuple):
    """What is left of the start, as kept e^(keep k) and a damped sine; each (m, n).

    Args:
        angle: How far the sine turns in a step; 0 where the whole falls all the way,
            infinite where nothing is known.
        fall: The log of what a step leaves of the sine's amplitude.
        width: That amplitude at the start.
        kept: What the moving average holds beside the sine; zero without one.
        keep: The log of what a step leaves of that.
    """

    angle: FloatArray
    fall: FloatArray
    width: FloatArray
    kept: FloatArray
    keep: FloatArray

    def least(self, low: _Stop, high: _Stop) -> FloatArray:
        """Return the least size after `low` and up to `high`, or less."""
        num = high.steps - low.steps
        first = self.kept * np.exp(low.steps * self.keep)
        last = self.kept * np.exp(high.steps * self.keep)
        sine, end = low.mean - first, high.mean - last
        still = (num * self.angle < HALF_TURN) & (sine * end > 0)
        sizes = np.minimum(np.abs(sine) * np.exp(num * self.fall), np.abs(end))
        least_sine = np.where(still, sizes, 0.0)
        most_sine = self.width * np.exp(low.steps * self.fall)
        opposed = np.maximum(np.abs(last) - most_sine, least_sine - np.abs(first))
        joined = still & (sine * self.kept >= 0)
        both = np.where(joined, np.abs(last) + least_sine, np.maximum(opposed, 0.0))
        return np.where(self.angle == 0, np.abs(high.mean), both)


class _Runs(NamedTuple):
    """Runs of one optimizer on one problem.

    Args:
        name: The optimizer.
        settings: Of m runs.
        rates: p h, shape (n,).
        start_weights: w h s / 2, shape (n,).
        noise_weights: w h v / 2 at lr 1, shape (n,).
        goal: The target above the irreducible loss.
        swing: How what is left of the start falls.
        backend: What computes the moments.
    """

    name: OptimizerName
    settings: Settings
    rates: FloatArray
    start_weights: FloatArray
    noise_weights: FloatArray
    goal: float
    swing: _Swing
    backend: Backend = "auto"

    def first(self, limit: int) -> tuple[int, int] | None:
        """Return the smallest first passage up to `limit`, and whose it is."""
        if limit < 1:
            return None
        num = limit.bit_length()
        rungs = moments_ladder(
            self.name, self.settings, self.rates, num, backend=self.backend
        )
        stops = [
            _Stop(1 << level, mean, variance @ self.noise_weights)
            for level, (mean, variance) in enumerate(zip(*rungs, strict=True))
        ]
        everyone = np.arange(self.settings.lr.size)
        if stops[-1].steps < limit:
            stops.append(self.at(everyone, limit))
        found = self.reached(everyone, stops[0])
        for low, high in pairwise(stops):
            found = found or self.between(everyone, low, high)
        return found

    def between(
        self, runs: IntArray, low: _Stop, high: _Stop
    ) -> tuple[int, int] | None:
        """Return the first passage after `low` and up to `high`, and whose it is."""
        open_ = self.least(runs, low, high) <= self.goal
        if not open_.any():
            return None
        runs, low, high = runs[open_], low.of(open_), high.of(open_)
        if high.steps - low.steps == 1:
            return self.reached(runs, high)
        middle = self.at(runs, (low.steps + high.steps) // 2)
        return self.between(runs, low, middle) or self.between(runs, middle, high)

    def reached(self, runs: IntArray, stop: _Stop) -> tuple[int, int] | None:
        """Return the steps and the run of lowest loss, if it is low enough."""
        losses = stop.mean**2 @ self.start_weights + stop.noise
        lowest = int(np.argmin(losses))
        if not losses[lowest] <= self.goal:
            return None
        return stop.steps, int(runs[lowest])

    def least(self, runs: IntArray, low: _Stop, high: _Stop) -> FloatArray:
        """Return what the loss cannot fall below after `low` and up to `high`."""
        left = _Swing(*(part[runs] for part in self.swing)).least(low, high)
        noise = low.noise
        if self.name == "average":  # only the sum adds up, and is divided by k^2
            noise = noise * (low.steps / high.steps) ** 2
        return SLACK * (left**2 @ self.start_weights + noise)

    def at(self, runs: IntArray, steps: int) -> _Stop:
        """Return these runs after some steps."""
        settings = Settings(*(part[runs] for part in self.settings))
        count = np.full(runs.size, steps, dtype=np.int64)
        mean, variance = moments_after(
            self.name, settings, self.rates, count, backend=self.backend
        )
        return _Stop(steps, mean, variance @ self.noise_weights)


def _runs(
    problem: NoisyQuadratic,
    name: OptimizerName,
    choices: FloatArray,
    batch_size: float,
    target: float,
) -> _Runs:
    lr, momentum, ema_decay = choices.T
    settings = Settings(lr, 1 - momentum, 1 - ema_decay)
    return _Runs(
        name=name,
        settings=settings,
        rates=problem.rates,
        start_weights=problem.loss_weights * problem.start,
        noise_weights=problem.loss_weights * problem.step_noise / batch_size,
        goal=target - problem.irreducible_loss,
        swing=_swing(name, settings, problem.rates),
    )


def _swing(name: OptimizerName, settings: Settings, rates: FloatArray) -> _Swing:
    r"""Return how what is left of the start falls.

    Started at rest, the iterate is Re(c z^k) with c = (z - momentum) / (i Im z) and z a
    root of z^2 - t z + d: t = 1 - x + mu and d = mu, or t = (1 + mu)(1 - x) and d =
    mu (1 - x) for Nesterov. With two positive roots it falls all the way without
    crossing zero, and so does any average of it. A moving average of Re(c z^k) is
    Re(e z^k) + (1 - Re e) g^k, with e = (1 - g) c z / (z - g).
    """
    x = settings.lr[:, None] * rates
    gap = settings.inertia_gap[:, None]
    forget = settings.ema_gap[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        if not name.startswith(("momentum", "nesterov")):
            root = 1 - x + 0j
            start = np.ones_like(root)
            # The square of SGD's iterate falls whatever the sign.
            angle = np.where((x <= 1) | (name == "sgd"), 0.0, np.pi)
        else:
            root, angle = _root(name.startswith("nesterov"), x, gap)
            start = (root - (1 - gap)) / (1j * root.imag)
        averaged = forget * start * root / (root - (1 - forget))
        width = np.abs(averaged)
        # Where the average forgets as fast as the sine falls the two cannot be told.
        known = (angle > 0) & (width < WIDEST)
        fall = np.where(known, np.log(np.abs(root)), 0.0)
        keep = np.log1p(-forget) * np.ones_like(x)
    moving = name.endswith("ema")
    kept = np.where(known & moving & (forget < 1), 1 - averaged.real, 0.0)
    return _Swing(
        angle=np.where(known | (angle == 0), angle, np.inf),
        fall=fall,
        width=np.where(known, width, 0.0),
        kept=kept,
        keep=np.where(kept != 0, keep, 0.0),
    )


def _root(
    nesterov: bool, x: FloatArray, gap: FloatArray
) -> tuple[NDArray[np.complex128], FloatArray]:
    """Return a root of momentum's step and the angle it turns by, 0 if it falls."""
    if nesterov:
        trace, scale = (2 - gap) * (1 - x), 1 - x
        under = scale * (gap * gap - x * (2 - gap) ** 2)
    else:
        trace, scale = 2 - gap - x, np.ones_like(x)
        under = gap * gap - 2 * x * (2 - gap) + x * x
    root = 0.5 * (trace + 1j * np.sqrt(np.maximum(-under, 0.0)))
    falls = (under >= 0) & (trace >= 0) & (scale >= 0)
    turns = (under < 0) & (scale >= 0)
    angle = np.where(turns, np.angle(root), np.where(falls, 0.0, np.inf))
    return root, angle


# As published ------------------------------------------------------------------------


def _published_sgd(
    problem: NoisyQuadratic, batch_size: float, target: float, lrs: FloatArray
) -> GridPoint:
    r"""Return the last step above the target with a floor below the fraction.

    .. math:: s_k = s_* + b^k (s - s_*), \quad b = (1 - x)^2,
              \quad s_* = v / (1 - b + 10^{-8})
    """
    x = lrs[:, None] * problem.rates
    shrink = (1 - x) ** 2
    noise = lrs[:, None] ** 2 * problem.step_noise / batch_size
    settled = noise / (1 - shrink + PUBLISHED_FLOOR)
    low = np.zeros(lrs.size, dtype=np.int64)
    high = np.full(lrs.size, MOST_STEPS, dtype=np.int64)
    while (low < high - 1).any():
        middle = (low + high) // 2
        # Beyond the edge the moments overflow, and are above the target.
        with np.errstate(over="ignore", invalid="ignore"):
            moments = settled + shrink ** middle[:, None] * (problem.start - settled)
            below = moments @ problem.loss_weights < target - problem.irreducible_loss
        low, high = np.where(below, low, middle), np.where(below, middle, high)
    best = int(np.argmin(low))
    if low[best] == MOST_STEPS - 1:
        return GridPoint(optimizer=None, steps=None)
    optimizer = Optimizer(name="sgd", lr=float(lrs[best]))
    return GridPoint(optimizer=optimizer, steps=max(1, int(low[best])))
