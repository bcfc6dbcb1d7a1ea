"""Which communication law a table of step times prefers, and what came next."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rightbatch.fitting import FloatArray, corrected_aic, f_test
from rightbatch.step_time.candidates import BASES, NO_BASIS, Basis
from rightbatch.step_time.overlap import (
    OverlapProfile,
    can_carry,
    fit_at,
    overlap_profile,
    refined,
)
from rightbatch.step_time.profile import LawFit, TimedRows, knee_grid

# Medians of a few repeats on a shared machine agree to about this, whatever the
# residuals of a handful of rows happen to say.
NOISE_FLOOR = 0.02
# Strict, because the place of the knee is searched for, which flatters the test.
KNEE_P_VALUE = 0.01
KNEES = 120
FEW_ROWS = 6
# A law with one more number has to earn it.
WORTH_A_TERM = 2.0
# So much worse, a law that can rise does not explain what rose: noise does.
DECISIVE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeRival:
    """A communication law that was fitted to the table.

    Args:
        law: Its name: a kind of communication, or ``volume``: a ring without latency.
        num_parameters: Numbers fitted, overhead, time per example and knee included.
        aicc_difference: Criterion above that of the law chosen; negative where a
            better one was passed over as more complicated, or as unable to rise.
        median_relative_error: Median over rows of |law / timed - 1|.
        parameters: Its communication, and the overlap exponent where one was fitted.
        chosen: True for one of them.
    """

    law: str
    num_parameters: int
    aicc_difference: float
    median_relative_error: float
    parameters: dict[str, Any]
    chosen: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "law": self.law,
            "num_parameters": self.num_parameters,
            "aicc_difference": self.aicc_difference,
            "median_relative_error": self.median_relative_error,
            "parameters": self.parameters,
            "chosen": self.chosen,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """One communication law fitted to a table, the knee free.

    Args:
        basis: The law.
        rows: The table with its columns.
        fit: The best fit.
        score: AICc; low is good.
        profile: Over overlap exponents; None where the table cannot carry one.
        overlaps: True where an exponent above 1 is worth its parameter.
    """

    basis: Basis
    rows: TimedRows
    fit: LawFit
    score: float
    profile: OverlapProfile | None
    overlaps: bool

    @property
    def num_parameters(self) -> int:
        """Numbers fitted, the knee and the overlap included."""
        return len(self.fit.coefficients) + 1 + self.overlaps

    @property
    def noise(self) -> float:
        """Relative standard deviation of a row around this law, 2 % at least."""
        degrees = len(self.rows.local) - self.num_parameters
        scatter = (self.fit.squares / degrees) ** 0.5 if degrees > 0 else 0.0
        return max(scatter, NOISE_FLOOR)

    @property
    def grows(self) -> bool:
        """True where ever more replicas take ever longer."""
        return self.basis.grows(self.fit.coefficients[2:])

    def rival(self, chosen: "Candidate") -> StepTimeRival:
        """Return what is reported of it.

        Args:
            chosen: The law chosen.

        Returns:
            The entry.
        """
        parameters = self.basis.communication(self.fit.coefficients[2:]).to_dict()
        del parameters["kind"]
        if self.overlaps:
            parameters["overlap_exponent"] = self.fit.overlap_exponent
        error = np.median(np.abs(self.rows.law(self.fit) / self.rows.seconds - 1))
        return StepTimeRival(
            law=self.basis.law,
            num_parameters=self.num_parameters,
            aicc_difference=0.0 if self is chosen else self.score - chosen.score,
            median_relative_error=float(error),
            parameters=parameters,
            chosen=self is chosen,
        )


def candidates(
    rows_of: Callable[[Basis], TimedRows],
    num_replicas: FloatArray,
    exponent: float | None,
    *,
    given: bool,
) -> list[Candidate]:
    """Return every communication law that the rows can tell from the simpler ones.

    Args:
        rows_of: Gives the rows with a law's columns.
        num_replicas: Of each row.
        exponent: Overlap exponent; None to fit it where the table can carry it.
        given: True where the communication is known beforehand.

    Returns:
        Candidates, the simplest first.
    """
    numbers = len(np.unique(num_replicas[num_replicas > 1]))
    found: list[Candidate] = []
    for basis in (NO_BASIS,) if given else BASES:
        rows = rows_of(basis)
        terms = rows.terms(rows.local.min(keepdims=True))[0]
        scale = np.maximum(np.abs(terms).max(0), 1e-300)
        rank = np.linalg.matrix_rank(terms / scale)
        # Alone, the law without communication is always there to fall back on.
        if basis.kind == "none" or (
            numbers >= basis.least_numbers and rank == terms.shape[1]
        ):
            found.append(_candidate(basis, rows, exponent))
    return found if exponent is not None else list(_with_overlap(found, num_replicas))


def choose(found: list[Candidate], *, must_grow: bool) -> Candidate:
    """Return the law to go on with.

    Args:
        found: Candidates, the simplest first.
        must_grow: True where the table itself shows that communication grows.

    Returns:
        Each in turn takes the place of the best before it where its AICc is lower: by 2
        where it has more parameters or is another law of two, by anything at all where
        it is another law of one. Margins in sequence are not transitive: the law
        returned may be beaten, by less than 2, by one that was passed over, and the
        order of the candidates counts. Where communication must grow, and some law
        does that is not worse by 10 than the best of all, one of those.
    """
    lowest = min(one.score for one in found)
    growing = [one for one in found if one.grows] if must_grow else []
    if min((one.score for one in growing), default=np.inf) > lowest + DECISIVE:
        growing = []
    best: Candidate | None = None
    for one in growing or found:
        if best is None or one.score < best.score - _margin(best.basis, one.basis):
            best = one
    assert best is not None
    return best


def polished(one: Candidate) -> Candidate:
    """Return a candidate with its overlap exponent searched more finely.

    Args:
        one: From :func:`candidates`.

    Returns:
        The same where the rows cannot carry an exponent.
    """
    if one.profile is None:
        return one
    profile = refined(one.rows, one.profile)
    if not one.overlaps:
        return replace(one, profile=profile)
    fit = profile.best
    score = _score(one.rows, fit.squares, len(fit.coefficients) + 1)
    return replace(one, profile=profile, fit=fit, score=score)


def _margin(before: Basis, after: Basis) -> float:
    # As good is not better; one number more, or another law of two, must be.
    more = len(after.names) > max(len(before.names), 1)
    return WORTH_A_TERM if more or before.law in {"none", "ring"} else 1e-6


def _candidate(basis: Basis, rows: TimedRows, exponent: float | None) -> Candidate:
    fit = fit_at(rows, knee_grid(rows.local, KNEES), exponent or 1.0)
    score = _score(rows, fit.squares, len(fit.coefficients))
    return Candidate(
        basis=basis, rows=rows, fit=fit, score=score, profile=None, overlaps=False
    )


def _with_overlap(
    found: list[Candidate], num_replicas: FloatArray
) -> Iterator[Candidate]:
    best = min(found, key=lambda one: one.score)
    for one in found:
        if can_carry(one.rows, num_replicas):
            yield _profiled(one, best)
        else:
            yield one


def _profiled(one: Candidate, best: Candidate) -> Candidate:
    # It has to be worth its parameter over every law that adds, not its own alone.
    profile = overlap_profile(one.rows, one.fit, best.fit.squares)
    free, num_terms = profile.best, len(one.fit.coefficients)
    score = _score(one.rows, free.squares, num_terms + 1)
    degrees = len(one.rows.local) - num_terms - 2
    p_value = nested_p_value(one.fit.squares, free.squares, degrees)
    if score < best.score - WORTH_A_TERM and p_value < KNEE_P_VALUE:
        return replace(one, profile=profile, fit=free, score=score, overlaps=True)
    return replace(one, profile=profile)


def _score(rows: TimedRows, squares: float, num_terms: int) -> float:
    num_rows, chi2 = len(rows.local), squares / NOISE_FLOOR**2
    # AICc needs more rows than it has parameters; AIC with the noise known does not.
    if num_rows <= FEW_ROWS:
        return chi2 + 2 * num_terms
    return corrected_aic(chi2, num_rows, num_terms + 1)


def nested_p_value(simple: float, general: float, degrees: int) -> float:
    """Return the p-value of an F-test for one more parameter.

    Args:
        simple: Sum of squares without it.
        general: Sum of squares with it.
        degrees: Degrees of freedom with it.

    Returns:
        The probability of so much improvement by chance; 1 without degrees of freedom.
    """
    if degrees < 1:
        return 1.0
    ratio = (simple - general) / max(general / degrees, NOISE_FLOOR**2)
    return f_test(max(ratio, 0.0), 1, degrees)
