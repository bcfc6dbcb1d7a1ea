"""``plan --runs --times``: the plan from tables measured elsewhere."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rightbatch._checks import did_you_mean
from rightbatch.cli.fit import fit_runs, group_by_fit, rows_of_target
from rightbatch.cli.fit_losses import few_arrived
from rightbatch.cli.machine import check_replicas, row_lines
from rightbatch.cli.output import Output
from rightbatch.cli.planning import (
    Findings,
    PlanOptions,
    above_missed,
    missed_above,
    plan_results,
)
from rightbatch.cli.time import step_time_entry
from rightbatch.errors import InputError, NotReachedError, TableError

if TYPE_CHECKING:
    from rightbatch.cli.plan_loss import TunedLoss
    from rightbatch.convergence import TunedFit
    from rightbatch.experiments.tables import TableLoss, TableRun, TableTime
    from rightbatch.step_time import MeasuredStepTime, StepTimeFit

    Fits = tuple[tuple[float | None, TunedFit | TunedLoss], ...]

Row = TypeVar("Row", "TableRun", "TableLoss")


def plan_tables(
    out: Output,
    runs: Path,
    times: Path,
    options: PlanOptions,
    which: tuple[str | None, float | None] = (None, None),
) -> dict[str, Any]:
    """Return the document of a plan from two tables.

    Args:
        out: Told of what is measured.
        runs: Steps to the target.
        times: Seconds per step; of several replicas they tell the communication too.
        options: What to plan for.
        which: The workload and the target, of several in RUNS; None where there is
            one, or for the hardest target. A column of losses makes it a loss.

    Returns:
        The JSON document.

    Raises:
        InputError: A table cannot be used, or holds several workloads, or the two
            count in different units.
    """
    from rightbatch.experiments.tables import read_times

    rows, fits = _rows_and_fits(runs, which, options)
    planned = [row for row in rows if row.target == fits[-1][0]]
    sizes = [row.batch_size for row in planned]
    arrived = [_arrived(row) for row in planned]
    name = rows[0].workload or runs.stem
    timed = read_times(times)
    check_replicas(times, timed, row_lines(times))
    unit = _check_units(runs, rows, times, timed, options.units)
    step_time, notes = _fit_times(out, times, timed, options)
    findings = Findings(
        fits=fits,
        step_time=step_time,
        measured=_interpolated(timed, step_time, options),
        replicas=options.replicas,
        max_batch_size=options.max_batch_size,
        max_micro_batch_size=options.max_micro_batch_size,
        max_accumulation_steps=options.max_accumulation_steps,
        candidates=options.candidates,
        compare=options.compare,
        min_batch_size=above_missed(sizes, arrived),
        missed_batch_size=missed_above(sizes, arrived),
    )
    if _goes_below(findings):
        why = "the best batch by the counted steps is one where no run arrived"
        found = _instead(runs, which, options, why)
        if found is not None:
            findings = replace(findings, fits=((which[1], found),))
    results = plan_results(findings, name)
    results["warnings"] = [*unit, *results["warnings"], *notes]
    inputs = {
        "runs": str(runs),
        "times": str(times),
        "workload": name,
        "targets": [target for target, _ in fits if target is not None],
        **options.inputs(),
    }
    points = [
        {
            "batch_size": time.batch_size,
            "num_replicas": time.num_replicas,
            "seconds": time.seconds,
        }
        for time in timed
    ]
    return out.document(
        inputs,
        **results,
        step_time=step_time_entry(step_time, points),
        runs=[_run_row(row) for row in rows],
        verification=[],
    )


def _goes_below(findings: Findings) -> bool:
    """Return whether the best batch would be among those where no run arrived."""
    from rightbatch.cli.plan_loss import TunedLoss

    least = findings.min_batch_size
    if least is None or isinstance(findings.tuned, TunedLoss):
        return False
    free = replace(findings, min_batch_size=None)
    plan = free.plan(findings.step_time.law, None)
    return any(entry.batch_size < least for entry in plan.entries)


def _rows_and_fits(
    path: Path, which: tuple[str | None, float | None], options: PlanOptions
) -> "tuple[tuple[TableRun, ...], Fits]":
    if options.law == "loss" and which[1] is None:
        raise InputError("plan: --law loss needs the loss to reach.", "give --target")
    if options.law == "loss":
        fit = _loss_fit(path, which, options)
        return _rows(path, which, options), ((which[1], fit),)
    rows = _rows(path, which, options)
    if few_arrived(rows):
        found = _instead(path, which, options, "fewer than three batch sizes arrived")
        if found is not None:
            return rows, ((which[1], found),)
    return rows, _fits(path, rows, options.law)


def _instead(
    path: Path,
    which: tuple[str | None, float | None],
    options: PlanOptions,
    why: str,
) -> "TunedLoss | None":
    """Return the law of the loss in place of one of steps, where a table tells it."""
    from rightbatch.experiments.tables import read_columns

    loss_known = which[1] is not None and "loss" in read_columns(path)
    if options.law != "auto" or not loss_known:
        return None
    try:
        found = _loss_fit(path, which, options)
    except (InputError, NotReachedError):
        return None  # too few losses, or a law that the runs which arrived refute
    said = (
        f"the steps are those of the law of the loss, as {why}: it is fitted to all "
        "losses, also of runs that did not get there (--law inverse takes the others "
        "alone)"
    )
    return replace(found, warnings=(*found.warnings, said))


def _loss_fit(
    path: Path, which: tuple[str | None, float | None], options: PlanOptions
) -> "TunedLoss":
    from rightbatch.cli.plan_loss import fit_loss_steps
    from rightbatch.experiments.tables import read_losses

    workload, target = which
    assert target is not None, "only asked for with a target"
    losses = _of_workload(path, read_losses(path, **options.units), workload)
    found = fit_loss_steps(path, losses, target)
    if found.fit.at_target.is_reachable:
        return found
    least = found.fit.fit.law.irreducible_loss
    said = [text for text in found.fit.at_target.warnings if "irreducible" in text]
    why = said[0] if said else f"by this law no batch size reaches {target:g}"
    raise NotReachedError(
        f"{path}: {why}.",
        f"plan for a --target above {least:.4g}, or add losses of longer runs at large "
        "batch sizes, which tell how low it can go",
    )


def _arrived(row: "TableRun") -> bool:
    return not math.isnan(row.steps)


def _rows(
    path: Path, which: tuple[str | None, float | None], options: PlanOptions
) -> "tuple[TableRun, ...]":
    """Return the runs of one workload: counted, or read off where losses crossed."""
    from rightbatch.experiments.repeats import runs_to_loss
    from rightbatch.experiments.tables import read_columns, read_losses, read_runs

    workload, target = which
    if target is None or "loss" not in read_columns(path):
        rows = read_runs(path, **options.units)
        rows = rows if target is None else rows_of_target(path, rows, target)
        return _of_workload(path, rows, workload)
    losses = _of_workload(path, read_losses(path, **options.units), workload)
    return runs_to_loss(losses, target)


def _of_workload(
    path: Path, rows: "tuple[Row, ...]", workload: str | None
) -> "tuple[Row, ...]":
    """Return the rows of one workload; refuse a mixture that nobody chose from."""
    names = list(dict.fromkeys(row.workload for row in rows))
    listed = ", ".join(repr(name) for name in names[:6])
    if len(names) > 6:
        listed += ", ..."
    if workload is None:
        if len(names) == 1:
            return rows
        raise TableError(
            f"{path}: holds {len(names)} workloads ({listed}), and a plan is for one.",
            f"choose with --workload {names[0]}, or look at all of them with `fit`",
        )
    if workload not in names:
        way_out = did_you_mean(workload, names) or f"it holds {listed}"
        raise TableError(f"{path}: has no workload {workload!r}.", way_out)
    return tuple(row for row in rows if row.workload == workload)


def _check_units(
    runs: Path,
    rows: "tuple[TableRun, ...]",
    times: Path,
    timed: "tuple[TableTime, ...]",
    units_told: dict[str, Any],
) -> list[str]:
    """Refuse tables whose batch sizes count different things; return warnings."""
    from rightbatch.experiments.counts import Units, sequence_warnings
    from rightbatch.experiments.tables import read_columns

    counted = rows[0].example_unit
    units = {time.example_unit for time in timed if time.example_unit}
    if len(units) > 1:
        raise TableError(
            f"{times}: counts batch sizes in {' and '.join(sorted(units))}s.",
            "one unit for all rows",
        )
    told = next(iter(units), None)
    if told is not None and told != counted:
        raise TableError(
            f"{times}: counts batch sizes in {told}s, and {runs} in {counted}s.",
            "convert one of them, so that both mean the same batch",
        )
    if told is None and units_told.get("tokens_per_example"):
        raise TableError(
            f"{times}: does not say what its batch sizes count, and with "
            f"--tokens-per-example those of {runs} are {counted}s.",
            f"give {times.name} batch sizes in {counted}s, and a column unit that says "
            f"{counted}",
        )
    ran = [row.batch_size for row in rows]
    said = sequence_warnings(read_columns(runs), ran, Units(**units_told))
    if told is None and counted != "example":
        said.append(
            f"{times.name} does not say what its batch sizes count: taken as "
            f"{counted}s, like those of {runs.name}"
        )
    sizes = [time.batch_size for time in timed]
    if min(ran) > max(sizes):
        said.append(
            f"the smallest batch size run, {min(ran):g}, is above the largest timed, "
            f"{max(sizes):g}: do both tables count the same thing?"
        )
    if max(ran) < min(sizes):
        said.append(
            f"the largest batch size run, {max(ran):g}, is below the smallest timed, "
            f"{min(sizes):g}: do both tables count the same thing?"
        )
    return said


def _interpolated(
    times: "tuple[TableTime, ...]", fit: "StepTimeFit", options: PlanOptions
) -> "MeasuredStepTime":
    """Return the times by local batch: what rows of several replicas tell too."""
    from rightbatch.step_time import local_seconds

    local, seconds = local_seconds(
        [time.batch_size for time in times],
        [time.seconds for time in times],
        [time.num_replicas for time in times],
        fit.law,
    )
    return options.machine.measured(local.tolist(), seconds.tolist(), fit)


def _fits(
    path: Path, rows: "tuple[TableRun, ...]", law: str
) -> "tuple[tuple[float | None, TunedFit], ...]":
    groups = group_by_fit(rows)
    fits = [
        (target, fit_runs(path, name, members, law))
        for (name, target), members in groups.items()
    ]
    # The hardest target takes the most steps at the smallest batch size.
    fits.sort(
        key=lambda pair: float(pair[1].fit.law.steps(pair[1].fit.fitted_range[0]))
    )
    return tuple(fits)


def _fit_times(
    out: Output,
    path: Path,
    times: "tuple[TableTime, ...]",
    options: PlanOptions,
) -> "tuple[StepTimeFit, list[str]]":
    columns = (
        [time.batch_size for time in times],
        [time.seconds for time in times],
        [time.num_replicas for time in times],
    )
    choice = options.choice
    try:
        if max(columns[2]) > 1 and not (choice.is_given or choice.measure):
            return options.machine.fit(*columns), []
        between, notes = choice.resolve(out, options.num_parameters, options.replicas)
        return options.machine.fit(*columns, communication=between), notes
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _run_row(row: "TableRun") -> dict[str, Any]:
    reached = _arrived(row)
    return {
        "batch_size": row.batch_size,
        "lr": row.lr,
        "run": row.run or None,
        "seed": None,
        "target": row.target,
        "steps": row.steps if reached else None,
        "examples": row.steps * row.batch_size if reached else None,
        "status": "reached" if reached else "not_reached",
    }
