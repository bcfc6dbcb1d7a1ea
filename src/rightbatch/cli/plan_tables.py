"""``plan --runs --times``: the plan from tables measured elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightbatch.cli.fit import fit_runs, group_by_fit
from rightbatch.cli.output import Output
from rightbatch.cli.planning import Findings, PlanOptions, plan_results
from rightbatch.cli.time import step_time_entry
from rightbatch.errors import InputError, TableError

if TYPE_CHECKING:
    from rightbatch.convergence import TunedFit
    from rightbatch.experiments.tables import TableRun, TableTime
    from rightbatch.step_time import Communication, MeasuredStepTime, StepTimeFit


def plan_tables(
    out: Output, runs: Path, times: Path, options: PlanOptions
) -> dict[str, Any]:
    """Return the document of a plan from two tables.

    Args:
        out: Told of what is measured.
        runs: Steps to the target.
        times: Seconds per step; of several replicas they tell the communication too.
        options: What to plan for.

    Returns:
        The JSON document.

    Raises:
        InputError: A table cannot be used, or holds several workloads.
    """
    from rightbatch.experiments.tables import read_runs, read_times

    rows = read_runs(runs, examples_per_epoch=options.examples_per_epoch)
    name, fits = _fits(runs, rows, options.law)
    timed = read_times(times)
    step_time, notes = _fit_times(out, times, timed, options)
    findings = Findings(
        fits=fits,
        step_time=step_time,
        measured=_interpolated(timed, step_time.law.communication),
        replicas=options.replicas,
        max_batch_size=options.max_batch_size,
    )
    results = plan_results(findings, name)
    results["warnings"] += notes
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


def _interpolated(
    times: "tuple[TableTime, ...]", between: "Communication"
) -> "MeasuredStepTime":
    """Return the times of one replica; of more, their communication taken off."""
    from rightbatch.step_time import MeasuredStepTime

    alone = [time for time in times if time.num_replicas == 1] or list(times)
    return MeasuredStepTime(
        batch_sizes=[time.batch_size / time.num_replicas for time in alone],
        seconds=[
            time.seconds - float(between.comm_seconds(time.num_replicas))
            for time in alone
        ],
        communication=between,
    )


def _fits(
    path: Path, rows: "tuple[TableRun, ...]", law: str
) -> "tuple[str, tuple[tuple[float | None, TunedFit], ...]]":
    groups = group_by_fit(rows)
    names = list(dict.fromkeys(name for name, _ in groups))
    if len(names) > 1:
        raise TableError(
            f"{path}: holds {len(names)} workloads ({', '.join(names[:3])}, ...), and "
            "a plan is for one.",
            "keep one, or look at all of them with `fit`",
        )
    fits = [
        (target, fit_runs(path, name, members, law))
        for (name, target), members in groups.items()
    ]
    # The hardest target takes the most steps at the smallest batch size.
    fits.sort(
        key=lambda pair: float(pair[1].fit.law.steps(pair[1].fit.fitted_range[0]))
    )
    return names[0] or path.stem, tuple(fits)


def _fit_times(
    out: Output,
    path: Path,
    times: "tuple[TableTime, ...]",
    options: PlanOptions,
) -> "tuple[StepTimeFit, list[str]]":
    from rightbatch.step_time import fit_step_time

    columns = (
        [time.batch_size for time in times],
        [time.seconds for time in times],
        [time.num_replicas for time in times],
    )
    choice = options.choice
    try:
        if max(columns[2]) > 1 and not (choice.is_given or choice.measure):
            return fit_step_time(*columns), []
        between, notes = choice.resolve(out, options.num_parameters, options.replicas)
        return fit_step_time(*columns, communication=between), notes
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _run_row(row: "TableRun") -> dict[str, Any]:
    reached = row.steps == row.steps  # NaN is not itself
    return {
        "batch_size": row.batch_size,
        "lr": row.lr,
        "seed": None,
        "target": row.target,
        "steps": row.steps if reached else None,
        "examples": row.steps * row.batch_size if reached else None,
        "status": "reached" if reached else "not_reached",
    }
