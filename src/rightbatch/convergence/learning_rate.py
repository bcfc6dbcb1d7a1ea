"""The best learning rate as a function of the batch size, from any tuned sweep.

At small batches it grows with a power of the batch size, and past some batch it stops
growing. Both are read off the sweep, or said not to be in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.convergence.lr_optimum import LrOptimum, lr_optimum, pooled_noise
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, Interval, half_width, profile_limits

LrForm = Literal["power", "saturating"]

# An exponent is of use when its interval tells linear from flat.
WIDEST_EXPONENT = 1.0
# By how much the criterion must be better for a third parameter, as everywhere.
AICC_GAIN = 2.0
SATURATION_POINTS = 600
# No theory has the best rate grow faster than the batch size. Where a law saturates its
# exponent is held within that, for batches past saturation say nothing of it.
STEEPEST = 1.0
# Degrees of freedom with which the error of each optimum counts beside the residuals.
_PRIOR_DEGREES = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solved:
    """Least squares of straight lines, one for each batch size of saturation.

    A line is ``mean ln lr + exponent (x - centre)``.

    Args:
        free: Best exponents, shape (g,).
        exponent: The same within what a saturating law allows, shape (g,).
        centre: Weighted means of x, shape (g,).
        spread: Weighted squares of x around them, the weights of the exponents.
        least: Chi-square with the free exponents.
        chi2: Chi-square with the allowed ones.
    """

    free: FloatArray
    exponent: FloatArray
    centre: FloatArray
    spread: FloatArray
    least: FloatArray
    chi2: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LrLines:
    """Straight lines of ln lr, one for each batch size of saturation.

    Args:
        saturations: phi of each line, shape (g,); infinity for a pure power law.
        log_batch: ln B of the optima, shape (k,).
        log_lr: ln lr of the optima, shape (k,).
        weights: Inverse variances of `log_lr`, shape (k,).
    """

    saturations: FloatArray
    log_batch: FloatArray
    log_lr: FloatArray
    weights: FloatArray

    def abscissa(self, log_batch: FloatArray) -> FloatArray:
        """Return what the exponent multiplies, -ln(1 + phi/B) or ln B.

        Args:
            log_batch: ln B, shape (m,).

        Returns:
            Shape (g, m).
        """
        phi = self.saturations[:, None]
        with np.errstate(over="ignore"):
            bent = -np.log1p(phi / np.exp(log_batch))
        return np.where(np.isinf(phi), log_batch, bent)

    def solve(self) -> "Solved":
        """Return the best line through the optima for each batch size of saturation."""
        x, total = self.abscissa(self.log_batch), self.weights.sum()
        centre = x @ self.weights / total
        offset = x - centre[:, None]
        above = self.log_lr - self.log_lr @ self.weights / total
        spread = np.maximum(offset**2 @ self.weights, 1e-300)
        free = (offset * above) @ self.weights / spread
        residual = above - free[:, None] * offset
        least = residual**2 @ self.weights
        bent = np.isfinite(self.saturations)
        exponent = np.where(bent, np.clip(free, 0.0, STEEPEST), free)
        return Solved(
            free=free,
            exponent=exponent,
            centre=centre,
            spread=spread,
            least=least,
            chi2=least + spread * (exponent - free) ** 2,
        )

    def log_lr_at(self, log_batch: FloatArray) -> FloatArray:
        """Return ln lr of each line, shape (g, m).

        Args:
            log_batch: ln B, shape (m,).

        Returns:
            Shape (g, m).
        """
        solved = self.solve()
        mean = self.log_lr @ self.weights / self.weights.sum()
        offset = self.abscissa(log_batch) - solved.centre[:, None]
        return mean + solved.exponent[:, None] * offset

    def at(self, saturations: FloatArray) -> "LrLines":
        """Return the lines of other batch sizes of saturation, shape (g,)."""
        return LrLines(
            saturations=saturations,
            log_batch=self.log_batch,
            log_lr=self.log_lr,
            weights=self.weights,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LearningRateFit:
    r"""The best learning rate against the batch size, fitted to a tuned sweep.

    .. math:: \eta(B) = \eta_1 B^p \quad\text{or}\quad
              \eta(B) = \eta_{\max} / (1 + \phi/B)^p

    The second is the rule of McCandlish et al. (2018) for SGD where p = 1, and the
    first where phi has no end; for Adam they find p between .5 and 1. A saturating law
    is held to p between 0 and 1.

    Args:
        form: Which of the two; None where there are too few optima for either.
        status: ``ok`` or ``unidentifiable``.
        advice: One sentence: what to run next.
        warnings: Which batch sizes were left out, and why.
        exponent: p with its interval.
        plateau_batch_size: phi with its interval; without a value, and a lower end
            alone, where no saturation is seen.
        optima: The best rate of each batch size.
        level: Of the intervals.
        line: The fitted line; None where there is none.
        others: Lines that the data could as well have given.
        threshold: Chi-square of the least likely of those.
    """

    form: LrForm | None
    status: Literal["ok", "unidentifiable"]
    advice: str
    warnings: tuple[str, ...]
    exponent: Interval
    plateau_batch_size: Interval
    optima: tuple[LrOptimum, ...]
    level: float
    line: LrLines | None
    others: LrLines | None
    threshold: float

    def lr_at(self, batch_size: float) -> float | None:
        """Return the best learning rate at a batch size, by the law.

        Args:
            batch_size: Examples per step.

        Returns:
            The rate; None where no law was fitted.
        """
        if self.line is None:
            return None
        log_batch = np.array([math.log(batch_size)])
        return float(np.exp(self.line.log_lr_at(log_batch)[0, 0]))

    def band(self, batch_sizes: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the lower and upper end of the rate at each batch size.

        Args:
            batch_sizes: Shape (m,), examples.

        Returns:
            Two arrays (m,): zeros and infinities where no law was fitted.
        """
        log_batch = np.log(np.atleast_1d(np.asarray(batch_sizes, dtype=float)))
        if self.others is None:
            return np.zeros_like(log_batch), np.full_like(log_batch, math.inf)
        solved = self.others.solve()
        chi2 = solved.chi2
        room = np.maximum(self.threshold - chi2, 0.0)[:, None]
        offset = self.others.abscissa(log_batch) - solved.centre[:, None]
        total = self.others.weights.sum()
        half = np.sqrt(room * (1 / total + offset**2 / solved.spread[:, None]))
        middle = self.others.log_lr_at(log_batch)
        inside = chi2 <= max(self.threshold, float(chi2.min()))
        low, high = (middle - half)[inside].min(0), (middle + half)[inside].max(0)
        return np.exp(low), np.exp(high)

    def curve(self, num: int = 40) -> dict[str, list[float]] | None:
        """Return law and band on a geometric grid over the batch sizes of the sweep.

        Args:
            num: Points.

        Returns:
            Lists under `batch_size`, `lr`, `low`, `high`; None without a law.
        """
        if self.line is None:
            return None
        sizes = [optimum.batch_size for optimum in self.optima]
        grid = np.geomspace(min(sizes), max(sizes), num)
        low, high = self.band(grid)
        return {
            "batch_size": grid.tolist(),
            "lr": np.exp(self.line.log_lr_at(np.log(grid))[0]).tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, plain."""
        return {
            "form": self.form,
            "status": self.status,
            "advice": self.advice,
            "exponent": self.exponent.to_dict(),
            "plateau_batch_size": self.plateau_batch_size.to_dict(),
            "optima": [optimum.to_dict() for optimum in self.optima],
            "curve": self.curve(),
            "warnings": list(self.warnings),
        }


def fit_learning_rate(
    batch_sizes: Sequence[float],
    lrs: Sequence[float],
    steps: Sequence[float],
    *,
    level: float = 0.9,
    example_unit: str = "example",
) -> LearningRateFit:
    """Return the best learning rate against the batch size, from a tuned sweep.

    At each batch size the optimum is the floor of the valley of ln steps over ln lr. An
    optimum at the edge of the rates tried is a bound and no estimate, so it is left
    out. The saturating form is taken where its corrected Akaike criterion is better by
    more than 2, which needs six optima.

    Args:
        batch_sizes: One per run, shape (N,), examples.
        lrs: Learning rate of each run, shape (N,).
        steps: Steps to the target, NaN for a run that did not reach it, shape (N,).
        level: Of the intervals.
        example_unit: What a batch size counts.

    Returns:
        The fit with its intervals, and what was left out.

    Raises:
        InputError: The lists do not pair up, or a value is not a positive number.

    Example:
        >>> sweep = [(b, lr) for b in (8, 32, 128, 512) for lr in (1, 2, 4, 8, 16, 32)]
        >>> off = [math.log(lr / (b / 4) ** 0.5) for b, lr in sweep]
        >>> steps = [100 * math.exp(u**2) for u in off]
        >>> fit = fit_learning_rate(*zip(*sweep), steps)
        >>> fit.form, round(fit.exponent.value, 6), round(fit.lr_at(64), 6)
        ('power', 0.5, 4.0)
    """
    who = "learning rate"
    _checks.confidence_level(who, level)
    batch = _checks.positive_array(who, "batch_sizes", batch_sizes)
    rates = _checks.positive_array(who, "lrs", lrs)
    if not len(batch) == len(rates) == len(steps):
        raise InputError(
            f"{who}: `batch_sizes`, `lrs` and `steps` must pair up, got {len(batch)}, "
            f"{len(rates)} and {len(steps)}."
        )
    sweep: dict[float, dict[float, list[float]]] = {}
    for size, rate, count in zip(batch.tolist(), rates.tolist(), steps, strict=True):
        if not math.isnan(count):
            _checks.positive(who, "steps", count)
        sweep.setdefault(size, {}).setdefault(rate, []).append(float(count))
    noise = pooled_noise(sweep)
    optima = tuple(lr_optimum(size, sweep[size], noise) for size in sorted(sweep))
    used = [optimum for optimum in optima if not optimum.excluded]
    unit = f"{example_unit}s"
    if len(used) < 3:
        return _unfitted(optima, len(used), level, unit)
    return _fitted(optima, _lines(used), level, unit)


def _lines(used: list[LrOptimum]) -> LrLines:
    return LrLines(
        saturations=np.array([math.inf]),
        log_batch=np.log([optimum.batch_size for optimum in used]),
        log_lr=np.log([optimum.lr or math.nan for optimum in used]),
        weights=1 / np.square([optimum.log_error or math.nan for optimum in used]),
    )


def _fitted(
    optima: tuple[LrOptimum, ...], power: LrLines, level: float, unit: str
) -> LearningRateFit:
    num = len(power.log_batch)
    first, last = np.exp(power.log_batch[[0, -1]])
    grid = np.geomspace(first / 10, last * 100, SATURATION_POINTS)
    bent = power.at(grid)
    chi2 = bent.solve().chi2
    straight = float(power.solve().chi2[0])
    saturates = _gain(straight, float(chi2.min()), num) > AICC_GAIN
    least, parameters = (float(chi2.min()), 3) if saturates else (straight, 2)
    degrees = num - parameters + _PRIOR_DEGREES
    scale = (least + _PRIOR_DEGREES) / degrees
    quantile = half_width(degrees, level)
    threshold = least + scale * quantile**2
    line = power.at(grid[[int(chi2.argmin())]]) if saturates else power
    others = bent if saturates else power
    interval = _exponent(line, others, threshold, level)
    status, advice = _verdict(optima, interval)
    return LearningRateFit(
        form="saturating" if saturates else "power",
        status=status,
        advice=advice,
        warnings=tuple(_warnings(optima)),
        exponent=interval,
        plateau_batch_size=_saturation(
            float(line.saturations[0]), (grid, chi2), threshold, level, unit
        ),
        optima=optima,
        level=level,
        line=line,
        others=others,
        threshold=threshold,
    )


def _gain(straight: float, bent: float, num: int) -> float:
    """Return by how much the criterion prefers the saturating law.

    The errors of the optima are known but for a factor, so this is the quasi-likelihood
    form of the corrected criterion: chi-square over that factor, and the penalties.
    """
    if num < 6:
        return -math.inf
    factor = max(1.0, bent / (num - 3))

    def penalty(p: int) -> float:
        return 2 * p + 2 * p * (p + 1) / (num - p - 1)

    return (straight - bent) / factor + penalty(3) - penalty(4)


def _exponent(
    line: LrLines, others: LrLines, threshold: float, level: float
) -> Interval:
    solved = others.solve()
    inside = solved.chi2 <= max(threshold, float(solved.chi2.min()))
    room = np.maximum(threshold - solved.least[inside], 0.0)
    half = np.sqrt(room / solved.spread[inside])
    low, high = solved.free[inside] - half, solved.free[inside] + half
    if np.isfinite(others.saturations).all():
        low, high = np.clip([low, high], 0.0, STEEPEST)
    value = float(line.solve().exponent[0])
    return Interval(
        value=value,
        low=float(min(low.min(), value)),
        high=float(max(high.max(), value)),
        level=level,
        unit="",
        definition="power of the batch size in the best learning rate at small batches",
    )


def _saturation(
    value: float,
    profile: tuple[FloatArray, FloatArray],
    threshold: float,
    level: float,
    unit: str,
) -> Interval:
    grid, chi2 = profile
    low, high = profile_limits(grid, chi2, max(threshold, float(chi2.min())))
    seen = math.isfinite(value)
    return Interval(
        value=value if seen else None,
        low=low,
        high=high if seen else None,
        level=level,
        unit=unit,
        definition="batch size past which the best learning rate stops growing",
    )


def _unfitted(
    optima: tuple[LrOptimum, ...], num: int, level: float, unit: str
) -> LearningRateFit:
    counted = {0: "No batch size has", 1: "One batch size has"}
    return LearningRateFit(
        form=None,
        status="unidentifiable",
        advice=(
            f"{counted.get(num, 'Two batch sizes have')} a best learning rate that the "
            f"runs enclose, and a line needs three: {_next_runs(optima)}."
        ),
        warnings=tuple(_warnings(optima)),
        exponent=Interval(
            value=None,
            low=None,
            high=None,
            level=level,
            definition="power of the batch size in the best learning rate",
        ),
        plateau_batch_size=Interval(
            value=None, low=None, high=None, level=level, unit=unit
        ),
        optima=optima,
        level=level,
        line=None,
        others=None,
        threshold=math.inf,
    )


def _verdict(
    optima: tuple[LrOptimum, ...], exponent: Interval
) -> tuple[Literal["ok", "unidentifiable"], str]:
    low, high = exponent.low, exponent.high
    if low is None or high is None or high - low > WIDEST_EXPONENT:
        ends = [f"{low:.2g}" if low is not None else "any"]
        ends.append(f"{high:.2g}" if high is not None else "any")
        return (
            "unidentifiable",
            f"The exponent spans {ends[0]} to {ends[1]}: {_next_runs(optima)}.",
        )
    return "ok", f"To narrow the exponent, {_next_runs(optima)}."


def _next_runs(optima: tuple[LrOptimum, ...]) -> str:
    """Return what to run: first what makes a batch size count, else new ones."""
    at_edge = [optimum for optimum in optima if optimum.excluded == "edge"]
    if at_edge:
        rates = ", ".join(sorted({f"{optimum.lr:g}" for optimum in at_edge}))
        return f"try learning rates beyond {rates} at {_sizes(at_edge)}"
    few = [optimum for optimum in optima if optimum.excluded == "few rates"]
    if few:
        return f"try half and twice the learning rate at {_sizes(few)}"
    flat = [optimum for optimum in optima if optimum.excluded == "flat"]
    if flat:
        return (
            f"at {_sizes(flat)} try learning rates four times lower and higher, or "
            "more seeds"
        )
    sizes = [optimum.batch_size for optimum in optima]
    small, large = min(sizes), max(sizes)
    return f"tune batch sizes {max(round(small / 4), 1):g} and {4 * large:g} as well"


def _warnings(optima: tuple[LrOptimum, ...]) -> list[str]:
    reasons = {
        "edge": "the best learning rate is the least or largest tried at {}: a bound, "
        "left out of the line",
        "flat": "the steps hardly depend on the learning rate at {}: left out of the "
        "line",
        "few rates": "fewer than three learning rates at {}: left out of the line",
        "unreached": "no learning rate reached the target at every seed at {}",
    }
    said: list[str] = []
    for reason, text in reasons.items():
        members = [optimum for optimum in optima if optimum.excluded == reason]
        if members:
            said.append(text.format(_sizes(members)))
    return said


def _sizes(optima: list[LrOptimum]) -> str:
    listed = ", ".join(f"{optimum.batch_size:g}" for optimum in optima)
    return f"batch size{'s' if len(optima) > 1 else ''} {listed}"
