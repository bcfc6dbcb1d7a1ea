"""``time WORKLOAD``: seconds per step against batch size, and the law fitted to it.

``time --table TIMES.csv`` fits a table measured elsewhere.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch._checks import writable_path
from rightbatch.cli import communication as comm
from rightbatch.cli import flags
from rightbatch.cli import machine as machines
from rightbatch.cli.output import Output
from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.step_time import MeasuredStepTime, StepTimeFit
    from rightbatch.timing import StepTimings
    from rightbatch.workload import Workload

NAME = "time"
LARGEST_AUTO = 1024


def run(
    workload: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORKLOAD]",
            help="A name from `workloads`, module:function or path/file.py:function; "
            "digits-mlp by default.",
        ),
    ] = None,
    batch_sizes: flags.BatchSizes = "auto",
    replicas: Annotated[str, typer.Option(help="Numbers of replicas.")] = "1",
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="TIMES.csv",
            help="Fit times measured elsewhere: batch_size, num_replicas, seconds.",
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the times here.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report here.")
    ] = None,
    budget_seconds: Annotated[
        float, typer.Option(min=0.1, help="For all batch sizes together.")
    ] = 10.0,
    comm_law: comm.Comm = None,
    measure_comm: comm.MeasureComm = False,
    bandwidth: comm.Bandwidth = None,
    latency: comm.Latency = None,
    comm_seconds: comm.CommSeconds = None,
    overlap: machines.Overlap = None,
    device: flags.Device = "cpu",
    data_dir: flags.DataDir = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Time a training step over a range of batch sizes, or fit times of a table."""
    from rightbatch.cli.options import check_device, parse_counts

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    counts = parse_counts("--replicas", replicas)
    choice = comm.CommunicationChoice(
        measure=measure_comm,
        bandwidth=bandwidth,
        latency=latency,
        seconds=comm_seconds,
        law=comm_law,
    )
    machine = machines.MachineChoice(overlap=overlap)
    for name, path in (("--csv", csv), ("--report", report)):
        if path:
            writable_path(name, path)
    if table:
        if workload or csv or measure_comm or replicas != "1" or batch_sizes != "auto":
            raise InputError(
                "time: --table takes its times from a file, without WORKLOAD, "
                "--batch-sizes, --replicas, --csv or --measure-comm."
            )
        document = time_table(out, table, choice, machine)
    else:
        check_device(device)
        found = load_timed(workload or "digits-mlp", data_dir)
        sizes = timed_batch_sizes(found, batch_sizes)
        timings = time_steps(out, found, sizes, device, budget_seconds)
        inputs = {
            "workload": found.name,
            "batch_sizes": sizes,
            "replicas": counts,
            "device": device,
            "num_threads": timings.num_threads,
            "overlap": overlap,
        }
        document = _timed(out, found, timings, (choice, machine), inputs)
    show_times(out, document, csv, report)


def load_timed(name: str, data_dir: Path | None) -> "Workload":
    """Return the workload to time.

    Args:
        name: Registered, or where a function is found.
        data_dir: Where data sets lie.

    Returns:
        The workload.
    """
    from rightbatch.workload import load_workload

    return load_workload(name, data_dir)


def _timed(
    out: Output,
    workload: "Workload",
    timings: "StepTimings",
    choices: tuple[comm.CommunicationChoice, machines.MachineChoice],
    inputs: dict[str, Any],
) -> dict[str, Any]:
    from rightbatch.workload import num_parameters

    choice, machine = choices
    counts = inputs["replicas"]
    between, warnings = choice.resolve(out, num_parameters(workload), counts)
    fit = machine.fit(timings.batch_sizes, timings.seconds, communication=between)
    measured = machine.measured(timings.batch_sizes, timings.seconds, fit)
    rows = rows_of(timings, counts, between, measured)
    if timings.stopped:
        warnings.append(timings.stopped)
    step_time = step_time_entry(fit, rows)
    return out.document(inputs, times=rows, step_time=step_time, warnings=warnings)


def time_table(
    out: Output,
    table: Path,
    choice: comm.CommunicationChoice,
    machine: machines.MachineChoice,
) -> dict[str, Any]:
    """Return the document of a table of step times measured elsewhere.

    Args:
        out: Names the command.
        table: The file.
        choice: Communication, where it is given rather than fitted.
        machine: Overlap.

    Returns:
        The JSON document.

    Raises:
        InputError: The table cannot be read or fitted; it is named.
    """
    from rightbatch.experiments.tables import read_times

    timed = read_times(table)
    machines.check_replicas(table, timed, machines.row_lines(table))
    counts = tuple(sorted({time.num_replicas for time in timed}))
    columns = (
        [time.batch_size for time in timed],
        [time.seconds for time in timed],
        [time.num_replicas for time in timed],
    )
    between = choice.resolve(out, None, counts)[0] if choice.is_given else None
    try:
        fit = machine.fit(*columns, communication=between)
    except InputError as error:
        raise InputError(f"{table}: {error}") from None
    rows = [
        {"batch_size": size, "num_replicas": count, "seconds": seconds}
        for size, seconds, count in zip(*columns, strict=True)
    ]
    inputs = {"table": str(table), "replicas": counts, "overlap": machine.overlap}
    warnings: list[str] = []
    step_time = step_time_entry(fit, rows)
    return out.document(inputs, times=rows, step_time=step_time, warnings=warnings)


def show_times(
    out: Output, document: dict[str, Any], csv: Path | None, report: Path | None
) -> None:
    """Print times and their law, and write the files asked for.

    Args:
        out: Where to.
        document: The JSON document.
        csv: File for the times.
        report: File for the page.
    """
    from rightbatch.experiments.tables import write_csv
    from rightbatch.reporting.tables import step_time_sheet, times_sheet

    rows, step_time = document["times"], document["step_time"]
    if csv:
        columns = ["batch_size", "num_replicas", "seconds"]
        write_csv(csv, columns, [[row[name] for name in columns] for row in rows])
    notes = [finding["sentence"] for finding in step_time["findings"]]
    said = (*document["warnings"], *step_time["warnings"])
    notes += [f"warning: {text}" for text in said]
    if report:
        from rightbatch.reporting.html import write_html

        out.note(f"report: {write_html(document, report)}")
    out.show(document, times_sheet(rows), "", step_time_sheet(step_time), "", *notes)


def timed_batch_sizes(workload: "Workload", text: str) -> tuple[int, ...]:
    """Return the batch sizes to time.

    Args:
        workload: Its data set is the limit.
        text: ``auto``, powers of two up to 1,024, or a list.

    Returns:
        Batch sizes, ascending.

    Raises:
        InputError: No list of whole numbers, or one is above the data set.
    """
    from rightbatch.cli.options import parse_counts

    num_examples = count_examples(workload)
    if text == "auto":
        sizes = [2**i for i in range(30) if 2**i <= min(num_examples, LARGEST_AUTO)]
        return tuple(sizes)
    sizes = parse_counts("--batch-sizes", text)
    if sizes[-1] > num_examples:
        raise InputError(
            f"--batch-sizes: {sizes[-1]} is above the {num_examples} examples of "
            f"{workload.name}."
        )
    return tuple(sizes)


def count_examples(workload: "Workload") -> int:
    """Return how many examples the workload trains on.

    Args:
        workload: Its data is read if it was not yet.

    Returns:
        The length of its training data.

    Raises:
        WorkloadFailedError: The data set has no length, or raised.
    """
    from rightbatch.workload import failing_as

    data: Any = workload.train
    with failing_as(f"{workload.name}: len(train)"):
        return len(data)


def time_steps(
    out: Output,
    workload: "Workload",
    sizes: tuple[int, ...],
    device: str,
    budget_seconds: float = 10.0,
) -> "StepTimings":
    """Return measured step times, a progress bar shown meanwhile.

    Args:
        out: Shows it.
        workload: What is timed.
        sizes: Batch sizes.
        device: Where.
        budget_seconds: For all of them.

    Returns:
        The timings.
    """
    from rightbatch.timing import measure_step_times

    with out.bar(f"timing steps of {workload.name}", 100) as show:
        return measure_step_times(
            workload,
            sizes,
            device=device,
            budget_seconds=budget_seconds,
            on_progress=lambda share: show(round(100 * share)),
        )


def rows_of(
    timings: "StepTimings",
    replicas: tuple[int, ...],
    between: Any,
    measured: "MeasuredStepTime | None" = None,
) -> list[dict[str, Any]]:
    """Return one row per batch size and number of replicas.

    More than one replica is composed, not run: the local batch's measured seconds and
    the communication's.

    Args:
        timings: Of one replica.
        replicas: Numbers of replicas.
        between: The communication model.
        measured: The times with an overlap; None where the two times add up.

    Returns:
        Rows with `batch_size`, `num_replicas`, `seconds`, `low`, `high`, `composed`.
    """
    rows: list[dict[str, Any]] = []
    for count in replicas:
        for timing in timings.timings:
            size = timing.batch_size * count
            extra = float(between.comm_seconds(count))
            if measured is not None and count > 1:
                alone = measured.seconds_per_step(timing.batch_size)
                extra = measured.seconds_per_step(size, count) - alone
            rows.append(
                {
                    "batch_size": size,
                    "num_replicas": count,
                    "seconds": timing.seconds + extra,
                    "low": timing.spread[0] + extra,
                    "high": timing.spread[1] + extra,
                    "memory_bytes": timing.memory_bytes,
                    "composed": count > 1,
                }
            )
    return rows


def step_time_entry(fit: "StepTimeFit", points: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON entry of a step-time fit, with its points and its curve.

    Args:
        fit: The fit.
        points: Measured rows.

    Returns:
        The fit's keys with `points` and `curve`.
    """
    from dataclasses import replace

    import numpy as np

    low, high = fit.fitted_range
    grid = np.geomspace(low, high, 60)
    # No timed step holds a check, so the curve beside them does not either.
    curve = replace(fit.law, evaluation=None)
    return {
        **fit.to_dict(),
        "points": points,
        "curve": {
            "batch_size": grid.tolist(),
            "seconds": curve.seconds_per_step(grid).tolist(),
        },
    }
