"""One quiet look for every figure: colours, paper and axes.

Each colour is a pair, for light and for dark paper. Figures are drawn in the light one;
a page swaps whole pairs. Marks keep 3:1 and text 4.5:1 against their paper.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from rightbatch.reporting.drawing import Drawing
from rightbatch.reporting.formats import count, is_number, number, seconds

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_FADED = "2e"  # alpha of a band, as two hexadecimal digits
_PAD = 0.045  # of an axis, on either side of the data
_TIME_TICKS = (30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 72000)


class Shade(NamedTuple):
    """A colour on light and on dark paper."""

    light: str
    dark: str


PALETTE = {
    "paper": Shade("#fdfdfc", "#15181d"),
    "panel": Shade("#f3f4f2", "#1d2127"),
    "ink": Shade("#1b1f26", "#e7e9ec"),
    "muted": Shade("#59626e", "#a2abb8"),
    "grid": Shade("#e5e7e9", "#2b3139"),
    "axis": Shade("#b9bfc6", "#4b535e"),
    "first": Shade("#0b62a8", "#6db3f0"),
    "second": Shade("#b8480a", "#f2a05c"),
    "third": Shade("#0a7554", "#4fc79b"),
    "alert": Shade("#9a5b00", "#f0b44c"),
}
# Ordered series (targets, replicas): lightness falls evenly, so the order survives any
# colour vision; the ends of the curves are labelled all the same.
RAMP = (
    Shade("#8a7a00", "#e9dd63"),
    Shade("#2f8a3c", "#8ed67a"),
    Shade("#0e7f7d", "#4cc4bb"),
    Shade("#22679e", "#63a8e6"),
    Shade("#3d3f92", "#9a94f2"),
    Shade("#4f1d63", "#c98be6"),
)


def color(name: str) -> str:
    """Return a colour of the palette as figures are drawn, for light paper.

    Example:
        >>> color("first")
        '#0b62a8'
    """
    return PALETTE[name].light


def ramp(num_series: int) -> list[str]:
    """Return colours for ordered series; a single series has the first colour.

    Example:
        >>> len(ramp(4)), ramp(1) == [color("first")]
        (4, True)
    """
    if num_series == 1:
        return [color("first")]
    last = len(RAMP) - 1
    places = (round(i * last / (num_series - 1)) for i in range(num_series))
    return [RAMP[place].light for place in places]


def dark_of() -> dict[str, str]:
    """Return what becomes of each light colour, bands included, on dark paper.

    Example:
        >>> dark_of()["#0b62a8"]
        '#6db3f0'
    """
    shades = [*PALETTE.values(), *RAMP]
    plain = {shade.light: shade.dark for shade in shades}
    faded = {faint(shade.light): faint(shade.dark) for shade in shades}
    return plain | faded


def faint(shade: str) -> str:
    """Return a colour thinned for a band.

    Example:
        >>> faint("#0b62a8")
        '#0b62a82e'
    """
    return f"{shade}{_FADED}"


def blank(y_title: str, **layout: Any) -> Drawing:
    """Return an empty drawing; what its height means stands above the axis."""
    drawing = Drawing()
    drawing.update_layout(
        font={"family": _FONT, "size": 13, "color": color("ink")},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        hovermode="closest",
        margin={"l": 64, "r": 16, "t": 34, "b": 52},
        hoverlabel={
            "bgcolor": color("panel"),
            "bordercolor": color("axis"),
            "font": {"color": color("ink")},
        },
        **layout,
    )
    return note(drawing, y_title, x=0, y=1, xshift=-64, yshift=12, xanchor="left")


def note(drawing: Drawing, text: str, **place: Any) -> Drawing:
    """Return the drawing with a few muted words at a place of the paper."""
    font = {"color": color("muted"), "size": 12.5}
    place = {"xref": "paper", "yref": "paper", "yanchor": "bottom"} | place
    drawing.add_annotation(text=text, showarrow=False, font=font, **place)
    return drawing


def batch_axis(unit: str = "examples") -> str:
    """Return the title of an axis of batch sizes.

    Example:
        >>> batch_axis("tokens")
        'batch size, tokens per step'
    """
    return f"batch size, {unit} per step"


class Axis(NamedTuple):
    """A logarithmic axis: its ends and its ticks, in the unit of the data."""

    low: float
    high: float
    ticks: list[float]
    text: list[str]

    def layout(self, title: str = "") -> dict[str, Any]:
        """Return plotly's settings; a log axis takes its range in powers of ten."""
        return axis_layout(title) | {
            "type": "log",
            "range": [math.log10(self.low), math.log10(self.high)],
            "tickmode": "array",
            "tickvals": self.ticks,
            "ticktext": self.text,
        }


def axis_layout(title: str = "") -> dict[str, Any]:
    """Return what every axis has: a thin line, a faint grid, a muted title."""
    muted = {"color": color("muted"), "size": 12.5}
    return {
        "title": {"text": title, "font": muted, "standoff": 10},
        "tickfont": muted,
        "tickangle": 0,
        "gridcolor": color("grid"),
        "linecolor": color("axis"),
        "showline": True,
        "ticklabelstandoff": 4,
        "zeroline": False,
    }


def log_axis(
    values: Sequence[float | None], kind: str = "number", most: int = 8
) -> Axis:
    """Return an axis that holds the values that are positive.

    Args:
        values: Data; None, zero and negative values are passed over.
        kind: "number", "seconds", or "batch" for powers of two.
        most: Number of ticks there is room for.

    Returns:
        The axis with its ticks.

    Example:
        >>> log_axis([3, 600], "batch").text
        ['4', '8', '16', '32', '64', '128', '256', '512']
        >>> log_axis([0.02, 4], "seconds").text
        ['20 ms', '50 ms', '100 ms', '200 ms', '500 ms', '1 s', '2 s', '5 s']
    """
    kept = [value for value in values if is_number(value) and value and value > 0]
    low, high = (min(kept), max(kept)) if kept else (1.0, 10.0)
    if high / low < 1.5:
        middle = math.sqrt(low * high)
        low, high = middle / 1.25, middle * 1.25
    pad = (high / low) ** _PAD
    low, high = low / pad, high * pad
    if kind == "batch":
        ticks = _powers_of_two(low, high, most) or _decimal_ticks(low, high, most)
        return Axis(low, high, ticks, [count(tick) for tick in ticks])
    if kind == "seconds":
        pick = _decimal_ticks if high < 100 else _time_ticks
        ticks = pick(low, high, most)
        return Axis(low, high, ticks, [seconds(tick) for tick in ticks])
    ticks = _decimal_ticks(low, high, most)
    return Axis(low, high, ticks, [number(tick) for tick in ticks])


def _powers_of_two(low: float, high: float, most: int) -> list[float]:
    exponents = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    ticks = [2.0**exponent for exponent in exponents]
    return ticks[:: math.ceil(len(ticks) / most)] if len(ticks) > 1 else []


def _decimal_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)
    for leading in (fine, (1, 2, 3, 4, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        exact = [lead * 10.0**decade for decade in decades for lead in leading]
        ticks = [float(f"{tick:.3g}") for tick in exact if low <= tick <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def _time_ticks(low: float, high: float, most: int) -> list[float]:
    below = [lead * 10.0**decade for decade in range(-6, 2) for lead in (1, 2, 5)]
    known = [tick for tick in below if tick < 30] + list(_TIME_TICKS)
    ticks = [float(f"{tick:.3g}") for tick in known if low <= tick <= high]
    if len(ticks) < 3:
        unit = 60 if high < 7200 else 3600
        return [unit * tick for tick in _decimal_ticks(low / unit, high / unit, most)]
    return ticks[:: math.ceil(len(ticks) / most)]


def linear_seconds(top: float) -> dict[str, Any]:
    """Return an axis of seconds from zero, its ticks even in a unit that suits it.

    Example:
        >>> linear_seconds(3.1)["ticktext"]
        ['0 s', '1 s', '2 s', '3 s']
    """
    unit = next((size for size in (3600, 60) if top >= 2 * size), 1)
    rough = top / unit / 4
    decade = 10.0 ** math.floor(math.log10(rough))
    step = (
        unit * decade * next(lead for lead in (1, 2, 5, 10) if lead * decade >= rough)
    )
    ticks = [step * place for place in range(int(top / step) + 1)]
    return axis_layout() | {
        "range": [0, top],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [seconds(tick) for tick in ticks],
    }
