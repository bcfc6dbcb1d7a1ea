"""McCandlish's trade-off: steps against examples to the target."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting import marks, style
from rightbatch.reporting.drawing import Drawing
from rightbatch.reporting.figure_tables import (
    trade_numbers,
)
from rightbatch.reporting.formats import (
    compact,
    count,
    entries,
    field,
    is_number,
    label,
    number,
    times,
    unit_of,
)
from rightbatch.reporting.marks import Chart

Document = Mapping[str, Any]
_NEAR = 30  # a limit is drawn where the data come this near to it, as a ratio


def trade_charts(fits: Sequence[Document], plan: Sequence[Document]) -> list[Chart]:
    """Return steps against examples to the target, a chart per workload.

    Under the inverse law the curve is McCandlish's hyperbola
    (S/S_min - 1)(E/E_min - 1) = 1.

    Args:
        fits: Fitted laws; of one workload's targets the last is drawn.
        plan: Best batch sizes, marked on the curve of a plan's only workload.

    Returns:
        The charts, in the order in which the workloads come.
    """
    last: dict[str, Document] = {}
    for fit in fits:
        if field(fit, "curve", "steps") and entries(fit, "points"):
            last[label(field(fit, "workload"))] = fit
    chosen = plan if len(last) == 1 else []
    return [
        _trade_chart(f"trade-{place}", fit, chosen, workload if len(last) > 1 else "")
        for place, (workload, fit) in enumerate(last.items(), start=1)
    ]


def _trade_chart(
    name: str, fit: Document, plan: Sequence[Document], workload: str
) -> Chart:
    unit = unit_of(fit)
    runs = [(p["batch_size"], p["mean_steps"]) for p in entries(fit, "points")]
    law = list(zip(fit["curve"]["batch_size"], fit["curve"]["steps"], strict=True))
    marked = _marked(fit, plan)
    shown = [*runs, *law, *(pair for pair, _ in marked)]
    limits = _near_limits(fit, shown)
    steps_axis = style.log_axis([*(s for _, s in shown), limits[0]])
    axis = style.log_axis([*(b * s for b, s in shown), limits[1]], most=6)
    drawing = style.blank("steps to the target")
    shade = style.color("first")
    _draw_law(drawing, fit, shade, unit)
    _draw_limits(drawing, limits, axis, steps_axis)
    x, y = [b * s for b, s in runs], [s for _, s in runs]
    hover = f"batch %{{text}}: %{{y:,.3r}} steps, %{{x:,.3s}} {unit}, mean"
    marks.points(drawing, x, y, shade, hover, texts=[count(b) for b, _ in runs])
    for pair, words in marked:
        _mark(drawing, pair, words, hollow="even" not in words)
    axis = axis._replace(text=[compact(tick) for tick in axis.ticks])
    steps_axis = steps_axis._replace(text=[compact(t) for t in steps_axis.ticks])
    drawing.update_xaxes(axis.layout(f"{unit} to the target"))
    drawing.update_yaxes(steps_axis.layout())
    finding = _trade_title(fit, plan, law, unit)
    named = f"{workload}: {finding[:1].lower()}{finding[1:]}" if workload else finding
    return Chart(
        name=name,
        title=named,
        caption=_trade_caption(marked, limits, unit),
        drawing=drawing,
        sheet=trade_numbers(fit, unit),
    )


def _trade_caption(marked: Sequence[Any], limits: tuple[Any, Any], unit: str) -> str:
    caption = "Points: the batch sizes run, small ones top left. "
    caption += "Line and band: the fitted law and its interval."
    if any(limits):
        caption += f" Dashed: fewest steps, fewest {unit}."
    if any("even" not in words for _, words in marked):
        caption += " Rings: the best batch sizes of the plan."
    return caption


def _draw_law(drawing: Drawing, fit: Document, shade: str, unit: str) -> None:
    curve = fit["curve"]
    sizes, steps = curve["batch_size"], curve["steps"]
    if curve.get("low") and curve.get("high"):
        # At one batch size a step more is B examples more: the band lies aslant.
        ends = zip(sizes, curve["low"], curve["high"], strict=True)
        kept = [(b, *pair) for b, *pair in ends if None not in pair and pair[0] > 0]
        outline = [(b * low, low) for b, low, _ in kept]
        outline += [(b * high, high) for b, _, high in reversed(kept)]
        drawing.add_scatter(
            x=[x for x, _ in outline],
            y=[y for _, y in outline],
            fill="toself",
            fillcolor=style.faint(shade),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
        )
    x = [b * s for b, s in zip(sizes, steps, strict=True)]
    hover = f"batch %{{text}}: %{{y:,.3r}} steps, %{{x:,.3s}} {unit}, fitted"
    marks.line(drawing, x, steps, shade, hover=hover, texts=[number(b) for b in sizes])


def _near_limits(
    fit: Document, shown: Sequence[tuple[float, float]]
) -> tuple[float | None, float | None]:
    fewest = field(fit, "min_steps", "value"), field(fit, "min_examples", "value")
    reached = min(s for _, s in shown), min(b * s for b, s in shown)
    kept = [
        value if is_number(value) and least / _NEAR <= value else None
        for value, least in zip(fewest, reached, strict=True)
    ]
    return kept[0], kept[1]


def _draw_limits(
    drawing: Drawing,
    limits: tuple[float | None, float | None],
    axis: style.Axis,
    steps_axis: style.Axis,
) -> None:
    muted, (steps, examples) = style.color("muted"), limits
    if steps is not None:
        across = [axis.low, axis.high]
        marks.line(drawing, across, [steps, steps], muted, width=1.2, dash="dash")
        end = (axis.high, steps, f"{number(steps)} steps", muted)
        marks.name_ends(drawing, [end], steps_axis)
    if examples is not None:
        up = [steps_axis.low, steps_axis.high]
        marks.line(drawing, [examples, examples], up, muted, width=1.2, dash="dash")


def _marked(
    fit: Document, plan: Sequence[Document]
) -> list[tuple[tuple[float, float], str]]:
    """Return the places of note, (batch size, steps), each with its name."""
    curve = fit["curve"]
    found: list[tuple[tuple[float, float], str]] = []
    even = _even_trade(fit)
    if (
        even is not None
        and curve["batch_size"][0] <= even[0] <= curve["batch_size"][-1]
    ):
        found.append((even, f"even trade, {number(even[0])}"))
    picked = [plan[0], plan[-1]] if len(plan) > 1 else plan[:1]
    for entry in picked:
        size, steps = field(entry, "batch_size"), field(entry, "steps")
        if is_number(size) and is_number(steps) and steps > 0:
            on = count(field(entry, "num_replicas"))
            found.append(((size, steps), f"{count(size)} on P = {on}"))
    return found


def _even_trade(fit: Document) -> tuple[float, float] | None:
    """Return where 1 % fewer steps cost 1 % more examples: batch size and steps."""
    phi = field(fit, "critical_batch_size", "value")
    steps, examples = (
        field(fit, key, "value") for key in ("min_steps", "min_examples")
    )
    knee = field(fit, "knee_exponent") or 1.0
    if not all(map(is_number, (phi, steps, examples, knee))) or steps <= 0:
        return None
    floor = field(fit, "min_batch_size", "value") or 0.0
    size = floor + (phi + math.sqrt(phi * (phi + 8 * floor))) / 2
    noisy = examples / (size - floor)
    return size, (steps**knee + noisy**knee) ** (1 / knee)


def _mark(
    drawing: Drawing, pair: tuple[float, float], words: str, *, hollow: bool
) -> None:
    size, steps = pair
    shade = style.color("second") if hollow else style.color("ink")
    look: dict[str, Any] = {"size": 9, "symbol": "diamond"}
    if hollow:
        look = {"size": 11, "line": {"color": shade, "width": 2.5}}
    fill = style.color("paper") if hollow else shade
    hover = f"batch {words}: %{{y:,.3r}} steps, %{{x:,.3s}}"
    marks.points(drawing, [size * steps], [steps], fill, hover, **look)
    drawing.add_scatter(
        x=[size * steps],
        y=[steps],
        mode="text",
        text=[f"\u2002{words}\u2002"],
        textposition="top right" if hollow else "bottom left",
        textfont={"color": shade, "size": 12.5},
        cliponaxis=False,
        hoverinfo="skip",
    )


def _trade_title(
    fit: Document,
    plan: Sequence[Document],
    law: Sequence[tuple[float, float]],
    unit: str,
) -> str:
    fewest = field(fit, "min_steps", "value"), field(fit, "min_examples", "value")
    if plan and all(is_number(value) and value > 0 for value in fewest):
        size, steps = field(plan[0], "batch_size"), field(plan[0], "steps")
        if is_number(size) and is_number(steps):
            ratios = times(steps / fewest[0]), times(size * steps / fewest[1])
            return (
                f"Batch {count(size)} takes {ratios[0]} the fewest steps, "
                f"{ratios[1]} the fewest {unit}"
            )
    (first, most), (last_size, least) = _ends_run(fit, law)
    grown = last_size * least / first / most
    verb = "grow" if grown >= 1 else "fall to"
    return (
        f"From batch {count(first)} to {count(last_size)} steps fall "
        f"{times(most / least)}, {unit} {verb} {times(grown)}"
    )


def _ends_run(
    fit: Document, law: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], tuple[float, float]]:
    # The law at the smallest and the largest batch size run.
    sizes = sorted(point["batch_size"] for point in entries(fit, "points"))
    nearest = [
        min(law, key=lambda pair: abs(pair[0] - size)) for size in (sizes[0], sizes[-1])
    ]
    return (sizes[0], nearest[0][1]), (sizes[-1], nearest[1][1])
