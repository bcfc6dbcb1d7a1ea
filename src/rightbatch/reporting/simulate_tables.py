"""The tables of ``simulate``, as sheets: each takes records of the JSON document."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import (
    MISSING,
    count,
    entries,
    field,
    is_number,
    label,
    number,
    percent,
    times,
    whole,
)
from rightbatch.reporting.sheet import Column, Sheet

Record = Mapping[str, Any]
UNREACHABLE = "unreachable"
PER_SHEET = 4
_MOST_REASONS = 6


def steps_sheets(document: Record) -> list[Sheet]:
    """Return steps by batch size and optimizer: a sheet per power and 4 optimizers.

    Args:
        document: Of ``simulate``.

    Returns:
        Sheets that fit 80 columns; none for one optimizer, whose settings say it all.
    """
    cells = entries(document, "cells")
    names = _distinct(cells, "optimizer")
    if len(names) < 2:
        return []
    return [
        _steps_sheet(document, power, names[first : first + PER_SHEET])
        for power in _distinct(cells, "power")
        for first in range(0, len(names), PER_SHEET)
    ]


def _steps_sheet(document: Record, power: Any, names: Sequence[Any]) -> Sheet:
    cells = [one for one in entries(document, "cells") if one["power"] == power]
    by_place = {(one["optimizer"], one["batch_size"]): one for one in cells}
    columns = (
        Column("batch size", "batch\nsize"),
        *(Column(label(name), label(name).replace("+", "\n+")) for name in names),
        Column("maximum likelihood", "max. like-\nlihood", wide=True),
        Column("Bayes bound", "Bayes\nbound"),
    )
    rows = tuple(
        (
            count(size),
            *(_steps(by_place.get((name, size))) for name in names),
            *_bounds(next(one for one in cells if one["batch_size"] == size)),
        )
        for size in _distinct(cells, "batch_size")
    )
    return Sheet(
        caption=_caption(document, power).capitalize(), columns=columns, rows=rows
    )


def settings_sheets(document: Record) -> list[Sheet]:
    """Return steps and the settings that need them: a sheet per optimizer.

    Args:
        document: Of ``simulate``.

    Returns:
        Sheets that fit 80 columns, why cells are unreachable below each.
    """
    names = _distinct(entries(document, "cells"), "optimizer")
    return [_settings_sheet(document, name, alone=len(names) == 1) for name in names]


def _settings_sheet(document: Record, name: Any, *, alone: bool) -> Sheet:
    cells = [one for one in entries(document, "cells") if one["optimizer"] == name]
    powers = _distinct(cells, "power")
    scheduled = any(field(one, "schedule") for one in cells)
    shown: list[tuple[Column, Callable[[Record], str]]] = [
        (Column("power"), lambda one: label(one["power"])),
        (Column("batch size", "batch\nsize"), lambda one: count(one["batch_size"])),
        (Column("steps"), _steps),
        (Column("peak lr" if scheduled else "lr"), lambda one: number(one["lr"])),
        (Column("momentum"), lambda one: decay(one["momentum"])),
        (Column("EMA decay", "EMA\ndecay"), lambda one: decay(one["ema_decay"])),
        (Column("schedule", align="left"), lambda one: label(field(one, "schedule"))),
        (
            Column("below for good from", "below\nfor good"),
            lambda one: count(field(one, "settling_steps")),
        ),
        (
            Column("updates when the batch grows", "batch\ngrows"),
            lambda one: count(field(one, "growth", "updates")),
        ),
        (
            Column("times fewer updates", "fewer"),
            lambda one: times(field(one, "growth", "saving")),
        ),
        (
            Column("maximum likelihood", "max. like-\nlihood", wide=True),
            lambda one: _bounds(one)[0],
        ),
        (Column("Bayes bound", "Bayes\nbound"), lambda one: _bounds(one)[1]),
    ]
    rows = [[text(one) for _, text in shown] for one in cells]
    asked = {
        "power": len(powers) > 1,
        "schedule": len(_distinct(cells, "schedule")) > 1,
        "maximum likelihood": alone,
        "Bayes bound": alone,
    }
    # What no cell has is not a column.
    kept = [
        i
        for i, (column, _) in enumerate(shown)
        if asked.get(column.heading, any(row[i] != MISSING for row in rows))
    ]
    power = powers[0] if len(powers) == 1 else None
    return Sheet(
        caption=f"{label(name)}: {_caption(document, power)}",
        columns=tuple(shown[i][0] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        notes=_reasons(cells),
    )


def _reasons(cells: Sequence[Record]) -> tuple[str, ...]:
    """Return why cells are unreachable, a line for each reason."""
    several = len(_distinct(cells, "power")) > 1
    places: dict[tuple[str, str], list[str]] = {}
    for one in cells:
        why = field(one, "why")
        if why:
            power = f"power {label(one['power'])}, " if several else ""
            places.setdefault((power, why), []).append(count(one["batch_size"]))
    lines = [
        f"{power}batch size {', '.join(sizes)}: {why}"
        for (power, why), sizes in places.items()
    ]
    more = len(lines) - _MOST_REASONS
    if more > 0:
        lines = [*lines[:_MOST_REASONS], f"and {more} more like these"]
    return tuple(lines)


def fits_sheet(document: Record) -> Sheet | None:
    """Return the inverse laws that were fitted to the table, one row each.

    Args:
        document: Of ``simulate``.

    Returns:
        A sheet that fits 80 columns; None where nothing was fitted.

    Example:
        >>> fit = {"optimizer": "sgd", "power": 0.0, "critical_batch_size": 852.2}
        >>> fits_sheet({"fits": [fit]}).rows[0][:3]
        ('sgd', '0', '852')
    """
    fits = entries(document, "fits")
    if not fits:
        return None
    columns = (
        Column("optimizer", align="left"),
        Column("power"),
        Column("critical batch size", "critical\nbatch size"),
        Column("fewest steps", "fewest\nsteps"),
        Column("fewest examples", "fewest\nexamples"),
        Column("largest error", "largest\nerror"),
        Column("knee exponent", "knee\nexponent"),
        Column("its largest error", "its largest\nerror", wide=True),
    )
    rows = tuple(
        (
            label(field(one, "optimizer")),
            label(field(one, "power")),
            whole(field(one, "critical_batch_size")),
            whole(field(one, "min_steps")),
            whole(field(one, "min_examples")),
            percent(field(one, "misfit")),
            number(field(one, "knee_exponent")),
            percent(field(one, "knee_misfit")),
        )
        for one in fits
    )
    note = "a knee exponent above 1: the corner is sharper than the inverse law's"
    return Sheet(
        caption="The inverse law fitted to these steps, S_min + E_min/B",
        columns=columns,
        rows=rows,
        notes=(note,),
    )


def bins_line(bins: Record) -> str:
    """Return in words how directions were put together.

    Args:
        bins: `bins` of a document.

    Returns:
        One line.

    Example:
        >>> bins_line({"num_dims": 10000, "num_nodes": 84, "error": 0.0032})
        '84 nodes stand for 10,000 directions; they move the loss by 0.32 % at most'
    """
    num, nodes = field(bins, "num_dims"), field(bins, "num_nodes")
    error = field(bins, "error")
    if not error:
        return f"{count(num)} directions, exact"
    who = "1 node stands" if nodes == 1 else f"{count(nodes)} nodes stand"
    moves = "it moves" if nodes == 1 else "they move"
    return (
        f"{who} for {count(num)} directions; {moves} the loss "
        f"by {percent(error)} at most"
    )


def decay(value: Any) -> str:
    """Return a momentum or a decay with the digits that tell it from one.

    Example:
        >>> decay(0.994481), decay(0.91486), decay(0.0), decay(0.5), decay(None)
        ('0.99448', '0.9149', '0', '0.5', '–')
    """
    if not is_number(value):
        return MISSING
    gap = 1 - value
    if gap <= 0 or value < 0.5:
        return number(value)
    decimals = 2 - math.floor(math.log10(gap))
    return f"{value:.{decimals}f}".rstrip("0")


def _steps(cell: Record | None) -> str:
    if cell is None:
        return MISSING
    return UNREACHABLE if cell["steps"] is None else count(cell["steps"])


def _bounds(cell: Record) -> tuple[str, str]:
    return _bound(cell["max_likelihood_bound"]), _bound(cell["bayes_bound"])


def _bound(value: Any) -> str:
    # A bound is compared with whole steps: three digits would be too few.
    if not is_number(value):
        return MISSING
    return f"{value:,.0f}" if value >= 100 else number(value)


def _caption(document: Record, power: Any) -> str:
    text = f"steps to a loss of {label(field(document, 'inputs', 'target'))}"
    schedule = field(document, "inputs", "schedule")
    if schedule and schedule != "constant":
        text += f" under {schedule}"
    return text if power is None else f"{text}, preconditioner power {label(power)}"


def _distinct(records: Sequence[Record], key: str) -> list[Any]:
    return list(dict.fromkeys(field(one, key) for one in records))
