"""The report of the reproduced paper: verdicts, figures, and what they rest on."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from rightbatch.quadratic.paper import Claim, Condition, Evidence, Figure, Paper
from rightbatch.quadratic.paper.claims import MANY, TINY, VERDICT_RULE, Kind
from rightbatch.quadratic.paper.reproduction import SOURCE
from rightbatch.reporting import page
from rightbatch.reporting.formats import (
    count,
    is_number,
    number,
    percent,
    seconds,
    times,
)
from rightbatch.reporting.marks import Chart
from rightbatch.reporting.quadratic_figures import quadratic_chart
from rightbatch.reporting.sheet import Column, Sheet

_PROGRAM = "rightbatch"


def write_paper_report(path: str | Path, paper: Paper) -> Path:
    """Write the report to one HTML file, whole or not at all.

    Args:
        path: Where to; an existing file is replaced.
        paper: What was reproduced.

    Returns:
        The path.

    Raises:
        InputError: The path cannot be written.
        RightbatchError: The disk failed or is full; an older file is kept.
    """
    return page.write_page(render_paper(paper), path)


def render_paper(paper: Paper) -> str:
    """Return the report as one page.

    Args:
        paper: What was reproduced.

    Returns:
        A whole HTML document, which loads nothing from anywhere.
    """
    charts = {figure.name: quadratic_chart(figure) for figure in paper.figures}
    figures = {
        figure.name: _figure(figure, charts[figure.name]) for figure in paper.figures
    }
    shown = {figure.name for figure in paper.figures if figure.in_paper}
    body = [
        _header(paper),
        page.section("Claims", [_verdicts(paper.claims)]),
        page.section(
            "Figures of the paper",
            [_pair([figures[f.name] for f in paper.figures if f.in_paper])],
        ),
    ]
    for claim in paper.claims:
        own = [figures[name] for name in claim.figures if name not in shown]
        others = [name for name in claim.figures if name in shown]
        shown.update(claim.figures)
        body.append(_claim(claim, own, others))
    rest = [figures[f.name] for f in paper.figures if f.name not in shown]
    body.append(
        page.section(
            "Beyond the paper",
            [_conditions(paper.beyond), _pair(rest)],
            "beyond",
        )
    )
    body.append(page.section("How this was made", [_method(paper)], "method"))
    document = {"schema": 1, "command": "simulate"} | paper.to_dict()
    return page.page(
        paper.headline, body, document, list(charts.values()), styles=["paper.css"]
    )


def verdict_sheet(paper: Paper) -> Sheet:
    """Return the verdicts as a table for the terminal.

    Args:
        paper: What was reproduced.

    Returns:
        A row per claim.
    """
    return Sheet(
        caption=f"{paper.headline}.",
        columns=(
            Column("", align="left"),
            Column("verdict", align="left"),
            Column("on the published grids", align="left", wide=True),
            Column("claim", align="left"),
        ),
        rows=tuple(
            (
                str(claim.number),
                claim.verdict,
                claim.verdict_on_grid or number(None),
                claim.short,
            )
            for claim in paper.claims
        ),
    )


def _header(paper: Paper) -> str:
    verdicts = [claim.verdict for claim in paper.claims]
    table, setting = paper.results.tuned, paper.results.setting
    power = setting.powers[0]
    sgd, momentum, ema = (
        table.critical(name, power) for name in ("sgd", "momentum", "ema")
    )
    tiles = (
        (
            "claims reproduced",
            f"{verdicts.count('reproduced')} of {len(verdicts)}",
            f"{verdicts.count('partly')} partly",
        ),
        (
            "critical batch size of SGD",
            count(round(sgd)),
            f"{count(round(momentum))} with momentum, {count(round(ema))} with an EMA",
        ),
        (
            "examples that no method can do without",
            count(round(paper.results.bayes)),
            f"{count(round(paper.results.max_likelihood))} by maximum likelihood",
        ),
        ("computed in", seconds(paper.seconds), f"{len(paper.figures)} figures"),
    )
    cells = "".join(
        f"<div><dt>{escape(name)}</dt>"
        f"<dd><b>{escape(big)}</b> {escape(small)}</dd></div>"
        for name, big, small in tiles
    )
    return (
        f'<header>\n<p class="about">{_PROGRAM} · simulate --paper</p>\n'
        '<button id="theme" type="button" hidden>Dark</button>\n'
        f"<h1>{page.words(paper.headline)}</h1>\n"
        f'<p class="lead">{escape(SOURCE)}. {page.words(paper.problem)}</p>'
        f'<dl class="tiles">{cells}</dl>\n</header>'
    )


def _badge(claim: Claim) -> str:
    kind = claim.verdict.split(" ", maxsplit=1)[0]
    return f'<span class="verdict {kind}">{escape(claim.verdict)}</span>'


def _verdicts(claims: Sequence[Claim]) -> str:
    items = "".join(
        f"<li><b>{claim.number}</b><span>{_badge(claim)}</span>"
        f'<a href="#claim-{claim.number}">{page.words(claim.claim)}</a>'
        f"{_by_grid(claim)}</li>"
        for claim in claims
    )
    rule = f'<p class="note">{page.words(VERDICT_RULE)}</p>'
    return f'<div><ol class="claims">{items}</ol>{rule}</div>'


def _by_grid(claim: Claim) -> str:
    other = claim.verdict_on_grid
    if other is None or other == claim.verdict:
        return ""
    return f"<small>by the published grids: {escape(other)}</small>"


def _claim(claim: Claim, own: Sequence[str], others: Sequence[str]) -> str:
    name = f"claim-{claim.number}"
    note = f'<p class="note">{page.words(claim.note)}</p>' if claim.note else ""
    told = f"{note}{_links(others)}"
    parts = (
        f'<div class="sides">{_conditions(claim.conditions)}'
        f"<div>{''.join(own)}{told}</div></div>"
        if own
        else f"{_conditions(claim.conditions, 'wide')}{told}"
    )
    return (
        f'<section id="{name}" class="claim" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{claim.number}. {page.words(claim.claim)} '
        f'{_badge(claim)}</h2>\n<div class="parts">{parts}</div>\n</section>'
    )


def _links(names: Sequence[str]) -> str:
    told = ", ".join(
        f'<a href="#figure-{escape(name)}">{escape(name)}</a>' for name in names
    )
    return f'<p class="note">See figure {told}.</p>' if told else ""


def _pair(parts: Sequence[str]) -> str:
    return f'<div class="pair">{"".join(parts)}</div>' if parts else ""


def _figure(figure: Figure, chart: Chart) -> str:
    # An option and its value stay on one line.
    options = f"{_PROGRAM} {figure.command}".split(" --")
    first, *rest = (f"<span>{escape(option)}</span>" for option in options)
    told = " ".join([first, *(each.replace("<span>", "<span>--") for each in rest)])
    return page.figure(chart, f'<p class="command"><code>{told}</code></p>')


def _conditions(conditions: Sequence[Condition], kind: str = "") -> str:
    found = "".join(_condition(one) for one in conditions)
    return f'<div class="conditions {kind}">{found}</div>'


def _condition(one: Condition) -> str:
    word = "holds" if one.holds else "fails"
    mark = "✓" if one.holds else "✗"
    aside = "" if one.counts else ' <span class="aside">(not counted)</span>'
    return (
        f'<div class="condition"><p><span class="mark {word}">{mark} {word}</span> '
        f"{page.words(one.statement)}{aside}</p>{page.table(evidence_sheet(one))}</div>"
    )


def evidence_sheet(one: Condition) -> Sheet:
    """Return the numbers of a condition, those of the published grids below.

    Args:
        one: The condition.

    Returns:
        A table.
    """
    rows = _rows(one.evidence, "")
    if one.on_grid is not None:
        rows += _rows(one.on_grid, " (grid)")
    heads = (one.evidence.heading, *one.evidence.columns)
    columns = tuple(Column(head) for head in heads)
    return Sheet(caption=one.statement, columns=columns, rows=tuple(rows))


def _rows(evidence: Evidence, suffix: str) -> list[tuple[str, ...]]:
    return [
        (
            f"{name}{suffix}",
            *(
                _cell(value, evidence.kind).replace("-", "\N{MINUS SIGN}")
                for value in row
            ),
        )
        for name, row in evidence.rows.items()
    ]


def _cell(value: float, kind: Kind) -> str:
    if not is_number(value):
        return number(None)
    if kind == "count":
        return count(round(value))
    if kind == "percent":
        # A rise to many times as much is no percentage.
        many = value >= MANY
        return times(1 + value) if many else percent(value if abs(value) > TINY else 0)
    return times(value) if kind == "times" else number(round(value, 3))


def _method(paper: Paper) -> str:
    lines = (
        f"{paper.problem} The problem is that of the paper on the bins of its code, so "
        "that numbers can be compared. The published grids are 100 learning rates "
        "times 20 momenta or decays, read at the first step at or below the target.",
    )
    told = "".join(f"<p>{page.words(line)}</p>" for line in lines)
    return f"<div>{told}{page.save_button()}</div>"
