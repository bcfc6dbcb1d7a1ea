"""``runs STORE``: the runs that a store holds."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rightbatch._checks import one_of, writable_path
from rightbatch.cli import flags
from rightbatch.cli.output import Output

NAME = "runs"
STATUSES = ("reached", "not_reached", "diverged", "out_of_memory")


def run(
    store: Annotated[Path, typer.Argument(metavar="STORE")],
    batch_size: Annotated[int | None, typer.Option(help="Only this one.")] = None,
    lr: Annotated[float | None, typer.Option(help="Only this one.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only this one.")] = None,
    status: Annotated[
        str | None,
        typer.Option(help="reached, not_reached, diverged or out_of_memory."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the runs here.")] = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """List the runs that a store holds."""
    from rightbatch.cli.sweep import rows_of, write_runs
    from rightbatch.experiments.store import RunStore
    from rightbatch.reporting.tables import runs_sheet
    from rightbatch.reporting.train_tables import trained_sheet

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    if status:
        one_of("--status", "status", status, STATUSES)
    if csv:
        writable_path("--csv", csv)
    with RunStore(store) as kept:
        found = kept.runs(batch_size=batch_size, lr=lr, seed=seed, status=status)
        workload = kept.identity.workload
        # A filter of runs to a target is none of a training: its batch changes.
        of_sweeps = batch_size is not None or lr is not None or status is not None
        trainings = () if of_sweeps else kept.trainings(seed=seed)
    rows = rows_of(found)
    if csv:
        write_runs(csv, workload, rows)
    filters: dict[str, Any] = {
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "status": status,
    }
    inputs = {"store": str(store), "workload": workload, **filters}
    trained = [run.summary() for run in trainings]
    sheets: list[Any] = [runs_sheet(rows)] if rows or not trained else []
    sheets += [trained_sheet(trained)] if trained else []
    out.show(out.document(inputs, runs=rows, trained=trained), *sheets)
