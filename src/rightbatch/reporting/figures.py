"""The figures of a result, each with the finding it shows in words.

``charts(document)`` returns those whose data the document holds. Points are data, a
line is a law, the band around it its interval; ends of curves carry their names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rightbatch.reporting import marks, style
from rightbatch.reporting.choice_figures import best_batch_chart, regret_chart
from rightbatch.reporting.cluster_figures import cluster_charts
from rightbatch.reporting.drawing import Drawing
from rightbatch.reporting.figure_tables import (
    scaling_numbers,
    time_to_target_numbers,
)
from rightbatch.reporting.fit_figures import (
    lr_chart,
    step_time_chart,
    steps_charts,
    targets_chart,
)
from rightbatch.reporting.formats import (
    count,
    entries,
    field,
    is_number,
    percent,
    replicas_text,
    seconds,
    span,
    times,
    unit_of,
)
from rightbatch.reporting.marks import Chart
from rightbatch.reporting.noise_figures import noise_charts
from rightbatch.reporting.replay_figures import replay_charts
from rightbatch.reporting.tables import verification_sheet
from rightbatch.reporting.trade_figures import trade_charts
from rightbatch.reporting.train_figures import train_charts

Document = Mapping[str, Any]


def charts(document: Document) -> list[Chart]:
    """Return the figures of a document, in reading order.

    Args:
        document: What a command prints with `--json`.

    Returns:
        Those whose data are there.

    Example:
        >>> curve = {"batch_size": [1, 8], "seconds": [0.001, 0.002]}
        >>> [chart.name for chart in charts({"step_time": {"curve": curve}})]
        ['step-time']
    """
    if field(document, "command") == "cluster":
        return cluster_charts(document)
    if field(document, "command") == "noise":
        return noise_charts(document)
    if field(document, "command") in ("train", "replay"):
        return [*train_charts(document), *replay_charts(document)]
    fits = entries(document, "convergence") or entries(document, "workloads")
    plan, unit = entries(document, "optimal"), unit_of(fits[-1] if fits else None)
    series = entries(document, "seconds_to_target")
    found = [
        time_to_target_chart(series, unit),
        *_in_turn(steps_charts(fits, entries(document, "runs")), fits, plan),
        step_time_chart(document),
        scaling_chart(field(document, "scaling")),
        best_batch_chart(plan, field(document, "scaling")),
        regret_chart(series, unit),
        targets_chart(fits),
        lr_chart(fits),
        verification_chart(entries(document, "verification")),
        *noise_charts(document),
    ]
    return [chart for chart in found if chart is not None]


def _in_turn(
    steps: Sequence[Chart], fits: Sequence[Document], plan: Sequence[Document]
) -> list[Chart]:
    # Both figures of a workload stand side by side.
    trades = {chart.name.split("-")[1]: chart for chart in trade_charts(fits, plan)}
    return [
        chart
        for one in steps
        for chart in (one, trades.get(one.name.split("-")[1]))
        if chart is not None
    ]


def time_to_target_chart(
    series: Sequence[Document], unit: str = "examples"
) -> Chart | None:
    """Return seconds to the target against the batch size, for each P."""
    series = [one for one in series if field(one, "curve", "seconds")]
    if not series:
        return None
    values = [y for one in series for y in field(one, "curve", "seconds")]
    axis = style.log_axis(values, "seconds")
    drawing = style.blank("time to the target")
    named: list[tuple[float, float, str, str]] = []
    for one, shade in zip(series, style.ramp(len(series)), strict=True):
        curve = field(one, "curve")
        x, y = curve["batch_size"], curve["seconds"]
        if len(series) <= 2 and curve.get("low") and curve.get("high"):
            marks.band(drawing, x, curve["low"], curve["high"], shade)
        hover, texts = "batch %{x:,.0f}: %{text}", [seconds(each) for each in y]
        marks.line(drawing, x, y, shade, width=1.6, hover=hover, texts=texts)
        _mark_optimum(drawing, one, shade)
        replicas = field(one, "num_replicas")
        named.append((x[-1], y[-1], replicas_text(replicas), shade))
    marks.name_ends(drawing, named, axis)
    sizes = [x for one in series for x in field(one, "curve", "batch_size")]
    drawing.update_xaxes(style.log_axis(sizes, "batch").layout(style.batch_axis(unit)))
    drawing.update_yaxes(axis.layout())
    caption = "Circles: the best batch size. Thick: within 5 % of the best time."
    if any(field(one, "measured") for one in series):
        caption += " Dotted: with the measured step times in place of their law."
    return Chart(
        name="time-to-target",
        title=_time_title(series),
        caption=caption,
        drawing=drawing,
        sheet=time_to_target_numbers(series),
    )


def _mark_optimum(drawing: Drawing, one: Document, shade: str) -> None:
    measured, optimum = field(one, "measured"), field(one, "optimum")
    if measured:
        x, y = measured["batch_size"], measured["seconds"]
        marks.line(drawing, x, y, shade, width=1.4, dash="dot")
    low, high = field(one, "within_5_percent") or (None, None)
    if is_number(low) and is_number(high):
        curve = field(one, "curve")
        logs = np.log(curve["batch_size"]), np.log(curve["seconds"])
        x = np.geomspace(low, high, 25)
        y = np.exp(np.interp(np.log(x), *logs))
        marks.line(drawing, x.tolist(), y.tolist(), shade, width=6)
    if optimum:
        x, y = optimum["batch_size"], optimum["seconds"]
        hover = f"best batch {count(x)}: {seconds(y)}, "
        hover += f"{span(low, high, count)} within 5 %"
        ring = {"color": shade, "width": 2.5}
        marks.points(drawing, [x], [y], style.color("paper"), hover, size=11, line=ring)


def _time_title(series: Sequence[Document]) -> str:
    best = [field(one, "optimum") or {} for one in series]
    first, last = best[0], best[-1]
    on = replicas_text(field(series[0], "num_replicas"))
    title = (
        f"Batch {count(first.get('batch_size'))} reaches the target soonest on {on}, "
    )
    title += f"in {seconds(first.get('seconds'))}"
    if len(series) == 1:
        return title
    on, size = count(field(series[-1], "num_replicas")), count(last.get("batch_size"))
    return f"{title}; on {on}, batch {size} in {seconds(last.get('seconds'))}"


def scaling_chart(scaling: Document | None) -> Chart | None:
    """Return speed-up against replicas under the three scalings."""
    replicas: list[float] = field(scaling, "replicas") or []
    if len(replicas) < 2:
        return None
    kinds = (
        ("optimal", "first"),
        ("strong", "second"),
        ("weak", "third"),
    )
    drawing = style.blank("speed-up against the best on one replica")
    ideal = [each / replicas[0] for each in replicas]
    muted = style.color("muted")
    marks.line(drawing, replicas, ideal, muted, width=1.2, dash="dash")
    named: list[tuple[float, float, str, str]] = []
    seen = [1.0]
    for kind, shade_name in kinds:
        # A scheme may not be served on the most replicas: its line ends before.
        pairs = zip(replicas, field(scaling, kind, "speedup") or [], strict=False)
        served = [(each, gain) for each, gain in pairs if is_number(gain)]
        if served:
            shade = style.color(shade_name)
            hover = f"{kind} scaling: %{{x}} replicas, %{{y:.3g}}×"
            x, y = ([pair[i] for pair in served] for i in (0, 1))
            marks.line(drawing, x, y, shade)
            marks.points(drawing, x, y, shade, hover)
            named.append((x[-1], y[-1], kind, shade))
            seen += y
    # The ideal leaves the paper where it would press the data flat.
    axis = style.log_axis([*seen, min(ideal[-1], 1.6 * max(seen))])
    marks.name_ends(drawing, named, axis)
    x_axis = style.log_axis(replicas, "batch").layout("replicas")
    drawing.update_xaxes(x_axis | {"tickvals": replicas, "ticktext": replicas})
    drawing.update_yaxes(axis.layout() | {"ticktext": [times(t) for t in axis.ticks]})
    return Chart(
        name="scaling",
        title=_scaling_title(scaling),
        caption="Optimal: the batch re-chosen for each number of replicas, some left "
        "idle where fewer are faster. Strong: one batch for all. Weak: one batch per "
        "replica. Dashed: the ideal.",
        drawing=drawing,
        sheet=scaling_numbers(scaling),
    )


def _scaling_title(scaling: Any) -> str:
    last = field(scaling, "replicas")[-1]
    gains: dict[str, list[Any] | None] = {
        kind: field(scaling, kind, "speedup") for kind in ("optimal", "strong", "weak")
    }
    best = gains["optimal"] or gains["strong"] or gains["weak"] or [None]
    if is_number(best[-1]) and 1 <= best[-1] < 1.01:
        return (
            f"{count(last)} replicas are no faster than one: the best plan idles them"
        )
    if is_number(best[-1]) and best[-1] < 1:
        return f"{count(last)} replicas take {times(1 / best[-1])} as long as one"
    title = f"{count(last)} replicas are {times(best[-1])} as fast"
    if gains["optimal"] and gains["strong"]:
        title += (
            f" with the batch re-chosen, {times(gains['strong'][-1])} with it fixed"
        )
    return title


def verification_chart(checks: Sequence[Document]) -> Chart | None:
    """Return predicted beside measured seconds to the target for each batch."""
    pair = ("predicted_seconds", "measured_seconds")
    kept = [c for c in checks if all(is_number(field(c, key)) for key in pair)]
    if not kept:
        return None
    kept.sort(key=lambda check: check["batch_size"])
    drawing = style.blank("batch size")
    shade = style.color("first")
    rows = [f"{count(check['batch_size'])} " for check in kept]
    for row, check in zip(rows, kept, strict=True):
        ends = [check[key] for key in pair]
        marks.line(drawing, ends, [row, row], style.color("axis"), width=3)
    predicted, measured = ([check[key] for check in kept] for key in pair)
    ring = {"color": shade, "width": 2}
    paper = style.color("paper")
    told, made = (
        [seconds(each) for each in column] for column in (predicted, measured)
    )
    hover = "batch %{y}: %{text} predicted"
    marks.points(drawing, predicted, rows, paper, hover, texts=told, size=12, line=ring)
    hover = "batch %{y}: %{text} measured"
    marks.points(drawing, measured, rows, shade, hover, texts=made, size=12)
    top = max([*predicted, *measured]) * 1.12
    axis = style.linear_seconds(top)
    drawing.update_xaxes(axis)
    drawing.update_yaxes(style.axis_layout() | {"type": "category", "showgrid": False})
    worst = max(abs(m / p - 1) for p, m in zip(predicted, measured, strict=True))
    return Chart(
        name="verification",
        title=f"Fresh runs took what was predicted, to within {percent(worst)}",
        caption="Open: predicted. Filled: median of fresh seeds. Time of the checks of "
        "the target is left out.",
        drawing=drawing,
        sheet=verification_sheet(kept),
    )
