"""The reproduction of the paper: results, figures and claims in one value."""

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from rightbatch.quadratic.paper.claims import (
    VERDICT_RULE,
    Claim,
    Condition,
    Evidence,
)
from rightbatch.quadratic.paper.figures import Figure
from rightbatch.quadratic.paper.optimizer_claims import judge_optimizers
from rightbatch.quadratic.paper.results import (
    OnProgress,
    PaperResults,
    PaperSetting,
    compute_results,
)
from rightbatch.quadratic.paper.risk_figures import risk_figures
from rightbatch.quadratic.paper.schedule_claims import judge_schedules
from rightbatch.quadratic.paper.schedule_figures import schedule_figures
from rightbatch.quadratic.paper.steps_figures import steps_figures
from rightbatch.quadratic.recursions.powers import Backend

SOURCE = (
    "Zhang, Li, Nado, Martens, Sachdeva, Dahl, Shallue, Grosse: Which Algorithmic "
    "Choices Matter at Which Batch Sizes? Insights From a Noisy Quadratic Model (2019)"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paper:
    """The paper's figures and claims, computed again.

    Args:
        results: What they are read off.
        claims: The eight, in order.
        beyond: What the paper could not look at, by the same kind of rules.
        figures: Those of the paper first.
        seconds: What it took.
    """

    results: PaperResults
    claims: tuple[Claim, ...]
    beyond: tuple[Condition, ...]
    figures: tuple[Figure, ...]
    seconds: float

    @property
    def headline(self) -> str:
        """How many claims hold, in one sentence."""
        verdicts = [claim.verdict for claim in self.claims]
        held = verdicts.count("reproduced")
        partly = verdicts.count("partly")
        rest = len(verdicts) - held - partly
        parts = [f"{held} of the paper's {len(verdicts)} claims are reproduced"]
        parts += [f"{partly} partly"] if partly else []
        parts += [f"{rest} not"] if rest else []
        return ", ".join(parts)

    @property
    def problem(self) -> str:
        """What was minimised, in one sentence."""
        setting = self.results.setting
        h = setting.spectrum.curvatures
        return (
            f"Curvatures from {h.max():.3g} to {h.min():.3g} for "
            f"{setting.spectrum.num_dims:,.0f} directions on {h.size} bins, noise "
            f"c = h, target {setting.target:g}, batch sizes {setting.batch_sizes[0]:g} "
            f"to {setting.batch_sizes[-1]:,.0f}; every step count exact, every setting "
            "tuned by continuous search."
        )

    def figure(self, name: str) -> Figure:
        """Return a figure by its name."""
        return next(figure for figure in self.figures if figure.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return claims and figures for a program."""
        setting = self.results.setting
        return {
            "source": SOURCE,
            "headline": self.headline,
            "problem": self.problem,
            "verdict_rule": VERDICT_RULE,
            "claims": [claim.to_dict() for claim in self.claims],
            "beyond": [
                one.to_dict() | {"evidence": one.evidence.to_dict()}
                for one in self.beyond
            ],
            "figures": [figure.to_dict() for figure in self.figures],
            "target": setting.target,
            "powers": list(setting.powers),
            "batch_sizes": list(setting.batch_sizes),
            "max_likelihood_examples": self.results.max_likelihood,
            "bayes_examples": self.results.bayes,
            "seconds": self.seconds,
        }

    def details(self) -> str:
        """Return every claim with the numbers that its verdict rests on, as text."""
        head = [f"{self.headline}.", self.problem, VERDICT_RULE]
        return "\n\n".join(["\n".join(head), *(str(claim) for claim in self.claims)])

    def __str__(self) -> str:
        lines = [f"{one.number}  {one.verdict:<15} {one.short}" for one in self.claims]
        return "\n".join([f"{self.headline}.", *lines])


def reproduce_paper(
    *,
    setting: PaperSetting | None = None,
    backend: Backend = "auto",
    on_progress: OnProgress | None = None,
) -> Paper:
    """Return the figures of the paper and a verdict on each of its claims.

    Args:
        setting: The problem, the paper's by default.
        backend: numpy, numba, or whichever is there.
        on_progress: Told the share that is done, up to 1.

    Returns:
        Claims, figures and the numbers they are read off.

    Raises:
        InputError: A target is out of reach of the problem's losses.
    """
    start = perf_counter()
    setting = PaperSetting() if setting is None else setting
    results = compute_results(setting, backend=backend, on_progress=on_progress)
    claims = (*judge_optimizers(results), *judge_schedules(results))
    figures = (*risk_figures(), *steps_figures(results), *schedule_figures(results))
    order = ("1", "2", "3a", "3b", "3c", "4")
    in_paper = sorted(
        (figure for figure in figures if figure.in_paper),
        key=lambda figure: order.index(figure.name),
    )
    return Paper(
        results=results,
        claims=tuple(sorted(claims, key=lambda claim: claim.number)),
        beyond=(_momentum_and_ema(results), _averaging(results)),
        figures=(*in_paper, *(one for one in figures if not one.in_paper)),
        seconds=perf_counter() - start,
    )


def _momentum_and_ema(results: PaperResults) -> Condition:
    setting, table = results.setting, results.tuned
    rows: dict[str, tuple[float, ...]] = {}
    for power in setting.powers:
        better = np.minimum(table.steps("momentum", power), table.steps("ema", power))
        gain = better / table.steps("momentum+ema", power)
        rows[f"power {power:g}"] = tuple(float(value) for value in gain)
    evidence = Evidence(
        heading="batch size",
        columns=tuple(f"{size:,.0f}" for size in setting.batch_sizes),
        rows=rows,
        kind="times",
    )
    return Condition(
        key="momentum_and_ema",
        statement="Momentum and an EMA together need at most the steps of the better "
        "of the two, at every batch size.",
        evidence=evidence,
        holds=bool((evidence.values >= 1).all()),
    )


def _averaging(results: PaperResults) -> Condition:
    setting = results.setting
    sizes = np.array(setting.batch_sizes)
    kept = sizes * 4 <= results.bayes
    rows = {
        f"power {power:g}": tuple(
            float(value)
            for value in (results.tuned.steps("average", power) * sizes)[kept]
        )
        for power in setting.powers
    }
    rows["maximum likelihood"] = (results.max_likelihood,) * int(kept.sum())
    rows["Bayes bound"] = (results.bayes,) * int(kept.sum())
    evidence = Evidence(
        heading="batch size; examples to the target",
        columns=tuple(f"{size:,.0f}" for size in sizes[kept]),
        rows=rows,
        kind="count",
    )
    fewest = float(evidence.values[: -2 * int(kept.sum())].min())
    return Condition(
        key="uniform_average",
        statement="The mean of all iterates beats the maximum-likelihood number "
        "somewhere, and the Bayes bound nowhere.",
        evidence=evidence,
        holds=results.bayes <= fewest < results.max_likelihood,
    )
