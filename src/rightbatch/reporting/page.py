"""One offline page: its frame, and figures, tables and sections in HTML.

The file holds its style, its scripts, plotly.js and the result itself, and asks the
network for nothing: a content security policy forbids it to.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from rightbatch._checks import writable_path
from rightbatch.errors import RightbatchError
from rightbatch.reporting import style
from rightbatch.reporting.formats import count, is_number
from rightbatch.reporting.marks import Chart
from rightbatch.reporting.sheet import Sheet

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
_FEW_NOTES = 5  # shown unfolded
_UNIT = re.compile(r"(?<=\d) (?=(?:µs|ms|min|s|h|%)(?!\w))")


def write_page(content: str, path: str | Path) -> Path:
    """Write a page to one file, whole or not at all.

    Args:
        content: The page.
        path: Where to; an existing file is replaced.

    Returns:
        The path.

    Raises:
        InputError: The path cannot be written.
        RightbatchError: The disk failed or is full; an older file is kept.
    """
    data = content.encode("utf-8", errors="xmlcharrefreplace")
    path = writable_path("report", path)
    is_device = path.exists() and not path.is_file()
    beside = path if is_device else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(data)
        if not is_device:
            beside.replace(path)
    except OSError as error:
        if not is_device:
            beside.unlink(missing_ok=True)
        raise RightbatchError(
            f"report: {path} could not be written: {error.strerror}.",
            "nothing was changed; free some space or name another file",
        ) from error
    return path


def page(
    title: str,
    body: Sequence[str],
    document: Mapping[str, Any],
    charts: Sequence[Chart],
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
) -> str:
    """Return a whole page.

    Args:
        title: Of the window, unescaped.
        body: The header, then the sections, as HTML.
        document: The result, which the page can save as JSON.
        charts: Whose places are in the body.
        styles: Names of further style sheets of this package.
        scripts: Further scripts as HTML, after the figures'.

    Returns:
        HTML; the same arguments always give the same.
    """
    # The script with the figures' data comes before the code that draws them.
    data = {chart.name: chart.drawing.to_dict() for chart in charts}
    look = "".join(resource(name) for name in ("report.css", *styles))
    header, *sections = body
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)} · rightbatch</title>",
            f"<style>\n{_colors()}\n{look}</style>\n</head>\n<body>",
            '<a class="skip" href="#main">Skip to the result</a>',
            header,
            '<main id="main">',
            *sections,
            "</main>",
            "<footer><p>One file, made by rightbatch; it loads nothing from anywhere.",
            "</p></footer>",
            json_script("result", document),
            json_script("figures", data),
            json_script("dark-of", style.dark_of()),
            f"<script>{_plotly()}</script>",
            f"<script>\n{resource('report.js')}</script>",
            *scripts,
            "</body>\n</html>\n",
        ]
    )


def section(title: str, parts: Sequence[str], name: str = "") -> str:
    """Return a section with a heading, or nothing where there are no parts.

    Args:
        title: Of the section, unescaped.
        parts: HTML.
        name: Its id; from the title if empty.

    Returns:
        HTML.
    """
    if not parts:
        return ""
    name = name or title.lower().replace(" ", "-")
    body = "\n".join(parts)
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{escape(title)}</h2>\n'
        f'<div class="parts">{body}</div>\n</section>'
    )


def figure(chart: Chart, after: str = "") -> str:
    """Return the place of a figure, with its title, caption and numbers.

    Args:
        chart: The figure.
        after: HTML below the numbers.

    Returns:
        HTML.
    """
    name, title = escape(chart.name), escape(chart.title)
    return (
        f'<figure id="{name}"><h3>{words(chart.title)}</h3>'
        f'<div class="plot" data-figure="{name}" role="img" aria-label="{title}">'
        "<noscript>The figure needs JavaScript; its numbers are below.</noscript></div>"
        f"<figcaption>{escape(chart.caption)}{_numbers(chart)}{after}</figcaption>"
        "</figure>"
    )


def _numbers(chart: Chart) -> str:
    if chart.sheet is None or not chart.sheet.rows:
        return ""
    return (
        '<details class="numbers"><summary>Numbers</summary>'
        f"{table(chart.sheet)}</details>"
    )


def table(sheet: Sheet, kind: str = "") -> str:
    """Return a table with its notes.

    Args:
        sheet: Its content.
        kind: A class of its own.

    Returns:
        HTML.
    """
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


def folded(sheet: Sheet) -> str:
    """Return a table that opens on demand."""
    rows = "1 row" if len(sheet.rows) == 1 else f"{count(len(sheet.rows))} rows"
    summary = f"{escape(sheet.caption)}, {rows}"
    return f"<details><summary>{summary}</summary>{table(sheet)}</details>"


def words(text: str) -> str:
    """Return escaped text in which a number and its unit stay on one line."""
    return _UNIT.sub("\N{NO-BREAK SPACE}", escape(text))


def save_button() -> str:
    """Return the button that saves the result as JSON."""
    return (
        '<p><button id="save" type="button" hidden>Save the result as JSON</button></p>'
    )


def json_script(name: str, value: Any) -> str:
    """Return data for the page's scripts, what is not finite as null.

    Args:
        name: Of the element, without ``-data``.
        value: The data.

    Returns:
        HTML.
    """
    # An escaped "<" is the same JSON, and cannot end the script or open a comment.
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}-data">{text}</script>'


@cache
def resource(name: str) -> str:
    """Return a style sheet or a script of this package."""
    return files("rightbatch.reporting").joinpath(name).read_text(encoding="utf-8")


def _colors() -> str:
    light, dark = (
        "".join(f"--{name}:{shade[side]};" for name, shade in style.PALETTE.items())
        for side in (0, 1)
    )
    return (
        f":root{{color-scheme:light;{light}}}\n"
        "@media screen and (prefers-color-scheme:dark){"
        f':root:not([data-theme="light"]){{color-scheme:dark;{dark}}}}}\n'
        f'@media screen{{:root[data-theme="dark"]{{color-scheme:dark;{dark}}}}}'
    )


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        pairs: Mapping[Any, Any] = value
        return {str(key): _finite(item) for key, item in pairs.items()}
    if isinstance(value, (list, tuple)):
        items: list[Any] | tuple[Any, ...] = value
        return [_finite(item) for item in items]
    if isinstance(value, float):
        return value if is_number(value) else None
    return value


@cache
def _plotly() -> str:
    # The package alone, to find its file: loading its figures would take longer than
    # all that is done here.
    import plotly

    script = files(plotly).joinpath("package_data", "plotly.min.js")
    text = script.read_text(encoding="utf-8")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
