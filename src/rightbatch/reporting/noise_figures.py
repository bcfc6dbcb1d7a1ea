"""Figures of a measured noise scale: how it grows, and which layers it is of."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rightbatch.reporting import marks, style
from rightbatch.reporting.drawing import Drawing
from rightbatch.reporting.formats import (
    count,
    ends,
    entries,
    field,
    is_number,
    number,
    percent,
)
from rightbatch.reporting.marks import Chart
from rightbatch.reporting.noise_tables import noise_sheet, noise_text
from rightbatch.reporting.sheet import Column, Sheet

Document = Mapping[str, Any]
Record = Mapping[str, Any]
MOST_LAYERS = 6
_SPACING = 0.2  # between two panels, of the height
_LINE = 0.14  # of a panel's height, what a line of text takes


def noise_charts(document: Document) -> list[Chart]:
    """Return the figures of a document that holds a measured noise scale.

    Args:
        document: What `noise` or `plan --quick` prints with `--json`.

    Returns:
        Those whose data are there: against the loss, against examples, by layers.

    Example:
        >>> noise_charts({"measurements": []})
        []
    """
    rows = [row for row in entries(document, "measurements") if _height(row)]
    found = [
        by_loss_chart(document, rows),
        by_examples_chart(document, rows),
        parts_chart(rows),
    ]
    return [chart for chart in found if chart is not None]


def by_loss_chart(document: Document, rows: Sequence[Record]) -> Chart | None:
    """Return the noise scale against the training loss, which falls to the right."""
    kept = [row for row in rows if _positive(field(row, "loss"))]
    if len(kept) < 2:
        return None
    drawing = style.blank("noise scale, examples")
    _noise(drawing, document, kept, "loss")
    across = style.log_axis([row["loss"] for row in kept])
    layout = across.layout("training loss, falling to the right")
    layout["range"] = layout["range"][::-1]
    drawing.update_xaxes(layout)
    return _chart("noise-by-loss", _way_of(kept), document, drawing, kept)


def _way_of(rows: Sequence[Record]) -> str:
    first, last = rows[0], rows[-1]
    said = f"From a loss of {number(first['loss'])} to {number(last['loss'])} the "
    said += f"noise scale goes from {noise_text(first)}"
    known = [row for row in rows if field(row, "status") == "resolved"]
    lowest = min(known, key=_height, default=first)
    # Both ends alone would hide a valley; one within their intervals is none.
    floor = min(_low(first) or 0.0, _low(last) or 0.0)
    if (field(lowest, "simple_noise_scale", "high") or math.inf) < floor:
        return f"{said} down to {noise_text(lowest)}, then up to {noise_text(last)}"
    return f"{said} to {noise_text(last)}"


def by_examples_chart(document: Document, rows: Sequence[Record]) -> Chart | None:
    """Return the noise scale against the examples trained on."""
    kept = [row for row in rows if _positive(field(row, "examples"))]
    if len(kept) < 2:
        return None
    drawing = style.blank("noise scale, examples")
    _noise(drawing, document, kept, "examples")
    seen = [row["examples"] for row in kept]
    drawing.update_xaxes(style.log_axis(seen).layout("examples trained on"))
    highest = max(kept, key=_height)
    where = (
        "at the end"
        if highest is kept[-1]
        else (f"by {count(highest['examples'])} examples")
    )
    title = f"In training it is largest {where}: {noise_text(highest)} examples"
    return _chart("noise-by-examples", title, document, drawing, kept)


def _chart(
    name: str,
    title: str,
    document: Document,
    drawing: Drawing,
    rows: Sequence[Record],
) -> Chart:
    caption = "Points: windows of updates, disjoint. Band: the 95 % interval."
    if any(field(row, "status") != "resolved" for row in rows):
        caption += " Triangles: at least so much, the interval has no upper end."
    if is_number(field(document, "calibration", "critical_batch_size", "value")):
        caption += " Dashed: the critical batch size fitted to runs."
    return Chart(
        name=name,
        title=title,
        caption=caption,
        drawing=drawing,
        sheet=noise_sheet(rows),
    )


def _noise(
    drawing: Drawing, document: Document, rows: Sequence[Record], key: str
) -> None:
    shade, muted = style.color("first"), style.color("muted")
    known = [row for row in rows if field(row, "status") == "resolved"]
    least = [row for row in rows if field(row, "status") != "resolved"]
    phi = field(document, "calibration", "critical_batch_size", "value")
    heights = [_height(row) for row in rows]
    edges = [
        end
        for row in known
        for end in (field(row, "simple_noise_scale", "high"), _low(row))
    ]
    axis = style.log_axis([*heights, *edges, phi])
    # A band between windows that are not neighbours would say what nobody measured.
    for group in _neighbours(rows):
        if len(group) > 1:
            x = [row[key] for row in group]
            low = [_low(row) or axis.low for row in group]
            high = [field(row, "simple_noise_scale", "high") for row in group]
            marks.band(drawing, x, low, high, shade)
            marks.line(drawing, x, [_height(row) for row in group], shade)
    for group, symbol in ((known, "circle"), (least, "triangle-up")):
        if group:
            told = [_told(row) for row in group]
            x, y = [row[key] for row in group], [_height(row) for row in group]
            look = {"texts": told, "symbol": symbol}
            marks.points(drawing, x, y, shade, "%{text}", **look)
            bars = [_bar(row, axis) for row in group]
            drawing.data[-1]["error_y"] = marks.error_bars(y, bars, shade)
    if _positive(phi):
        x = [row[key] for row in rows]
        across = [min(x), max(x)]
        marks.line(drawing, across, [phi, phi], muted, width=1.4, dash="dash")
    drawing.update_yaxes(axis.layout())


def _neighbours(rows: Sequence[Record]) -> list[list[Record]]:
    groups: list[list[Record]] = [[]]
    for row in rows:
        if field(row, "status") == "resolved":
            groups[-1].append(row)
        else:
            groups.append([])
    return groups


def _bar(row: Record, axis: style.Axis) -> tuple[float, float]:
    height = _height(row)
    if field(row, "status") != "resolved":
        return height, height
    return _low(row) or axis.low, field(row, "simple_noise_scale", "high")


def _told(row: Record) -> str:
    text = f"updates {count(row['step'])}, loss {number(row['loss'])}<br>"
    text += f"noise scale {noise_text(row)}"
    if field(row, "status") == "resolved":
        text += f" ({ends(field(row, 'simple_noise_scale'))})"
    return text


def parts_chart(rows: Sequence[Record]) -> Chart | None:
    """Return the layers' shares of both moments over training, two panels."""
    kept = [row for row in rows if field(row, "parts")]
    if len(kept) < 2 or len(field(kept[-1], "parts")) < 2:
        return None
    shares = ("share_of_variance", "share_of_sq_norm")
    layers = _largest(kept)
    drawing = style.blank("share of tr Σ")
    drawing.split(_SPACING)
    place = {"x": 0, "y": (1 - _SPACING) / 2, "xshift": -64, "yshift": 12}
    style.note(drawing, "share of |G|²", xanchor="left", **place)
    # By row, not by updates: the windows double, and none may hide the first.
    across = list(range(len(kept)))
    for place_of, share in enumerate(shares):
        axes = {} if place_of == 0 else {"xaxis": "x2", "yaxis": "y2"}
        named: list[tuple[float, str, str]] = []
        for name, shade in zip(layers, style.ramp(max(2, len(layers))), strict=False):
            heights = [field(row, "parts", name, share) for row in kept]
            drawing.add_scatter(
                x=across,
                y=heights,
                mode="lines+markers",
                line={"color": shade, "width": 2},
                marker={"size": 5, "color": shade},
                text=[f"{escape(name)}: {percent(height)}" for height in heights],
                hovertemplate="%{text}<extra></extra>",
                **axes,
            )
            if is_number(heights[-1]):
                named.append((heights[-1], name, shade))
        _name(drawing, across[-1], named, axes)
    ticks = {"tickmode": "array", "tickvals": across}
    ticks |= {"ticktext": [count(row["step"]) for row in kept]}
    ends_of = {"range": [-0.2, len(kept) - 0.8]}
    layout = style.axis_layout("updates made at the window's end") | ticks | ends_of
    drawing.update_xaxes(layout)
    drawing.update_xaxes({"title": {"text": ""}, "showticklabels": False}, row=1)
    drawing.update_yaxes(
        style.axis_layout() | {"tickformat": ".0%", "rangemode": "tozero", "nticks": 6}
    )
    room = max(len(name) for name in layers)
    drawing.update_layout(margin={"r": 22 + 7.4 * room})
    return Chart(
        name="noise-parts",
        title=_parts_title(kept[-1], layers),
        caption="Both moments add over layers. Upper: of the noise; lower: of the "
        "squared gradient, which is the harder one to tell."
        + (f" The {MOST_LAYERS} noisiest layers." if _num(kept) > MOST_LAYERS else ""),
        drawing=drawing,
        sheet=_shares_sheet(kept, layers),
    )


def _name(
    drawing: Drawing,
    x: float,
    named: Sequence[tuple[float, str, str]],
    axes: Mapping[str, str],
) -> None:
    """Write names at the right ends, none upon another."""
    heights = [height for height, _, _ in named]
    gap = _LINE * max([0.0, *heights])
    places = marks.spread(heights, gap)
    for place, (_, name, shade) in zip(places, named, strict=True):
        drawing.add_scatter(
            x=[x],
            y=[place],
            mode="text",
            text=[f"\u2002{escape(name)}"],
            textposition="middle right",
            textfont={"color": shade, "size": 12.5},
            cliponaxis=False,
            hoverinfo="skip",
            **axes,
        )


def _largest(rows: Sequence[Record]) -> list[str]:
    def size(name: str) -> float:
        found = (field(row, "parts", name, "share_of_variance") for row in rows)
        return max((value for value in found if is_number(value)), default=0.0)

    names = list(field(rows[-1], "parts"))
    largest = sorted(names, key=size, reverse=True)[:MOST_LAYERS]
    return [name for name in names if name in largest]


def _parts_title(row: Record, layers: Sequence[str]) -> str:
    def share(name: str) -> float:
        value = field(row, "parts", name, "share_of_variance")
        return value if is_number(value) else 0.0

    most = max(layers, key=share)
    return f"Layer {most} has {percent(share(most))} of the noise at the end"


def _shares_sheet(rows: Sequence[Record], layers: Sequence[str]) -> Sheet:
    table = [
        (
            count(row["step"]),
            name,
            percent(field(row, "parts", name, "share_of_variance")),
            percent(field(row, "parts", name, "share_of_sq_norm")),
            noise_text(field(row, "parts", name) or {}),
        )
        for row in rows
        for name in layers
    ]
    heads = ("updates", "layer", "share of tr Σ", "share of |G|²", "its noise scale")
    return Sheet(
        caption="Shares of the layers",
        columns=tuple(Column(head) for head in heads),
        rows=tuple(table),
    )


def _num(rows: Sequence[Record]) -> int:
    return len(field(rows[-1], "parts"))


def _height(row: Record) -> float:
    """Return where a row is drawn: its value, or what it is at least; 0 for nowhere."""
    if field(row, "status") == "resolved":
        value = field(row, "simple_noise_scale", "value")
    else:
        value = field(row, "lower_bound")
    return value if is_number(value) else 0.0


def _low(row: Record) -> float | None:
    value = field(row, "simple_noise_scale", "low")
    return value if _positive(value) else None


def _positive(value: Any) -> bool:
    return is_number(value) and value > 0
