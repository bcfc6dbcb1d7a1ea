"""Fits of a convergence law to runs, with intervals, errors and a verdict."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.convergence.choice import LAWS, Candidate, LawName, choose
from rightbatch.convergence.definitions import definitions_of
from rightbatch.convergence.diagnosis import Diagnosis, Status, examine
from rightbatch.convergence.law import ConvergenceDraws, ConvergenceLaw
from rightbatch.convergence.noise import Noise, measure_noise
from rightbatch.convergence.outliers import set_aside_typing_errors
from rightbatch.convergence.profile import Surface, best_law, log_shape
from rightbatch.convergence.runs import RepeatedRuns, group_runs
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, Interval, profile_limits, redrawn_scales

Limits = tuple[float | None, float | None]


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
        diagnosis: Status, what is wrong with the runs, and which to buy next.
        warnings: Lesser troubles, in plain words.
        min_steps: S_min with its interval, steps.
        min_examples: E_min with its interval, examples.
        critical_batch_size: phi = E_min/S_min with its interval, examples.
        min_batch_size: The feasibility floor with its interval; None for a law without.
        candidates: Every law that was tried, the chosen one first.
        points: What was measured, one entry per batch size.
        leave_one_out_error: Median over batch sizes of the relative error of the fit to
            the others; None with fewer than four batch sizes.
        level: Level of the intervals and of the band.
        surface: The least-squares surface that intervals and draws come from.
        noise: The noise level.
        example_unit: What the loss averages over: ``example``, ``token``, ...
    """

    law: ConvergenceLaw
    diagnosis: Diagnosis
    warnings: tuple[str, ...]
    min_steps: Interval
    min_examples: Interval
    critical_batch_size: Interval
    min_batch_size: Interval | None
    candidates: tuple[Candidate, ...]
    points: tuple[BatchPoint, ...]
    leave_one_out_error: float | None
    level: float
    surface: Surface
    noise: Noise
    example_unit: str = "example"

    @property
    def status(self) -> Status:
        """``ok``, ``unidentifiable`` or ``misfit``."""
        return self.diagnosis.status

    @property
    def advice(self) -> str:
        """One sentence: what to run next."""
        return self.diagnosis.advice

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
                _inverse_above(batch, self.surface.floors[inside, None]),
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
        drawn = self.surface.refit(centre + errors * spread)
        steps, examples, knees, floors = drawn
        return ConvergenceDraws(
            min_steps=steps,
            min_examples=examples,
            knee_exponent=knees,
            min_batch_size=floors,
        )

    def curve(self, num: int = 60) -> dict[str, list[float | None]]:
        """Return law and band on a geometric grid, to a factor 3 beyond the data.

        Args:
            num: Points.

        Returns:
            Lists under `batch_size`, `steps`, `low`, `high`; None where unbounded.
        """
        small, large = self.fitted_range
        # Up to the floor there is no curve; it lies below every batch size run.
        least = min(max(small / 3, 1, 1.05 * self.law.min_batch_size), small)
        grid = np.geomspace(least, large * 3, num)
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
            "example_unit": self.example_unit,
            **self.diagnosis.to_dict(),
            "min_steps": self.min_steps.to_dict(),
            "min_examples": self.min_examples.to_dict(),
            "critical_batch_size": self.critical_batch_size.to_dict(),
            "min_batch_size": self.min_batch_size and self.min_batch_size.to_dict(),
            "definitions": definitions_of(self),
            "runners_up": [one.to_dict() for one in self.candidates],
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
    example_unit: str = "example",
) -> ConvergenceFit:
    """Return the convergence law fitted to runs.

    Residuals are in ln S; each batch size weighs by the inverse variance of its mean,
    with a floor of 2 %. A knee or a feasibility floor is taken where the corrected
    Akaike criterion is better by more than 2. A batch size that a typing error must
    have moved is set aside and named.

    Args:
        batch_sizes: One per run, shape (N,), examples; at least two different ones.
        steps: Steps to the target of each run, shape (N,).
        law: ``inverse``, ``knee``, ``floor``, or the best of them.
        level: Of the intervals.
        example_unit: What batch sizes count.

    Returns:
        The fit with intervals, errors, status and advice.

    Raises:
        InputError: Fewer than two batch sizes, or a value is not a positive number.

    Example:
        >>> fit = fit_convergence([8, 32, 128, 512], [500, 212, 140, 118])
        >>> fit.status, round(fit.law.critical_batch_size)
        ('ok', 27)
    """
    _checks.one_of("fit", "law", law, ["auto", *LAWS])
    _checks.confidence_level("fit", level)
    batch = _checks.positive_array("fit", "batch_sizes", batch_sizes)
    count = _checks.positive_array("fit", "steps", steps)
    everything = group_runs(batch, count)
    if len(everything.batch_sizes) < 2:
        raise InputError(
            "fit: needs runs at two batch sizes or more, got only batch size "
            f"{everything.batch_sizes[0]:g}.",
            "add runs at a batch size at least four times larger or smaller",
        )
    keep, notes = set_aside_typing_errors(batch, count)
    runs = group_runs(batch[keep], count[keep])
    surface, candidates, choice = choose(runs, law)
    noise = measure_noise(surface, surface.num_parameters)
    threshold = noise.threshold(surface.best_chi2, level)
    found = _intervals(surface, threshold, level, f"{example_unit}s")
    min_steps, min_examples, critical = found
    diagnosis = examine(
        surface,
        noise,
        min_steps,
        critical,
        batch_sizes=batch[keep],
        steps=count[keep],
    )
    return ConvergenceFit(
        law=surface.law,
        diagnosis=diagnosis,
        warnings=(*notes, *choice, *diagnosis.warnings),
        min_steps=min_steps,
        min_examples=min_examples,
        critical_batch_size=critical,
        min_batch_size=_floor_interval(surface, threshold, level, f"{example_unit}s"),
        candidates=candidates,
        points=_points(everything, runs),
        leave_one_out_error=_leave_one_out_error(runs, surface.law.name),
        level=level,
        surface=surface,
        noise=noise,
        example_unit=example_unit,
    )


def _region(surface: Surface, threshold: float) -> tuple[Any, FloatArray]:
    """Return the grid points inside the region, and ln E_min's half width there."""
    inside = surface.chi2 <= max(threshold, surface.chi2.min())
    weight = float((1 / surface.runs.mean_variance).sum())
    spare = np.maximum(threshold - surface.chi2[inside], 0.0)
    return inside, np.sqrt(spare / weight)


def _inverse_above(batch: FloatArray, floors: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return 1 / np.maximum(batch - floors, 0.0)


def _floor_interval(
    surface: Surface, threshold: float, level: float, unit: str
) -> Interval | None:
    if surface.law.name != "floor":
        return None
    low, high = None, None
    if math.isfinite(threshold):
        low, high = _profile_of(surface, surface.floors, threshold)
    return Interval(
        value=surface.law.min_batch_size,
        low=low if low is not None else 0.0,
        # A floor at or above the smallest batch that reached the target is impossible.
        high=high if high is not None else float(surface.runs.batch_sizes[0]),
        level=level,
        unit=unit,
        definition="batch size up to which the target is out of reach",
    )


def _intervals(
    surface: Surface, threshold: float, level: float, unit: str
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
            unit=unit,
            definition=(
                "steps times batch size above the floor, without the fewest steps"
                if law.name == "floor"
                else "examples to the target as the batch size goes to zero"
            ),
        ),
        Interval(
            value=law.critical_batch_size if law.min_steps > 0 else None,
            low=critical[0],
            high=critical[1],
            level=level,
            unit=unit,
            definition="even trade of steps and examples, E_min/S_min",
        ),
    )


def _limits(surface: Surface, threshold: float) -> tuple[Limits, Limits, Limits]:
    """Return the limits of S_min, E_min and phi over the joint profile region."""
    low_ratio, high_ratio = _profile_of(surface, surface.ratios, threshold)
    inside, half = _region(surface, threshold)
    least = np.exp(surface.log_scale[inside] - half)
    most = np.exp(surface.log_scale[inside] + half)
    ratios = surface.ratios[inside]
    steps = np.concatenate([ratios * least, ratios * most])
    is_flat = high_ratio is None
    return (
        # A knee and a floor go with S_min >= 0: no lower end of r means that 0 is in.
        (0.0 if low_ratio is None else float(steps.min()), float(steps.max())),
        (None if is_flat else float(least.min()), float(most.max())),
        (
            1 / high_ratio if high_ratio and high_ratio > 0 else None,
            1 / low_ratio if low_ratio and low_ratio > 0 else None,
        ),
    )


def _profile_of(surface: Surface, values: FloatArray, threshold: float) -> Limits:
    grid, place = np.unique(values, return_inverse=True)
    profile = np.full(len(grid), math.inf)
    np.minimum.at(profile, place, surface.chi2)
    # A minimum between two grid points can be lower than both; the limits must exist.
    return profile_limits(grid, profile, max(threshold, float(profile.min())))


def _leave_one_out_error(runs: RepeatedRuns, law_name: str) -> float | None:
    num = len(runs.batch_sizes)
    if num < (4 if law_name == "inverse" else 5):
        return None
    predicted = [
        best_law(runs.without(j), law_name)[0].steps(runs.batch_sizes[j])
        for j in range(num)
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
