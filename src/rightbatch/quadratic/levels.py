"""Levels of noise, start and irreducible loss, calibrated on real runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.fitting import Interval, half_width
from rightbatch.quadratic.dynamics import loss_after
from rightbatch.quadratic.optimizers import Optimizer
from rightbatch.quadratic.problem import (
    NoisyQuadratic,
    check_target,
    refuse_label_noise,
)
from rightbatch.quadratic.spectrum import FloatArray

LevelName = Literal["noise", "start", "irreducible_loss"]
LEVELS: tuple[LevelName, ...] = get_args(LevelName)
StepsModel = Callable[[NoisyQuadratic, Optimizer, float, float], float]
"""(problem, optimizer, batch size, target) -> steps, a real number; infinity if none.

It should be continuous in the problem, for instance interpolated between two steps.
"""

CAVEAT = (
    "the levels also take up what the model lacks: curvature and noise that change "
    "along the way, directions that mix"
)
STEEP = 100  # how much better one mix of levels may be known than another
MOST = math.log(1e6)  # how far a level may be from what was measured


def with_levels(
    problem: NoisyQuadratic,
    *,
    noise: float = 1.0,
    start: float = 1.0,
    irreducible_loss: float | None = None,
) -> NoisyQuadratic:
    """Return the problem with its noise and its start multiplied.

    Args:
        problem: What to change.
        noise: Factor of the noise variances, not negative.
        start: Factor of the second moments at the start, not negative.
        irreducible_loss: The new one; None keeps it.

    Returns:
        Another problem on the same curvatures.

    Raises:
        InputError: A level is out of range.
    """
    _checks.nonnegative("with_levels", "noise", noise)
    _checks.nonnegative("with_levels", "start", start)
    floor = problem.irreducible_loss if irreducible_loss is None else irreducible_loss
    return replace(
        problem,
        noise=problem.noise_variances * noise,
        initial_second_moments=problem.start * start,
        irreducible_loss=floor,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """One run to a target: how it went.

    Args:
        optimizer: With the settings it had.
        batch_size: Examples per step.
        steps: To the target.

    Raises:
        InputError: A number is not positive.
    """

    optimizer: Optimizer
    batch_size: float
    steps: float

    def __post_init__(self) -> None:
        _checks.positive("MeasuredRun", "batch_size", self.batch_size)
        _checks.positive("MeasuredRun", "steps", self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCurve:
    """Losses recorded along one run at constant settings.

    Args:
        optimizer: With the settings it had.
        batch_size: Examples per step.
        steps: Steps done when each loss was read. Shape (k,).
        losses: Shape (k,), all positive.

    Raises:
        InputError: The batch size or a loss is not positive, or shapes differ.
    """

    optimizer: Optimizer
    batch_size: float
    steps: Sequence[int]
    losses: Sequence[float]

    def __post_init__(self) -> None:
        _checks.positive("LossCurve", "batch_size", self.batch_size)
        losses = _checks.positive_array("LossCurve", "losses", self.losses)
        if losses.size != len(self.steps):
            raise InputError(
                f"LossCurve: `losses` must be as many as `steps`, got {losses.size} "
                f"and {len(self.steps)}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelFit:
    """A problem whose levels were calibrated, and how far to trust them.

    Args:
        problem: With the fitted levels.
        levels: Estimate of each free level: ``noise`` and ``start`` are factors of what
            was measured. Intervals take residuals as independent, which neighbouring
            points of one curve are not.
        misfit: Root mean square of the logarithmic residuals, .1 for about 10 %.
        num_points: Runs or losses fitted.
        warnings: What to know before using it; never empty.
    """

    problem: NoisyQuadratic
    levels: dict[LevelName, Interval]
    misfit: float
    num_points: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without the problem."""
        return {
            "levels": {name: level.to_dict() for name, level in self.levels.items()},
            "misfit": self.misfit,
            "num_points": self.num_points,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        found = ", ".join(f"{name} {level}" for name, level in self.levels.items())
        return f"{found}; misfit {100 * self.misfit:.2g} %"


def fit_levels_to_curves(
    problem: NoisyQuadratic,
    curves: Sequence[LossCurve],
    free: Sequence[LevelName] = LEVELS,
    *,
    level: float = 0.9,
) -> LevelFit:
    """Return the problem with the levels that fit recorded losses best.

    The expected loss is linear in all three levels; they minimise the squares of the
    logarithmic residuals. Curves of one batch size and one lr often cannot tell noise
    from irreducible loss: the fit then warns, and its intervals are wide.

    Args:
        problem: As measured.
        curves: Recorded losses, of one or more runs.
        free: Which levels to fit; the others stay as they are.
        level: Of the intervals.

    Returns:
        The fit.

    Raises:
        InputError: A level is unknown or named twice, there are fewer losses than
            levels, a run would diverge, or the problem has label noise.
    """
    who = "fit_levels_to_curves"
    names = _free(who, problem, free)
    if not curves:
        raise InputError(f"{who}: `curves` must not be empty.")
    measured = np.concatenate([np.asarray(c.losses, dtype=float) for c in curves])
    bias, noise = (
        np.concatenate(
            [loss_after(p, c.optimizer, c.batch_size, c.steps) for c in curves]
        )
        for p in (
            with_levels(problem, noise=0, irreducible_loss=0),
            with_levels(problem, start=0, irreducible_loss=0),
        )
    )
    if not (np.isfinite(bias).all() and np.isfinite(noise).all()):
        raise InputError(
            f"{who}: `curves` must be of runs that are stable in the model.",
            "lr times the largest curvature is beyond the stability edge",
        )

    def predicted(levels: dict[LevelName, float]) -> FloatArray:
        start = levels.get("start", 1.0) * bias
        floor = levels.get("irreducible_loss", problem.irreducible_loss)
        return floor + start + levels.get("noise", 1.0) * noise

    return _fit(problem, names, measured, predicted, (float(measured.min()), level))


def fit_levels_to_runs(
    problem: NoisyQuadratic,
    runs: Sequence[MeasuredRun],
    target: float,
    steps_model: StepsModel,
    free: Sequence[LevelName] = ("noise", "start"),
    *,
    level: float = 0.9,
) -> LevelFit:
    """Return the problem with the levels whose steps to a target fit a few runs best.

    Least squares on log steps, from the best of a grid of levels.

    Args:
        problem: As measured.
        runs: At least as many as levels; batch sizes from where steps fall as 1/B to
            where they are flat tell noise from start.
        target: Loss they all ran to.
        steps_model: How many steps a problem takes, a real number.
        free: Which levels to fit; the others stay as they are.
        level: Of the intervals.

    Returns:
        The fit.

    Raises:
        InputError: A level is unknown or named twice, there are fewer runs than levels,
            the target is not between the irreducible and the initial loss, or the
            problem has label noise.
    """
    who = "fit_levels_to_runs"
    names = _free(who, problem, free)
    check_target(who, problem, target)
    if not runs:
        raise InputError(f"{who}: `runs` must not be empty.")

    def predicted(levels: dict[LevelName, float]) -> FloatArray:
        moved = with_levels(problem, **levels)
        if moved.initial_loss <= target:
            return np.ones(len(runs))
        return np.array(
            [steps_model(moved, r.optimizer, r.batch_size, target) for r in runs]
        )

    measured = np.array([r.steps for r in runs], dtype=float)
    return _fit(problem, names, measured, predicted, (target, level))


# The fit ----------------------------------------------------------------------------


def _fit(
    problem: NoisyQuadratic,
    names: tuple[LevelName, ...],
    measured: FloatArray,
    predicted: Callable[[dict[LevelName, float]], FloatArray],
    ceiling_and_level: tuple[float, float],
) -> LevelFit:
    """Return the least squares on logarithms; irreducible loss below the ceiling.

    Raises:
        InputError: There are fewer measurements than levels.
    """
    from scipy.optimize import least_squares

    ceiling, level = ceiling_and_level
    _checks.confidence_level("fit_levels", level)
    if measured.size < len(names):
        raise InputError(
            f"fit_levels: there must be at least as many measurements as levels, got "
            f"{measured.size} for {', '.join(names)}.",
            "fit fewer levels",
        )

    def levels_at(point: FloatArray) -> dict[LevelName, float]:
        return {
            name: ceiling * float(value)
            if name == "irreducible_loss"
            else math.exp(value)
            for name, value in zip(names, point, strict=True)
        }

    def residuals(point: FloatArray) -> FloatArray:
        # A target out of reach is a very large number of steps, still finite.
        return np.log(np.clip(predicted(levels_at(point)), 1e-30, 1e30) / measured)

    flat = [name == "irreducible_loss" for name in names]
    low = np.where(flat, 0.0, -MOST)
    high = np.where(flat, 1 - 1e-9, MOST)
    first = min(
        _starting_points(problem, names, ceiling),
        key=lambda point: float((residuals(point) ** 2).sum()),
    )
    found = least_squares(
        residuals, first, bounds=(low, high), x_scale="jac", diff_step=1e-5
    )
    point, jacobian, left = found.x, found.jac, found.fun
    spreads, warnings = _spreads(names, jacobian, left, level)
    at_end = (point - low < 1e-4) | (high - point < 1e-4)
    for name in np.array(names)[at_end]:
        warnings.append(f"{name} ran to the end of its range and has no interval")
    spreads = np.where(at_end, np.inf, spreads)
    return LevelFit(
        problem=with_levels(problem, **levels_at(point)),
        levels={
            name: _interval(name, (value, spread), ceiling, level)
            for name, value, spread in zip(names, point, spreads, strict=True)
        },
        misfit=float(np.sqrt((left**2).mean())),
        num_points=measured.size,
        warnings=(CAVEAT, *warnings),
    )


def _starting_points(
    problem: NoisyQuadratic, names: tuple[LevelName, ...], ceiling: float
) -> list[FloatArray]:
    factors = np.log([0.01, 0.1, 1.0, 10.0])
    now = min(max(problem.irreducible_loss / ceiling, 0.01), 0.9)
    axes = [
        np.array([now, 0.5]) if name == "irreducible_loss" else factors
        for name in names
    ]
    grid = np.meshgrid(*axes, indexing="ij")
    return list(np.stack([axis.ravel() for axis in grid], axis=1))


def _spreads(
    names: tuple[LevelName, ...], jacobian: FloatArray, left: FloatArray, level: float
) -> tuple[FloatArray, list[str]]:
    """Return half the widths of the intervals, and what to warn of."""
    degrees = left.size - len(names)
    columns = np.linalg.norm(jacobian, axis=0)
    scaled = jacobian / np.where(columns > 0, columns, 1)
    singular = np.linalg.svd(scaled, compute_uv=False)
    warnings = list[str]()
    known = bool(singular[-1] > 0 and columns.min() > 0)
    if not known or singular[0] / singular[-1] > STEEP:
        warnings.append(
            f"these measurements hardly tell {' from '.join(names)}: vary the batch "
            f"size more, or fit fewer levels"
        )
    if degrees <= 0:
        warnings.append("as many levels as measurements: it fits whatever was measured")
    if not known or degrees <= 0:
        return np.full(len(names), np.inf), warnings
    variance = float(left @ left) / degrees
    errors = np.sqrt(np.diag(np.linalg.inv(scaled.T @ scaled)) * variance) / columns
    return half_width(degrees, level) * errors, warnings


def _interval(
    name: LevelName, estimate: tuple[float, float], ceiling: float, level: float
) -> Interval:
    value, spread = estimate
    bounded = bool(np.isfinite(spread) and spread < 2 * MOST)
    if name == "irreducible_loss":
        ends = [ceiling * max(value - spread, 0.0), ceiling * min(value + spread, 1.0)]
        centre = ceiling * value
    else:
        shift = spread if bounded else 0.0
        ends = [math.exp(value - shift), math.exp(value + shift)]
        centre = math.exp(value)
    low, high = ends if bounded else (None, None)
    return Interval(
        value=centre,
        low=low,
        high=high,
        level=level,
        unit="loss" if name == "irreducible_loss" else "times as measured",
        definition=f"{name}, least squares on logarithms",
    )


def _free(
    who: str, problem: NoisyQuadratic, free: Sequence[LevelName]
) -> tuple[LevelName, ...]:
    """Return the names of the levels to fit.

    Raises:
        InputError: There are none, one is unknown or named twice, or the problem has
            label noise.
    """
    refuse_label_noise(who, problem)
    if not free or len(set(free)) < len(free):
        raise InputError(f"{who}: `free` must name levels, each once, got {free!r}.")
    for name in free:
        _checks.one_of(who, "free", name, LEVELS)
    return tuple(free)
