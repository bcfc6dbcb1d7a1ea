"""Progress of training: examples taken, and loss, batch, rate and noise beside them."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from rightbatch.cli.output import Output
from rightbatch.reporting.formats import count, number

if TYPE_CHECKING:
    from rightbatch.controller import UpdateRecord

_EVERY_SECONDS = 0.1
Tell = Callable[["UpdateRecord", float], None]


@contextmanager
def run_progress(
    out: Output, title: str, total: int, *, in_examples: bool
) -> Generator[Tell]:
    """Show how far a run is while the block runs.

    Args:
        out: Whether to.
        title: What is running.
        total: Examples or updates of the run.
        in_examples: Which of the two.

    Yields:
        A function that takes each record and the last evaluated loss.
    """
    if not out.progress or out.quiet or not sys.stderr.isatty():
        out.note(f"{title} ...")
        yield lambda _record, _loss: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, told="")
        shown = 0.0

        def tell(record: "UpdateRecord", loss: float) -> None:
            nonlocal shown
            now = monotonic()
            # Thousands of updates a second: drawing each would be most of the work.
            if now - shown < _EVERY_SECONDS:
                return
            shown = now
            done = record.examples if in_examples else record.step
            progress.update(task, completed=done, told=told(record, loss))

        yield tell
        progress.update(task, completed=total)


def told(record: "UpdateRecord", loss: float) -> str:
    """Return an update in a few words.

    Args:
        record: Of it.
        loss: The last evaluated one.

    Returns:
        Loss, batch, learning rate, and the noise scale where it is known.
    """
    text = f"loss {number(loss)}  batch {count(record.batch_size)}"
    text += f"  lr {number(record.lr)}"
    if record.noise_scale is not None:
        text += f"  noise {number(record.noise_scale)}"
    return text
