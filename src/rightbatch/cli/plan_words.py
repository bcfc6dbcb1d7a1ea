"""A plan in words: its warnings, and the sentence that sums it up."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rightbatch.cli.planning import Findings
    from rightbatch.training_time import Plan, PlanEntry

FEW_RUNS = 2


def law_warnings(findings: "Findings") -> list[str]:
    """Return what to know of the law of steps before a plan is trusted.

    Args:
        findings: Both curves.

    Returns:
        Sentences, the gravest first.
    """
    fit = findings.tuned.fit
    warnings = [*findings.tuned.warnings, *fit.warnings]
    if fit.status != "ok":
        warnings.insert(0, f"the law of steps is {fit.status}. {fit.advice}")
    if fit.law.min_steps <= 0:
        warnings.append(
            "S_min is not above 0, so no batch size is too large for this law: the "
            "largest batch size run is a lower bound of the best one, shown as ≥"
        )
    repeats = [point.num_runs for point in fit.points if not point.excluded]
    if repeats and min(repeats) < FEW_RUNS:
        warnings.append(
            "few runs: some batch sizes have one run only, so the noise between seeds "
            "is read off the residuals"
        )
    return warnings


def plan_warnings(findings: "Findings", plan: "Plan") -> list[str]:
    """Return what to know of a plan, each thing said once for all replicas.

    Args:
        findings: Both curves.
        plan: Made from them.

    Returns:
        Sentences.
    """
    low, high = findings.tuned.fit.fitted_range
    outside = [entry for entry in plan.entries if entry.extrapolated]
    capped = [
        entry
        for entry in plan.entries
        if entry.limited_by == "dataset" and not entry.batch_size_is_lower_bound
    ]
    lower = [entry for entry in plan.entries if entry.batch_size_is_lower_bound]
    open_ended = [
        entry
        for entry in plan.entries
        if entry.intervals is not None
        and entry.intervals.batch_size.high is None
        and entry not in (*capped, *lower)
    ]
    idle = [entry for entry in plan.entries if entry.idle_replicas]
    warnings: list[str] = []
    if outside:
        warnings.append(
            f"extrapolated: batch sizes {_listed(e.batch_size for e in outside)} (on "
            f"{_listed(e.num_replicas for e in outside)} replicas) lie outside "
            f"{low:g} to {high:g}, where steps were measured: run there first"
        )
    if capped:
        warnings.append(
            f"on {_listed(e.num_replicas for e in capped)} replicas the largest batch "
            f"size allowed, {capped[-1].batch_size}, is best: a larger one would be "
            "faster still"
        )
    if open_ended:
        warnings.append(
            f"on {_listed(e.num_replicas for e in open_ended)} replicas the data do "
            "not tell how much larger than recommended the best batch size may be: "
            "more than 5 % of the fits they allow want the largest there is"
        )
    uneven = [entry for entry in plan.entries if _served(entry) != entry.batch_size]
    if uneven:
        warnings.append(
            f"batch sizes {_listed(e.batch_size for e in uneven)} (on "
            f"{_listed(e.num_replicas for e in uneven)} replicas) cannot be shared "
            f"evenly: a step takes as long as {_listed(map(_served, uneven))} examples "
            "do"
        )
    if idle:
        used = min(entry.num_replicas - entry.idle_replicas for entry in idle)
        warnings.append(
            f"{_listed(e.num_replicas for e in idle)} replicas are slower than {used}: "
            "what they spend on each other outweighs what they save"
        )
    return warnings


def _served(entry: "PlanEntry") -> int:
    return entry.micro_batch_size * entry.accumulation_steps * entry.num_replicas


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def disagreements(fitted: "Plan", measured: "Plan") -> list[str]:
    """Return where two plans differ by more than either holds to be worth 5 %.

    Args:
        fitted: With the fitted law of step times.
        measured: With the measured times.

    Returns:
        One sentence, or none.
    """
    pairs = zip(fitted.entries, measured.entries, strict=True)
    apart = [
        f"{one.num_replicas} ({one.batch_size} or {other.batch_size})"
        for one, other in pairs
        if not _within(one.batch_size, other.within_5_percent)
        and not _within(other.batch_size, one.within_5_percent)
    ]
    if not apart:
        return []
    return [
        "the fitted and the measured step times disagree about the best batch size on "
        f"{', '.join(apart)} replicas: trust the measured one"
    ]


def _within(batch_size: int, ends: Sequence[int]) -> bool:
    return ends[0] <= batch_size <= ends[1]


def sentence(findings: "Findings", plan: "Plan") -> str:
    """Return the plan in a sentence or two.

    Args:
        findings: Both curves.
        plan: Made from them.

    Returns:
        What to train at on the fewest replicas, and where it is fastest.
    """
    from rightbatch.reporting.formats import number, seconds

    first = plan.entries[0]
    rate = "" if first.lr is None else f", lr {number(first.lr)}"
    low, high = first.within_5_percent
    where = "" if first.num_replicas == 1 else f" on {first.num_replicas} replicas"
    said = (
        f"Train at {first.batch_size}{rate}{where}: about {first.steps:,.0f} steps, "
        f"{seconds(first.seconds)}; {low} to {high} are within 5 % of the best time."
    )
    if first.batch_size_is_lower_bound:
        said = (
            f"Train at {first.batch_size}{rate}{where} or more: about "
            f"{first.steps:,.0f} steps, {seconds(first.seconds)}. It is the largest "
            "batch size run, a lower bound of the best one."
        )
    best = min(plan.entries, key=lambda entry: entry.seconds)
    if best is not first:
        said += (
            f" On {best.num_replicas} replicas train at {best.batch_size}: "
            f"{best.speedup:.3g} times faster."
        )
    if findings.tuned.fit.status != "ok":
        said += f" The law of steps is {findings.tuned.fit.status}: see the warnings."
    return said
