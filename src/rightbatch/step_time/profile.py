"""The least-squares surface of a step-time law: the knee searched, the rest solved.

For a fixed knee the law is linear in overhead, time per example and communication,
none of which may be negative. With at most three terms every choice of which are zero
is tried, for all knees (and all bootstrap draws) at once: exact, and nothing iterates.
"""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from rightbatch.fitting import FloatArray

# Keeps a term that copies another one invertible; in units of a term's own square.
_RIDGE = 1e-13
_LOG_FIT_ROUNDS = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimedRows:
    """Timed steps as arrays of shape (rows,).

    Args:
        local: Local batch size, examples.
        seconds: Seconds per step.
        given: Communication seconds already known, not to be fitted.
        column: Shape (rows, 0 or 1): what a fitted communication time multiplies.
    """

    local: FloatArray
    seconds: FloatArray
    given: FloatArray
    column: FloatArray

    def terms(self, knees: FloatArray) -> FloatArray:
        """Return what the coefficients multiply.

        Args:
            knees: Shape (k,), local examples.

        Returns:
            Shape (k, rows, terms): one, max(local, knee), the communication column.
        """
        flat = np.maximum(self.local, knees[:, None])
        column = np.broadcast_to(self.column, (len(knees), *self.column.shape))
        return np.concatenate(
            [np.ones_like(flat)[..., None], flat[..., None], column], axis=-1
        )

    def law(self, coefficients: FloatArray, knee: float) -> FloatArray:
        """Return seconds per step, shape (rows,), never zero."""
        law = self.terms(np.array([knee]))[0] @ coefficients + self.given
        return np.maximum(law, 1e-3 * self.seconds)

    def surface(
        self, knees: FloatArray, law: FloatArray, ratios: FloatArray
    ) -> "Surface":
        """Return the least squares of relative residuals around a law.

        Args:
            knees: Shape (k,).
            law: Seconds around which residuals are taken as relative, shape (rows,).
            ratios: Times over `law`, shape (rows, n), one column per data set.

        Returns:
            The surface over knees and data sets.
        """
        given = (self.given / law)[:, None]
        return Surface(
            terms=self.terms(knees) / law[:, None], values=ratios - given, knees=knees
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surface:
    """Sum of squares over knees and data sets, other coefficients at their best.

    Args:
        terms: Shape (k, rows, terms).
        values: Shape (rows, n).
        knees: Shape (k,).
    """

    terms: FloatArray
    values: FloatArray
    knees: FloatArray
    _scale: FloatArray = field(init=False)
    _gram: FloatArray = field(init=False)
    _moment: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        scale = np.sqrt(np.square(self.terms).sum(axis=1))
        scale[scale == 0] = 1.0
        terms = np.swapaxes(self.terms / scale[:, None, :], 1, 2)
        object.__setattr__(self, "_scale", scale)
        object.__setattr__(self, "_gram", terms @ np.swapaxes(terms, 1, 2))
        object.__setattr__(self, "_moment", terms @ self.values)

    def solve(self) -> tuple[FloatArray, FloatArray]:
        """Return the best coefficients, none negative, and their sum of squares.

        Returns:
            Coefficients of shape (k, terms, n) and sums of squares of shape (k, n).
        """
        best = np.zeros_like(self._moment)
        total = (self.values**2).sum(0)
        least = np.broadcast_to(total, (len(self.knees), len(total))).copy()
        for chosen in _choices(best.shape[1]):
            _, solved, squares = self._face(chosen)
            better = (solved >= 0).all(1) & (squares < least)
            least = np.where(better, squares, least)
            best = np.where(better[:, None], 0.0, best)
            for place, term in enumerate(chosen):
                best[:, term] = np.where(better, solved[:, place], best[:, term])
        return best / self._scale[:, :, None], np.maximum(least, 0.0)

    def best(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return coefficients (terms, n), knees (n,) and sums of squares (n,)."""
        coefficients, squares = self.solve()
        place = squares.argmin(0)
        draw = np.arange(len(place))
        least: FloatArray = squares[place, draw]
        return coefficients[place, :, draw].T, self.knees[place], least

    def limits(self, term: int, threshold: float) -> tuple[float, float]:
        """Return the range of one coefficient within a sum of squares.

        For each knee the region is an ellipsoid cut off where a coefficient would be
        negative; an extreme of it is an extreme of the ellipsoid on one of its faces.

        Args:
            term: Which coefficient.
            threshold: Largest sum of squares inside; of the first data set.

        Returns:
            Smallest and largest value over all knees; NaN where nothing is inside.
        """
        found = [np.empty(0)]
        for chosen in _choices(self.terms.shape[2]):
            inverse, solved, squares = self._face(chosen)
            solved, room = solved[:, :, 0], threshold - squares[:, 0]
            if term not in chosen:
                inside = (solved >= 0).all(1) & (room >= 0)
                found.append(np.zeros(int(inside.sum())))
                continue
            place = chosen.index(term)
            column = inverse[:, :, place]
            reach = np.sqrt(np.maximum(room, 0) / column[:, place])[:, None] * column
            for corner in (solved - reach, solved + reach):
                inside = (corner >= 0).all(1) & (room >= 0)
                found.append((corner[:, place] / self._scale[:, term])[inside])
        values = np.concatenate(found)
        return (values.min(), values.max()) if len(values) else (np.nan, np.nan)

    def _face(
        self, chosen: tuple[int, ...]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        # The fit in which only the chosen coefficients may differ from zero.
        rows = list(chosen)
        gram = self._gram[:, rows][:, :, rows]
        ridged = gram + _RIDGE * np.eye(len(rows))
        inverse = np.asarray(np.linalg.inv(ridged), dtype=float)
        moment = self._moment[:, rows]
        solved = inverse @ moment
        solved += inverse @ (moment - gram @ solved)  # takes the ridge out again
        # True of any coefficients, so terms that copy each other cannot flatter.
        squares = (
            (self.values**2).sum(0)
            - 2 * (solved * moment).sum(1)
            + (solved * (gram @ solved)).sum(1)
        )
        return inverse, solved, squares


def _choices(num_terms: int) -> list[tuple[int, ...]]:
    return [
        chosen
        for size in range(1, num_terms + 1)
        for chosen in combinations(range(num_terms), size)
    ]


def knee_grid(local: FloatArray, num: int) -> FloatArray:
    """Return knees to try, from the smallest local batch to nearly the largest.

    Args:
        local: Local batch sizes timed.
        num: How many.

    Returns:
        Shape (num,), increasing; the first makes the law a straight line.
    """
    sizes = np.unique(local)
    # Past the last point there is no slope left to fit.
    last = sizes[-2] + 0.98 * (sizes[-1] - sizes[-2])
    grid = np.geomspace(sizes[0], last, num)
    grid[0] = sizes[0]
    return grid


def log_fit(rows: TimedRows, knees: FloatArray) -> tuple[FloatArray, float, float]:
    """Return the law with the least sum of squared residuals of ln(seconds).

    Linearised around the law of the round before (Gauss and Newton); the knee is first
    searched on the grid given, then ever closer around its best value.

    Args:
        rows: What was timed.
        knees: Grid of knees; a single one is held.

    Returns:
        Coefficients (terms,), the knee, and the sum of squares.
    """
    best = _log_fit_on(rows, knees, rows.seconds)
    step = 1.0 if len(knees) < 2 else (knees[-1] / knees[0]) ** (1 / (len(knees) - 1))
    while step > 1 + 1e-7:
        around = best[1] * step ** np.linspace(-1, 1, 33)
        around = np.clip(around, knees[0], knees[-1])
        found = _log_fit_on(rows, around, rows.law(best[0], best[1]))
        best = min(best, found, key=lambda one: one[2])
        step **= 1 / 12
    return best


def _log_fit_on(
    rows: TimedRows, knees: FloatArray, law: FloatArray
) -> tuple[FloatArray, float, float]:
    best = (np.empty(0), np.nan, np.inf)
    for _ in range(_LOG_FIT_ROUNDS):
        ratios = 1 + np.log(rows.seconds / law)
        coefficients, knee, _ = rows.surface(knees, law, ratios[:, None]).best()
        law = rows.law(coefficients[:, 0], float(knee[0]))
        squares = float((np.log(rows.seconds / law) ** 2).sum())
        settled = abs(squares - best[2]) <= 1e-10 * squares
        if squares < best[2]:
            best = (coefficients[:, 0], float(knee[0]), squares)
        if settled or squares >= best[2] * 1.5:
            break
    return best
