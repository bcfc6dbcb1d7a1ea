"""Which law a table of runs calls for, and what the others would have made of it.

The inverse law stands unless the corrected Akaike criterion of a knee or a floor is
better by more than 2. The criterion itself keeps few points simple: with five batch
sizes or fewer no third parameter can win. Never by leave-one-out, which on flat tables
is best where the critical batch size is absurd.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from rightbatch.convergence.profile import Surface, best_law, surface
from rightbatch.convergence.rivals import fit_rivals
from rightbatch.convergence.runs import RepeatedRuns
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, corrected_aic

LawName = Literal["auto", "inverse", "knee", "floor"]

LAWS = ("inverse", "knee", "floor")
CLEARLY_BETTER = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A law that was fitted to the runs, chosen or not.

    Args:
        law: ``inverse``, ``knee``, ``floor``, or a bound: ``convex_bound``,
            ``linear_rate_bound``.
        num_parameters: Of the law.
        aicc_difference: Corrected Akaike criterion less that of the law chosen, so
            above 0 is worse; None where there are too few batch sizes to tell.
        median_relative_error: Median over batch sizes of abs(fit / mean steps - 1).
        parameters: By name.
        chosen: True for the one that the plan uses.
    """

    law: str
    num_parameters: int
    aicc_difference: float | None
    median_relative_error: float
    parameters: dict[str, float]
    chosen: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {
            "law": self.law,
            "num_parameters": self.num_parameters,
            "aicc_difference": self.aicc_difference,
            "median_relative_error": self.median_relative_error,
            "parameters": dict(self.parameters),
            "chosen": self.chosen,
        }


class _Fitted(NamedTuple):
    law: str
    num_parameters: int
    chi2: float
    residuals: FloatArray
    parameters: dict[str, float]


def choose(
    runs: RepeatedRuns, law: LawName
) -> tuple[Surface, tuple[Candidate, ...], list[str]]:
    """Return the law for some runs, every law tried, and what to know of the choice.

    Args:
        runs: At least two batch sizes.
        law: The law wanted, or ``auto``.

    Returns:
        The surface of the chosen law; the candidates, best first; notes.

    Raises:
        InputError: The law wanted needs more batch sizes.
    """
    num = len(runs.batch_sizes)
    if law not in ("auto", "inverse") and num < 3:
        raise InputError(
            f"fit: a {law} needs three batch sizes or more, got {num}.",
            "use the inverse law",
        )
    comparable = math.isfinite(corrected_aic(1, num, 3))
    names = list(LAWS) if comparable else ["inverse"]
    if law not in ("auto", *names):
        names.append(law)
    tried = [_fitted(runs, name) for name in names]
    chosen = law if law != "auto" else _best(tried, num)
    every = [*tried, *(_Fitted(*rival) for rival in fit_rivals(runs) if comparable)]
    candidates = _ranked(every, chosen, num)
    notes = _notes(candidates, law)
    return surface(runs, chosen), candidates, notes


def _fitted(runs: RepeatedRuns, name: str) -> _Fitted:
    law, chi2 = best_law(runs, name)
    parameters = {"min_steps": law.min_steps, "min_examples": law.min_examples}
    if name == "knee":
        parameters["knee_exponent"] = law.knee_exponent
    if name == "floor":
        parameters["min_batch_size"] = law.min_batch_size
    residuals = runs.log_steps - np.log(law.steps(runs.batch_sizes))
    return _Fitted(name, len(parameters), chi2, residuals, parameters)


def _best(tried: list[_Fitted], num_batch_sizes: int) -> str:
    inverse, *rivals = tried
    # Neither a knee nor a floor has a negative S_min: it would hide the finding.
    if not rivals or inverse.parameters["min_steps"] <= 0:
        return inverse.law
    scores = [
        corrected_aic(one.chi2, num_batch_sizes, one.num_parameters) for one in tried
    ]
    gain, rival = max(
        (scores[0] - score, one.law)
        for score, one in zip(scores[1:], rivals, strict=True)
        # A floor of zero is the inverse law under another name.
        if one.parameters.get("min_batch_size", 1) > 0
    )
    return rival if gain > CLEARLY_BETTER else inverse.law


def _ranked(
    tried: list[_Fitted], chosen: str, num_batch_sizes: int
) -> tuple[Candidate, ...]:
    scores = {
        one.law: corrected_aic(one.chi2, num_batch_sizes, one.num_parameters)
        for one in tried
    }
    candidates = [
        Candidate(
            law=one.law,
            num_parameters=one.num_parameters,
            aicc_difference=(
                scores[one.law] - scores[chosen]
                if math.isfinite(scores[one.law]) and math.isfinite(scores[chosen])
                else None
            ),
            median_relative_error=float(np.median(np.abs(np.expm1(-one.residuals)))),
            parameters=one.parameters,
            chosen=one.law == chosen,
        )
        for one in tried
    ]
    return tuple(sorted(candidates, key=lambda one: (not one.chosen, scores[one.law])))


def _notes(candidates: tuple[Candidate, ...], asked: LawName) -> list[str]:
    chosen = candidates[0]
    notes: list[str] = []
    if chosen.law != "inverse" and asked == "auto":
        inverse = next(one for one in candidates if one.law == "inverse")
        steps, examples = list(inverse.parameters.values())
        third = list(chosen.parameters.values())[-1]
        what = {
            "knee": f"a knee of exponent {third:.2g}",
            "floor": f"a feasibility floor at batch size {third:.3g}",
        }[chosen.law]
        notes.append(
            f"{what} was chosen over the inverse law (AICc better by "
            f"{inverse.aicc_difference or 0:.1f}), whose critical batch size would be "
            f"{examples / steps:.3g}"
        )
    for rival in candidates[1:]:
        better = -(rival.aicc_difference or 0)
        if better > CLEARLY_BETTER and "bound" in rival.law:
            name = rival.law.replace("_", " ")
            notes.append(
                f"the {name} describes these runs better still (AICc by {better:.1f}): "
                "were they run at one fixed learning rate?"
            )
    return notes
