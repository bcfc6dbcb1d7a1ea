"""What a command prints: one JSON document or text for a person, and its progress."""

import json
import math
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

import typer

from rightbatch.errors import InterruptedRunError, RightbatchError

SCHEMA = 1
# As a workload's name has it; its own module would load torch.
STAND_IN_MARK = "(stand-in)"
_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How a command speaks.

    Results go to stdout, everything else to stderr.

    Args:
        command: Its name.
        json: Print one JSON document instead of text.
        quiet: Print results only.
        progress: Show progress bars where stderr is a terminal.
    """

    command: str
    json: bool = False
    quiet: bool = False
    progress: bool = True

    def document(self, inputs: Mapping[str, Any], **results: Any) -> dict[str, Any]:
        """Return the JSON document of a result.

        Args:
            inputs: What was asked for.
            **results: The stable keys of the command.

        Returns:
            The document.
        """
        head = {"schema": SCHEMA, "command": self.command, "inputs": dict(inputs)}
        return {**head, **results}

    def show(self, document: Mapping[str, Any], *renderables: Any) -> None:
        """Print the result: the document under ``--json``, else the renderables.

        Text about a workload whose data is a stand-in says so.

        Args:
            document: From :meth:`document`.
            *renderables: Text, or what rich can print.
        """
        if self.json:
            print_json(document)
            return
        from rich.console import Console

        console = Console(soft_wrap=False, highlight=False, markup=False)
        for renderable in renderables:
            console.print(renderable)
        if STAND_IN_MARK in f"{document.get('inputs')} {document.get('workload')}":
            console.print("Measured on a stand-in: generated files, not the data.")

    def fail(self, document: Mapping[str, Any], error: RightbatchError) -> NoReturn:
        """Print what there is, then end the command with the error.

        Args:
            document: Results so far, from :meth:`document`.
            error: Why the rest is missing.

        Raises:
            typer.Exit: With the error's code.
            SystemExit: With that of an interrupted run: typer returns the same code
                for a Ctrl-C nobody has told the person about.
        """
        if self.json:
            failure = error_document(self.command, error)["error"]
            print_json({**document, "error": failure})
        print(f"rightbatch: {error}", file=sys.stderr, flush=True)
        if isinstance(error, InterruptedRunError):
            raise SystemExit(error.exit_code)
        raise typer.Exit(error.exit_code)

    def note(self, text: str) -> None:
        """Tell the person something that is not the result.

        Args:
            text: One line.
        """
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Generator[Callable[[int], None]]:
        """Show a progress bar with the time left while the block runs.

        Args:
            title: What is going on.
            total: How many pieces there are.

        Yields:
            A function that takes how many pieces are done.
        """
        if not self.progress or self.quiet or not sys.stderr.isatty():
            self.note(f"{title} ...")
            yield lambda _done: None
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(title, total=total)
            yield lambda done: progress.update(task, completed=done)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to stdout; NaN and infinities become null.

    Args:
        document: Anything JSON can hold.
    """
    text = json.dumps(to_plain(document), allow_nan=False, indent=2)
    print(text, file=_results.get() or sys.stdout, flush=True)


@contextmanager
def results_alone() -> Generator[None]:
    """Keep stdout for the JSON document: what a workload prints goes to stderr.

    Yields:
        Nothing.
    """
    token = _results.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results.reset(token)


def to_plain(value: Any) -> Any:
    """Return a value that JSON can hold: numpy scalars and arrays made plain.

    Args:
        value: Nested dicts, lists, numbers, strings, None.

    Returns:
        The same, plain; a float that is not finite becomes None.

    Example:
        >>> to_plain({"a": (1, float("nan"))})
        {'a': [1, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def error_document(command: str, error: RightbatchError) -> dict[str, Any]:
    """Return the JSON document of a failure.

    Args:
        command: The command's name.
        error: What went wrong.

    Returns:
        The document; its `error` holds type, message and exit code.
    """
    return {
        "schema": SCHEMA,
        "command": command,
        "error": {
            "type": type(error).__name__,
            "message": str(error),
            "exit_code": error.exit_code,
        },
    }
