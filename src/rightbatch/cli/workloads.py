"""``workloads``: what can be measured here by name."""

from typing import Any

from rightbatch.cli import flags
from rightbatch.cli.output import Output

NAME = "workloads"


def run(
    data_dir: flags.DataDir = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """List the workloads with their parameters, data and source."""
    from rightbatch.reporting.tables import workloads_sheet
    from rightbatch.workload import (
        data_status,
        load_workload,
        num_parameters,
        registered_workloads,
    )

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    entries: list[dict[str, Any]] = []
    for name in registered_workloads():
        workload = load_workload(name, data_dir)
        entries.append(
            {
                "name": name,
                "parameters": num_parameters(workload),
                "data": data_status(workload, data_dir),
                "source": workload.source,
            }
        )
    inputs = {"data_dir": str(data_dir) if data_dir else None}
    out.show(out.document(inputs, workloads=entries), workloads_sheet(entries))
