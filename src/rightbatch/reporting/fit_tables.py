"""Tables of what a fit says beyond its law: definitions of a critical batch size."""

from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import ends, entries, field, label, number
from rightbatch.reporting.sheet import Column, Sheet
from rightbatch.reporting.tables import fit_name

Record = Mapping[str, Any]


def definitions_sheet(fits: Sequence[Record]) -> Sheet:
    """Return every definition of a critical batch size, one row each.

    Args:
        fits: `convergence` of a plan or `workloads` of a fit, with `definitions`.

    Returns:
        A sheet; without rows where no fit has them.

    Example:
        >>> one = {"name": "even_trade", "value": 45.0, "low": 40.0, "high": 52.0}
        >>> definitions_sheet([{"workload": "a", "definitions": [one]}]).rows
        (('a', 'even trade', '45', '40–52', '–', '–'),)
    """
    columns = (
        Column("fit", align="left"),
        Column("name", align="left"),
        Column("batch size"),
        Column("interval"),
        Column("definition", align="left"),
        Column("who", align="left"),
    )
    rows = tuple(
        (
            fit_name(fit),
            _name(one),
            number(field(one, "value")),
            ends(one),
            label(field(one, "definition")),
            label(field(one, "who")),
        )
        for fit in fits
        for one in entries(fit, "definitions")
    )
    caption = "Critical batch sizes, by definition"
    return Sheet(caption=caption, columns=columns, rows=rows)


def _name(one: Record) -> str:
    parameters: Mapping[str, Any] = field(one, "parameters") or {}
    said = [label(field(one, "name")).replace("_", " ")]
    said += [f"{key} {number(value)}" for key, value in parameters.items()]
    return ", ".join(said)
