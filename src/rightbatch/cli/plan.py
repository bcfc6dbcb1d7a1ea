"""``plan``: time a few steps, run to the target at a few batch sizes, fit, choose."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch._checks import one_of, writable_path
from rightbatch.cli import communication as comm
from rightbatch.cli import flags
from rightbatch.cli import machine as machines
from rightbatch.cli import plan_buying as buyings
from rightbatch.cli import plan_quick as quickly
from rightbatch.cli.options import parse_counts
from rightbatch.cli.output import Output
from rightbatch.cli.plan_options import (
    check_options,
    check_ways,
    one_target,
    read_candidates,
)
from rightbatch.cli.plan_timings import fitted_times, plan_timings
from rightbatch.cli.planning import Findings, PlanOptions, plan_results
from rightbatch.cli.sweep import SweepOptions, read_request
from rightbatch.errors import InputError, NotReachedError

if TYPE_CHECKING:
    from rightbatch.cli.sweep import SweepRequest
    from rightbatch.convergence import TunedFit
    from rightbatch.experiments.record import Run
    from rightbatch.step_time import StepTimeFit
    from rightbatch.timing import StepTimings
    from rightbatch.training_time import BatchLimits

NAME = "plan"
LAWS = ("auto", "inverse", "knee", "floor")


def run(
    context: typer.Context,
    workload: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORKLOAD]",
            help="A name from `workloads`, module:function or path/file.py:function; "
            "digits-mlp by default.",
        ),
    ] = None,
    target: flags.Targets = None,
    replicas: Annotated[
        str, typer.Option(help="Numbers of replicas to plan for.")
    ] = "1,2,4,8,16",
    lr: flags.Lrs = None,
    batch_sizes: flags.BatchSizes = "auto",
    seeds: flags.Seeds = 3,
    regret: buyings.Goal = buyings.GOAL,
    budget: buyings.Budget = None,
    max_steps: flags.MaxSteps = None,
    crossing: flags.Crossing = None,
    law: Annotated[
        str,
        typer.Option(
            help="auto, inverse, knee or floor; loss with --runs that hold losses."
        ),
    ] = "auto",
    timing_seconds: Annotated[
        float, typer.Option(min=0.1, help="For timing all batch sizes together.")
    ] = 10.0,
    max_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Largest batch size; the data set by default."),
    ] = None,
    max_micro_batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Largest forward pass of one replica that fits in memory."
        ),
    ] = None,
    max_accumulation_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most passes per step; 1 makes memory a limit of the batch."
        ),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            help="The only batch sizes to choose from: 32,64,128 or 16:4096:x2, or "
            "powers-of-two."
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Batch sizes to compare with the recommended ones: 64,256."),
    ] = None,
    store: flags.Store = None,
    resume: flags.Resume = False,
    processes: flags.Processes = None,
    measure_comm: comm.MeasureComm = False,
    bandwidth: comm.Bandwidth = None,
    latency: comm.Latency = None,
    comm_seconds: comm.CommSeconds = None,
    comm_law: comm.Comm = None,
    overlap: machines.Overlap = None,
    evaluate_every: machines.EvaluateEvery = None,
    evaluate_examples: machines.EvaluateExamples = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Train fresh seeds and compare.")
    ] = False,
    report: Annotated[Path, typer.Option(help="The HTML report.")] = Path(
        "report.html"
    ),
    runs: Annotated[
        Path | None, typer.Option(help="Runs measured elsewhere, a CSV as for fit.")
    ] = None,
    times: Annotated[
        Path | None, typer.Option(help="Step times, a CSV as time --csv writes.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--workload", help="Which workload of RUNS, where it holds several."
        ),
    ] = None,
    examples_per_epoch: flags.EpochSize = None,
    unit: flags.ExampleUnit = None,
    tokens_per_example: flags.SequenceSize = None,
    parameters: Annotated[
        int | None,
        typer.Option(
            min=1, help="Parameters of the model, for --runs with --bandwidth."
        ),
    ] = None,
    quick: quickly.Quick = False,
    noise_seconds: quickly.NoiseSeconds = quickly.NOISE_SECONDS,
    factor: quickly.Factor = None,
    device: flags.Device = "cpu",
    data_dir: flags.DataDir = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Find the batch size that reaches the target soonest.

    Measures steps to the target and seconds per step on WORKLOAD, or takes both from
    --runs and --times; fits both curves, and joins them for each number of replicas.
    With --quick, a gradient noise scale takes the place of the runs.
    """
    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    one_of("--law", "law", law, [*LAWS, *(["loss"] if runs else [])])
    choice = comm.CommunicationChoice(
        measure=measure_comm,
        bandwidth=bandwidth,
        latency=latency,
        seconds=comm_seconds,
        law=comm_law,
    )
    machine = machines.MachineChoice(
        overlap=overlap, every=evaluate_every, num_examples=evaluate_examples
    )
    writable_path("--report", report)
    options = PlanOptions(
        replicas=parse_counts("--replicas", replicas),
        choice=choice,
        machine=machine,
        law=law,
        max_batch_size=max_batch_size,
        max_micro_batch_size=max_micro_batch_size,
        max_accumulation_steps=max_accumulation_steps,
        candidates=read_candidates(candidates),
        compare=parse_counts("--compare", compare) if compare else (),
        verify=verify,
        device=device,
        timing_seconds=timing_seconds,
        num_parameters=parameters,
        units={
            "examples_per_epoch": examples_per_epoch,
            "tokens_per_example": tokens_per_example,
            "example_unit": unit,
        },
    )
    check_options(options)
    asked = SweepOptions(
        spec=workload or "digits-mlp",
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
    )
    hurried = quickly.asked_for(context, quick, noise_seconds, factor)
    if hurried is not None:
        quickly.run_quick(out, asked, options, hurried, report)
        return
    check_ways(context, workload, name, (runs, times), options)
    goal = buyings.asked_for(context, law, regret, budget)
    show_plan(out, _planned(out, asked, options, goal, (runs, times, name)), report)


def _planned(
    out: Output,
    asked: SweepOptions,
    options: PlanOptions,
    goal: buyings.BuyingGoal | None,
    tables: tuple[Path | None, Path | None, str | None],
) -> dict[str, Any]:
    runs, times, name = tables
    if runs and times:
        from rightbatch.cli.plan_tables import plan_tables

        of = (name, one_target(asked.target))
        return plan_tables(out, runs, times, options, of)
    return plan_workload(out, read_request(asked), options, goal)


def plan_workload(
    out: Output,
    request: "SweepRequest",
    options: PlanOptions,
    goal: buyings.BuyingGoal | None = None,
) -> dict[str, Any]:
    """Return the document of a plan, everything measured here.

    Args:
        out: Told of the progress.
        request: The sweep.
        options: What to plan for.
        goal: What runs are bought for; None for the whole grid.

    Returns:
        The JSON document.

    Raises:
        NotReachedError: No run reached the target, or at one batch size alone.
    """
    from rightbatch.cli.sweep import not_reached, rows_of, run_sweep
    from rightbatch.cli.time import rows_of as time_rows
    from rightbatch.cli.time import step_time_entry
    from rightbatch.experiments.identity import open_store

    about = _about(request)
    if goal is not None:
        request = buyings.with_candidates(request, about["num_examples"], options)
    _check_feasible(request, options, about["num_examples"])
    with open_store(request.store, request.workload) as store:
        store.begin(resume=request.resume)
        timings = plan_timings(out, request, store, options)
        between, notes = options.choice.resolve(
            out, about["parameters"], options.replicas
        )
        step_time = fitted_times(timings, between, options)
        served = _served(timings, about["num_examples"], options)
        market = goal and buyings.Market(request, options, goal, step_time, served)
        if market:
            done = market.buy(out, store)
            request = market.request
        else:
            done = run_sweep(out, request, store)
        inputs = {
            **request.inputs(),
            **options.inputs(),
            **buyings.inputs(goal),
            "num_threads": timings.num_threads,
        }
        missed = not_reached(done, request)
        if missed:
            out.fail(out.document(inputs, runs=rows_of(done)), missed)
        law = options.law if market is None else market.law
        fits = _fits(request, done, law)
        findings = _findings(fits, timings, step_time, served, options)
        findings = _as_run(findings, done, market)
        results = plan_results(findings, request.workload.name)
        bill = market.results(findings, results) if market else buyings.NOTHING_BOUGHT
        checks: list[dict[str, Any]] = []
        if options.verify:
            from rightbatch.cli.verification import verify_plan

            checks = verify_plan(out, request, findings, store)
    results["warnings"] += [*notes, *([timings.stopped] if timings.stopped else [])]
    points = time_rows(timings, (1,), between)
    return out.document(
        inputs,
        workload=about,
        **results,
        step_time=step_time_entry(findings.step_time, points),
        runs=rows_of(done),
        **bill,
        verification=checks,
    )


def _check_feasible(
    request: "SweepRequest", options: PlanOptions, num_examples: int
) -> None:
    """Refuse what no measurement could mend, before anything is measured."""
    sizes = request.settings.batch_sizes
    if len(sizes) < 2:
        alone = ", ".join(str(size) for size in sizes)
        raise InputError(
            f"plan: needs two batch sizes or more to fit a law, got {alone} alone.",
            "add one at least four times larger or smaller",
        )
    most = min(num_examples, options.max_batch_size or num_examples)
    if options.replicas[-1] > most:
        raise InputError(
            f"plan: {options.replicas[-1]} replicas cannot each have an example of a "
            f"batch of at most {most}.",
            "ask for fewer --replicas",
        )


def _about(request: "SweepRequest") -> dict[str, Any]:
    from rightbatch.cli.time import count_examples
    from rightbatch.workload import num_parameters

    workload = request.workload
    return {
        "name": workload.name,
        "parameters": num_parameters(workload),
        "num_examples": count_examples(workload),
        "example_unit": workload.example_unit,
        "source": workload.source,
    }


def show_plan(out: Output, document: dict[str, Any], report: Path) -> None:
    """Print a plan and write its report.

    Args:
        out: Where to.
        document: The plan's JSON document.
        report: The HTML file.
    """
    from rightbatch.cli.output import to_plain
    from rightbatch.reporting.comparison_tables import comparison_sheet
    from rightbatch.reporting.html import write_html
    from rightbatch.reporting.tables import fit_sheet, plan_sheet, verification_sheet

    plain = to_plain(document)
    measured = plan_sheet(
        plain["optimal_measured"], "The same with the measured step times interpolated"
    )
    sheets: list[Any] = [fit_sheet(plain["convergence"]), ""]
    sheets += [plan_sheet(plain["optimal"]), "", measured, ""]
    if plain["comparisons"]:
        sheets += [comparison_sheet(plain["comparisons"]), ""]
    if plain["verification"]:
        sheets += [verification_sheet(plain["verification"]), ""]
    if plain.get("regret"):
        sheets += [plain["regret"]["sentence"], ""]
    sheets += [f"warning: {text}" for text in plain["warnings"]]
    sheets += ["", plain["sentence"]]
    written = write_html(plain, report)
    out.show(plain, *sheets)
    out.note(f"report: {written}")


def _fits(
    request: "SweepRequest", runs: "tuple[Run, ...]", law: Any
) -> "tuple[tuple[float | None, TunedFit], ...]":
    """Return a fit per target that two batch sizes reached, the hardest last."""
    from rightbatch.convergence import fit_tuned

    descending = request.workload.target.direction == "min"
    targets = sorted(request.settings.targets or (), reverse=descending)
    fits: list[tuple[float | None, TunedFit]] = []
    for target in targets:
        steps = [run.steps(target) for run in runs]
        reached = {
            run.batch_size for run, count in zip(runs, steps, strict=True) if count
        }
        if len(reached) < 2:
            raise NotReachedError(
                f"{request.workload.name}: {request.workload.target.metric} {target:g} "
                f"was reached at batch size {min(reached, default=0)} alone, and a law "
                "needs two.",
                "add --batch-sizes, try other --lr, or raise --max-steps",
            )
        fit = fit_tuned(
            [run.batch_size for run in runs],
            [float("nan") if count is None else count for count in steps],
            [run.lr for run in runs],
            law=law,
        )
        fits.append((target, fit))
    return tuple(fits)


def _as_run(
    findings: Findings, runs: "tuple[Run, ...]", market: buyings.Market | None
) -> Findings:
    """Return findings with what was bought, less what never reached the target."""
    from rightbatch.cli.planning import above_missed, missed_above

    target = findings.fits[-1][0]
    recommended = market.recommended if market else None
    if target is None:
        return replace(findings, recommended=recommended)
    sizes = [run.batch_size for run in runs]
    reached = [bool(run.steps(target)) for run in runs]
    return replace(
        findings,
        min_batch_size=above_missed(sizes, reached),
        missed_batch_size=missed_above(sizes, reached),
        recommended=recommended,
    )


def _served(
    timings: "StepTimings", num_examples: int, options: PlanOptions
) -> "BatchLimits":
    from rightbatch.training_time import BatchLimits

    last = timings.batch_sizes[-1] if timings.stopped else None
    known = [last, options.max_micro_batch_size]
    return BatchLimits(
        max_batch_size=min(num_examples, options.max_batch_size or num_examples),
        max_micro_batch_size=min((size for size in known if size), default=None),
        max_accumulation_steps=options.max_accumulation_steps,
        candidates=options.candidates,
    )


def _findings(
    fits: "tuple[tuple[float | None, TunedFit], ...]",
    timings: "StepTimings",
    step_time: "StepTimeFit",
    served: "BatchLimits",
    options: PlanOptions,
) -> Findings:
    sizes, seconds = timings.batch_sizes, timings.seconds
    return Findings(
        fits=fits,
        step_time=step_time,
        measured=options.machine.measured(sizes, seconds, step_time),
        replicas=options.replicas,
        max_batch_size=served.max_batch_size,
        max_micro_batch_size=served.max_micro_batch_size,
        max_accumulation_steps=options.max_accumulation_steps,
        candidates=options.candidates,
        compare=options.compare,
    )
