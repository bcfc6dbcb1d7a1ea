"""A recorded run read from rows, or from a CSV or JSON file of the same keys."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rightbatch.errors import InputError, TableError
from rightbatch.simulation.trace import MEASUREMENTS, Trace

_NEEDED = ("step", "examples", "batch_size", "loss")
_NUMBERS = (*_NEEDED, "lr", *MEASUREMENTS)


def read_trace(source: str | Path | Sequence[Mapping[str, Any]]) -> Trace:
    """Return the trace of a recorded run.

    A row needs ``step``, ``examples``, ``batch_size`` and ``loss``; ``lr``, ``reason``
    and the names of :data:`rightbatch.simulation.trace.MEASUREMENTS` are read where
    there are any, other keys are left alone. An empty cell is a value nobody measured.
    A row of step 0 is the start: its loss is the initial one.

    Args:
        source: Rows; or a file, ``.csv``, or ``.json`` with rows or with a document
            whose ``trace`` they are and whose ``summary`` may have ``initial_loss``.

    Returns:
        The trace.

    Raises:
        TableError: A key is missing, or a value is no number; row and key are named.
        InputError: The file cannot be read, or rows do not grow in steps and examples.

    Example:
        >>> rows = [
        ...     {"step": 0, "examples": 0, "batch_size": "", "loss": 2.3},
        ...     {"step": 1, "examples": 64, "batch_size": 64, "loss": 1.9},
        ... ]
        >>> read_trace(rows).initial_loss
        2.3
    """
    initial_loss = None
    if isinstance(source, (str, Path)):
        rows, initial_loss = _read_file(Path(source))
    else:
        rows = list(source)
    if not rows:
        raise TableError("read_trace: there are no rows.")
    for number, row in enumerate(rows, start=1):
        missing = [key for key in _NEEDED if key not in row]
        if missing:
            raise TableError(
                f"read_trace: row {number} has no {', '.join(missing)}.",
                f"it has {', '.join(map(str, row))}",
            )
    columns = {
        key: np.array([_number(row.get(key), n, key) for n, row in enumerate(rows, 1)])
        for key in _NUMBERS
        if any(key in row for row in rows)
    }
    first = 0
    if columns["step"][0] == 0:
        first, start = 1, float(columns["loss"][0])
        initial_loss = start if math.isfinite(start) else initial_loss
    for key in ("step", "examples", "batch_size"):
        _refuse_blank(key, columns[key], first)
    unknown = np.full(len(rows), np.nan)
    return Trace(
        steps=columns["step"][first:],
        examples=columns["examples"][first:],
        batch_sizes=columns["batch_size"][first:],
        lrs=columns.get("lr", unknown)[first:],
        losses=columns["loss"][first:],
        reasons=[str(row.get("reason") or "") for row in rows[first:]],
        initial_loss=initial_loss,
        measurements={
            key: columns[key][first:] for key in MEASUREMENTS if key in columns
        },
    )


def _read_file(path: Path) -> tuple[list[Mapping[str, Any]], float | None]:
    if path.suffix not in (".csv", ".json"):
        raise InputError(
            f"read_trace: {path} must end in .csv or .json, got {path.suffix!r}."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"read_trace: {path} cannot be read: {error}.") from error
    if path.suffix == ".csv":
        return list(csv.DictReader(text.splitlines())), None
    try:
        document: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"read_trace: {path} is not JSON: {error}.") from error
    start = None
    if isinstance(document, dict):
        summary: Any = document.get("summary")
        if isinstance(summary, dict):
            start = summary.get("initial_loss")
        document = document.get("trace")
    if not isinstance(document, list) or not all(
        isinstance(row, dict) for row in document
    ):
        raise InputError(
            f"read_trace: {path} must hold rows, or a document with `trace`."
        )
    return document, None if start is None else _number(start, 0, "initial_loss")


def _number(value: Any, row: int, key: str) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TableError(
            f"read_trace: `{key}` must be a number, got {value!r} in row {row}."
        ) from None


def _refuse_blank(key: str, values: np.ndarray, first: int) -> None:
    bad = np.flatnonzero(~(np.isfinite(values[first:]) & (values[first:] > 0)))
    if bad.size:
        raise TableError(
            f"read_trace: `{key}` must be positive, got {values[first + bad[0]]:g} "
            f"in row {first + int(bad[0]) + 1}."
        )
