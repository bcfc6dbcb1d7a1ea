"""One offline HTML file from the JSON document of a result.

The file holds its style, its script, plotly.js and the document itself, and asks the
network for nothing: a content security policy forbids it to.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rightbatch.errors import InputError
from rightbatch.reporting import page, sections, whatif
from rightbatch.reporting.figures import charts
from rightbatch.reporting.formats import field

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
    "noise": ("measurements",),
    "train": ("trained",),
    "replay": ("replays",),
}


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
    return page.write_page(render_html(document), path)


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
    body = [
        sections.header(document, headline, rest),
        *sections.sections(document, made, panel),
    ]
    scripts = () if model is None else _panel_scripts(model)
    return page.page(headline, body, document, made, scripts=scripts)


def _panel_scripts(model: Mapping[str, Any]) -> list[str]:
    names = ("laws.js", "drawing.js", "panel.js")
    scripts = [f"<script>\n{page.resource(name)}</script>" for name in names]
    return [page.json_script("what-if", model), *scripts]
