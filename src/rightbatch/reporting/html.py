"""One offline HTML file from the JSON document of a result.

The file holds its style, its script, plotly.js and the document itself, and asks the
network for nothing: a content security policy forbids it to.
"""

import json
import os
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from rightbatch._checks import writable_path
from rightbatch.errors import InputError, RightbatchError
from rightbatch.reporting import sections, style, whatif
from rightbatch.reporting.figures import charts
from rightbatch.reporting.formats import field, is_number

Document = Mapping[str, Any]
SCHEMA = 1
# The commands whose results have a report, and the keys of which one must be there.
_COMMANDS = {
    "plan": ("optimal", "runs"),
    "fit": ("workloads",),
    "time": ("times",),
    "sweep": ("runs",),
    "runs": ("runs",),
    "cluster": ("best",),
}
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def check_document(document: Any) -> Document:
    """Return the document if a report can be made from it.

    Args:
        document: What was read from a JSON file.

    Returns:
        The same document.

    Raises:
        InputError: It is not what a rightbatch command printed, or not one of the
            commands that have a report, or of another schema.

    Example:
        >>> check_document({"schema": 1, "command": "fit", "workloads": []})["command"]
        'fit'
    """
    way_out = "give it the output of `rightbatch plan --json`"
    if not isinstance(document, Mapping):
        raise InputError("report: this is not a result of rightbatch.", way_out)
    found: Document = document
    missing = [key for key in ("schema", "command") if key not in found]
    if missing:
        raise InputError(
            f"report: this is not a result of rightbatch: no {missing[0]!r} in it.",
            way_out,
        )
    if found["schema"] != SCHEMA:
        raise InputError(
            f"report: the result has schema {found['schema']!r}, this version of "
            f"rightbatch reads {SCHEMA}.",
            "make the result again, or use the version that made it",
        )
    if found["command"] not in _COMMANDS:
        raise InputError(
            f"report: there is no report of {found['command']!r}.",
            f"one of {', '.join(_COMMANDS)}",
        )
    wanted = _COMMANDS[str(found["command"])]
    if not any(key in found for key in wanted):
        error = found.get("error")
        why = f": {field(error, 'message')}" if error else "."
        raise InputError(
            f"report: nothing to show, no {' or '.join(wanted)} in the result of "
            f"{found['command']}{why}",
            way_out,
        )
    return found


def write_html(document: Document, path: str | Path) -> Path:
    """Write the report of a document to one file, whole or not at all.

    Args:
        document: What a command prints with `--json`.
        path: Where to; an existing file is replaced.

    Returns:
        The path.

    Raises:
        InputError: The document is not a result, or the path cannot be written.
        RightbatchError: The disk failed or is full; an older file is kept.
    """
    content = render_html(document).encode("utf-8", errors="xmlcharrefreplace")
    path = writable_path("report", path)
    is_device = path.exists() and not path.is_file()
    beside = path if is_device else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
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


def render_html(document: Any) -> str:
    """Return the report of a document as one page.

    The same document always gives the same page.

    Args:
        document: What a command prints with `--json`.

    Returns:
        A whole HTML document.

    Raises:
        InputError: The document is not a result, or parts of it are of a wrong kind.
    """
    document = check_document(document)
    try:
        return _page(document)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise InputError(
            "report: a part of the result is not as rightbatch writes it: "
            f"{type(error).__name__}: {error}.",
            "make the result again",
        ) from error


def _page(document: Document) -> str:
    made = charts(document)
    headline, rest = sections.headline(document, made)
    model = whatif.what_if(document)
    panel = "" if model is None else whatif.panel(model)
    # The script with the figures' data comes before the code that draws them.
    data = {chart.name: chart.drawing.to_dict() for chart in made}
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(headline)} · rightbatch</title>",
            f"<style>\n{_colors()}\n{_resource('report.css')}</style>\n</head>\n<body>",
            '<a class="skip" href="#main">Skip to the result</a>',
            sections.header(document, headline, rest),
            '<main id="main">',
            *sections.sections(document, made, panel),
            "</main>",
            "<footer><p>One file, made by rightbatch; it loads nothing from anywhere.",
            "</p></footer>",
            _json_script("result", _finite(document)),
            _json_script("figures", _finite(data)),
            _json_script("dark-of", style.dark_of()),
            f"<script>{_plotly()}</script>",
            f"<script>\n{_resource('report.js')}</script>",
            *([] if model is None else _panel_scripts(model)),
            "</body>\n</html>\n",
        ]
    )


def _panel_scripts(model: Mapping[str, Any]) -> list[str]:
    names = ("laws.js", "drawing.js", "panel.js")
    scripts = [f"<script>\n{_resource(name)}</script>" for name in names]
    return [_json_script("what-if", _finite(model)), *scripts]


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


def _json_script(name: str, value: Any) -> str:
    # An escaped "<" is the same JSON, and cannot end the script or open a comment.
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}-data">{text}</script>'


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
def _resource(name: str) -> str:
    return files("rightbatch.reporting").joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    # The package alone, to find its file: loading its figures would take longer than
    # all that is done here.
    import plotly

    script = files(plotly).joinpath("package_data", "plotly.min.js")
    text = script.read_text(encoding="utf-8")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
