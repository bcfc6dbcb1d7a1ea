"""What the meter shows: the noise scale, where it was read, and what to know of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rightbatch.fitting import Interval
from rightbatch.noise_scale import GradientMoments, NoiseScaleEstimate


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseReading:
    r"""The gradient noise scale :math:`\mathrm{tr}\,\Sigma/|G|^2` as the meter has it.

    The noise scale is not the critical batch size: see docs/theory/noise-scale.md.

    Args:
        estimate: The ratio of averages with its interval.
        source: What it was read from: "units" (micro-batches and replicas), "examples"
            or "normalization".
        coverage: Share of the trainable parameters that were read.
        uncovered: Names of those that were not, with the reason.
        num_units: Units of the last update that was read.
        num_skipped: Updates left out: their gradients were not finite, they had one
            unit only among others with more, or it was still being found out which
            parameters can be read.
        notes: What else to know, one sentence each.
        parts: The same of each part of the parameters, where parts were asked for and
            something of them is read.
    """

    estimate: NoiseScaleEstimate
    source: str
    coverage: float = 1.0
    uncovered: Mapping[str, str] = field(default_factory=dict[str, str])
    num_units: int = 0
    num_skipped: int = 0
    notes: tuple[str, ...] = ()
    parts: Mapping[str, NoiseScaleEstimate] = field(
        default_factory=dict[str, NoiseScaleEstimate]
    )

    @property
    def interval(self) -> Interval:
        """The noise scale with its two-sided interval and unit."""
        return self.estimate.interval

    @property
    def value(self) -> float | None:
        """The noise scale in examples; None where there is none to give."""
        return self.estimate.interval.value

    @property
    def lower_bound(self) -> float:
        """What the noise scale exceeds, one-sided: what may be acted on."""
        return self.estimate.lower_bound

    @property
    def moments(self) -> GradientMoments | None:
        """Both averages; None before the first update."""
        return self.estimate.moments

    @property
    def status(self) -> str:
        """As :class:`rightbatch.noise_scale.NoiseScaleEstimate` has it."""
        return self.estimate.status

    @property
    def limited_by(self) -> str:
        """What the width of the interval comes from."""
        return self.estimate.limited_by

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for a program; what is not finite is null."""
        return {
            **self.estimate.to_dict(),
            "source": self.source,
            "coverage": self.coverage,
            "uncovered": dict(self.uncovered),
            "num_units": self.num_units,
            "num_skipped": self.num_skipped,
            "notes": list(self.notes),
            "parts": {name: part.to_dict() for name, part in self.parts.items()},
        }

    def to_log(self) -> dict[str, float]:
        """Return what a logger takes: ``noise/...`` keys, finite numbers only.

        A side of the interval that is unbounded is left out.
        """
        moments, interval = self.moments, self.interval
        values: dict[str, float | None] = {
            "noise/scale": interval.value,
            "noise/scale_low": interval.low,
            "noise/scale_high": interval.high,
            "noise/scale_lower_bound": self.lower_bound,
            "noise/grad_sq_norm": moments and moments.grad_sq_norm,
            "noise/grad_variance": moments and moments.grad_variance,
            "noise/effective_steps": self.estimate.effective_steps,
            "noise/skipped": float(self.num_skipped),
        }
        values |= {
            f"noise/scale/{name}": part.interval.value
            for name, part in self.parts.items()
        }
        return {
            key: value
            for key, value in values.items()
            if value is not None and math.isfinite(value)
        }

    def __str__(self) -> str:
        said = [f"{self.estimate}, from {self.source}"]
        if self.coverage < 1:
            said.append(f"{100 * self.coverage:.0f} % of the parameters read")
        if self.num_skipped:
            plural = "" if self.num_skipped == 1 else "s"
            said.append(f"{self.num_skipped} update{plural} skipped")
        return "; ".join(said)
