"""Fits of a convergence law to runs, with intervals, errors and a verdict."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.convergence.diagnosis import Noise, Status, judge, measure_noise
from rightbatch.convergence.law import ConvergenceDraws, ConvergenceLaw
from rightbatch.convergence.profile import (
    Surface,
    inverse_surface,
    knee_surface,
    log_shape,
)
from rightbatch.convergence.runs import (
    RepeatedRuns,
    group_runs,
    runs_far_from_their_batch,
)
from rightbatch.errors import InputError
from rightbatch.fitting import (
    FloatArray,
    Interval,
    corrected_aic,
    profile_limits,
    redrawn_scales,
)

LawName = Literal["auto", "inverse", "knee"]

Limits = tuple[float | None, float | None]

TYPING_ERROR = math.log(4)
# Rms residual, in ln S, at which the batch sizes left over do fit a law.
REST_FITS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPoint:
    """What was measured at one batch size.

    Args:
        batch_size: Examples per step.
        mean_steps: Mean steps to the target.
        num_runs: Runs behind the mean.
        relative_sd: Standard deviation of one run over the mean; None for one run.
        excluded: True when set aside as a typing error.
    """

    batch_size: float
    mean_steps: float
    num_runs: int
    relative_sd: float | None
    excluded: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {
            "batch_size": self.batch_size,
            "mean_steps": self.mean_steps,
            "num_runs": self.num_runs,
            "relative_sd": self.relative_sd,
            "excluded": self.excluded,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConvergenceFit:
    """A convergence law fitted to runs, and how far to believe it.

    Args:
        law: The fitted law.
        status: ``ok``, ``unidentifiable`` or ``misfit``.
        advice: One sentence: what to run next.
        warnings: Lesser troubles, in plain words.
        min_steps: S_min with its interval, steps.
        min_examples: E_min with its interval, examples.
        critical_batch_size: phi = E_min/S_min with its interval, examples.
        points: What was measured, one entry per batch size.
        leave_one_out_error: Median over batch sizes of the relative error of the fit to
            the others; None with fewer than four batch sizes.
        level: Level of the intervals and of the band.
        surface: The least-squares surface that intervals and draws come from.
        noise: The noise level.
    """

    law: ConvergenceLaw
    status: Status
    advice: str
    warnings: tuple[str, ...]
    min_steps: Interval
    min_examples: Interval
    critical_batch_size: Interval
    points: tuple[BatchPoint, ...]
    leave_one_out_error: float | None
    level: float
    surface: Surface
    noise: Noise

    @property
    def num_batch_sizes(self) -> int:
        """Batch sizes that the fit used."""
        return len(self.surface.runs.batch_sizes)

    @property
    def median_relative_error(self) -> float:
        """Median over batch sizes of abs(fit / mean steps - 1)."""
        return float(np.median(np.abs(np.expm1(-self.surface.residuals))))

    @property
    def fitted_range(self) -> tuple[float, float]:
        """Smallest and largest batch size of the fit; beyond them it extrapolates."""
        sizes = self.surface.runs.batch_sizes
        return float(sizes[0]), float(sizes[-1])

    @property
    def has_noise(self) -> bool:
        """False when two runs fit exactly and nothing tells the noise."""
        return self.noise.scale is not None

    def steps(self, batch_size: ArrayLike) -> Any:
        """Return the law's steps; the fit serves wherever a law does.

        Args:
            batch_size: Examples per step, any shape.

        Returns:
            Steps, shaped like `batch_size`.
        """
        return self.law.steps(batch_size)

    def band(self, batch_sizes: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the lower and upper end of the steps at each batch size.

        The extremes over the joint profile region of the parameters.

        Args:
            batch_sizes: Shape (m,), examples.

        Returns:
            Two arrays (m,); zeros and infinities when the noise is unknown.
        """
        batch = np.atleast_1d(np.asarray(batch_sizes, dtype=float))
        if not self.has_noise:
            return np.zeros_like(batch), np.full_like(batch, math.inf)
        inside, half = _region(self.surface, self._threshold)
        centre = (
            log_shape(
                1 / batch,
                self.surface.ratios[inside, None],
                self.surface.knees[inside, None],
            )
            + self.surface.log_scale[inside, None]
        )
        low = np.exp((centre - half[:, None]).min(0))
        return low, np.exp((centre + half[:, None]).max(0))

    def draws(self, num: int = 1000, *, seed: int = 0) -> ConvergenceDraws | None:
        """Return laws that the data could as well have given: a parametric bootstrap.

        Noise is redrawn with its own uncertainty, new means are drawn around the fitted
        law, and the law is fitted again.

        Args:
            num: How many.
            seed: Of the generator.

        Returns:
            The draws; None when the noise is unknown.
        """
        if self.noise.scale is None:
            return None
        generator = np.random.default_rng(seed)
        degrees = float(self.noise.degrees)
        scales = redrawn_scales(generator, num, self.noise.scale, degrees)
        runs = self.surface.runs
        errors = generator.standard_normal((num, len(runs.batch_sizes)))
        spread = scales[:, None] * np.sqrt(runs.mean_variance)
        centre = np.log(self.law.steps(runs.batch_sizes))
        steps, examples, knees = self.surface.refit(centre + errors * spread)
        return ConvergenceDraws(
            min_steps=steps, min_examples=examples, knee_exponent=knees
        )

    def curve(self, num: int = 60) -> dict[str, list[float | None]]:
        """Return law and band on a geometric grid, to a factor 3 beyond the data.

        Args:
            num: Points.

        Returns:
            Lists under `batch_size`, `steps`, `low`, `high`; None where unbounded.
        """
        small, large = self.fitted_range
        grid = np.geomspace(max(small / 3, 1), large * 3, num)
        low, high = self.band(grid)
        return {
            "batch_size": grid.tolist(),
            "steps": np.asarray(self.law.steps(grid)).tolist(),
            "low": [_finite_or_none(value) for value in low],
            "high": [_finite_or_none(value) for value in high],
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the stable keys of the command line's JSON."""
        return {
            "law": self.law.name,
            "knee_exponent": self.law.knee_exponent,
            "status": self.status,
            "advice": self.advice,
            "min_steps": self.min_steps.to_dict(),
            "min_examples": self.min_examples.to_dict(),
            "critical_batch_size": self.critical_batch_size.to_dict(),
            "median_relative_error": self.median_relative_error,
            "leave_one_out_error": self.leave_one_out_error,
            "num_batch_sizes": self.num_batch_sizes,
            "fitted_range": list(self.fitted_range),
            "points": [point.to_dict() for point in self.points],
            "curve": self.curve(),
            "warnings": list(self.warnings),
        }

    @property
    def _threshold(self) -> float:
        return self.noise.threshold(self.surface.best_chi2, self.level)


def fit_convergence(
    batch_sizes: ArrayLike,
    steps: ArrayLike,
    *,
    law: LawName = "auto",
    level: float = 0.9,
) -> ConvergenceFit:
    """Return the convergence law fitted to runs.

    Residuals are in ln S; each batch size weighs by the inverse variance of its mean,
    with a floor of 2 %. The knee is taken where the corrected Akaike criterion is
    better by more than 2. A batch size that a typing error must have moved is set aside
    and named.

    Args:
        batch_sizes: One per run, shape (N,), examples; at least two different ones.
        steps: Steps to the target of each run, shape (N,).
        law: ``inverse``, ``knee``, or the better of both.
        level: Of the intervals.

    Returns:
        The fit with intervals, errors, status and advice.

    Raises:
        InputError: Fewer than two batch sizes, or a value is not a positive number.

    Example:
        >>> fit = fit_convergence([8, 32, 128, 512], [500, 212, 140, 118])
        >>> fit.status, round(fit.law.critical_batch_size)
        ('ok', 27)
    """
    _checks.one_of("fit", "law", law, ["auto", "inverse", "knee"])
    batch = _checks.positive_array("fit", "batch_sizes", batch_sizes)
    count = _checks.positive_array("fit", "steps", steps)
    everything = group_runs(batch, count)
    if len(everything.batch_sizes) < 2:
        raise InputError(
            "fit: needs runs at two batch sizes or more, got only batch size "
            f"{everything.batch_sizes[0]:g}.",
            "add runs at a batch size at least four times larger or smaller",
        )
    keep, notes = _set_aside_typing_errors(batch, count)
    runs = group_runs(batch[keep], count[keep])
    surface, choice = _choose(runs, law)
    noise = measure_noise(surface, 3 if surface.law.name == "knee" else 2)
    threshold = noise.threshold(surface.best_chi2, level)
    min_steps, min_examples, critical = _intervals(surface, threshold, level)
    status, advice, warnings = judge(surface, noise, min_steps, critical)
    return ConvergenceFit(
        law=surface.law,
        status=status,
        advice=advice,
        warnings=(*notes, *choice, *warnings),
        min_steps=min_steps,
        min_examples=min_examples,
        critical_batch_size=critical,
        points=_points(everything, runs),
        leave_one_out_error=_leave_one_out_error(runs, surface.law.name),
        level=level,
        surface=surface,
        noise=noise,
    )


def _choose(runs: RepeatedRuns, law: LawName) -> tuple[Surface, list[str]]:
    if law == "knee":
        if len(runs.batch_sizes) < 3:
            raise InputError(
                "fit: a knee needs three batch sizes or more, got "
                f"{len(runs.batch_sizes)}.",
                "use the inverse law",
            )
        return knee_surface(runs), []
    inverse = inverse_surface(runs)
    num = len(runs.batch_sizes)
    if law == "inverse" or math.isinf(corrected_aic(1, num, 3)):
        return inverse, []
    knee = knee_surface(runs)
    gain = corrected_aic(inverse.best_chi2, num, 2) - corrected_aic(
        knee.best_chi2, num, 3
    )
    if gain <= 2 or inverse.law.min_steps <= 0:
        return inverse, []
    note = (
        f"a knee of exponent {knee.law.knee_exponent:.2g} was chosen over the inverse "
        f"law (AICc better by {gain:.1f}), whose critical batch size would be "
        f"{inverse.law.critical_batch_size:.3g}"
    )
    return knee, [note]


def _region(surface: Surface, threshold: float) -> tuple[Any, FloatArray]:
    """Return the grid points inside the region, and ln E_min's half width there."""
    inside = surface.chi2 <= max(threshold, surface.chi2.min())
    weight = float((1 / surface.runs.mean_variance).sum())
    spare = np.maximum(threshold - surface.chi2[inside], 0.0)
    return inside, np.sqrt(spare / weight)


def _intervals(
    surface: Surface, threshold: float, level: float
) -> tuple[Interval, Interval, Interval]:
    law = surface.law
    steps = examples = critical = (None, None)
    if math.isfinite(threshold):
        steps, examples, critical = _limits(surface, threshold)
    return (
        Interval(
            value=law.min_steps,
            low=steps[0],
            high=steps[1],
            level=level,
            unit="steps",
            definition="steps to the target as the batch size grows without end",
        ),
        Interval(
            value=law.min_examples,
            low=examples[0],
            high=examples[1],
            level=level,
            unit="examples",
            definition="examples to the target as the batch size goes to zero",
        ),
        Interval(
            value=law.critical_batch_size if law.min_steps > 0 else None,
            low=critical[0],
            high=critical[1],
            level=level,
            unit="examples",
            definition="even trade of steps and examples, E_min/S_min",
        ),
    )


def _limits(surface: Surface, threshold: float) -> tuple[Limits, Limits, Limits]:
    """Return the limits of S_min, E_min and phi over the joint profile region."""
    low_ratio, high_ratio = _ratio_limits(surface, threshold)
    inside, half = _region(surface, threshold)
    least = np.exp(surface.log_scale[inside] - half)
    most = np.exp(surface.log_scale[inside] + half)
    ratios = surface.ratios[inside]
    steps = np.concatenate([ratios * least, ratios * most])
    is_flat = high_ratio is None
    return (
        (float(steps.min()), float(steps.max())),
        (None if is_flat else float(least.min()), float(most.max())),
        (
            1 / high_ratio if high_ratio and high_ratio > 0 else None,
            1 / low_ratio if low_ratio and low_ratio > 0 else None,
        ),
    )


def _ratio_limits(surface: Surface, threshold: float) -> Limits:
    ratios, place = np.unique(surface.ratios, return_inverse=True)
    profile = np.full(len(ratios), math.inf)
    np.minimum.at(profile, place, surface.chi2)
    # A minimum between two grid points can be lower than both; the limits must exist.
    return profile_limits(ratios, profile, max(threshold, float(profile.min())))


def _set_aside_typing_errors(
    batch: FloatArray, count: FloatArray
) -> tuple[Any, list[str]]:
    keep = np.ones(len(batch), dtype=bool)
    notes: list[str] = []
    for place in runs_far_from_their_batch(batch, count):
        keep[place] = False
        notes.append(
            f"set aside: the run of {count[place]:g} steps at batch size "
            f"{batch[place]:g} is more than four-fold off its repeats"
        )
    runs = group_runs(batch[keep], count[keep])
    if len(runs.batch_sizes) < 4:
        return keep, notes
    suspect = _suspect(runs)
    if suspect is None:
        return keep, notes
    place, predicted = suspect
    size = runs.batch_sizes[place]
    at_size = keep & (batch == size)
    far = at_size & (np.abs(np.log(count / predicted)) > TYPING_ERROR / 2)
    keep &= ~(at_size if far.sum() == at_size.sum() else far)
    notes.append(
        f"set aside: batch size {size:g} took {runs.mean_steps[place]:.4g} steps where "
        f"the others predict {predicted:.4g}; a typing error?"
    )
    return keep, notes


def _suspect(runs: RepeatedRuns) -> tuple[int, float] | None:
    """Return the place of a batch size four-fold off the law of a rest that fits."""
    rests = [inverse_surface(runs.without(j)) for j in range(len(runs.batch_sizes))]
    place = int(np.argmin([rest.best_chi2 for rest in rests]))
    rest = rests[place]
    predicted = float(rest.law.steps(runs.batch_sizes[place]))
    if predicted <= 0 or math.sqrt(float(np.mean(rest.residuals**2))) > REST_FITS:
        return None
    off = abs(math.log(runs.mean_steps[place] / predicted))
    return (place, predicted) if off > TYPING_ERROR else None


def _leave_one_out_error(runs: RepeatedRuns, law_name: str) -> float | None:
    num = len(runs.batch_sizes)
    if num < (5 if law_name == "knee" else 4):
        return None
    surface_of = knee_surface if law_name == "knee" else inverse_surface
    predicted = [
        surface_of(runs.without(j)).law.steps(runs.batch_sizes[j]) for j in range(num)
    ]
    return float(np.median(np.abs(np.array(predicted) / runs.mean_steps - 1)))


def _points(everything: RepeatedRuns, used: RepeatedRuns) -> tuple[BatchPoint, ...]:
    points: list[BatchPoint] = []
    for place, size in enumerate(everything.batch_sizes):
        at = np.flatnonzero(used.batch_sizes == size)
        source, i = (used, int(at[0])) if at.size else (everything, place)
        repeated = source.num_runs[i] > 1
        points.append(
            BatchPoint(
                batch_size=float(size),
                mean_steps=float(source.mean_steps[i]),
                num_runs=int(source.num_runs[i]),
                relative_sd=(
                    float(np.sqrt(source.observed_variance[i])) if repeated else None
                ),
                excluded=at.size == 0,
            )
        )
    return tuple(points)


def _finite_or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
