"""``fit`` of tables with losses: the loss law, and the steps to a target beside it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.convergence.losses.fit import LossLawFit
    from rightbatch.experiments.tables import TableLoss, TableRun

# A law of two numbers needs as many batch sizes to be tested.
LEAST_ARRIVED = 3


def loss_entries(
    table: Path, rows: "tuple[TableLoss, ...]", target: float | None, law: str
) -> list[dict[str, Any]]:
    """Return one JSON entry per workload of a table with losses.

    Args:
        table: The file, for its name and for errors.
        rows: Its losses.
        target: Loss to reach; the parameters of the loss law alone without one.
        law: Of the steps to the target: ``auto``, ``inverse``, ``knee``, ``floor``.

    Returns:
        The entries of a fit with `loss_law`; where the steps to the target tell no law,
        or fewer than three of the batch sizes run reached it, `law` is ``loss``.

    Raises:
        InputError: The rows cannot be fitted; the table is named.
    """
    groups: dict[str, list[TableLoss]] = {}
    for row in rows:
        groups.setdefault(row.workload, []).append(row)
    return [
        _entry(table, name, members, target, law) for name, members in groups.items()
    ]


def _entry(
    table: Path, name: str, rows: "list[TableLoss]", target: float | None, law: str
) -> dict[str, Any]:
    from rightbatch.convergence.losses.crossing import best_rows
    from rightbatch.convergence.losses.fit import fit_loss_law

    kept = best_rows(
        [row.batch_size for row in rows],
        [row.lr for row in rows],
        [row.steps for row in rows],
        [row.loss for row in rows],
    )
    tuned = [rows[place] for place in kept]
    try:
        fit = fit_loss_law(
            [row.batch_size for row in tuned],
            [row.steps for row in tuned],
            [row.loss for row in tuned],
            example_unit=rows[0].example_unit,
        )
        loss_law = fit.to_dict(target)
    except InputError as error:
        where = f"{table}, workload {name!r}" if name else str(table)
        raise InputError(f"{where}: {error}") from None
    told = None if target is None else _runs_to(rows, target)
    known = None if told is None else _steps_entry(table, name, told, law, loss_law)
    entry = known or loss_entry(fit, loss_law)
    said = [f"loss law: {text}" for text in _said(loss_law, known is not None)]
    return {
        "workload": name or table.stem,
        "target": target,
        **entry,
        "loss_law": loss_law,
        "warnings": [*entry["warnings"], *_why(told, known), *said],
    }


def _why(told: "list[TableRun] | None", known: dict[str, Any] | None) -> list[str]:
    if told is None or known is not None:
        return []
    arrived = sorted({run.batch_size for run in told if not math.isnan(run.steps)})
    if len(arrived) < 2:
        return []
    listed = ", ".join(f"{size:g}" for size in arrived)
    return [
        f"the law is that of the loss, as runs reached the target at batch sizes "
        f"{listed} alone and those that did not count too; --law inverse fits the "
        "counted steps"
    ]


def _said(loss_law: dict[str, Any], has_other: bool) -> list[str]:
    at_target = loss_law["at_target"] or {"warnings": []}
    said = [*loss_law["warnings"], *at_target["warnings"]]
    # An entry of its own has status and advice of the loss law in their places.
    if has_other and loss_law["status"] != "ok":
        said.append(f"{loss_law['status']}: {loss_law['advice']}")
    return said


def _runs_to(rows: "list[TableLoss]", target: float) -> "list[TableRun]":
    from rightbatch.experiments.repeats import runs_to_loss

    return list(runs_to_loss(rows, target))


def few_arrived(runs: "Sequence[TableRun]") -> bool:
    """Return whether a law of steps would rest on two batch sizes of several run.

    Args:
        runs: To one target.

    Returns:
        True where fewer than three batch sizes reached it, and others were run.
    """
    arrived = {run.batch_size for run in runs if not math.isnan(run.steps)}
    return len(arrived) < LEAST_ARRIVED and any(
        run.batch_size not in arrived for run in runs
    )


def _steps_entry(
    table: Path,
    name: str,
    runs: "list[TableRun]",
    law: str,
    loss_law: dict[str, Any],
) -> dict[str, Any] | None:
    """Return the entry of the law of steps, or None where that of the loss is better.

    It is where too few batch sizes reached the target and others were run.
    """
    from rightbatch.cli.fit import fit_runs

    if len({run.batch_size for run in runs if not math.isnan(run.steps)}) < 2:
        return None
    if law == "auto" and loss_law["at_target"]["is_reachable"] and few_arrived(runs):
        return None
    return fit_runs(table, name, runs, law).to_dict()


def loss_entry(fit: "LossLawFit", loss_law: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a fit where the law of the loss stands for one of steps.

    Args:
        fit: The fitted law.
        loss_law: Its JSON form, with what it says of a target.

    Returns:
        The stable keys of a fit; critical batch size and examples in the limit of
        small batches, which never arrive, have no value.
    """
    at_target = loss_law["at_target"] or {}
    nothing = {"value": None, "low": None, "high": None, "level": fit.level}
    curve = at_target.get("curve") or {"batch_size": [], "steps": []}
    reached = [i for i, steps in enumerate(curve["steps"]) if steps is not None]
    return {
        "law": "loss",
        "example_unit": fit.example_unit,
        "status": fit.status,
        "advice": fit.advice,
        "min_steps": at_target.get("min_steps", nothing),
        "min_examples": nothing,
        "least_examples": at_target.get("least_examples"),
        "critical_batch_size": nothing,
        "min_batch_size": at_target.get("min_batch_size"),
        "median_relative_error": fit.median_relative_error,
        "leave_one_out_error": None,
        "num_batch_sizes": loss_law["num_batch_sizes"],
        "fitted_range": loss_law["fitted_range"],
        "lrs": [],
        "lr_law": None,
        "points": [],
        "curve": {key: [values[i] for i in reached] for key, values in curve.items()},
        "warnings": [],
    }
