"""Whether a fitted law can be believed, and what to run next where it cannot."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from rightbatch.convergence.findings import (
    WIDEST_RATIO,
    Finding,
    corner_findings,
    rise_finding,
    table_findings,
)
from rightbatch.convergence.next_runs import NextRun, Purchase, worthwhile_runs
from rightbatch.convergence.noise import (
    LACK_OF_FIT_P,
    Noise,
    measure_noise,
    nested_p,
    rising_batch_sizes,
    systematic_error,
)
from rightbatch.convergence.profile import Surface, free_exponent_chi2
from rightbatch.fitting import FloatArray, Interval

__all__ = [
    "LACK_OF_FIT_P",
    "WIDEST_RATIO",
    "Diagnosis",
    "Noise",
    "Status",
    "examine",
    "judge",
    "measure_noise",
    "nested_p",
    "rising_batch_sizes",
]

Status = Literal["ok", "unidentifiable", "misfit"]

NESTED_P = 0.005
# Findings that more runs would cure even in a fit that can be used.
NEEDS_RUNS = {"untested_law", "narrow_range", "all_above", "all_below", "extrapolation"}
# Systematic error, rms, above which a proven misfit makes the law unfit for a plan.
LARGE_MISFIT = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """How far to believe a fit, why, and what would make it better.

    Args:
        status: ``ok``, ``unidentifiable`` or ``misfit``.
        findings: What the table shows, the gravest first.
        next_runs: The next two or three runs worth buying, the most useful first.
        advice: The first finding and the next runs in one sentence.
        warnings: Lesser troubles, in plain words.
    """

    status: Status
    findings: tuple[Finding, ...]
    next_runs: tuple[NextRun, ...]
    advice: str
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON keys `status`, `advice`, `findings`, `next_runs`."""
        return {
            "status": self.status,
            "advice": self.advice,
            "findings": [finding.to_dict() for finding in self.findings],
            "next_runs": [run.to_dict() for run in self.next_runs],
        }


def examine(
    surface: Surface,
    noise: Noise,
    min_steps: Interval,
    critical: Interval,
    *,
    batch_sizes: FloatArray,
    steps: FloatArray,
) -> Diagnosis:
    """Return status, findings and next runs of a fit.

    `unidentifiable`: a side of phi's interval is unbounded, S_min is not positive, or
    the interval spans more than a factor of 4. Else `misfit`: steps rise with the batch
    size by more than 3 sigma, or a proven systematic error exceeds 10 % rms. Else `ok`.

    Args:
        surface: The chosen law.
        noise: Its noise.
        min_steps: Interval of S_min.
        critical: Interval of the critical batch size.
        batch_sizes: One per run that the fit used, shape (N,).
        steps: Steps to the target of each, shape (N,).

    Returns:
        The diagnosis.
    """
    runs = surface.runs
    rise = rising_batch_sizes(runs, noise)
    status, misfit = _status(surface, noise, critical, rise)
    findings = [] if rise is None else [rise_finding(*rise)]
    corner = list(corner_findings(runs, noise, min_steps, critical))
    lesser = [*corner, *table_findings(runs, batch_sizes, steps)]
    findings += [*misfit, *lesser] if status == "misfit" else [*lesser, *misfit]
    bought = worthwhile_runs(
        surface, noise, critical, _wanted(surface, noise, critical, rise, status)
    )
    return Diagnosis(
        status=status,
        findings=tuple(findings),
        next_runs=bought,
        advice=_advice(findings, bought, status, len(runs.batch_sizes)),
        warnings=tuple(f.sentence for f in misfit if status == "ok"),
    )


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
    found = examine(
        surface,
        noise,
        min_steps,
        critical,
        batch_sizes=runs.batch_sizes,
        steps=runs.mean_steps,
    )
    return found.status, found.advice, list(found.warnings)


def _status(
    surface: Surface,
    noise: Noise,
    critical: Interval,
    rise: tuple[float, float] | None,
) -> tuple[Status, list[Finding]]:
    proof, kind = _proof_of_misfit(surface, noise)
    error = systematic_error(surface, surface.num_parameters)
    is_large = error > LARGE_MISFIT
    said = f"he law is off by {error:.1%} rms beyond noise ({proof})."
    sentence = f"T{said}" if is_large else f"A small but significant misfit: t{said}"
    misfit = [Finding(kind=kind, sentence=sentence)] if proof else []
    if surface.law.min_steps <= 0 or not _is_narrow(critical):
        return "unidentifiable", misfit
    if rise is not None or (misfit and is_large):
        return "misfit", misfit
    return "ok", misfit


def _is_narrow(critical: Interval) -> bool:
    if critical.low is None or critical.high is None:
        return False
    return critical.high / critical.low <= WIDEST_RATIO


def _proof_of_misfit(surface: Surface, noise: Noise) -> tuple[str, str]:
    """Return what proves that the law does not hold, and its kind, or two blanks."""
    if noise.is_lack_of_fit:
        return f"lack of fit, p = {noise.lack_of_fit_p:.1g}", "lack_of_fit"
    if surface.law.name != "inverse" or len(surface.runs.batch_sizes) < 5:
        return "", ""
    p = nested_p(surface, free_exponent_chi2(surface.runs))
    if p < NESTED_P:
        return f"the exponent of 1/B is not 1, p = {p:.1g}", "other_exponent"
    return "", ""


def _wanted(
    surface: Surface,
    noise: Noise,
    critical: Interval,
    rise: tuple[float, float] | None,
    status: Status,
) -> list[Purchase]:
    """Return the runs wanted for more than a narrower interval of phi."""
    sizes = surface.runs.batch_sizes
    if rise is not None:
        return [Purchase(batch_size=rise[1], narrows="rise")]
    if noise.scale is None:
        return [Purchase(batch_size=size, narrows="noise") for size in sizes[[0, -1]]]
    if status == "ok" and len(sizes) == 2:
        return [Purchase(batch_size=math.sqrt(sizes[0] * sizes[1]), narrows="law")]
    if status == "misfit" and critical.value is not None:
        # The middle of the two neighbours between which the corner lies.
        place = min(max(int((sizes < critical.value).sum()), 1), len(sizes) - 1)
        middle = math.sqrt(sizes[place - 1] * sizes[place])
        return [Purchase(batch_size=middle, narrows="law")]
    return []


def _advice(
    findings: list[Finding],
    bought: tuple[NextRun, ...],
    status: Status,
    num_batch_sizes: int,
) -> str:
    """Return the gravest finding and what to run next, as one sentence."""
    kinds = NEEDS_RUNS if status == "ok" else {finding.kind for finding in findings}
    cause = next((f for f in findings if f.kind in kinds), None)
    if cause is not None and cause.kind == "steps_rise":
        size = f"{bought[0].batch_size:.10g}"
        run = f"run batch size {size} again with other learning rates"
    else:
        run = _order(bought[:2], num_batch_sizes)
    if cause is None:
        return f"To narrow the interval, {run}."
    said = cause.sentence.removesuffix(".")
    return f"{said}{';' if ': ' in said else ':'} {run}."


def _order(bought: tuple[NextRun, ...], num_batch_sizes: int) -> str:
    """Return purchases as an order: run batch sizes 4 and 16 with 3 seeds each."""
    seeds = f"{bought[0].num_runs} {'' if bought[0].is_new else 'more '}seeds"
    if len(bought) == 1:
        return f"run batch size {bought[0].batch_size:.10g} with {seeds}"
    if num_batch_sizes == 2 and not any(run.is_new for run in bought):
        return f"repeat both batch sizes with {seeds} each"
    one, other = sorted(bought, key=lambda run: run.batch_size)
    return (
        f"run batch sizes {one.batch_size:.10g} and {other.batch_size:.10g} with "
        f"{bought[0].num_runs} seeds each"
    )
