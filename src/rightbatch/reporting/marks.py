"""The marks figures are made of: laws as lines, data as points, intervals as bands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from rightbatch.reporting import style
from rightbatch.reporting.drawing import Drawing
from rightbatch.reporting.sheet import Sheet

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Measured values, or names on an axis of categories.
Values = Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure, and what it says.

    Args:
        name: Short name, unique in a document; fit for an HTML id.
        title: The finding, computed from the numbers.
        caption: How to read the marks.
        drawing: The figure without its title.
        sheet: The numbers it shows, for those who would rather read them.
    """

    name: str
    title: str
    caption: str
    drawing: Drawing
    sheet: Sheet | None = None

    @property
    def figure(self) -> "go.Figure":
        """A new figure of plotly, which checks every setting, without its title."""
        import plotly.graph_objects as go

        return go.Figure(self.drawing.to_dict()).update_layout(template="none")

    def titled(self) -> "go.Figure":
        """Return the figure of plotly that carries the title itself."""
        title = {
            "text": f"<b>{escape(self.title)}</b>",
            "x": 0.02,
            "font": {"size": 16},
        }
        return self.figure.update_layout(title=title, margin={"t": 84})


def line(drawing: Drawing, x: Values, y: Values, shade: str, **more: Any) -> None:
    """Draw a law as a line; `width`, `dash`, `hover` and `texts` may be given."""
    stroke = {"color": shade, "width": more.get("width", 2), "dash": more.get("dash")}
    told = _hover(more.get("hover"), more.get("texts"))
    drawing.add_scatter(x=x, y=y, mode="lines", line=stroke, **told)


def points(
    drawing: Drawing,
    x: Values,
    y: Values,
    shade: str,
    hover: str,
    **marker: Any,
) -> None:
    """Draw data as points; `marker` are settings of a marker, and `texts` for hover."""
    look = {
        "color": shade,
        "size": 8,
        "line": {"color": style.color("paper"), "width": 1},
    }
    told = _hover(hover, marker.pop("texts", None))
    drawing.add_scatter(x=x, y=y, mode="markers", marker=look | marker, **told)


def band(
    drawing: Drawing,
    x: Sequence[float],
    low: Values,
    high: Values,
    shade: str,
) -> None:
    """Fill between two curves where both are known and positive."""
    kept = [
        (a, b, c)
        for a, b, c in zip(x, low, high, strict=True)
        if b is not None and c is not None and b > 0
    ]
    if kept:
        at, below, above = zip(*kept, strict=True)
        drawing.add_scatter(
            x=[*at, *reversed(at)],
            y=[*above, *reversed(below)],
            fill="toself",
            fillcolor=style.faint(shade),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
        )


def name_ends(
    drawing: Drawing, ends: Sequence[tuple[float, float, str, str]], axis: style.Axis
) -> None:
    """Write a name at the right end of each curve, none upon another.

    Args:
        drawing: Where to write.
        ends: x and y of the end, the name (escaped here), and the colour.
        axis: The vertical axis.
    """
    if not ends:
        return
    room = max(len(text) for _, _, text, _ in ends)
    drawing.update_layout(margin={"r": 14 + 7 * room})
    gap = 0.062 * math.log(axis.high / axis.low)
    heights = [math.log(y) for _, y, _, _ in ends]
    within = math.log(axis.low), math.log(axis.high)
    places = np.exp(spread(heights, gap, within))
    for (x, _, text, shade), y in zip(ends, places.tolist(), strict=True):
        drawing.add_scatter(
            x=[x],
            y=[y],
            mode="text",
            text=[f"\u2002{escape(text)}"],
            textposition="middle right",
            textfont={"color": shade, "size": 12.5},
            cliponaxis=False,
            hoverinfo="skip",
        )


def spread(
    values: Sequence[float],
    gap: float,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> list[float]:
    """Return the values moved apart, as little as that takes, to at least a gap.

    Args:
        values: Places on a line, in any order.
        gap: Least distance between two.
        within: Ends of the line.

    Returns:
        The new places, in the order of the values.

    Example:
        >>> spread([1.0, 1.0, 9.0], gap=2.0)
        [0.0, 2.0, 9.0]
        >>> spread([1.0, 1.0, 9.0], gap=2.0, within=(0.5, 10.0))
        [0.5, 2.5, 9.0]
    """

    def start(group: Sequence[int]) -> float:
        length = gap * (len(group) - 1)
        centred = sum(values[i] for i in group) / len(group) - length / 2
        return max(within[0], min(centred, within[1] - length))

    groups: list[list[int]] = []
    for i in sorted(range(len(values)), key=lambda i: values[i]):
        groups.append([i])
        # Two groups that touch become one, centred on the mean of its members.
        while len(groups) > 1 and (
            start(groups[-1]) - start(groups[-2]) < gap * len(groups[-2]) - 1e-12
        ):
            upper = groups.pop()
            groups[-1] += upper
    moved = list(values)
    for group in groups:
        for rank, i in enumerate(group):
            moved[i] = start(group) + rank * gap
    return moved


def _hover(template: str | None, texts: Values | None) -> dict[str, Any]:
    if template is None:
        return {"hoverinfo": "skip"}
    return {"hovertemplate": template + "<extra></extra>", "text": texts}


def error_bars(
    values: Sequence[float], ends: Sequence[tuple[float, float]], shade: str
) -> dict[str, Any]:
    """Return plotly's error bars from values to the ends of their intervals."""
    pairs = list(zip(values, ends, strict=True))
    return {
        "type": "data",
        "array": [max(0.0, high - value) for value, (_, high) in pairs],
        "arrayminus": [max(0.0, value - low) for value, (low, _) in pairs],
        "color": shade,
        "thickness": 1.4,
        "width": 3,
    }
