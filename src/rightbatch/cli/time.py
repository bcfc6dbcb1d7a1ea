"""``time WORKLOAD``: seconds per step against batch size, and the law fitted to it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch._checks import writable_path
from rightbatch.cli import communication as comm
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.step_time import StepTimeFit
    from rightbatch.timing import StepTimings
    from rightbatch.workload import Workload

NAME = "time"
LARGEST_AUTO = 1024


def run(
    workload: flags.Workload = "digits-mlp",
    batch_sizes: flags.BatchSizes = "auto",
    replicas: Annotated[str, typer.Option(help="Numbers of replicas.")] = "1",
    csv: Annotated[Path | None, typer.Option(help="Write the times here.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report here.")
    ] = None,
    budget_seconds: Annotated[
        float, typer.Option(min=0.1, help="For all batch sizes together.")
    ] = 10.0,
    measure_comm: comm.MeasureComm = False,
    bandwidth: comm.Bandwidth = None,
    latency: comm.Latency = None,
    comm_seconds: comm.CommSeconds = None,
    device: flags.Device = "cpu",
    data_dir: flags.DataDir = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Time a training step over a range of batch sizes."""
    from rightbatch.cli.options import check_device, parse_counts
    from rightbatch.experiments.tables import write_csv
    from rightbatch.reporting.tables import times_sheet
    from rightbatch.step_time import fit_step_time
    from rightbatch.workload import load_workload, num_parameters

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    counts = parse_counts("--replicas", replicas)
    choice = comm.CommunicationChoice(
        measure=measure_comm, bandwidth=bandwidth, latency=latency, seconds=comm_seconds
    )
    for name, path in (("--csv", csv), ("--report", report)):
        if path:
            writable_path(name, path)
    check_device(device)
    found = load_workload(workload, data_dir)
    sizes = timed_batch_sizes(found, batch_sizes)
    timings = time_steps(out, found, sizes, device, budget_seconds)
    between, warnings = choice.resolve(out, num_parameters(found), counts)
    rows = rows_of(timings, counts, between)
    fit = fit_step_time(timings.batch_sizes, timings.seconds, communication=between)
    if timings.stopped:
        warnings.append(timings.stopped)
    inputs = {
        "workload": found.name,
        "batch_sizes": sizes,
        "replicas": counts,
        "device": device,
        "num_threads": timings.num_threads,
    }
    step_time = step_time_entry(fit, rows)
    document = out.document(inputs, times=rows, step_time=step_time, warnings=warnings)
    if csv:
        columns = ["batch_size", "num_replicas", "seconds"]
        write_csv(csv, columns, [[row[name] for name in columns] for row in rows])
    notes = [f"warning: {text}" for text in (*warnings, *fit.warnings)]
    if report:
        from rightbatch.reporting.html import write_html

        out.note(f"report: {write_html(document, report)}")
    out.show(document, times_sheet(rows), *notes)


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
    timings: "StepTimings", replicas: tuple[int, ...], between: Any
) -> list[dict[str, Any]]:
    """Return one row per batch size and number of replicas.

    More than one replica is composed, not run: the local batch's measured seconds and
    the communication's.

    Args:
        timings: Of one replica.
        replicas: Numbers of replicas.
        between: The communication model.

    Returns:
        Rows with `batch_size`, `num_replicas`, `seconds`, `low`, `high`, `composed`.
    """
    rows: list[dict[str, Any]] = []
    for count in replicas:
        extra = float(between.comm_seconds(count))
        rows += [
            {
                "batch_size": timing.batch_size * count,
                "num_replicas": count,
                "seconds": timing.seconds + extra,
                "low": timing.spread[0] + extra,
                "high": timing.spread[1] + extra,
                "memory_bytes": timing.memory_bytes,
                "composed": count > 1,
            }
            for timing in timings.timings
        ]
    return rows


def step_time_entry(fit: "StepTimeFit", points: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON entry of a step-time fit, with its points and its curve.

    Args:
        fit: The fit.
        points: Measured rows.

    Returns:
        The fit's keys with `points` and `curve`.
    """
    import numpy as np

    low, high = fit.fitted_range
    grid = np.geomspace(low, high, 60)
    return {
        **fit.to_dict(),
        "points": points,
        "curve": {
            "batch_size": grid.tolist(),
            "seconds": fit.law.seconds_per_step(grid).tolist(),
        },
    }
