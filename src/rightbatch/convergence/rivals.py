"""The theory bounds fitted to runs: rivals that the laws of a plan have to beat."""

from typing import NamedTuple

import numpy as np

from rightbatch.convergence.bounds import ConvexBound, LinearRateBound
from rightbatch.convergence.runs import RepeatedRuns
from rightbatch.fitting import FloatArray

# Where the search starts: logits of the floor as a share of the smallest batch size
# run, and logarithms of the gap at the start over the gap at the target, less one.
LOGITS = np.linspace(-8, 8, 25)
LOG_GAPS = np.linspace(-2, 8, 21)
# Cells to either side of the best point, points across them, and where zooming ends.
ZOOM_CELLS, ZOOM_POINTS, FINEST = 2.0, 13, 1e-4
RATE_ROUNDS = 8
_FAR = 30.0


class Rival(NamedTuple):
    """A bound fitted to runs.

    Args:
        law: ``convex_bound`` or ``linear_rate_bound``.
        num_parameters: Three each: only ratios to the gap at the target show in steps.
        chi2: Weighted sum of squares of the residuals of ln S.
        residuals: ln(mean steps) less ln of the bound, shape (k,).
        parameters: By name, gaps in units of the target gap.
    """

    law: str
    num_parameters: int
    chi2: float
    residuals: FloatArray
    parameters: dict[str, float]


class _Shapes(NamedTuple):
    """Bounds of one kind: what their rate multiplies, arrays (g, k) or (g, 1)."""

    kind: type[ConvexBound] | type[LinearRateBound]
    batch: FloatArray
    floor: FloatArray
    gap: FloatArray

    def log_steps(self, log_rate: FloatArray) -> FloatArray:
        """Return ln S of each bound, log_rate (g, 1)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.kind is ConvexBound:
                sigma = np.sqrt(self.floor / self.batch)
                logs = 2 * (np.arctanh(sigma) - np.arctanh(sigma / self.gap))
                steps = logs / np.log1p(2 * np.exp(log_rate) * sigma)
            else:
                # The rate is a share of the smallest batch size, so never above it.
                rate = self.batch[0] / (1 + np.exp(-log_rate))
                gap = (self.batch - self.floor) / (self.gap * self.batch - self.floor)
                steps = 1 + np.log(gap) / np.log1p(-rate / self.batch * (1 - 1e-12))
            return np.log(steps)


def fit_rivals(runs: RepeatedRuns) -> list[Rival]:
    """Return both bounds at their best.

    For a given floor and gap the rate is nearly a scale, so its best value takes a few
    rounds of Gauss and Newton, and the two others are searched whole.

    Args:
        runs: At least three batch sizes.

    Returns:
        The convex bound of Perrone et al. and the bound of Bottou et al.
    """
    return [_fit(runs, ConvexBound), _fit(runs, LinearRateBound)]


def _fit(runs: RepeatedRuns, kind: type[ConvexBound] | type[LinearRateBound]) -> Rival:
    logits, gaps, step = LOGITS, LOG_GAPS, np.array([LOGITS[1] - LOGITS[0], 0.5])
    while True:
        grid = [axis.ravel() for axis in np.meshgrid(logits, gaps)]
        shapes = _shapes_at(runs, kind, *grid)
        log_rate, chi2 = _best_rates(runs, shapes)
        best = int(chi2.argmin())
        if step[0] < FINEST:
            break
        reach = np.linspace(-ZOOM_CELLS, ZOOM_CELLS, ZOOM_POINTS)
        logits = np.clip(grid[0][best] + step[0] * reach, -_FAR, _FAR)
        gaps = np.clip(grid[1][best] + step[1] * reach, -_FAR, _FAR)
        step = step * 2 * ZOOM_CELLS / (ZOOM_POINTS - 1)
    one = _Shapes(kind, shapes.batch, shapes.floor[[best]], shapes.gap[[best]])
    residuals = runs.log_steps - one.log_steps(log_rate[[best]])[0]
    rate, is_convex = float(np.exp(log_rate[best, 0])), kind is ConvexBound
    if not is_convex:
        rate = float(runs.batch_sizes[0]) * rate / (1 + rate)
    return Rival(
        law="convex_bound" if is_convex else "linear_rate_bound",
        num_parameters=3,
        chi2=float(chi2[best]),
        residuals=residuals,
        parameters={
            "min_batch_size": float(one.floor[0, 0]),
            "initial_gap": float(one.gap[0, 0]),
            "contraction": rate,
        },
    )


def _shapes_at(
    runs: RepeatedRuns,
    kind: type[ConvexBound] | type[LinearRateBound],
    logits: FloatArray,
    log_gaps: FloatArray,
) -> _Shapes:
    floor = runs.batch_sizes[0] / (1 + np.exp(-logits))
    return _Shapes(
        kind, runs.batch_sizes, floor[:, None], 1 + np.exp(log_gaps)[:, None]
    )


def _best_rates(runs: RepeatedRuns, shapes: _Shapes) -> tuple[FloatArray, FloatArray]:
    weights, small = 1 / runs.mean_variance, 1e-4
    log_rate = np.full((len(shapes.floor), 1), -12.0)
    # A floor upon the smallest batch has no finite steps, hence no best rate.
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(RATE_ROUNDS):
            logs = shapes.log_steps(log_rate)
            slope = (shapes.log_steps(log_rate + small) - logs) / small
            move = (weights * (runs.log_steps - logs) * slope).sum(1)
            move = np.nan_to_num(move / (weights * slope**2).sum(1), posinf=0, neginf=0)
            log_rate = np.clip(log_rate + move[:, None], -_FAR, _FAR)
        residuals = runs.log_steps - shapes.log_steps(log_rate)
        chi2 = (weights * residuals**2).sum(1)
    return log_rate, np.nan_to_num(chi2, nan=np.inf, posinf=np.inf)
