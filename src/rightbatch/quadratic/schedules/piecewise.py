"""The best learning rates of a run cut into equal pieces, and how short it can be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.dynamics import LossParts, loss_ladder
from rightbatch.quadratic.optimizers import OPTIMIZERS, Optimizer, OptimizerName
from rightbatch.quadratic.pieces import Piece
from rightbatch.quadratic.problem import (
    NoisyQuadratic,
    check_target,
    refuse_label_noise,
)
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.recursions.transition import Settings
from rightbatch.quadratic.schedules.adjoint import schedule_kernels
from rightbatch.quadratic.schedules.fewest import Probe, fewest_steps
from rightbatch.quadratic.schedules.piece_tuning import AnyTuner, SgdTuner, Tuner
from rightbatch.quadratic.spectrum import FloatArray

NUM_LEVELS = 36
_MOST_POLISH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecewiseSchedule:
    """The shortest run in equal pieces that reaches a target.

    Args:
        batch_size: Examples per step.
        steps: Its length, the loss being read at the end; None where no schedule
            reaches the target.
        lrs: Learning rate of each piece, none where there is no schedule.
        optimizer: Its settings, the learning rate being the largest; or None.
        loss: Expected loss at the end, the irreducible one included; or None.
    """

    batch_size: float
    steps: int | None
    lrs: tuple[float, ...] = ()
    optimizer: Optimizer | None = None
    loss: float | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Steps of each piece."""
        if self.steps is None:
            return ()
        return tuple(int(n) for n in piece_lengths(self.steps, len(self.lrs)))

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The schedule, without pieces that are shorter than a step."""
        return tuple(
            Piece(steps=steps, lr=lr, batch_size=self.batch_size)
            for steps, lr in zip(self.lengths, self.lrs, strict=True)
            if steps
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the cell for a program; steps and loss None where unreachable."""
        settings = {} if self.optimizer is None else self.optimizer.to_dict()
        return {
            "batch_size": self.batch_size,
            "steps": self.steps,
            "lrs": list(self.lrs),
            "lengths": list(self.lengths),
            "loss": self.loss,
            **settings,
        }


def piece_lengths(num_steps: int, num_pieces: int) -> FloatArray:
    """Return the steps of each piece: piece k ends at floor(k T / n).

    Where n does not divide T some pieces are one step longer than others, spread over
    the run; the pieces of a multiple of n end there too.

    Args:
        num_steps: T.
        num_pieces: n.

    Returns:
        Whole numbers that add up to T, as floats. Shape (num_pieces,).

    Example:
        >>> piece_lengths(10, 4).tolist()
        [2.0, 3.0, 2.0, 3.0]
    """
    ends = np.arange(num_pieces + 1, dtype=np.int64) * num_steps // num_pieces
    return np.diff(ends).astype(float)


def search_pieces(
    problem: NoisyQuadratic,
    name: OptimizerName,
    batch_sizes: Sequence[float] | FloatArray,
    target: float,
    num_pieces: int = 10,
    *,
    max_lr: float | None = None,
    backend: Backend = "auto",
) -> tuple[PiecewiseSchedule, ...]:
    """Return the shortest runs in equal pieces, the learning rate of each tuned.

    For a length T the logarithm of the last loss is lowered in the logarithms of the
    learning rates, and the smallest T is kept: for SGD by Newton's method with exact
    derivatives (``adjoint``), for others by L-BFGS-B together with momentum and EMA
    decay, which do not change along the run (``piece_gradient``). A search starts from
    the best constant rate and from the solution of every number of pieces that divides
    its own, so that cutting pieces up never makes a run longer; others than SGD from
    SGD's too.

    Args:
        problem: What is minimised; without label noise.
        name: The optimizer; not a tail average.
        batch_sizes: Examples per step. Shape (b,).
        target: Expected loss to reach at the last step.
        num_pieces: How many pieces; they end at floor(k T / n).
        max_lr: No learning rate is above this. The edge of stability by default,
            itself included (2 / max(p h) for SGD). A cap just below the edge, as in the
            published code, makes schedules look useless at large batch sizes; infinity
            leaves it to the search to step over the edge for a while.
        backend: numpy, numba, or whichever is there.

    Returns:
        One schedule per batch size, in the order given; unreachable where even a
        constant rate needs more than 2^36 steps.

    Raises:
        InputError: A value is out of range or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> one = search_pieces(problem, "sgd", [16], 0.01, 1)[0]
        >>> ten = search_pieces(problem, "sgd", [16], 0.01, 10)[0]
        >>> one.steps, ten.steps
        (2037, 483)
    """
    who = "search_pieces"
    _checks.one_of(who, "name", name, OPTIMIZERS)
    if name == "tail-average":
        raise InputError(f"{who}: `name` cannot be tail-average.", "try average")
    refuse_label_noise(who, problem)
    sizes = _checks.positive_array(who, "batch_sizes", batch_sizes)
    check_target(who, problem, target)
    num = _checks.positive_integer(who, "num_pieces", num_pieces)
    log_top = log_cap(who, problem, max_lr)
    kernels = schedule_kernels(backend)
    goal = target - problem.irreducible_loss
    edge = log_cap(who, problem, None)
    constants = best_constants(problem, sizes, goal, min(edge, log_top))
    found: list[PiecewiseSchedule] = []
    for size, start in zip(sizes.tolist(), constants, strict=True):
        tuner: Tuner = SgdTuner(problem, size, goal, min(edge, log_top), kernels)
        first = start and (start[0], np.array([start[1]]))
        run = _Search(tuner, first)
        if log_top > edge:
            tuner = SgdTuner(problem, size, goal, log_top, kernels)
            run = _Search(tuner, first, run)
        if name != "sgd":
            own_top = None if max_lr is None else log_top
            tuner = AnyTuner(problem, name, size, goal, own_top, backend)
            run = _Search(tuner, tuner.constant(target), run)
        found.append(_schedule(size, num, tuner, run.shortest(num)))
    return tuple(found)


def log_cap(who: str, problem: NoisyQuadratic, max_lr: float | None) -> float:
    """Return the logarithm of the largest learning rate allowed: the edge by default.

    Raises:
        InputError: `max_lr` is not positive.
    """
    if max_lr is None:
        return float(np.log(2 / problem.rates.max()))
    if max_lr == np.inf:
        return np.inf
    return float(np.log(_checks.positive(who, "max_lr", max_lr)))


def best_constants(
    problem: NoisyQuadratic, batch_sizes: FloatArray, goal: float, log_top: float
) -> list[tuple[int, float] | None]:
    """Return about the best constant rate per batch size, as (steps, log lr).

    Rates lie a factor of two apart and steps are powers of two; None where no rate
    reaches the goal at any of them.
    """
    edge = float(np.log(2 / problem.rates.max()))
    noise = problem.weights @ (problem.preconditioner * problem.noise_variances)
    # At this lr the steady state, lr sum(w p c) / 4B, is a quarter of the goal.
    calm = goal * batch_sizes.min() / max(float(noise), 1e-300)
    top = min(edge, log_top)
    num = max(1, int(np.ceil((top - np.log(calm)) / np.log(2)))) + 2
    log_lrs = top - np.log(2) * np.arange(num)
    ones = np.ones(num)
    settings = Settings(np.exp(log_lrs), ones, ones)
    parts = loss_ladder(problem, "sgd", settings, NUM_LEVELS)
    return [_first_rung(parts, log_lrs, size, goal) for size in batch_sizes]


def _first_rung(
    parts: LossParts, log_lrs: FloatArray, size: float, goal: float
) -> tuple[int, float] | None:
    losses = parts.at(size)
    reached = (losses <= goal).any(axis=1)
    if not reached.any():
        return None
    level = int(reached.argmax())
    return 2**level, float(log_lrs[int(losses[level].argmin())])


@dataclass(frozen=True, slots=True)
class _Best:
    steps: int
    point: FloatArray


class _Search:
    """The search for one cell; what it has found for fewer pieces is kept.

    Args:
        tuner: Of one optimizer.
        constant: Steps and point of a constant rate to start from, if there is one.
        simpler: The search of a simpler optimizer, whose answers are starts as well.
    """

    def __init__(
        self,
        tuner: Tuner,
        constant: tuple[int, FloatArray] | None,
        simpler: "_Search | None" = None,
    ) -> None:
        self.tuner = tuner
        self.constant = constant
        self.simpler = simpler
        self._found: dict[int, _Best | None] = {}

    def shortest(self, num: int) -> _Best | None:
        """Return the shortest run in `num` pieces."""
        if num not in self._found:
            best = self._search(num, self._starts(num))
            self._found[num] = best and self._polished(num, best)
        return self._found[num]

    def _starts(self, num: int) -> list[_Best]:
        starts: list[_Best] = []
        if num == 1 and self.constant is not None:
            starts.append(_Best(*self.constant))
        for prime in _primes(num):
            coarser = self.shortest(num // prime)
            if coarser is not None:
                head, rest = np.split(coarser.point, [num // prime])
                point = np.concatenate([np.repeat(head, prime), rest])
                starts.append(_Best(coarser.steps, point))
        simple = None if self.simpler is None else self.simpler.shortest(num)
        if simple is not None:
            starts.append(_Best(simple.steps, self.tuner.adopt(simple.point)))
        return sorted(starts, key=lambda start: start.steps)

    def _search(self, num: int, starts: list[_Best]) -> _Best | None:
        best: _Best | None = None
        # SGD has one optimum, wherever it is sought from.
        for start in starts if self.simpler is not None else starts[:1]:
            first = start.steps if best is None else min(start.steps, best.steps)
            found = self._descend(num, _Best(first, start.point))
            if found is not None and (best is None or found.steps < best.steps):
                best = found
        return best

    def _polished(self, num: int, best: _Best) -> _Best:
        """Return the shortest run, one step less also looked for from elsewhere."""
        for _ in range(_MOST_POLISH):
            if best.steps == 1:
                break
            fewer = best.steps - 1
            counts = piece_lengths(fewer, num)
            looks = (
                self.tuner.lowest(start, counts, patient=True)
                for start in self.tuner.others(best.point, counts)
            )
            point = next((at for at, probe in looks if probe.height <= 0), None)
            if point is None:
                break
            best = self._descend(num, _Best(fewer, point)) or best
        return best

    def _descend(self, num: int, start: _Best) -> _Best | None:
        known = {start.steps: start.point}

        def look(steps: int) -> Probe:
            near = min(known, key=lambda other: abs(np.log(other / steps)))
            counts = piece_lengths(steps, num)
            known[steps], probe = self.tuner.lowest(known[near], counts)
            return probe

        steps = fewest_steps(look, start.steps)
        return None if steps is None else _Best(steps, known[steps])


def _primes(number: int) -> list[int]:
    found, divisor = [], 2
    while number > 1:
        if number % divisor == 0:
            found.append(divisor)
            while number % divisor == 0:
                number //= divisor
        divisor += 1
    return found


def _schedule(
    size: float, num: int, tuner: Tuner, best: _Best | None
) -> PiecewiseSchedule:
    if best is None:
        return PiecewiseSchedule(batch_size=size, steps=None)
    lrs, optimizer, loss = tuner.finish(best.point, piece_lengths(best.steps, num))
    return PiecewiseSchedule(
        batch_size=size, steps=best.steps, lrs=lrs, optimizer=optimizer, loss=loss
    )
