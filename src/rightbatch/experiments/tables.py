"""Tables of runs and of step times measured elsewhere, read from CSV files."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rightbatch._checks import did_you_mean, positive
from rightbatch.errors import TableError

COUNTS = ("steps", "examples", "epochs", "tokens")
NOT_REACHED = ("not_reached", "diverged")

# Steps that were rounded to whole ones, or examples to whole batches.
COUNTS_AGREE = 0.02
# Above it no count is real, and the arithmetic of a fit would overflow.
LARGEST = 1e15

Row = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRun:
    """One run of a table.

    Args:
        workload: Its workload; empty where the table does not say.
        target: Its target; None where the table does not say.
        batch_size: Examples per step.
        steps: Steps to the target; NaN for a run that did not reach it.
        lr: Learning rate; None where the table does not say.
    """

    workload: str
    target: float | None
    batch_size: float
    steps: float
    lr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableTime:
    """One step time of a table.

    Args:
        batch_size: Examples per step over all replicas.
        num_replicas: Replicas.
        seconds: Seconds per step.
    """

    batch_size: float
    num_replicas: int
    seconds: float


def read_runs(
    path: Path, *, examples_per_epoch: float | None = None
) -> tuple[TableRun, ...]:
    """Return the runs of a CSV file.

    Columns: ``batch_size`` and one of ``steps``, ``examples``, ``epochs``, ``tokens``;
    optional ``workload``, ``target``, ``lr``, ``status``; others are not read. Where
    ``steps`` is missing it is examples over batch size, epochs times
    `examples_per_epoch` over batch size, or tokens over a batch size in tokens.

    Args:
        path: The file.
        examples_per_epoch: Needed for a table in epochs.

    Returns:
        One entry per row. A row whose ``status`` says that the target was not reached
        may leave its steps empty.

    Raises:
        TableError: The file is missing, empty or no table; a column is missing or
            stands twice; a value is text, NaN, infinite or not positive. Row and
            column are named.
    """
    if examples_per_epoch is not None:
        positive("fit", "examples_per_epoch", examples_per_epoch)
    rows = _read(path, required=("batch_size",), known=(*COUNTS, "workload", "lr"))
    columns = rows[0][1].keys()
    count = next((name for name in COUNTS if name in columns), None)
    if count is None:
        raise TableError(
            f"{path}: needs one of the columns {', '.join(COUNTS)}; it has "
            f"{', '.join(columns)}.",
        )
    if count == "epochs" and examples_per_epoch is None:
        raise TableError(
            f"{path}: counts epochs.", "say how many examples: --examples-per-epoch N"
        )
    to_steps: dict[str, Callable[[float, float], float]] = {
        "steps": lambda value, _batch: value,
        "examples": lambda value, batch: value / batch,
        "tokens": lambda value, batch: value / batch,
        "epochs": lambda value, batch: value * (examples_per_epoch or 1) / batch,
    }
    runs: list[TableRun] = []
    for place, row in rows:
        batch = _positive(path, place, row, "batch_size")
        missed = _is_missed(path, place, row)
        value = math.nan if missed else _positive(path, place, row, count)
        if not missed:
            _check_counts(path, place, row, to_steps[count](value, batch))
        runs.append(
            TableRun(
                workload=row.get("workload", ""),
                target=_optional(path, place, row, "target"),
                batch_size=batch,
                steps=to_steps[count](value, batch),
                lr=_optional(path, place, row, "lr"),
            )
        )
    return tuple(runs)


def read_times(path: Path) -> tuple[TableTime, ...]:
    """Return the step times of a CSV file, as ``time --csv`` writes it.

    Columns: ``batch_size``, ``seconds``, optional ``num_replicas`` (1 where missing).

    Args:
        path: The file.

    Returns:
        One entry per row.

    Raises:
        TableError: As for :func:`read_runs`.
    """
    rows = _read(path, required=("batch_size", "seconds"), known=("num_replicas",))
    times: list[TableTime] = []
    for place, row in rows:
        replicas = _optional(path, place, row, "num_replicas") or 1.0
        if replicas != int(replicas):
            raise TableError(
                f"{path}: row {place}, column num_replicas must be a whole number, got "
                f"{replicas:g}."
            )
        times.append(
            TableTime(
                batch_size=_positive(path, place, row, "batch_size"),
                num_replicas=int(replicas),
                seconds=_positive(path, place, row, "seconds"),
            )
        )
    return tuple(times)


def write_csv(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """Write a table; a value that is None is left empty.

    Args:
        path: The file, overwritten.
        columns: Names.
        rows: Values in the order of `columns`.

    Raises:
        TableError: The file cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines)
            writer.writerow(columns)
            writer.writerows(["" if v is None else v for v in row] for row in rows)
    except OSError as error:
        raise TableError(f"{path}: cannot be written: {error.strerror}.") from error


def _read(
    path: Path, *, required: Sequence[str], known: Sequence[str]
) -> list[tuple[int, Row]]:
    # Pairs of line number and row: an error can name the line a person sees.
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = [
                (place, [cell.strip() for cell in cells])
                for place, cells in enumerate(csv.reader(lines), start=1)
                if any(cell.strip() for cell in cells)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TableError(f"{path}: cannot be read: {reason}.") from error
    if not table:
        raise TableError(
            f"{path}: is empty.", f"its first line names {required[0]}, ..."
        )
    header = table[0][1]
    _check_columns(path, header, required, known)
    if len(table) == 1:
        raise TableError(f"{path}: has a header and no rows.")
    for place, cells in table[1:]:
        if len(cells) != len(header):
            raise TableError(
                f"{path}: row {place} has {len(cells)} values for {len(header)} "
                "columns."
            )
    return [
        (place, dict(zip(header, cells, strict=True))) for place, cells in table[1:]
    ]


def _check_columns(
    path: Path, header: Sequence[str], required: Sequence[str], known: Sequence[str]
) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise TableError(f"{path}: column {twice[0]!r} stands twice.", "rename one")
    for name in required:
        if name not in header:
            unused = [column for column in header if column not in (*required, *known)]
            way_out = did_you_mean(name, unused)
            if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
                way_out = "separate the columns with commas"
            raise TableError(
                f"{path}: has no column {name!r}; it has {', '.join(header)}.", way_out
            )


def _positive(path: Path, place: int, row: Row, column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise TableError(
            f"{path}: row {place}, column {column} must be a positive number, got "
            f"{row[column]!r}."
        )
    if not 1 / LARGEST <= value <= LARGEST:
        raise TableError(
            f"{path}: row {place}, column {column} must be within 1e-15 and 1e15, got "
            f"{row[column]!r}."
        )
    return value


def _is_missed(path: Path, place: int, row: Row) -> bool:
    status = row.get("status") or "reached"
    if status not in ("reached", *NOT_REACHED):
        raise TableError(
            f"{path}: row {place}, column status cannot be {status!r}.",
            f"reached, {' or '.join(NOT_REACHED)}",
        )
    return status != "reached"


def _check_counts(path: Path, place: int, row: Row, steps: float) -> None:
    # Of two counts that contradict each other one is wrong; which, only a person knows.
    if not row.get("steps") or not row.get("examples"):
        return
    examples = _positive(path, place, row, "examples")
    expected = steps * _positive(path, place, row, "batch_size")
    if abs(examples / expected - 1) > COUNTS_AGREE:
        raise TableError(
            f"{path}: row {place}, column examples is {examples:g}, but batch_size x "
            f"steps is {expected:g}.",
            "remove the column that is wrong",
        )


def _optional(path: Path, place: int, row: Row, column: str) -> float | None:
    if column == "target" and row.get(column):
        return _number(path, place, row, column)
    return _positive(path, place, row, column) if row.get(column) else None


def _number(path: Path, place: int, row: Row, column: str) -> float:
    try:
        return float(row[column])
    except ValueError:
        raise TableError(
            f"{path}: row {place}, column {column} must be a number, got "
            f"{row[column]!r}."
        ) from None
