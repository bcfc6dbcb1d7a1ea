"""The best learning rate of one batch size, read off a sweep, with its error.

ln steps against ln lr is a valley. Its floor is a parabola, fitted from the last point
on either side that lies above the noise; a valley without a side has no floor to see.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightbatch.convergence.noise import USUAL_NOISE
from rightbatch.fitting import FloatArray

# Weight, in degrees of freedom, of the usual noise where few rates were repeated.
PRIOR_DEGREES = 2
# How many standard errors a side must rise to be one, alone and beside such a one.
RISE = 2.0
SLIGHT_RISE = 1.0
# A parabola between the points finds the optimum closer than the nearest point, which
# is off by spacing/sqrt(12) rms; valleys are not quite parabolas, which leaves this
# share of it.
GRID_SHARE = 0.25

Cells = Mapping[float, Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LrOptimum:
    """The learning rate with the fewest steps at one batch size.

    Args:
        batch_size: Examples per step.
        lr: The optimum, between the rates that were tried; None where there is none.
        log_error: Standard error of ln lr, the grid's part included.
        excluded: Why the law leaves it out: ``edge`` (the best is the least or largest
            rate tried), ``flat`` (the steps hardly depend on the rate on one side),
            ``few rates`` (fewer than three) or ``unreached``; empty where it is used.
    """

    batch_size: float
    lr: float | None
    log_error: float | None
    excluded: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, with the ends one standard error away."""
        low = high = None
        if self.lr is not None and self.log_error is not None:
            factor = math.exp(self.log_error)
            low, high = self.lr / factor, self.lr * factor
        return {
            "batch_size": self.batch_size,
            "lr": self.lr,
            "low": low,
            "high": high,
            "excluded": self.excluded or None,
        }


def pooled_noise(sweep: Mapping[float, Cells]) -> float:
    """Return the relative standard deviation of one run around its mean.

    Args:
        sweep: Steps of the runs by batch size and learning rate, NaN for a run that did
            not reach.

    Returns:
        Pooled over all repeats, with the usual noise as a weak prior.

    Example:
        >>> pooled_noise({8: {0.1: [100.0]}})
        0.1
    """
    squares, degrees = PRIOR_DEGREES * USUAL_NOISE**2, float(PRIOR_DEGREES)
    for cells in sweep.values():
        for counts in cells.values():
            if len(counts) > 1 and not any(map(math.isnan, counts)):
                ratios = np.array(counts) / np.mean(counts)
                squares += float(np.square(ratios - 1).sum())
                degrees += len(counts) - 1
    return math.sqrt(squares / degrees)


def lr_optimum(batch_size: float, cells: Cells, noise: float) -> LrOptimum:
    """Return the best learning rate of one batch size.

    A rate counts only if all its runs reached the target; one that did not is a side
    of the valley.

    Args:
        batch_size: Examples per step.
        cells: Steps of the runs by learning rate, NaN for a run that did not reach.
        noise: Relative standard deviation of one run.

    Returns:
        The optimum, or why there is none.

    Example:
        >>> cells = {0.1: [180.0], 0.2: [100.0], 0.4: [180.0]}
        >>> found = lr_optimum(8, cells, 0.02)
        >>> round(found.lr, 6), found.excluded
        (0.2, '')
    """
    rates = sorted(cells)
    # A rate that misses is a wall, which no run can have climbed by chance.
    height = np.array([_log_mean(cells[rate]) for rate in rates])
    error = noise / np.sqrt([len(cells[rate]) for rate in rates])
    x = np.log(rates)
    if not np.isfinite(height).any():
        return LrOptimum(
            batch_size=batch_size, lr=None, log_error=None, excluded="unreached"
        )
    best = int(height.argmin())

    def excluded(reason: str) -> LrOptimum:
        return LrOptimum(
            batch_size=batch_size, lr=rates[best], log_error=None, excluded=reason
        )

    if len(rates) < 3:
        return excluded("few rates")
    rise = (height - height[best]) / np.hypot(error, error[best])
    left = next((i for i in range(best - 1, -1, -1) if rise[i] > RISE), None)
    right = next((i for i in range(best + 1, len(rates)) if rise[i] > RISE), None)
    if left is None and right is None:
        return excluded("flat")
    if best in (0, len(rates) - 1):
        return excluded("edge")
    # Beside one steep side the last rate of the other may rise by less.
    if (left is None and rise[0] < SLIGHT_RISE) or (
        right is None and rise[-1] < SLIGHT_RISE
    ):
        return excluded("flat")
    inside = slice(left or 0, len(rates) if right is None else right + 1)
    place, log_error = _valley_floor(x[inside], height[inside], error[inside])
    return LrOptimum(
        batch_size=batch_size,
        lr=math.exp(place),
        log_error=log_error,
        excluded="",
    )


def _log_mean(counts: Sequence[float]) -> float:
    return math.inf if any(map(math.isnan, counts)) else math.log(np.mean(counts))


def _valley_floor(
    x: FloatArray, height: FloatArray, error: FloatArray
) -> tuple[float, float]:
    """Return the vertex of a weighted parabola and its error; ends are its sides."""
    best = int(height.argmin())
    seen = np.isfinite(height)
    grid = float(x[best + 1] - x[best - 1]) / 2 / math.sqrt(12)
    if seen.sum() < 3:
        return float(x[best]), grid
    z, y, weight = x[seen] - x[best], height[seen], 1 / error[seen]
    terms = np.stack([np.ones_like(z), z, z**2], axis=-1) * weight[:, None]
    covariance = np.linalg.inv(terms.T @ terms)
    _, slope, bend = covariance @ (terms.T @ (y * weight))
    if bend <= 0:
        return float(x[best]), 2 * grid
    vertex = -slope / (2 * bend)
    gradient = np.array([0, -1 / (2 * bend), slope / (2 * bend**2)])
    variance = float(gradient @ covariance @ gradient)
    place = float(np.clip(x[best] + vertex, x[0], x[-1]))
    # Between two sides an optimum cannot be off by more than their distance.
    noise = min(math.sqrt(variance), float(x[-1] - x[0]) / math.sqrt(12))
    return place, math.hypot(noise, GRID_SHARE * grid)
