"""The step times of a plan: the store's where it has them all, else measured."""

from typing import TYPE_CHECKING

from rightbatch.cli.output import Output
from rightbatch.errors import NotReachedError, WorkloadFailedError

if TYPE_CHECKING:
    from rightbatch.cli.planning import PlanOptions
    from rightbatch.cli.sweep import SweepRequest
    from rightbatch.experiments.store import RunStore
    from rightbatch.step_time import Communication, StepTimeFit
    from rightbatch.timing import StepTimings


def plan_timings(
    out: Output, request: "SweepRequest", store: "RunStore", options: "PlanOptions"
) -> "StepTimings":
    """Return the seconds per step of one replica.

    Args:
        out: Shows the progress.
        request: The sweep of the plan.
        store: Asked first on resuming; takes what is measured.
        options: Where steps are timed, and for how long.

    Returns:
        The timings.

    Raises:
        WorkloadFailedError: The workload's own code raised.
    """
    from rightbatch.cli.time import time_steps, timed_batch_sizes
    from rightbatch.experiments.store import StoredTiming

    device = options.device
    sizes = timed_batch_sizes(request.workload, "auto")
    known = _stored_timings(store, sizes, device) if request.resume else None
    if known is not None:
        return known
    how = (device, options.timing_seconds)
    try:
        timings = time_steps(out, request.workload, sizes, *how)
    except WorkloadFailedError as error:
        # One example is too few for batch normalisation; no plan needs it to be timed.
        if sizes[0] in request.settings.batch_sizes or len(sizes) < 3:
            raise
        out.note(f"batch size {sizes[0]} cannot be timed, left out: {error}")
        timings = time_steps(out, request.workload, sizes[1:], *how)
    for timing in timings.timings:
        store.add_timing(
            StoredTiming(
                batch_size=timing.batch_size,
                num_replicas=timing.num_replicas,
                seconds=timing.seconds,
                spread=timing.spread,
                device=device,
            )
        )
    return timings


def _stored_timings(
    store: "RunStore", sizes: tuple[int, ...], device: str
) -> "StepTimings | None":
    from rightbatch.timing import StepTiming, StepTimings

    known = {kept.batch_size: kept for kept in store.timings() if kept.device == device}
    if not set(sizes) <= known.keys():
        return None
    found = [
        StepTiming(
            batch_size=size,
            seconds=known[size].seconds,
            spread=known[size].spread,
            num_steps=1,
        )
        for size in sizes
    ]
    return StepTimings(timings=tuple(found), device=device, num_threads=1)


def fitted_times(
    timings: "StepTimings", between: "Communication", options: "PlanOptions"
) -> "StepTimeFit":
    """Return the law of step times, communication included.

    Args:
        timings: Of one replica.
        between: The time between replicas.
        options: Overlap, and checks between steps.

    Returns:
        The fit.

    Raises:
        NotReachedError: One batch size alone fits.
    """
    if len(timings.batch_sizes) < 2:
        alone = ", ".join(str(size) for size in timings.batch_sizes)
        raise NotReachedError(
            f"timing: only batch size {alone} fits. {timings.stopped}"
        )
    return options.machine.fit(
        timings.batch_sizes, timings.seconds, communication=between
    )
