"""A spectrum from a CSV file: curvatures, how often each occurs, noise and start."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from rightbatch._checks import did_you_mean
from rightbatch.errors import TableError

# What a column may be called; the first is its name in messages.
_NAMES = {
    "curvature": ("curvature", "curvatures", "h", "eigenvalue", "eigenvalues"),
    "weight": ("weight", "weights", "count", "multiplicity"),
    "noise": ("noise", "noise_variance", "c"),
    "start": ("start", "initial", "second_moment", "s"),
}
_ABOVE_ZERO = ("curvature", "weight")
_FLAT = "leave directions without curvature out: they add nothing to the loss"
_BENT = "a direction of negative curvature has no minimum; leave it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumColumns:
    """The columns of a file, in its order.

    Args:
        curvature: All positive.
        weight: How many directions each stands for; one each where None.
        noise: Variance of one example's gradient along each; None where not given.
        start: Second moment at the start; None where not given.
        unread: Names of columns that were not read.
    """

    curvature: tuple[float, ...]
    weight: tuple[float, ...] | None = None
    noise: tuple[float, ...] | None = None
    start: tuple[float, ...] | None = None
    unread: tuple[str, ...] = ()


def read_spectrum(path: Path) -> SpectrumColumns:
    """Return the spectrum in a CSV file.

    Columns: ``curvature`` (or ``h``, ``eigenvalue``); optional ``weight``, ``noise``,
    ``start``; others are not read, unless their names are near to one of these.

    Args:
        path: The file.

    Returns:
        One value per row and column.

    Raises:
        TableError: The file is missing, empty or no table; a column is missing,
            misspelt or stands twice; a value is text, not finite, negative, or zero
            where it must not be. Row and column are named.
    """
    table = _read_cells(path)
    header = [name.lower() for name in table[0][1]]
    places = _places(path, header)
    unread = _unread(path, header, places)
    rows = table[1:]
    if not rows:
        raise TableError(f"{path}: has a header and no rows.")
    for line, cells in rows:
        if len(cells) != len(header):
            raise TableError(
                f"{path}: row {line} has {len(cells)} values for {len(header)} columns."
            )
    columns = {
        name: tuple(
            _value(path, line, name, header[place], cells[place])
            for line, cells in rows
        )
        for name, place in places.items()
    }
    return SpectrumColumns(
        curvature=columns["curvature"],
        weight=columns.get("weight"),
        noise=columns.get("noise"),
        start=columns.get("start"),
        unread=unread,
    )


def _read_cells(path: Path) -> list[tuple[int, list[str]]]:
    try:
        # A byte-order mark, as spreadsheets write it, is no part of the first name.
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = [
                (line, [cell.strip() for cell in cells])
                for line, cells in enumerate(csv.reader(lines), start=1)
                if any(cell.strip() for cell in cells)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TableError(f"{path}: cannot be read: {reason}.") from error
    if not table:
        raise TableError(f"{path}: is empty.", "its first line names curvature, ...")
    return table


def _places(path: Path, header: list[str]) -> dict[str, int]:
    """Return where each column stands."""
    places: dict[str, int] = {}
    for name, names in _NAMES.items():
        found = [place for place, column in enumerate(header) if column in names]
        if len(found) > 1:
            listed = " and ".join(header[place] for place in found)
            raise TableError(f"{path}: {name} stands twice, as {listed}.", "drop one")
        if found:
            places[name] = found[0]
    if "curvature" in places:
        return places
    if _is_number(header[0]):
        raise TableError(
            f"{path}: has no header.", "its first line names the column: curvature"
        )
    way_out = did_you_mean("curvature", header)
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        way_out = "separate the columns with commas"
    raise TableError(
        f"{path}: has no column 'curvature'; it has {', '.join(header)}.", way_out
    )


def _unread(path: Path, header: list[str], places: dict[str, int]) -> tuple[str, ...]:
    """Return names of columns that mean nothing here; refuse misspelt ones."""
    # What may still be meant; a single letter is near to too much.
    wanted = [
        name
        for column, names in _NAMES.items()
        if column not in places
        for name in names
        if len(name) > 1
    ]
    others = [name for place, name in enumerate(header) if place not in places.values()]
    for name in others:
        way_out = did_you_mean(name, wanted)
        if way_out:
            raise TableError(
                f"{path}: has an unknown column {name!r}.",
                f"{way_out} if not, drop or rename it",
            )
    return tuple(name or "a column without a name" for name in others)


def _value(path: Path, line: int, name: str, column: str, text: str) -> float:
    value = float(text) if _is_number(text) else math.nan
    where = f"{path}: row {line}, column {column}"
    if not math.isfinite(value):
        raise TableError(f"{where} must be a finite number, got {text!r}.")
    if value > 0 or (value == 0 and name not in _ABOVE_ZERO):
        return value
    if name == "curvature":
        raise TableError(
            f"{where} must be positive, got {text}.", _BENT if value < 0 else _FLAT
        )
    rule = "must be positive" if name in _ABOVE_ZERO else "must not be negative"
    raise TableError(f"{where} {rule}, got {text}.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
