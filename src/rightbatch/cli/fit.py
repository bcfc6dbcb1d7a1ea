"""``fit TABLE.csv``: the convergence law of runs measured elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch._checks import one_of, writable_path
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.convergence import TunedFit
    from rightbatch.convergence.fit import LawName
    from rightbatch.experiments.tables import TableRun

NAME = "fit"


def run(
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv")],
    law: flags.Law = "auto",
    examples_per_epoch: flags.EpochSize = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report here.")
    ] = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Fit steps to a target against batch size, with intervals.

    TABLE.csv has the columns batch_size and one of steps, examples, epochs, tokens;
    optional workload, target, lr, status. With several learning rates the best one of
    each batch size counts.
    """
    from rightbatch.experiments.tables import read_runs
    from rightbatch.reporting.tables import fit_sheet

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    one_of("--law", "law", law, ["auto", "inverse", "knee"])
    if report:
        writable_path("--report", report)
    rows = read_runs(table, examples_per_epoch=examples_per_epoch)
    entries = [
        fit_entry(name or table.stem, target, fit_runs(table, name, members, law))
        for (name, target), members in group_by_fit(rows).items()
    ]
    inputs = {"table": str(table), "law": law, "examples_per_epoch": examples_per_epoch}
    document = out.document(inputs, workloads=entries)
    if report:
        from rightbatch.reporting.html import write_html

        out.note(f"report: {write_html(document, report)}")
    out.show(document, fit_sheet(entries), *_warnings(entries))


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
        law: ``auto``, ``inverse`` or ``knee``.

    Returns:
        The fit.

    Raises:
        InputError: The rows cannot be fitted; the table is named.
    """
    from rightbatch.convergence import fit_tuned

    lrs = [row.lr for row in rows if row.lr is not None]
    chosen: LawName = (
        "inverse" if law == "inverse" else "knee" if law == "knee" else "auto"
    )
    try:
        return fit_tuned(
            [row.batch_size for row in rows],
            [row.steps for row in rows],
            lrs if len(lrs) == len(rows) else None,
            law=chosen,
        )
    except InputError as error:
        where = f"{table}, workload {name!r}" if name else str(table)
        raise InputError(f"{where}: {error}") from None


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
