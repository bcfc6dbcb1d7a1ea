"""Rules: how a condition reads numbers off a table of steps, and when it holds."""

from collections.abc import Callable
from typing import NamedTuple

from rightbatch.quadratic.optimizers import OptimizerName
from rightbatch.quadratic.paper.claims import Condition, Evidence, Kind
from rightbatch.quadratic.paper.results import (
    WORDS,
    FittedTable,
    PaperResults,
    PaperSetting,
)

Names = tuple[OptimizerName, ...]
Reader = Callable[[FittedTable], Evidence]
Judge = Callable[[FittedTable, Evidence], bool]


class Rule(NamedTuple):
    """How a condition reads numbers off a table of steps, and when it holds.

    Args:
        key: Short name, unique within a claim.
        statement: What must hold, with its threshold.
        read: Reads the numbers off a table.
        holds: Whether it holds, given the table and the numbers.
        counts: Whether the verdict rests on it.
    """

    key: str
    statement: str
    read: Reader
    holds: Judge
    counts: bool = True

    def on(self, results: PaperResults) -> Condition:
        """Return the condition on the tuned steps, those of the grids beside them."""
        tuned, table = self.read(results.tuned), results.grid
        grid = None if table is None else self.read(table)
        on_grid = None
        if table is not None and grid is not None:
            on_grid = self.holds(table, grid)
        return Condition(
            key=self.key,
            statement=self.statement,
            evidence=tuned,
            holds=self.holds(results.tuned, tuned),
            counts=self.counts,
            on_grid=grid,
            holds_on_grid=on_grid,
        )


def by_power(
    setting: PaperSetting,
    kind: Kind,
    names: Names,
    value: Callable[[OptimizerName, float], float],
) -> Evidence:
    """Return a value for each optimizer and power.

    Args:
        setting: With the powers.
        kind: Of the values.
        names: Of the rows.
        value: Of an optimizer and a power.

    Returns:
        Rows by optimizer, columns by power.
    """
    return Evidence(
        heading="power",
        columns=tuple(f"{power:g}" for power in setting.powers),
        rows={WORDS[n]: tuple(value(n, p) for p in setting.powers) for n in names},
        kind=kind,
    )


def at_most(limit: float) -> Judge:
    """Return a judge that holds where no number is above a limit."""

    def holds(_: FittedTable, found: Evidence) -> bool:
        return bool((found.values <= limit).all())

    return holds


def at_least(limit: float) -> Judge:
    """Return a judge that holds where no number is below a limit."""

    def holds(_: FittedTable, found: Evidence) -> bool:
        return bool((found.values >= limit).all())

    return holds
