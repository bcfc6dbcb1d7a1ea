"""The overlap exponent of a table of step times, where the table can carry it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rightbatch.fitting import FloatArray, Interval, profile_limits
from rightbatch.step_time.law import overlapped
from rightbatch.step_time.profile import LawFit, TimedRows, knee_grid, law_fit, log_fit

# Tried as 1/q, on which the law depends evenly: from a sum to all but a maximum.
SHARES = (1.0, 0.75, 0.5, 0.33, 0.2, 0.05)
KNEES = 40
# Of the search for a start: sizes of communication, knees.
COARSE_SIZES, COARSE_KNEES = 16, 12
NOT_MUCH_WORSE = 2.0
# Squared standard errors, beyond any quantile of a table that can carry an exponent.
FAR_OUTSIDE = 40.0
LEAST_NOISE = 0.02
REFINEMENTS = 3
PRECISION = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverlapProfile:
    """The best law at each of several overlap exponents.

    Args:
        fits: By exponent, decreasing.
        longest: With the longest communication that fits about as well as any at full
            overlap, where no communication may fit as well; None where not searched.
    """

    fits: tuple[LawFit, ...]
    longest: LawFit | None = None

    @property
    def best(self) -> LawFit:
        """The law with the least sum of squares."""
        return min(self.fits, key=lambda fit: fit.squares)

    def inside(self, threshold: float) -> tuple[LawFit, ...]:
        """Return the laws within a sum of squares."""
        every = self.fits if self.longest is None else (*self.fits, self.longest)
        return tuple(fit for fit in every if fit.squares <= threshold)

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
        exponent: q; approached in steps from 1, where the law is linear, and from
            communication of several sizes.

    Returns:
        The law.
    """
    found = log_fit(rows, knees)
    if exponent == 1:
        return found
    for power in [1 / share for share in SHARES[1:] if 1 / share < exponent]:
        found = _next(rows, knees, found, power)
    starts = [found, *hidden_starts(rows, (exponent,))]
    ends = [_next(rows, knees, start, exponent) for start in starts]
    return log_fit(rows, knees, min(ends, key=lambda fit: fit.squares))


def can_carry(rows: TimedRows, num_replicas: FloatArray) -> bool:
    """Return True where rows are laid out so that they may tell an overlap.

    Only the layout counts: a fit without overlap makes hidden communication small, so
    its size there says nothing.

    Args:
        rows: What was timed.
        num_replicas: Of each row.

    Returns:
        True with two local batch sizes or more at one replica, which tell computing
        alone, and above that two numbers of replicas or more, at two local batch sizes
        or more, with some communication and rows to spare.
    """
    many = num_replicas > 1
    num_terms = 2 + rows.column.shape[1]
    return bool(
        (rows.column.shape[1] or rows.given.any())
        and len(np.unique(rows.local[~many])) > 1
        and len(np.unique(num_replicas[many])) > 1
        and len(np.unique(rows.local[many])) > 1
        and len(rows.local) > num_terms + 3
    )


def overlap_profile(rows: TimedRows, start: LawFit, least: float) -> OverlapProfile:
    """Return the best law at a few overlap exponents from 1 to 20.

    Two walks: from 1 up, and both ways from where larger communication, hidden, does
    best. The first alone stays where communication is small.

    Args:
        rows: What was timed.
        start: The best law without overlap.
        least: Least sum of squares of any law without overlap.

    Returns:
        The profile; exponents far from any that the rows allow are left out.
    """
    fits = {1.0: start}
    longest: LawFit | None = None
    knees = knee_grid(rows.local, KNEES)
    powers = [1 / share for share in SHARES[1:]]
    hidden = hidden_starts(rows, powers)
    if hidden:
        near = min(hidden, key=lambda fit: fit.squares)
        near = _next(rows, knees, near, near.overlap_exponent)
        _keep(fits, near)
        _walk(rows, fits, near, least, SHARES)
        _walk(rows, fits, near, least, SHARES[:0:-1])
    _walk(rows, fits, start, least, SHARES)
    # Where full overlap is not ruled out, how much could be hidden? Laws of one number
    # tell; those of two take long to search and say the same.
    if len(start.coefficients) == 3 and hidden and powers[-1] in fits:
        longest = _next(rows, knees, hidden[-1], powers[-1])
    order = sorted(fits, reverse=True)
    return OverlapProfile(fits=tuple(fits[power] for power in order), longest=longest)


def _walk(
    rows: TimedRows,
    fits: dict[float, LawFit],
    start: LawFit,
    least: float,
    shares: Sequence[float],
) -> None:
    # Along the shares beyond that of the start, in their order.
    knees = knee_grid(rows.local, KNEES)
    degrees = max(len(rows.local) - len(start.coefficients) - 2, 1)
    own = 1 / start.overlap_exponent
    falling = shares[0] > shares[-1]
    last = start
    for share in shares:
        if share >= own if falling else share <= own:
            continue
        lowest = min(least, *(fit.squares for fit in fits.values()))
        noise = max(lowest / degrees, LEAST_NOISE**2)
        # What no interval would hold need not be tried.
        if last.squares > lowest + FAR_OUTSIDE * noise:
            return
        if rows.parts(last)[1].any():
            last = _next(rows, knees, last, 1 / share)
        else:
            # Nothing to hide: no communication is the same at every exponent.
            last = replace(last, overlap_exponent=1 / share)
        _keep(fits, last)


def _keep(fits: dict[float, LawFit], fit: LawFit) -> None:
    before = fits.get(fit.overlap_exponent)
    if before is None or fit.squares < before.squares:
        fits[fit.overlap_exponent] = fit


def hidden_starts(rows: TimedRows, exponents: Sequence[float]) -> list[LawFit]:
    """Return a law to start from at each exponent, the best on a coarse grid, and one.

    For a given knee, and a given ratio of communicating to computing, the law is linear
    in the fixed cost and the time per example, so a whole grid of ratios costs little.

    Args:
        rows: What was timed.
        exponents: Each above 1.

    Returns:
        A law each, where communication is fitted; then, at the last exponent, that
        with the longest communication of those not much worse than the best. None
        where communication is given.
    """
    num_columns = rows.column.shape[1]
    if not num_columns:
        return []
    most = np.maximum(rows.column.max(axis=0), 1e-300)
    mixes = np.eye(num_columns)
    if num_columns > 1:
        mixes = np.append(mixes, np.full((1, num_columns), 1 / num_columns), axis=0)
    # Communication in units of the time of an example: below the smallest share it
    # hides whatever its size.
    smallest, largest = rows.local.min(), rows.local.max()
    sizes = np.geomspace(smallest / 4, largest, COARSE_SIZES)
    ratios = (sizes[:, None, None] * mixes / most).reshape(-1, num_columns)
    knees = knee_grid(rows.local, COARSE_KNEES)
    compute = np.maximum(rows.local, knees[:, None])[:, None]
    comm = ratios @ rows.column.T
    starts = [
        _coarse_fits(rows, knees, ratios, overlapped(compute, comm, power), power)
        for power in exponents
    ]
    return [*(best for best, _ in starts), starts[-1][1]]


def _coarse_fits(
    rows: TimedRows,
    knees: FloatArray,
    ratios: FloatArray,
    both: FloatArray,
    exponent: float,
) -> tuple[LawFit, LawFit]:
    # Two unknowns of relative residuals, neither negative, solved for all at once.
    both, fixed = both / rows.seconds, 1 / rows.seconds
    square, cross, along = (both**2).sum(-1), both @ fixed, both.sum(-1)
    own, ahead = fixed @ fixed, fixed.sum()
    determinant = np.maximum(square * own - cross**2, 1e-12 * square * own)
    overhead = (ahead * square - along * cross) / determinant
    slope = np.where(
        overhead > 0, (along * own - ahead * cross) / determinant, along / square
    )
    overhead = np.maximum(overhead, 0.0)
    squares = len(rows.seconds) - slope * along - overhead * ahead
    squares = np.where(slope > 0, squares, np.inf)

    def fit_of(knee: int, place: int) -> LawFit:
        rate = slope[knee, place]
        head = np.array([overhead[knee, place], rate])
        return LawFit(
            coefficients=np.concatenate([head, rate * ratios[place]]),
            knee=float(knees[knee]),
            squares=float(squares[knee, place]),
            overlap_exponent=exponent,
        )

    # The grid is coarse: what lies between its points may fit far better.
    lowest = squares.min(axis=0)
    near = np.flatnonzero(lowest <= NOT_MUCH_WORSE * lowest.min())
    best, longest = int(lowest.argmin()), int(near[-1])
    return (
        fit_of(int(squares[:, best].argmin()), best),
        fit_of(int(squares[:, longest].argmin()), longest),
    )


def refined(rows: TimedRows, profile: OverlapProfile) -> OverlapProfile:
    """Return a profile that is finer around its best exponent.

    Args:
        rows: What was timed.
        profile: A profile of these rows.

    Returns:
        The profile, a few exponents richer, its best law searched closely.
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
    place = int(np.argmin([fit.squares for fit in fits]))
    if fits[place].overlap_exponent > 1:
        fits[place] = log_fit(rows, knees, fits[place])
    return replace(profile, fits=tuple(fits))


def _next(rows: TimedRows, knees: FloatArray, near: LawFit, exponent: float) -> LawFit:
    knee = float(knees[0]) if len(knees) == 1 else near.knee
    start = law_fit(rows, replace(near, knee=knee, overlap_exponent=exponent))
    return log_fit(rows, knees, start, PRECISION)
