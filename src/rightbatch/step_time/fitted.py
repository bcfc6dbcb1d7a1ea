"""What a fit of the step-time law returns: the law, its intervals, draws of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch.fitting import FloatArray, Interval, redrawn_scales
from rightbatch.step_time.communication import Communication
from rightbatch.step_time.law import StepTimeLaw
from rightbatch.step_time.profile import TimedRows, knee_grid

DRAWN_KNEES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedStep:
    """One row that was fitted: seconds per step as timed and as the law has it."""

    batch_size: float
    num_replicas: float
    seconds: float
    fitted_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTimeDraws:
    """Step-time laws drawn from a fit, arrays of shape (n,).

    Args:
        overhead_seconds: `o`, seconds.
        seconds_per_example: gamma, seconds.
        saturation_batch_size: M_T, local examples.
        comm_factor: What the communication time is multiplied by.
        communication: The communication of the fitted law.
    """

    overhead_seconds: FloatArray
    seconds_per_example: FloatArray
    saturation_batch_size: FloatArray
    comm_factor: FloatArray
    communication: Communication

    def seconds_per_step(
        self, batch_size: ArrayLike, num_replicas: ArrayLike = 1
    ) -> FloatArray:
        """Return seconds per step at batch sizes (m,), shape (n, m)."""
        local = np.atleast_1d(np.asarray(batch_size, dtype=float) / num_replicas)
        compute = self.seconds_per_example[:, None] * np.maximum(
            local, self.saturation_batch_size[:, None]
        )
        comm = np.atleast_1d(self.communication.comm_seconds(num_replicas))
        return (
            self.overhead_seconds[:, None] + compute + self.comm_factor[:, None] * comm
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTimeFit:
    """A step-time law with its intervals, and how far to trust it.

    Args:
        law: The fitted law.
        overhead_seconds: Fixed cost of a step, `o`.
        seconds_per_example: Marginal time, gamma.
        saturation_batch_size: Knee, M_T; no lower end where none was seen.
        comm_seconds: What was fitted of the communication: seconds, or seconds per
            replica; None where it was given or there was none.
        knee_seen: False where a straight line does as well.
        points: The rows fitted.
        rows: The same as arrays.
        noise: Relative standard deviation of one row.
        degrees: Degrees of freedom of `noise`.
        median_relative_error: Median over rows of |law / timed - 1|.
        warnings: What to know before use, one sentence each.
    """

    law: StepTimeLaw
    overhead_seconds: Interval
    seconds_per_example: Interval
    saturation_batch_size: Interval
    comm_seconds: Interval | None
    knee_seen: bool
    points: tuple[TimedStep, ...]
    rows: TimedRows
    noise: float
    degrees: int
    median_relative_error: float
    warnings: tuple[str, ...]

    @property
    def fitted_range(self) -> tuple[float, float]:
        """Smallest and largest local batch size timed."""
        return float(self.rows.local.min()), float(self.rows.local.max())

    def draws(self, num: int = 1000, seed: int = 0) -> StepTimeDraws:
        """Return laws refitted to times drawn around this one (parametric bootstrap).

        The noise level is drawn too, from its scaled inverse chi-square: a few rows
        say little about it.

        Args:
            num: How many.
            seed: Same seed, same draws.

        Returns:
            The draws; the knee is free only where one was seen.
        """
        generator = np.random.default_rng(seed)
        scale = redrawn_scales(generator, num, self.noise, max(self.degrees, 1))
        noise = scale * generator.standard_normal((len(self.points), num))
        knees = np.array([self.law.saturation_batch_size])
        if self.knee_seen:
            knees = np.append(knee_grid(self.rows.local, DRAWN_KNEES), knees)
        law = np.array([point.fitted_seconds for point in self.points])
        # Some draws of a noise with one degree of freedom are absurd.
        ratios = np.exp(np.clip(noise, -2, 2))
        found, knee, _ = self.rows.surface(knees, law, ratios).best()
        factor = np.ones(num)
        if self.comm_seconds is not None and self.comm_seconds.value:
            factor = found[2] / self.comm_seconds.value
        return StepTimeDraws(
            overhead_seconds=found[0],
            seconds_per_example=found[1],
            saturation_batch_size=knee,
            comm_factor=factor,
            communication=self.law.communication,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        comm = self.law.communication.to_dict()
        if self.comm_seconds is not None:
            comm["interval"] = self.comm_seconds.to_dict()
        return {
            "overhead_seconds": self.overhead_seconds.to_dict(),
            "seconds_per_example": self.seconds_per_example.to_dict(),
            "saturation_batch_size": self.saturation_batch_size.to_dict(),
            "communication": comm,
            "knee_seen": self.knee_seen,
            "noise": self.noise,
            "median_relative_error": self.median_relative_error,
            "fitted_range": list(self.fitted_range),
            "warnings": list(self.warnings),
        }
