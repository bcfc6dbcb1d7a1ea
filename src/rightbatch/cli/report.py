"""``report RUN``: one self-contained HTML file of a stored result."""

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from rightbatch._checks import writable_path
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.errors import InputError

NAME = "report"


def run(
    result: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A JSON result, or a store of runs."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The HTML file to write.")
    ] = Path("report.html"),
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Write an HTML report of a JSON result or of stored runs."""
    from rightbatch.reporting.html import write_html

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    writable_path("--output", output)
    document = read_result(result)
    if document.get("command") == "simulate":
        _write_simulated(document, output)
    else:
        write_html(document, output)
    out.show(
        out.document({"result": str(result)}, report=str(output)), f"report: {output}"
    )


def _write_simulated(document: dict[str, Any], output: Path) -> None:
    if not document.get("cells") or "claims" in document:
        raise InputError(
            "report: nothing to show, no table of cells in the result of simulate.",
            "simulate --paper writes its own report",
        )
    from rightbatch.reporting.simulate_report import write_simulate_report

    write_simulate_report(output, document)


def read_result(path: Path) -> dict[str, Any]:
    """Return the document of a stored result.

    Args:
        path: JSON as a command prints it, or a store of runs.

    Returns:
        The document.

    Raises:
        InputError: It is neither, or cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    if content.startswith(b"SQLite format 3"):
        from rightbatch.cli.sweep import document_of_store

        return document_of_store(path)
    try:
        document = jsonlib.loads(content)
    except ValueError as error:
        raise InputError(
            f"{path}: is neither JSON nor a store of runs: {error}."
        ) from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: is JSON, but no result of rightbatch.")
    return document
