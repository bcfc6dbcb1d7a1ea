"""The least-squares surface of a convergence law, searched whole.

For a fixed ratio r = S_min/E_min = 1/phi (and knee exponent s, or floor F) the best
ln E_min is a weighted mean, so one dimension (or two) is left and every minimum of it
is seen: no starting points, no iteration that can fail, and a thousand bootstrap fits
are one product of matrices. r runs from just above -1/B_max, where S(B_max) would be
zero, to so large that the curve is flat.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rightbatch.convergence.law import ConvergenceLaw
from rightbatch.convergence.runs import RepeatedRuns
from rightbatch.fitting import FloatArray, log_scale_profile

INVERSE_POINTS = 2500
RATIO_POINTS = 300
KNEE_EXPONENTS = np.exp(np.linspace(np.log(0.5), np.log(8), 41))
# Floors as shares of the smallest batch size that reached the target.
FLOOR_SHARES = np.append(0.0, 1 - np.geomspace(0.98, 2e-3, 40))
# Above the least chi-square: what a finer grid covers.
ZOOM_CHI2 = 40.0
# Cells to either side of the best point, points across them, and where zooming ends.
ZOOM_CELLS = 2.5
ZOOM_POINTS = 26
FINEST = 1e-9


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


class Shapes(NamedTuple):
    """Shapes of a law, arrays of shape (g,): all but its scale.

    Args:
        ratios: r.
        knees: s.
        floors: F.
    """

    ratios: FloatArray
    knees: FloatArray
    floors: FloatArray

    @classmethod
    def of(
        cls, ratios: ArrayLike, knees: ArrayLike = 1.0, floors: ArrayLike = 0.0
    ) -> "Shapes":
        """Return shapes whose parameters broadcast against each other."""
        grids = np.broadcast_arrays(ratios, knees, floors)
        return cls(*(np.ravel(grid).astype(float) for grid in grids))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surface:
    """Chi-square of a family of laws on a grid of shapes, with its minimum.

    Args:
        runs: What was fitted.
        ratios: r of each grid point, shape (g,).
        knees: s of each grid point, shape (g,).
        floors: F of each grid point, shape (g,), examples.
        shapes: ln(S/E_min) at the fitted batch sizes, shape (g, k).
        chi2: Shape (g,).
        log_scale: Best ln E_min, shape (g,).
        law: The best law, refined between the grid points.
        best_chi2: Its chi-square.
    """

    runs: RepeatedRuns
    ratios: FloatArray
    knees: FloatArray
    floors: FloatArray
    shapes: FloatArray
    chi2: FloatArray
    log_scale: FloatArray
    law: ConvergenceLaw
    best_chi2: float

    @property
    def num_parameters(self) -> int:
        """Parameters of the law: a knee or a floor is a third one."""
        return 2 if self.law.name == "inverse" else 3

    @property
    def residuals(self) -> FloatArray:
        """Return ln(mean steps) less ln of the law, shape (k,)."""
        return self.runs.log_steps - np.log(self.law.steps(self.runs.batch_sizes))

    def refit(self, log_steps: FloatArray) -> tuple[FloatArray, ...]:
        """Return the parameters fitted to other means at the same batch sizes.

        Args:
            log_steps: ln(mean steps), shape (n, k).

        Returns:
            `min_steps`, `min_examples`, `knee_exponent`, `min_batch_size`, each of
            shape (n,).
        """
        weights = 1 / self.runs.mean_variance
        best = np.empty(len(log_steps), dtype=int)
        for start in range(0, len(log_steps), 200):  # bounds the memory of a block
            block = slice(start, start + 200)
            chi2, _ = log_scale_profile(log_steps[block], self.shapes, weights)
            best[block] = chi2.argmin(-1)
        offset = log_steps - self.shapes[best]
        examples = np.exp(offset @ weights / weights.sum())
        steps = self.ratios[best] * examples
        return steps, examples, self.knees[best], self.floors[best]


class _Family(NamedTuple):
    """All shapes of a law that make sense for some runs, as a grid of two axes.

    Args:
        ratios: r, increasing, shape (m,).
        thirds: Knee exponents, or floors; one value where there is no third parameter.
        has_floor: What `thirds` are.
    """

    ratios: FloatArray
    thirds: FloatArray
    has_floor: bool

    def shapes(self, ratios: FloatArray, thirds: FloatArray) -> Shapes:
        """Return the grid of two axes, thirds first."""
        if self.has_floor:
            return Shapes.of(ratios, 1.0, thirds[:, None])
        return Shapes.of(ratios, thirds[:, None])

    def at(self, places: FloatArray, thirds: FloatArray) -> tuple[FloatArray, ...]:
        """Return the axes at places between their points."""
        return tuple(
            np.interp(place, np.arange(len(axis)), axis)
            for place, axis in ((places, self.ratios), (thirds, self.thirds))
        )


def _family(runs: RepeatedRuns, law: str) -> _Family:
    small, large = runs.batch_sizes[[0, -1]]
    if law == "inverse":
        # Even steps of ln(r + 1/B_max) follow the curve where it bends, and reach
        # negative S_min.
        gaps = np.geomspace(1e-4 / large, 1e4 / small, INVERSE_POINTS)
        return _Family(gaps - 1 / large, np.ones(1), has_floor=False)
    ratios = np.geomspace(1e-3 / large, 1e3 / small, RATIO_POINTS)
    if law == "knee":
        return _Family(ratios, KNEE_EXPONENTS, has_floor=False)
    return _Family(ratios, FLOOR_SHARES * small, has_floor=True)


def best_law(runs: RepeatedRuns, law: str) -> tuple[ConvergenceLaw, float]:
    """Return the law of a family with the least chi-square, and that.

    Args:
        runs: At least two batch sizes; three for a knee or a floor.
        law: ``inverse`` (either sign of S_min), ``knee`` or ``floor`` (S_min above 0,
            the floor below every batch size run).

    Returns:
        The law and its chi-square.
    """
    family = _family(runs, law)
    _, chi2, _ = _grid_chi2(runs, family.shapes(family.ratios, family.thirds))
    return _best_in(runs, family, int(chi2.argmin()))


def surface(runs: RepeatedRuns, law: str) -> Surface:
    """Return the least-squares surface of a family of laws.

    Args:
        runs: At least two batch sizes; three for a knee or a floor.
        law: As for :func:`best_law`.

    Returns:
        The surface with its minimum, fine where the runs allow the law to be.
    """
    family = _family(runs, law)
    shapes = family.shapes(family.ratios, family.thirds)
    logs, chi2, scale = _grid_chi2(runs, shapes)
    best, best_chi2 = _best_in(runs, family, int(chi2.argmin()))
    if len(family.thirds) > 1:
        # A grid over all that is possible is too coarse for what many runs can tell.
        near = chi2 <= chi2.min() + ZOOM_CHI2
        near = near.reshape(len(family.thirds), len(family.ratios))
        shapes = family.shapes(
            _refined(family.ratios, near.any(0), num=240, keep_every=4),
            _refined(family.thirds, near.any(1), num=41, keep_every=2),
        )
        logs, chi2, scale = _grid_chi2(runs, shapes)
    return Surface(
        runs=runs,
        ratios=shapes.ratios,
        knees=shapes.knees,
        floors=shapes.floors,
        shapes=logs,
        chi2=chi2,
        log_scale=scale,
        law=best,
        best_chi2=best_chi2,
    )


def free_exponent_chi2(runs: RepeatedRuns) -> float:
    """Return the least chi-square of S_min + E/B^q with the exponent q free.

    It serves only to test whether the exponent differs from 1.

    Args:
        runs: At least four batch sizes.

    Returns:
        Chi-square.
    """
    found: list[float] = []

    def chi2_at(exponent: float) -> float:
        power = runs.batch_sizes**exponent
        least = (1 / power).min()
        logs = np.linspace(np.log(least * 1e-4), np.log(1e4 / power.min()), 400)
        shapes = np.log(np.exp(logs)[:, None] - least + 1 / power)
        weights = 1 / runs.mean_variance
        return float(log_scale_profile(runs.log_steps, shapes, weights)[0].min())

    exponents = np.linspace(0.3, 3.0, 28)
    while exponents[1] - exponents[0] > 1e-7:
        found = [chi2_at(exponent) for exponent in exponents.tolist()]
        place = int(np.argmin(found))
        low, high = exponents[max(place - 1, 0)], exponents[min(place + 1, 27)]
        exponents = np.linspace(low, high, 28)
    return min(found)


def _best_in(
    runs: RepeatedRuns, family: _Family, start: int
) -> tuple[ConvergenceLaw, float]:
    # Ever smaller grids around the best point so far, until nothing is left between.
    last = np.array([len(family.ratios) - 1, len(family.thirds) - 1])
    place = np.array([start % (last[0] + 1), start // (last[0] + 1)], dtype=float)
    step, flat = 1.0, last[1] == 0
    while True:
        reach = step * np.linspace(-ZOOM_CELLS, ZOOM_CELLS, ZOOM_POINTS)
        first = np.clip(place[0] + reach, 0, last[0])
        second = place[1:] if flat else np.clip(place[1] + reach, 0, last[1])
        ratios, thirds = family.at(first, second)
        _, chi2, scale = _grid_chi2(runs, family.shapes(ratios, thirds))
        best = int(chi2.argmin())
        row, column = divmod(best, len(ratios))
        place = np.array([first[column], second[row]])
        if step < FINEST:
            break
        step *= 2 * ZOOM_CELLS / (ZOOM_POINTS - 1)
    examples, third = float(np.exp(scale[best])), float(thirds[row])
    # The end of the grid is no estimate: where less would do as well, so would nothing.
    is_least = place[0] < 0.01 and family.ratios[0] > 0
    law = ConvergenceLaw(
        min_steps=0.0 if is_least else float(ratios[column]) * examples,
        min_examples=examples,
        knee_exponent=1.0 if family.has_floor else third,
        min_batch_size=third if family.has_floor else 0.0,
    )
    return law, float(chi2[best])


def _refined(
    axis: FloatArray, near: NDArray[np.bool_], *, num: int, keep_every: int
) -> FloatArray:
    places = np.flatnonzero(near)
    low, high = max(places[0] - 1, 0), min(places[-1] + 1, len(axis) - 1)
    # Between the points of the axis, so that a geometric one stays geometric.
    fine = np.interp(np.linspace(low, high, num), np.arange(len(axis)), axis)
    kept = np.arange(0, len(axis), keep_every)
    kept = np.append(kept[(kept < low) | (kept > high)], len(axis) - 1)
    return np.unique(np.append(axis[kept], fine))


def _grid_chi2(runs: RepeatedRuns, shapes: Shapes) -> tuple[FloatArray, ...]:
    inverse_batch = 1 / (runs.batch_sizes - shapes.floors[:, None])
    logs = log_shape(inverse_batch, shapes.ratios[:, None], shapes.knees[:, None])
    chi2, scale = log_scale_profile(runs.log_steps, logs, 1 / runs.mean_variance)
    return logs, chi2, scale
