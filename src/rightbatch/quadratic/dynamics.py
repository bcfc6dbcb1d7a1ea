r"""The expected loss of a noisy quadratic, exact at any step.

Directions do not mix, so with a_k and S_k the mean and the noise of one direction,

.. math:: L_k = L_\infty + \tfrac12 \sum_i w_i h_i
          \left(a_{ik}^2 s_i + \frac{p_i^2 c_i}{B} S_{ik}\right)

the sum over what is left of the start and what the noise has put there, and only the
second part knows the batch size.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.optimizers import Optimizer, OptimizerName
from rightbatch.quadratic.problem import NoisyQuadratic, refuse_label_noise
from rightbatch.quadratic.recursions.doubling import IntArray, Moments
from rightbatch.quadratic.recursions.powers import (
    Backend,
    moments_after,
    moments_ladder,
)
from rightbatch.quadratic.recursions.transition import Settings, settings_of
from rightbatch.quadratic.spectrum import FloatArray


class LossParts(NamedTuple):
    """The loss above the irreducible one, in two parts of any one shape.

    Args:
        bias: What is left of the start.
        variance: What the noise has put there at batch size one.
    """

    bias: FloatArray
    variance: FloatArray

    def at(self, batch_size: ArrayLike) -> FloatArray:
        """Return the sum at a batch size, infinite where it is unstable."""
        total = self.bias + self.variance / np.asarray(batch_size)
        return np.where(np.isnan(total), np.inf, total)


def loss_after(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: float,
    steps: ArrayLike,
    *,
    backend: Backend = "auto",
) -> FloatArray:
    """Return the expected loss after numbers of steps, each by repeated squaring.

    Args:
        problem: What is minimised; without label noise.
        optimizer: With its settings.
        batch_size: Examples per step, positive.
        steps: Numbers of steps, 0 for the start. Any shape.
        backend: numpy, numba, or whichever is there.

    Returns:
        Losses of the shape of `steps`; infinite past what a float holds, where the
        settings are unstable.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> sgd = Optimizer(name="sgd", lr=0.5)
        >>> loss_after(problem, sgd, 64, [0, 10, 1000]).round(4).tolist()
        [2.5937, 0.9089, 0.0111]
    """
    _checks.positive("loss_after", "batch_size", batch_size)
    refuse_label_noise("loss_after", problem)
    counts = check_steps("loss_after", steps)
    flat = counts.ravel()
    one = settings_of(optimizer)
    settings = Settings(*(np.repeat(part, flat.size) for part in one))
    parts = loss_parts(
        problem,
        optimizer.name,
        settings,
        np.maximum(flat, 1),
        tail_fraction=optimizer.tail_fraction,
        backend=backend,
    )
    losses = problem.irreducible_loss + parts.at(batch_size)
    return np.where(flat == 0, problem.initial_loss, losses).reshape(counts.shape)


def loss_parts(
    problem: NoisyQuadratic,
    name: OptimizerName,
    settings: Settings,
    steps: IntArray,
    *,
    tail_fraction: float = 0.5,
    exact: bool = True,
    backend: Backend = "auto",
) -> LossParts:
    """Return both parts of the loss of m runs after given numbers of steps.

    Args:
        problem: What is minimised.
        name: The optimizer.
        settings: Of m runs.
        steps: Of each, at least 1. Shape (m,).
        tail_fraction: What a tail average takes.
        exact: False is faster, and as good where the noise is more than 1e-10 of the
            loss.
        backend: numpy, numba, or whichever is there.

    Returns:
        The parts, each of shape (m,).
    """
    found = moments_after(
        name,
        settings,
        problem.rates,
        steps,
        tail_fraction=tail_fraction,
        exact=exact,
        backend=backend,
    )
    return _reduce(problem, found)


def loss_ladder(
    problem: NoisyQuadratic,
    name: OptimizerName,
    settings: Settings,
    num_levels: int,
    *,
    tail_fraction: float = 0.5,
    exact: bool = True,
    backend: Backend = "auto",
) -> LossParts:
    """Return both parts after 1, 2, 4, ... steps, shape (num_levels, m).

    Args:
        problem: What is minimised.
        name: The optimizer.
        settings: Of m runs.
        num_levels: How many numbers of steps.
        tail_fraction: What a tail average takes.
        exact: False is faster, and as good where the noise is more than 1e-10 of the
            loss.
        backend: numpy, numba, or whichever is there.

    Returns:
        The parts.
    """
    found = moments_ladder(
        name,
        settings,
        problem.rates,
        num_levels,
        tail_fraction=tail_fraction,
        exact=exact,
        backend=backend,
    )
    return _reduce(problem, found)


def check_steps(who: str, steps: ArrayLike) -> IntArray:
    """Return whole numbers of steps, none negative.

    Raises:
        InputError: They are not.
    """
    counts = np.asarray(steps)
    if not np.issubdtype(counts.dtype, np.number) or not np.all(
        (counts >= 0) & (counts == np.floor(counts))
    ):
        raise InputError(f"{who}: `steps` must be whole and >= 0, got {steps!r}.")
    return counts.astype(np.int64)


def _reduce(problem: NoisyQuadratic, found: Moments) -> LossParts:
    weights = problem.loss_weights
    with np.errstate(over="ignore", invalid="ignore"):
        bias = (found.mean * found.mean) @ (weights * problem.start)
        variance = found.variance @ (weights * problem.step_noise)
    return LossParts(bias, variance)
