"""``train WORKLOAD``: train with a batch that grows, and say whether it paid."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch._checks import writable_path
from rightbatch.cli import communication as comm
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.errors import InterruptedRunError, NotReachedError, RightbatchError

if TYPE_CHECKING:
    from rightbatch.cli.train_prices import Prices
    from rightbatch.cli.train_request import TrainRequest
    from rightbatch.experiments.store import RunStore
    from rightbatch.experiments.train_record import TrainingRun

NAME = "train"
POLICY = "noise-following"


def run(
    workload: flags.Workload = "digits-mlp",
    policy: Annotated[
        str | None,
        typer.Option(
            help=f"Decides the batch size, as name:key=value,key=value; {POLICY} by "
            "default. constant, adadamp, padadamp:rate=.05, geodamp, planned, ...",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            help="Several policies, separated by blanks: same seeds, same examples."
        ),
    ] = None,
    initial_batch_size: Annotated[
        int | None, typer.Option(min=1, help="At the start; 16 by default.")
    ] = None,
    max_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="At most; 32 times the initial one by default."),
    ] = None,
    micro_batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Batches are multiples of it; the initial one by default."
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate at the initial batch size; the middle one of the "
            "workload's."
        ),
    ] = None,
    lr_rule: Annotated[
        str,
        typer.Option(
            help="How the rate follows the batch: auto, which is AdaScale for SGD; "
            "none, linear, square_root, ... as in transfer."
        ),
    ] = "auto",
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Of the learning rate, over the examples: cosine, linear, wsd, ..."
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Where a run ends; 20 by default.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Where it ends, in updates.")
    ] = None,
    max_examples: Annotated[
        int | None, typer.Option(min=1, help="Where it ends, in examples.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs per policy, from --seed on.")
    ] = 1,
    measure_every: Annotated[
        int, typer.Option(min=1, help="Updates between two readings of the noise.")
    ] = 10,
    dwell: Annotated[
        int | None,
        typer.Option(min=1, help="Updates between two questions to a policy."),
    ] = None,
    evaluate_fraction: Annotated[
        float | None,
        typer.Option(
            help="Of the training data, for policies that read a loss of their own."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="The loss to compare at where all reach it; the workload's, or none."
        ),
    ] = None,
    baseline: Annotated[
        bool, typer.Option(help="Run the constant initial batch beside.")
    ] = True,
    replicas: Annotated[
        str, typer.Option(help="Numbers of replicas to price at.")
    ] = "1,8",
    price_per_hour: Annotated[
        float | None, typer.Option(help="Of one replica, in any currency.")
    ] = None,
    timing_seconds: Annotated[
        float, typer.Option(min=0.1, help="For measuring step times.")
    ] = 2.5,
    measure_comm: comm.MeasureComm = False,
    bandwidth: comm.Bandwidth = None,
    latency: comm.Latency = None,
    comm_seconds: comm.CommSeconds = None,
    comm_law: comm.Comm = None,
    store: flags.Store = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Take finished runs from the store, and go on with the one under way.",
        ),
    ] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0.0, help="Between two checkpoints of a run.")
    ] = 30.0,
    csv: Annotated[
        Path | None, typer.Option(help="Write the first run's updates here.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report here.")
    ] = None,
    device: flags.Device = "cpu",
    data_dir: flags.DataDir = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Train with a batch that grows, and say whether that pays.

    Beside the constant initial batch, on the same examples, with the time of both on
    some numbers of replicas by the plan's law of step times.
    """
    from rightbatch.cli.train_request import TrainOptions, read_request

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    for option, path in (("--csv", csv), ("--report", report)):
        if path:
            writable_path(option, path)
    choice = comm.CommunicationChoice(
        measure=measure_comm,
        bandwidth=bandwidth,
        latency=latency,
        seconds=comm_seconds,
        law=comm_law,
    )
    request = read_request(
        TrainOptions(
            spec=workload,
            policy=policy,
            compare=compare,
            baseline=baseline,
            initial_batch_size=initial_batch_size,
            max_batch_size=max_batch_size,
            micro_batch_size=micro_batch_size,
            lr=lr,
            lr_rule=lr_rule,
            schedule=schedule,
            epochs=epochs,
            max_steps=max_steps,
            max_examples=max_examples,
            seed=seed,
            seeds=seeds,
            measure_every=measure_every,
            dwell=dwell,
            evaluate_fraction=evaluate_fraction,
            target=target,
            replicas=replicas,
            price_per_hour=price_per_hour,
            timing_seconds=timing_seconds,
            choice=choice,
            store=store,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
            device=device,
            data_dir=data_dir,
        )
    )
    document, runs = train_document(out, request)
    _write(out, document, csv, report)
    _show(out, document)
    error = ending_of(runs, request)
    if error is not None:
        out.fail(document, error)


def train_document(
    out: Output, request: "TrainRequest"
) -> "tuple[dict[str, Any], list[TrainingRun]]":
    """Return the document of a training, and its runs.

    Args:
        out: Shows what goes on.
        request: What to run.

    Returns:
        Both; a run that was interrupted is the last one.
    """
    from rightbatch.cli.noise_results import about
    from rightbatch.cli.train_prices import measure_prices
    from rightbatch.cli.train_results import train_results
    from rightbatch.experiments.identity import open_store

    with open_store(request.store, request.workload) as kept:
        kept.begin(resume=request.options.resume)
        prices = measure_prices(out, request, kept)
        runs = train_all(out, request, prices, kept)
    results = train_results(
        runs,
        prices.fit.law,
        request.replicas,
        baseline=request.baseline,
        target=request.target,
        price_per_hour=request.price_per_hour,
        max_batch_size=request.settings.max_batch_size,
    )
    results["warnings"] += prices.warnings
    document = out.document(
        request.inputs(),
        workload=about(request.workload),
        **results,
        step_time=prices.entry,
    )
    return document, runs


def train_all(
    out: Output, request: "TrainRequest", prices: "Prices", store: "RunStore"
) -> "list[TrainingRun]":
    """Return the runs of all policies and seeds, each stored as it ends.

    Args:
        out: Shows progress.
        request: What to run.
        prices: For policies that plan.
        store: A session has begun.

    Returns:
        By policy in the order asked for, then by seed; after Ctrl-C what there is.
    """
    policies = request.policies(prices.fit.law)
    runs: list[TrainingRun] = []
    # Seed by seed: what is there after a break can be compared.
    for seed in request.seeds:
        for name in request.names:
            run = _stored(request, store, name, seed)
            if run is None:
                run = _trained(out, request, policies[name], name, seed)
                if run.status != "interrupted":
                    store.add_training(run)
                    files_of(request, name, seed).remove()
            runs.append(run)
            if run.status == "interrupted":
                return _in_order(runs, request)
    folder = request.checkpoint(request.names[0], 0).parent
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return _in_order(runs, request)


def _in_order(
    runs: "list[TrainingRun]", request: "TrainRequest"
) -> "list[TrainingRun]":
    return sorted(runs, key=lambda run: (request.names.index(run.policy), run.seed))


def _stored(
    request: "TrainRequest", store: "RunStore", name: str, seed: int
) -> "TrainingRun | None":
    if not request.options.resume:
        return None
    found = store.trainings(
        policy=name,
        seed=seed,
        settings=request.settings.to_dict(),
        session=store.session,
    )
    return found[0] if found else None


def files_of(request: "TrainRequest", name: str, seed: int) -> Any:
    """Return where a run under way is kept; its folder is made.

    Args:
        request: Tells the settings.
        name: The policy.
        seed: Of the run.

    Returns:
        The files.
    """
    from rightbatch.cli.sweep import make_folder
    from rightbatch.experiments.train_run import RunFiles

    path = request.checkpoint(name, seed)
    make_folder(path.parent)
    return RunFiles(
        path=path,
        resume=request.options.resume,
        every_seconds=request.options.checkpoint_seconds,
    )


def _trained(
    out: Output, request: "TrainRequest", policy: Any, name: str, seed: int
) -> "TrainingRun":
    from rightbatch.cli.train_progress import run_progress
    from rightbatch.experiments.train_run import TrainJob, run_training

    settings = request.settings
    job = TrainJob(
        workload=request.workload,
        policy=policy,
        name=name,
        seed=seed,
        settings=settings,
    )
    in_examples = settings.max_examples is not None
    total = settings.max_examples or settings.max_steps or 1
    title = f"training {request.workload.name}, {name}, seed {seed}"
    with run_progress(out, title, total, in_examples=in_examples) as tell:
        return run_training(job, files=files_of(request, name, seed), on_update=tell)


def ending_of(
    runs: "list[TrainingRun]", request: "TrainRequest"
) -> RightbatchError | None:
    """Return the error that a training which broke off ends with.

    Args:
        runs: That were made.
        request: What was asked for.

    Returns:
        The error; None where a policy that was asked for came through.
    """
    cut = [run for run in runs if run.status == "interrupted"]
    if cut:
        return InterruptedRunError(
            f"interrupted in {cut[0].policy}, seed {cut[0].seed}, after "
            f"{cut[0].steps} updates; all until then is kept in {request.store}.",
            "go on with --resume",
        )
    asked = [run for run in runs if run.policy in request.asked]
    if all(run.status == "diverged" for run in asked):
        return NotReachedError(
            f"{request.workload.name}: the loss is lost under "
            f"{' and under '.join(request.asked)} at lr {request.settings.lr:g}; what "
            f"was kept ends after {asked[0].steps} updates.",
            "try a smaller --lr, or another --lr-rule",
        )
    return None


def _write(
    out: Output, document: dict[str, Any], csv: Path | None, report: Path | None
) -> None:
    from rightbatch.cli.output import to_plain
    from rightbatch.cli.train_results import write_trace

    if csv:
        write_trace(csv, document)
    if report:
        from rightbatch.reporting.html import write_html

        out.note(f"report: {write_html(to_plain(document), report)}")


def _show(out: Output, document: dict[str, Any]) -> None:
    from rightbatch.cli.output import to_plain
    from rightbatch.reporting.train_tables import train_sheets

    broken = any(one["status"] == "interrupted" for one in document["trained"])
    lost = all(one["status"] == "diverged" for one in document["trained"])
    # Under --json a run that broke off prints its document with the error.
    if out.json and (broken or lost):
        return
    plain = to_plain(document)
    sheets: list[Any] = []
    for sheet in train_sheets(plain):
        sheets += [sheet, ""]
    sheets += [f"warning: {text}" for text in plain["warnings"]]
    out.show(plain, *sheets, "", plain["sentence"])
