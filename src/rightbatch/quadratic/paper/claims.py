"""What a paper claims, what was found, and the verdict that follows by stated rules."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Verdict = Literal["reproduced", "partly", "not reproduced"]
Kind = Literal["count", "times", "percent", "number"]

MANY = 10.0
"""From here on a percentage is said as a ratio."""
TINY = 1e-5
"""Up to here a percentage is said to be zero."""
VERDICT_RULE = (
    "Reproduced: every condition that counts holds. Not reproduced: none does. Partly: "
    "the rest. Verdicts rest on the continuous search; what the best points of the "
    "published grids give stands beside it as (grid). Conditions that do not count "
    "test what the paper does not claim."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A small table of numbers that a condition looks at.

    Args:
        heading: What the columns are.
        columns: Their names.
        rows: Values by row; nan where there is none. Shape (num_columns,) each.
        kind: How a value reads: a count, a ratio, a fraction as a percentage, a number.
    """

    heading: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]
    kind: Kind = "number"

    @property
    def values(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """All values that there are, in reading order."""
        every = np.array([value for row in self.rows.values() for value in row])
        return every[~np.isnan(every)]

    def to_dict(self) -> dict[str, Any]:
        """Return the table for a program, None where there is no value."""
        return {
            "heading": self.heading,
            "columns": list(self.columns),
            "kind": self.kind,
            "rows": {
                name: [float(v) if np.isfinite(v) else None for v in row]
                for name, row in self.rows.items()
            },
        }

    def lines(self) -> list[str]:
        """Return one line of text per row."""
        return [
            f"{name}: {', '.join(said(value, self.kind) for value in row)}"
            for name, row in self.rows.items()
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing that must hold if a claim is true.

    Args:
        key: Short name, unique within a claim.
        statement: What must hold, with its threshold.
        evidence: The numbers that were looked at.
        holds: Whether it holds.
        counts: Whether the verdict rests on it; the others are told for completeness.
        on_grid: The same numbers by the published grids; None where there are none.
        holds_on_grid: Whether it holds for those.
    """

    key: str
    statement: str
    evidence: Evidence
    holds: bool
    counts: bool = True
    on_grid: Evidence | None = None
    holds_on_grid: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the condition for a program, without its evidence."""
        return {
            "condition": self.key,
            "statement": self.statement,
            "holds": self.holds,
            "counts": self.counts,
            "holds_on_published_grid": self.holds_on_grid,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of the paper with what was found.

    Args:
        number: As counted here.
        claim: In one sentence.
        short: In a few words.
        conditions: What was tested; at least one of them counts.
        note: What else to know, computed from the numbers.
        figures: Names of the figures that show it.
    """

    number: int
    claim: str
    short: str
    conditions: tuple[Condition, ...]
    note: str = ""
    figures: tuple[str, ...] = field(default_factory=tuple)

    @property
    def verdict(self) -> Verdict:
        """What follows from the conditions that count, see :data:`VERDICT_RULE`."""
        return _verdict(one.holds for one in self.conditions if one.counts)

    @property
    def verdict_on_grid(self) -> Verdict | None:
        """The same with the published grids wherever they were searched."""
        if all(one.on_grid is None for one in self.conditions):
            return None
        return _verdict(
            one.holds if one.holds_on_grid is None else one.holds_on_grid
            for one in self.conditions
            if one.counts
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the claim for a program."""
        evidence: dict[str, Any] = {}
        for one in self.conditions:
            evidence[one.key] = one.evidence.to_dict()
            if one.on_grid is not None:
                evidence[f"{one.key}_on_published_grid"] = one.on_grid.to_dict()
        return {
            "number": self.number,
            "claim": self.claim,
            "verdict": self.verdict,
            "verdict_on_published_grid": self.verdict_on_grid,
            "conditions": [one.to_dict() for one in self.conditions],
            "evidence": evidence,
            "note": self.note,
            "figures": list(self.figures),
        }

    def __str__(self) -> str:
        lines = [f"{self.number}. {self.claim} {self.verdict.upper()}"]
        for one in self.conditions:
            mark = "holds" if one.holds else "fails"
            aside = "" if one.counts else ", for completeness"
            lines.append(f"   {mark}{aside}: {one.statement}")
            lines.append(f"      {one.evidence.heading}")
            lines += [f"      {line}" for line in one.evidence.lines()]
            if one.on_grid is not None:
                lines += [f"      {line} (grid)" for line in one.on_grid.lines()]
        return "\n".join([*lines, *([f"   {self.note}"] if self.note else [])])


def said(value: float, kind: Kind) -> str:
    """Return a value as it reads.

    Args:
        value: The number; nan and infinity are a dash.
        kind: What it is.

    Returns:
        Text.

    Example:
        >>> said(36949.2, "count"), said(4.352, "times"), said(0.168, "percent")
        ('36,949', '4.35x', '17 %')
    """
    if not np.isfinite(value):
        return "-"
    if kind == "count":
        return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
    if kind == "percent" and value < MANY:
        share = 0.0 if abs(value) <= TINY else 100 * value
        return f"{share:.0f} %" if abs(share) >= 10 else f"{share:.2g} %"
    if kind in ("times", "percent"):
        ratio = float(f"{value + (kind == 'percent'):.3g}")
        return f"{ratio:,.10g}x"
    return f"{round(value, 3) + 0.0:.3f}"  # never -0


def _verdict(held: Iterable[bool]) -> Verdict:
    found = list(held)
    if all(found):
        return "reproduced"
    return "partly" if any(found) else "not reproduced"
