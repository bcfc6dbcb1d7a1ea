"""Whether a fitted law can be believed, and what to run next where it cannot."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from rightbatch.convergence.profile import Surface, free_exponent_chi2
from rightbatch.convergence.runs import RepeatedRuns
from rightbatch.fitting import Interval, log_scale_profile

Status = Literal["ok", "unidentifiable", "misfit"]

LACK_OF_FIT_P = 0.01
NESTED_P = 0.005
# Systematic error, rms, above which a proven misfit makes the law unfit for a plan.
LARGE_MISFIT = 0.10
WIDEST_RATIO = 4.0


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
        quantile = float(stats.t.ppf((1 + level) / 2, self.degrees))
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
    return float(stats.f.sf(chi2.min() / spare, spare, runs.noise_degrees))


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
    return float(stats.f.sf(gain / max(variance, 1e-12), 1, degrees))


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
    rise = runs.log_steps[None, :] - runs.log_steps[:, None]
    sigma = np.sqrt(variance[None, :] + variance[:, None])
    score = np.triu(rise / sigma, 1)
    if score.max() <= 3:
        return None
    small, large = np.unravel_index(score.argmax(), score.shape)
    return float(runs.batch_sizes[small]), float(runs.batch_sizes[large])


def judge(
    surface: Surface, noise: Noise, min_steps: Interval, critical: Interval
) -> tuple[Status, str, list[str]]:
    """Return the status of a fit, what to do next, and lesser warnings.

    Args:
        surface: The chosen law.
        noise: Its noise.
        min_steps: Interval of S_min.
        critical: Interval of the critical batch size.

    Returns:
        Status, one sentence of advice, warnings.
    """
    runs = surface.runs
    rise = rising_batch_sizes(runs, noise)
    rising = "" if rise is None else _rising_advice(*rise)
    if surface.law.min_steps <= 0 or not _is_narrow(critical):
        advice = rising or _unidentifiable_advice(runs, min_steps, critical)
        return "unidentifiable", advice, []
    if rising:
        return "misfit", rising, []
    error = systematic_error(surface, 3 if surface.law.name == "knee" else 2)
    proof = _proof_of_misfit(surface, noise)
    if proof and error > LARGE_MISFIT:
        advice = (
            f"The law is off by {error:.0%} rms beyond noise ({proof}): plan between "
            "the batch sizes measured, and run more of them around the chosen one."
        )
        return "misfit", advice, []
    warnings = (
        [f"small but significant misfit ({proof}, {error:.1%} rms)"] if proof else []
    )
    return "ok", _ok_advice(runs), warnings


def _rising_advice(small: float, large: float) -> str:
    return (
        f"Steps rise from batch size {small:g} to {large:g}, which no such law allows: "
        f"run batch size {large:g} again with other learning rates."
    )


def _is_narrow(critical: Interval) -> bool:
    if critical.low is None or critical.high is None:
        return False
    return critical.high / critical.low <= WIDEST_RATIO


def _proof_of_misfit(surface: Surface, noise: Noise) -> str:
    if noise.lack_of_fit_p is not None and noise.lack_of_fit_p < LACK_OF_FIT_P:
        return f"lack of fit, p = {noise.lack_of_fit_p:.1g}"
    if surface.law.name == "knee" or len(surface.runs.batch_sizes) < 5:
        return ""
    p = nested_p(surface, free_exponent_chi2(surface.runs))
    return f"the exponent of 1/B is not 1, p = {p:.1g}" if p < NESTED_P else ""


def _unidentifiable_advice(
    runs: RepeatedRuns, min_steps: Interval, critical: Interval
) -> str:
    small, large = runs.batch_sizes[[0, -1]]
    if runs.noise_degrees == 0 and len(runs.batch_sizes) == 2:
        return (
            "Two runs fit any law exactly: repeat both batch sizes with other seeds, "
            f"or add one near {math.sqrt(small * large):.0f}."
        )
    if min_steps.high is not None and min_steps.high < 0:
        return (
            "S_min is negative beyond doubt: your batches are below the data-optimal "
            "one, and larger batches cost no extra examples. Run batch sizes "
            f"{4 * large:g} and {16 * large:g}."
        )
    if critical.low is None:
        return (
            "Steps do not fall with the batch size, so E_min cannot be told from 0: "
            f"run batch sizes {_below(small)}, or tune the learning rate."
        )
    if critical.high is None:
        return (
            "Examples hardly grow with the batch size yet, so S_min cannot be told "
            f"from 0: run batch sizes {4 * large:g} and {16 * large:g}."
        )
    return _wide_advice(runs, critical)


def _wide_advice(runs: RepeatedRuns, critical: Interval) -> str:
    small, large = runs.batch_sizes[[0, -1]]
    spans = (
        f"The interval of the critical batch size spans {critical.low:.3g} to "
        f"{critical.high:.3g}: run"
    )
    value = critical.value or small
    if value < small and small > 1:
        return f"{spans} batch sizes {_below(small)}; all so far lie above it."
    if value > large:
        above = f"{4 * large:g} and {16 * large:g}"
        return f"{spans} batch sizes {above}; all so far lie below it."
    return f"{spans} {_ends(runs)} with two more seeds each."


def _ok_advice(runs: RepeatedRuns) -> str:
    if len(runs.batch_sizes) == 2:
        return (
            "Two batch sizes fit the law exactly and cannot test it: add a run near "
            f"{math.sqrt(runs.batch_sizes[0] * runs.batch_sizes[1]):.0f}."
        )
    return f"To narrow the interval, run {_ends(runs)} with more seeds."


def _below(small: float) -> str:
    sizes = sorted({max(round(small / 16), 1), max(round(small / 4), 1)})
    return " and ".join(str(size) for size in sizes)


def _ends(runs: RepeatedRuns) -> str:
    return f"batch sizes {runs.batch_sizes[0]:g} and {runs.batch_sizes[-1]:g}"
