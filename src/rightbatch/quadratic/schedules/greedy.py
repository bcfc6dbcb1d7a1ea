r"""The greedy schedule: each step as good as it can be, and the whole a trap.

The learning rate that makes the loss after one more step least is

.. math:: lr = \frac{\sum_i w_i h_i\, p_i h_i\, m_i}
                    {\sum_i w_i h_i\, p_i^2 (h_i^2 m_i + c_i/B)}

with m the second moments. On an ill-conditioned problem it decays far too soon: the
noise in the steep directions is cheap to remove and the slow ones are never reached.
At power 0 and batch size 64 it needs 16.9 million steps where ten pieces need 17,382.
It is here to be compared with.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rightbatch import _checks
from rightbatch.quadratic.problem import (
    NoisyQuadratic,
    check_target,
    refuse_label_noise,
)
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.schedules.adjoint import directions, schedule_kernels
from rightbatch.quadratic.spectrum import FloatArray

_MOST_STEPS = 10**8


@dataclass(frozen=True, slots=True, kw_only=True)
class GreedyRun:
    """Where the greedy schedule got.

    Args:
        batch_size: Examples per step.
        steps: First step with a loss at or below the target; None where that is later
            than asked for.
        loss: Expected loss where it ended.
        first_lr: Learning rate of the first step.
        last_lr: Of the last.
    """

    batch_size: float
    steps: int | None
    loss: float
    first_lr: float
    last_lr: float

    def to_dict(self) -> dict[str, Any]:
        """Return the run for a program."""
        return {
            "optimizer": "sgd",
            "schedule": "greedy",
            "batch_size": self.batch_size,
            "steps": self.steps,
            "loss": self.loss,
            "first_lr": self.first_lr,
            "last_lr": self.last_lr,
        }


def greedy_lr(
    problem: NoisyQuadratic, batch_size: float, second_moments: FloatArray
) -> float:
    """Return the learning rate that makes the loss after one step of SGD least.

    Args:
        problem: What is minimised; without label noise.
        batch_size: Examples per step.
        second_moments: Now. Shape (n,).

    Returns:
        The learning rate, 0 where there is nothing left to do.

    Raises:
        InputError: A value is out of range or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(2))
        >>> round(greedy_lr(problem, 1, problem.start), 3)
        0.526
    """
    refuse_label_noise("greedy_lr", problem)
    _checks.positive("greedy_lr", "batch_size", batch_size)
    along = directions(problem, batch_size)
    return _best_lr(along.rates, along.noise, along.weights, second_moments)


def run_greedy(
    problem: NoisyQuadratic,
    batch_size: float,
    target: float,
    *,
    max_steps: int = _MOST_STEPS,
    backend: Backend = "auto",
) -> GreedyRun:
    """Return how many steps SGD needs if each is as good as it can be.

    Every step is taken: with numba some seven million a second for 84 directions, in
    numpy fewer than a hundred thousand.

    Args:
        problem: What is minimised; without label noise.
        batch_size: Examples per step.
        target: Expected loss to reach.
        max_steps: Where to stop.
        backend: numpy, numba, or whichever is there.

    Returns:
        The run; `steps` is None where `max_steps` are too few.

    Raises:
        InputError: A value is out of range or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> run_greedy(problem, 16, 0.01).steps
        6615
    """
    who = "run_greedy"
    refuse_label_noise(who, problem)
    _checks.positive(who, "batch_size", batch_size)
    check_target(who, problem, target)
    most = _checks.positive_integer(who, "max_steps", max_steps)
    goal = target - problem.irreducible_loss
    along = directions(problem, batch_size)
    kernels = schedule_kernels(backend)
    run = _run if kernels is None else kernels.run_greedy
    steps, loss, last = run(tuple(along), goal, most)
    return GreedyRun(
        batch_size=batch_size,
        steps=steps if loss <= goal else None,
        loss=problem.irreducible_loss + loss,
        first_lr=greedy_lr(problem, batch_size, problem.start),
        last_lr=last,
    )


def _best_lr(
    rates: FloatArray, noise: FloatArray, weights: FloatArray, moments: FloatArray
) -> float:
    below = float(weights @ (rates * rates * moments + noise))
    return float((weights * rates) @ moments) / below if below > 0 else 0.0


def _run(
    along: tuple[FloatArray, ...], goal: float, most: int
) -> tuple[int, float, float]:
    """Return steps taken, loss and learning rate of the last."""
    rates, start, noise, weights = along
    moments, lr, loss = start, 0.0, np.inf
    for step in range(1, most + 1):
        lr = _best_lr(rates, noise, weights, moments)
        moments = (1 - lr * rates) ** 2 * moments + lr * lr * noise
        loss = float(weights @ moments)
        if loss <= goal:
            return step, loss, lr
    return most, loss, lr
