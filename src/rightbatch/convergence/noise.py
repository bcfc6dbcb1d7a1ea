"""How much of a fit's scatter is noise, and how much is the law's own error."""

import math
from dataclasses import dataclass

import numpy as np

from rightbatch.convergence.profile import Surface
from rightbatch.convergence.runs import RepeatedRuns
from rightbatch.fitting import FloatArray, f_test, half_width, log_scale_profile

LACK_OF_FIT_P = 0.01
# Scatter of ln S between seeds, taken for granted where nothing tells it.
USUAL_NOISE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The noise level that intervals use.

    Args:
        scale: Factor on the assumed standard errors; None when nothing tells it.
        degrees: Degrees of freedom of the t quantile.
        lack_of_fit_p: Probability of such residuals if the law were true and repeats
            the only noise; None without repeats.
    """

    scale: float | None
    degrees: int
    lack_of_fit_p: float | None

    @property
    def is_lack_of_fit(self) -> bool:
        """True where the law is proven not to hold, so that residuals set the scale."""
        return self.lack_of_fit_p is not None and self.lack_of_fit_p < LACK_OF_FIT_P

    def threshold(self, best_chi2: float, level: float) -> float:
        """Return the largest chi-square inside a profile interval.

        Args:
            best_chi2: Minimum of the surface.
            level: Two-sided level of the interval.

        Returns:
            Chi-square; infinity when the noise is unknown.
        """
        if self.scale is None:
            return math.inf
        quantile = half_width(self.degrees, level)
        return best_chi2 + (self.scale * quantile) ** 2


def measure_noise(surface: Surface, num_parameters: int) -> Noise:
    """Return the noise pooled from repeats and residuals.

    Where the law is proven not to hold (lack of fit, p < .01), the residuals alone set
    the scale: repeats would promise more than the curve can keep.

    Args:
        surface: The fitted surface.
        num_parameters: Of the law.

    Returns:
        Scale, degrees of freedom and the lack-of-fit probability.
    """
    runs = surface.runs
    repeats, spare = runs.noise_degrees, len(runs.batch_sizes) - num_parameters
    chi2 = surface.best_chi2
    p = _lack_of_fit_p(surface, spare)
    if repeats + spare <= 0:
        return Noise(scale=None, degrees=0, lack_of_fit_p=p)
    if p is not None and p < LACK_OF_FIT_P:
        scale = math.sqrt(max(chi2 / spare, 1.0))
        return Noise(scale=scale, degrees=spare, lack_of_fit_p=p)
    if repeats:
        scale = math.sqrt((repeats + chi2) / (repeats + spare))
    else:
        scale = math.sqrt(max(chi2 / spare, 1.0))
    return Noise(scale=scale, degrees=repeats + spare, lack_of_fit_p=p)


def _lack_of_fit_p(surface: Surface, spare: int) -> float | None:
    runs = surface.runs
    if runs.noise_degrees == 0 or spare <= 0:
        return None
    # Repeats alone, without the floor: the floor is a guard, not a measurement. Repeats
    # that agree to the last digit say nothing, so the floor stands in for them.
    variance = runs.repeat_variance
    if not variance.all():
        variance = runs.mean_variance
    chi2, _ = log_scale_profile(runs.log_steps, surface.shapes, 1 / variance)
    return f_test(float(chi2.min()) / spare, spare, runs.noise_degrees)


def systematic_error(surface: Surface, num_parameters: int) -> float:
    """Return the rms error of the law beyond what noise explains, a fraction.

    Args:
        surface: The fitted surface.
        num_parameters: Of the law.

    Returns:
        Zero where noise explains everything.
    """
    spare = len(surface.runs.batch_sizes) - num_parameters
    if spare <= 0:
        return 0.0
    excess = (surface.residuals**2).sum() / spare - surface.runs.mean_variance.mean()
    return math.sqrt(max(float(excess), 0.0))


def nested_p(surface: Surface, wider_chi2: float) -> float:
    """Return the probability of so much gain from one more parameter by chance.

    Args:
        surface: Of the two-parameter law.
        wider_chi2: Least chi-square with a third parameter free.

    Returns:
        p of the F test; 1 with fewer than five batch sizes, too few to tell.
    """
    runs = surface.runs
    if len(runs.batch_sizes) < 5:
        return 1.0
    repeats, spare = runs.noise_degrees, len(runs.batch_sizes) - 3
    degrees = repeats + spare
    variance = (repeats + wider_chi2) / degrees if repeats else wider_chi2 / spare
    gain = max(surface.best_chi2 - wider_chi2, 0.0)
    return f_test(gain / max(variance, 1e-12), 1, degrees)


def rising_batch_sizes(runs: RepeatedRuns, noise: Noise) -> tuple[float, float] | None:
    """Return the batch sizes between which the steps rise by more than 3 sigma.

    Args:
        runs: The runs.
        noise: Used where there are no repeats.

    Returns:
        The smaller and the larger batch size of the steepest rise, or None.
    """
    variance = runs.mean_variance
    if runs.noise_degrees == 0:
        variance = variance * max(noise.scale or 1.0, 1.0) ** 2
    return _steepest_rise(runs, variance)


def suspected_rise(runs: RepeatedRuns) -> tuple[float, float] | None:
    """Return the same for single runs, their noise taken to be a usual 10 %.

    Without repeats a rise counts as noise in the fit, so it would never be proven; it
    is worth a word all the same.

    Args:
        runs: The runs.

    Returns:
        The smaller and the larger batch size; None with repeats, or without a rise.
    """
    if runs.noise_degrees:
        return None
    return _steepest_rise(runs, np.full(len(runs.batch_sizes), USUAL_NOISE**2))


def _steepest_rise(
    runs: RepeatedRuns, variance: FloatArray
) -> tuple[float, float] | None:
    rise = runs.log_steps[None, :] - runs.log_steps[:, None]
    sigma = np.sqrt(variance[None, :] + variance[:, None])
    score = np.triu(rise / sigma, 1)
    if score.max() <= 3:
        return None
    small, large = np.unravel_index(score.argmax(), score.shape)
    return float(runs.batch_sizes[small]), float(runs.batch_sizes[large])
