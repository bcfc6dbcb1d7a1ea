"""What memory does not suffice for is not tried again with a larger batch."""

from rightbatch.experiments.record import Run, read_crossings
from rightbatch.experiments.run import RunSettings


class MemoryLimit:
    """The smallest batch size for which the memory did not suffice.

    Example:
        >>> limit = MemoryLimit()
        >>> limit.exceeded_by(512)
        False
    """

    def __init__(self) -> None:
        self._too_large: int | None = None

    def note(self, run: Run) -> None:
        """Learn from how a run ended."""
        if run.status == "out_of_memory":
            smallest = self._too_large or run.batch_size
            self._too_large = min(smallest, run.batch_size)

    def exceeded_by(self, batch_size: int) -> bool:
        """Return whether a batch is larger than one that did not fit."""
        return self._too_large is not None and batch_size > self._too_large


def untried(settings: RunSettings, budget: int) -> Run:
    """Return the run that is not tried, as a smaller batch did not fit.

    Args:
        settings: What it would have been.
        budget: Updates it would have been allowed.
    """
    return Run(
        batch_size=settings.batch_size,
        lr=settings.lr,
        seed=settings.seed,
        status="out_of_memory",
        last_step=0,
        budget=budget,
        trace=(),
        crossings=read_crossings(
            settings.crossing, (), settings.targets, "out_of_memory"
        ),
        nearest=None,
        crossing=settings.crossing,
        seconds_training=0.0,
        seconds_checking=0.0,
        median_step_seconds=None,
    )
