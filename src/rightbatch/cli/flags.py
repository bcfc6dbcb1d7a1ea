"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Workload = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD",
        help="A name from `workloads`, module:function or path/file.py:function.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
NoProgress = Annotated[
    bool, typer.Option("--no-progress", help="Show no progress bars.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where data sets lie; else $RIGHTBATCH_DATA, then the user's data folder."
    ),
]
OptimizerName = Annotated[
    str | None,
    typer.Option(
        "--optimizer",
        metavar="NAME[:KEY=VALUE,...]",
        help="sgd, momentum, nesterov, adam, adamw, rmsprop or kfac in place of the "
        "workload's own, at learning rates of its own.",
    ),
]
Ema = Annotated[
    float | None,
    typer.Option(
        metavar="DECAY",
        help="Check an exponential moving average of the weights with this decay.",
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(help="File the runs are kept in; runs/WORKLOAD.sqlite by default."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Take finished runs from the store.")
]
Tier = Annotated[
    str,
    typer.Option(
        "--tier",
        metavar="TIER",
        help="How updates are made: plain, each run by itself; stacked, learning rates "
        "and seeds together; compiled, these with compiled steps; auto, the fastest. "
        "To rounding all are the same.",
    ),
]
RecordHeldOut = Annotated[
    bool,
    typer.Option(
        "--record-held-out",
        help="Record the metric on the workload's held-out set as well.",
    ),
]
BatchSizes = Annotated[
    str, typer.Option(help="auto, or a list: 16,64,256 or 4:256:x4.")
]
Lrs = Annotated[
    str | None,
    typer.Option(
        "--lr",
        help="One learning rate, held fixed; or several, tuned per batch size. "
        "The workload's own by default.",
    ),
]
Targets = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="One or several, read off the same runs; the plan is for the hardest.",
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="Runs per batch size and rate.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Budget of a run, in steps.")]
Crossing = Annotated[
    str | None,
    typer.Option(help="smoothed, or first: the first update at the target."),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes for runs; one per core by default, one where runs are bought.",
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="local|ADDRESS",
        help="Run on a Dask cluster: local, of --processes, or a scheduler's address, "
        "tcp://host:port.",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Law = Annotated[str, typer.Option(help="auto, inverse, knee or floor.")]
EpochSize = Annotated[
    float | None,
    typer.Option(help="Examples in an epoch, for tables that count epochs."),
]
SequenceSize = Annotated[
    float | None,
    typer.Option(
        help="Tokens in a sequence, where batch sizes count sequences; results then "
        "count tokens."
    ),
]
ExampleUnit = Annotated[
    str | None,
    typer.Option(
        "--unit",
        metavar="NAME",
        help="What batch sizes count: token, sample, ...; example where neither this "
        "nor the table says.",
    ),
]
