r"""Schedules: a learning rate and a batch size that change along the way, exactly.

A stretch of constant settings is passed in one go, by repeated squaring; settings that
change at every step are stepped through. The momentum buffer holds gradients, as torch
holds it, so that a change of the learning rate acts at once on all that is in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.dynamics import check_steps, loss_after
from rightbatch.quadratic.optimizers import Optimizer
from rightbatch.quadratic.problem import NoisyQuadratic, refuse_label_noise
from rightbatch.quadratic.recursions.closed_forms import sgd_moments
from rightbatch.quadratic.recursions.doubling import IntArray, Moments, unit_row
from rightbatch.quadratic.recursions.powers import Backend, carry, num_averaged, walker
from rightbatch.quadratic.recursions.stepping import Course, first_moments, memory_of
from rightbatch.quadratic.recursions.transition import (
    Settings,
    begin_of,
    coefficients,
    layout_of,
    settings_of,
)
from rightbatch.quadratic.spectrum import FloatArray

_CHUNK = 4096  # steps kept at once; 84 directions of them are 3 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of steps at one learning rate and one batch size.

    Args:
        steps: How many, whole; 0 is a piece that is not there.
        lr: Learning rate, 0 or more; past the stability edge the loss grows.
        batch_size: Examples per step, positive, not necessarily whole.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> Piece(steps=100, lr=0.5, batch_size=64)
        Piece(steps=100, lr=0.5, batch_size=64)
    """

    steps: int
    lr: float
    batch_size: float

    def __post_init__(self) -> None:
        _checks.nonnegative("Piece", "steps", self.steps)
        if self.steps != int(self.steps):
            raise InputError(f"Piece: `steps` must be whole, got {self.steps!r}.")
        _checks.nonnegative("Piece", "lr", self.lr)
        _checks.positive("Piece", "batch_size", self.batch_size)


def loss_after_pieces(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    pieces: Sequence[Piece],
    *,
    backend: Backend = "auto",
) -> float:
    """Return the expected loss after all pieces, each passed by repeated squaring.

    Args:
        problem: What is minimised; without label noise.
        optimizer: Its momentum, ema_decay and tail_fraction; the learning rates are
            the pieces'. An average runs over all pieces.
        pieces: One after another.
        backend: numpy, numba, or whichever is there; both give the same.

    Returns:
        The loss, the irreducible one included; infinite past what a float holds.

    Raises:
        InputError: The problem has label noise.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> sgd = Optimizer(name="sgd", lr=1.0)
        >>> fast = Piece(steps=500, lr=1.0, batch_size=64)
        >>> slow = Piece(steps=500, lr=0.1, batch_size=64)
        >>> round(loss_after_pieces(problem, sgd, [fast, slow]), 4)
        0.0028
        >>> round(loss_after_pieces(problem, sgd, [fast, fast]), 4)
        0.0257
    """
    refuse_label_noise("loss_after_pieces", problem)
    total = np.array([sum(piece.steps for piece in pieces)], dtype=np.int64)
    return float(_squared(problem, optimizer, pieces, total, backend)[0])


def loss_curve(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    pieces: Sequence[Piece] | float,
    at: ArrayLike,
    *,
    backend: Backend = "auto",
) -> FloatArray:
    """Return the expected loss at numbers of steps along a schedule.

    Args:
        problem: What is minimised; without label noise.
        optimizer: As for :func:`loss_after_pieces`.
        pieces: One after another, or a batch size for the optimizer's own learning
            rate all along.
        at: Numbers of steps from the start, 0 for the start itself, none past the last
            piece. Any shape and order.
        backend: numpy, numba, or whichever is there; both give the same.

    Returns:
        Losses, of the shape of `at`; an average is of the steps until then.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> sgd = Optimizer(name="sgd", lr=1.0)
        >>> fast = Piece(steps=500, lr=1.0, batch_size=64)
        >>> slow = Piece(steps=500, lr=0.1, batch_size=64)
        >>> loss_curve(problem, sgd, [fast, slow], [0, 500, 1000]).round(4).tolist()
        [2.5937, 0.0257, 0.0028]
    """
    if not isinstance(pieces, Sequence):
        return loss_after(problem, optimizer, pieces, at, backend=backend)
    refuse_label_noise("loss_curve", problem)
    counts = check_steps("loss_curve", at)
    total = sum(piece.steps for piece in pieces)
    if counts.size and counts.max() > total:
        raise InputError(
            f"loss_curve: `at` must not be past the {total} steps of the pieces, got "
            f"{counts.max()}."
        )
    flat = counts.ravel()
    return _squared(problem, optimizer, pieces, flat, backend).reshape(counts.shape)


def loss_after_schedule(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    lrs: ArrayLike,
    batch_sizes: ArrayLike,
    *,
    backend: Backend = "auto",
) -> FloatArray:
    """Return the expected loss at the end of schedules that change at every step.

    Args:
        problem: What is minimised; without label noise.
        optimizer: Its momentum, ema_decay and tail_fraction.
        lrs: Learning rate of each step, 0 or more. Shape (T,), or (m, T) for m
            schedules at once.
        batch_sizes: Examples per step: one for all, shape (T,), or (m, T).
        backend: numpy, numba, or whichever is there; both give the same.

    Returns:
        The losses: shape () for one schedule, (m,) for m.

    Raises:
        InputError: A value is out of range or shapes do not fit.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> sgd = Optimizer(name="sgd", lr=1.0)
        >>> decayed = np.linspace(1.0, 0.0, 1000)
        >>> float(loss_after_schedule(problem, sgd, decayed, 64).round(4))
        0.002
    """
    who = "loss_after_schedule"
    refuse_label_noise(who, problem)
    shape, course = _course(who, problem, lrs, batch_sizes)
    moments = _final_moments(problem, optimizer, course, backend)
    return _losses(problem, moments).reshape(shape)


def loss_every_step(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    lrs: ArrayLike,
    batch_sizes: ArrayLike,
    *,
    backend: Backend = "auto",
) -> FloatArray:
    """Return the expected loss before the first step and after every one.

    Args:
        problem: What is minimised; without label noise.
        optimizer: Its momentum, ema_decay and tail_fraction.
        lrs: Learning rate of each step, 0 or more. Shape (T,).
        batch_sizes: Examples per step: one for all or shape (T,).
        backend: numpy, numba, or whichever is there; both give the same.

    Returns:
        The losses, shape (T + 1,). For a tail average each takes a pass of its own.

    Raises:
        InputError: A value is out of range or shapes do not fit.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> sgd = Optimizer(name="sgd", lr=1.0)
        >>> loss_every_step(problem, sgd, [1.0, 0.5, 0.0], 64).round(4).tolist()
        [2.5937, 1.5725, 1.421, 1.421]
    """
    who = "loss_every_step"
    refuse_label_noise(who, problem)
    shape, course = _course(who, problem, lrs, batch_sizes)
    if shape:
        raise InputError(
            f"{who}: `lrs` must be one schedule, got {shape[0]}.",
            "ask for one at a time",
        )
    num_steps = course.lrs.shape[1]
    losses = np.full(num_steps + 1, problem.initial_loss)
    if optimizer.name == "tail-average":
        for k in range(1, num_steps + 1):
            moments = _final_moments(problem, optimizer, course.cut(0, k), backend)
            losses[k] = _losses(problem, moments)[0]
        return losses
    for steps, moments in _moments_every_step(
        optimizer, course, problem.start, backend
    ):
        losses[steps] = _losses(problem, moments)
    return losses


# By repeated squaring ----------------------------------------------------------------


def _squared(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    pieces: Sequence[Piece],
    at: IntArray,
    backend: Backend,
) -> FloatArray:
    """Return the losses after `at` steps, shape (m,)."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        mean, noise = _backwards(problem, optimizer, pieces, at, backend)
        moments = mean**2 * problem.start + noise * problem.step_noise
    return np.where(at == 0, problem.initial_loss, _losses(problem, moments))


def _backwards(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    pieces: Sequence[Piece],
    at: IntArray,
    backend: Backend,
) -> Moments:
    """Return the moments after `at` steps, each (m, n); the noise over batch sizes."""
    layout, begin = layout_of(optimizer.name), begin_of(optimizer.name)
    apart = _read_apart(optimizer, at)
    # The row that reads the loss is moved from the last step to the first.
    ends = np.cumsum([piece.steps for piece in pieces])
    backwards = list(zip(pieces, ends, strict=True))[::-1]
    row = np.repeat(unit_row(layout, problem.rates.size)[:, None], at.size, axis=1)
    noise = np.zeros_like(row[0])
    for piece, end in backwards if any(layout) else ():
        first = np.maximum(end - piece.steps, at - apart)
        steps = np.maximum(np.minimum(at, end) - first, 0)
        settings = _settings(optimizer, piece.lr, at.size)
        co = coefficients(optimizer.name, settings)
        row, more = carry(layout, co, problem.rates, row, steps, backend=backend)
        noise += more / piece.batch_size
    mean = row[0] + begin * row[-1] if begin else row[0]
    if optimizer.averages:
        count = np.maximum(apart, 1)[:, None].astype(float)
        mean, noise = mean / count, noise / count**2
    for piece, end in backwards if (at > apart).any() else ():
        before = np.minimum(at - apart, end) - (end - piece.steps)
        lr = np.full(at.size, float(piece.lr))
        ahead = sgd_moments(lr, problem.rates, np.maximum(before, 0))
        noise = noise + mean**2 * ahead.variance / piece.batch_size
        mean = mean * ahead.mean
    return Moments(mean, noise)


def _read_apart(optimizer: Optimizer, at: IntArray) -> IntArray:
    """Return how many of the last steps are more than SGD, shape (m,)."""
    if optimizer.name == "sgd":
        return np.zeros_like(at)
    if optimizer.averages:
        share = 1.0 if optimizer.name == "average" else optimizer.tail_fraction
        return np.where(at > 0, num_averaged(share, at), 0)
    return at


def _settings(optimizer: Optimizer, lr: float, num_runs: int) -> Settings:
    one = settings_of(optimizer)
    same = (np.repeat(part, num_runs) for part in (one.inertia_gap, one.ema_gap))
    return Settings(np.full(num_runs, float(lr)), *same)


# Step by step ------------------------------------------------------------------------


def _course(
    who: str, problem: NoisyQuadratic, lrs: ArrayLike, batch_sizes: ArrayLike
) -> tuple[tuple[int, ...], Course]:
    """Return the shape of the answer, () or (m,), and m schedules.

    Raises:
        InputError: A value is out of range or shapes do not fit.
    """
    rates = _schedule(who, "lrs", lrs)
    if rates.ndim not in (1, 2):
        raise InputError(
            f"{who}: `lrs` must be of shape (T,) or (m, T), got {rates.shape}."
        )
    if not np.all((rates >= 0) & np.isfinite(rates)):
        raise InputError(f"{who}: `lrs` must not be negative, got {lrs!r}.")
    sizes = _schedule(who, "batch_sizes", batch_sizes)
    if not np.all((sizes > 0) & np.isfinite(sizes)):
        raise InputError(f"{who}: `batch_sizes` must be positive, got {batch_sizes!r}.")
    try:
        sizes = np.broadcast_to(sizes, rates.shape)
    except ValueError:
        raise InputError(
            f"{who}: `batch_sizes` must be one value or as many as `lrs`, got shapes "
            f"{sizes.shape} and {rates.shape}."
        ) from None
    lrs, inverses = np.atleast_2d(rates), 1 / np.atleast_2d(sizes)
    return rates.shape[:-1], Course(lrs, inverses, problem.rates, problem.step_noise)


def _schedule(who: str, name: str, values: ArrayLike) -> FloatArray:
    """Return an array of numbers.

    Raises:
        InputError: It is not.
    """
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{who}: `{name}` must be numbers, got {values!r}.") from None


def _final_moments(
    problem: NoisyQuadratic, optimizer: Optimizer, course: Course, backend: Backend
) -> FloatArray:
    """Return the second moments of what the loss is read at, shape (m, n)."""
    take_steps = walker(backend)
    memory, layout = memory_of(optimizer), layout_of(optimizer.name)
    num_runs, num_steps = course.lrs.shape
    state = first_moments(optimizer, problem.start, num_runs)
    trace = np.empty((num_runs, 0, problem.rates.size))
    if num_steps == 0:
        return state[0]
    apart = int(_read_apart(optimizer, np.array([num_steps]))[0])
    if optimizer.averages:
        # SGD alone until the average begins; nothing is in it yet.
        before = course.cut(0, num_steps - apart)
        take_steps((False, False), memory, before, state[:1], trace)
        course = course.cut(num_steps - apart, num_steps)
    take_steps(layout, memory, course, state, trace)
    read = state[-1] if layout[1] else state[0]
    return read / float(apart) ** 2 if optimizer.averages else read


def _moments_every_step(
    optimizer: Optimizer, course: Course, start: FloatArray, backend: Backend
) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
    """Yield numbers of steps and second moments after them, a chunk at a time."""
    take_steps = walker(backend)
    state = first_moments(optimizer, start, 1)
    for first in range(0, course.lrs.shape[1], _CHUNK):
        part = course.cut(first, first + _CHUNK)
        trace = np.empty((1, part.lrs.shape[1], start.size))
        layout = layout_of(optimizer.name)
        take_steps(layout, memory_of(optimizer), part, state, trace)
        steps = first + 1 + np.arange(part.lrs.shape[1])
        count = steps[:, None].astype(float) if optimizer.averages else 1.0
        yield steps, trace[0] / count**2


def _losses(problem: NoisyQuadratic, moments: FloatArray) -> FloatArray:
    """Return the losses at second moments of shape (m, n); infinite if unstable."""
    with np.errstate(over="ignore", invalid="ignore"):
        losses = problem.irreducible_loss + moments @ problem.loss_weights
    return np.where(np.isnan(losses), np.inf, losses)
