"""The parts of a report: each takes the document and returns escaped HTML."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from rightbatch.reporting import tables
from rightbatch.reporting.cluster_tables import cluster_sheets
from rightbatch.reporting.comparison_tables import comparison_sheet
from rightbatch.reporting.fit_tables import definitions_sheet
from rightbatch.reporting.formats import (
    count,
    ends,
    entries,
    field,
    is_number,
    label,
    number,
    replicas_text,
    seconds,
    span,
    times,
)
from rightbatch.reporting.marks import Chart
from rightbatch.reporting.sheet import Sheet

Document = Mapping[str, Any]
_FEW_NOTES = 5  # shown unfolded
_UNIT = re.compile(r"(?<=\d) (?=(?:µs|ms|min|s|h|%)(?!\w))")


def headline(document: Document, made: list[Chart]) -> tuple[str, str]:
    """Return the answer in one sentence, and what else there is to say of it."""
    sentence = str(field(document, "sentence") or "").strip()
    if sentence:
        # The first sentence is the answer; a full stop inside a number has no blank.
        first, stop, rest = sentence.partition(". ")
        return first + stop.strip(), rest
    fits = [label(field(fit, "status")) for fit in entries(document, "workloads")]
    if len(fits) > 1:
        said = [f"{many} {status}" for status, many in Counter(fits).items()]
        return f"{len(fits)} tables of runs fitted: {', '.join(said)}", ""
    if made:
        return made[0].title, ""
    return f"Result of rightbatch {document['command']}", ""


def header(document: Document, title: str, rest: str) -> str:
    """Return the top of the page: the answer, and the few numbers behind it."""
    workload = field(document, "workload", "name") or field(
        document, "inputs", "workload"
    )
    about = ["rightbatch", str(document["command"])]
    about += [label(workload)] if workload else []
    fits = entries(document, "convergence")
    targets = [label(fit["target"]) for fit in fits if field(fit, "target") is not None]
    about += [f"target {', '.join(targets)}"] if targets else []
    lead = f'<p class="lead">{_words(rest)}</p>' if rest else ""
    return (
        f'<header>\n<p class="about">{escape(" · ".join(about))}</p>\n'
        '<button id="theme" type="button" hidden>Dark</button>\n'
        f"<h1>{_words(title)}</h1>\n{lead}{_key_numbers(document)}</header>"
    )


def _key_numbers(document: Document) -> str:
    plan, fits = entries(document, "optimal"), entries(document, "convergence")
    if not plan:
        return ""
    best = plan[0]
    on = replicas_text(field(best, "num_replicas"))
    within = field(best, "within_5_percent") or (None, None)
    tiles = [
        (
            f"batch size, {on}",
            count(field(best, "batch_size")),
            f"{span(*within, text=count)} within 5 %",
        ),
        (
            "time to the target",
            seconds(field(best, "seconds")),
            f"{number(field(best, 'steps'))} steps at lr {number(field(best, 'lr'))}",
        ),
    ]
    if len(plan) > 1:
        last = plan[-1]
        on = replicas_text(field(last, "num_replicas"))
        size = count(field(last, "batch_size"))
        tiles.append((f"on {on}", times(field(last, "speedup")), f"at batch {size}"))
    if fits:
        phi = field(fits[-1], "critical_batch_size")
        value = field(phi, "value")
        big = number(value) if is_number(value) else ends(phi)
        small = ends(phi) if is_number(value) else tables.fit_name(fits[-1])
        tiles.append(("critical batch size", big, small))
    cells = (
        f"<div><dt>{escape(name)}</dt>"
        f"<dd><b>{escape(big)}</b> {escape(small)}</dd></div>"
        for name, big, small in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>\n'


def sections(document: Document, made: list[Chart], panel: str = "") -> Iterable[str]:
    """Yield the sections for which there are data, in reading order."""
    plan = entries(document, "optimal")
    measured = entries(document, "optimal_measured")
    fits = entries(document, "convergence") or entries(document, "workloads")
    checks = entries(document, "verification")
    timings = entries(document, "step_time", "points") or entries(document, "times")
    step_time = field(document, "step_time")
    compared = entries(document, "comparisons")
    yield _warnings(document, fits)
    if document["command"] == "cluster":
        yield _section("Mix", [_table(sheet) for sheet in cluster_sheets(document)])
    again = "The same with the measured step times in place of their law"
    yield _section(
        "Plan",
        [
            *([_table(tables.plan_sheet(plan), "plan")] if plan else []),
            *([_table(tables.plan_sheet(measured, again), "plan")] if measured else []),
            *([_table(comparison_sheet(compared))] if compared else []),
            *([_table(tables.verification_sheet(checks))] if checks else []),
        ],
    )
    yield panel
    yield _section("Figures", [_figure(chart) for chart in made])
    loss_laws, definitions = tables.loss_law_sheet(fits), definitions_sheet(fits)
    yield _section(
        "Fitted laws",
        [
            *([_table(tables.fit_sheet(fits))] if fits else []),
            *([_table(loss_laws)] if loss_laws.rows else []),
            *([_folded(definitions)] if definitions.rows else []),
            *([_table(tables.step_time_sheet(step_time))] if step_time else []),
        ],
    )
    runs = entries(document, "runs")
    sheets = [tables.points_sheet(fits), tables.times_sheet(timings)]
    sheets.append(tables.runs_sheet(runs))
    yield _section("Measurements", [_folded(sheet) for sheet in sheets if sheet.rows])
    yield _settings(document)


def _section(title: str, parts: list[str]) -> str:
    if not parts:
        return ""
    name = title.lower().replace(" ", "-")
    body = "\n".join(parts)
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{title}</h2>\n'
        f'<div class="parts">{body}</div>\n</section>'
    )


def _warnings(document: Document, fits: list[dict[str, Any]]) -> str:
    said = [*(field(document, "warnings") or [])]
    for part in (*fits, field(document, "step_time")):
        said += field(part, "warnings") or []
    items = "".join(f"<li>{escape(label(text))}</li>" for text in dict.fromkeys(said))
    if not items:
        return ""
    return (
        '<section id="warnings" class="warnings" aria-labelledby="warnings-title">'
        f'<h2 id="warnings-title">To bear in mind</h2><ul>{items}</ul></section>'
    )


def _figure(chart: Chart) -> str:
    name, title = escape(chart.name), escape(chart.title)
    return (
        f'<figure id="{name}"><h3>{_words(chart.title)}</h3>'
        f'<div class="plot" data-figure="{name}" role="img" aria-label="{title}">'
        "<noscript>The figure needs JavaScript; its numbers are below.</noscript></div>"
        f"<figcaption>{escape(chart.caption)}{_numbers(chart)}</figcaption></figure>"
    )


def _numbers(chart: Chart) -> str:
    if chart.sheet is None or not chart.sheet.rows:
        return ""
    return (
        '<details class="numbers"><summary>Numbers</summary>'
        f"{_table(chart.sheet)}</details>"
    )


def _table(sheet: Sheet, kind: str = "") -> str:
    heads = "".join(
        f'<th scope="col" class="{column.align}">{escape(column.heading)}</th>'
        for column in sheet.columns
    )
    rows = "\n".join(f"<tr>{_cells(sheet, row)}</tr>" for row in sheet.rows)
    notes = "".join(f'<p class="note">{escape(text)}</p>' for text in sheet.notes)
    if len(sheet.notes) > _FEW_NOTES:
        many = count(len(sheet.notes))
        notes = f"<details><summary>Advice, {many} lines</summary>{notes}</details>"
    caption = escape(sheet.caption)
    return (
        f'<div class="table {kind}"><div class="scroll" role="region" tabindex="0" '
        f'aria-label="{caption}"><table><caption><span>{caption}</span></caption>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
        f"{notes}</div>"
    )


def _cells(sheet: Sheet, row: tuple[str, ...]) -> str:
    cells: list[str] = []
    for place, (column, text) in enumerate(zip(sheet.columns, row, strict=True)):
        tag = 'th scope="row"' if place == 0 else "td"
        cells.append(f'<{tag} class="{column.align}">{escape(text)}</{tag[:2]}>')
    return "".join(cells)


def _folded(sheet: Sheet) -> str:
    rows = "1 row" if len(sheet.rows) == 1 else f"{count(len(sheet.rows))} rows"
    summary = f"{escape(sheet.caption)}, {rows}"
    return f"<details><summary>{summary}</summary>{_table(sheet)}</details>"


def _settings(document: Document) -> str:
    parts = {**(field(document, "inputs") or {})}
    parts |= {
        f"workload {k}": v for k, v in (field(document, "workload") or {}).items()
    }
    rows = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(label(value))}</dd>"
        for key, value in parts.items()
    )
    save = (
        '<p><button id="save" type="button" hidden>Save the result as JSON</button></p>'
    )
    settings = f'<dl class="settings">{rows}</dl>' if rows else ""
    return _section("Settings", [f"<div>{settings}{save}</div>"])


def _words(text: str) -> str:
    # A number and its unit stay on one line.
    return _UNIT.sub("\N{NO-BREAK SPACE}", escape(text))
