"""Tables of runs and of step times measured elsewhere, read from CSV files."""

import csv
import errno
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rightbatch._checks import did_you_mean
from rightbatch.errors import RightbatchError, TableError
from rightbatch.experiments.counts import (
    COUNTS,
    Row,
    Units,
    check_agreement,
    check_epochs,
    check_one_unit,
    main_count,
    singular,
    steps_of,
    unit_of,
)

NOT_REACHED = ("not_reached", "diverged", "out_of_memory")
_NAMES = ("workload", "run", "lr")

# Above it no count is real, and the arithmetic of a fit would overflow.
LARGEST = 1e15
# No fault of the path: the disk is full, or past a limit, or broken.
_DISK_FAILED = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRun:
    """One run of a table.

    Args:
        workload: Its workload; empty where the table does not say.
        target: Its target; None where the table does not say.
        batch_size: Examples per step.
        steps: Steps to the target; NaN for a run that did not reach it.
        lr: Learning rate; None where the table does not say.
        example_unit: What the batch size counts.
        run: Its name; empty where the table does not say.
        is_mean: True for the mean of repeats that nothing tells apart.
    """

    workload: str
    target: float | None
    batch_size: float
    steps: float
    lr: float | None
    example_unit: str = "example"
    run: str = ""
    is_mean: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLoss:
    """One loss of a table: how far a run had come after so many steps.

    Args:
        workload: Its workload; empty where the table does not say.
        batch_size: Examples per step.
        steps: Steps trained, whether or not a target was reached.
        loss: After them.
        lr: Learning rate; None where the table does not say.
        example_unit: What the batch size counts.
        run: Name of its run; empty where the table does not say.
    """

    workload: str
    batch_size: float
    steps: float
    loss: float
    lr: float | None
    example_unit: str = "example"
    run: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableTime:
    """One step time of a table.

    Args:
        batch_size: Examples per step over all replicas.
        num_replicas: Replicas.
        seconds: Seconds per step.
        example_unit: What the batch size counts; None where the table does not say.
    """

    batch_size: float
    num_replicas: int
    seconds: float
    example_unit: str | None = None


def read_runs(
    path: Path,
    *,
    examples_per_epoch: float | None = None,
    tokens_per_example: float | None = None,
    example_unit: str | None = None,
) -> tuple[TableRun, ...]:
    """Return the runs of a CSV file.

    Columns: ``batch_size`` and one of ``steps``, ``examples``, ``epochs``, ``tokens``;
    optional ``workload``, ``run`` (any text), ``target``, ``lr``, ``status``, ``unit``;
    others are not read. Where ``steps`` is missing it is examples over batch size,
    epochs times `examples_per_epoch` over batch size, or tokens over a batch size in
    tokens.

    Args:
        path: The file.
        examples_per_epoch: Needed for a table in epochs.
        tokens_per_example: Where batch sizes count sequences and the result shall count
            tokens: tokens in one.
        example_unit: What batch sizes count, where the table does not say.

    Returns:
        One entry per row. A row whose ``status`` says that the target was not reached
        may leave its steps empty.

    Raises:
        TableError: The file is missing, empty or no table; a column is missing or
            stands twice; a value is text, NaN, infinite or not positive; counts
            contradict each other; units are mixed. Row and column are named.
    """
    units = Units(
        examples_per_epoch=examples_per_epoch,
        tokens_per_example=tokens_per_example,
        example_unit=example_unit,
    )
    rows = _read(path, required=("batch_size",), known=(*COUNTS, *_NAMES))
    return tuple(
        TableRun(
            workload=row.get("workload", ""),
            target=_optional(path, place, row, "target"),
            batch_size=batch,
            steps=steps,
            lr=_optional(path, place, row, "lr"),
            example_unit=unit,
            run=row.get("run", ""),
        )
        for place, row, batch, steps, unit in _with_steps(path, rows, units)
    )


def read_losses(
    path: Path,
    *,
    examples_per_epoch: float | None = None,
    tokens_per_example: float | None = None,
    example_unit: str | None = None,
) -> tuple[TableLoss, ...]:
    """Return the losses of a CSV file: rows that say how far a run had come.

    Columns as for :func:`read_runs`, and ``loss``. A run that did not reach its target
    counts like any other; one that diverged is left out.

    Args:
        path: The file.
        examples_per_epoch: As for :func:`read_runs`.
        tokens_per_example: As for :func:`read_runs`.
        example_unit: As for :func:`read_runs`.

    Returns:
        One entry per row that has not diverged.

    Raises:
        TableError: As for :func:`read_runs`, or a loss is not a positive number.
    """
    units = Units(
        examples_per_epoch=examples_per_epoch,
        tokens_per_example=tokens_per_example,
        example_unit=example_unit,
    )
    known = (*COUNTS, *_NAMES)
    rows = [
        (place, {**row, "status": ""})
        for place, row in _read(path, required=("batch_size", "loss"), known=known)
        if not _is_missed(path, place, row) or row["status"] != "diverged"
    ]
    if not rows:
        raise TableError(f"{path}: all its runs diverged.")
    return tuple(
        TableLoss(
            workload=row.get("workload", ""),
            batch_size=batch,
            steps=steps,
            loss=_positive_loss(path, place, row),
            lr=_optional(path, place, row, "lr"),
            example_unit=unit,
            run=row.get("run", ""),
        )
        for place, row, batch, steps, unit in _with_steps(path, rows, units)
    )


def _with_steps(
    path: Path, rows: list[tuple[int, Row]], units: Units
) -> Iterator[tuple[int, Row, float, float, str]]:
    # Each row with its batch size, steps and unit, as the result shall count.
    columns = list(rows[0][1])
    main = main_count(path, columns, units)
    counted = [name for name in COUNTS if name in columns]
    seen: list[tuple[int, str, str]] = []
    found: list[tuple[int, Row, float, float, str]] = []
    epochs: list[tuple[int, float, float]] = []
    for place, row in rows:
        batch = _positive(path, place, row, "batch_size")
        steps = math.nan
        if not _is_missed(path, place, row):
            steps = steps_of(main, _positive(path, place, row, main), batch, units)
            counts = {
                name: _positive(path, place, row, name) for name in counted if row[name]
            }
            check_agreement(path, place, counts, batch, units)
            if "epochs" in counts:
                epochs.append((place, steps * batch, counts["epochs"]))
        unit = unit_of(path, place, row, main, units)
        seen.append((place, row.get("workload", ""), unit))
        found.append((place, row, batch * units.size, steps, unit))
    check_one_unit(path, seen)
    check_epochs(path, epochs)
    yield from found


def read_columns(path: Path) -> tuple[str, ...]:
    """Return the names of a table's columns.

    Args:
        path: The file.

    Returns:
        Names, in order.

    Raises:
        TableError: The file cannot be read, or is empty.
    """
    return tuple(_read_cells(path, "batch_size")[0][1])


def read_times(path: Path) -> tuple[TableTime, ...]:
    """Return the step times of a CSV file, as ``time --csv`` writes it.

    Columns: ``batch_size``, ``seconds``, optional ``num_replicas`` (1 where missing)
    and ``unit``.

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
                example_unit=singular(row.get("unit", "")) or None,
            )
        )
    return tuple(times)


def write_csv(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """Write a table, whole or not at all; a value that is None is left empty.

    Args:
        path: The file; an existing one is replaced.
        columns: Names.
        rows: Values in the order of `columns`.

    Raises:
        TableError: The file cannot be written.
        RightbatchError: The disk failed or is full; an older file is kept.
    """
    # A device, a pipe or a link is written to where it is.
    in_place = path.is_symlink() or (path.exists() and not path.is_file())
    in_place = in_place or (path.exists() and not os.access(path.parent, os.W_OK))
    beside = path if in_place else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines)
            writer.writerow(columns)
            writer.writerows(["" if v is None else v for v in row] for row in rows)
        if not in_place:
            beside.replace(path)
    except OSError as error:
        if error.errno not in _DISK_FAILED:
            raise TableError(f"{path}: cannot be written: {error.strerror}.") from error
        raise RightbatchError(
            f"{path}: could not be written: {error.strerror}.",
            "free some space, or name another file",
        ) from error
    finally:
        if not in_place:
            with suppress(OSError):
                beside.unlink()


def _read(
    path: Path, *, required: Sequence[str], known: Sequence[str]
) -> list[tuple[int, Row]]:
    # Pairs of line number and row: an error can name the line a person sees.
    table = _read_cells(path, required[0])
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


def _read_cells(path: Path, first_column: str) -> list[tuple[int, list[str]]]:
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
            f"{path}: is empty.", f"its first line names {first_column}, ..."
        )
    return table


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


def _positive_loss(path: Path, place: int, row: Row) -> float:
    try:
        return _positive(path, place, row, "loss")
    except TableError as error:
        raise TableError(
            str(error), "the loss law needs losses above 0; shift or negate the metric"
        ) from None


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
