"""Tables of the model: the fewest steps of optimizers, powers and batch sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from rightbatch import _checks
from rightbatch.quadratic.bounds import bayes_examples, max_likelihood_examples
from rightbatch.quadratic.optimizers import OPTIMIZERS, OptimizerName
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.table_cell import (
    SEARCHES,
    Schedule,
    SearchName,
    TableCell,
    Tuning,
)
from rightbatch.quadratic.table_filling import Group

__all__ = [
    "SEARCHES",
    "Schedule",
    "SearchName",
    "StepsTable",
    "TableCell",
    "Tuning",
    "steps_table",
    "table_cells",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsTable:
    """Cells of a table, and how long they took.

    Args:
        cells: By optimizer, then power, then batch size, as they were asked for.
        seconds: Of computing them all.
    """

    cells: tuple[TableCell, ...]
    seconds: float

    def of(self, name: OptimizerName, power: float = 0.0) -> tuple[TableCell, ...]:
        """Return the cells of one optimizer at one power, by batch size as asked."""
        return tuple(
            cell for cell in self.cells if cell.name == name and cell.power == power
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the cells and the seconds for a program."""
        return {
            "cells": [cell.to_dict() for cell in self.cells],
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        lines = [f"{'optimizer':<13}{'power':>6}{'batch size':>12}{'steps':>14}"]
        for cell in self.cells:
            steps = "unreachable" if cell.steps is None else f"{cell.steps:,}"
            size = f"{cell.batch_size:,.10g}"
            lines.append(f"{cell.name:<13}{cell.power:>6g}{size:>12}{steps:>14}")
        return "\n".join(lines)


def steps_table(
    problem: NoisyQuadratic,
    target: float,
    batch_sizes: Sequence[float] | FloatArray,
    *,
    optimizers: Sequence[OptimizerName] = OPTIMIZERS,
    powers: Sequence[float] | None = None,
    tuning: Tuning | None = None,
) -> StepsTable:
    """Return the fewest steps to a target for optimizers, powers and batch sizes.

    Args:
        problem: What is minimised; without label noise.
        target: Expected loss to reach.
        batch_sizes: Examples per step. Shape (b,).
        optimizers: Their names.
        powers: Preconditioner powers, between 0 and 1; the problem's own by default.
        tuning: How settings are chosen; all of them searched by default.

    Returns:
        The table.

    Raises:
        InputError: A value is out of range, an optimizer unknown or not to be tuned in
            this way.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> print(steps_table(problem, 0.01, [16, 1024], optimizers=["sgd", "ema"]))
        optimizer     power  batch size         steps
        sgd               0          16         2,037
        sgd               0       1,024            94
        ema               0          16           531
        ema               0       1,024            75
    """
    began = perf_counter()
    groups = table_cells(
        problem,
        target,
        batch_sizes,
        optimizers=optimizers,
        powers=powers,
        tuning=tuning,
    )
    cells = tuple(cell for group in groups for cell in group)
    return StepsTable(cells=cells, seconds=perf_counter() - began)


def table_cells(
    problem: NoisyQuadratic,
    target: float,
    batch_sizes: Sequence[float] | FloatArray,
    *,
    optimizers: Sequence[OptimizerName] = OPTIMIZERS,
    powers: Sequence[float] | None = None,
    tuning: Tuning | None = None,
) -> Iterator[tuple[TableCell, ...]]:
    """Return the cells of :func:`steps_table` as they are done, some at a time.

    Everything is checked before the first are asked for. A continuous search serves all
    batch sizes of an optimizer at once, anything else one after the other.

    Args:
        problem: As for :func:`steps_table`.
        target: As there.
        batch_sizes: As there.
        optimizers: As there.
        powers: As there.
        tuning: As there.

    Returns:
        An iterator over cells in their order.

    Raises:
        InputError: As there.
    """
    who, tuning = "steps_table", Tuning() if tuning is None else tuning
    sizes = _checks.positive_array(who, "batch_sizes", batch_sizes)
    for name in optimizers:
        _checks.one_of(who, "optimizers", name, OPTIMIZERS)
        tuning.check(name)
    examples = (
        max_likelihood_examples(problem, target),
        bayes_examples(problem, target),  # neither knows of preconditioning
    )
    own = (problem.preconditioner_power,) if powers is None else powers
    problems = [problem.with_power(power) for power in own]
    at_once = not tuning.is_scheduled and tuning.search == "continuous"
    batches = [sizes] if at_once and not tuning.given else sizes[:, None]
    return (
        Group(one, name, target, tuning).cells(some, examples)
        for name in optimizers
        for one in problems
        for some in batches
    )
