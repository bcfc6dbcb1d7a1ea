"""The least-squares surface of the three-term loss law, searched whole.

For fixed exponents (b, c) the law is linear in L_0, C_B and C_S, none of which may be
negative. Every choice of which are zero is tried, at all exponents (and for all
bootstrap draws) at once: exact, no starting points. The grid of exponents spans what
any loss could show, and is laid again, ever closer, around what the data allow.
"""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from rightbatch.fitting import FloatArray

# Below .05 a power cannot be told from a constant less a logarithm, above 4 not from a
# step.
EXPONENTS = (0.05, 4.0)
GRID_POINTS = 41
DRAW_POINTS = 21
_CHOICES = tuple(
    chosen for size in (1, 2, 3) for chosen in combinations(range(3), size)
)
# Keeps a term that copies another one invertible; in units of a term's own square.
_RIDGE = 1e-13
_ZOOMS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossRows:
    """Losses seen, with the weights of a fit.

    Residuals are relative: the noise of a loss is roughly a share of it. They are taken
    relative to a law, not to the losses seen, which would favour each row whose noise
    pulled it down.

    Args:
        batch_sizes: Shape (n,), examples.
        steps: Shape (n,).
        losses: Shape (n,), positive.
        scale: What a residual is a share of, shape (n,): the losses at first, then the
            law of the round before.
    """

    batch_sizes: FloatArray
    steps: FloatArray
    losses: FloatArray
    scale: FloatArray

    def relative_to(self, scale: FloatArray) -> "LossRows":
        """Return the rows with residuals relative to other losses, shape (n,)."""
        return LossRows(
            batch_sizes=self.batch_sizes,
            steps=self.steps,
            losses=self.losses,
            scale=scale,
        )

    def terms(self, batch: FloatArray, steps: FloatArray) -> FloatArray:
        """Return what the coefficients multiply, over the scale.

        Args:
            batch: Exponents b, shape (g,).
            steps: Exponents c, shape (g,).

        Returns:
            Shape (g, n, 3): one, B^-b, S^-c.
        """
        powers = (
            np.ones((len(batch), len(self.losses))),
            np.exp(-batch[:, None] * np.log(self.batch_sizes)),
            np.exp(-steps[:, None] * np.log(self.steps)),
        )
        return np.stack(powers, axis=-1) / self.scale[:, None]

    def surface(
        self,
        box: FloatArray,
        points: int = GRID_POINTS,
        losses: FloatArray | None = None,
    ) -> "LossSurface":
        """Return the surface on a geometric grid of exponents.

        Args:
            box: Least and largest b, least and largest c, shape (2, 2).
            points: Of the grid, each way.
            losses: Data sets to fit, shape (n, m); those seen by default.

        Returns:
            The surface.
        """
        axes = [np.geomspace(low, high, points) for low, high in box]
        batch, steps = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
        values = self.losses[:, None] if losses is None else losses
        return LossSurface(
            batch_exponents=batch,
            steps_exponents=steps,
            terms=self.terms(batch, steps),
            values=values / self.scale[:, None],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossSurface:
    """Sum of squares over exponents and data sets, coefficients at their best.

    Args:
        batch_exponents: b of each grid point, shape (g,).
        steps_exponents: c of each grid point, shape (g,).
        terms: Shape (g, n, 3).
        values: Shape (n, m): m data sets.
    """

    batch_exponents: FloatArray
    steps_exponents: FloatArray
    terms: FloatArray
    values: FloatArray
    _scale: FloatArray = field(init=False)
    _unit: FloatArray = field(init=False)
    _gram: FloatArray = field(init=False)
    _moment: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        scale = np.sqrt(np.square(self.terms).sum(axis=1))
        scale[scale == 0] = 1.0
        unit = self.terms / scale[:, None, :]
        turned = np.swapaxes(unit, 1, 2)
        object.__setattr__(self, "_scale", scale)
        object.__setattr__(self, "_unit", unit)
        object.__setattr__(self, "_gram", turned @ unit)
        object.__setattr__(self, "_moment", turned @ self.values)

    def solve(self) -> tuple[FloatArray, FloatArray]:
        """Return the best coefficients, none negative, and their sums of squares.

        Returns:
            Coefficients of shape (g, 3, m) and sums of squares of shape (g, m).
        """
        _, best, least = self._face((0, 1, 2))
        inside = np.asarray((best >= 0).all(axis=1))
        if not inside.all():
            least = np.where(inside, least, np.square(self.values).sum(0))
            best = np.where(inside[:, None], best, 0.0)
            for chosen in _CHOICES[:-1]:
                _, solved, squares = self._face(chosen)
                better = ~inside & (solved >= 0).all(1) & (squares < least)
                least = np.where(better, squares, least)
                best = np.where(better[:, None], 0.0, best)
                for place, term in enumerate(chosen):
                    best[:, term] = np.where(better, solved[:, place], best[:, term])
        return best / self._scale[:, :, None], np.maximum(least, 0.0)

    def limits(self, term: int, threshold: float) -> tuple[float, float]:
        """Return the range of one coefficient within a sum of squares.

        At each pair of exponents the region is an ellipsoid cut off where a coefficient
        would be negative; an extreme of it is an extreme of the ellipsoid on one of its
        faces.

        Args:
            term: 0 for L_0, 1 for C_B, 2 for C_S.
            threshold: Largest sum of squares inside; of the first data set.

        Returns:
            Smallest and largest value over all exponents; NaN where nothing is inside.
        """
        found = [np.empty(0)]
        for chosen in _CHOICES:
            inverse, solved, squares = self._face(chosen)
            solved, room = solved[:, :, 0], threshold - squares[:, 0]
            if term not in chosen:
                inside = (solved >= 0).all(1) & (room >= 0)
                found.append(np.zeros(int(inside.sum())))
                continue
            place = chosen.index(term)
            column = inverse[:, :, place]
            spread = np.sqrt(np.maximum(column[:, place], 1e-300))
            reach = (np.sqrt(np.maximum(room, 0)) / spread)[:, None] * column
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
        inverse = np.asarray(np.linalg.inv(ridged), dtype=np.float64)
        moment = self._moment[:, rows]
        solved = inverse @ moment
        if self.values.shape[1] > 1:
            solved += inverse @ (moment - gram @ solved)  # takes the ridge out again
            # True of any coefficients, so terms that copy each other cannot flatter.
            total = np.square(self.values).sum(0)
            fitted = (solved * (gram @ solved)).sum(1)
            return inverse, solved, total - 2 * (solved * moment).sum(1) + fitted
        # One data set is worth the last digits: residuals, no difference of squares.
        unit = self._unit[:, :, rows]
        for _ in range(2):
            residual = self.values - unit @ solved
            solved += inverse @ (np.swapaxes(unit, 1, 2) @ residual)
        return inverse, solved, np.square(self.values - unit @ solved).sum(1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Optimum:
    """The least sum of squares and where it lies.

    Args:
        exponents: b and c, shape (2,).
        coefficients: L_0, C_B, C_S, shape (3,).
        squares: Sum of squared relative residuals.
    """

    exponents: FloatArray
    coefficients: FloatArray
    squares: float


def best_of(surface: LossSurface) -> Optimum:
    """Return the best grid point of a surface's first data set."""
    coefficients, squares = surface.solve()
    place = int(squares[:, 0].argmin())
    return Optimum(
        exponents=np.array(
            [surface.batch_exponents[place], surface.steps_exponents[place]]
        ),
        coefficients=coefficients[place, :, 0],
        squares=float(squares[place, 0]),
    )


def whole_box() -> FloatArray:
    """Return the box of all exponents, shape (2, 2)."""
    return np.array([EXPONENTS, EXPONENTS])


def search(rows: LossRows) -> Optimum:
    """Return the least squares over all exponents, to about nine digits.

    Args:
        rows: What was seen.

    Returns:
        The minimum: of the whole grid, then of ever smaller grids that move with it.
    """
    best = best_of(rows.surface(whole_box()))
    reach = np.log(EXPONENTS[1] / EXPONENTS[0]) / (GRID_POINTS - 1) * np.ones(2)
    for _ in range(_ZOOMS):
        around = np.exp(np.log(best.exponents)[:, None] + reach[:, None] * [-1, 1])
        found = best_of(rows.surface(np.clip(around, *EXPONENTS), points=9))
        if found.squares < best.squares:
            # A narrow valley is followed at this size before the grid shrinks.
            moved = np.abs(np.log(found.exponents / best.exponents)) / reach
            best, reach = found, reach * np.where(moved > 0.7, 1.0, 0.5)
        else:
            reach = reach * 0.5
        if reach.max() < 1e-10:
            break
    return best


def region_box(rows: LossRows, best: Optimum, threshold: float) -> FloatArray:
    """Return the box of exponents within a sum of squares, shape (2, 2).

    Args:
        rows: What was seen.
        best: Its optimum.
        threshold: Largest sum of squares inside.

    Returns:
        A little more than the region, so that its ends can be interpolated.
    """
    box = whole_box()
    for _ in range(6):
        surface = rows.surface(box)
        inside = surface.solve()[1][:, 0] <= threshold
        closer = np.empty((2, 2))
        axes = (surface.batch_exponents, surface.steps_exponents)
        for i, exponents in enumerate(axes):
            step = (box[i, 1] / box[i, 0]) ** (1 / (GRID_POINTS - 1))
            kept = np.append(exponents[inside], best.exponents[i])
            closer[i] = kept.min() / step, kept.max() * step
        closer = np.clip(closer, *EXPONENTS)
        settled = np.log(closer[:, 1] / closer[:, 0]) > 0.6 * np.log(
            box[:, 1] / box[:, 0]
        )
        box = closer
        if settled.all():
            break
    return box
