"""The figures of a cluster's result: time against money, time against replicas."""

from collections.abc import Mapping
from typing import Any

from rightbatch.reporting import marks, style
from rightbatch.reporting.cluster_tables import currency_of, pareto_sheet
from rightbatch.reporting.drawing import Drawing
from rightbatch.reporting.formats import (
    entries,
    field,
    is_number,
    label,
    number,
    replicas_text,
    seconds,
    times,
)
from rightbatch.reporting.marks import Chart
from rightbatch.reporting.sheet import Column, Sheet

Document = Mapping[str, Any]


def cluster_charts(document: Document) -> list[Chart]:
    """Return the figures of a document that `cluster` printed.

    Args:
        document: What it prints with `--json`.

    Returns:
        Those whose data are there: the front, and the time against replicas.

    Example:
        >>> mixes = [{"money": 1.0, "seconds": 9.0}, {"money": 2.0, "seconds": 5.0}]
        >>> [chart.name for chart in cluster_charts({"pareto": mixes})]
        ['time-against-money']
    """
    found = [pareto_chart(document), replicas_chart(document)]
    return [chart for chart in found if chart is not None]


def pareto_chart(document: Document) -> Chart | None:
    """Return time against money: mixes than which none is sooner and cheaper."""
    mixes = entries(document, "pareto")
    if len(mixes) < 2:
        return None
    money = [field(mix, "money") for mix in mixes]
    taken = [field(mix, "seconds") for mix in mixes]
    best = field(document, "best")
    shade = style.color("first")
    drawing = style.blank("time to the target")
    marks.line(drawing, money, taken, shade, width=1.6)
    told = [
        f"{number(paid)} {currency_of(document)}: {seconds(time)}<br>{_amounts(mix)}"
        for paid, time, mix in zip(money, taken, mixes, strict=True)
    ]
    marks.points(drawing, money, taken, shade, "%{text}", texts=told, size=6)
    _mark_best(drawing, document, best)
    limit = field(document, "inputs", "budget")
    deadline = field(document, "inputs", "deadline")
    across = style.log_axis(money)
    upward = style.log_axis(taken, "seconds")
    muted = style.color("muted")
    if is_number(limit) and across.low < limit < across.high:
        ends = [upward.low, upward.high]
        marks.line(drawing, [limit, limit], ends, muted, width=1.2, dash="dash")
    if is_number(deadline) and upward.low < deadline < upward.high:
        ends = [across.low, across.high]
        marks.line(drawing, ends, [deadline, deadline], muted, width=1.2, dash="dash")
    drawing.update_xaxes(across.layout(_money_axis(document)))
    drawing.update_yaxes(upward.layout())
    return Chart(
        name="time-against-money",
        title=_pareto_title(document, money, taken),
        caption="No mix is both sooner and cheaper than one on the line; the batch is "
        "re-chosen for each. Circle: the best for what was asked. Dashed: the budget "
        "or the deadline.",
        drawing=drawing,
        sheet=pareto_sheet(document),
    )


def _mark_best(drawing: Drawing, document: Document, best: Any) -> None:
    paid, time = field(best, "money"), field(best, "seconds")
    if not (is_number(paid) and is_number(time)):
        return
    hover = f"best: {number(paid)} {currency_of(document)}, {seconds(time)}"
    ring = {"color": style.color("second"), "width": 2.5}
    paper = style.color("paper")
    marks.points(drawing, [paid], [time], paper, hover, size=12, line=ring)


def _amounts(mix: Any) -> str:
    amounts: Mapping[str, Any] = field(mix, "amounts") or {}
    return ", ".join(f"{label(name)} {number(each)}" for name, each in amounts.items())


def _money_axis(document: Document) -> str:
    name = currency_of(document)
    if name == "replicas":
        return "replicas"
    renting = field(document, "inputs", "prices") == "per hour"
    return f"bill, {name}" if renting else f"price, {name}"


def _pareto_title(document: Document, money: list[Any], taken: list[Any]) -> str:
    best = field(document, "best")
    if not is_number(field(best, "money")):
        return f"From {seconds(taken[0])} to {seconds(taken[-1])} for more money"
    name = currency_of(document)
    title = f"{seconds(best['seconds'])} for {number(best['money'])} {name}"
    dearer = [
        (paid / best["money"], time / best["seconds"])
        for paid, time in zip(money, taken, strict=True)
        if paid >= 1.9 * best["money"]
    ]
    if dearer:
        more, share = dearer[0]
        title += f"; {times(more)} the money takes {number(100 * share)} % of the time"
    return title


def replicas_chart(document: Document) -> Chart | None:
    """Return the time of each job against replicas, all else as in the best mix."""
    scaling = field(document, "scaling")
    counts: list[Any] = list(field(scaling, "replicas") or [])
    jobs = entries(scaling, "jobs")
    if len(counts) < 2 or not jobs:
        return None
    drawing = style.blank("time to the target")
    given = {field(share, "name"): share for share in entries(document, "best", "jobs")}
    ends: list[tuple[float, float, str, str]] = []
    values: list[float] = []
    for job, shade in zip(jobs, style.ramp(len(jobs)), strict=True):
        pairs = [
            (count, time)
            for count, time in zip(counts, field(job, "seconds"), strict=True)
            if is_number(time)
        ]
        if not pairs:
            continue
        x, y = ([pair[i] for pair in pairs] for i in (0, 1))
        values += y
        told = [f"{replicas_text(p)}: {seconds(t)}" for p, t in pairs]
        name = label(field(job, "name"))
        marks.line(drawing, x, y, shade, hover=f"{name}, %{{text}}", texts=told)
        ends.append((x[-1], y[-1], name, shade))
        share = given.get(field(job, "name"))
        if share is not None:
            ring = {"color": shade, "width": 2.5}
            at = [field(share, "num_replicas")], [field(share, "seconds")]
            hover = f"{name}: {replicas_text(at[0][0])}, {seconds(at[1][0])}"
            paper = style.color("paper")
            marks.points(drawing, *at, paper, hover, size=11, line=ring)
    if not values:
        return None
    upward = style.log_axis(values, "seconds")
    if len(ends) > 1:
        marks.name_ends(drawing, ends, upward)
    drawing.update_xaxes(style.log_axis(counts, "batch").layout("replicas"))
    drawing.update_yaxes(upward.layout())
    return Chart(
        name="time-against-replicas",
        title=_replicas_title(given),
        caption="Speed, bandwidth and memory as in the best mix; the batch re-chosen "
        "for each number of replicas. Circles: what each job gets.",
        drawing=drawing,
        sheet=_replicas_sheet(counts, jobs),
    )


def _replicas_title(given: Mapping[Any, Any]) -> str:
    parts = [
        f"{label(name)} {number(field(share, 'num_replicas'))}"
        for name, share in given.items()
    ]
    if len(parts) > 1:
        return f"Replicas shared as {', '.join(parts)}"
    share = next(iter(given.values()), None)
    on = replicas_text(field(share, "num_replicas"))
    return f"{on} reach the target in {seconds(field(share, 'seconds'))}"


def _replicas_sheet(counts: list[Any], jobs: list[dict[str, Any]]) -> Sheet:
    rows = [
        (number(count), *(seconds(field(job, "seconds")[place]) for job in jobs))
        for place, count in enumerate(counts)
    ]
    names = [label(field(job, "name")) for job in jobs]
    return Sheet(
        caption="Time against replicas",
        columns=(Column("replicas"), *(Column(name) for name in names)),
        rows=tuple(rows),
    )
