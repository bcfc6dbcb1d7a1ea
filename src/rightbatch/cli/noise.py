"""``noise WORKLOAD``: the gradient noise scale at initialisation and along training."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch._checks import one_of, writable_path
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.experiments.noise_settings import NoiseSettings
    from rightbatch.workload import Workload

NAME = "noise"
BATCH_SIZE = 64
SOURCES = ("units", "examples")


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseOptions:
    """The options of a measurement as written.

    Args:
        batch_size: None for 64, or the data set if that is smaller.
        lr: None for the middle one of the workload's.
        seed: Of everything random.
        max_steps: None for 2,560.
        target: None for the workload's own; ``none`` for no target.
        rows: None for windows as long as all before them.
        micro_batch_size: None for eight units.
        source: ``units`` or ``examples``.
        every: Measure every so many updates.
    """

    batch_size: int | None = None
    lr: float | None = None
    seed: int = 0
    max_steps: int | None = None
    target: str | None = None
    rows: int | None = None
    micro_batch_size: int | None = None
    source: str = "units"
    every: int = 1


def run(
    workload: flags.Workload = "digits-mlp",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Examples per update; 64 by default.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate; the middle one of the workload's."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Updates at most; 2560 by default.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Where the run ends; the workload's own by default, or none."
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Windows up to --max-steps; by default each is as long as all "
            "before it, from 20 updates on.",
        ),
    ] = None,
    micro_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Examples of a unit; an eighth of the batch."),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="units: micro-batches; examples: norms of single examples' gradients."
        ),
    ] = "units",
    every: Annotated[
        int, typer.Option(min=1, help="Measure every so many updates.")
    ] = 1,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="RESULT",
            help="A store of runs, or the JSON of plan or fit: shows the factor "
            "between its critical batch size and the noise scale.",
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the rows here.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report here.")
    ] = None,
    device: flags.Device = "cpu",
    data_dir: flags.DataDir = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Measure the gradient noise scale at initialisation and along training."""
    from rightbatch.cli.noise_results import calibration_of, noise_results, run_noise

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    options = NoiseOptions(
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        max_steps=max_steps,
        target=target,
        rows=rows,
        micro_batch_size=micro_batch_size,
        source=source,
        every=every,
    )
    for name, path in (("--csv", csv), ("--report", report)):
        if path:
            writable_path(name, path)
    found, settings = read_request(workload, options, device, data_dir)
    fitted = None
    if calibrate is not None:
        from rightbatch.cli.calibration import read_fitted

        fitted = read_fitted(calibrate, found.name)
    measured = run_noise(out, found, settings, device)
    results = noise_results(measured, found)
    if fitted is not None:
        results["calibration"], said = calibration_of(fitted, measured)
        results["warnings"] += said
    inputs = {"workload": found.name, **settings.to_dict(), "device": device}
    document = out.document(inputs, **results)
    _write(out, document, csv, report)
    _show(out, document)
    _end(out, document, measured, found)


def read_request(
    spec: str, options: NoiseOptions, device: str, data_dir: Path | None
) -> "tuple[Workload, NoiseSettings]":
    """Return what is to be measured, everything checked before it starts.

    Args:
        spec: The workload's name.
        options: As written.
        device: Where.
        data_dir: Where data sets lie.

    Returns:
        The workload and the settings.

    Raises:
        InputError: An option is wrong.
    """
    from rightbatch.cli.options import check_device
    from rightbatch.cli.time import count_examples
    from rightbatch.experiments.noise_settings import (
        MAX_STEPS,
        NoiseSettings,
        unit_sizes,
        window_ends,
    )
    from rightbatch.workload import load_workload

    source: Any = one_of("--source", "source", options.source, SOURCES)
    if options.micro_batch_size is not None and source == "examples":
        raise InputError(
            "--micro-batch-size: single examples are read from whole batches.",
            "leave it out, or read --source units",
        )
    check_device(device)
    workload = load_workload(spec, data_dir)
    length = count_examples(workload)
    size = options.batch_size or min(BATCH_SIZE, length)
    if workload.example_count is None and size > length:
        raise InputError(
            f"--batch-size: {size} is above the {length} examples of {workload.name}."
        )
    units = (size,)
    if source == "units":
        units = unit_sizes(size, options.micro_batch_size)
    steps = options.max_steps or MAX_STEPS
    return workload, NoiseSettings(
        batch_size=size,
        lr=middle_lr(workload) if options.lr is None else options.lr,
        unit_sizes=units,
        source=source,
        seed=options.seed,
        max_steps=steps,
        target=_target(workload, options.target),
        window_ends=window_ends(steps, options.rows),
        every=options.every,
        # The order of an epoch holds every example once.
        dataset_size=length if workload.example_count is None else None,
    )


def middle_lr(workload: "Workload") -> float:
    """Return the middle one of a workload's learning rates, the upper of two.

    Args:
        workload: Any.

    Returns:
        The rate.
    """
    return sorted(workload.lrs)[len(workload.lrs) // 2]


def _target(workload: "Workload", text: str | None) -> float | None:
    from rightbatch.cli.options import parse_numbers

    if text is None:
        return workload.target.value
    if text.strip().lower() == "none":
        return None
    value, *others = parse_numbers("--target", text)
    if others:
        raise InputError(
            f"--target: one at a time, got {1 + len(others)}.", "the hardest one"
        )
    return value


def _write(
    out: Output, document: dict[str, Any], csv: Path | None, report: Path | None
) -> None:
    from rightbatch.cli.noise_results import write_measurements
    from rightbatch.cli.output import to_plain

    if csv:
        write_measurements(csv, document["measurements"])
    if report:
        from rightbatch.reporting.html import write_html

        out.note(f"report: {write_html(to_plain(document), report)}")


def _show(out: Output, document: dict[str, Any]) -> None:
    from rightbatch.cli.output import to_plain
    from rightbatch.reporting.noise_tables import noise_sheets

    # Under --json a run that broke off prints its document with the error.
    if out.json and document["status"] in ("interrupted", "diverged"):
        return
    plain = to_plain(document)
    sheets: list[Any] = []
    for sheet in noise_sheets(plain):
        sheets += [sheet, ""]
    sheets += [f"warning: {text}" for text in plain["warnings"]]
    out.show(plain, *sheets, "", plain["sentence"])


def _end(out: Output, document: dict[str, Any], measured: Any, found: Any) -> None:
    from rightbatch.cli.noise_results import ending_of

    error = ending_of(measured, found)
    if error is not None:
        out.fail(document, error)
