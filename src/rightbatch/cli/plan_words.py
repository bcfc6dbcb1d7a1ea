"""A plan in words: its warnings, and the sentence that sums it up."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rightbatch.cli.planning import Findings
    from rightbatch.training_time import Plan, PlanEntry

FEW_RUNS = 2
SMALLEST_TIMED = 2


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
    said = [
        _extrapolated(findings, plan),
        *_capped(findings, plan),
        _held(findings, plan),
        _cut(findings, plan),
        _uneven(plan),
        _idle(plan),
    ]
    return [text for text in said if text]


def _extrapolated(findings: "Findings", plan: "Plan") -> str:
    outside = [entry for entry in plan.entries if entry.extrapolated]
    low, high = findings.tuned.fit.fitted_range
    if not outside:
        return ""
    return (
        f"extrapolated: batch sizes {_listed(e.batch_size for e in outside)} (on "
        f"{_listed(e.num_replicas for e in outside)} replicas) lie outside "
        f"{low:g} to {high:g}, where steps were measured: run there first"
    )


def _capped(findings: "Findings", plan: "Plan") -> Iterator[str]:
    lower = [entry for entry in plan.entries if entry.batch_size_is_lower_bound]
    cut = _cut_entries(findings, plan)
    capped = [
        entry
        for entry in plan.entries
        if entry.limited_by == "dataset" and entry not in (*lower, *cut)
    ]
    full = [entry for entry in plan.entries if _fills_memory(entry, findings)]
    open_ended = [
        entry
        for entry in plan.entries
        if entry.intervals is not None
        and entry.intervals.batch_size.high is None
        and entry not in (*capped, *full, *lower)
    ]
    if capped:
        yield (
            f"on {_listed(e.num_replicas for e in capped)} replicas the largest batch "
            f"size allowed, {capped[-1].batch_size}, is best: a larger one would be "
            "faster still"
        )
    if full:
        yield (
            f"on {_listed(e.num_replicas for e in full)} replicas the largest batch "
            f"sizes that fit in memory, {_listed(e.batch_size for e in full)}, are "
            "best: larger ones, in more passes per step, would be faster still"
        )
    if open_ended:
        yield (
            f"on {_listed(e.num_replicas for e in open_ended)} replicas the data do "
            "not tell how much larger than recommended the best batch size may be: "
            "more than 5 % of the fits they allow want the largest there is"
        )


def _held(findings: "Findings", plan: "Plan") -> str:
    least = findings.min_batch_size or 1
    held = [
        entry
        for entry in plan.entries
        if entry.num_replicas < least and entry.batch_size < least + entry.num_replicas
    ]
    if not held:
        return ""
    return (
        f"on {_listed(e.num_replicas for e in held)} replicas the plan stops at "
        f"{_listed(e.batch_size for e in held)}: no run reached the target at "
        f"batch size {least - 1} or below; run longer there, or with other "
        "learning rates, to plan for smaller ones"
    )


def _cut_entries(findings: "Findings", plan: "Plan") -> list["PlanEntry"]:
    most = findings.missed_batch_size
    if most is None:
        return []
    return [e for e in plan.entries if e.batch_size >= most - e.num_replicas]


def _cut(findings: "Findings", plan: "Plan") -> str:
    cut = _cut_entries(findings, plan)
    if not cut:
        return ""
    return (
        f"on {_listed(e.num_replicas for e in cut)} replicas the plan ends at "
        f"{_listed(e.batch_size for e in cut)}: no run reached the target at batch "
        f"size {findings.missed_batch_size} or above; run longer there, or with other "
        "learning rates, to plan for larger ones"
    )


def _uneven(plan: "Plan") -> str:
    uneven = [entry for entry in plan.entries if _served(entry) != entry.batch_size]
    if not uneven:
        return ""
    return (
        f"batch sizes {_listed(e.batch_size for e in uneven)} (on "
        f"{_listed(e.num_replicas for e in uneven)} replicas) cannot be shared "
        f"evenly: a step takes as long as {_listed(map(_served, uneven))} examples do"
    )


def _idle(plan: "Plan") -> str:
    from rightbatch.reporting.formats import seconds

    idle = [entry for entry in plan.entries if entry.idle_replicas]
    if not idle:
        return ""
    used = min(entry.num_replicas - entry.idle_replicas for entry in idle)
    best = ", ".join(
        f"{e.num_replicas} at {e.batch_size_with_idle} "
        f"({seconds(e.seconds_with_idle or 0.0)})"
        for e in idle
    )
    return (
        f"{_listed(e.num_replicas for e in idle)} replicas are slower than {used}: "
        "what they spend on each other outweighs what they save. Their rows are for "
        f"all of them working; with {_listed(e.idle_replicas for e in idle)} left "
        f"idle, train {best}"
    )


def _fills_memory(entry: "PlanEntry", findings: "Findings") -> bool:
    most = findings.max_accumulation_steps
    fits = findings.max_micro_batch_size
    if entry.limited_by != "memory" or most is None or fits is None:
        return False
    return entry.batch_size > (fits * most - 1) * entry.num_replicas


def _served(entry: "PlanEntry") -> int:
    return entry.micro_batch_size * entry.accumulation_steps * entry.num_replicas


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def disagreements(
    fitted: "Plan", measured: "Plan", timed: tuple[float, float]
) -> list[str]:
    """Return where two plans differ by more than either holds to be worth 5 %.

    Args:
        fitted: With the fitted law of step times.
        measured: With the measured times.
        timed: Smallest and largest local batch size timed.

    Returns:
        A sentence for those that the times can settle, and one for those they cannot.
    """
    settled: list[str] = []
    open_: list[str] = []
    wanted: set[int] = set()
    for one, other in zip(fitted.entries, measured.entries, strict=True):
        if _within(one.batch_size, other.within_5_percent) or _within(
            other.batch_size, one.within_5_percent
        ):
            continue
        said = f"{one.num_replicas} ({one.batch_size} or {other.batch_size})"
        untimed = not _within(one.micro_batch_size, timed)
        if untimed or past_end(other, timed) is not None:
            open_.append(said)
            wanted.add(one.micro_batch_size if untimed else _next_to_time(other, timed))
        else:
            settled.append(said)
    what = "the fitted and the measured step times disagree about the best batch size"
    found: list[str] = []
    if settled:
        found.append(f"{what} on {', '.join(settled)} replicas: trust the measured one")
    if open_:
        found.append(
            f"{what} on {', '.join(open_)} replicas, and local batch sizes of "
            f"{timed[0]:g} to {timed[1]:g}, which were timed, do not tell which is "
            f"right: next, time local batch sizes of {_listed(sorted(wanted))}"
        )
    return found


def past_end(entry: "PlanEntry", timed: tuple[float, float]) -> str | None:
    """Return why the times do not tell that a batch is best, or None where they do.

    Args:
        entry: Of a plan with measured times.
        timed: Smallest and largest local batch size timed.

    Returns:
        A sentence, where the batch is at the smallest timed, or past either end.
    """
    low, high = timed
    share, where = entry.micro_batch_size, f"on {entry.num_replicas} replicas"
    if share > high:
        return (
            f"The measured step times end at a local batch size of {high:g}: {where} "
            f"the best, {share}, is found on the line through the last two; time a "
            f"local batch size of {share}."
        )
    wants_more = entry.limited_by in ("dataset", "memory")
    # One example cannot always be timed, and nothing lies below it.
    if low <= SMALLEST_TIMED or share > low or (share == low and wants_more):
        return None
    return (
        f"The measured step times begin at a local batch size of {low:g}: {where} the "
        f"best, {share}, is no more than that, and smaller ones may be faster; time a "
        f"local batch size of {_next_to_time(entry, timed)}."
    )


def _next_to_time(entry: "PlanEntry", timed: tuple[float, float]) -> int:
    share = entry.micro_batch_size
    return share if share > timed[1] else max(int(min(share, timed[0]) // 2), 1)


def end_warnings(measured: "Plan", timed: tuple[float, float]) -> list[str]:
    """Return where the measured times end before the plan made with them does.

    Args:
        measured: With the measured times.
        timed: Smallest and largest local batch size timed.

    Returns:
        One sentence for each end, naming what to time next.
    """
    cut = [entry for entry in measured.entries if past_end(entry, timed)]
    found: list[str] = []
    for is_high in (False, True):
        these = [e for e in cut if (e.micro_batch_size > timed[1]) == is_high]
        if not these:
            continue
        way = "end" if is_high else "begin"
        then = "past it, on the line through the last two"
        if not is_high:
            then = "no larger share, and smaller ones may be faster"
        sizes = sorted({_next_to_time(entry, timed) for entry in these})
        found.append(
            f"the measured step times {way} at a local batch size of "
            f"{timed[is_high]:g}: on {_listed(e.num_replicas for e in these)} replicas "
            f"the best batch sizes by them, {_listed(e.batch_size for e in these)}, "
            f"give each {then}: time local batch sizes of {_listed(sizes)} too"
        )
    return found


def _within(batch_size: int, ends: Sequence[float]) -> bool:
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
