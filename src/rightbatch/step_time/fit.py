"""Fits of the step-time law to timed steps, with intervals and plain warnings."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc, stdtrit

from rightbatch._checks import positive_array
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, Interval, corrected_aic, profile_limits
from rightbatch.step_time.communication import (
    NO_COMMUNICATION,
    Communication,
    ConstantCommunication,
    LinearCommunication,
)
from rightbatch.step_time.fitted import StepTimeFit, TimedStep
from rightbatch.step_time.law import StepTimeLaw, checked_lengths, two_or_more
from rightbatch.step_time.profile import Surface, TimedRows, knee_grid, log_fit

# Medians of a few repeats on a shared machine agree to about this, whatever the
# residuals of a handful of rows happen to say.
NOISE_FLOOR = 0.02
# Strict, because the place of the knee is searched for, which flatters the test.
KNEE_P_VALUE = 0.01
KNEES = 400
FEW_ROWS = 6
LARGE_ERROR = 0.10


def fit_step_time(
    batch_sizes: ArrayLike,
    seconds: ArrayLike,
    num_replicas: ArrayLike | None = None,
    communication: Communication = NO_COMMUNICATION,
    level: float = 0.9,
) -> StepTimeFit:
    r"""Return the step-time law fitted to timed steps.

    Least squares of the residuals of ln T, knee and signs included: overhead, time per
    example and communication are never negative. The noise comes from the residuals,
    2 % at least. Intervals are profile intervals with t quantiles. The knee is kept
    where an F-test (p < .01) and AICc prefer it to a straight line.

    Args:
        batch_sizes: Global batch size of each row, shape (rows,); repeats are welcome.
        seconds: Seconds per step of each row.
        num_replicas: Replicas of each row; 1 throughout if not given.
        communication: Communication time known beforehand: it is subtracted. Where
            none is given and some rows have more than one replica, it is fitted: none,
            constant or linear in P, whichever AICc prefers.
        level: Level of the intervals.

    Returns:
        The fit.

    Raises:
        InputError: A value is not positive, a list has another length than the others,
            there are fewer than two local batch sizes, or a row has more replicas than
            examples.

    Example:
        >>> sizes = [1, 4, 16, 64, 256, 1024]
        >>> fit = fit_step_time(sizes, [212e-6 + 0.65e-6 * size for size in sizes])
        >>> print(fit.overhead_seconds)
        0.000212 seconds (0.000205 to 0.000217, 90 %)
        >>> fit.knee_seen
        False
    """
    sizes, times, replicas = _checked(batch_sizes, seconds, num_replicas)
    rows, kind = _with_communication(sizes, times, replicas, communication)
    found = _search(rows)
    law = StepTimeLaw(
        seconds_per_example=float(found.coefficients[1]),
        saturation_batch_size=found.knee,
        overhead_seconds=float(found.coefficients[0]),
        communication=_communication(kind, found.coefficients, communication),
    )
    overhead = found.coefficient(0, level, "seconds", "fixed cost of a step")
    slope = found.coefficient(1, level, "seconds", "time of one more local example")
    comm = None
    if rows.column.shape[1]:
        comm = found.coefficient(2, level, "seconds", f"communication, {kind} in P")
    return StepTimeFit(
        law=law,
        overhead_seconds=overhead,
        seconds_per_example=slope,
        saturation_batch_size=found.knee_interval(level),
        comm_seconds=comm,
        knee_seen=found.knee_seen,
        points=_points(sizes, replicas, found),
        rows=rows,
        noise=found.noise,
        degrees=found.degrees,
        median_relative_error=found.median_relative_error,
        warnings=tuple(_warnings(found, slope, replicas, kind)),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """The best law on some rows, straight or with a knee."""

    rows: TimedRows
    coefficients: FloatArray
    knee: float
    squares: float
    knee_seen: bool

    @property
    def law(self) -> FloatArray:
        return self.rows.law(self.coefficients, self.knee)

    @property
    def degrees(self) -> int:
        used = len(self.coefficients) + self.knee_seen
        return max(len(self.rows.local) - used, 0)

    @property
    def noise(self) -> float:
        if not self.degrees:
            return NOISE_FLOOR
        return max((self.squares / self.degrees) ** 0.5, NOISE_FLOOR)

    @property
    def median_relative_error(self) -> float:
        return float(np.median(np.abs(self.law / self.rows.seconds - 1)))

    def coefficient(
        self, term: int, level: float, unit: str, definition: str
    ) -> Interval:
        value = float(self.coefficients[term])
        low = high = None
        if self.degrees:
            grid = np.array([self.knee])
            if len(np.unique(self.rows.local)) > 2:
                # A knee that was not seen may still be there: it widens the interval.
                grid = np.append(knee_grid(self.rows.local, KNEES), grid)
            low, high = self._surface(grid).limits(term, self._threshold(level))
            # Rounding of the sums of squares, where the law fits exactly.
            low, high = min(low, value), max(high, value)
        return Interval(
            value=value,
            low=low,
            high=high,
            level=level,
            unit=unit,
            definition=definition,
        )

    def knee_interval(self, level: float) -> Interval:
        low = high = None
        if self.degrees and len(np.unique(self.rows.local)) > 2:
            grid = np.unique(np.append(knee_grid(self.rows.local, KNEES), self.knee))
            _, squares = self._surface(grid).solve()
            low, high = profile_limits(grid, squares[:, 0], self._threshold(level))
        return Interval(
            value=self.knee,
            low=low if self.knee_seen else None,
            high=high,
            level=level,
            unit="examples",
            definition="local batch size up to which a step takes no longer",
        )

    def _surface(self, knees: FloatArray) -> Surface:
        law = self.law
        ratios = 1 + np.log(self.rows.seconds / law)
        return self.rows.surface(knees, law, ratios[:, None])

    def _threshold(self, level: float) -> float:
        quantile = float(stdtrit(self.degrees, (1 + level) / 2))
        return self.squares + (quantile * self.noise) ** 2


def _points(
    sizes: FloatArray, replicas: FloatArray, found: _Found
) -> tuple[TimedStep, ...]:
    columns = (sizes, replicas, found.rows.seconds, found.law)
    return tuple(
        TimedStep(batch_size=b, num_replicas=int(p), seconds=t, fitted_seconds=f)
        for b, p, t, f in zip(*(one.tolist() for one in columns), strict=True)
    )


def _checked(
    batch_sizes: ArrayLike, seconds: ArrayLike, num_replicas: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    who = "fit_step_time"
    sizes = positive_array(who, "batch_sizes", batch_sizes)
    times = positive_array(who, "seconds", seconds)
    checked_lengths(who, sizes, "seconds", times)
    replicas = np.ones_like(sizes)
    if num_replicas is not None:
        replicas = positive_array(who, "num_replicas", num_replicas)
        checked_lengths(who, sizes, "num_replicas", replicas)
    odd = np.flatnonzero((replicas % 1 != 0) | (replicas > sizes))
    if odd.size:
        place = int(odd[0])
        raise InputError(
            f"{who}: `num_replicas` must be whole numbers, none above its batch size, "
            f"got {replicas[place]:g} for {sizes[place]:g} at {place}."
        )
    two_or_more(who, sizes / replicas)
    return sizes, times, replicas


def _with_communication(
    sizes: FloatArray, times: FloatArray, replicas: FloatArray, given: Communication
) -> tuple[TimedRows, str]:
    # Rows with the communication term the times prefer, and its kind.
    def rows_with(column: NDArray[Any]) -> TimedRows:
        known = np.asarray(given.comm_seconds(replicas), dtype=float)
        return TimedRows(
            local=sizes / replicas, seconds=times, given=known, column=column
        )

    best, kind = rows_with(np.empty((len(sizes), 0))), given.kind
    many = replicas > 1
    if given.kind != "none" or not many.any():
        return best, kind
    columns = {"constant": many * 1.0, "linear": many * replicas}
    least = _score(best)
    for name, column in columns.items():
        rows = rows_with(column[:, None])
        score = _score(rows)
        # As good is not better: with one number of replicas the two are the same.
        if score < least - 1e-6:
            best, kind, least = rows, name, score
    return best, kind


def _score(rows: TimedRows) -> float:
    terms = rows.terms(rows.local.min(keepdims=True))[0]
    num_rows, num_terms = terms.shape
    if np.linalg.matrix_rank(terms / np.abs(terms).max(0)) < num_terms:
        return np.inf
    chi2 = log_fit(rows, knee_grid(rows.local, KNEES))[2] / NOISE_FLOOR**2
    # AICc needs more rows than it has parameters; AIC with the noise known does not.
    if num_rows <= FEW_ROWS:
        return chi2 + 2 * num_terms
    return corrected_aic(chi2, num_rows, num_terms + 1)


def _communication(
    kind: str, coefficients: FloatArray, given: Communication
) -> Communication:
    if len(coefficients) < 3:
        return given
    if kind == "constant":
        return ConstantCommunication(seconds=float(coefficients[2]))
    return LinearCommunication(seconds_per_replica=float(coefficients[2]))


def _search(rows: TimedRows) -> _Found:
    grid = knee_grid(rows.local, KNEES)
    line, bent = log_fit(rows, grid[:1]), log_fit(rows, grid)
    seen = _knee_is_seen(rows, line[2], bent[2])
    coefficients, knee, squares = bent if seen else line
    return _Found(
        rows=rows,
        coefficients=coefficients,
        knee=knee,
        squares=squares,
        knee_seen=seen,
    )


def _knee_is_seen(rows: TimedRows, line: float, bent: float) -> bool:
    num_rows, used = len(rows.local), 3 + rows.column.shape[1]
    degrees = num_rows - used
    if degrees < 1 or len(np.unique(rows.local)) < 4:
        return False
    ratio = (line - bent) / max(bent / degrees, NOISE_FLOOR**2)
    if float(fdtrc(1, degrees, max(ratio, 0.0))) >= KNEE_P_VALUE:
        return False
    scale = NOISE_FLOOR**2
    with_knee = corrected_aic(bent / scale, num_rows, used)
    # With too few rows for AICc the F-test, strict by then, decides alone.
    return not with_knee < np.inf or with_knee < corrected_aic(
        line / scale, num_rows, used - 1
    )


def _warnings(
    found: _Found, slope: Interval, replicas: FloatArray, kind: str
) -> list[str]:
    sizes = np.unique(found.rows.local)
    low, high = sizes[0], sizes[-1]
    said: list[str] = []
    if not found.degrees:
        said.append(
            f"{len(found.law)} rows for {len(found.coefficients)} unknowns: the line "
            "goes through them exactly, so its intervals are unbounded; time more "
            "batch sizes."
        )
    if not found.knee_seen:
        said.append(
            f"No knee seen: a straight line fits the step times as well, from {low:g} "
            "local examples on; where time stops falling below that is not known."
        )
    if not slope.value or slope.low == 0:
        said.append(
            f"Not sure that a step takes longer at {high:g} local examples than at "
            f"{low:g}: time larger batches, or the plan will ask for the largest."
        )
    if found.median_relative_error > LARGE_ERROR:
        said.append(
            f"The step-time law misses the times by {found.median_relative_error:.0%} "
            "(median): real times jump; trust the plan made with the measured times."
        )
    if replicas.max() > 1:
        said.extend(_communication_warnings(found, replicas, kind))
    return said


def _communication_warnings(
    found: _Found, replicas: FloatArray, kind: str
) -> list[str]:
    said: list[str] = []
    fitted = found.rows.column.shape[1] > 0
    if replicas.min() > 1 and (fitted or kind == "none"):
        said.append(
            "No times at one replica: overhead and communication cannot be told apart "
            "safely; time one replica too."
        )
    if fitted and len(np.unique(replicas[replicas > 1])) < 2:
        said.append(
            f"Only {replicas.max():g} replicas timed beside one: how communication "
            "grows with their number is not known; taken as constant."
        )
    if np.any(found.rows.given >= found.rows.seconds):
        said.append(
            "The communication time given is longer than whole steps that were timed."
        )
    return said
