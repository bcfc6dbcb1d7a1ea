"""The overlap exponent of a table of step times, where the table can carry it."""

from dataclasses import dataclass, replace

import numpy as np

from rightbatch.fitting import FloatArray, Interval, profile_limits
from rightbatch.step_time.profile import LawFit, TimedRows, knee_grid, law_fit, log_fit

# Tried as 1/q, on which the law depends evenly: from a sum to all but a maximum.
SHARES = (1.0, 0.75, 0.5, 0.33, 0.2, 0.05)
KNEES = 60
# Communication between these multiples of computing can be seen to hide or not.
COMPARABLE = (0.2, 5.0)
COMPARABLE_ROWS = 4
# Squared standard errors, beyond any quantile of a table that can carry an exponent.
FAR_OUTSIDE = 40.0
LEAST_NOISE = 0.02
REFINEMENTS = 3
PRECISION = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverlapProfile:
    """The best law at each of several overlap exponents.

    Args:
        fits: By exponent, decreasing.
    """

    fits: tuple[LawFit, ...]

    @property
    def best(self) -> LawFit:
        """The law with the least sum of squares."""
        return min(self.fits, key=lambda fit: fit.squares)

    def inside(self, threshold: float) -> tuple[LawFit, ...]:
        """Return the laws within a sum of squares."""
        return tuple(fit for fit in self.fits if fit.squares <= threshold)

    def interval(self, value: float, threshold: float, level: float) -> Interval:
        """Return the profile interval of the exponent.

        Args:
            value: The exponent kept.
            threshold: Largest sum of squares inside.
            level: Level of the interval.

        Returns:
            Its lower end is 1 at least; no upper end where a maximum does as well.
        """
        shares = np.array([1 / fit.overlap_exponent for fit in self.fits])
        squares = np.array([fit.squares for fit in self.fits])
        low, high = profile_limits(shares, squares, threshold)
        return Interval(
            value=value,
            low=1.0 if high is None else min(1 / high, value),
            high=None if low is None else max(1 / low, value),
            level=level,
            definition="overlap of computing and communicating: 1 none, infinity full",
        )


def fit_at(rows: TimedRows, knees: FloatArray, exponent: float) -> LawFit:
    """Return the best law at a given overlap exponent.

    Args:
        rows: What was timed.
        knees: Grid of knees.
        exponent: q; approached in steps from 1, where the law is linear.

    Returns:
        The law.
    """
    found = log_fit(rows, knees)
    path = [1 / share for share in SHARES[1:] if 1 / share < exponent]
    for power in [*path, exponent] if exponent > 1 else []:
        found = _next(rows, knees, found, power)
    return found if exponent == 1 else log_fit(rows, knees, found)


def can_carry(rows: TimedRows, num_replicas: FloatArray, fit: LawFit) -> bool:
    """Return True where rows can tell how much of the communication is hidden.

    Args:
        rows: What was timed.
        num_replicas: Of each row.
        fit: The law without overlap.

    Returns:
        True with two local batch sizes or more at one replica, which tell computing
        alone, and above that two numbers of replicas or more, at two local batch sizes
        or more, with communication comparable to computing in four rows or more.
    """
    many = num_replicas > 1
    compute, comm = rows.parts(fit)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(compute > 0, comm / compute, 0.0)[many]
    comparable = (ratio >= COMPARABLE[0]) & (ratio <= COMPARABLE[1])
    return bool(
        len(np.unique(rows.local[~many])) > 1
        and len(np.unique(num_replicas[many])) > 1
        and len(np.unique(rows.local[many])) > 1
        and comparable.sum() >= COMPARABLE_ROWS
        and len(rows.local) > len(fit.coefficients) + 3
    )


def overlap_profile(rows: TimedRows, start: LawFit) -> OverlapProfile:
    """Return the best law at a few overlap exponents from 1 to 20.

    Args:
        rows: What was timed.
        start: The best law without overlap.

    Returns:
        The profile.
    """
    knees = knee_grid(rows.local, KNEES)
    fits = [start]
    degrees = max(len(rows.local) - len(start.coefficients) - 2, 1)
    for share in SHARES[1:]:
        least = min(fit.squares for fit in fits)
        noise = max(least / degrees, LEAST_NOISE**2)
        # More overlap than one that no interval would hold need not be tried.
        if fits[-1].squares > least + FAR_OUTSIDE * noise:
            break
        fits.append(_next(rows, knees, fits[-1], 1 / share))
    return OverlapProfile(fits=tuple(reversed(fits)))


def refined(rows: TimedRows, profile: OverlapProfile) -> OverlapProfile:
    """Return a profile that is finer around its best exponent.

    Args:
        rows: What was timed.
        profile: A profile of these rows.

    Returns:
        The profile, a few exponents richer.
    """
    knees = knee_grid(rows.local, KNEES)
    fits = list(profile.fits)
    for _ in range(REFINEMENTS):
        place = int(np.argmin([fit.squares for fit in fits]))
        shares = [1 / fit.overlap_exponent for fit in fits]
        ends = shares[max(place - 1, 0)], shares[min(place + 1, len(fits) - 1)]
        middles = [(shares[place] + end) / 2 for end in ends if end != shares[place]]
        fits += [_next(rows, knees, fits[place], 1 / share) for share in middles]
        fits.sort(key=lambda fit: -fit.overlap_exponent)
    return OverlapProfile(fits=tuple(fits))


def _next(rows: TimedRows, knees: FloatArray, near: LawFit, exponent: float) -> LawFit:
    knee = float(knees[0]) if len(knees) == 1 else near.knee
    start = law_fit(rows, replace(near, knee=knee, overlap_exponent=exponent))
    return log_fit(rows, knees, start, PRECISION)
