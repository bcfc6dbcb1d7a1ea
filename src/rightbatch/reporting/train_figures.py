"""Figures of training under batch-size policies: batch, rate and loss.

Each quantity is shown twice, against the examples taken and against the updates made:
a larger batch trades the one for the other.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting import marks, style
from rightbatch.reporting.drawing import Drawing
from rightbatch.reporting.formats import (
    count,
    entries,
    field,
    is_number,
    label,
    number,
    replicas_text,
    seconds,
)
from rightbatch.reporting.marks import Chart
from rightbatch.reporting.sheet import Column, Sheet
from rightbatch.reporting.train_tables import spread_text, trained_sheet

Document = Mapping[str, Any]
Record = Mapping[str, Any]
AXES = (("examples", "examples taken"), ("steps", "updates made"))
_SPACING = 0.17  # between two panels, of the height
_NAMED = ("first", "second", "third")
_NAME = 0.22  # of the width, what a name takes
_FEW_ROWS = 12
_FEW_POLICIES = 2  # that a title has room for


def train_charts(document: Document) -> list[Chart]:
    """Return the figures of a document of training runs.

    Args:
        document: What `train` prints with `--json`.

    Returns:
        Loss against priced seconds for each number of replicas, then batch size with
        learning rate, and loss, against examples and against updates.

    Example:
        >>> train_charts({"trained": []})
        []
    """
    trained = [one for one in entries(document, "trained") if entries_of(one)]
    if not trained:
        return []
    found = [
        *(priced_chart(document, trained, p) for p in _replicas_of(trained)),
        *(loss_chart(trained, *axis) for axis in AXES),
        *(batch_chart(trained, *axis) for axis in AXES),
    ]
    return [chart for chart in found if chart is not None]


def entries_of(run: Record) -> list[Record]:
    """Return the evaluations of a run whose loss is known and positive."""
    return [one for one in entries(run, "evaluations") if _positive(one["loss"])]


def priced_chart(
    document: Document, trained: Sequence[Record], replicas: int
) -> Chart | None:
    """Return the evaluated loss against seconds by the law, on some replicas."""
    drawing = style.blank("loss")
    place = _replicas_of(trained).index(replicas)
    curves = [
        (
            run,
            [one["seconds"][place] for one in entries_of(run)],
            [one["loss"] for one in entries_of(run)],
        )
        for run in trained
    ]
    axis = style.log_axis([y for _, _, ys in curves for y in ys])
    _draw(drawing, curves, axis, seconds)
    top = max(x for _, xs, _ in curves for x in xs) * 1.02
    if top <= 0:
        return None
    across = style.linear_seconds(top)
    across["title"] = style.axis_layout("seconds, as priced")["title"]
    drawing.update_xaxes(across)
    drawing.update_yaxes(axis.layout())
    _mark_compared(drawing, document, top)
    on = replicas_text(replicas)
    return Chart(
        name=f"train-loss-seconds-{replicas}",
        title=_priced_title(document, replicas, on),
        caption=f"The batches that were taken, their seconds by the law of step times "
        f"on {on}. Dotted: the loss that the comparison is made at. Grey: the "
        "baseline.",
        drawing=drawing,
        sheet=_points_sheet(f"Loss against seconds on {on}", curves, "time", seconds),
    )


def _priced_title(document: Document, replicas: int, on: str) -> str:
    told = [
        (label(one["policy"]), priced)
        for one in entries(document, "comparison")
        for priced in entries(one, "seconds")
        if priced["num_replicas"] == replicas
    ]
    if not told:
        return f"The loss against seconds on {on}"
    if len(told) <= _FEW_POLICIES:
        listed = ", ".join(f"{name} {spread_text(priced)}" for name, priced in told)
        return f"On {on}, of the baseline's seconds to the loss both reach: {listed}"
    paying = [one for one in told if one[1]["pays"] == "yes"]
    if not paying:
        return f"On {on} no policy is sooner than the baseline at the loss both reach"
    name, best = min(paying, key=lambda one: one[1]["value"])
    return (
        f"On {on} {name} gains most: {spread_text(best)} the baseline's seconds to the "
        "loss both reach"
    )


def _mark_compared(drawing: Drawing, document: Document, top: float) -> None:
    losses = {field(one, "loss") for one in entries(document, "comparison")}
    for loss in sorted(filter(_positive, losses)):
        look = {"width": 1.2, "dash": "dot"}
        marks.line(drawing, [0, top], [loss, loss], style.color("muted"), **look)


def loss_chart(trained: Sequence[Record], key: str, title: str) -> Chart:
    """Return the evaluated loss against examples or updates."""
    drawing = style.blank("loss")
    evaluated = "examples" if key == "examples" else "step"
    curves = [
        (
            run,
            [one[evaluated] for one in entries_of(run)],
            [one["loss"] for one in entries_of(run)],
        )
        for run in trained
    ]
    axis = style.log_axis([y for _, _, ys in curves for y in ys])
    _draw(drawing, curves, axis, count)
    drawing.update_xaxes(_counted(title, curves))
    drawing.update_yaxes(axis.layout())
    best = min(trained, key=_final)
    noun = "examples" if key == "examples" else "updates"
    told = count(best["examples" if key == "examples" else "steps"])
    return Chart(
        name=f"train-loss-{key}",
        title=f"The lowest final loss is {label(best['policy'])}'s, "
        f"{number(best['loss'])} after {told} {noun}",
        caption="Evaluated on the same examples at the same places for all. Grey: the "
        "baseline.",
        drawing=drawing,
        sheet=_points_sheet(f"Loss against {noun}", curves, noun, count),
    )


def batch_chart(trained: Sequence[Record], key: str, title: str) -> Chart:
    """Return batch size above learning rate, against examples or updates."""
    drawing = style.blank("batch size")
    drawing.split(_SPACING)
    place = {"x": 0, "y": (1 - _SPACING) / 2, "xshift": -64, "yshift": 12}
    style.note(drawing, "learning rate", xanchor="left", **place)
    upper = [(run, *_steps_of(run, key, "batch_size")) for run in trained]
    lower = [(run, *_steps_of(run, key, "lr")) for run in trained]
    sizes = style.log_axis([y for _, _, ys in upper for y in ys], "batch", most=6)
    rates = style.log_axis([y for _, _, ys in lower for y in ys], most=5)
    _draw(drawing, upper, sizes, count)
    _draw(drawing, lower, rates, count, {"xaxis": "x2", "yaxis": "y2"})
    drawing.update_xaxes(_counted(title, upper))
    drawing.update_xaxes({"title": {"text": ""}, "showticklabels": False}, row=1)
    drawing.update_yaxes(sizes.layout(), row=1)
    drawing.update_yaxes(rates.layout(), row=2)
    largest = max(trained, key=lambda run: max(_column(run, "batch_size")))
    sizes_of = _column(largest, "batch_size")
    noun = "examples" if key == "examples" else "updates"
    many = count(largest["examples" if key == "examples" else "steps"])
    return Chart(
        name=f"train-batch-{key}",
        title=f"{label(largest['policy'])} goes from {count(sizes_of[0])} to "
        f"{count(max(sizes_of))} examples an update in {many} {noun}",
        caption="Upper: the batch served. Lower: the learning rate of the first "
        "parameter group, all factors in it. Grey: the baseline.",
        drawing=drawing,
        sheet=trained_sheet(trained) if key == "examples" else None,
    )


# Marks --------------------------------------------------------------------------------

Curve = tuple[Record, Sequence[float], Sequence[float]]
End = tuple[float, float, str, str]


def _draw(
    drawing: Drawing,
    curves: Sequence[Curve],
    axis: style.Axis,
    told: Any,
    axes: Mapping[str, str] | None = None,
) -> None:
    looks = _looks([run for run, _, _ in curves])
    ends: list[End] = []
    named: set[str] = set()
    for run, x, y in curves:
        if not x:
            continue
        name = label(run["policy"])
        texts = [
            f"{name}, seed {run['seed']}<br>{told(at)}: {number(height)}"
            for at, height in zip(x, y, strict=True)
        ]
        shade, dash = looks[name]
        drawing.add_scatter(
            x=list(x),
            y=list(y),
            mode="lines",
            line={"color": shade, "width": 1.3 if name in named else 2, "dash": dash},
            text=texts,
            hovertemplate="%{text}<extra></extra>",
            **(axes or {}),
        )
        if name not in named:
            named.add(name)
            ends.append((x[-1], y[-1], _short(name), shade))
    if axes is None:
        for group in _side_by_side(ends):
            marks.name_ends(drawing, group, axis)


def _side_by_side(ends: Sequence[End]) -> list[list[End]]:
    """Return ends of curves in groups whose names would lie upon each other."""
    groups: list[list[End]] = []
    width = _NAME * max((end[0] for end in ends), default=0.0)
    # From the left, so that the margin fits the names at the right edge.
    for end in sorted(ends):
        if groups and end[0] - groups[-1][-1][0] < width:
            groups[-1].append(end)
        else:
            groups.append([end])
    return groups


def _looks(trained: Sequence[Record]) -> dict[str, tuple[str, str | None]]:
    """Return the colour of each policy, grey for the baseline, dashed past six."""
    names = list(
        dict.fromkeys(label(t["policy"]) for t in trained if not field(t, "baseline"))
    )
    shades = [style.color(name) for name in _NAMED]
    if len(names) > len(shades):
        shades = style.ramp(min(len(names), len(style.RAMP)))
    looks: dict[str, tuple[str, str | None]] = {
        name: (shades[place % len(shades)], "dash" if place >= len(shades) else None)
        for place, name in enumerate(names)
    }
    for run in trained:
        if field(run, "baseline"):
            looks[label(run["policy"])] = (style.color("muted"), None)
    return looks


def _short(name: str) -> str:
    """Return a name that leaves the figure some room; the table has it in full."""
    return name if len(name) <= 18 else f"{name[:17]}…"


def _counted(title: str, curves: Sequence[Curve]) -> dict[str, Any]:
    top = max((x[-1] for _, x, _ in curves if x), default=1) or 1
    return style.axis_layout(title) | {"range": [0, 1.01 * top], "nticks": 5}


# Numbers ------------------------------------------------------------------------------


def _steps_of(run: Record, key: str, name: str) -> tuple[list[float], list[float]]:
    """Return a curve as stairs: an update's value holds from its start to its end."""
    at, values = _column(run, key), _column(run, name)
    x: list[float] = []
    y: list[float] = []
    before = 0.0
    for place, value in zip(at, values, strict=True):
        if is_number(value) and value > 0:
            x += [before, place]
            y += [value, value]
        before = place
    return x, y


def _column(run: Record, name: str) -> list[Any]:
    return list(field(run, "curve", name) or [])


def _points_sheet(caption: str, curves: Sequence[Curve], head: str, text: Any) -> Sheet:
    rows: list[tuple[str, ...]] = []
    for run, x, y in curves:
        last = len(x) - 1
        places = {round(i * last / (_FEW_ROWS - 1)) for i in range(_FEW_ROWS)}
        rows += [
            (label(run["policy"]), count(run["seed"]), text(x[i]), number(y[i]))
            for i in sorted(places)
            if x
        ]
    heads = ("policy", "seed", head, "loss")
    return Sheet(
        caption=caption,
        columns=tuple(Column(one) for one in heads),
        rows=tuple(rows),
    )


def _replicas_of(trained: Sequence[Record]) -> list[int]:
    return [one["num_replicas"] for one in entries(trained[0], "prices")]


def _final(run: Record) -> float:
    loss = field(run, "loss")
    return loss if is_number(loss) else math.inf


def _positive(value: Any) -> bool:
    return is_number(value) and value > 0
