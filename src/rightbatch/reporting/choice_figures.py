"""Figures of the choice: the best batch on each number of replicas, and its regret."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rightbatch.reporting import marks, style
from rightbatch.reporting.drawing import Drawing
from rightbatch.reporting.figure_tables import best_batch_numbers, regret_numbers
from rightbatch.reporting.formats import (
    count,
    field,
    is_number,
    percent,
    replicas_text,
)
from rightbatch.reporting.marks import Chart

Document = Mapping[str, Any]


def best_batch_chart(plan: Sequence[Document], scaling: Any) -> Chart | None:
    """Return the best batch size against the number of replicas.

    Args:
        plan: `optimal` of a document.
        scaling: Its `scaling`, for more replicas than were asked for, and for where
            optimal scaling becomes weak.

    Returns:
        The chart; None for a single number of replicas.
    """
    kept = [entry for entry in plan if is_number(field(entry, "batch_size"))]
    kept.sort(key=lambda entry: entry["num_replicas"])
    if len(kept) < 2:
        return None
    replicas = [entry["num_replicas"] for entry in kept]
    sizes = [entry["batch_size"] for entry in kept]
    more = _optimal_line(scaling, replicas[-1]) or list(
        zip(replicas, sizes, strict=True)
    )
    within = [field(entry, "within_5_percent") or (None, None) for entry in kept]
    low, high = ([pair[i] for pair in within] for i in (0, 1))
    known = [field(entry, "batch_size_interval") for entry in kept]
    bars = [(field(one, "low"), field(one, "high")) for one in known]
    all_bars = all(is_number(end) for pair in bars for end in pair)
    values = [*sizes, *low, *high, *(b for _, b in more)]
    values += [end for pair in bars for end in pair] if all_bars else []
    axis = style.log_axis(values, "batch")
    drawing, shade = style.blank("best batch size"), style.color("first")
    marks.band(drawing, replicas, low, high, shade)
    marks.line(drawing, [p for p, _ in more], [b for _, b in more], shade)
    marks.points(drawing, replicas, sizes, shade, "%{x} replicas: batch %{y:,}")
    if all_bars:
        drawing.data[-1]["error_y"] = marks.error_bars(sizes, bars, shade)
    all_replicas = [p for p, _ in more]
    weak = _mark_weak(drawing, scaling, all_replicas, axis)
    x_axis = style.log_axis(all_replicas, "batch").layout("replicas")
    drawing.update_xaxes(x_axis | {"tickvals": all_replicas, "ticktext": all_replicas})
    drawing.update_yaxes(axis.layout())
    ends = f"from {count(sizes[0])} on {replicas_text(replicas[0])}"
    ends += f" to {count(sizes[-1])} on {count(replicas[-1])}"
    title = f"The best batch goes {ends}"
    if weak is not None:
        title += f", and in step with the replicas from {count(math.ceil(weak))} on"
    return Chart(
        name="best-batch",
        title=title,
        caption=_best_batch_caption(all_bars, weak),
        drawing=drawing,
        sheet=best_batch_numbers(kept),
    )


def _best_batch_caption(has_bars: bool, weak: float | None) -> str:
    caption = "Points: the plan. Band: within 5 % of the best time."
    if has_bars:
        caption += " Bars: the interval of the best batch."
    if weak is not None:
        caption += " Dotted: from here on each replica is at its saturation batch."
    return caption


def _optimal_line(scaling: Any, largest: float) -> list[tuple[float, float]]:
    replicas = field(scaling, "replicas") or []
    sizes = field(scaling, "optimal", "batch_sizes") or []
    used = field(scaling, "optimal", "replicas_used") or replicas
    if (
        not len(replicas) == len(sizes) == len(used)
        or max(replicas, default=0) < largest
    ):
        return []
    rows = zip(replicas, sizes, used, strict=True)
    # A batch for fewer replicas than are there is not the best on all of them.
    return [(p, b) for p, b, busy in rows if is_number(b) and busy == p]


def _mark_weak(
    drawing: Drawing, scaling: Any, replicas: Sequence[float], axis: style.Axis
) -> float | None:
    weak = field(scaling, "optimal_becomes_weak_at")
    weak = field(weak, "value") if isinstance(weak, Mapping) else weak
    if not is_number(weak) or not replicas[0] < weak <= replicas[-1]:
        return None
    muted = style.color("muted")
    up = [axis.low, axis.high]
    marks.line(drawing, [weak, weak], up, muted, width=1.2, dash="dot")
    return weak


def regret_chart(series: Sequence[Document], unit: str = "examples") -> Chart | None:
    """Return the time lost against the best batch, for every other batch size.

    Args:
        series: `seconds_to_target` of a document; those with a `regret_curve`.
        unit: What batch sizes count.

    Returns:
        The chart, lines for the fewest and the most replicas; None without curves.
    """
    known = [one for one in series if field(one, "regret_curve", "batch_size")]
    known = [known[0], known[-1]] if len(known) > 1 else known
    if not known:
        return None
    drawing = style.blank("time lost against the best batch")
    shades = [style.color("first"), style.color("second")]
    top = max(0.1, *(_regret_top(one) for one in known))
    sizes: list[float] = []
    for one, shade in zip(known, shades, strict=False):
        curve = {k: v for k, v in one["regret_curve"].items() if v is not None}
        kept = [place for place, y in enumerate(curve["value"]) if is_number(y)]
        x, y = ([curve[key][i] for i in kept] for key in ("batch_size", "value"))
        low, high = ([curve[key][i] for i in kept] for key in ("low", "high"))
        sizes += x
        ends = [(max(a, 1e-9) if is_number(a) else None) for a in low]
        marks.band(drawing, x, ends, high, shade)
        on = replicas_text(field(one, "num_replicas"))
        hover, texts = f"batch %{{x:,}} on {on}: %{{text}} lost", [*map(percent, y)]
        marks.line(drawing, x, y, shade, hover=hover, texts=texts)
        _name_regret(drawing, (x, y), on, shade, top)
    drawing.update_xaxes(style.log_axis(sizes, "batch").layout(style.batch_axis(unit)))
    step = next(s for s in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if top / s <= 6)
    ticks = [step * place for place in range(int(top / step + 1e-9) + 1)]
    y_axis = {"range": [0, top], "tickmode": "array", "tickvals": ticks}
    texts = [percent(tick) for tick in ticks]
    drawing.update_yaxes(style.axis_layout() | y_axis | {"ticktext": texts})
    return Chart(
        name="regret",
        title=_regret_title(known),
        caption="Lines: the median over all that the runs and timings allow. Bands: "
        "their interval.",
        drawing=drawing,
        sheet=regret_numbers(known),
    )


def _regret_top(one: Document) -> float:
    # What is lost at half and at twice the best batch, with room above.
    best = field(one, "optimum", "batch_size")
    lost = [regret_at(one, best * ratio) for ratio in (0.4, 2.5)] if best else []
    return min(1.0, 1.2 * max((each for each in lost if each is not None), default=0.1))


def regret_at(one: Document, batch_size: float) -> float | None:
    """Return the regret of a curve at the batch size nearest to one.

    Args:
        one: An entry of `seconds_to_target`.
        batch_size: Examples per step.

    Returns:
        A fraction; None where the curve has none near.

    Example:
        >>> curve = {"batch_size": [8, 64], "value": [0.5, 0.1]}
        >>> regret_at({"regret_curve": curve}, 60), regret_at({}, 60)
        (0.1, None)
    """
    curve = field(one, "regret_curve")
    pairs = zip(
        field(curve, "batch_size") or [], field(curve, "value") or [], strict=True
    )
    near = [(abs(np.log(b / batch_size)), lost) for b, lost in pairs if is_number(lost)]
    distance, lost = min(near, default=(np.inf, None))
    return lost if distance < 0.2 else None


def _name_regret(
    drawing: Drawing,
    line: tuple[list[float], list[float]],
    name: str,
    shade: str,
    top: float,
) -> None:
    # At the last point that the axis still holds.
    inside = [(x, y) for x, y in zip(*line, strict=True) if y <= 0.92 * top]
    if not inside:
        return
    x, y = inside[-1]
    drawing.add_scatter(
        x=[x],
        y=[y],
        mode="text",
        text=[f"{name}\u2002"],
        textposition="middle left",
        textfont={"color": shade, "size": 12.5},
        hoverinfo="skip",
    )


def _regret_title(known: Sequence[Document]) -> str:
    one = known[-1]
    on, best = replicas_text(field(one, "num_replicas")), field(one, "optimum")
    size = field(best, "batch_size")
    lost = [regret_at(one, size * ratio) for ratio in (0.5, 2)] if size else [None]
    if None in lost:
        return "What another batch size costs in time"
    return (
        f"On {on}, half the best batch costs {percent(lost[0])} of time, twice it "
        f"{percent(lost[1])}"
    )
