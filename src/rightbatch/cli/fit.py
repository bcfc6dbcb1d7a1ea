"""``fit TABLE.csv``: the convergence law of runs measured elsewhere."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch._checks import one_of, writable_path
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.errors import InputError, TableError

if TYPE_CHECKING:
    from rightbatch.convergence import TunedFit
    from rightbatch.convergence.choice import LawName
    from rightbatch.experiments.tables import TableRun

NAME = "fit"
STEPS_LAWS: "dict[str, LawName]" = {
    "auto": "auto",
    "inverse": "inverse",
    "knee": "knee",
    "floor": "floor",
}


def run(
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv")],
    law: Annotated[
        str, typer.Option(help="auto, inverse, knee, floor or loss.")
    ] = "auto",
    target: Annotated[
        float | None,
        typer.Option(
            help="With a loss column: fit the loss law, and the steps to this loss. "
            "With a target column: fit the rows of this target alone."
        ),
    ] = None,
    unit: flags.ExampleUnit = None,
    examples_per_epoch: flags.EpochSize = None,
    tokens_per_example: flags.SequenceSize = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report here.")
    ] = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Fit steps to a target against batch size, with intervals.

    TABLE.csv has the columns batch_size and one of steps, examples, epochs, tokens;
    optional workload, run, target, lr, status, unit, loss. With several learning rates
    the best one of each batch size counts. With losses, runs that never reached the
    target count too: --law loss or --target fits the loss after so many steps; a column
    run keeps repeats apart.
    """
    from rightbatch.reporting.tables import fit_sheet, loss_law_sheet

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    one_of("--law", "law", law, [*STEPS_LAWS, "loss"])
    if report:
        writable_path("--report", report)
    units = {
        "examples_per_epoch": examples_per_epoch,
        "tokens_per_example": tokens_per_example,
        "example_unit": unit,
    }
    entries = _entries(table, law, target, units)
    inputs = {"table": str(table), "law": law, "target": target, **units}
    document = out.document(inputs, workloads=entries)
    if report:
        from rightbatch.reporting.html import write_html

        out.note(f"report: {write_html(document, report)}")
    of_steps = [entry for entry in entries if entry["law"] != "loss"]
    sheets = [fit_sheet(of_steps)] if of_steps else []
    if any(entry.get("loss_law") for entry in entries):
        sheets.append(loss_law_sheet(entries))
    out.show(document, *sheets, *_warnings(entries))


def _entries(
    table: Path, law: str, target: float | None, units: dict[str, Any]
) -> list[dict[str, Any]]:
    from rightbatch.cli.fit_losses import loss_entries
    from rightbatch.experiments.counts import Units, sequence_warnings
    from rightbatch.experiments.tables import read_columns, read_losses, read_runs

    if law == "loss" or (target is not None and "loss" in read_columns(table)):
        chosen = "auto" if law == "loss" else law
        return loss_entries(table, read_losses(table, **units), target, chosen)
    rows = read_runs(table, **units)
    if target is not None:
        rows = rows_of_target(table, rows, target)
    groups = group_by_fit(rows)
    entries = [
        fit_entry(name or table.stem, goal, fit_runs(table, name, members, law))
        for (name, goal), members in groups.items()
    ]
    columns = read_columns(table)
    said = sequence_warnings(columns, [row.batch_size for row in rows], Units(**units))
    if "loss" in columns:
        said.append(
            "the column loss was left aside, and every row taken to have reached the "
            "target: --target or --law loss reads it"
        )
    for entry in entries:
        entry["warnings"] += said
    if len({name for name, _ in groups}) > 1:
        # A target alone would not tell two workloads apart.
        for entry in entries:
            if entry["target"] is not None:
                entry["name"] = f"{entry['workload']}, target {entry['target']:g}"
    return entries


def rows_of_target(
    table: Path, rows: "tuple[TableRun, ...]", target: float
) -> "tuple[TableRun, ...]":
    """Return the rows of one target.

    Args:
        table: The file, for errors.
        rows: From it.
        target: Which.

    Returns:
        At least one row.

    Raises:
        TableError: No row is of this target.
    """
    kept = tuple(row for row in rows if row.target == target)
    if kept:
        return kept
    targets = sorted({row.target for row in rows if row.target is not None})
    if targets:
        listed = ", ".join(f"{value:g}" for value in targets)
        raise TableError(f"{table}: has no rows of target {target:g}.", f"use {listed}")
    raise TableError(
        f"{table}: --target needs a column loss or target.",
        "without one, all rows are of one target",
    )


def group_by_fit(
    rows: "tuple[TableRun, ...]",
) -> "dict[tuple[str, float | None], list[TableRun]]":
    """Return the rows that one law is fitted to: of one workload and one target.

    Args:
        rows: From a table.

    Returns:
        Rows by workload and target, in the order they first appear.
    """
    groups: dict[tuple[str, float | None], list[TableRun]] = {}
    for row in rows:
        groups.setdefault((row.workload, row.target), []).append(row)
    return groups


def fit_runs(
    table: Path, name: str, rows: "list[TableRun]", law: str = "auto"
) -> "TunedFit":
    """Return the law fitted to rows of a table.

    Args:
        table: The file, for errors.
        name: The rows' workload, for errors.
        rows: Of one workload and one target.
        law: ``auto``, ``inverse``, ``knee`` or ``floor``.

    Returns:
        The fit.

    Raises:
        InputError: The rows cannot be fitted, or must be of two workloads; the table is
            named.
    """
    from rightbatch.convergence import Finding, fit_tuned
    from rightbatch.convergence.mixture import find_mixture
    from rightbatch.experiments.repeats import repeat_warnings

    batch_sizes, steps = [row.batch_size for row in rows], [row.steps for row in rows]
    known = [row.lr for row in rows if row.lr is not None]
    lrs = known if len(known) == len(rows) else None
    # Rows that say their workload are believed.
    mixture = None if name else find_mixture(batch_sizes, steps, lrs)
    if mixture and mixture.is_sure:
        raise InputError(
            f"{table}: {mixture}.",
            "name them in a column workload, target or lr; for one workload, one name",
        )
    try:
        tuned = fit_tuned(
            batch_sizes,
            steps,
            lrs,
            law=STEPS_LAWS[law],
            example_unit=rows[0].example_unit,
        )
    except InputError as error:
        where = f"{table}, workload {name!r}" if name else str(table)
        raise InputError(f"{where}: {error}") from None
    said = [f"{mixture}; are they?"] if mixture else []
    said += repeat_warnings(rows)
    shown = [Finding(kind="table", sentence=sentence) for sentence in said]
    return replace(tuned, findings=(*tuned.findings, *shown))


def fit_entry(name: str, target: float | None, tuned: "TunedFit") -> dict[str, Any]:
    """Return the JSON entry of a fit.

    Args:
        name: Its workload.
        target: Its target.
        tuned: The fit.

    Returns:
        The stable keys.
    """
    return {"workload": name, "target": target, **tuned.to_dict()}


def _warnings(entries: list[dict[str, Any]]) -> list[str]:
    from rightbatch.reporting.tables import fit_name

    return [
        f"warning: {fit_name(entry)}: {warning}"
        for entry in entries
        for warning in entry["warnings"]
    ]
