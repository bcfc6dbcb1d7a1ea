"""Fits of the three-term loss law to rows of (batch size, steps, loss)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.convergence.diagnosis import Status
from rightbatch.convergence.findings import WIDEST_RATIO
from rightbatch.convergence.losses.law import LossLaw
from rightbatch.convergence.losses.surface import (
    DRAW_POINTS,
    LossRows,
    Optimum,
    region_box,
    search,
)
from rightbatch.convergence.losses.target import LossDraws, LossTarget, loss_target
from rightbatch.convergence.noise import LACK_OF_FIT_P
from rightbatch.errors import InputError
from rightbatch.fitting import (
    FloatArray,
    Interval,
    f_test,
    half_width,
    profile_limits,
    redrawn_scales,
)

NUM_PARAMETERS = 5
# No loss is known to more digits than a log prints.
NOISE_FLOOR = 1e-4
# Share of the spread of the losses that a proven misfit may have before a plan on the
# law would be wrong.
LARGE_MISFIT = 0.10
# Rounds of taking residuals relative to the law fitted before; two settle them.
_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossLawFit:
    """A loss law fitted to rows of (batch size, steps, loss), and how far to trust it.

    Args:
        law: The fitted law.
        status: ``ok``, ``unidentifiable`` or ``misfit``.
        advice: One sentence: what to run next.
        warnings: Lesser troubles, in plain words.
        irreducible_loss: L_0 with its interval.
        batch_coefficient: C_B with its interval.
        batch_exponent: b with its interval.
        steps_coefficient: C_S with its interval.
        steps_exponent: c with its interval.
        level: Level of all intervals.
        example_unit: What a batch size counts.
        rows: What was fitted.
        optimum: Where its least squares lie.
        noise: Relative standard deviation of one loss around the law.
        degrees: Degrees of freedom of `noise`.
    """

    law: LossLaw
    status: Status
    advice: str
    warnings: tuple[str, ...]
    irreducible_loss: Interval
    batch_coefficient: Interval
    batch_exponent: Interval
    steps_coefficient: Interval
    steps_exponent: Interval
    level: float
    example_unit: str
    rows: LossRows
    optimum: Optimum
    noise: float
    degrees: int

    @property
    def median_relative_error(self) -> float:
        """Median over rows of abs(law / loss - 1)."""
        fitted = self.law.loss(self.rows.batch_sizes, self.rows.steps)
        return float(np.median(np.abs(fitted / self.rows.losses - 1)))

    @property
    def fitted_range(self) -> tuple[float, float]:
        """Smallest and largest batch size of the fit; beyond them it extrapolates."""
        sizes = self.rows.batch_sizes
        return float(sizes.min()), float(sizes.max())

    @property
    def least_loss(self) -> float:
        """Least loss that a run has shown; below it the law extrapolates."""
        return float(self.rows.losses.min())

    def draws(self, num: int = 1000, *, seed: int = 0) -> LossDraws:
        """Return laws that the data could as well have given: a parametric bootstrap.

        Noise is redrawn with its own uncertainty, new losses are drawn around the
        fitted law, and the law is fitted again, on a grid of exponents that covers
        whatever the data allow.

        Args:
            num: How many.
            seed: Of the generator.

        Returns:
            The draws.
        """
        generator = np.random.default_rng(seed)
        scales = redrawn_scales(generator, num, self.noise, float(self.degrees))
        errors = generator.standard_normal((len(self.rows.losses), num))
        law = self.law.loss(self.rows.batch_sizes, self.rows.steps)
        losses = law[:, None] + errors * scales * self.rows.scale[:, None]
        far = max(4.0, half_width(self.degrees, 0.998))
        wide = self.optimum.squares + (far * self.noise) ** 2
        box = region_box(self.rows, self.optimum, wide)
        surface = self.rows.surface(box, DRAW_POINTS, losses)
        coefficients, squares = surface.solve()
        place = squares.argmin(0)
        chosen = coefficients[place, :, np.arange(num)]
        return LossDraws(
            irreducible_loss=chosen[:, 0],
            batch_coefficient=chosen[:, 1],
            batch_exponent=surface.batch_exponents[place],
            steps_coefficient=chosen[:, 2],
            steps_exponent=surface.steps_exponents[place],
        )

    def at_target(self, target: float) -> LossTarget:
        """Return the curve of steps to a target loss with its intervals.

        Args:
            target: Loss to reach.

        Returns:
            The curve, its least batch size, data-optimal batch size and fewest steps,
            and whether the target can be reached at all.
        """
        return loss_target(self, self.draws(), target)

    def to_dict(self, target: float | None = None) -> dict[str, Any]:
        """Return the stable keys of the command line's JSON.

        Args:
            target: Loss to reach; the parameters alone without one.

        Returns:
            Plain values.
        """
        return {
            "law": "loss",
            "status": self.status,
            "advice": self.advice,
            "irreducible_loss": self.irreducible_loss.to_dict(),
            "batch_coefficient": self.batch_coefficient.to_dict(),
            "batch_exponent": self.batch_exponent.to_dict(),
            "steps_coefficient": self.steps_coefficient.to_dict(),
            "steps_exponent": self.steps_exponent.to_dict(),
            "median_relative_error": self.median_relative_error,
            "num_rows": len(self.rows.losses),
            "num_batch_sizes": len(np.unique(self.rows.batch_sizes)),
            "fitted_range": list(self.fitted_range),
            "least_loss": self.least_loss,
            "example_unit": self.example_unit,
            "at_target": None if target is None else self.at_target(target).to_dict(),
            "warnings": list(self.warnings),
        }


def fit_loss_law(
    batch_sizes: ArrayLike,
    steps: ArrayLike,
    losses: ArrayLike,
    *,
    level: float = 0.9,
    example_unit: str = "example",
) -> LossLawFit:
    """Return the three-term loss law fitted to rows of runs.

    Residuals are relative (the noise of a loss is a share of it) to the law fitted in
    the round before. For fixed exponents the law is linear with no coefficient
    negative; all exponents are searched. Rows count as independent: of one run's curve
    give a few, far apart.

    Args:
        batch_sizes: One per row, shape (N,), examples.
        steps: Steps trained, shape (N,).
        losses: Loss after them, shape (N,), positive.
        level: Of the intervals.
        example_unit: What a batch size counts.

    Returns:
        The fit with intervals, status and advice.

    Raises:
        InputError: Fewer than six rows, or a value is not a positive number.

    Example:
        >>> batch, steps = np.meshgrid([8, 32, 128, 512], [100, 400, 1600, 6400])
        >>> loss = 1.8 + 6 / batch + 40 / steps**0.5
        >>> fit = fit_loss_law(batch.ravel(), steps.ravel(), loss.ravel())
        >>> fit.status, round(fit.law.irreducible_loss, 6)
        ('ok', 1.8)
        >>> round(fit.at_target(2.8).min_batch_size.value, 6)
        6.0
    """
    who = "loss law"
    _checks.confidence_level(who, level)
    batch = _checks.positive_array(who, "batch_sizes", batch_sizes)
    count = _checks.positive_array(who, "steps", steps)
    loss = _checks.positive_array(who, "losses", losses)
    if not len(batch) == len(count) == len(loss):
        raise InputError(
            f"{who}: `batch_sizes`, `steps` and `losses` must pair up, got "
            f"{len(batch)}, {len(count)} and {len(loss)}."
        )
    if len(loss) <= NUM_PARAMETERS:
        raise InputError(
            f"{who}: needs six rows or more for its five parameters, got {len(loss)}.",
            "add losses at other batch sizes and numbers of steps",
        )
    rows = LossRows(batch_sizes=batch, steps=count, losses=loss, scale=loss)
    best = search(rows)
    for _ in range(_ROUNDS - 1):
        rows = rows.relative_to(_law_of(best).loss(batch, count))
        best = search(rows)
    noise, degrees, misfit = _noise(rows, best)
    intervals = _intervals(rows, best, (noise, degrees), level)
    status, advice, warnings = _judge(rows, best, intervals, misfit)
    return LossLawFit(
        law=_law_of(best),
        status=status,
        advice=advice,
        warnings=tuple(warnings),
        **intervals,
        level=level,
        example_unit=example_unit,
        rows=rows,
        optimum=best,
        noise=noise,
        degrees=degrees,
    )


def _law_of(best: Optimum) -> LossLaw:
    floor, batch, steps = (float(value) for value in best.coefficients)
    return LossLaw(
        irreducible_loss=floor,
        batch_coefficient=batch,
        batch_exponent=float(best.exponents[0]),
        steps_coefficient=steps,
        steps_exponent=float(best.exponents[1]),
    )


def _noise(rows: LossRows, best: Optimum) -> tuple[float, int, float]:
    """Return the noise of one row, its degrees of freedom, and the proven misfit.

    The misfit is the rms error of the law beyond the noise of repeats, over the spread
    of ln loss; zero where a test of lack of fit does not prove it.
    """
    cells, member = np.unique(
        np.column_stack([rows.batch_sizes, rows.steps]), axis=0, return_inverse=True
    )
    member = member.ravel()
    values = rows.losses / rows.scale
    mean = np.bincount(member, values) / np.bincount(member)
    pure = float(np.square(values - mean[member]).sum())
    repeats, spare = len(values) - len(cells), len(cells) - NUM_PARAMETERS
    degrees = len(values) - NUM_PARAMETERS
    pooled = max(math.sqrt(best.squares / degrees), NOISE_FLOOR)
    if repeats < 2 or spare < 1:
        return pooled, degrees, 0.0
    lack = (best.squares - pure) / spare
    one = max(pure / repeats, NOISE_FLOOR**2)
    if f_test(max(lack, 0.0) / one, spare, repeats) >= LACK_OF_FIT_P:
        return pooled, degrees, 0.0
    spread = float(np.log(rows.losses).std())
    misfit = math.sqrt(max(lack - one, 0.0) * len(cells) / len(values))
    return math.sqrt(lack), spare, misfit / max(spread, 1e-12)


_NAMES = (
    ("irreducible_loss", "loss that neither steps nor examples take away"),
    ("batch_coefficient", "C_B of the loss that the noise of a batch leaves"),
    ("steps_coefficient", "C_S of the loss that so few steps leave"),
)


def _intervals(
    rows: LossRows, best: Optimum, noise: tuple[float, int], level: float
) -> dict[str, Interval]:
    quantile = half_width(noise[1], level)
    threshold = best.squares + (quantile * noise[0]) ** 2
    surface = rows.surface(region_box(rows, best, threshold))
    squares = surface.solve()[1][:, 0]
    threshold = max(threshold, float(squares.min()))
    found: dict[str, Interval] = {}
    for place, (name, definition) in enumerate(_NAMES):
        low, high = surface.limits(place, threshold)
        value = float(best.coefficients[place])
        found[name] = Interval(
            value=value,
            low=float(np.fmin(low, value)),
            high=float(np.fmax(high, value)),
            level=level,
            unit="",
            definition=definition,
        )
    # With a coefficient that can be zero any exponent fits: its limits are then open.
    axes = (surface.batch_exponents, surface.steps_exponents)
    for place, (name, exponents) in enumerate(
        zip(("batch_exponent", "steps_exponent"), axes, strict=True)
    ):
        low, high = _profile(exponents, squares, threshold)
        found[name] = Interval(
            value=float(best.exponents[place])
            if best.coefficients[place + 1]
            else None,
            low=low,
            high=high,
            level=level,
            unit="",
            definition=f"exponent of 1/{'BS'[place]} in the loss",
        )
    return found


def _profile(
    exponents: FloatArray, squares: FloatArray, threshold: float
) -> tuple[float | None, float | None]:
    grid, place = np.unique(exponents, return_inverse=True)
    least = np.full(len(grid), math.inf)
    np.minimum.at(least, place, squares)
    return profile_limits(grid, least, threshold)


def _judge(
    rows: LossRows, best: Optimum, intervals: dict[str, Interval], misfit: float
) -> tuple[Status, str, list[str]]:
    warnings: list[str] = []
    for axis, values, name in (
        ("batch", rows.batch_sizes, "batch sizes"),
        ("steps", rows.steps, "numbers of steps"),
    ):
        advice = _unidentifiable(axis, values, intervals, name)
        if advice:
            return "unidentifiable", advice, warnings
    if misfit > LARGE_MISFIT:
        advice = (
            f"The law is off by {misfit:.0%} of the spread of the losses beyond the "
            "noise of repeats: keep to the batch sizes and steps that were run."
        )
        return "misfit", advice, warnings
    if misfit:
        warnings.append(
            "small but significant misfit (lack of fit, p < .01): the intervals follow "
            "the residuals"
        )
    if best.coefficients[0] == 0:
        warnings.append("the irreducible loss cannot be told from 0")
    longest = rows.steps.max()
    advice = (
        f"To narrow the intervals, train batch sizes {rows.batch_sizes.min():g} and "
        f"{rows.batch_sizes.max():g} for {4 * longest:g} steps."
    )
    return "ok", advice, warnings


def _unidentifiable(
    axis: str, values: FloatArray, intervals: dict[str, Interval], name: str
) -> str:
    least, most, num = values.min(), values.max(), len(np.unique(values))
    if num < 3:
        count = "one" if num == 1 else "two"
        return (
            f"Losses at {count} of the {name} cannot tell the exponent of the "
            f"{axis} term: add runs at {4 * most:g} and {16 * most:g}."
        )
    exponent = intervals[f"{axis}_exponent"]
    if intervals[f"{axis}_coefficient"].low == 0 or exponent.value is None:
        return (
            f"The loss hardly depends on the {name}, {least:g} to {most:g}: run "
            f"{max(least / 16, 1):g} and {16 * most:g}."
        )
    if not _is_narrow(exponent):
        low = "unbounded" if exponent.low is None else f"{exponent.low:.3g}"
        high = "unbounded" if exponent.high is None else f"{exponent.high:.3g}"
        return (
            f"The exponent of the {axis} term spans {low} to {high}: add {name} below "
            f"{least:g} or above {most:g}, with two seeds each."
        )
    return ""


def _is_narrow(interval: Interval) -> bool:
    if interval.low is None or interval.high is None:
        return False
    return interval.high / interval.low <= WIDEST_RATIO
