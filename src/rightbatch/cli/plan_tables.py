"""``plan --runs --times``: the plan from tables measured elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rightbatch._checks import did_you_mean
from rightbatch.cli.fit import fit_runs, group_by_fit, rows_of_target
from rightbatch.cli.output import Output
from rightbatch.cli.planning import Findings, PlanOptions, plan_results
from rightbatch.cli.time import step_time_entry
from rightbatch.errors import InputError, TableError

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
    name = rows[0].workload or runs.stem
    timed = read_times(times)
    unit = _check_units(runs, rows, times, timed)
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
    )
    results = plan_results(findings, name)
    results["warnings"] += [*unit, *notes]
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


def _rows_and_fits(
    path: Path, which: tuple[str | None, float | None], options: PlanOptions
) -> "tuple[tuple[TableRun, ...], Fits]":
    if options.law != "loss":
        rows = _rows(path, which, options)
        return rows, _fits(path, rows, options.law)
    from rightbatch.cli.plan_loss import fit_loss_steps
    from rightbatch.experiments.tables import read_losses

    workload, target = which
    if target is None:
        raise InputError("plan: --law loss needs the loss to reach.", "give --target")
    losses = _of_workload(path, read_losses(path, **options.units), workload)
    fit = fit_loss_steps(path, losses, target)
    return _rows(path, which, options), ((target, fit),)


def _rows(
    path: Path, which: tuple[str | None, float | None], options: PlanOptions
) -> "tuple[TableRun, ...]":
    """Return the runs of one workload: counted, or read off where losses crossed."""
    from rightbatch.experiments.tables import (
        read_columns,
        read_losses,
        read_runs,
        runs_to_loss,
    )

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
) -> list[str]:
    """Refuse tables whose batch sizes count different things; return a warning."""
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
    if told is None and counted != "example":
        return [
            f"{times.name} does not say what its batch sizes count: taken as "
            f"{counted}s, like those of {runs.name}"
        ]
    smallest = min(row.batch_size for row in rows)
    largest = max(time.batch_size for time in timed)
    if smallest > largest:
        return [
            f"the smallest batch size run, {smallest:g}, is above the largest timed, "
            f"{largest:g}: do both tables count the same thing?"
        ]
    return []


def _interpolated(
    times: "tuple[TableTime, ...]", fit: "StepTimeFit", options: PlanOptions
) -> "MeasuredStepTime":
    """Return the times of one replica; of more, their communication taken off."""
    alone = [time for time in times if time.num_replicas == 1]
    used = alone or list(times)
    between = fit.law.communication
    least = min(time.seconds for time in used)
    return options.machine.measured(
        [time.batch_size / time.num_replicas for time in used],
        [
            # More than a step takes cannot be taken off: it was hidden behind it.
            max(
                time.seconds - float(between.comm_seconds(time.num_replicas)),
                0.01 * least,
            )
            for time in used
        ],
        fit,
    )


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
    reached = row.steps == row.steps  # NaN is not itself
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
