"""``plan --verify``: fresh seeds trained at the recommended batch, beside the plan."""

import math
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

from rightbatch.cli.output import Output
from rightbatch.cli.planning import Findings

if TYPE_CHECKING:
    from rightbatch.cli.sweep import SweepRequest
    from rightbatch.experiments.record import Run
    from rightbatch.experiments.store import RunStore

NUM_SEEDS = 5
# A verifying run may take this many times the steps predicted before it is given up.
PATIENCE = 6


def verify_plan(
    out: Output, request: "SweepRequest", findings: Findings, store: "RunStore"
) -> list[dict[str, Any]]:
    """Return predicted beside measured, at the best batch, half of it and twice it.

    Seeds are fresh: none of them was used for the fit. They are run one at a time, so
    that the seconds per step are those of a quiet machine.

    Args:
        out: Shows the progress.
        request: The sweep the plan rests on.
        findings: Both curves.
        store: Takes the runs.

    Returns:
        One entry per batch size, with medians over the seeds; seconds are steps times
        the median seconds per step, and the seconds spent on checks stand apart.
    """
    from rightbatch.training_time import best_batch_size

    law = findings.training_time(findings.step_time.law)
    chosen = findings.chosen.get(1)
    best = chosen or best_batch_size(law, 1, findings.limits)
    most = findings.served.max_batch_size or best
    sizes = sorted({max(best // 2, 1), best, min(2 * best, most)})
    checks: list[dict[str, Any]] = []
    with out.bar("verifying with fresh seeds", NUM_SEEDS * len(sizes)) as show:
        for size in sizes:
            before = len(checks) * NUM_SEEDS
            predicted = float(law.steps.steps(size))
            runs = _train(
                request,
                store,
                size,
                findings.tuned.lr_at(size) or request.workload.lrs[0],
                math.ceil(PATIENCE * predicted) + 100,
                lambda done, before=before: show(before + done),
            )
            seconds = float(law.seconds_to_target(size, 1))
            checks.append(_entry(runs, predicted, seconds))
    return checks


def _train(
    request: "SweepRequest",
    store: "RunStore",
    batch_size: int,
    lr: float,
    max_steps: int,
    show: Callable[[int], None],
) -> "tuple[Run, ...]":
    from rightbatch.experiments.sweep import SweepSettings, sweep

    first = max(request.settings.seeds) + 1
    settings = SweepSettings(
        batch_sizes=(batch_size,),
        lrs=(lr,),
        seeds=tuple(range(first, first + NUM_SEEDS)),
        targets=request.settings.targets,
        crossing=request.settings.crossing,
        max_steps=max_steps,
    )
    return sweep(
        request.workload,
        settings,
        processes=1,
        store=store,
        resume=request.resume,
        on_progress=lambda done, _total, _run: show(done),
    )


def _entry(runs: "tuple[Run, ...]", predicted: float, seconds: float) -> dict[str, Any]:
    # A run that never arrives counts as infinitely late in a median.
    steps = [math.inf if (count := run.steps()) is None else count for run in runs]
    spent = [
        count * (run.median_step_seconds or math.nan)
        for run, count in zip(runs, steps, strict=True)
    ]
    return {
        "batch_size": runs[0].batch_size,
        "lr": runs[0].lr,
        "predicted_steps": predicted,
        "measured_steps": median(steps),
        "predicted_seconds": seconds,
        "measured_seconds": median(spent),
        "checking_seconds": median(run.seconds_checking for run in runs),
        "num_seeds": len(runs),
        "num_reached": sum(math.isfinite(count) for count in steps),
    }
