"""Least squares without negative terms, for many designs and data sets at once.

With at most four terms every choice of which are zero is tried, for all knees (and all
bootstrap draws) at once: exact, and nothing iterates.
"""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rightbatch.fitting import FloatArray

# Keeps a term that copies another one invertible; in units of a term's own square.
_RIDGE = 1e-13
# A coefficient this small may be zero but for rounding; in the same units.
_ZERO = 1e-12


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
        everything = tuple(range(self.terms.shape[2]))
        _, best, least = self._face(everything)
        # Where the free fit has no negative term, no other choice can be better.
        left = np.flatnonzero((best < _ZERO).any((1, 2)))
        if left.size:
            best[left], least[left] = self._solve_at(left)
        return best / self._scale[:, :, None], np.maximum(least, 0.0)

    def _solve_at(self, knees: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
        best = np.zeros_like(self._moment[knees])
        total = (self.values**2).sum(0)
        least = np.broadcast_to(total, (len(knees), len(total))).copy()
        for chosen in _choices(best.shape[1]):
            _, solved, squares = self._face(chosen, knees)
            better = (solved >= 0).all(1) & (squares < least)
            least = np.where(better, squares, least)
            best = np.where(better[:, None], 0.0, best)
            for place, term in enumerate(chosen):
                best[:, term] = np.where(better, solved[:, place], best[:, term])
        return best, least

    def best(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return coefficients (terms, n), knees (n,) and sums of squares (n,)."""
        coefficients, squares = self.solve()
        place = squares.argmin(0)
        draw = np.arange(len(place))
        least: FloatArray = squares[place, draw]
        return coefficients[place, :, draw].T, self.knees[place], least

    def limits(self, term: int, threshold: float) -> tuple[float, float]:
        """Return the range of one coefficient within a sum of squares.

        Args:
            term: Which coefficient.
            threshold: Largest sum of squares inside; of the first data set.

        Returns:
            Smallest and largest value over all knees; NaN where nothing is inside.
        """
        return self.span(np.eye(self.terms.shape[2])[term], threshold)

    def span(self, weights: FloatArray, threshold: float) -> tuple[float, float]:
        """Return the range of a weighted sum of coefficients, as `limits` of one.

        For each knee the region is an ellipsoid cut off where a coefficient would be
        negative; an extreme of it is an extreme of the ellipsoid on one of its faces.

        Args:
            weights: Shape (terms,).
            threshold: Largest sum of squares inside; of the first data set.

        Returns:
            Smallest and largest value over all knees; NaN where nothing is inside.
        """
        found = [np.empty(0)]
        for chosen in _choices(self.terms.shape[2]):
            inverse, solved, squares = self._face(chosen)
            solved, room = solved[:, :, 0], threshold - squares[:, 0]
            # Coefficients here are in units of their columns' lengths.
            each = weights[list(chosen)] / self._scale[:, list(chosen)]
            if not each.any():
                inside = (solved >= 0).all(1) & (room >= 0)
                found.append(np.zeros(int(inside.sum())))
                continue
            toward = (inverse @ each[:, :, None])[:, :, 0]
            length = np.maximum((each * toward).sum(1), 1e-300)
            reach = np.sqrt(np.maximum(room, 0) / length)[:, None] * toward
            for corner in (solved - reach, solved + reach):
                inside = (corner >= 0).all(1) & (room >= 0)
                found.append((each * corner).sum(1)[inside])
        values = np.concatenate(found)
        return (values.min(), values.max()) if len(values) else (np.nan, np.nan)

    def _face(
        self, chosen: tuple[int, ...], knees: NDArray[np.intp] | slice = slice(None)
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        # The fit in which only the chosen coefficients may differ from zero.
        rows = list(chosen)
        gram = self._gram[knees][:, rows][:, :, rows]
        ridged = gram + _RIDGE * np.eye(len(rows))
        inverse = np.asarray(np.linalg.inv(ridged), dtype=float)
        moment = self._moment[knees][:, rows]
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
