"""What a fit of the step-time law returns: the law, its intervals, draws of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch.fitting import FloatArray, Interval, redrawn_scales
from rightbatch.step_time.candidates import Basis
from rightbatch.step_time.communication import NO_COMMUNICATION, Communication
from rightbatch.step_time.evaluation import Evaluation
from rightbatch.step_time.findings import StepTimeFinding
from rightbatch.step_time.law import StepTimeLaw, overlapped
from rightbatch.step_time.profile import LawFit, TimedRows, knee_grid
from rightbatch.step_time.selection import StepTimeRival
from rightbatch.step_time.surface import Surface

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
        comm_coefficients: What multiplies the columns of `basis`, shape (n, terms).
        overlap_exponent: q.
        basis: The communication law that was fitted.
        communication: Communication taken as known, exactly.
        evaluation: Checks between steps.
    """

    overhead_seconds: FloatArray
    seconds_per_example: FloatArray
    saturation_batch_size: FloatArray
    comm_coefficients: FloatArray
    overlap_exponent: FloatArray
    basis: Basis
    communication: Communication = NO_COMMUNICATION
    evaluation: Evaluation | None = None

    def seconds_per_step(
        self, batch_size: ArrayLike, num_replicas: ArrayLike = 1
    ) -> FloatArray:
        """Return seconds per step at batch sizes (m,), shape (n, m)."""
        replicas = np.asarray(num_replicas, dtype=float)
        local = np.atleast_1d(np.asarray(batch_size, dtype=float) / replicas)
        known = np.atleast_1d(self.communication.comm_seconds(num_replicas))
        columns = np.atleast_2d(self.basis.columns(num_replicas))
        comm = known + self.comm_coefficients @ columns.T
        both = overlapped(self._compute(local), comm, self.overlap_exponent[:, None])
        fixed = self.overhead_seconds[:, None] + self.evaluation_seconds(num_replicas)
        return fixed + both

    def pass_seconds(self, micro_batch_size: ArrayLike) -> FloatArray:
        """Return seconds of a pass that sums nothing, as :class:`StepTimeLaw`.

        Args:
            micro_batch_size: Examples of the pass on one replica, shape (m,).

        Returns:
            Shape (n, m).
        """
        micro = np.atleast_1d(np.asarray(micro_batch_size, dtype=float))
        return self.overhead_seconds[:, None] + self._compute(micro)

    def evaluation_seconds(self, num_replicas: ArrayLike = 1) -> FloatArray:
        """Return what checks add to a step, shape (n, 1) for one number of replicas."""
        if self.evaluation is None:
            return np.zeros((len(self.overhead_seconds), 1))
        return np.asarray(
            self.evaluation.seconds_per_step(
                self.seconds_per_example[:, None],
                self.saturation_batch_size[:, None],
                np.atleast_1d(num_replicas),
            )
        )

    def _compute(self, local: FloatArray) -> FloatArray:
        flat = np.maximum(local, self.saturation_batch_size[:, None])
        return self.seconds_per_example[:, None] * flat


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTimeFit:
    """A step-time law with its intervals, and how far to trust it.

    Args:
        law: The fitted law.
        overhead_seconds: Fixed cost of a step, `o`.
        seconds_per_example: Marginal time, gamma.
        saturation_batch_size: Knee, M_T; no lower end where none was seen.
        comm_seconds: What was fitted of the communication: seconds, or seconds per
            replica, or seconds on the most replicas timed for a law of two numbers;
            None where it was given or there was none.
        comm_terms: The same, number by number.
        overlap_exponent: q with its interval where the rows can tell, else the number
            that was given or taken.
        knee_seen: False where a straight line does as well.
        points: The rows fitted.
        rows: The same as arrays.
        law_fits: The law first, then those at other overlap exponents that the rows
            allow as well.
        basis: The communication law fitted.
        noise: Relative standard deviation of one row.
        degrees: Degrees of freedom of `noise`.
        median_relative_error: Median over rows of |law / timed - 1|.
        runners_up: Every law of communication tried, the best by AICc first.
        findings: What the table shows.
        warnings: What to know before use, one sentence each.
    """

    law: StepTimeLaw
    overhead_seconds: Interval
    seconds_per_example: Interval
    saturation_batch_size: Interval
    comm_seconds: Interval | None
    comm_terms: Mapping[str, Interval]
    overlap_exponent: Interval | float
    knee_seen: bool
    points: tuple[TimedStep, ...]
    rows: TimedRows
    law_fits: tuple[LawFit, ...]
    basis: Basis
    noise: float
    degrees: int
    median_relative_error: float
    runners_up: tuple[StepTimeRival, ...]
    findings: tuple[StepTimeFinding, ...]
    warnings: tuple[str, ...]

    @property
    def fitted_range(self) -> tuple[float, float]:
        """Smallest and largest local batch size timed."""
        return float(self.rows.local.min()), float(self.rows.local.max())

    def with_evaluation(self, evaluation: Evaluation | None) -> "StepTimeFit":
        """Return the fit with checks between steps, which no timed step holds.

        Args:
            evaluation: The checks; None for none.

        Returns:
            The same fit; its law and its draws count them.
        """
        return replace(self, law=replace(self.law, evaluation=evaluation))

    def draws(self, num: int = 1000, seed: int = 0) -> StepTimeDraws:
        """Return laws refitted to times drawn around this one (parametric bootstrap).

        The noise level is drawn too, from its scaled inverse chi-square: a few rows
        say little about it.

        Args:
            num: How many.
            seed: Same seed, same draws.

        Returns:
            The draws; knee and overlap are free only where they were seen.
        """
        generator = np.random.default_rng(seed)
        scale = redrawn_scales(generator, num, self.noise, max(self.degrees, 1))
        noise = scale * generator.standard_normal((len(self.points), num))
        # Some draws of a noise with one degree of freedom are absurd.
        ratios = np.exp(np.clip(noise, -2, 2))
        solved = [surface.best() for surface in self._surfaces(ratios)]
        place = np.argmin([squares for *_, squares in solved], axis=0)
        draw = np.arange(num)
        found = np.stack([one[0] for one in solved])[place, :, draw]
        exponents = np.array([fit.overlap_exponent for fit in self.law_fits])
        return StepTimeDraws(
            overhead_seconds=found[:, 0],
            seconds_per_example=found[:, 1],
            saturation_batch_size=np.stack([one[1] for one in solved])[place, draw],
            comm_coefficients=found[:, 2:],
            overlap_exponent=exponents[place],
            basis=self.basis,
            communication=NO_COMMUNICATION
            if self.basis.names
            else (self.law.communication),
            evaluation=self.law.evaluation,
        )

    def _surfaces(self, ratios: FloatArray) -> list[Surface]:
        law = np.array([point.fitted_seconds for point in self.points])
        knees = np.array([self.law.saturation_batch_size])
        if self.knee_seen:
            knees = np.append(knee_grid(self.rows.local, DRAWN_KNEES), knees)
        return [
            self.rows.surface(
                knees, law, ratios, None if fit.overlap_exponent == 1 else fit
            )
            for fit in self.law_fits
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form.

        Returns:
            Numbers, intervals and sentences by name. `overlap_exponent` is an interval
            where it was fitted, else a number, or the string ``"Infinity"`` where it
            was given as infinity: JSON has none, and ``float()`` reads the word.
        """
        comm = self.law.communication.to_dict()
        if self.comm_seconds is not None:
            comm["interval"] = self.comm_seconds.to_dict()
        if len(self.comm_terms) > 1:
            comm["intervals"] = {
                name: one.to_dict() for name, one in self.comm_terms.items()
            }
        evaluation = self.law.evaluation
        return {
            "overhead_seconds": self.overhead_seconds.to_dict(),
            "seconds_per_example": self.seconds_per_example.to_dict(),
            "saturation_batch_size": self.saturation_batch_size.to_dict(),
            "communication": comm,
            "overlap_exponent": self._overlap_form(),
            "evaluation": None if evaluation is None else evaluation.to_dict(),
            "knee_seen": self.knee_seen,
            "noise": self.noise,
            "median_relative_error": self.median_relative_error,
            "fitted_range": list(self.fitted_range),
            "runners_up": [one.to_dict() for one in self.runners_up],
            "findings": [one.to_dict() for one in self.findings],
            "warnings": list(self.warnings),
        }

    def _overlap_form(self) -> dict[str, Any] | float | str:
        exponent = self.overlap_exponent
        if isinstance(exponent, Interval):
            return exponent.to_dict()
        return "Infinity" if math.isinf(exponent) else exponent
