"""The first step at or below a target, and the step from which on all are.

The loss of momentum and of averages goes up and down on its way, so that bisection
misses passages. The first thousands of steps are taken one by one; further out, bounds
rule out what they can, and every step that they cannot is looked at.
"""

from dataclasses import replace

import numpy as np

from rightbatch import _checks
from rightbatch.quadratic.envelopes import Envelope
from rightbatch.quadratic.optimizers import Optimizer
from rightbatch.quadratic.problem import (
    NoisyQuadratic,
    check_target,
    refuse_label_noise,
)
from rightbatch.quadratic.recursions.doubling import IntArray
from rightbatch.quadratic.recursions.powers import Backend, walker
from rightbatch.quadratic.recursions.stepping import Course, first_moments, memory_of
from rightbatch.quadratic.recursions.transition import layout_of
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.steady_state import steady_state_moments

_NEAR = 8192  # steps taken one by one
_CHUNK = 1024  # of them at once
_PARTS = 64  # of a stretch; also how short a stretch is looked at step by step
_STRETCHES = 400  # looked at before walking is faster
_SURE = 1e-9  # more than the rounding of a loss or of a bound


def first_passage(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: float,
    target: float,
    *,
    max_steps: int = 10**9,
    backend: Backend = "auto",
) -> int | None:
    """Return the first number of steps after which the loss is at or below a target.

    Args:
        problem: What is minimised; without label noise.
        optimizer: With its settings.
        batch_size: Examples per step.
        target: A loss between the irreducible one and that at the start.
        max_steps: Where to stop looking.
        backend: numpy, numba, or whichever is there; both give the same.

    Returns:
        The steps, at least 1; None where the loss never gets there, or not within
        `max_steps`.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> momentum = Optimizer(name="momentum", lr=0.5, momentum=0.9)
        >>> first_passage(problem, momentum, 1024, 0.01)
        57
        >>> first_passage(problem, momentum, 1024, 0.001) is None
        True
    """
    who = "first_passage"
    problem, target = _from_floor(who, problem, target)
    envelope = _envelope(who, problem, optimizer, batch_size, backend)
    last = _checks.positive_integer(who, "max_steps", max_steps)
    by_step = _Walk(envelope)
    found = by_step.first_below(target, min(last, _NEAR))
    if found is not None or last <= _NEAR:
        return found
    try:
        return _first_by_bounds(envelope, target, last)
    except _Undecided:
        return by_step.first_below(target, last)


def settling(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: float,
    target: float,
    *,
    max_steps: int = 10**9,
    backend: Backend = "auto",
) -> int | None:
    """Return the first number of steps from which on the loss stays at or below it.

    Args:
        problem: What is minimised; without label noise.
        optimizer: With its settings.
        batch_size: Examples per step.
        target: A loss between the irreducible one and that at the start.
        max_steps: By when it must be certain.
        backend: numpy, numba, or whichever is there; both give the same.

    Returns:
        The steps, at least :func:`first_passage`; None where the loss ends above the
        target or at it, or where `max_steps` are too few to be certain.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> momentum = Optimizer(name="momentum", lr=0.5, momentum=0.9)
        >>> settling(problem, momentum, 1024, 0.01)
        60
    """
    who = "settling"
    problem, target = _from_floor(who, problem, target)
    envelope = _envelope(who, problem, optimizer, batch_size, backend)
    last = _checks.positive_integer(who, "max_steps", max_steps)
    settled = steady_state_moments(problem, optimizer, batch_size)
    if not problem.loss(settled) < target:
        return None
    horizon = _horizon(envelope, target, settled, last)
    if horizon is None:
        return None
    try:
        return 1 + _last_by_bounds(envelope, target, horizon)
    except _Undecided:
        return 1 + _Walk(envelope).last_above(target, 0, horizon)


# Step by step ------------------------------------------------------------------------


def _from_floor(
    who: str, problem: NoisyQuadratic, target: float
) -> tuple[NoisyQuadratic, float]:
    """Return problem and target counted from the irreducible loss.

    What is within rounding of the target is a share of that, not of the loss.
    """
    check_target(who, problem, target)
    floor = problem.irreducible_loss
    return replace(problem, irreducible_loss=0.0), target - floor


def _envelope(
    who: str,
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: float,
    backend: Backend,
) -> Envelope:
    """Return the bounds.

    Raises:
        InputError: The batch size is not positive or the problem has label noise.
    """
    refuse_label_noise(who, problem)
    _checks.positive(who, "batch_size", batch_size)
    return Envelope(
        problem=problem, optimizer=optimizer, batch_size=batch_size, backend=backend
    )


class _Walk:
    """A walk step by step, as far as anyone has asked; then it goes on from there."""

    def __init__(self, envelope: Envelope) -> None:
        problem, optimizer = envelope.problem, envelope.optimizer
        self.envelope = envelope
        self.steps = 0
        self.state = first_moments(optimizer, problem.start, 1)
        lrs = np.full((1, _CHUNK), optimizer.lr)
        inverses = np.full((1, _CHUNK), 1 / envelope.batch_size)
        self.course = Course(lrs, inverses, problem.rates, problem.step_noise)

    def first_below(self, target: float, last: int) -> int | None:
        """Return the first step ahead, up to `last`, at or below the target."""
        while self.steps < last:
            start = self.steps
            losses = self._losses(last)
            # Stepping rounds otherwise than doubling, which is what everyone else asks.
            for place in np.flatnonzero(losses <= target * (1 + _SURE)):
                step = start + 1 + int(place)
                if losses[place] <= target * (1 - _SURE) or self._exact(step) <= target:
                    return step
            if _never_again(self.envelope, target, self.steps):
                return None
        return None

    def last_above(self, target: float, found: int, last: int) -> int:
        """Return the last step ahead, up to `last`, above the target, else `found`."""
        while self.steps < last:
            start = self.steps
            losses = self._losses(last)
            for place in np.flatnonzero(losses > target * (1 - _SURE))[::-1]:
                step = start + 1 + int(place)
                if losses[place] > target * (1 + _SURE) or self._exact(step) > target:
                    found = step
                    break
        return found

    def _losses(self, last: int) -> FloatArray:
        """Return the losses after each of some more steps."""
        problem, optimizer = self.envelope.problem, self.envelope.optimizer
        num = min(_CHUNK, last - self.steps)
        steps = self.steps + 1 + np.arange(num)
        self.steps += num
        if optimizer.name == "tail-average":  # has no recursion
            return self.envelope.losses(self.envelope.points(steps))
        trace = np.empty((1, num, problem.rates.size))
        part = self.course.cut(0, num)
        memory, layout = memory_of(optimizer), layout_of(optimizer.name)
        walker(self.envelope.backend)(layout, memory, part, self.state, trace)
        count = steps[:, None].astype(float) if optimizer.averages else 1.0
        with np.errstate(over="ignore", invalid="ignore"):
            losses = trace[0] / count**2 @ problem.loss_weights
        return problem.irreducible_loss + np.where(np.isnan(losses), np.inf, losses)

    def _exact(self, step: int) -> float:
        at = self.envelope.points(np.array([step]))
        return float(self.envelope.losses(at)[0])


# Further out -------------------------------------------------------------------------


def _split(low: int, high: int) -> IntArray:
    parts = np.linspace(low, high, min(_PARTS, high - low) + 1)
    return np.unique(np.round(parts).astype(np.int64))


class _Undecided(Exception):
    """Bounds leave so much open that walking is faster."""


class _Budget:
    """How many stretches may still be looked at."""

    def __init__(self) -> None:
        self.left = _STRETCHES

    def spend(self) -> None:
        """Take one away.

        Raises:
            _Undecided: There is none left.
        """
        self.left -= 1
        if self.left < 0:
            raise _Undecided


def _first_by_bounds(envelope: Envelope, target: float, last: int) -> int | None:
    budget = _Budget()
    low = _NEAR
    while low < last:
        high = min(last, 8 * low)
        found = _first_in(envelope, target, (low, high), budget)
        if found is not None:
            return found
        if _never_again(envelope, target, high):
            return None
        low = high
    return None


def _last_by_bounds(envelope: Envelope, target: float, horizon: int) -> int:
    budget = _Budget()
    high = horizon
    while high > _NEAR:
        low = max(_NEAR, high // 8)
        found = _last_in(envelope, target, (low, high), budget)
        if found is not None:
            return found
        high = low
    return _Walk(envelope).last_above(target, 0, high)


def _first_in(
    envelope: Envelope, target: float, within: tuple[int, int], budget: _Budget
) -> int | None:
    """Return the first step after `low`, up to `high`, at or below the target."""
    stretches = [within]
    while stretches:
        budget.spend()
        low, high = stretches.pop()
        at = envelope.points(_split(low, high))
        reached = envelope.losses(at)[1:] <= target
        if high - low <= _PARTS:
            if reached.any():
                return int(at.steps[1 + np.argmax(reached)])
            continue
        possible = envelope.lowest(at) <= target * (1 + _SURE)
        if reached.any():
            first = int(np.argmax(reached))
            possible[first], possible[first + 1 :] = True, False
        for place in np.flatnonzero(possible)[::-1]:
            stretches.append((int(at.steps[place]), int(at.steps[place + 1])))
    return None


def _last_in(
    envelope: Envelope, target: float, within: tuple[int, int], budget: _Budget
) -> int | None:
    """Return the last step from `low` to `high` above the target."""
    stretches = [within]
    while stretches:
        budget.spend()
        low, high = stretches.pop()
        at = envelope.points(_split(low, high))
        above = np.flatnonzero(envelope.losses(at) > target)
        if high - low <= _PARTS:
            if above.size:
                return int(at.steps[above[-1]])
            continue
        possible = envelope.highest(at) > target * (1 - _SURE)
        if above.size:
            last = min(int(above[-1]), possible.size - 1)
            possible[:last], possible[last] = False, True
        for place in np.flatnonzero(possible):
            stretches.append((int(at.steps[place]), int(at.steps[place + 1])))
    return None


def _never_again(envelope: Envelope, target: float, low: int) -> bool:
    """Return whether the noise left at `low` steps already keeps the loss above."""
    if envelope.optimizer.averages:
        return False
    noise = envelope.points(np.array([low]))
    floor = envelope.losses(noise._replace(squares=np.zeros_like(noise.squares)))
    return bool(floor[0] > target * (1 + _SURE))


def _horizon(
    envelope: Envelope, target: float, settled: FloatArray, last: int
) -> int | None:
    """Return steps after which the loss is never above the target."""
    ladder = 2 ** np.arange(1, last.bit_length(), dtype=np.int64)
    steps = np.unique(np.minimum(ladder[ladder >= 2], last))
    if steps.size == 0:
        return None
    bounds = envelope.highest_ever(envelope.points(steps), settled)
    sure = np.flatnonzero(bounds <= target)
    return int(steps[sure[0]]) if sure.size else None
