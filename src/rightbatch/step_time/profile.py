"""The law of least squares on timed steps: the knee searched, the rest solved.

For a fixed knee the law is linear in overhead, time per example and communication.
With an overlap exponent the law is no longer linear, but it is homogeneous in the
times of computing and communicating, so its linearisation around any law has no
constant term: the same terms, each multiplied by its pace.
"""

from dataclasses import dataclass, replace

import numpy as np

from rightbatch.fitting import FloatArray
from rightbatch.step_time.law import overlapped
from rightbatch.step_time.surface import Surface

_LOG_FIT_ROUNDS = 12
_HALVINGS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimedRows:
    """Timed steps as arrays of shape (rows,).

    Args:
        local: Local batch size, examples.
        seconds: Seconds per step.
        given: Communication seconds already known, not to be fitted.
        column: Shape (rows, 0, 1 or 2): what fitted communication times multiply.
    """

    local: FloatArray
    seconds: FloatArray
    given: FloatArray
    column: FloatArray

    def terms(self, knees: FloatArray) -> FloatArray:
        """Return what the coefficients multiply where nothing overlaps.

        Args:
            knees: Shape (k,), local examples.

        Returns:
            Shape (k, rows, terms): one, max(local, knee), the communication columns.
        """
        flat = np.maximum(self.local, knees[:, None])
        column = np.broadcast_to(self.column, (len(knees), *self.column.shape))
        return np.concatenate(
            [np.ones_like(flat)[..., None], flat[..., None], column], axis=-1
        )

    def law(self, fit: "LawFit") -> FloatArray:
        """Return seconds per step of a law, shape (rows,), never zero."""
        compute, comm = self.parts(fit)
        law = fit.coefficients[0] + overlapped(compute, comm, fit.overlap_exponent)
        return np.maximum(law, 1e-3 * self.seconds)

    def parts(self, fit: "LawFit") -> tuple[FloatArray, FloatArray]:
        """Return seconds of computing past the fixed cost, and of communicating."""
        compute = fit.coefficients[1] * np.maximum(self.local, fit.knee)
        return compute, self.given + self.column @ fit.coefficients[2:]

    def paces(self, fit: "LawFit") -> tuple[FloatArray, FloatArray]:
        """Return how a step follows its computing and its communicating.

        Args:
            fit: The law around which.

        Returns:
            Derivatives of the joint time by either, shape (rows,) each; ones where
            nothing overlaps.
        """
        compute, comm = self.parts(fit)
        power = fit.overlap_exponent - 1
        both = np.maximum(overlapped(compute, comm, fit.overlap_exponent), 1e-300)
        return (compute / both) ** power, (comm / both) ** power

    def surface(
        self,
        knees: FloatArray,
        law: FloatArray,
        ratios: FloatArray,
        around: "LawFit | None" = None,
    ) -> Surface:
        """Return the least squares of relative residuals around a law.

        Args:
            knees: Shape (k,).
            law: Seconds around which residuals are taken as relative, shape (rows,).
            ratios: Times over `law`, shape (rows, n), one column per data set.
            around: Where the overlap is linearised; None where nothing overlaps.

        Returns:
            The surface over knees and data sets.
        """
        given, terms = self.given, self.terms(knees)
        if around is not None:
            compute, comm = self.paces(around)
            given = given * comm
            terms[:, :, 1] *= compute
            terms[:, :, 2:] *= comm[:, None]
        return Surface(
            terms=terms / law[:, None],
            values=ratios - (given / law)[:, None],
            knees=knees,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LawFit:
    """The law with the least sum of squared residuals of ln(seconds).

    Args:
        coefficients: Overhead, time per example, communication; shape (terms,).
        knee: Local batch size.
        squares: Sum of squares.
        overlap_exponent: The exponent it was fitted at.
    """

    coefficients: FloatArray
    knee: float
    squares: float = np.inf
    overlap_exponent: float = 1.0


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


def log_fit(
    rows: TimedRows,
    knees: FloatArray,
    start: LawFit | None = None,
    precision: float = 1e-7,
) -> LawFit:
    """Return the law with the least sum of squared residuals of ln(seconds).

    Linearised around the law of the round before (Gauss and Newton); the knee is first
    searched on the grid given, then ever closer around its best value.

    Args:
        rows: What was timed.
        knees: Grid of knees; a single one is held.
        start: A law near the one sought, with the overlap exponent to be used; None
            where nothing overlaps.
        precision: Of the knee, relative.

    Returns:
        The law.
    """
    same = 1e-3 * precision
    best = _log_fit_on(rows, knees, start, same)
    step = 1.0 if len(knees) < 2 else (knees[-1] / knees[0]) ** (1 / (len(knees) - 1))
    while step > 1 + precision:
        around = best.knee * step ** np.linspace(-1, 1, 33)
        around = np.clip(around, knees[0], knees[-1])
        found = _log_fit_on(rows, around, best, same)
        best = min(best, found, key=lambda one: one.squares)
        step **= 1 / 12
    return best


def _log_fit_on(
    rows: TimedRows, knees: FloatArray, start: LawFit | None, same: float
) -> LawFit:
    exponent = 1.0 if start is None else start.overlap_exponent
    overlaps = exponent != 1
    # Without a law to start from residuals are relative to the times themselves.
    law = rows.seconds if start is None else rows.law(start)
    best = start if overlaps else None
    around = start if overlaps else None
    for _ in range(_LOG_FIT_ROUNDS):
        ratios = 1 + np.log(rows.seconds / law)
        solved, knee, _ = rows.surface(knees, law, ratios[:, None], around).best()
        found = LawFit(
            coefficients=solved[:, 0], knee=float(knee[0]), overlap_exponent=exponent
        )
        found = law_fit(rows, found)
        if overlaps and around is not None:
            found = _shortened(rows, around, found)
        law = rows.law(found)
        last = np.inf if best is None else best.squares
        settled = abs(found.squares - last) <= same * found.squares
        if best is None or found.squares < best.squares:
            best = found
        if settled or found.squares >= best.squares * 1.5:
            break
        around = found if overlaps else None
    assert best is not None
    return best


def law_fit(rows: TimedRows, fit: LawFit) -> LawFit:
    """Return a law with its sum of squares on some rows.

    Args:
        rows: What was timed.
        fit: The law; its own sum of squares is not looked at.

    Returns:
        The same law.
    """
    squares = float((np.log(rows.seconds / rows.law(fit)) ** 2).sum())
    return replace(fit, squares=squares)


def _shortened(rows: TimedRows, before: LawFit, found: LawFit) -> LawFit:
    # A strong overlap bends so sharply that a full step may go too far.
    for _ in range(_HALVINGS):
        if found.squares <= before.squares:
            break
        shorter = replace(
            found,
            coefficients=(before.coefficients + found.coefficients) / 2,
            knee=(before.knee * found.knee) ** 0.5,
        )
        found = law_fit(rows, shorter)
    return found
