r"""Runs tried on paper: what a purchase would do to the interval of phi.

Means that lie exactly on the fitted law are put at the batch sizes run and at those to
be run, each with the variance it would have, and the profile of chi-square over phi is
computed as the fit computes it:

.. math:: \chi^2(\phi) = \min_{c, s, F} \sum_j w_j
    \left(f_j(\phi, s, F) - f_j(\hat\phi, \hat s, \hat F) - c\right)^2

with f = ln(S/E_min). Its width at the threshold is the width that the interval of phi
would have. Near its minimum this is the linearised (Fisher) information; far from it,
where an interval is unbounded, it still tells which run would bound it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.convergence.law import ConvergenceLaw
from rightbatch.convergence.noise import USUAL_NOISE, Noise, systematic_error
from rightbatch.convergence.profile import Surface, log_shape
from rightbatch.convergence.runs import NOISE_FLOOR
from rightbatch.fitting import FloatArray, Interval, half_width, profile_limits

# Candidates with this share of the best one's gain are as good; the cheapest is taken.
AS_GOOD = 0.7
# How far beyond the batch sizes run new ones are looked for, and how far from the
# critical batch size: S is within an eighth of S_min there, E within 3 % of E_min.
OUTWARD = (2, 4, 16)
WORTH_RUNNING = (1 / 32, 8.0)
# Distances from the fitted law at which the profile is looked at: in ln phi, and in
# ln s or in ln of the smallest batch size's distance from the floor.
FAR = np.geomspace(2e-3, 12, 60)
THIRD_AWAY = np.geomspace(0.01, 4, 12)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prospects:
    """Batch sizes run and to be run, m in all, and what runs at them would tell.

    Args:
        sizes: Increasing, shape (m,), examples.
        counts: Runs there so far, shape (m,).
        run_variance: Of ln S of one run, shape (m,).
        rest_variance: What no repeats average away, one number.
        shapes: ln(S/E_min) less that of the law, shape (ratios, others, m).
        offsets: ln r less that of the law, shape (ratios,).
        law: The fitted law, or one within its interval where a side is unbounded.
        degrees: Of the noise, before anything is bought.
        repeats_tell: Whether repeats add to the degrees of freedom.
        level: Of the intervals.
        can_promise: False where a usual noise or a corner near the runs stands in.
    """

    sizes: FloatArray
    counts: FloatArray
    run_variance: FloatArray
    rest_variance: float
    shapes: FloatArray
    offsets: FloatArray
    law: ConvergenceLaw
    degrees: int
    repeats_tell: bool
    level: float
    can_promise: bool

    @classmethod
    def of(
        cls,
        surface: Surface,
        noise: Noise,
        critical: Interval,
        more: Sequence[float],
    ) -> "Prospects":
        """Return the table of a fit, with `more` batch sizes among the candidates."""
        runs = surface.runs
        law, is_moved = _law_to_plan_with(surface, critical)
        sizes = _candidates(runs.batch_sizes, law, more)
        known = np.searchsorted(sizes, runs.batch_sizes)
        counts = np.zeros(len(sizes))
        counts[known] = runs.num_runs
        run_variance, rest = _variances(surface, noise)
        pooled = float(np.average(run_variance, weights=runs.num_runs))
        variance = np.full(len(sizes), pooled)
        variance[known] = run_variance
        offsets, shapes = _shapes(law, sizes, float(runs.batch_sizes[0]))
        return cls(
            sizes=sizes,
            counts=counts,
            run_variance=variance,
            rest_variance=rest,
            shapes=shapes,
            offsets=offsets,
            law=law,
            degrees=noise.degrees,
            repeats_tell=not noise.is_lack_of_fit,
            level=critical.level,
            can_promise=noise.scale is not None and not is_moved,
        )

    def place_of(self, batch_size: float) -> int:
        """Return the place of a batch size among the candidates."""
        return int(np.abs(np.log(self.sizes / batch_size)).argmin())

    def profiles(self, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return chi-square over r (ratios, a) and thresholds (a,) of a allocations."""
        run = np.maximum(counts, 1)
        weights = (counts > 0) / (self.run_variance / run + self.rest_variance)
        total = weights.sum(1)
        mean = self.shapes @ weights.T
        chi2 = (self.shapes**2 @ weights.T - mean**2 / total).min(1)
        degrees = self.degrees + (
            (counts - self.counts).sum(1)
            if self.repeats_tell
            else ((counts > 0) & (self.counts == 0)).sum(1)
        )
        quantile = half_width(np.maximum(degrees, 1), self.level)
        return np.maximum(chi2, 0.0), quantile**2

    def log_width(self, counts: FloatArray) -> float | None:
        """Return the predicted ln(high/low) of phi; None where unbounded."""
        chi2, threshold = self.profiles(counts[None, :])
        low, high = profile_limits(self.offsets, chi2[:, 0], float(threshold[0]))
        if low is None or high is None:
            return None
        return max(high - low, 1e-9)

    def best_purchase(
        self, counts: FloatArray, num_runs: int, bought: set[int]
    ) -> tuple[int, float]:
        """Return the place where so many runs tell most about phi, and their gain.

        The gain is the share that they take off ln(high/low).
        """
        allocations = counts + num_runs * np.eye(len(self.sizes))
        now = self._scores(counts[None, :])[0]
        gains = now - self._scores(allocations)
        gains[list(bought)] = -math.inf
        best = gains.max()
        good = np.flatnonzero(gains >= best - (1 - AS_GOOD) * abs(best))
        # Steps times examples is least at the corner and grows both ways.
        price = np.log(self.law.steps(self.sizes)) + np.log(
            self.law.examples(self.sizes)
        )
        place = int(good[price[good].argmin()])
        return place, float(gains[place] / max(now, 1e-9))

    def _scores(self, counts: FloatArray) -> FloatArray:
        """Return ln width, or, with a side unbounded, how far from being bounded."""
        chi2, thresholds = self.profiles(counts)
        scores: list[float] = []
        for column, threshold in zip(chi2.T, thresholds, strict=True):
            low, high = profile_limits(self.offsets, column, float(threshold))
            if low is not None and high is not None:
                scores.append(high - low)
                continue
            ends = [column[end] for end, at in ((0, low), (-1, high)) if at is None]
            # The widest interval the grid can hold, and more the less it is bounded.
            missing = sum(1 - end / threshold for end in ends)
            scores.append(2 * FAR[-1] * (1 + missing))
        return np.array(scores)


def _law_to_plan_with(
    surface: Surface, critical: Interval
) -> tuple[ConvergenceLaw, bool]:
    """Return the law, and whether its corner was moved, which could be anywhere."""
    law, runs = surface.law, surface.runs
    small, large = float(runs.batch_sizes[0]), float(runs.batch_sizes[-1])
    ratio = fitted = law.min_steps / law.min_examples
    if critical.high is None:
        ratio = max(ratio, 1 / (4 * large))
    if critical.low is None:
        ratio = min(ratio, 4 / small)
    shape = _log_shape(
        runs.batch_sizes,
        np.array([ratio]),
        np.array([law.knee_exponent]),
        np.array([law.min_batch_size]),
    )
    scale = np.average(runs.log_steps - shape[0], weights=1 / runs.mean_variance)
    examples = math.exp(float(scale))
    moved = ConvergenceLaw(
        min_steps=ratio * examples,
        min_examples=examples,
        knee_exponent=law.knee_exponent,
        min_batch_size=law.min_batch_size,
    )
    return moved, ratio != fitted


def _candidates(
    run: FloatArray, law: ConvergenceLaw, more: Sequence[float]
) -> FloatArray:
    factors = np.array(OUTWARD)
    ends = np.concatenate([run[0] / factors, run[-1] * factors])
    # Farther from the corner a run tells little more, and costs in proportion.
    low, high = (side * law.critical_batch_size for side in WORTH_RUNNING)
    ends = ends[(low <= ends) & (ends <= high)]
    new = np.round(np.concatenate([ends, np.sqrt(run[:-1] * run[1:]), np.array(more)]))
    new = new[(new >= 1) & (new > 1.25 * law.min_batch_size)]
    sizes: FloatArray = np.concatenate([run, new]).astype(np.float64)
    return np.unique(sizes)


def _variances(surface: Surface, noise: Noise) -> tuple[FloatArray, float]:
    """Return the variance of one run at each batch size, and what stays of a mean's."""
    runs, floor = surface.runs, NOISE_FLOOR**2
    if noise.scale is None:
        return np.full(len(runs.batch_sizes), USUAL_NOISE**2), floor
    if noise.is_lack_of_fit:
        # The law's own error is no noise: more seeds do not average it away.
        error = systematic_error(surface, surface.num_parameters)
        return runs.relative_variance, floor + error**2
    scale = noise.scale**2
    if runs.noise_degrees:
        return scale * runs.relative_variance, scale * floor
    # Residuals alone tell the noise; repeats will average it away.
    return np.full(len(runs.batch_sizes), (scale - 1) * floor), floor


def _shapes(
    law: ConvergenceLaw, sizes: FloatArray, smallest_run: float
) -> tuple[FloatArray, FloatArray]:
    """Return offsets of ln r, and ln(S/E_min) less the law's: (ratios, others, m)."""
    offsets = np.concatenate([-FAR[::-1], [0.0], FAR])
    knees, floors = np.array([law.knee_exponent]), np.array([law.min_batch_size])
    away = np.exp(np.concatenate([[0.0], -THIRD_AWAY, THIRD_AWAY]))
    if law.name == "knee":
        knees = np.clip(law.knee_exponent * away, 0.5, 8)
    elif law.name == "floor":
        gap = smallest_run - law.min_batch_size
        floors = np.maximum(smallest_run - gap * away, 0.0)
    ratio = law.min_steps / law.min_examples * np.exp(offsets)
    num = len(knees) * len(floors)
    shape = _log_shape(
        sizes,
        np.repeat(ratio, num),
        np.tile(np.resize(knees, num), len(ratio)),
        np.tile(np.resize(floors, num), len(ratio)),
    ).reshape(len(ratio), num, len(sizes))
    return offsets, shape - shape[len(FAR), 0]


def _log_shape(
    sizes: FloatArray, ratios: FloatArray, knees: FloatArray, floors: FloatArray
) -> FloatArray:
    """Return ln(S/E_min), shape (g, m), out of all reach but finite up to a floor."""
    above = np.maximum(sizes - floors[:, None], 1e-9)
    return log_shape(1 / above, ratios[:, None], knees[:, None])
