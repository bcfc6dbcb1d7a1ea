"""``sweep WORKLOAD``: steps to the target over batch sizes, rates and seeds."""

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch._checks import writable_path
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.errors import InputError, InterruptedRunError, NotReachedError

if TYPE_CHECKING:
    from rightbatch.experiments.record import Run
    from rightbatch.experiments.store import RunStore
    from rightbatch.experiments.sweep import SweepSettings
    from rightbatch.experiments.workers import Workers
    from rightbatch.workload import Workload

NAME = "sweep"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """The options of a sweep as written.

    Args:
        spec: The workload's name.
        target: One or several; None for the workload's own.
        batch_sizes: ``auto`` or a list.
        lr: One or several; None for the workload's own.
        crossing: None for the workload's own.
        seeds: How many.
        max_steps: Budget of a run.
        store: The file; None for the default.
        resume: Take finished runs from it.
        processes: For the runs; None for one per core.
        data_dir: Where data sets lie.
        dask: Where a Dask cluster runs them; None for processes of our own.
        record_held_out: The metric on the held-out set as well.
        tier: How updates are made.
        optimizer: In place of the workload's own; None for that.
        ema: Decay of the averaged weights; None for the workload's own.
    """

    spec: str
    target: str | None
    batch_sizes: str
    lr: str | None
    crossing: str | None
    seeds: int
    max_steps: int | None
    store: Path | None
    resume: bool
    processes: int | None
    data_dir: Path | None
    dask: str | None = None
    record_held_out: bool = False
    tier: str = "auto"
    optimizer: str | None = None
    ema: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """What the options ask a sweep to do.

    Args:
        spec: How the workload was named.
        workload: What it named.
        settings: The grid, with the workload's own values filled in.
        store: The file the runs are kept in.
        resume: Take finished runs from it.
        processes: For the runs; None for one per core.
        data_dir: Where data sets lie.
        dask: As for :class:`SweepOptions`.
    """

    spec: str
    workload: "Workload"
    settings: "SweepSettings"
    store: Path
    resume: bool
    processes: int | None
    data_dir: Path | None
    dask: str | None = None

    def inputs(self) -> dict[str, Any]:
        """Return the settings as the JSON document gives them."""
        from rightbatch.experiments.store import versions

        settings = self.settings
        return {
            "workload": self.workload.name,
            "targets": settings.targets,
            "batch_sizes": settings.batch_sizes,
            "lrs": settings.lrs,
            "seeds": settings.seeds,
            "max_steps": settings.max_steps,
            "crossing": settings.crossing.to_dict() if settings.crossing else None,
            "record_held_out": settings.record_held_out,
            "tier": settings.tier,
            "optimizer": settings.optimizer,
            "ema_decay": self.workload.ema_decay,
            "store": str(self.store),
            "resume": self.resume,
            "versions": versions(),
        }


def run(
    workload: flags.Workload = "digits-mlp",
    target: flags.Targets = None,
    batch_sizes: flags.BatchSizes = "auto",
    lr: flags.Lrs = None,
    seeds: flags.Seeds = 3,
    max_steps: flags.MaxSteps = None,
    crossing: flags.Crossing = None,
    record_held_out: flags.RecordHeldOut = False,
    tier: flags.Tier = "auto",
    optimizer: flags.OptimizerName = None,
    ema: flags.Ema = None,
    store: flags.Store = None,
    resume: flags.Resume = False,
    processes: flags.Processes = None,
    dask: flags.Dask = None,
    csv: Annotated[Path | None, typer.Option(help="Write the runs here.")] = None,
    data_dir: flags.DataDir = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Run to the target over batch sizes, learning rates and seeds."""
    from rightbatch.experiments.identity import open_store
    from rightbatch.reporting.runs_tables import stored_runs_sheet

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    if csv:
        writable_path("--csv", csv)
    options = SweepOptions(
        spec=workload,
        target=target,
        batch_sizes=batch_sizes,
        lr=lr,
        crossing=crossing,
        seeds=seeds,
        max_steps=max_steps,
        store=store,
        resume=resume,
        processes=processes,
        data_dir=data_dir,
        dask=dask,
        record_held_out=record_held_out,
        tier=tier,
        optimizer=optimizer,
        ema=ema,
    )
    request = read_request(options)
    with open_store(request.store, request.workload) as kept:
        runs = run_sweep(out, request, kept)
    rows = rows_of(runs)
    document = out.document(request.inputs(), runs=rows)
    if csv:
        write_runs(csv, request.workload.name, rows)
    missed = not_reached(runs, request)
    if missed:
        out.fail(document, missed)
    out.show(document, stored_runs_sheet(rows))
    kept_runs = "1 run is" if len(runs) == 1 else f"{len(runs)} runs are"
    out.note(f"{kept_runs} kept in {request.store}")


def read_request(options: SweepOptions) -> SweepRequest:
    """Return what the options of a sweep ask for, everything checked before it starts.

    Args:
        options: As written.

    Returns:
        The request; the store's folder is there and can be written.

    Raises:
        InputError: An option is wrong.
    """
    from rightbatch.cli.options import (
        parse_counts,
        parse_numbers,
        parse_positive,
    )
    from rightbatch.cli.time import count_examples
    from rightbatch.experiments.optimizers.ema import check_decay
    from rightbatch.experiments.optimizers.named import with_optimizer
    from rightbatch.experiments.run import default_crossing
    from rightbatch.experiments.sweep import SweepSettings, auto_batch_sizes
    from rightbatch.workload import load_workload

    sizes = rates = values = None
    if options.batch_sizes != "auto":
        sizes = parse_counts("--batch-sizes", options.batch_sizes)
    if options.lr is not None:
        rates = parse_positive("--lr", options.lr)
    if options.target is not None:
        values = parse_numbers("--target", options.target)
    if options.ema is not None:
        check_decay("sweep", options.ema, "--ema")
    workload = load_workload(options.spec, options.data_dir)
    workload = with_optimizer(workload, options.optimizer, options.ema)
    target = workload.target
    if options.crossing is not None:
        wanted: Any = options.crossing
        target = replace(target, crossing=wanted)
    if values:
        target = replace(target, value=values[0])
    workload = replace(workload, target=target)
    settings = SweepSettings(
        batch_sizes=sizes or auto_batch_sizes(count_examples(workload)),
        lrs=rates,
        seeds=tuple(range(options.seeds)),
        targets=values,
        crossing=default_crossing(workload),
        max_steps=options.max_steps,
        record_held_out=options.record_held_out,
        tier=options.tier,
        optimizer=options.optimizer,
        ema_decay=options.ema,
    ).resolved(workload)
    path = options.store or default_store(workload.name)
    if not options.store:
        make_folder(path.parent)
    writable_path("--store", path)
    return SweepRequest(
        spec=options.spec,
        workload=workload,
        settings=settings,
        store=path,
        resume=options.resume,
        processes=options.processes,
        data_dir=options.data_dir,
        dask=options.dask,
    )


def default_store(name: str) -> Path:
    """Return where the runs of a workload are kept unless told otherwise.

    Args:
        name: The workload's name.

    Returns:
        A path below the current folder.

    Example:
        >>> default_store("my net/2").as_posix()
        'runs/my-net-2.sqlite'
    """
    return Path("runs") / (re.sub(r"[^\w.-]+", "-", name) + ".sqlite")


def make_folder(folder: Path) -> None:
    """Make the folder that stores lie in by default.

    Args:
        folder: Where.

    Raises:
        InputError: It cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder.absolute()}: cannot be made: {error.strerror}.",
            "name a file with --store",
        ) from error


def run_sweep(
    out: Output, request: SweepRequest, store: "RunStore"
) -> "tuple[Run, ...]":
    """Return the runs of a request, a progress bar shown meanwhile.

    Args:
        out: Shows it.
        request: What to run.
        store: Takes each run as it ends.

    Returns:
        One run per batch size, learning rate and seed.

    Raises:
        RightbatchError: As :func:`rightbatch.experiments.sweep.sweep`; interrupted
            runs say how to go on.
    """
    from rightbatch.experiments.sweep import sweep

    settings = request.settings
    grid = (settings.batch_sizes, settings.lrs or (), settings.seeds)
    total = len(grid[0]) * len(grid[1]) * len(grid[2])
    try:
        with (
            _workers(out, request) as workers,
            out.bar(f"running {request.workload.name} to the target", total) as show,
        ):
            return sweep(
                (request.spec, request.workload),
                settings,
                processes=workers,
                data_dir=request.data_dir,
                store=store,
                resume=request.resume,
                on_progress=lambda done, _total, _run: show(done),
            )
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; finished runs are kept in {request.store}.",
            "go on with --resume",
        ) from None


def _workers(
    out: Output, request: SweepRequest
) -> "AbstractContextManager[int | Workers | None]":
    """Return what the runs are spread over, there for the length of a block."""
    if request.dask is None:
        return nullcontext(request.processes)
    from rightbatch.experiments.dask_connection import dask_workers
    from rightbatch.experiments.workers import num_cores

    wanted, settings = request.processes, request.settings
    if request.dask == "local":
        # No more than there are units of work; each takes seconds to start.
        units = len(settings.batch_sizes) * len(settings.seeds)
        wanted = min(wanted or num_cores(), units)
    return dask_workers(request.dask, processes=wanted, on_wait=out.note)


def rows_of(runs: "tuple[Run, ...]") -> list[dict[str, Any]]:
    """Return the JSON rows of runs, one per run and target.

    Args:
        runs: Of a sweep.

    Returns:
        Rows in the runs' order.
    """
    return [row for run in runs for row in run.rows()]


def write_runs(path: Path, workload: str, rows: list[dict[str, Any]]) -> None:
    """Write runs as the CSV that ``fit`` and ``plan --runs`` read.

    Args:
        path: The file.
        workload: Its name, for the first column.
        rows: From :func:`rows_of`.
    """
    from rightbatch.experiments.tables import write_csv

    columns = ["batch_size", "lr", "seed", "target", "steps", "examples", "status"]
    if any("held_out_steps" in row for row in rows):
        columns.append("held_out_steps")
    write_csv(
        path,
        ("workload", *columns),
        [[workload, *(row.get(name) for name in columns)] for row in rows],
    )


def not_reached(
    runs: "tuple[Run, ...]", request: SweepRequest
) -> NotReachedError | None:
    """Return the error that no run reached the plan's target, or None.

    Args:
        runs: Of the sweep.
        request: Its settings.

    Returns:
        The error, which says what came nearest.
    """
    if any(run.steps() is not None for run in runs):
        return None
    target = request.workload.target
    crossing = runs[0].crossing
    hardest = crossing.hardest(request.settings.targets or ())
    near = [run for run in runs if run.nearest is not None]
    said = "no run gave a finite value"
    if near:
        best = (min if target.direction == "min" else max)(
            near, key=lambda run: run.nearest or 0.0
        )
        said = (
            f"nearest: {best.nearest:.4g} at batch size {best.batch_size}, lr "
            f"{best.lr:g}, seed {best.seed}, in {best.last_step} steps"
        )
    return NotReachedError(
        f"{request.workload.name}: no run reached {target.metric} {hardest:g}; {said}.",
        "raise --max-steps, try other --lr, or an easier --target",
    )


def document_of_store(path: Path) -> dict[str, Any]:
    """Return the JSON document of all runs in a store.

    Args:
        path: The file.

    Returns:
        What ``sweep --json`` would have printed.
    """
    from rightbatch.experiments.store import RunStore

    with RunStore(path) as store:
        runs = store.runs()
        inputs = {"workload": store.identity.workload, "store": str(path)}
    return Output(command=NAME).document(inputs, runs=rows_of(runs))
