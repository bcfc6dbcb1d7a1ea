"""The sections of a report on training under batch-size policies, or on a replay."""

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from rightbatch.reporting.formats import entries
from rightbatch.reporting.page import section, table
from rightbatch.reporting.replay_tables import replay_sheets
from rightbatch.reporting.train_tables import priced_on, train_sheets

Document = Mapping[str, Any]

MEANING = (
    "Every run takes the same examples in the same order from the same weights. They "
    "are compared at a loss that all of them reached: the target where all did, else "
    "the lowest that all came to. What a run took to it is read between two "
    "evaluations.",
    "The seconds of {on} are the law of step times, measured here, summed over the "
    "batches that were taken, with the time replicas spend on each other. Evaluations "
    "are not in them, nor is what measuring the noise costs.",
    "A comparison of one seed cannot tell a gain from chance; several seeds with "
    "`--seeds` show their range. A learning rate that suits the small batch may not be "
    "the best one for either run: tune both before you trust a small difference.",
)


def train_sections(document: Document) -> Iterable[str]:
    """Yield the sections of a document of training runs or of a replay.

    Args:
        document: What `train` or `replay` prints with `--json`.

    Yields:
        HTML: the tables, and what they rest on. Nothing for other documents.
    """
    if entries(document, "replays"):
        yield section("Replay", [table(sheet) for sheet in replay_sheets(document)])
    if not entries(document, "trained"):
        return
    yield section("Training", [table(sheet) for sheet in train_sheets(document)])
    on = priced_on(document)
    paragraphs = [text.format(on=on) for text in MEANING if on or "{on}" not in text]
    said = "".join(f"<p>{escape(text)}</p>" for text in paragraphs)
    said = re.sub("`(.*?)`", r"<code>\1</code>", said)
    yield section("How they are compared", [f'<div class="prose">{said}</div>'])
