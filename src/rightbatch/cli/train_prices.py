"""Step times for pricing a training: measured here, or taken from the store."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rightbatch.cli.machine import MachineChoice
from rightbatch.cli.output import Output

if TYPE_CHECKING:
    from rightbatch.cli.train_request import TrainRequest
    from rightbatch.experiments.store import RunStore, StoredTiming
    from rightbatch.step_time import StepTimeFit


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What seconds are priced by.

    Args:
        fit: The law of step times.
        entry: Its entry of the document.
        warnings: What it rests on.
    """

    fit: "StepTimeFit"
    entry: dict[str, Any]
    warnings: list[str]


def measure_prices(out: Output, request: "TrainRequest", store: "RunStore") -> Prices:
    """Return the law of step times, from a few batch sizes between the ends.

    Args:
        out: Shows what is being measured.
        request: Tells the range.
        store: Keeps the timings; with ``--resume`` it gives them.

    Returns:
        The law, communication in it.
    """
    from rightbatch.cli.time import step_time_entry
    from rightbatch.workload import num_parameters

    options = request.options
    timings, warnings = _timings(out, request, store)
    between, said = options.choice.resolve(
        out, num_parameters(request.workload), request.replicas
    )
    sizes = [one.batch_size for one in timings]
    fit = MachineChoice(overlap="1").fit(
        sizes, [one.seconds for one in timings], communication=between
    )
    points = [
        {
            "batch_size": one.batch_size,
            "num_replicas": one.num_replicas,
            "seconds": one.seconds,
            "low": one.spread[0],
            "high": one.spread[1],
            "composed": False,
        }
        for one in timings
    ]
    return Prices(
        fit=fit, entry=step_time_entry(fit, points), warnings=[*warnings, *said]
    )


def _timings(
    out: Output, request: "TrainRequest", store: "RunStore"
) -> "tuple[list[StoredTiming], list[str]]":
    from rightbatch.cli.time import time_steps
    from rightbatch.experiments.store import StoredTiming
    from rightbatch.experiments.train_pricing import batch_sizes_to_time

    settings = request.settings
    ends = [settings.initial_batch_size, settings.max_batch_size]
    sizes = [
        size
        for size in batch_sizes_to_time(ends, request.replicas)
        if size <= request.dataset_size
    ]
    if request.options.resume:
        kept = {
            one.batch_size: one
            for one in reversed(store.timings(session=store.session))
            if one.num_replicas == 1 and one.device == settings.device
        }
        if all(size in kept for size in sizes):
            return [kept[size] for size in sizes], []
    measured = time_steps(
        out,
        request.workload,
        tuple(sizes),
        settings.device,
        request.options.timing_seconds,
    )
    timings = [
        StoredTiming(
            batch_size=one.batch_size,
            num_replicas=1,
            seconds=one.seconds,
            spread=one.spread,
            device=settings.device,
        )
        for one in measured.timings
    ]
    for one in timings:
        store.add_timing(one)
    return timings, [measured.stopped] if measured.stopped else []
