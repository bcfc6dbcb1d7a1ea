"""What ``simulate`` makes of its cells: fitted laws, a CSV file, tables and the end."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import typer

from rightbatch.cli.output import Output, to_plain
from rightbatch.cli.simulate_problem import binning
from rightbatch.cli.simulate_tuning import quickest_backend
from rightbatch.errors import InterruptedRunError, NotReachedError, RightbatchError
from rightbatch.quadratic import NoisyQuadratic, OptimizerName
from rightbatch.quadratic.curves import SteppingCurve, fit_curve
from rightbatch.quadratic.problem import check_target
from rightbatch.quadratic.search import Found
from rightbatch.quadratic.table import TableCell, Tuning, table_cells

LEAST_POINTS = 4
_COLUMNS = (
    "optimizer",
    "power",
    "batch_size",
    "steps",
    "lr",
    "momentum",
    "ema_decay",
    "max_likelihood_bound",
    "bayes_bound",
)
_SPOKEN = ("json", "quiet", "no_progress", "paper", "csv", "report")
SLOW_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked for, read and checked.

    Args:
        names: Optimizers.
        powers: Preconditioner powers.
        batch_sizes: Examples per step.
        target: Expected loss to reach.
        tuning: How settings are chosen.
        exact: The problem.
        problem: The same on bins.
        rule: How it was binned.
    """

    names: Sequence[OptimizerName]
    powers: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    target: float
    tuning: Tuning
    exact: NoisyQuadratic
    problem: NoisyQuadratic
    rule: str

    @property
    def num_cells(self) -> int:
        """How many cells answer it."""
        return len(self.names) * len(self.powers) * len(self.batch_sizes)


def answer(out: Output, question: Question) -> dict[str, Any]:
    """Return the results, those that are done where Ctrl-C came.

    Args:
        out: Where progress is shown.
        question: What is asked for.

    Returns:
        The keys of the document.

    Raises:
        InputError: The target cannot be reached from above.
    """
    tuning, problem, target = question.tuning, question.problem, question.target
    check_target("--target", problem, target)
    quickest = quickest_backend(
        tuning,
        question.names,
        len(question.powers) * len(question.batch_sizes),
        problem.curvatures.size,
    )
    began = perf_counter()
    groups = table_cells(
        problem,
        target,
        question.batch_sizes,
        optimizers=question.names,
        powers=question.powers,
        tuning=replace(tuning, backend=quickest),
    )
    cells = _collect(out, groups, question.num_cells)
    seconds = perf_counter() - began
    bins = binning(question.exact, problem, question.rule, question.powers)
    return {
        "cells": [cell.to_dict() for cell in cells],
        "seconds": seconds,
        "backend": quickest,
        "initial_loss": problem.initial_loss,
        "bins": bins.to_dict(),
        "fits": [] if tuning.given else _fits(cells, target),
    }


def _collect(
    out: Output, groups: Iterator[tuple[TableCell, ...]], total: int
) -> list[TableCell]:
    cells: list[TableCell] = []
    with suppress(KeyboardInterrupt), out.bar("simulating", total) as show:
        for group in groups:
            cells += group
            show(len(cells))
    return cells


def inputs_of(context: typer.Context, read: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was asked for, for the document.

    Args:
        context: Of the command.
        read: Options as they were read.

    Returns:
        Options by name.
    """
    options = {
        name: value for name, value in context.params.items() if name not in _SPOKEN
    }
    return {**options, **read}


def _fits(cells: Sequence[TableCell], target: float) -> list[dict[str, Any]]:
    """Return the laws fitted to each optimizer's steps at each power.

    None where fewer than four batch sizes reach the target.
    """
    groups: dict[tuple[OptimizerName, float], list[TableCell]] = {}
    for cell in cells:
        groups.setdefault((cell.name, cell.power), []).append(cell)
    fits: list[dict[str, Any]] = []
    for (name, power), members in groups.items():
        if sum(cell.steps is not None for cell in members) < LEAST_POINTS:
            continue
        curve = SteppingCurve(
            name=name,
            target=target,
            preconditioner_power=power,
            cells=tuple(
                Found(name=name, batch_size=cell.batch_size, steps=cell.steps)
                for cell in members
            ),
        )
        fit = fit_curve(curve)
        fits.append(
            {
                "optimizer": name,
                "power": power,
                "critical_batch_size": fit.critical_batch_size,
                "min_steps": fit.inverse.min_steps,
                "min_examples": fit.inverse.min_examples,
                "misfit": fit.misfit,
                "knee_exponent": fit.knee.knee_exponent,
                "knee_misfit": fit.knee_misfit,
            }
        )
    return fits


def finish(
    out: Output,
    document: dict[str, Any],
    *,
    total: int,
    csv: Path | None,
    report: Path | None,
) -> None:
    """Print the result, write the files and end the command.

    Args:
        out: How it speaks.
        document: The result.
        total: How many cells were asked for.
        csv: File for the cells.
        report: File for a report.

    Raises:
        InterruptedRunError: Ctrl-C came before a cell was done.
        SystemExit: Cells are missing, or none reaches the target.
    """
    if not document["cells"]:
        raise InterruptedRunError("simulate: interrupted; nothing is written.")
    if csv:
        from rightbatch.experiments.tables import write_csv

        rows = [[cell[name] for name in _COLUMNS] for cell in document["cells"]]
        write_csv(csv, _COLUMNS, rows)
    if report:
        from rightbatch.reporting.simulate_report import write_simulate_report

        out.note(f"report: {write_simulate_report(report, to_plain(document))}")
    error = _error(document, total)
    # The JSON document is one, the error in it.
    if error is None or not out.json:
        out.show(document, *_parts(document))
    if error is None:
        out.note(_pace(document))
        return
    try:
        out.fail(document, error)
    except typer.Exit as ended:
        # An exit by 130 would pass for a Ctrl-C that nobody has spoken of yet.
        raise SystemExit(ended.exit_code) from None


def _error(document: dict[str, Any], total: int) -> RightbatchError | None:
    cells = document["cells"]
    if len(cells) < total:
        return InterruptedRunError(
            f"simulate: interrupted; {len(cells)} of {total} cells are done."
        )
    if all(cell["steps"] is None for cell in cells):
        return NotReachedError(
            f"simulate: nothing reaches the loss {document['inputs']['target']:g}; "
            f"{cells[0]['optimizer']} at batch size {cells[0]['batch_size']:g}: "
            f"{cells[0]['why']}."
        )
    return None


def _parts(document: dict[str, Any]) -> list[Any]:
    from rightbatch.reporting.simulate_tables import (
        bins_line,
        fits_sheet,
        settings_sheets,
        steps_sheets,
    )

    plain = to_plain(document)
    sheets = [*steps_sheets(plain), *settings_sheets(plain)]
    fitted = fits_sheet(plain)
    if fitted is not None:
        sheets.append(fitted)
    spaced = [part for sheet in sheets for part in (sheet, "")]
    return [*spaced, bins_line(plain["bins"])]


def _pace(document: dict[str, Any]) -> str:
    from rightbatch.reporting.formats import seconds

    took = document["seconds"]
    num = len(document["cells"])
    text = f"{num} cell{'s' if num > 1 else ''} in {seconds(took)}"
    slow = took > SLOW_SECONDS and document["backend"] == "numpy"
    if slow and find_spec("numba") is None:
        text += "; with numba many times faster: pip install 'rightbatch[fast]'"
    return text
