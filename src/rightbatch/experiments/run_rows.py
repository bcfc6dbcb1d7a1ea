"""A run as a row of the store: its values by column, and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rightbatch.experiments.crossing import Crossing, Trace
from rightbatch.experiments.record import Run, TargetCrossing


def row_of(run: Run) -> dict[str, Any]:
    """Return a run's values by column, all but when and with what it was made.

    Args:
        run: Any.
    """
    return {
        "batch_size": run.batch_size,
        "lr": run.lr,
        "seed": run.seed,
        "targets": json.dumps(run.targets),
        "crossing": json.dumps(asdict(run.crossing)),
        "budget": run.budget,
        "status": run.status,
        "last_step": run.last_step,
        "nearest": run.nearest,
        "crossings": json.dumps([asdict(crossed) for crossed in run.crossings]),
        "trace": json.dumps(run.trace),
        "seconds_training": run.seconds_training,
        "seconds_checking": run.seconds_checking,
        "median_step_seconds": run.median_step_seconds,
        "held_out_trace": json.dumps(run.held_out_trace),
        "tier": run.tier,
    }


def run_of(row: Mapping[str, Any]) -> Run:
    """Return the run that a row holds.

    Args:
        row: Values by column, as today's schema has them.
    """
    crossings = json.loads(row["crossings"])
    return Run(
        batch_size=row["batch_size"],
        lr=row["lr"],
        seed=row["seed"],
        status=row["status"],
        last_step=row["last_step"],
        budget=row["budget"],
        trace=_trace_of(row["trace"]),
        crossings=tuple(TargetCrossing(**crossed) for crossed in crossings),
        nearest=row["nearest"],
        crossing=Crossing(**json.loads(row["crossing"])),
        seconds_training=row["seconds_training"],
        seconds_checking=row["seconds_checking"],
        median_step_seconds=row["median_step_seconds"],
        held_out_trace=_trace_of(row["held_out_trace"]),
        tier=row["tier"],
    )


def _trace_of(text: str) -> Trace:
    return tuple((step, value) for step, value in json.loads(text))
