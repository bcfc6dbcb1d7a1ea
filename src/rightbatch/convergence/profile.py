"""The least-squares surface of a convergence law, searched whole.

For a fixed ratio r = S_min/E_min = 1/phi (and knee exponent s) the best ln E_min is a
weighted mean, so one dimension is left and every minimum of it is seen: no starting
points, no iteration that can fail, and a thousand bootstrap fits are one product of
matrices. r runs from just above -1/B_max, where S(B_max) would be zero, to so large
that the curve is flat.
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from rightbatch.convergence.law import ConvergenceLaw
from rightbatch.convergence.runs import RepeatedRuns
from rightbatch.fitting import FloatArray, log_scale_profile

INVERSE_POINTS = 2500
KNEE_POINTS = 300
KNEE_EXPONENTS = np.exp(np.linspace(np.log(0.5), np.log(8), 41))


def log_shape(
    inverse_batch: FloatArray, ratio: FloatArray, knee_exponent: FloatArray
) -> FloatArray:
    r"""Return ln(S/E_min) = ln(r^s + B^-s)/s; broadcasts.

    Args:
        inverse_batch: 1/B.
        ratio: r, above -1/B; not negative where `knee_exponent` is not 1.
        knee_exponent: s.

    Returns:
        The logarithm, minus infinity where S would not be positive.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if np.all(knee_exponent == 1):
            return np.log(np.maximum(ratio + inverse_batch, 0.0))
        large = np.maximum(ratio, inverse_batch)
        small = np.minimum(ratio, inverse_batch)
        s = knee_exponent
        return np.log(large) + np.log1p((small / large) ** s) / s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surface:
    """Chi-square of a family of laws on a grid of shapes, with its minimum.

    Args:
        runs: What was fitted.
        ratios: r of each grid point, shape (g,).
        knees: s of each grid point, shape (g,).
        shapes: ln(S/E_min) at the fitted batch sizes, shape (g, k).
        chi2: Shape (g,).
        log_scale: Best ln E_min, shape (g,).
        law: The best law, refined between the grid points.
        best_chi2: Its chi-square.
    """

    runs: RepeatedRuns
    ratios: FloatArray
    knees: FloatArray
    shapes: FloatArray
    chi2: FloatArray
    log_scale: FloatArray
    law: ConvergenceLaw
    best_chi2: float

    @property
    def residuals(self) -> FloatArray:
        """Return ln(mean steps) less ln of the law, shape (k,)."""
        return self.runs.log_steps - np.log(self.law.steps(self.runs.batch_sizes))

    def refit(self, log_steps: FloatArray) -> tuple[FloatArray, ...]:
        """Return the parameters fitted to other means at the same batch sizes.

        Args:
            log_steps: ln(mean steps), shape (n, k).

        Returns:
            `min_steps`, `min_examples`, `knee_exponent`, each of shape (n,).
        """
        weights = 1 / self.runs.mean_variance
        best = np.empty(len(log_steps), dtype=int)
        for start in range(0, len(log_steps), 200):  # bounds the memory of a block
            block = slice(start, start + 200)
            chi2, _ = log_scale_profile(log_steps[block], self.shapes, weights)
            best[block] = chi2.argmin(-1)
        offset = log_steps - self.shapes[best]
        examples = np.exp(offset @ weights / weights.sum())
        return self.ratios[best] * examples, examples, self.knees[best]


def inverse_surface(runs: RepeatedRuns) -> Surface:
    """Return the surface of the inverse law, either sign of S_min.

    Args:
        runs: At least two batch sizes.

    Returns:
        The surface with its minimum.
    """
    inverse_batch = 1 / runs.batch_sizes
    least = inverse_batch.min()
    # Even steps of ln(r + 1/B_max) follow the curve where it bends.
    logs = np.linspace(
        np.log(least * 1e-4), np.log(inverse_batch.max() * 1e4), INVERSE_POINTS
    )
    ratios = np.exp(logs) - least
    knees = np.ones_like(ratios)
    shapes, chi2, scale = _grid_chi2(runs, ratios, knees)
    place = int(chi2.argmin())
    span = logs[1] - logs[0]

    def chi2_at(log_gap: float) -> float:
        ratio = np.array([np.exp(log_gap) - least])
        return float(_grid_chi2(runs, ratio, np.ones(1))[1][0])

    around = (logs[place] - span, logs[place] + span)
    found = optimize.minimize_scalar(
        chi2_at, bounds=around, method="bounded", options={"xatol": 1e-11}
    )
    ratio = float(np.exp(found.x) - least)
    return _surface(runs, (ratios, knees, shapes, chi2, scale), (ratio, 1.0))


def knee_surface(runs: RepeatedRuns) -> Surface:
    """Return the surface of the law with a free knee exponent, S_min positive.

    Args:
        runs: At least three batch sizes.

    Returns:
        The surface with its minimum.
    """
    inverse_batch = 1 / runs.batch_sizes
    logs = np.linspace(
        np.log(inverse_batch.min() * 1e-3),
        np.log(inverse_batch.max() * 1e3),
        KNEE_POINTS,
    )
    knees, ratios = (
        grid.ravel()
        for grid in np.meshgrid(KNEE_EXPONENTS, np.exp(logs), indexing="ij")
    )
    shapes, chi2, scale = _grid_chi2(runs, ratios, knees)
    place = int(chi2.argmin())

    def chi2_at(logs: FloatArray) -> float:
        ratio, knee = np.exp(logs)
        return float(_grid_chi2(runs, np.array([ratio]), np.array([knee]))[1][0])

    bounds = [(logs[0], logs[-1]), tuple(np.log(KNEE_EXPONENTS[[0, -1]]))]
    start = np.log([ratios[place], knees[place]])
    found = optimize.minimize(chi2_at, start, method="Nelder-Mead", bounds=bounds)
    ratio, knee = np.exp(found.x)
    return _surface(
        runs, (ratios, knees, shapes, chi2, scale), (float(ratio), float(knee))
    )


def free_exponent_chi2(runs: RepeatedRuns) -> float:
    """Return the least chi-square of S_min + E/B^q with the exponent q free.

    It serves only to test whether the exponent differs from 1.

    Args:
        runs: At least four batch sizes.

    Returns:
        Chi-square.
    """

    def chi2_at(exponent: float) -> float:
        power = runs.batch_sizes**exponent
        least = (1 / power).min()
        logs = np.linspace(np.log(least * 1e-4), np.log(1e4 / power.min()), 400)
        shapes = np.log(np.exp(logs)[:, None] - least + 1 / power)
        weights = 1 / runs.mean_variance
        return float(log_scale_profile(runs.log_steps, shapes, weights)[0].min())

    found = optimize.minimize_scalar(chi2_at, bounds=(0.3, 3.0), method="bounded")
    return float(found.fun)


def _grid_chi2(
    runs: RepeatedRuns, ratios: FloatArray, knees: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    shapes = log_shape(1 / runs.batch_sizes, ratios[:, None], knees[:, None])
    chi2, scale = log_scale_profile(runs.log_steps, shapes, 1 / runs.mean_variance)
    return shapes, chi2, scale


def _surface(
    runs: RepeatedRuns,
    grid: tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray],
    best: tuple[float, float],
) -> Surface:
    ratio, knee = best
    _, chi2, scale = _grid_chi2(runs, np.array([ratio]), np.array([knee]))
    examples = float(np.exp(scale[0]))
    law = ConvergenceLaw(
        min_steps=ratio * examples, min_examples=examples, knee_exponent=knee
    )
    ratios, knees, shapes, grid_chi2, grid_scale = grid
    return Surface(
        runs=runs,
        ratios=ratios,
        knees=knees,
        shapes=shapes,
        chi2=grid_chi2,
        log_scale=grid_scale,
        law=law,
        best_chi2=float(chi2[0]),
    )
