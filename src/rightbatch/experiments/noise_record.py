"""What a measurement of gradient noise along training leaves behind: rows, an average.

A row is a window of updates, disjoint from all others. Within it the two moments are
averaged apart and divided last; nothing of an earlier window is in it, so that no
memory makes a row lag behind a noise scale that grows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rightbatch.fitting import Interval
from rightbatch.gradients import NoiseReading
from rightbatch.noise_scale import GradientMoments, suggested_batch_sizes

AVERAGE = "mean over the run of the windows' noise scales, weighted by their steps"
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseMeasurement:
    """The noise of one window of updates.

    Args:
        first_step: Updates made when the window began.
        step: Updates made when it ended; 0 at initialisation, where weights are frozen.
        examples: Examples trained on by then.
        loss: Mean training loss over the window, each batch's before its update.
        reading: What the meter read.
        sgd_lr: Learning rate, where the optimizer is plain SGD; for CABS.

    Example:
        >>> from rightbatch.noise_scale import GradientMoments, MomentAverage
        >>> average = MomentAverage()
        >>> for square in (0.9, 1.1, 1.0):
        ...     moments = GradientMoments(grad_sq_norm=square, grad_variance=50.0)
        ...     average = average.add(moments, examples=64)
        >>> row = NoiseMeasurement(first_step=0, step=3, examples=192, loss=2.0,
        ...     reading=NoiseReading(estimate=average.noise_scale(), source="units"))
        >>> row.to_dict()["grad_variance"], row.num_steps
        (50.0, 3)
    """

    first_step: int
    step: int
    examples: int
    loss: float
    reading: NoiseReading
    sgd_lr: float | None = None

    @property
    def num_steps(self) -> int:
        """Updates that trained the model in the window."""
        return self.step - self.first_step

    @property
    def is_resolved(self) -> bool:
        """Whether the noise scale has an interval with two ends."""
        return self.reading.status == "resolved"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as the JSON document has it."""
        reading = self.reading
        moments = reading.moments
        scale = reading.interval
        resolved = self.is_resolved and scale.value is not None
        return {
            "first_step": self.first_step,
            "step": self.step,
            "examples": self.examples,
            "loss": self.loss,
            "grad_sq_norm": moments and moments.grad_sq_norm,
            "grad_variance": moments and moments.grad_variance,
            "simple_noise_scale": scale.to_dict(),
            "status": reading.status,
            "lower_bound": reading.lower_bound,
            "diversity_batch_bound": 1 + (scale.value or 0.0) if resolved else None,
            "suggested": self._suggested(moments),
            "measured_steps": reading.estimate.num_steps,
            "effective_steps": reading.estimate.effective_steps,
            "limited_by": reading.limited_by,
            "coverage": reading.coverage,
            "num_skipped": reading.num_skipped,
            "parts": self._parts(),
        }

    def _suggested(self, moments: GradientMoments | None) -> dict[str, Any]:
        if moments is None:
            return {}
        known = self.sgd_lr is not None and self.loss > 0 and math.isfinite(self.loss)
        found = suggested_batch_sizes(
            moments,
            lr=self.sgd_lr if known else None,
            loss=self.loss if known else None,
        )
        return {
            name: {
                # All but CABS divide by |G|^2, which has to be told from zero.
                "value": one.batch_size if self.is_resolved or name == "cabs" else None,
                "definition": one.definition,
                "source": one.source,
            }
            for name, one in found.items()
        }

    def _parts(self) -> dict[str, Any]:
        whole = self.reading.moments
        found: dict[str, Any] = {}
        for name, estimate in self.reading.parts.items():
            moments = estimate.moments
            if moments is None or whole is None:
                continue
            found[name] = {
                "grad_sq_norm": moments.grad_sq_norm,
                "grad_variance": moments.grad_variance,
                "share_of_sq_norm": _share(moments.grad_sq_norm, whole.grad_sq_norm),
                "share_of_variance": _share(moments.grad_variance, whole.grad_variance),
                "simple_noise_scale": estimate.interval.to_dict(),
                "lower_bound": estimate.lower_bound,
                "status": estimate.status,
            }
        return found


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def run_average(measurements: Sequence[NoiseMeasurement]) -> Interval | None:
    """Return the noise scale averaged over the steps of a run.

    Windows are independent, so their distances to the ends of their intervals add in
    squares, each side apart (Zou and Donner, 2008). A window without an upper end
    leaves the average without one.

    Args:
        measurements: Of one run; the row at initialisation has no step, and no weight.

    Returns:
        The average with its interval; None where no window of the run has a value, or
        where those that have are less than half of its steps.

    Example:
        >>> run_average([]) is None
        True
    """
    rows = [row for row in measurements if row.num_steps]
    known = [row for row in rows if row.reading.interval.value is not None]
    total = sum(row.num_steps for row in known)
    if not known or 2 * total < sum(row.num_steps for row in rows):
        return None
    value, below, above = 0.0, 0.0, 0.0
    for row in known:
        interval, weight = row.reading.interval, row.num_steps / total
        middle = interval.value or 0.0
        value += weight * middle
        below += (weight * (middle - (interval.low or 0.0))) ** 2
        high = math.inf if interval.high is None else interval.high
        above += (weight * (high - middle)) ** 2
    bounded = math.isfinite(above) and len(known) == len(rows)
    return Interval(
        value=value,
        low=max(0.0, value - math.sqrt(below)),
        high=value + math.sqrt(above) if bounded else None,
        level=known[0].reading.interval.level,
        unit=known[0].reading.interval.unit,
        definition=AVERAGE,
    )
