"""``replay TRACE``: what policies would have asked for on a recorded run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rightbatch._checks import positive_integer, writable_path
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.errors import InputError

NAME = "replay"


def run(
    trace: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE",
            help="The JSON of train, a CSV of step, examples, batch_size, loss, or a "
            "store.",
        ),
    ],
    policy: Annotated[
        list[str],
        typer.Option(
            "--policy",
            help="Asked about the run; several, separated by blanks or given again.",
        ),
    ],
    initial_batch_size: Annotated[
        int | None, typer.Option(min=1, help="That of the recorded run by default.")
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(min=1, help="At most; the data set by default.")
    ] = None,
    dataset_size: Annotated[
        int | None,
        typer.Option(min=1, help="Examples in an epoch, where the trace tells none."),
    ] = None,
    of: Annotated[
        str | None,
        typer.Option("--of", help="Whose run, where a store holds several policies'."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of which run, where a store holds several.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report here.")
    ] = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Show what batch sizes policies would have asked for on a recorded run.

    The loop is open: every loss and measurement is that of the recorded run.
    """
    from rightbatch.cli.output import to_plain
    from rightbatch.cli.replay_results import replay_results
    from rightbatch.cli.train_policies import split_policies
    from rightbatch.reporting.replay_tables import replay_sheets

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    if report:
        writable_path("--report", report)
    names = split_policies("--policy", " ".join(policy))
    replays, inputs = _replayed(
        trace, names, (initial_batch_size, max_batch_size, dataset_size), (of, seed)
    )
    results = replay_results(replays)
    document = out.document({"trace": str(trace), **inputs}, **results)
    plain = to_plain(document)
    if report:
        from rightbatch.reporting.html import write_html

        out.note(f"report: {write_html(plain, report)}")
    sheets: list[Any] = []
    for sheet in replay_sheets(plain):
        sheets += [sheet, ""]
    sheets += [f"warning: {text}" for text in plain["warnings"]]
    out.show(plain, *sheets, plain["sentence"])


def _replayed(
    path: Path,
    names: tuple[str, ...],
    sizes: tuple[int | None, int | None, int | None],
    choice: tuple[str | None, int | None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    from dataclasses import replace

    from rightbatch.cli.replay_trace import read_recorded, refuse_unrecorded
    from rightbatch.cli.train_policies import make_policies
    from rightbatch.policies import PolicyContext
    from rightbatch.simulation import replay

    initial, largest, size = sizes
    recorded = read_recorded(path, *choice)
    trace = recorded.trace
    if not len(trace):
        raise InputError(f"{path}: the recorded run has no updates.")
    if size is not None:
        recorded = replace(
            recorded, dataset_size=positive_integer("replay", "dataset_size", size)
        )
    known = recorded.dataset_size
    start = initial or float(trace.batch_sizes[0])
    context = PolicyContext(
        dataset_size=known,
        total_steps=float(trace.examples[-1] / start),
        epochs=None if known is None else float(trace.examples[-1] / known),
    )
    policies = make_policies("--policy", names, (start, largest), context)
    found: dict[str, Any] = {}
    for name, one in policies.items():
        refuse_unrecorded(name, one, recorded)
        found[name] = replay(one, trace, dataset_size=known)
    inputs = {
        "policies": names,
        "recorded_policy": recorded.name,
        "initial_batch_size": start,
        "max_batch_size": largest,
        "dataset_size": known,
    }
    return found, inputs
