"""Runs to a target, grouped by batch size: means, noise, typing errors set aside."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray

# Targets are checked on a grid of steps, so repeats can agree to the last digit; no
# mean is known better than this share of itself.
NOISE_FLOOR = 0.02
# Weight, in runs, of the pooled variance against a batch size's own few repeats.
PRIOR_RUNS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RepeatedRuns:
    """Mean steps per batch size, with the noise of one run shared between batch sizes.

    Args:
        batch_sizes: Increasing, shape (k,), examples.
        mean_steps: Shape (k,), steps.
        num_runs: Runs behind each mean, shape (k,).
        relative_variance: Of one run around its mean, shape (k,), squared fractions;
            shrunk towards the pooled one; zeros without repeats.
        observed_variance: The same before shrinking; zeros where there is one run.
    """

    batch_sizes: FloatArray
    mean_steps: FloatArray
    num_runs: FloatArray
    relative_variance: FloatArray
    observed_variance: FloatArray

    @property
    def noise_degrees(self) -> int:
        """Degrees of freedom that repeats give the noise: runs less batch sizes."""
        return int((self.num_runs - 1).sum())

    @property
    def mean_variance(self) -> FloatArray:
        """Squared standard error of ln(mean steps), the floor included, shape (k,)."""
        return self.repeat_variance + NOISE_FLOOR**2

    @property
    def repeat_variance(self) -> FloatArray:
        """The same from repeats alone: what a test of lack of fit compares with."""
        return self.relative_variance / self.num_runs

    @property
    def log_steps(self) -> FloatArray:
        """Return ln(mean steps), shape (k,)."""
        return np.log(self.mean_steps)

    def without(self, place: int) -> "RepeatedRuns":
        """Return the runs with one batch size left out.

        Args:
            place: Its index.

        Returns:
            The other k - 1 batch sizes; the noise stays as it was.
        """
        keep = np.arange(len(self.batch_sizes)) != place
        return RepeatedRuns(
            batch_sizes=self.batch_sizes[keep],
            mean_steps=self.mean_steps[keep],
            num_runs=self.num_runs[keep],
            relative_variance=self.relative_variance[keep],
            observed_variance=self.observed_variance[keep],
        )


def group_runs(batch_sizes: ArrayLike, steps: ArrayLike) -> RepeatedRuns:
    """Return the runs grouped by batch size.

    Args:
        batch_sizes: One per run, shape (N,), examples.
        steps: Steps to the target of each run, shape (N,).

    Returns:
        The k batch sizes in increasing order.

    Raises:
        InputError: The lengths differ, or a value is not a positive number.

    Example:
        >>> runs = group_runs([8, 8, 32], [100, 120, 50])
        >>> runs.mean_steps, runs.noise_degrees
        (array([110.,  50.]), 1)
    """
    batch = _checks.positive_array("fit", "batch_sizes", batch_sizes)
    count = _checks.positive_array("fit", "steps", steps)
    if len(batch) != len(count):
        raise InputError(
            f"fit: `batch_sizes` and `steps` must pair up, got {len(batch)} and "
            f"{len(count)}."
        )
    sizes, member = np.unique(batch, return_inverse=True)
    num = np.bincount(member).astype(float)
    mean = np.bincount(member, count) / num
    squares = np.bincount(member, (count / mean[member] - 1) ** 2)
    observed = np.where(num > 1, squares / np.maximum(num - 1, 1), 0.0)
    degrees = (num - 1).sum()
    pooled = squares.sum() / degrees if degrees else 0.0
    shrunk = (PRIOR_RUNS * pooled + squares) / (PRIOR_RUNS + num - 1)
    return RepeatedRuns(
        batch_sizes=sizes,
        mean_steps=mean,
        num_runs=num,
        relative_variance=shrunk,
        observed_variance=observed,
    )


def runs_far_from_their_batch(
    batch_sizes: FloatArray, steps: FloatArray, limit: float = math.log(4)
) -> FloatArray:
    """Return the places of single runs that a typing error must have moved.

    Among at least three runs at one batch size, a run whose logarithm lies farther than
    `limit` from the median of all while the others lie close together.

    Args:
        batch_sizes: One per run, shape (N,).
        steps: Shape (N,).
        limit: In natural logarithms; four-fold by default, far above any seed noise.

    Returns:
        Indices of the runs to set aside.

    Example:
        >>> runs_far_from_their_batch(np.full(4, 8.0), np.array([90, 1000, 100, 110.0]))
        array([1])
    """
    far: list[int] = []
    for size in np.unique(batch_sizes):
        places = np.flatnonzero(batch_sizes == size)
        if len(places) < 3:
            continue
        logs = np.log(steps[places])
        distance = np.abs(logs - np.median(logs))
        rest = np.sort(distance)[: len(places) - 1]
        if distance.max() > limit and rest.max() < limit / 2:
            far.append(int(places[distance.argmax()]))
    return np.array(far, dtype=int)
