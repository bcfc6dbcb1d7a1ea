"""The JSON document of a measured noise scale, and what has to be said of it."""

from typing import TYPE_CHECKING, Any

from rightbatch.cli.output import Output
from rightbatch.errors import InterruptedRunError, NotReachedError, RightbatchError

if TYPE_CHECKING:
    from pathlib import Path

    from rightbatch.cli.calibration import FittedPhi
    from rightbatch.experiments.noise_run import NoiseRun
    from rightbatch.experiments.noise_settings import NoiseSettings
    from rightbatch.workload import Workload

NO_CRITICAL_BATCH = (
    "a noise scale is not the critical batch size: where both were measured, the one "
    "was from 1/20 to 8 times the other (McCandlish et al., 2018, table 1)"
)


def run_noise(
    out: Output,
    workload: "Workload",
    settings: "NoiseSettings",
    device: str,
) -> "NoiseRun":
    """Return a measurement that has ended, a progress bar shown meanwhile.

    Args:
        out: Shows it.
        workload: What is trained.
        settings: How.
        device: Where.

    Returns:
        The run; one that was interrupted or diverged says so in its status.
    """
    from rightbatch.experiments.noise_run import NoiseRun

    run = NoiseRun(workload, settings, device)
    title = f"measuring gradient noise of {workload.name}"
    try:
        with out.bar(title, settings.max_steps) as show:
            run.advance(show)
    except KeyboardInterrupt:
        run.interrupt()
    return run


def noise_results(run: "NoiseRun", workload: "Workload") -> dict[str, Any]:
    """Return the results of a measurement under their stable keys.

    Args:
        run: It has ended.
        workload: What was trained.

    Returns:
        `workload`, `measurements`, `status`, `run_average`, `lower_bound`, `coverage`,
        `uncovered`, `warnings`, `sentence`.
    """
    from rightbatch.experiments.noise_record import run_average

    rows = run.measurements
    average = run_average(rows)
    last = rows[-1].reading if rows else None
    return {
        "workload": about(workload),
        "measurements": [row.to_dict() for row in rows],
        "status": run.status,
        "run_average": None if average is None else average.to_dict(),
        "lower_bound": last and last.lower_bound,
        "coverage": last and last.coverage,
        "uncovered": {} if last is None else dict(last.uncovered),
        "parts": {} if not rows else rows[-1].to_dict()["parts"],
        "calibration": None,
        "warnings": noise_warnings(run, workload),
        "sentence": sentence(run, workload),
    }


def about(workload: "Workload") -> dict[str, Any]:
    """Return what a workload is, as documents have it.

    Args:
        workload: Any.

    Returns:
        Name, parameters, examples, unit and source.
    """
    from rightbatch.cli.time import count_examples
    from rightbatch.workload import num_parameters

    return {
        "name": workload.name,
        "parameters": num_parameters(workload),
        "num_examples": count_examples(workload),
        "example_unit": workload.example_unit,
        "source": workload.source,
    }


def noise_warnings(run: "NoiseRun", workload: "Workload") -> list[str]:
    """Return what to bear in mind, one sentence each, without full stops.

    Args:
        run: It has ended.
        workload: What was trained.

    Returns:
        The sentences.
    """
    rows = run.measurements
    said = [NO_CRITICAL_BATCH, *(note.rstrip(".") for note in run.notes)]
    open_ = [row for row in rows if not row.is_resolved]
    if open_:
        listed = ", ".join(str(row.step) for row in open_)
        said.append(
            f"the noise scale is not resolved in the windows that end at update "
            f"{listed}: a larger --batch-size narrows it, and so do fewer --rows"
        )
    moving = [row for row in rows if row.reading.limited_by == "drift"]
    if moving:
        listed = ", ".join(str(row.step) for row in moving)
        said.append(
            f"the noise scale moves within the windows that end at update {listed}: "
            "their rows are averages over it"
        )
    skipped = sum(row.reading.num_skipped for row in rows)
    if skipped:
        said.append(f"{skipped} updates were left out: their gradients overflowed")
    reading = rows[-1].reading if rows else None
    if reading is not None and reading.coverage < 1:
        kept, left = 100 * reading.coverage, ", ".join(reading.uncovered)
        said.append(f"{kept:.0f} % of the parameters were read, not {left}")
    if workload.example_count is not None:
        said.append(
            f"examples are {workload.example_unit}s, and those of one item are not "
            "independent: the noise scale counts them as though they were"
        )
    return said


def sentence(run: "NoiseRun", workload: "Workload") -> str:
    """Return the measurement in a sentence.

    Args:
        run: It has ended.
        workload: What was trained.

    Returns:
        The noise scale at the start, at the end and over the run.
    """
    from rightbatch.experiments.noise_record import run_average
    from rightbatch.reporting.formats import estimate, number
    from rightbatch.reporting.noise_tables import noise_text

    rows = [row.to_dict() for row in run.measurements]
    if not rows:
        return f"Nothing of {workload.name} could be measured."
    unit = f"{workload.example_unit}s"
    said = f"The noise scale is {noise_text(rows[0])} {unit} at initialisation"
    if len(rows) > 1:
        last = rows[-1]
        said += (
            f" and {noise_text(last)} at the end, at a loss of {number(last['loss'])}"
        )
    average = run_average(run.measurements)
    if average is not None:
        said += f"; averaged over the {run.step} updates, {estimate(average.to_dict())}"
    return f"{said}."


def calibration_of(
    fitted: "FittedPhi", run: "NoiseRun"
) -> tuple[dict[str, Any], list[str]]:
    """Return a fitted critical batch size beside a noise scale, with their ratio.

    Args:
        fitted: From runs.
        run: Of the same workload; it has ended.

    Returns:
        The entry of the document, and warnings.
    """
    from rightbatch.cli.calibration import calibrated_factor
    from rightbatch.experiments.noise_record import run_average

    average, said = run_average(run.measurements), list[str]()
    factor = None
    if average is not None and average.value:
        factor = calibrated_factor(fitted.interval, average)
    else:
        said.append("there is no calibrated factor: no noise scale over the run")
    if fitted.status != "ok":
        said.append(f"the fit it is calibrated against is {fitted.status}")
    if run.status != "reached":
        said.append(
            "the run ended before the target, and the noise scale is still growing: "
            "the calibrated factor is of this part of it"
        )
    elif fitted.target is not None and fitted.target != run.settings.target:
        said.append(
            f"the factor compares runs to {fitted.target:g} with a run to "
            f"{run.settings.target:g}"
        )
    entry = {
        "critical_batch_size": fitted.interval.to_dict(),
        "noise_scale": None if average is None else average.to_dict(),
        "factor": None if factor is None else factor.to_dict(),
        "target": fitted.target,
        "source": str(fitted.path),
    }
    return entry, said


def ending_of(run: "NoiseRun", workload: "Workload") -> RightbatchError | None:
    """Return the error a measurement that broke off ends the command with.

    Args:
        run: It has ended.
        workload: What was trained.

    Returns:
        The error; None for a run that was not broken off.
    """
    kept = "what was measured until then is kept" if run.measurements else "no row yet"
    if run.status == "interrupted":
        return InterruptedRunError(
            f"interrupted after {run.step} updates; {kept}.",
        )
    if run.status == "diverged":
        return NotReachedError(
            f"{workload.name}: the loss is lost after {run.step} updates at lr "
            f"{run.settings.lr:g}; {kept}.",
            "try a smaller --lr" if run.step else "the untrained loss is not finite",
        )
    return None


def write_measurements(path: "Path", rows: list[dict[str, Any]]) -> None:
    """Write measurements to a CSV file, a row per window.

    Args:
        path: The file.
        rows: `measurements` of a document.
    """
    from rightbatch.experiments.tables import write_csv

    plain = (
        "first_step",
        "step",
        "examples",
        "loss",
        "grad_sq_norm",
        "grad_variance",
        "status",
        "lower_bound",
        "diversity_batch_bound",
        "coverage",
    )
    names = list(dict.fromkeys(name for row in rows for name in row["suggested"]))
    ends = ("value", "low", "high")
    write_csv(
        path,
        (
            *plain,
            *("noise_scale", "noise_scale_low", "noise_scale_high"),
            *(f"suggested_{name}" for name in names),
        ),
        [
            [
                *(row[name] for name in plain),
                *(row["simple_noise_scale"][end] for end in ends),
                *(row["suggested"].get(name, {}).get("value") for name in names),
            ]
            for row in rows
        ],
    )
