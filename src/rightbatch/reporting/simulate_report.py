"""The report of a table of ``simulate``: steps against batch size, settings, laws."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rightbatch.quadratic.paper.figures import Curve, Figure, Panel
from rightbatch.reporting import page
from rightbatch.reporting.formats import entries, field, label, number, seconds, whole
from rightbatch.reporting.quadratic_figures import quadratic_chart
from rightbatch.reporting.simulate_tables import (
    bins_line,
    fits_sheet,
    settings_sheets,
    steps_sheets,
)

Document = Mapping[str, Any]
# What differs in the momentum or the average alone shares a colour, dashed.
_RELATIVES = {
    "nesterov": "momentum",
    "nesterov+ema": "momentum+ema",
    "tail-average": "average",
}
_MOST_IN_TITLE = 4


def write_simulate_report(path: str | Path, document: Document) -> Path:
    """Write the report of a table to one HTML file, whole or not at all.

    Args:
        path: Where to; an existing file is replaced.
        document: What ``simulate --json`` prints.

    Returns:
        The path.

    Raises:
        InputError: The path cannot be written.
        RightbatchError: The disk failed or is full; an older file is kept.
    """
    return page.write_page(render_simulation(document), path)


def render_simulation(document: Document) -> str:
    """Return the report of a table as one page.

    Args:
        document: What ``simulate --json`` prints.

    Returns:
        A whole HTML document, which loads nothing from anywhere.
    """
    powers = _distinct(document, "power")
    charts = [quadratic_chart(steps_figure(document, power)) for power in powers]
    fitted = fits_sheet(document)
    title = headline(document)
    body = [
        _header(document, title),
        page.section(
            "Steps to the target",
            [
                *(page.figure(chart) for chart in charts),
                *(page.table(sheet) for sheet in steps_sheets(document)),
            ],
        ),
        page.section("Fitted laws", [page.table(fitted)] if fitted else []),
        page.section(
            "Settings", [page.table(sheet) for sheet in settings_sheets(document)]
        ),
        page.section("What was asked for", [_inputs(document)]),
    ]
    return page.page(title, body, document, charts)


def headline(document: Document) -> str:
    """Return what the table says, in one sentence.

    Args:
        document: What ``simulate --json`` prints.

    Returns:
        The critical batch sizes, or what was computed where no law was fitted.

    Example:
        >>> fit = {"optimizer": "sgd", "power": 0.0, "critical_batch_size": 852.3}
        >>> headline({"fits": [fit]})
        'Critical batch size 852 for sgd'
    """
    fits = [
        one
        for one in entries(document, "fits")
        if field(one, "critical_batch_size") is not None
    ]
    if not fits or len(fits) > _MOST_IN_TITLE:
        cells = entries(document, "cells")
        found = sum(one["steps"] is not None for one in cells)
        return f"{found} of {len(cells)} cells reach the target"
    several = len({one["power"] for one in fits}) > 1
    said = [
        f"{whole(one['critical_batch_size'])} for {one['optimizer']}"
        + (f" at power {label(one['power'])}" if several else "")
        for one in fits
    ]
    return f"Critical batch size {', '.join(said)}"


def steps_figure(document: Document, power: float) -> Figure:
    """Return steps against batch size at one preconditioner power, as numbers.

    Args:
        document: What ``simulate --json`` prints.
        power: Of the preconditioner.

    Returns:
        A curve per optimizer, and the bounds.
    """
    cells = [one for one in entries(document, "cells") if one["power"] == power]
    names = list(dict.fromkeys(one["optimizer"] for one in cells))
    curves = [_curve([one for one in cells if one["optimizer"] == n]) for n in names]
    first = [one for one in cells if one["optimizer"] == names[0]]
    sizes = tuple(float(one["batch_size"]) for one in first)
    bounds = (
        ("maximum likelihood", "max_likelihood_bound", True),
        ("Bayes bound", "bayes_bound", False),
    )
    lines = [
        Curve(
            name=name,
            label=name,
            x=sizes,
            y=tuple(float(one[key]) for one in first),
            dashed=dashed,
        )
        for name, key, dashed in bounds
    ]
    several = len(_distinct(document, "power")) > 1
    return Figure(
        name=f"power-{power:g}",
        title=f"Steps to a loss of {label(field(document, 'inputs', 'target'))}"
        + (f", preconditioner power {power:g}" if several else ""),
        caption="Each point is tuned at its own batch size. Nothing can be below the "
        "Bayes bound; the maximum-likelihood number is no bound.",
        x_title="batch size, examples",
        panels=(Panel(y_title="steps", curves=(*curves, *lines)),),
    )


def _curve(cells: Sequence[Mapping[str, Any]]) -> Curve:
    name = str(cells[0]["optimizer"])
    return Curve(
        name=name,
        label=name,
        group=_RELATIVES.get(name, name),
        x=tuple(float(one["batch_size"]) for one in cells),
        y=tuple(
            math.nan if one["steps"] is None else float(one["steps"]) for one in cells
        ),
        dashed=name in _RELATIVES,
    )


def _header(document: Document, title: str) -> str:
    lead = (
        f"From a loss of {number(field(document, 'initial_loss'))} to "
        f"{label(field(document, 'inputs', 'target'))} in the noisy quadratic model: "
        f"{bins_line(field(document, 'bins') or {})}. "
        f"{len(entries(document, 'cells'))} cells in "
        f"{seconds(field(document, 'seconds'))}."
    )
    return (
        '<header>\n<p class="about">rightbatch · simulate</p>\n'
        '<button id="theme" type="button" hidden>Dark</button>\n'
        f'<h1>{page.words(title)}</h1>\n<p class="lead">{page.words(lead)}</p></header>'
    )


def _inputs(document: Document) -> str:
    rows = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(label(value))}</dd>"
        for key, value in (field(document, "inputs") or {}).items()
    )
    return f'<div><dl class="settings">{rows}</dl>{page.save_button()}</div>'


def _distinct(document: Document, key: str) -> list[Any]:
    return list(dict.fromkeys(one[key] for one in entries(document, "cells")))
