"""The jobs of a cluster file: laws from numbers, or fitted to tables beside it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightbatch.cli.sections import Section
from rightbatch.errors import InputError, TableError

if TYPE_CHECKING:
    from rightbatch.cluster import Job
    from rightbatch.convergence import ConvergenceLaw, TunedFit
    from rightbatch.step_time import (
        Communication,
        Evaluation,
        StepTimeFit,
        StepTimeLaw,
    )
    from rightbatch.training_time import BatchLimits

LAW = ("min_steps", "min_examples", "knee_exponent", "min_batch_size")
RUNS = ("runs", "workload", "target", "law", "examples_per_epoch")
TIME = ("seconds_per_example", "saturation_batch_size", "overhead", "overlap_exponent")
LIMITS = (
    "max_batch_size",
    "max_micro_batch_size",
    "max_accumulation_steps",
    "candidates",
)
JOB = (
    "name",
    "weight",
    *LAW,
    *RUNS,
    *TIME,
    "times",
    "communication",
    "evaluation",
    *LIMITS,
)
_SIZES, _RATES = ("num_bytes",), ("bytes_per_second",)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownJob:
    """A job, and how its laws are known.

    Args:
        job: The job.
        tuned: The fit of its runs; None where the law was given as numbers.
        timed: The fit of its step times; None likewise.
        capped_by_runs: Batches are held to the largest one run, as S_min is not above
            zero.
        warnings: What to know, one sentence each.
    """

    job: "Job"
    tuned: "TunedFit | None"
    timed: "StepTimeFit | None"
    capped_by_runs: bool
    warnings: tuple[str, ...]


def read_jobs(top: Section, folder: Path) -> tuple[KnownJob, ...]:
    """Return the jobs of a cluster file.

    Args:
        top: The whole file.
        folder: Where its tables lie.

    Returns:
        One for ``[job]``, or one for each ``[[jobs]]``.

    Raises:
        InputError: There is none, or one cannot be used.
    """
    one, several = top.table("job"), top.get("jobs", list)
    if (one is None) == (several is None):
        raise InputError(f"{top.where}: give one table [job], or several [[jobs]].")
    if one is not None:
        return (_read_job(one, folder, 1),)
    if not several or not all(isinstance(each, dict) for each in several):
        raise InputError(f"{top.where}: `jobs` must be tables, [[jobs]].")
    return tuple(
        _read_job(Section(f"{top.where}, job {place}", each), folder, place)
        for place, each in enumerate(several, start=1)
    )


def _read_job(table: Section, folder: Path, place: int) -> KnownJob:
    from rightbatch.cluster import Job

    table.only(JOB)
    name = table.get("name", str, f"job {place}")
    law, tuned = _law(table, folder)
    step_time, timed = _step_time(table, folder)
    limits, capped, said = _limits(table, tuned)
    if timed is not None:
        said += [f"{name}: {warning}" for warning in timed.warnings]
    if tuned is not None:
        said += [f"{name}: {warning}" for warning in tuned.warnings]
        said += [f"{name}: {warning}" for warning in tuned.fit.warnings]
    if step_time.communication.kind == "none" and "communication" not in table:
        said.append(
            f"{name}: replicas are taken to spend no time on each other; give a table "
            "`communication`, or times of more than one replica"
        )
    try:
        job = Job(
            convergence=law,
            step_time=step_time,
            limits=limits,
            weight=table.positive("weight", 1.0),
            name=name,
        )
    except InputError as error:
        raise InputError(f"{table.where}: {error}") from None
    return KnownJob(
        job=job,
        tuned=tuned,
        timed=timed,
        capped_by_runs=capped,
        warnings=tuple(dict.fromkeys(said)),
    )


def _law(table: Section, folder: Path) -> "tuple[ConvergenceLaw, TunedFit | None]":
    from rightbatch.convergence import ConvergenceLaw

    if "runs" in table:
        _not_both(table, "runs", LAW)
        tuned = _fitted_runs(table, folder / table.get("runs", str))
        return tuned.fit.law, tuned
    _not_both(table, "min_steps", RUNS[1:], "needs `runs`")
    table.need("min_steps", "min_examples")
    values = {key: table.number(key, 0.0) for key in LAW if key in table}
    try:
        return ConvergenceLaw(**values), None
    except InputError as error:
        raise InputError(f"{table.where}: {error}") from None


def _fitted_runs(table: Section, path: Path) -> "TunedFit":
    from rightbatch.cli.fit import fit_runs, group_by_fit
    from rightbatch.experiments.tables import read_runs

    rows = read_runs(path, examples_per_epoch=table.positive("examples_per_epoch"))
    groups = group_by_fit(rows)
    wanted = table.get("workload", str)
    names = list(dict.fromkeys(name for name, _ in groups))
    if wanted is not None and wanted not in names:
        from rightbatch._checks import one_of

        one_of(table.where, "workload", wanted, names)
    if wanted is None and len(names) > 1:
        raise TableError(
            f"{table.where}: {path.name} holds {len(names)} workloads "
            f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}), and a job "
            "is one.",
            f'say which: workload = "{names[0]}"',
        )
    name = names[0] if wanted is None else wanted
    targets = [target for group, target in groups if group == name]
    target = table.number("target", math.nan) if "target" in table else None
    if target is None and len(targets) > 1:
        known = ", ".join(f"{each:g}" for each in targets if each is not None)
        raise TableError(
            f"{table.where}: {path.name} holds {len(targets)} targets ({known}), and a "
            "job has one.",
            f"say which: target = {targets[0]}",
        )
    if target is not None and target not in targets:
        known = ", ".join(f"{each:g}" for each in targets if each is not None)
        raise TableError(
            f"{table.where}: {path.name} has no target {target:g}.",
            f"it has {known or 'no column target'}",
        )
    chosen = target if target is not None else targets[0]
    law = table.get("law", str, "auto")
    return fit_runs(path, name, groups[name, chosen], law)


def _step_time(
    table: Section, folder: Path
) -> "tuple[StepTimeLaw, StepTimeFit | None]":
    from rightbatch.step_time import StepTimeLaw

    between, check = _communication(table), _evaluation(table)
    if "times" in table:
        _not_both(table, "times", TIME)
        fit = _fitted_times(folder / table.get("times", str), between)
        fit = fit.with_evaluation(check)
        return fit.law, fit
    table.need("seconds_per_example")
    values: dict[str, Any] = {
        "seconds_per_example": table.quantity("seconds_per_example", "time"),
        "saturation_batch_size": table.positive("saturation_batch_size", 1.0),
        "overhead_seconds": table.quantity("overhead", "time"),
        "overlap_exponent": table.number("overlap_exponent", 1.0)
        if table.values.get("overlap_exponent") != math.inf
        else math.inf,
        "evaluation": check,
    }
    if between is not None:
        values["communication"] = between
    for key in ("seconds_per_example", "overhead"):
        # Left out is fine for the overhead; a zero that was written is a slip.
        if key in table and table.quantity(key, "time") == 0:
            raise InputError(f"{table.where}: `{key}` must be positive, got 0.")
    try:
        return StepTimeLaw(**values), None
    except InputError as error:
        raise InputError(f"{table.where}: {error}") from None


def _fitted_times(path: Path, between: "Communication | None") -> "StepTimeFit":
    from rightbatch.cli.machine import check_replicas, row_lines
    from rightbatch.experiments.tables import read_times
    from rightbatch.step_time import fit_step_time

    times = read_times(path)
    check_replicas(path, times, row_lines(path))
    columns = (
        [time.batch_size for time in times],
        [time.seconds for time in times],
        [time.num_replicas for time in times],
    )
    try:
        if between is None:
            return fit_step_time(*columns)
        return fit_step_time(*columns, communication=between)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _communication(table: Section) -> "Communication | None":
    from rightbatch.step_time.kinds import communication_from_dict

    form = table.table("communication")
    if form is None:
        return None
    values = dict(form.values)
    for key in values:
        if key in _SIZES:
            values[key] = form.quantity(key, "size")
        elif key.endswith(_RATES):
            values[key] = form.quantity(key, "bandwidth")
        elif key.startswith("seconds") or key.endswith("_seconds"):
            values[key] = form.quantity(key, "time")
    return communication_from_dict(values, form.where)


def _evaluation(table: Section) -> "Evaluation | None":
    from rightbatch.step_time import Evaluation

    check = table.table("evaluation")
    if check is None:
        return None
    check.only(["every", "num_examples", "seconds_per_example", "shared"])
    check.need("every", "num_examples")
    return Evaluation(
        every=check.whole("every") or 1,
        num_examples=check.whole("num_examples") or 1,
        seconds_per_example=check.quantity("seconds_per_example", "time") or None,
        shared=check.get("shared", bool, False),
    )


def _limits(
    table: Section, tuned: "TunedFit | None"
) -> "tuple[BatchLimits, bool, list[str]]":
    """Return what is served and supported by the runs, as `plan` has it."""
    from rightbatch.training_time import BatchLimits, limits_of

    values: dict[str, Any] = {key: table.whole(key) for key in LIMITS[:-1]}
    values["candidates"] = table.get("candidates", list)
    try:
        served = BatchLimits(**values)
    except InputError as error:
        raise InputError(f"{table.where}: {error}") from None
    if tuned is None:
        return served, False, []
    fit, said = tuned.fit, list[str]()
    if fit.status != "ok":
        said.append(f"the law of steps is {fit.status}. {fit.advice}")
    limits = limits_of(fit, served)
    capped = limits != served
    if capped:
        said.append(
            f"no batch above {limits.max_batch_size}, the largest one run, is planned "
            "with: its runs show no limit to what larger batches save, so this batch "
            "is a lower bound of the best, and the time an upper bound"
        )
    return limits, capped, said


def _not_both(
    table: Section, key: str, others: tuple[str, ...], rule: str | None = None
) -> None:
    for other in others:
        if other in table:
            raise InputError(
                f"{table.where}: `{other}` {rule or f'cannot stand beside `{key}`'}.",
                "" if rule else "numbers, or a table to fit them to",
            )
