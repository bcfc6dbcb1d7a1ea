"""Whether a fitted law can be believed, and what to run next where it cannot."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from rightbatch.convergence.findings import (
    NARROW_RANGE,
    WIDEST_RATIO,
    Finding,
    corner_findings,
    rise_finding,
    table_findings,
)
from rightbatch.convergence.next_runs import PHI, NextRun, Purchase, worthwhile_runs
from rightbatch.convergence.noise import (
    Noise,
    nested_p,
    rising_batch_sizes,
    suspected_rise,
    systematic_error,
)
from rightbatch.convergence.profile import Surface, free_exponent_chi2
from rightbatch.convergence.runs import RepeatedRuns
from rightbatch.fitting import FloatArray, Interval

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
        warnings: The other findings, in plain words.
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
    proven = rising_batch_sizes(runs, noise)
    status, misfit = _status(surface, noise, critical, proven)
    rise = proven or suspected_rise(runs)
    is_proven = proven is not None
    findings = [] if rise is None else [rise_finding(*rise, is_proven=is_proven)]
    corner = list(corner_findings(runs, noise, min_steps, critical))
    lesser = [*corner, *table_findings(runs, batch_sizes, steps)]
    if _is_too_narrow(runs, critical):
        # Whatever else shows there, the range is the reason, and no scatter.
        lesser.sort(key=lambda finding: finding.kind != "narrow_range")
        lesser = [finding for finding in lesser if finding.kind != "too_noisy"]
    findings += [*misfit, *lesser] if status == "misfit" else [*lesser, *misfit]
    bought = worthwhile_runs(
        surface, noise, critical, _wanted(surface, noise, critical, rise, status)
    )
    cause = _cause(findings, status)
    return Diagnosis(
        status=status,
        findings=tuple(findings),
        next_runs=bought,
        advice=_advice(cause, bought, len(runs.batch_sizes)),
        warnings=tuple(finding.sentence for finding in findings if finding != cause),
    )


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
    if _is_too_narrow(surface.runs, critical):
        beyond = (max(round(sizes[0] / 4), 1), 4 * sizes[-1])
        ends = [float(size) for size in beyond if not sizes[0] <= size <= sizes[-1]]
        return [Purchase(batch_size=size, narrows=PHI) for size in ends]
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


def _is_too_narrow(runs: RepeatedRuns, critical: Interval) -> bool:
    span = runs.batch_sizes[-1] / runs.batch_sizes[0]
    return bool(span < NARROW_RANGE) and not critical.is_bounded


def _cause(findings: list[Finding], status: Status) -> Finding | None:
    """Return the gravest finding, or in a usable fit the one that runs would cure."""
    kinds = NEEDS_RUNS if status == "ok" else {finding.kind for finding in findings}
    return next((finding for finding in findings if finding.kind in kinds), None)


def _advice(
    cause: Finding | None, bought: tuple[NextRun, ...], num_batch_sizes: int
) -> str:
    """Return the gravest finding and what to run next, as one sentence."""
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
