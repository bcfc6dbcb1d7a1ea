"""The figures of what was measured and fitted: steps, step times, learning rates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rightbatch.reporting import marks, style
from rightbatch.reporting.drawing import Drawing
from rightbatch.reporting.figure_tables import (
    lr_numbers,
    step_time_numbers,
    steps_numbers,
    targets_numbers,
)
from rightbatch.reporting.formats import (
    count,
    entries,
    estimate,
    field,
    is_number,
    label,
    number,
    replicas_text,
    seconds,
    times,
    unit_of,
)
from rightbatch.reporting.marks import Chart
from rightbatch.reporting.tables import fit_name

Document = Mapping[str, Any]


def steps_charts(fits: Sequence[Document], runs: Sequence[Document]) -> list[Chart]:
    """Return steps to the target against the batch size, a chart per workload.

    Args:
        fits: Fitted laws; those of one workload, at several targets, share a chart.
        runs: Single runs, shown behind the means of their target.

    Returns:
        The charts, in the order in which the workloads come.
    """
    groups: dict[str, list[Document]] = {}
    for fit in fits:
        if entries(fit, "points") or field(fit, "curve"):
            groups.setdefault(label(field(fit, "workload")), []).append(fit)
    return [
        _steps_chart(f"steps-{place}", group, runs, workload if len(groups) > 1 else "")
        for place, (workload, group) in enumerate(groups.items(), start=1)
    ]


def _steps_chart(
    name: str, fits: list[Document], runs: Sequence[Document], workload: str
) -> Chart:
    data = [point["mean_steps"] for fit in fits for point in entries(fit, "points")]
    laws = [y for fit in fits for y in field(fit, "curve", "steps") or []]
    # Room below the fewest steps for the words that stand there.
    floor = [min(laws) / 1.8] if laws and len(fits) == 1 else []
    axis = style.log_axis([*data, *laws, *floor])
    drawing = style.blank("steps to the target")
    named: list[tuple[float, float, str, str]] = []
    for fit, shade in zip(fits, style.ramp(len(fits)), strict=True):
        curve = field(fit, "curve") or {"batch_size": [], "steps": []}
        x, y = curve["batch_size"], curve["steps"]
        if curve.get("low") and curve.get("high"):
            marks.band(drawing, x, curve["low"], curve["high"], shade)
        marks.line(
            drawing, x, y, shade, hover="batch %{x:,.0f}: %{y:,.3r} steps, fitted"
        )
        _mark_runs(drawing, fit, runs, shade)
        if x and len(fits) > 1:
            named.append((x[-1], y[-1], fit_name(fit), shade))
    if len(fits) == 1:
        _mark_limits(drawing, fits[0], axis)
    marks.name_ends(drawing, named, axis)
    sizes = [point["batch_size"] for fit in fits for point in entries(fit, "points")]
    sizes += [x for fit in fits for x in field(fit, "curve", "batch_size") or []]
    drawing.update_xaxes(
        style.log_axis(sizes, "batch").layout(style.batch_axis(unit_of(fits[-1])))
    )
    drawing.update_yaxes(axis.layout())
    finding = _steps_title(fits)
    title = f"{workload}: {finding}" if workload else finding[:1].upper() + finding[1:]
    return Chart(
        name=name,
        title=title,
        caption=_steps_caption(fits),
        drawing=drawing,
        sheet=steps_numbers(fits),
    )


def _steps_caption(fits: Sequence[Document]) -> str:
    caption = "Points: means of the runs; small: single runs. "
    caption += "Line and band: the fitted law and its interval."
    if len(fits) == 1 and (field(fits[0], "min_steps", "value") or 0) > 0:
        caption += " Dashed: its limits, fewest steps, fewest "
        caption += f"{unit_of(fits[0])}."
    points = (point for fit in fits for point in entries(fit, "points"))
    if any(field(point, "excluded") for point in points):
        caption += " Crosses: left out of the fit."
    return caption


def _mark_runs(
    drawing: Drawing, fit: Document, runs: Sequence[Document], shade: str
) -> None:
    chosen = {
        point["batch_size"]: field(point, "lr") for point in entries(fit, "points")
    }
    shown = [run for run in runs if _is_shown(run, fit, chosen)]
    x, y = [run["batch_size"] for run in shown], [run["steps"] for run in shown]
    hover = "one run at batch %{x:,.0f}: %{y:,} steps"
    marks.points(drawing, x, y, shade, hover, size=5, opacity=0.35, line={"width": 0})
    for excluded, symbol in ((False, "circle"), (True, "x")):
        kept = [
            point
            for point in entries(fit, "points")
            if bool(field(point, "excluded")) is excluded
        ]
        x = [point["batch_size"] for point in kept]
        y = [point["mean_steps"] for point in kept]
        if kept:
            hover = "batch %{x:,.0f}: %{y:,.3r} steps, mean"
            marks.points(drawing, x, y, shade, hover, symbol=symbol)


def _is_shown(run: Document, fit: Document, chosen: Mapping[Any, Any]) -> bool:
    if field(run, "steps") is None or field(run, "status") not in {None, "reached"}:
        return False
    if None not in {field(run, "target"), field(fit, "target")} and (
        run["target"] != field(fit, "target")
    ):
        return False
    size = field(run, "batch_size")
    return size in chosen and chosen[size] in {None, field(run, "lr")}


def _mark_limits(drawing: Drawing, fit: Document, axis: style.Axis) -> None:
    curve = field(fit, "curve")
    steps, examples = (
        field(fit, name, "value") for name in ("min_steps", "min_examples")
    )
    if not curve or not (is_number(steps) and is_number(examples)) or steps <= 0:
        return
    low, high = min(curve["batch_size"]), max(curve["batch_size"])
    muted = style.color("muted")
    marks.line(drawing, [low, high], [steps, steps], muted, width=1.2, dash="dash")
    end = min(high, max(low, examples / steps))
    falling = [examples / low, examples / end]
    marks.line(drawing, [low, end], falling, muted, width=1.2, dash="dash")
    marks.name_ends(drawing, [(high, steps, f"{number(steps)} steps", muted)], axis)
    if low <= examples / steps <= high:
        corner = examples / steps
        trade = f"{number(corner)} {unit_of(fit)}"
        marks.line(
            drawing, [corner, corner], [axis.low, steps], muted, width=1.2, dash="dot"
        )
        place = {"x": np.log10(corner), "y": 0, "xref": "x", "yref": "paper"}
        # Towards the right it would run into the name of the fewest steps.
        late = corner > (high / low) ** 0.6 * low
        side = "right" if late else "left"
        style.note(drawing, f" {trade} ", xanchor=side, **place)


def _steps_title(fits: Sequence[Document]) -> str:
    critical = [field(fit, "critical_batch_size") for fit in fits]
    unit = unit_of(fits[-1])
    bounded = [
        is_number(field(one, "low")) and is_number(field(one, "high"))
        for one in critical
    ]
    if all(bounded) and len(fits) > 1:
        ends = (critical[0], critical[-1])
        sizes = [number(field(one, "value")) for one in ends]
        names = [fit_name(fit) for fit in (fits[0], fits[-1])]
        return (
            f"Steps and {unit} trade evenly at {sizes[0]} {unit} per step for "
            f"{names[0]}, {sizes[1]} for {names[1]}"
        )
    fit, best = fits[-1], critical[-1]
    if field(fit, "status") == "misfit":
        return "The law does not describe these runs well: take its numbers with care"
    if not all(bounded):
        return f"These runs do not pin down the critical batch size: {estimate(best)}"
    value = number(field(best, "value"))
    return f"{value} {unit} per step is where steps and {unit} trade evenly"


def step_time_chart(document: Document) -> Chart | None:
    """Return seconds per step against the batch size, with the fitted law."""
    step_time = field(document, "step_time")
    timings = entries(step_time, "points") or entries(document, "times")
    curve = field(step_time, "curve")
    if not timings and not curve:
        return None
    curve = curve or {"batch_size": [], "seconds": []}
    drawing = style.blank("time of one step")
    shade = style.color("first")
    x, y = curve["batch_size"], curve["seconds"]
    told = {"hover": "batch %{x:,.0f}: %{text}, fitted", "texts": [*map(seconds, y)]}
    marks.line(drawing, x, y, shade, **told)
    replicas = sorted({field(point, "num_replicas") or 1 for point in timings})
    shades = style.ramp(len(replicas))
    for num_replicas, point_shade in zip(replicas, shades, strict=True):
        own = [p for p in timings if (field(p, "num_replicas") or 1) == num_replicas]
        _mark_timings(drawing, own, point_shade, replicas_text(num_replicas))
    values = [*curve["seconds"], *(point["seconds"] for point in timings)]
    sizes = [*curve["batch_size"], *(point["batch_size"] for point in timings)]
    axis = style.log_axis(values, "seconds")
    knee = field(step_time, "saturation_batch_size", "value")
    if field(step_time, "knee_seen") and is_number(knee) and knee > 0:
        muted = style.color("muted")
        marks.line(drawing, [knee, knee], [axis.low, axis.high], muted, dash="dot")
        place = {"x": np.log10(knee), "y": 0.93, "xref": "x", "xanchor": "right"}
        style.note(drawing, f"flat below {number(knee)} ", **place)
    drawing.update_xaxes(
        style.log_axis(sizes, "batch").layout(
            style.batch_axis(unit_of((entries(document, "convergence") or [None])[-1]))
        )
    )
    drawing.update_yaxes(axis.layout())
    return Chart(
        name="step-time",
        title=_step_time_title(step_time, timings),
        caption="Points: medians, with their spread. Line: the fitted law.",
        drawing=drawing,
        sheet=step_time_numbers(curve),
    )


def _mark_timings(
    drawing: Drawing, timings: Sequence[Document], shade: str, on: str
) -> None:
    x = [point["batch_size"] for point in timings]
    y = [point["seconds"] for point in timings]
    hover = f"batch %{{x:,}} on {on}: %{{text}}"
    marks.points(drawing, x, y, shade, hover, texts=[*map(seconds, y)])
    ends = [(field(point, "low"), field(point, "high")) for point in timings]
    if all(is_number(low) and is_number(high) for low, high in ends):
        drawing.data[-1]["error_y"] = marks.error_bars(y, ends, shade)


def _step_time_title(step_time: Any, timings: Sequence[Document]) -> str:
    fixed = field(step_time, "overhead_seconds", "value")
    each = field(step_time, "seconds_per_example", "value")
    if is_number(fixed) and is_number(each):
        title = f"A step costs {seconds(fixed)}, plus {seconds(each)} per example"
        knee = field(step_time, "saturation_batch_size", "value")
        if field(step_time, "knee_seen") and is_number(knee):
            title += f" beyond {number(knee)}"
        return title
    ends = [min(timings, key=_size), max(timings, key=_size)] if timings else []
    said = [f"{seconds(end['seconds'])} at batch {count(_size(end))}" for end in ends]
    return "A step takes " + " and ".join(said)


def _size(point: Document) -> float:
    return point["batch_size"]


def targets_chart(fits: Sequence[Document]) -> Chart | None:
    """Return the fewest steps and examples against the target."""
    kept = [fit for fit in fits if is_number(field(fit, "target"))]
    kept.sort(key=lambda fit: fit["target"])
    if len(kept) < 2:
        return None
    drawing = style.blank("")
    drawing.split(spacing=0.17)
    x = [fit["target"] for fit in kept]
    for row, key, unit in ((1, "min_steps", "steps"), (2, "min_examples", "examples")):
        shade = style.color("first" if row == 1 else "second")
        y = [field(fit, key, "value") for fit in kept]
        marks.points(drawing, x, y, shade, f"target %{{x}}: %{{y:,.3r}} {unit}")
        ends = [(field(fit, key, "low"), field(fit, key, "high")) for fit in kept]
        points = drawing.data[-1]
        place = "" if row == 1 else f"{row}"
        points |= {"mode": "lines+markers", "xaxis": f"x{place}", "yaxis": f"y{place}"}
        points["line"] = {"color": shade, "width": 1.6}
        if all(is_number(v) for v in [*y, *(end for pair in ends for end in pair)]):
            points["error_y"] = marks.error_bars(y, ends, shade)
        axis = style.log_axis([*y, *(end for pair in ends for end in pair)], most=4)
        drawing.update_yaxes(axis.layout(), row=row)
        top = drawing.layout[f"yaxis{place}"]["domain"][1]
        at = {"x": 0, "y": top, "xshift": -64, "yshift": 10, "xanchor": "left"}
        style.note(drawing, f"fewest {unit}", **at)
    x_axis = style.axis_layout() | {"tickmode": "array", "tickvals": x}
    drawing.update_xaxes(x_axis)
    drawing.update_xaxes(style.axis_layout("target"), row=2)
    return Chart(
        name="targets",
        title=_targets_title(kept),
        caption="Fewest steps: in the limit of large batches. Fewest examples: in the "
        "limit of small ones. Bars: the interval.",
        drawing=drawing,
        sheet=targets_numbers(kept),
    )


def _targets_title(fits: Sequence[Document]) -> str:
    ratios: list[str] = []
    costly = max(fits, key=lambda fit: field(fit, "min_examples", "value") or 0)
    cheap = fits[-1] if costly is fits[0] else fits[0]
    for key, unit in (("min_steps", "steps"), ("min_examples", "examples")):
        low, high = field(cheap, key, "value"), field(costly, key, "value")
        if is_number(low) and is_number(high) and low > 0:
            ratios.append(f"{times(high / low)} the {unit}")
    names = f"{label(cheap['target'])} to {label(costly['target'])}"
    if not ratios:
        return f"Steps and examples at targets {names}"
    return f"Going from target {names} takes {' and '.join(ratios)}"


def lr_chart(fits: Sequence[Document]) -> Chart | None:
    """Return the best learning rate at each batch size, where it was tuned."""
    kept = [fit for fit in fits if entries(fit, "lrs")]
    all_lrs = [lr["lr"] for fit in kept for lr in entries(fit, "lrs")]
    if len({*all_lrs}) < 2:
        return None
    drawing = style.blank("best learning rate")
    laws = [rate for fit in kept for rate in field(fit, "lr_law", "curve", "lr") or []]
    axis = style.log_axis([*all_lrs, *laws])
    named: list[tuple[float, float, str, str]] = []
    for fit, shade in zip(kept, style.ramp(len(kept)), strict=True):
        lrs = sorted(entries(fit, "lrs"), key=_size)
        x, y = [lr["batch_size"] for lr in lrs], [lr["lr"] for lr in lrs]
        _draw_lr_law(drawing, fit, (x, y), shade)
        edges = [bool(field(lr, "at_edge")) for lr in lrs]
        look = {
            "symbol": ["circle-open" if at_edge else "circle" for at_edge in edges],
            "line": {"color": shade, "width": 2},
        }
        marks.points(drawing, x, y, shade, "batch %{x:,}: lr %{y}", **look)
        named.append((x[-1], y[-1], fit_name(fit), shade))
    marks.name_ends(drawing, named if len(kept) > 1 else [], axis)
    sizes = [lr["batch_size"] for fit in kept for lr in entries(fit, "lrs")]
    drawing.update_xaxes(
        style.log_axis(sizes, "batch").layout(style.batch_axis(unit_of(kept[-1])))
    )
    ticks = sorted({*all_lrs})
    if len(ticks) <= 8:
        axis = axis._replace(ticks=ticks, text=[number(tick) for tick in ticks])
    drawing.update_yaxes(axis.layout())
    return Chart(
        name="lr",
        title=_lr_title(kept[-1]),
        caption=_lr_caption(laws),
        drawing=drawing,
        sheet=lr_numbers(kept),
    )


def _draw_lr_law(
    drawing: Drawing, fit: Document, best: tuple[list[Any], list[Any]], shade: str
) -> None:
    curve = field(fit, "lr_law", "curve")
    if not curve:
        marks.line(drawing, *best, shade, width=1.4)
        return
    x = curve["batch_size"]
    if curve.get("low") and curve.get("high"):
        marks.band(drawing, x, curve["low"], curve["high"], shade)
    hover = "batch %{x:,.0f}: lr %{y:.3r}, fitted"
    marks.line(drawing, x, curve["lr"], shade, hover=hover)


def _lr_title(fit: Document) -> str:
    exponent = field(fit, "lr_law", "exponent")
    if field(fit, "lr_law", "status") == "ok" and is_number(field(exponent, "value")):
        bends = field(fit, "lr_law", "plateau_batch_size", "value")
        until = f" up to about {number(bends)}" if is_number(bends) else ""
        return (
            f"The best learning rate grows as the batch to the {estimate(exponent)}"
            f"{until}"
        )
    lrs = sorted(entries(fit, "lrs"), key=_size)
    said = [f"{number(lr['lr'])} at batch {count(lr['batch_size'])}" for lr in lrs]
    return f"The best learning rate goes from {said[0]} to {said[-1]}"


def _lr_caption(laws: list[float]) -> str:
    caption = "Points: the best of those tried"
    if laws:
        caption += ". Line and band: the law of the best rate, read between those tried"
    return f"{caption}. Open circles: at the edge of the rates tried, perhaps not best."
