"""The sections of a report on a measured noise scale."""

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from rightbatch.reporting.formats import entries
from rightbatch.reporting.noise_tables import noise_sheets
from rightbatch.reporting.page import section, table

Document = Mapping[str, Any]

MEANING = (
    "The noise scale, tr Σ/|G|², is the batch size at which a batch's gradient holds "
    "as much noise as signal. It is a property of the gradients at one place of one "
    "run, of its optimizer and its learning rate.",
    "It is not the critical batch size, which trades steps for examples over a whole "
    "run to a target. That one also depends on curvature and on what the optimizer "
    "makes of a gradient. Where both were measured, the noise scale was from 1/20 (an "
    "autoencoder, a VAE) to 8 times (SVHN) the critical batch size (McCandlish et al., "
    "2018, table 1, as transcribed); under Adam at the scale of language models it was "
    "reported orders of magnitude too small (Merrill et al., 2025).",
    "The interval is about the mean of each window, no more: neither that distance nor "
    "how the noise scale moves within the window is in it. Runs to the target give the "
    "calibrated factor, with `rightbatch noise --calibrate`.",
)


def noise_sections(document: Document) -> Iterable[str]:
    """Yield the sections of a document that holds a measured noise scale.

    Args:
        document: What `noise` or `plan --quick` prints with `--json`.

    Yields:
        HTML: the tables, and what they do not mean. Nothing for other documents.
    """
    if not entries(document, "measurements"):
        return
    sheets = noise_sheets(document)
    yield section("Gradient noise", [table(sheet) for sheet in sheets])
    paragraphs = [f"<p>{escape(text)}</p>" for text in MEANING]
    said = re.sub("`(.*?)`", r"<code>\1</code>", "".join(paragraphs))
    yield section("What it does not mean", [f'<div class="prose">{said}</div>'])
