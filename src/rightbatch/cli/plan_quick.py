"""``plan WORKLOAD --quick``: no runs to the target, a noise scale in their place."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch import _checks
from rightbatch.cli.noise import NoiseOptions, read_request
from rightbatch.cli.noise_results import ending_of, noise_results, run_noise
from rightbatch.cli.output import Output
from rightbatch.cli.plan_noise import NoisePlan, noise_plan_results
from rightbatch.errors import (
    InputError,
    InterruptedRunError,
    NotReachedError,
    WorkloadFailedError,
)
from rightbatch.fitting import Interval

if TYPE_CHECKING:
    from rightbatch.cli.planning import PlanOptions
    from rightbatch.cli.sweep import SweepOptions
    from rightbatch.experiments.noise_run import NoiseRun
    from rightbatch.step_time import StepTimeFit
    from rightbatch.timing import StepTimings
    from rightbatch.workload import Workload

NOISE_SECONDS = 12.0
RELATIVE_ERROR = 0.2
# What steers runs to a target, or comes from tables: a quick plan has neither.
OF_RUNS = (
    "target",
    "batch_sizes",
    "seeds",
    "max_steps",
    "crossing",
    "law",
    "compare",
    "store",
    "resume",
    "processes",
    "regret",
    "budget",
    "verify",
    "runs",
    "times",
    "name",
    "examples_per_epoch",
    "unit",
    "tokens_per_example",
    "parameters",
)
OF_QUICK = ("noise_seconds", "factor")

Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="No runs to the target: measure the gradient noise scale and time steps.",
    ),
]
NoiseSeconds = Annotated[
    float, typer.Option(min=0.1, help="For the noise scale, with --quick.")
]
Factor = Annotated[
    float | None,
    typer.Option(
        help="Calibrated factor of noise --calibrate, with --quick; else uncalibrated."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickChoice:
    """What a quick plan is asked for, beside what every plan is.

    Args:
        seconds: For the noise scale.
        factor: From noise scale to critical batch size; None where not calibrated.
    """

    seconds: float = NOISE_SECONDS
    factor: float | None = None


def asked_for(
    context: typer.Context, quick: bool, seconds: float, factor: float | None
) -> QuickChoice | None:
    """Return what a quick plan is asked for, None where none is.

    Args:
        context: Tells which options were given.
        quick: Whether one is.
        seconds: For the noise scale.
        factor: Calibrated; None for none.

    Returns:
        The choice.

    Raises:
        InputError: An option goes with the other kind of plan, or the factor is not
            positive.
    """
    if factor is not None:
        _checks.positive("plan", "--factor", factor)
    for name in OF_RUNS if quick else OF_QUICK:
        source = context.get_parameter_source(name)
        # Compared by name, as typer may bring its own click.
        if getattr(source, "name", "") != "COMMANDLINE":
            continue
        option = "workload" if name == "name" else name.replace("_", "-")
        if quick:
            raise InputError(
                f"plan: --{option} has no use with --quick, which makes no runs to "
                "a target.",
                "leave one of them out",
            )
        raise InputError(f"plan: --{option} goes with --quick alone.")
    return QuickChoice(seconds=seconds, factor=factor) if quick else None


def run_quick(
    out: Output,
    asked: "SweepOptions",
    options: "PlanOptions",
    choice: QuickChoice,
    report: Path,
) -> None:
    """Make a quick plan, print it and write its report.

    Args:
        out: Where to.
        asked: The workload, one learning rate, and where data sets lie.
        options: What every plan is asked for.
        choice: What this one is asked for besides.
        report: The HTML file.
    """
    show_quick(out, plan_quick(out, asked, options, choice), report)


def plan_quick(
    out: Output,
    asked: "SweepOptions",
    options: "PlanOptions",
    choice: QuickChoice,
) -> dict[str, Any]:
    """Return the document of a quick plan.

    Args:
        out: Told of the progress.
        asked: The workload, one learning rate, and where data sets lie.
        options: What every plan is asked for.
        choice: What this one is asked for besides.

    Returns:
        The JSON document: the keys of a plan, without steps and seconds to a target.

    Raises:
        InputError: An option is wrong.
        NotReachedError: No noise scale could be read, or one batch size alone fits.
    """
    from rightbatch.cli.time import rows_of, step_time_entry

    workload, settings = _request(asked, options, choice)
    _check_feasible(workload, options)
    measured = run_noise(out, workload, settings, options.device)
    noise = noise_results(measured, workload)
    inputs = {
        "workload": workload.name,
        "quick": True,
        **settings.to_dict(),
        **options.inputs(),
        "noise_seconds": choice.seconds,
        "factor": choice.factor,
    }
    error = ending_of(measured, workload)
    if error is None and not _known(measured):
        error = NotReachedError(
            f"{workload.name}: no noise scale could be read in {choice.seconds:g} s.",
            "raise --noise-seconds, or plan without --quick",
        )
    if error is not None:
        out.fail(out.document(inputs, **noise), error)
    try:
        timings = _timings(out, workload, options)
        between, notes = options.choice.resolve(
            out, noise["workload"]["parameters"], options.replicas
        )
    except KeyboardInterrupt:
        said = "interrupted while timing; the noise scale is kept."
        out.fail(out.document(inputs, **noise), InterruptedRunError(said))
    fit = options.machine.fit(
        timings.batch_sizes, timings.seconds, communication=between
    )
    quick = _quick(measured, workload, timings, fit, (options, choice))
    results = {**noise, **noise_plan_results(quick, noise, choice.factor)}
    known = options.machine.measured(timings.batch_sizes, timings.seconds, fit)
    results["optimal_measured"] = replace(quick, law=known).best()
    results["warnings"] += [*fit.warnings, *notes, *filter(None, [timings.stopped])]
    if measured.status != "reached":
        results["warnings"].insert(1, _short(measured))
    points = rows_of(timings, (1,), between)
    return out.document(inputs, **results, step_time=step_time_entry(fit, points))


def show_quick(out: Output, document: dict[str, Any], report: Path) -> None:
    """Print a quick plan and write its report.

    Args:
        out: Where to.
        document: Of the plan.
        report: The HTML file.
    """
    from rightbatch.cli.output import to_plain
    from rightbatch.reporting.html import write_html
    from rightbatch.reporting.noise_tables import noise_sheet, quick_sheet
    from rightbatch.reporting.tables import step_time_sheet

    plain = to_plain(document)
    sheets: list[Any] = [noise_sheet(plain["measurements"]), ""]
    sheets += [step_time_sheet(plain["step_time"]), "", quick_sheet(plain), ""]
    sheets += [f"warning: {text}" for text in plain["warnings"]]
    written = write_html(plain, report)
    out.show(plain, *sheets, "", plain["sentence"])
    out.note(f"report: {written}")


def _short(measured: "NoiseRun") -> str:
    return (
        f"the noise was measured over the first {measured.step} updates, short of the "
        "target: it grows as the loss falls, and the best batch size with it"
    )


def _request(asked: "SweepOptions", options: "PlanOptions", choice: QuickChoice) -> Any:
    from rightbatch.cli.options import parse_positive

    lr = None
    if asked.lr is not None:
        lr, *others = parse_positive("--lr", asked.lr)
        if others:
            raise InputError(
                f"--lr: one at a time with --quick, got {1 + len(others)}.",
                "a quick plan tunes no rates",
            )
    found = read_request(
        asked.spec, NoiseOptions(lr=lr), options.device, asked.data_dir
    )
    workload, settings = found
    return workload, replace(
        settings, max_seconds=choice.seconds, relative_error=RELATIVE_ERROR
    )


def _check_feasible(workload: "Workload", options: "PlanOptions") -> None:
    from rightbatch.cli.time import count_examples

    num_examples = count_examples(workload)
    most = min(num_examples, options.max_batch_size or num_examples)
    if options.replicas[-1] > most:
        raise InputError(
            f"plan: {options.replicas[-1]} replicas cannot each have an example of a "
            f"batch of at most {most}.",
            "ask for fewer --replicas",
        )


def _timings(out: Output, workload: "Workload", options: "PlanOptions") -> Any:
    from rightbatch.cli.time import time_steps, timed_batch_sizes

    sizes = timed_batch_sizes(workload, "auto")
    how = (options.device, options.timing_seconds)
    try:
        timings = time_steps(out, workload, sizes, *how)
    except WorkloadFailedError as error:
        # One example is too few for batch normalisation; no plan needs it to be timed.
        if len(sizes) < 3:
            raise
        out.note(f"batch size {sizes[0]} cannot be timed, left out: {error}")
        timings = time_steps(out, workload, sizes[1:], *how)
    if len(timings.batch_sizes) < 2:
        alone = ", ".join(str(size) for size in timings.batch_sizes)
        raise NotReachedError(
            f"timing: only batch size {alone} fits. {timings.stopped}"
        )
    return timings


def _known(measured: "NoiseRun") -> Interval | None:
    """Return the noise scale a plan rests on: an average, or a bound from below."""
    from rightbatch.experiments.noise_record import run_average

    rows = measured.measurements
    average = run_average(rows)
    # A ratio of two averages that are not told from zero is no number to plan with.
    resolved = any(row.is_resolved and row.num_steps for row in rows)
    if average is not None and average.value and resolved:
        return average
    bounds = [row.reading for row in rows if row.reading.lower_bound]
    if not bounds:
        return None
    last = bounds[-1]
    return Interval(
        value=last.lower_bound,
        low=last.lower_bound,
        high=None,
        level=last.interval.level,
        unit=last.interval.unit,
        definition="noise scale of the last window, at least",
    )


def _quick(
    measured: "NoiseRun",
    workload: "Workload",
    timings: "StepTimings",
    fit: "StepTimeFit",
    options: "tuple[PlanOptions, QuickChoice]",
) -> NoisePlan:
    from rightbatch.cli.time import count_examples
    from rightbatch.training_time import BatchLimits

    asked, choice = options
    noise = _known(measured)
    assert noise is not None
    passes = [timings.batch_sizes[-1] if timings.stopped else None]
    passes = [size for size in (*passes, asked.max_micro_batch_size) if size]
    num_examples = count_examples(workload)
    return NoisePlan(
        workload=workload.name,
        phi=noise if choice.factor is None else _scaled(noise, choice.factor),
        is_bound=noise.definition.endswith("at least"),
        law=fit.law,
        limits=BatchLimits(
            max_batch_size=min(num_examples, asked.max_batch_size or num_examples),
            max_micro_batch_size=min(passes) if passes else None,
            max_accumulation_steps=asked.max_accumulation_steps,
            candidates=asked.candidates,
        ),
        replicas=asked.replicas,
    )


def _scaled(interval: Interval, factor: float) -> Interval:
    def scaled(end: float | None) -> float | None:
        return None if end is None else factor * end

    return Interval(
        value=scaled(interval.value),
        low=scaled(interval.low),
        high=scaled(interval.high),
        level=interval.level,
        unit=interval.unit,
        definition=f"{interval.definition}, times {factor:g}",
    )
