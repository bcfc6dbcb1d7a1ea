"""Learning rates of pieces tuned to a length of the run, for SGD and for any other."""

from typing import Any, NamedTuple, Protocol

import numpy as np

from rightbatch.quadratic.optimizers import Optimizer, OptimizerName
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.schedules.adjoint import (
    Directions,
    Expansion,
    directions,
    expand,
)
from rightbatch.quadratic.schedules.fewest import Probe
from rightbatch.quadratic.schedules.piece_gradient import PieceGradient
from rightbatch.quadratic.search import search
from rightbatch.quadratic.spectrum import FloatArray

_MOST_NEWTON = 100
_FARTHEST = 1.5  # in log lr, that one Newton step may go
_NOTHING = 1e-300  # a loss that counts as none
_SETTLED = 1e-12  # a fall of log loss not worth another step
_CLEAR = 0.01  # of the distance to the goal
_FLATTEST = 1e-7  # of the steepest bend
_LEAST_GAP = float(np.log(1e-9))
_FEW_STEPS = 1000  # up to which SGD may have several optima
_FAR_BELOW = 5.7  # the edge, in log lr
_MOST_LBFGS = 60
_PATIENCE = 8  # times as many, in a last look

Finished = tuple[tuple[float, ...], Optimizer, float]


class Tuner(Protocol):
    """Tunes n pieces; a point is n log learning rates and what else there is."""

    def lowest(
        self, point: FloatArray, counts: FloatArray, *, patient: bool = False
    ) -> tuple[FloatArray, Probe]:
        """Return the best point near one, for `counts` steps in the pieces.

        Args:
            point: Where to start.
            counts: Whole steps of each piece. Shape (n,).
            patient: Whether to take as long as it needs, where it is slow.
        """
        ...

    def finish(self, point: FloatArray, counts: FloatArray) -> Finished:
        """Return learning rates, optimizer and loss of the best point near one."""
        ...

    def adopt(self, log_lrs: FloatArray) -> FloatArray:
        """Return the point that does what SGD does at some log learning rates."""
        ...

    def others(self, point: FloatArray, counts: FloatArray) -> list[FloatArray]:
        """Return starts for a last look from elsewhere, given the best point."""
        ...


class SgdTuner:
    """Tunes SGD by Newton's method.

    Args:
        problem: What is minimised.
        batch_size: Examples per step.
        goal: The target above the irreducible loss.
        log_top: Of the largest learning rate.
        kernels: Compiled loops, or None for numpy.
    """

    def __init__(
        self,
        problem: NoisyQuadratic,
        batch_size: float,
        goal: float,
        log_top: float,
        kernels: Any,
    ) -> None:
        self.along = directions(problem, batch_size)
        self.base = problem.irreducible_loss
        self.goal = goal
        self.log_top = log_top
        self.kernels = kernels

    def lowest(
        self, point: FloatArray, counts: FloatArray, *, patient: bool = False
    ) -> tuple[FloatArray, Probe]:
        """Return the best log lrs near some, for `counts` steps in the pieces."""
        del patient  # Newton's method goes to the end anyway
        aim = Aim(self.log_top, self.goal)
        point, at = newton_lowest(self.along, point, counts, aim, self.kernels)
        loss = max(at.loss, _NOTHING)
        return point, Probe(float(np.log(loss / self.goal)), at.by_length / loss)

    def finish(self, point: FloatArray, counts: FloatArray) -> Finished:
        """Return learning rates, optimizer and loss of the best point near one."""
        aim = Aim(self.log_top)
        point, at = newton_lowest(self.along, point, counts, aim, self.kernels)
        lrs = tuple(float(lr) for lr in np.exp(point))
        return lrs, Optimizer(name="sgd", lr=max(lrs)), self.base + at.loss

    def adopt(self, log_lrs: FloatArray) -> FloatArray:
        """Return the same."""
        return log_lrs

    def others(self, point: FloatArray, counts: FloatArray) -> list[FloatArray]:
        """Return small rates and the reverse; none for a long run: it has one optimum.

        In few steps noise hardly counts, and without it the order does not matter.
        """
        if counts.sum() > _FEW_STEPS:
            return []
        edge = float(np.log(2 / self.along.rates.max()))
        return [np.full_like(point, edge - _FAR_BELOW), point[::-1].copy()]


class AnyTuner:
    """Tunes any other optimizer by L-BFGS-B, its momentum and EMA decay included.

    Args:
        problem: What is minimised.
        name: The optimizer; not SGD, not a tail average.
        batch_size: Examples per step.
        goal: The target above the irreducible loss.
        log_top: Of the largest learning rate; None for the optimizer's own edge.
        backend: numpy, numba, or whichever is there.
    """

    def __init__(
        self,
        problem: NoisyQuadratic,
        name: OptimizerName,
        batch_size: float,
        goal: float,
        log_top: float | None,
        backend: Backend,
    ) -> None:
        self.problem = problem
        self.name: OptimizerName = name
        self.batch_size = batch_size
        self.goal = goal
        self.backend: Backend = backend
        self.pieces = PieceGradient(problem, name, batch_size, log_top, backend)

    def constant(self, target: float) -> tuple[int, FloatArray] | None:
        """Return steps and point of the best constant settings, one piece."""
        found = search(
            self.problem, self.name, [self.batch_size], target, backend=self.backend
        )[0]
        if found.steps is None or found.optimizer is None:
            return None
        return found.steps, self.pieces.point(found.optimizer)

    def lowest(
        self, point: FloatArray, counts: FloatArray, *, patient: bool = False
    ) -> tuple[FloatArray, Probe]:
        """Return the best point near one, for `counts` steps in the pieces."""
        from scipy import optimize

        num = counts.size
        most = _MOST_LBFGS * (_PATIENCE if patient else 1)
        top = 0.0 if self.pieces.capped else None
        bounds = [(None, top)] * num + [(_LEAST_GAP, 0.0)] * (point.size - num)

        def height(trial: FloatArray) -> tuple[float, FloatArray]:
            loss, gradient = self.pieces.expand(trial, counts)
            if not (np.isfinite(loss) and np.isfinite(gradient).all()):
                return 1e6, np.zeros_like(trial)
            loss = max(loss, _NOTHING)
            return float(np.log(loss / self.goal)), gradient / loss

        found = optimize.minimize(
            height,
            point,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": most, "ftol": 1e-13, "gtol": 1e-9},
        )
        before = height(point)[0]
        if not found.fun < before:
            return point, Probe(before)
        return np.asarray(found.x), Probe(float(found.fun))

    def finish(self, point: FloatArray, counts: FloatArray) -> Finished:
        """Return learning rates, optimizer and loss of a point."""
        loss, _ = self.pieces.expand(point, counts)
        lrs, optimizer = self.pieces.settings(point, counts.size)
        return lrs, optimizer, self.problem.irreducible_loss + loss

    def adopt(self, log_lrs: FloatArray) -> FloatArray:
        """Return the point without momentum and average that has these rates."""
        return self.pieces.adopt(log_lrs)

    def others(self, point: FloatArray, counts: FloatArray) -> list[FloatArray]:
        """Return the same point, for a patient look."""
        del counts
        return [point]


class Aim(NamedTuple):
    """Where a descent ends.

    Args:
        log_top: No log lr is above this.
        goal: A loss; far from it, the descent need not be finished to say on which
            side of it the least loss is. None goes all the way.
    """

    log_top: float
    goal: float | None = None

    def settled(self, loss: float, fall: float) -> bool:
        """Return whether another step, with that fall of log loss, is not worth it."""
        if self.goal is None:
            return not fall > _SETTLED
        return not fall > max(_SETTLED, _CLEAR * abs(np.log(loss / self.goal)))


def newton_lowest(
    along: Directions,
    log_lrs: FloatArray,
    counts: FloatArray,
    aim: Aim,
    kernels: Any = None,
) -> tuple[FloatArray, Expansion]:
    """Return log lrs of the least loss near some, and the loss there.

    Newton's method on the log of the loss, bends taken as positive, each step cut back
    until the loss falls; rates that press against the cap stay there.

    Args:
        along: The directions.
        log_lrs: Where to start. Shape (n,).
        counts: Steps of each piece. Shape (n,).
        aim: The cap, and how far to go.
        kernels: Compiled loops, or None for numpy.

    Returns:
        The log lrs and the loss with its derivatives there; never above where it
        began, if that was finite.
    """
    log_lrs = np.minimum(log_lrs, aim.log_top)
    here = expand(along, log_lrs, counts, kernels)
    if not np.isfinite(here.hessian).all():
        # Too far over the edge for a run as long: back to it, where all is finite.
        log_lrs = np.minimum(log_lrs, np.log(2 / along.rates.max()))
        here = expand(along, log_lrs, counts, kernels)
    for _ in range(_MOST_NEWTON):
        if here.loss < _NOTHING:
            break
        move, fall = _newton(here, log_lrs >= aim.log_top)
        if aim.settled(here.loss, fall):
            break
        length = 1.0
        while length > 1e-6:
            trial = np.minimum(log_lrs + length * move, aim.log_top)
            there = expand(along, trial, counts, kernels)
            if there.loss < here.loss and np.isfinite(there.hessian).all():
                break
            length *= 0.3
        else:
            break
        log_lrs, here = trial, there
    return log_lrs, here


def _newton(here: Expansion, at_top: Any) -> tuple[FloatArray, float]:
    """Return a step down the log of the loss, and about how far down it leads."""
    slope = here.gradient / here.loss
    free = ~(at_top & (slope < 0))
    move = np.zeros_like(slope)
    if not free.any():
        return move, 0.0
    bend = here.hessian / here.loss - np.outer(slope, slope)
    values, vectors = np.linalg.eigh(bend[np.ix_(free, free)])
    steep = np.abs(values)
    along = (vectors.T @ slope[free]) / np.maximum(
        steep, max(_FLATTEST * float(steep.max()), 1e-300)
    )
    move[free] = -vectors @ along
    fall = -float(slope @ move)
    longest = float(np.abs(move).max())
    return move * min(1.0, _FARTHEST / max(longest, 1e-300)), fall
