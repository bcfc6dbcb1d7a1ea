"""How far the runs behind a law of steps support a plan.

Where S_min is not above zero the law says that ever larger batches are faster, which
no run supports. The largest batch size run is then the limit of the plan, and what it
finds there is a lower bound of the best batch size, said as such.
"""

from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from rightbatch.convergence import ConvergenceFit, ConvergenceLaw
from rightbatch.training_time.law import NO_LIMITS, BatchLimits, StepsModel


@runtime_checkable
class FittedSteps(Protocol):
    """A law of steps with the runs it was fitted to, as ``fit_convergence`` returns."""

    @property
    def law(self) -> Any:
        """The law; its `min_steps` tells whether large batches have a limit."""
        ...

    @property
    def fitted_range(self) -> tuple[float, float]:
        """Smallest and largest batch size run."""
        ...


def fitted_range_of(steps: StepsModel) -> tuple[float, float] | None:
    """Return the batch sizes a model of steps was fitted to; None where unknown."""
    return steps.fitted_range if isinstance(steps, FittedSteps) else None


def has_least_steps(steps: StepsModel) -> bool:
    """Return False for a law, fitted or not, whose S_min is not above zero.

    Args:
        steps: Any model of steps; one without a law is taken at its word.

    Returns:
        Whether ever larger batches stop saving steps.
    """
    law = steps.law if isinstance(steps, FittedSteps) else steps
    return not isinstance(law, ConvergenceLaw) or law.min_steps > 0


def noise_is_known(steps: StepsModel) -> bool:
    """Return False for a fit to runs that do not tell how far they scatter."""
    return not isinstance(steps, ConvergenceFit) or steps.has_noise


def limits_of(
    steps: StepsModel,
    limits: BatchLimits = NO_LIMITS,
    num_replicas: int = 1,
    fitted_range: tuple[float, float] | None = None,
) -> BatchLimits:
    """Return what can be served and is supported by the runs.

    Args:
        steps: Model of steps; a fit tells which batch sizes were run.
        limits: What can be served.
        num_replicas: Each gets an example, whatever was run.
        fitted_range: Smallest and largest batch size run, where `steps` is a law alone.

    Returns:
        `limits` themselves; or, where S_min is not above zero, with the largest batch
        size run as `max_batch_size` if that is less.

    Example:
        >>> law = ConvergenceLaw(min_steps=-5, min_examples=1e4)
        >>> limits_of(law, fitted_range=(8, 512)).max_batch_size
        512
    """
    known = fitted_range or fitted_range_of(steps)
    if known is None or has_least_steps(steps):
        return limits
    largest = max(int(known[1]), num_replicas, limits.min_batch_size or 1)
    if limits.max_batch_size is not None and limits.max_batch_size <= largest:
        return limits
    return replace(limits, max_batch_size=largest)
