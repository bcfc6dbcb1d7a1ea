"""The noise scale of a window with its interval, and what stands in the way."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from rightbatch import _checks
from rightbatch.fitting import Interval
from rightbatch.noise_scale.drift import DriftTest, drift_test
from rightbatch.noise_scale.fieller import (
    RatioLimits,
    fieller_interval,
    fieller_lower_bound,
)
from rightbatch.noise_scale.moments import GradientMoments
from rightbatch.noise_scale.planning import relative_half_width, steps_to_narrow
from rightbatch.noise_scale.scatter import Covariance, Scatter

Status = Literal["resolved", "at least", "unresolved", "too few steps"]
Limit = Literal["gradient", "noise", "steps", "drift"]

DEFINITION = "simple noise scale tr(Sigma)/|G|^2, ratio of averages"
# Below three, Student's quantile alone is more than twice that of many steps.
_FEW_STEPS = 3.0

_IN_THE_WAY = {
    "gradient": "the scatter of |G|^2",
    "noise": "the scatter of tr Sigma",
    "steps": "so few steps",
    "drift": "a drift",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScaleEstimate:
    r"""The simple noise scale :math:`\phi = \mathrm{tr}\,\Sigma/|G|^2` of a window.

    The interval is about the mean of the window, weighted as it was averaged. Where the
    noise scale moves, the window lags behind it by about its own memory, and **that lag
    is not in the interval**; `drift` tells whether it moves. Nor does the interval make
    the noise scale a critical batch size: see docs/theory/noise-scale.md.

    Args:
        interval: Two-sided, in units of examples. Its value is the ratio of the
            averages, None where that of :math:`|G|^2` is not above zero; its upper end
            is None where :math:`|G|^2` is not told from zero.
        lower_bound: What phi exceeds with the probability `interval.level`, one-sided,
            always finite: what may be acted on where there is no upper end.
        moments: The averages; None before the first update.
        covariance: Of the averages; None below two effective steps.
        effective_steps: So many equal updates would tell as much.
        num_steps: Updates in the window, counting those nearly forgotten.
        examples: Of these updates.
        status: "resolved", an interval with two ends; "at least", one with a lower end
            only; "unresolved", where :math:`|G|^2` is significantly below zero or no
            end is known; "too few steps", below two effective ones.
        limited_by: What the width comes from: the scatter of :math:`|G|^2`
            ("gradient") or of tr Sigma ("noise"), too few steps for a scatter
            ("steps"), or a noise scale that moves ("drift", tested at 1 %, and only
            said of one that is resolved).
        drift: The test of a drift; None where it has no say.
        kept_per_step: Share of the weights that one more update leaves.
    """

    interval: Interval
    lower_bound: float
    moments: GradientMoments | None
    covariance: Covariance | None
    effective_steps: float
    num_steps: int
    examples: float
    status: Status
    limited_by: Limit
    drift: DriftTest | None
    kept_per_step: float = 1.0

    @property
    def is_censored(self) -> bool:
        """True where only a lower end is known."""
        return self.status == "at least"

    @property
    def relative_error(self) -> float:
        """Half the interval's width over the value; infinite without an end."""
        value, low, high = self.interval.value, self.interval.low, self.interval.high
        if value is None or low is None or high is None:
            return math.inf
        return relative_half_width(value, RatioLimits(low, high))

    def steps_until(self, relative_error: float = 0.2) -> float:
        """Return how many more updates like these narrow the interval to a share.

        The scatter seen is taken for that of updates to come, the noise scale for
        constant. An average with a short memory never gets there: it forgets as fast
        as it learns.

        Args:
            relative_error: Half the interval's width over the value, wanted.

        Returns:
            Updates, 0 where it is that narrow; infinite where no number of them will
            do or the squared gradient is not above zero yet.

        Raises:
            InputError: `relative_error` is not positive.
        """
        _checks.positive("steps_until", "relative_error", relative_error)
        if self.relative_error <= relative_error:
            return 0.0
        wanted = self._effective_steps_for(relative_error)
        if self.kept_per_step >= 1:
            per_effective = self.num_steps / max(1.0, self.effective_steps)
            return (wanted - self.effective_steps) * max(1.0, per_effective)
        kept = self.kept_per_step
        most = (1 + kept) / (1 - kept)
        if wanted >= most:
            return math.inf
        # n equal updates, each kept so far, are most * tanh(n/2 ln(1/kept)) effective.
        now = min(self.effective_steps, wanted)
        ages = math.atanh(wanted / most) - math.atanh(now / most)
        return 2 * ages / -math.log(kept)

    def _effective_steps_for(self, relative_error: float) -> float:
        """Return how many effective steps give an interval of that relative width."""
        if self.moments is None or self.covariance is None:
            return math.inf
        return steps_to_narrow(
            self.moments.grad_variance,
            self.moments.grad_sq_norm,
            Covariance(*(self.effective_steps * one for one in self.covariance)),
            relative_error,
            level=self.interval.level,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for a program; what is not finite is null."""
        error = self.relative_error
        return {
            "interval": self.interval.to_dict(),
            "lower_bound": self.lower_bound,
            "moments": None if self.moments is None else self.moments.to_dict(),
            "effective_steps": self.effective_steps,
            "num_steps": self.num_steps,
            "examples": self.examples,
            "status": self.status,
            "is_censored": self.is_censored,
            "limited_by": self.limited_by,
            "relative_error": error if math.isfinite(error) else None,
            "drift": None if self.drift is None else self.drift.to_dict(),
        }

    def __str__(self) -> str:
        steps = f"{self.num_steps} step{'' if self.num_steps == 1 else 's'}"
        unit, level = self.interval.unit, f"{100 * self.interval.level:.0f} %"
        match self.status:
            case "resolved":
                text = f"noise scale {self.interval} from {steps}"
            case "at least":
                text = (
                    f"noise scale at least {self.lower_bound:.3g} {unit} ({level}, no "
                    f"upper end) from {steps}: |G|^2 is not told from zero"
                )
            case "unresolved":
                text = f"noise scale unresolved after {steps}: {self._why_unresolved()}"
            case "too few steps":
                text = f"noise scale not known yet: too few steps ({self.num_steps})"
        if self.limited_by == "drift":
            text += f"; it {self.drift}"
        return text

    def _why_unresolved(self) -> str:
        if self.moments is not None and self.moments.grad_sq_norm < 0:
            return "|G|^2 comes out below zero"
        return f"hidden by {_IN_THE_WAY[self.limited_by]}"


def estimate_noise_scale(
    scatter: Scatter,
    *,
    num_steps: int,
    examples: float,
    kept_per_step: float = 1.0,
    level: float = 0.95,
    unit: str = "examples",
) -> NoiseScaleEstimate:
    """Return the noise scale of a window from the sums over it.

    Args:
        scatter: Weighted sums over the updates.
        num_steps: Updates in them.
        examples: Of these updates.
        kept_per_step: Share of the weights that one more update leaves.
        level: Of the interval, and of the one-sided bound.
        unit: What is counted as an example.

    Returns:
        The estimate.
    """
    steps = scatter.effective_steps
    moments = covariance = None
    if num_steps:
        moments = GradientMoments(grad_sq_norm=scatter.q, grad_variance=scatter.t)
    limits, bound = RatioLimits(0.0, math.inf), 0.0
    if steps >= 2:
        covariance = scatter.covariance()
        given = (scatter.t, scatter.q, covariance, scatter.degrees)
        limits = fieller_interval(*given, level=level)
        bound = fieller_lower_bound(*given, level=level)
    # A bound without an end is chance at one side: the two-sided one is the safe one.
    bound = bound if math.isfinite(bound) else limits.low
    status = _status(scatter, limits, bound)
    drift = drift_test(scatter)
    return NoiseScaleEstimate(
        interval=_interval(scatter, limits, status, level, unit),
        lower_bound=bound,
        moments=moments,
        covariance=covariance,
        effective_steps=steps,
        num_steps=num_steps,
        examples=examples,
        status=status,
        limited_by=_limit(scatter, covariance, drift if status == "resolved" else None),
        drift=drift,
        kept_per_step=kept_per_step,
    )


def _status(scatter: Scatter, limits: RatioLimits, bound: float) -> Status:
    if scatter.effective_steps < 2:
        return "too few steps"
    # Two ends about a gradient below zero: it is so significantly.
    if limits.is_empty or (scatter.q <= 0 and math.isfinite(limits.high)):
        return "unresolved"
    if math.isfinite(limits.high):
        return "resolved"
    return "at least" if bound > 0 else "unresolved"


def _interval(
    scatter: Scatter, limits: RatioLimits, status: Status, level: float, unit: str
) -> Interval:
    is_open = status == "unresolved" or not math.isfinite(limits.high)
    return Interval(
        value=max(0.0, scatter.t / scatter.q) if scatter.q > 0 else None,
        low=0.0 if status == "unresolved" else limits.low,
        high=None if is_open else limits.high,
        level=level,
        unit=unit,
        definition=DEFINITION,
    )


def _limit(
    scatter: Scatter, covariance: Covariance | None, drift: DriftTest | None
) -> Limit:
    if covariance is None or scatter.effective_steps < _FEW_STEPS:
        return "steps"
    if drift is not None and drift.is_significant():
        return "drift"
    if scatter.q <= 0:
        return "gradient"
    phi = scatter.t / scatter.q
    return "noise" if phi**2 * covariance.qq < covariance.tt else "gradient"
