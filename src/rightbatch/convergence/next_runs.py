"""The next runs worth buying: which batch size, how many, what they would narrow.

A candidate purchase is tried on paper, in :mod:`rightbatch.convergence.prospects`. The
one that would narrow the interval of phi most is taken, or, of those that do nearly as
well, the one nearest to the corner; then the next, as if the first had been run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightbatch.convergence.noise import Noise
from rightbatch.convergence.profile import Surface
from rightbatch.convergence.prospects import Prospects
from rightbatch.fitting import Interval

PHI = "critical_batch_size"
PURCHASES = 3
# A third purchase is named only if it takes this share off ln(high/low).
WORTH_NAMING = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class NextRun:
    """Runs worth buying at one batch size.

    Args:
        batch_size: Examples per step.
        num_runs: Seeds to run there.
        narrows: What they are for: ``critical_batch_size``, whose interval they narrow;
            ``law``, which they test; ``noise``, which they measure; or ``rise``, which
            they confirm or remove.
        width_before: Upper over lower end of phi's interval without them and with the
            entries before this one; None while unbounded or unknown.
        width_after: The same with them, as predicted.
        examples: What they cost, as the law predicts.
        is_new: True where no run has been made at this batch size.
        unit: Of `examples`.

    Example:
        >>> print(
        ...     NextRun(
        ...         batch_size=512,
        ...         num_runs=2,
        ...         narrows="critical_batch_size",
        ...         width_before=3,
        ...         width_after=1.6,
        ...         examples=1e6,
        ...         is_new=True,
        ...     )
        ... )
        2 runs at batch size 512 (1e+06 examples): critical batch size 3x -> 1.6x wide
    """

    batch_size: float
    num_runs: int
    narrows: str
    width_before: float | None
    width_after: float | None
    examples: float
    is_new: bool
    unit: str = "examples"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the sentence."""
        return {
            "batch_size": self.batch_size,
            "num_runs": self.num_runs,
            "narrows": self.narrows,
            "width_before": self.width_before,
            "width_after": self.width_after,
            "examples": self.examples,
            "is_new": self.is_new,
            "unit": self.unit,
            "sentence": str(self),
        }

    def __str__(self) -> str:
        runs = f"{self.num_runs} run{'s' if self.num_runs > 1 else ''}"
        return (
            f"{runs} at batch size {self.batch_size:.10g} "
            f"({self.examples:.2g} {self.unit}): {self.purpose}"
        )

    @property
    def purpose(self) -> str:
        """What the runs would do, in words."""
        if self.narrows == "law":
            return "tests the law between the batch sizes run"
        if self.narrows == "noise":
            return "tells how far seeds scatter"
        if self.narrows == "rise":
            return "tells whether the steps really rise"
        if self.width_after is None and self.width_before is None:
            return "brings the critical batch size nearer to being bounded"
        if self.width_after is None:
            return "narrows the critical batch size"
        before = (
            "unbounded" if self.width_before is None else f"{self.width_before:.3g}x"
        )
        return f"critical batch size {before} -> {self.width_after:.3g}x wide"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Purchase:
    """A batch size to run for another reason than phi's interval.

    Args:
        batch_size: Examples per step.
        narrows: ``law``, ``noise`` or ``rise``.
    """

    batch_size: float
    narrows: str


def worthwhile_runs(
    surface: Surface,
    noise: Noise,
    critical: Interval,
    first: Sequence[Purchase] = (),
) -> tuple[NextRun, ...]:
    """Return the next two or three runs worth buying, the most useful one first.

    Candidates are the batch sizes run, 2, 4 and 16 times beyond either end but no
    farther from the corner than tells, and the geometric middles between neighbours. A
    purchase is as many seeds as the batch sizes have had so far, two to five.

    Args:
        surface: The fitted surface.
        noise: Its noise.
        critical: Interval of phi; its level is the level predicted for.
        first: Runs wanted for other reasons; they come first.

    Returns:
        One entry per batch size.
    """
    table = Prospects.of(surface, noise, critical, [buy.batch_size for buy in first])
    each = int(np.clip(round(float(np.median(surface.runs.num_runs))), 2, 5))
    order = {table.place_of(buy.batch_size): buy.narrows for buy in first}
    counts = table.counts.copy()
    counts[list(order)] += each
    while len(order) < PURCHASES:
        place, gain = table.best_purchase(counts, each, set(order))
        if len(order) >= 2 and gain < WORTH_NAMING:
            break
        order[place] = PHI
        counts[place] += each
    return _entries(table, critical, order, each)


def _entries(
    table: Prospects, critical: Interval, order: dict[int, str], each: int
) -> tuple[NextRun, ...]:
    counts = table.counts.copy()
    before = _ratio(critical)
    predicted = table.log_width(counts)
    # The paper table has no residuals; the real one's width corrects for them.
    correction = 1.0
    if before is not None and predicted is not None:
        correction = float(np.clip(math.log(before) / predicted, 0.5, 2))
    found: list[NextRun] = []
    for place, narrows in order.items():
        counts[place] += each
        log_width = table.log_width(counts) if table.can_promise else None
        after = None if log_width is None else math.exp(log_width * correction)
        found.append(
            NextRun(
                batch_size=float(table.sizes[place]),
                num_runs=each,
                narrows=narrows,
                width_before=before,
                width_after=after,
                examples=each * float(table.law.examples(table.sizes[place])),
                is_new=bool(table.counts[place] == 0),
                unit=critical.unit,
            )
        )
        before = after
    return tuple(found)


def _ratio(critical: Interval) -> float | None:
    if critical.low is None or critical.high is None:
        return None
    # Runs that agree to the last digit leave no width to narrow.
    return max(critical.high / critical.low, 1 + 1e-9)
