"""The command ``rightbatch``: one command per verb.

Commands import what they need when they run, so that ``--help`` is quick and ``fit``
never loads torch. All errors end here: a clear last line and an exit code.
"""

import sys
from contextlib import nullcontext, suppress
from typing import Any, NoReturn

import typer

from rightbatch.cli import (
    cluster,
    fit,
    noise,
    plan,
    replay,
    report,
    runs,
    simulate,
    sweep,
    time,
    train,
    transfer,
    workloads,
)
from rightbatch.cli.output import error_document, print_json, results_alone
from rightbatch.errors import InputError, InterruptedRunError, RightbatchError

# Typer carries its own click since 0.20; its public error leads to the base of all.
_UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="rightbatch",
    help="Find the mini-batch size that reaches your target soonest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (
    plan,
    fit,
    time,
    sweep,
    runs,
    noise,
    train,
    replay,
    report,
    transfer,
    simulate,
    cluster,
    workloads,
):
    app.command(_command.NAME)(_command.run)


@app.callback(invoke_without_command=True)
def _about(
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    if version:
        from rightbatch import __version__

        typer.echo(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Args:
        arguments: Words after the command's name; the process's own by default.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        with results_alone() if "--json" in words else nullcontext():
            code = app(args=words, standalone_mode=False, prog_name="rightbatch")
    except (KeyboardInterrupt, typer.Abort):
        _interrupted(words)
    except RightbatchError as error:
        _end(words, error)
    except _UsageError as error:
        _end(words, InputError(error.format_message()))
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; nobody is left to tell
        sys.exit(1)
    except Exception as error:
        # A bug of ours: still no traceback for a person, but enough to report it.
        _end(words, RightbatchError(f"{_place(error)}: please report this bug."))
    else:
        # Newer typers turn Ctrl-C into this code, without a word.
        if code == InterruptedRunError.exit_code:
            _interrupted(words)
        sys.exit(code if isinstance(code, int) else 0)


def _interrupted(words: list[str]) -> NoReturn:
    if words[0] in ("plan", "sweep", "train") and "--quick" not in words:
        kept, way_out = "finished runs are kept", "go on with --resume"
    else:
        kept, way_out = "nothing is written", ""
    _end(words, InterruptedRunError(f"interrupted; {kept}.", way_out))


def _end(words: list[str], error: RightbatchError) -> NoReturn:
    if "--json" in words:
        with suppress(BrokenPipeError):  # the reader has gone; the code still counts
            print_json(error_document(words[0] if words else "", error))
    print(f"rightbatch: {error}", file=sys.stderr, flush=True)
    sys.exit(error.exit_code)


def _place(error: BaseException) -> str:
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    name = last.filename.rpartition("rightbatch/")[2]
    return f"{type(error).__name__}: {error} [{name}:{last.lineno}]"
