"""Figures of the noisy quadratic model, drawn from their numbers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rightbatch.quadratic.paper.figures import Curve, Figure, Panel
from rightbatch.reporting import marks, style
from rightbatch.reporting.drawing import Drawing
from rightbatch.reporting.formats import compact, count, is_number, number
from rightbatch.reporting.marks import Chart
from rightbatch.reporting.sheet import Column, Sheet

MOST_ROWS = 16  # of a table of numbers
_SPACING = 0.2  # between two panels, of the height
_ORDERED = ("power", "B =", "h =")  # groups in an order, which a ramp of colours keeps
_OPTIMIZERS = {
    "sgd": style.color("first"),
    "momentum": style.color("second"),
    "ema": style.color("third"),
    "momentum+ema": style.RAMP[-1].light,
}
_OTHERS = ("alert", "second", "third", "first")
_MOMENTUM_TICKS = ("0", "0.9", "0.99", "0.999", "0.9999")


def quadratic_chart(figure: Figure) -> Chart:
    """Return a figure as it is drawn, with a table of its numbers.

    Args:
        figure: The numbers.

    Returns:
        The chart. Curves of one group share a colour; lines of reference are grey.
    """
    first = figure.panels[0]
    drawing = style.blank(first.y_title)
    if len(figure.panels) > 1:
        drawing.split(_SPACING)
        second = figure.panels[1]
        place = {"x": 0, "y": (1 - _SPACING) / 2, "xshift": -64, "yshift": 12}
        style.note(drawing, second.y_title, xanchor="left", **place)
    for row, panel in enumerate(figure.panels, start=1):
        _draw(drawing, figure, panel, row)
    last = len(figure.panels)
    drawing.update_xaxes(_x_layout(figure), row=None)
    if last > 1:
        drawing.update_xaxes({"title": {"text": ""}, "showticklabels": False}, row=1)
    return Chart(
        name=f"figure-{figure.name}",
        title=figure.title,
        caption=figure.caption,
        drawing=drawing,
        sheet=numbers(figure),
    )


def _draw(drawing: Drawing, figure: Figure, panel: Panel, row: int) -> None:
    shades = _shades(panel.curves)
    values = [y for curve in panel.curves for y in curve.y if np.isfinite(y)]
    axes = {} if row == 1 else {"xaxis": f"x{row}", "yaxis": f"y{row}"}
    for curve in panel.curves:
        _line(drawing, figure, curve, shades[curve.group], axes)
    if panel.y_scale == "linear":
        drawing.update_yaxes(style.axis_layout() | {"rangemode": "tozero"}, row=row)
        return
    axis = style.log_axis(values, most=8 if len(figure.panels) == 1 else 5)
    ticks = {"ticktext": [compact(tick) for tick in axis.ticks]}
    drawing.update_yaxes(axis.layout() | ticks, row=row)
    if row == 1:
        ends = _ends(figure, panel, shades)
        marks.name_ends(drawing, ends, axis)
        if ends:  # "m" is wider than most letters
            widest = max(len(label) for _, _, label, _ in ends)
            drawing.update_layout(margin={"r": 22 + 7.4 * widest})


def _shades(curves: Sequence[Curve]) -> dict[str, str]:
    """Return the colour of each group."""
    groups = list(dict.fromkeys(curve.group for curve in curves if curve.group))
    if all(group.startswith(_ORDERED) for group in groups):
        found = style.ramp(max(len(groups), 2))
    else:
        others = iter(_OTHERS)
        found = [_OPTIMIZERS.get(g) or style.color(next(others)) for g in groups]
    return {"": style.color("muted")} | dict(zip(groups, found, strict=False))


def _line(
    drawing: Drawing, figure: Figure, curve: Curve, shade: str, axes: dict[str, str]
) -> None:
    stroke: dict[str, Any] = {"color": shade, "width": 2}
    if not curve.group:
        stroke |= {"width": 1.6}
    if curve.dashed:
        stroke |= {"dash": "dash" if curve.group else "dot", "width": 1.6}
    if curve.stepped:
        stroke |= {"shape": "hv"}
    dotted = figure.x_scale == "batch" and bool(curve.group)
    texts = [f"{curve.name}: {_said(y)} at {_said(x)}" for x, y in _pairs(curve)]
    drawing.add_scatter(
        x=_across(figure, curve.x),
        y=list(curve.y),
        mode="lines+markers" if dotted else "lines",
        line=stroke,
        marker={"size": 5, "color": shade} if dotted else None,
        hovertemplate="%{text}<extra></extra>",
        text=texts,
        **axes,
    )


def _pairs(curve: Curve) -> list[tuple[float, float]]:
    return list(zip(curve.x, curve.y, strict=True))


def _across(figure: Figure, x: Sequence[float]) -> list[float]:
    # Momentum is shown by what it lacks to one, on a logarithmic axis that falls.
    return [1 - value for value in x] if figure.x_scale == "momentum" else list(x)


def _ends(
    figure: Figure, panel: Panel, shades: dict[str, str]
) -> list[tuple[float, float, str, str]]:
    found: list[tuple[float, float, str, str]] = []
    for curve in panel.curves:
        known = [pair for pair in _pairs(curve) if np.isfinite(pair[1])]
        if curve.label and known:
            x, y = known[-1]
            # A log axis takes text where it takes data.
            place = _across(figure, [x])[0]
            found.append((place, y, curve.label, shades[curve.group]))
    return found


def _x_layout(figure: Figure) -> dict[str, Any]:
    values = [x for panel in figure.panels for curve in panel.curves for x in curve.x]
    if figure.x_scale == "batch":
        return _batch_axis(sorted(set(values)), figure.x_title)
    if figure.x_scale == "momentum":
        return style.axis_layout(figure.x_title) | {
            "type": "log",
            "range": [0.1, math.log10(1 - max(values)) - 0.1],
            "tickmode": "array",
            "tickvals": [1 - float(tick) for tick in _MOMENTUM_TICKS],
            "ticktext": list(_MOMENTUM_TICKS),
        }
    if figure.x_scale == "log":
        axis = style.log_axis(values)
        ticks = {"ticktext": [compact(tick) for tick in axis.ticks]}
        return axis.layout(figure.x_title) | ticks
    return _linear_axis(sorted(set(values)), figure.x_title)


def _batch_axis(sizes: Sequence[float], title: str) -> dict[str, Any]:
    """Return a logarithmic axis with a tick at every other batch size."""
    axis = style.log_axis(sizes, "batch")
    ticks = list(sizes[:: 2 if len(sizes) > 6 else 1])
    return axis.layout(title) | {
        "tickvals": ticks,
        "ticktext": [count(tick) for tick in ticks],
    }


def _linear_axis(values: Sequence[float], title: str) -> dict[str, Any]:
    pad = 0.03 * (values[-1] - values[0])
    layout = style.axis_layout(title) | {"range": [values[0] - pad, values[-1] + pad]}
    if len(values) > 6:
        return layout | {"nticks": 6}
    return layout | {
        "tickmode": "array",
        "tickvals": list(values),
        "ticktext": [number(value) for value in values],
    }


# Numbers ----------------------------------------------------------------------------


def numbers(figure: Figure) -> Sheet:
    """Return the numbers of a figure as a table, thinned where there are many.

    Args:
        figure: The figure.

    Returns:
        A column for each curve where all of a panel share their places; else a row for
        each place of each curve.
    """
    curves = [curve for panel in figure.panels for curve in panel.curves]
    shared = curves[0].x
    if all(curve.x == shared for curve in curves):
        columns = (figure.x_title, *(curve.name for curve in curves))
        rows = [
            (_said(shared[i]), *(_said(curve.y[i]) for curve in curves))
            for i in _thinned(len(shared))
        ]
    else:
        columns = ("curve", figure.x_title, _heights(figure))
        rows = [
            (curve.name, _said(curve.x[i]), _said(curve.y[i]))
            for curve in curves
            for i in _thinned(len(curve.x))
        ]
    return Sheet(
        caption=figure.title,
        columns=tuple(Column(name) for name in columns),
        rows=tuple(rows),
    )


def _heights(figure: Figure) -> str:
    return "; ".join(panel.y_title for panel in figure.panels)


def _thinned(num: int) -> list[int]:
    if num <= MOST_ROWS:
        return list(range(num))
    return sorted({round(i * (num - 1) / (MOST_ROWS - 1)) for i in range(MOST_ROWS)})


def _said(value: float) -> str:
    if not is_number(value):
        return number(None)
    return count(value) if value == int(value) else number(value)
