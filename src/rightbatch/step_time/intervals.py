"""Intervals of a fitted step-time law, from the profile of its sum of squares."""

from dataclasses import dataclass

import numpy as np

from rightbatch.fitting import FloatArray, Interval, half_width, profile_limits
from rightbatch.step_time.communication import Communication
from rightbatch.step_time.law import StepTimeLaw
from rightbatch.step_time.profile import LawFit, TimedRows, knee_grid
from rightbatch.step_time.selection import KNEES, NOISE_FLOOR, Candidate
from rightbatch.step_time.surface import Surface


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundLaw:
    """The best law on some rows, straight or with a knee.

    Args:
        chosen: The communication law chosen, the knee free.
        fit: The law to go on with.
        knee_seen: False where a straight line does as well.
    """

    chosen: Candidate
    fit: LawFit
    knee_seen: bool

    @property
    def rows(self) -> TimedRows:
        """The rows it was fitted to."""
        return self.chosen.rows

    @property
    def law(self) -> FloatArray:
        """Seconds per step of each row."""
        return self.rows.law(self.fit)

    @property
    def degrees(self) -> int:
        """Degrees of freedom left for the noise."""
        used = len(self.fit.coefficients) + self.knee_seen + self.chosen.overlaps
        return max(len(self.rows.local) - used, 0)

    @property
    def noise(self) -> float:
        """Relative standard deviation of a row, 2 % at least."""
        if not self.degrees:
            return NOISE_FLOOR
        return max((self.fit.squares / self.degrees) ** 0.5, NOISE_FLOOR)

    @property
    def median_relative_error(self) -> float:
        """Median over rows of |law / timed - 1|."""
        return float(np.median(np.abs(self.law / self.rows.seconds - 1)))

    def law_with(self, given: Communication | None) -> StepTimeLaw:
        """Return the law of step times.

        Args:
            given: Communication known beforehand; None for the one fitted.

        Returns:
            The law, without checks.
        """
        coefficients = self.fit.coefficients
        fitted = self.chosen.basis.communication(coefficients[2:])
        return StepTimeLaw(
            seconds_per_example=float(coefficients[1]),
            saturation_batch_size=self.fit.knee,
            overhead_seconds=float(coefficients[0]),
            communication=fitted if given is None else given,
            overlap_exponent=self.fit.overlap_exponent,
        )

    def coefficient(self, term: int, level: float, definition: str) -> Interval:
        """Return the interval of one coefficient, as `weighted` of a sum.

        Args:
            term: Which.
            level: Level of the interval.
            definition: What it is.

        Returns:
            Unbounded where no degrees of freedom are left.
        """
        weights = np.eye(len(self.fit.coefficients))[term]
        return self.weighted(weights, level, definition)

    def weighted(self, weights: FloatArray, level: float, definition: str) -> Interval:
        """Return the profile interval of a weighted sum of coefficients.

        Args:
            weights: Shape (terms,).
            level: Level of the interval.
            definition: What the sum is.

        Returns:
            Unbounded where no degrees of freedom are left.
        """
        value = float(weights @ self.fit.coefficients)
        low = high = None
        if self.degrees:
            grid = np.array([self.fit.knee])
            if len(np.unique(self.rows.local)) > 2:
                # A knee that was not seen may still be there: it widens the interval.
                grid = np.append(knee_grid(self.rows.local, KNEES), grid)
            threshold = self.threshold(level)
            ends = [one.span(weights, threshold) for one in self._surfaces(grid, level)]
            # Rounding of the sums of squares, where the law fits exactly.
            low = min(value, *(end[0] for end in ends))
            high = max(value, *(end[1] for end in ends))
        return Interval(
            value=value,
            low=low,
            high=high,
            level=level,
            unit="seconds",
            definition=definition,
        )

    def communication(self, replicas: FloatArray, level: float) -> Interval | None:
        """Return the interval of what was fitted of the communication.

        Args:
            replicas: Of each row.
            level: Level of the interval.

        Returns:
            None where nothing was; of a law of two numbers the seconds on the most
            replicas timed.
        """
        basis = self.chosen.basis
        said = f"communication, {basis.kind} in P"
        if not basis.names:
            return None
        if len(basis.names) == 1:
            return self.coefficient(2, level, said)
        most = float(replicas.max())
        weights = np.append([0.0, 0.0], basis.columns(most))
        return self.weighted(weights, level, f"{said}, on {most:g} replicas")

    def overlap(self, level: float) -> Interval | float:
        """Return the overlap exponent, with its interval where it was profiled.

        Args:
            level: Level of the interval.

        Returns:
            A number alone where it was given, or the rows cannot tell.
        """
        value = self.fit.overlap_exponent
        profile = self.chosen.profile
        if profile is None or not self.degrees:
            return value
        return profile.interval(value, self.threshold(level), level)

    def knee_interval(self, level: float) -> Interval:
        """Return the profile interval of the knee.

        Args:
            level: Level of the interval.

        Returns:
            No lower end where no knee was seen.
        """
        low = high = None
        if self.degrees and len(np.unique(self.rows.local)) > 2:
            grid = knee_grid(self.rows.local, KNEES)
            grid = np.unique(np.append(grid, self.fit.knee))
            tried = [one.solve()[1][:, 0] for one in self._surfaces(grid, level)]
            squares = np.min(tried, axis=0)
            low, high = profile_limits(grid, squares, self.threshold(level))
        return Interval(
            value=self.fit.knee,
            low=low if self.knee_seen else None,
            high=high,
            level=level,
            unit="examples",
            definition="local batch size up to which a step takes no longer",
        )

    def law_fits(self, level: float) -> tuple[LawFit, ...]:
        """Return the law, and those at other overlap exponents inside the interval.

        Args:
            level: Level of the interval.

        Returns:
            The law first; alone where nothing was profiled.
        """
        profile = self.chosen.profile
        if profile is None or not self.degrees:
            return (self.fit,)
        near = profile.inside(self.threshold(level))
        return (self.fit, *(fit for fit in near if fit is not self.chosen.fit))

    def _surfaces(self, knees: FloatArray, level: float) -> list[Surface]:
        # One for each overlap exponent the rows allow.
        surfaces: list[Surface] = []
        for fit in self.law_fits(level):
            law = self.rows.law(fit)
            ratios = 1 + np.log(self.rows.seconds / law)
            around = None if fit.overlap_exponent == 1 else fit
            surfaces.append(self.rows.surface(knees, law, ratios[:, None], around))
        return surfaces

    def threshold(self, level: float) -> float:
        """Return the sum of squares up to which laws fit as well.

        Args:
            level: Level of the intervals.

        Returns:
            The same for every interval.
        """
        quantile = half_width(self.degrees, level)
        return self.fit.squares + (quantile * self.noise) ** 2
