"""``runs STORE...``: the runs that stores hold: listed, summed up, compared, merged."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rightbatch._checks import confidence_level, writable_path
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.cli.runs_filters import RunFilters, parse_statuses, parse_whole
from rightbatch.errors import InputError

NAME = "runs"


def run(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...")],
    batch_size: Annotated[
        str | None,
        typer.Option("--batch-size", "--batch-sizes", help="Only these: 8,64."),
    ] = None,
    lr: Annotated[str | None, typer.Option(help="Only these: .1,.2.")] = None,
    seed: Annotated[
        str | None, typer.Option("--seed", "--seeds", help="Only these: 0,1.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(help="Only these: reached,not_reached,diverged,out_of_memory."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Only these; with --compare the one to compare, or one for each."
        ),
    ] = None,
    session: Annotated[str | None, typer.Option(help="Only these: 1,2.")] = None,
    unique: Annotated[
        bool,
        typer.Option(
            "--unique",
            help="Of equal settings only the run that tells most, over all stores.",
        ),
    ] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="The best lr of each batch size.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="The second store against the first.")
    ] = False,
    merge: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write one store that holds all of them."),
    ] = None,
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.9,
    csv: Annotated[Path | None, typer.Option(help="Write the runs here.")] = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """List the runs that stores hold; sum them up, compare or merge the stores."""
    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    filters = _filters(batch_size, lr, seed, status, target, session, unique)
    confidence_level("--level", level)
    _check_together(filters, summary=summary, compare=compare, merge=merge, csv=csv)
    if csv:
        writable_path("--csv", csv)
    if merge:
        _merge(out, stores, merge)
        return
    _list(out, stores, filters, level, "summary" * summary + "compare" * compare, csv)


def _filters(
    batch_size: str | None,
    lr: str | None,
    seed: str | None,
    status: str | None,
    target: str | None,
    session: str | None,
    unique: bool,
) -> RunFilters:
    from rightbatch.cli.options import parse_numbers, parse_positive

    return RunFilters(
        batch_sizes=parse_whole("--batch-size", batch_size, 1),
        lrs=None if lr is None else parse_positive("--lr", lr),
        seeds=parse_whole("--seed", seed, 0),
        statuses=parse_statuses(status),
        targets=None if target is None else parse_numbers("--target", target),
        sessions=parse_whole("--session", session, 1),
        unique=unique,
    )


def _check_together(
    filters: RunFilters,
    *,
    summary: bool,
    compare: bool,
    merge: Path | None,
    csv: Path | None,
) -> None:
    if summary + compare + bool(merge) > 1:
        raise InputError("runs: --summary, --compare and --merge go one at a time.")
    if merge and (csv or filters != RunFilters()):
        raise InputError(
            "runs: --merge takes whole stores, without filters and --csv.",
            "list the merged store afterwards",
        )
    if (summary or compare) and filters.statuses:
        raise InputError(
            "runs: --status is for the listing.",
            "a mean of the runs that reached a target would be too low",
        )


def _list(
    out: Output,
    paths: list[Path],
    filters: RunFilters,
    level: float,
    also: str,
    csv: Path | None,
) -> None:
    from rightbatch.cli.runs_comparison import (
        comparison_of,
        mixed_crossings,
        summary_of,
    )
    from rightbatch.cli.runs_filters import write_rows
    from rightbatch.reporting.runs_tables import (
        compared_sheets,
        stored_runs_sheet,
        summary_sheets,
    )
    from rightbatch.reporting.train_tables import trained_sheet

    found = filters.apply(paths)
    rows = [row for store in found for row in store.rows]
    trained = [run for store in found for run in store.trainings]
    results: dict[str, Any] = {"runs": rows, "trained": trained}
    sheets: list[Any] = [stored_runs_sheet(rows)] if rows or not trained else []
    sheets += [trained_sheet(trained)] if trained else []
    if also == "summary":
        results["summary"] = summary_of(found, filters, level)
        sheets = summary_sheets(results["summary"]) or sheets
    warnings: list[str] = []
    if also == "compare":
        results["comparison"], warnings = comparison_of(found, filters, level)
        results["warnings"] = warnings
        sheets = [*compared_sheets(results["comparison"])]
    if csv:
        write_rows(csv, found)
        warnings += mixed_crossings(found)
    several = len(found) > 1
    inputs = {
        "store": None if several else str(paths[0]),
        "workload": None if several else found[0].identity.workload,
        "stores": [
            {"store": str(store.path), "workload": store.identity.workload}
            for store in found
        ],
        **filters.inputs(),
    }
    out.show(out.document(inputs, **results), *sheets)
    for warning in warnings:
        out.note(f"warning: {warning}")


def _merge(out: Output, paths: list[Path], merge: Path) -> None:
    from rightbatch.experiments.merging import merge_stores
    from rightbatch.reporting.runs_tables import merged_sheet

    merged = merge_stores(paths, merge)
    entry = merged.to_dict()
    inputs = {"stores": [str(path) for path in paths], "merge": str(merge)}
    out.show(out.document(inputs, merged=entry), merged_sheet(entry))
    if merged.num_contradicting:
        out.note(
            f"{merged.num_contradicting} settings and seeds ended differently in "
            "different sessions, as other versions and machines make them; all are kept"
        )
