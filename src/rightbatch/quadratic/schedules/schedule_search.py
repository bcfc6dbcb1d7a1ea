"""Cosine, linear and other shapes with their peak tuned, and how short a run can be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rightbatch import _checks
from rightbatch.quadratic.optimizers import OPTIMIZERS, Optimizer, OptimizerName
from rightbatch.quadratic.problem import (
    NoisyQuadratic,
    check_target,
    refuse_label_noise,
)
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.schedules.adjoint import (
    Directions,
    directions,
    schedule_kernels,
)
from rightbatch.quadratic.schedules.fewest import Probe, fewest_steps
from rightbatch.quadratic.schedules.piecewise import best_constants, log_cap
from rightbatch.quadratic.schedules.shaped_runs import (
    MOST_STEPPED,
    Runs,
    SgdRuns,
    Space,
    SteppedRuns,
    lowest,
)
from rightbatch.quadratic.schedules.shapes import Shape
from rightbatch.quadratic.search import search
from rightbatch.quadratic.spectrum import FloatArray

_PARAMETERS = (0.0, -1.0, -2.5, -5.0)  # starts, of log parameter
_AROUND = np.linspace(-2, 2, 20)  # of the log parameter, in a last look
_MOST_POLISH = 8
_MIDDLE = -1.2  # another start of the log parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapedSchedule:
    """The shortest run under a shape of the learning rate that reaches a target.

    Args:
        shape: With its parameter.
        batch_size: Examples per step.
        steps: Its length, the loss being read at the end; None where no peak reaches
            the target.
        optimizer: Its settings, the learning rate being the peak; None likewise.
        loss: Expected loss at the end, the irreducible one included; None likewise.
    """

    shape: Shape
    batch_size: float
    steps: int | None
    optimizer: Optimizer | None = None
    loss: float | None = None

    def lrs(self) -> FloatArray:
        """Return the learning rate of every step; none where there is no schedule."""
        if self.steps is None or self.optimizer is None:
            return np.empty(0)
        return self.shape.lrs(self.optimizer.lr, self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the cell for a program; steps and loss None where unreachable."""
        settings = {} if self.optimizer is None else self.optimizer.to_dict()
        return {
            "schedule": str(self.shape),
            "batch_size": self.batch_size,
            "steps": self.steps,
            "loss": self.loss,
            **settings,
        }


def search_shape(
    problem: NoisyQuadratic,
    name: OptimizerName,
    shape: Shape,
    batch_sizes: Sequence[float] | FloatArray,
    target: float,
    *,
    max_lr: float | None = None,
    backend: Backend = "auto",
) -> tuple[ShapedSchedule, ...]:
    """Return the shortest runs under a shape, its peak tuned to each length.

    The loss is read at the last step and the smallest length is kept. Momentum and EMA
    decay are tuned together with the peak where the optimizer has them, and do not
    change along the run. For SGD a first search lets pieces stand for the steps; a
    second, from where it ends, takes every step. Other optimizers start from SGD's
    answer, so that their runs are not longer, and from their best constant rate.

    Args:
        problem: What is minimised; without label noise.
        name: The optimizer.
        shape: The shape; its parameter is searched where it has none.
        batch_sizes: Examples per step. Shape (b,).
        target: Expected loss to reach at the last step.
        max_lr: The largest peak. The edge of stability by default, itself included
            (2 / max(p h) for SGD); infinity for none.
        backend: numpy, numba, or whichever is there.

    Returns:
        One schedule per batch size, in the order given; unreachable where a constant
        rate needs more than 2^36 steps, or for other optimizers than SGD 2^22.

    Raises:
        InputError: A value is out of range or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> search_shape(problem, "sgd", Shape(name="cosine"), [16], 0.01)[0].steps
        605
    """
    who = "search_shape"
    refuse_label_noise(who, problem)
    _checks.one_of(who, "name", name, OPTIMIZERS)
    sizes = _checks.positive_array(who, "batch_sizes", batch_sizes)
    check_target(who, problem, target)
    log_top = log_cap(who, problem, max_lr)
    log_edge = log_cap(who, problem, None)
    log_rate = float(np.log(2)) - log_edge
    sgd_space = Space("sgd", shape, log_rate, log_top)
    # Momentum has an edge of its own.
    space = Space(name, shape, log_rate, np.nan if max_lr is None else log_top)
    goal = target - problem.irreducible_loss
    kernels = schedule_kernels(backend)
    constants = best_constants(problem, sizes, goal, min(log_top, log_edge))
    found: list[ShapedSchedule] = []
    for size, constant in zip(sizes, constants, strict=True):
        along = directions(problem, float(size))
        best = constant and _shortest_sgd(sgd_space, along, goal, kernels, constant)
        if best is not None and name != "sgd":
            runs = SteppedRuns(space, problem, float(size), goal, backend)
            best = _shortest_of_any(runs, sgd_space, best, target)
        found.append(_schedule(problem, space, float(size), goal, best))
    return tuple(found)


class _Best(NamedTuple):
    steps: int
    point: FloatArray
    height: float


def _shortest_sgd(
    space: Space,
    along: Directions,
    goal: float,
    kernels: Any,
    constant: tuple[int, float],
) -> _Best | None:
    coarse = SgdRuns(space, along, goal, kernels, every_step=False)
    exact = SgdRuns(space, along, goal, kernels, every_step=True)
    first, log_lr = constant
    starts = _starts(space, log_lr)
    heights = coarse.heights(starts, first)
    rough = _shortest(coarse, starts[int(heights.argmin())], first)
    best = rough and _shortest(exact, rough.point, rough.steps)
    return best and _polish(exact, best)


def _polish(runs: Runs, best: _Best) -> _Best:
    """Return a shorter run if another parameter allows it: few steps make it jagged."""
    for _ in range(_MOST_POLISH if runs.space.shape.is_tuned else 0):
        if best.steps == 1:
            break
        around = best.point + _AROUND[:, None] * (np.arange(best.point.size) == 1)
        around = np.minimum(around, runs.space.limits)
        heights = runs.heights(around, best.steps - 1)
        trial = around[int(heights.argmin())]
        point, height = lowest(runs, trial, best.steps - 1)
        shorter = _shortest(runs, point, best.steps - 1) if height <= 0 else None
        if shorter is None or shorter.steps >= best.steps:
            break
        best = shorter
    return best


def _shortest_of_any(
    runs: SteppedRuns, sgd_space: Space, best: _Best, target: float
) -> _Best | None:
    """Return the shortest runs from SGD's answer and from the best constant rate."""
    if best.steps > MOST_STEPPED:
        return None
    space = runs.space
    peak = float(sgd_space.peaks(best.point[None])[0])
    own = best.point[1 : 1 + space.shape.is_tuned]
    zeros = np.zeros(space.num_dims - 1 - own.size)
    starts = [(best.steps, space.point(peak, np.concatenate([own, zeros])))]
    constant = search(
        runs.problem, space.name, [runs.batch_size], target, backend=runs.backend
    )[0]
    if constant.optimizer is not None and constant.steps is not None:
        lr, gaps = constant.optimizer.lr, space.log_gaps(constant.optimizer)
        for parameter in (own, _MIDDLE * np.ones(1))[: 1 + own.size]:
            point = space.point(lr, np.concatenate([parameter, gaps]))
            starts.append((constant.steps, point))
    found: list[_Best] = []
    for steps, point in starts:
        first = min([steps, *(one.steps for one in found)])
        one = _shortest(runs, point, first)
        found += [] if one is None else [one]
    return min(found, key=lambda one: one.steps, default=None)


def _starts(space: Space, log_lr: float) -> FloatArray:
    """Return points around the best constant rate, and above it up to the cap."""
    top = min(space.log_top, float(np.log(2)) - space.log_rate)
    num = int((top - log_lr) / np.log(2)) + 3
    log_peaks = np.minimum(top, log_lr + np.log(2) * np.arange(-2, num))
    rests = [np.array([v]) for v in _PARAMETERS]
    return np.array(
        [
            space.point(float(np.exp(log_peak)), rest)
            for log_peak in log_peaks
            for rest in (rests if space.shape.is_tuned else [np.empty(0)])
        ]
    )


def _shortest(runs: Runs, start: FloatArray, first: int) -> _Best | None:
    """Return the shortest runs, tuned from a start to each length."""
    known: dict[int, _Best] = {first: _Best(first, start, np.nan)}

    def look(steps: int) -> Probe:
        near = min(known, key=lambda other: abs(np.log(other / steps)))
        point, height = lowest(runs, known[near].point, steps)
        known[steps] = _Best(steps, point, height)
        return Probe(height)

    steps = fewest_steps(look, first)
    return None if steps is None else known[steps]


def _schedule(
    problem: NoisyQuadratic,
    space: Space,
    size: float,
    goal: float,
    best: _Best | None,
) -> ShapedSchedule:
    if best is None:
        return ShapedSchedule(shape=space.shape, batch_size=size, steps=None)
    return ShapedSchedule(
        shape=space.shape_at(best.point),
        batch_size=size,
        steps=best.steps,
        optimizer=space.optimizer(best.point),
        loss=problem.irreducible_loss + goal * float(np.exp(best.height)),
    )
