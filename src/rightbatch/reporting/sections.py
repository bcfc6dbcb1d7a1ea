"""The parts of a report: each takes the document and returns escaped HTML."""

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
from rightbatch.reporting.noise_sections import noise_sections
from rightbatch.reporting.noise_tables import quick_sheet
from rightbatch.reporting.page import (
    figure,
    folded,
    save_button,
    section,
    table,
    words,
)
from rightbatch.reporting.sheet import Sheet
from rightbatch.reporting.train_sections import train_sections

Document = Mapping[str, Any]


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
    lead = f'<p class="lead">{words(rest)}</p>' if rest else ""
    return (
        f'<header>\n<p class="about">{escape(" · ".join(about))}</p>\n'
        '<button id="theme" type="button" hidden>Dark</button>\n'
        f"<h1>{words(title)}</h1>\n{lead}{_key_numbers(document)}</header>"
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
    ]
    if is_number(field(best, "seconds")):
        said = f"{number(field(best, 'steps'))} steps at lr {number(field(best, 'lr'))}"
        tiles.append(("time to the target", seconds(field(best, "seconds")), said))
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
        yield section("Mix", [table(sheet) for sheet in cluster_sheets(document)])
    timed = measured and not field(document, "band")
    again = "The same with the measured step times in place of their law"
    yield section(
        "Plan",
        [
            *_regret(document),
            *([table(_plan_sheet(document, plan), "plan")] if plan else []),
            *([table(tables.plan_sheet(measured, again), "plan")] if timed else []),
            *([table(comparison_sheet(compared))] if compared else []),
            *([table(tables.verification_sheet(checks))] if checks else []),
        ],
    )
    yield panel
    yield section("Figures", [figure(chart) for chart in made])
    yield from noise_sections(document)
    yield from train_sections(document)
    loss_laws, definitions = tables.loss_law_sheet(fits), definitions_sheet(fits)
    yield section(
        "Fitted laws",
        [
            *([table(tables.fit_sheet(fits))] if fits else []),
            *([table(loss_laws)] if loss_laws.rows else []),
            *([folded(definitions)] if definitions.rows else []),
            *([table(tables.step_time_sheet(step_time))] if step_time else []),
        ],
    )
    runs = entries(document, "runs")
    sheets = [tables.points_sheet(fits), tables.times_sheet(timings)]
    sheets.append(tables.runs_sheet(runs))
    yield section("Measurements", [folded(sheet) for sheet in sheets if sheet.rows])
    yield _settings(document)


def _plan_sheet(document: Document, plan: list[dict[str, Any]]) -> Sheet:
    # A plan from a noise scale knows no steps, and has the ends of a band instead.
    return quick_sheet(document) if field(document, "band") else tables.plan_sheet(plan)


def _regret(document: Document) -> list[str]:
    # What buying runs came to know of the batch sizes in the table below.
    sentence = field(document, "regret", "sentence")
    return [f"<p>{words(str(sentence))}</p>"] if sentence else []


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


def _settings(document: Document) -> str:
    parts = {**(field(document, "inputs") or {})}
    parts |= {
        f"workload {k}": v for k, v in (field(document, "workload") or {}).items()
    }
    rows = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(label(value))}</dd>"
        for key, value in parts.items()
    )
    settings = f'<dl class="settings">{rows}</dl>' if rows else ""
    return section("Settings", [f"<div>{settings}{save_button()}</div>"])
