"""``workloads``: what can be measured here by name, and the data it needs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.errors import InputError

NAME = "workloads"


def run(
    data_dir: flags.DataDir = None,
    fetch: Annotated[
        str | None,
        typer.Option(
            metavar="DATA_SET",
            help="Fetch a data set first: mnist, fashion-mnist, cifar10 or cifar100.",
        ),
    ] = None,
    stand_in: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="First write tiny generated stand-ins for all data sets there; the "
            "folder then serves as --data-dir.",
        ),
    ] = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """List the workloads with their parameters, data and source."""
    from rightbatch.reporting.tables import workloads_sheet

    if stand_in and (data_dir or fetch):
        raise InputError(
            "--stand-in goes with neither --data-dir nor --fetch.",
            "its folder is where the data is then looked for",
        )
    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    if stand_in:
        _write_stand_ins(out, stand_in)
    if fetch:
        _fetch(out, fetch, data_dir)
    entries = _entries(stand_in or data_dir)
    inputs = {
        "data_dir": str(data_dir) if data_dir else None,
        "fetch": fetch,
        "stand_in": str(stand_in) if stand_in else None,
    }
    out.show(out.document(inputs, workloads=entries), workloads_sheet(entries))


def _entries(data_dir: Path | None) -> list[dict[str, Any]]:
    from rightbatch.workload import (
        data_status,
        load_workload,
        num_parameters,
        registered_workloads,
    )

    entries: list[dict[str, Any]] = []
    for name in registered_workloads():
        workload = load_workload(name, data_dir)
        entries.append(
            {
                "name": name,
                "parameters": num_parameters(workload),
                "published_parameters": workload.published_parameters,
                "data": data_status(workload),
                "source": workload.source,
            }
        )
    return entries


def _write_stand_ins(out: Output, folder: Path) -> None:
    from rightbatch.experiments.data.stand_in import write_stand_ins

    names = write_stand_ins(folder)
    out.note(f"wrote stand-ins for {', '.join(names)} to {folder}")


def _fetch(out: Output, data_set: str, data_dir: Path | None) -> None:
    from rightbatch.experiments.data.fetch import fetch, files_of, folder_for

    size = sum(file.size for file in files_of(data_set))
    title = f"fetching {data_set} to {folder_for(data_set, data_dir)}"
    with out.bar(title, size) as show:
        paths = fetch(data_set, data_dir, show)
    out.note(f"{', '.join(path.name for path in paths)}: as published")
