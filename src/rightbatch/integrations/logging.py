"""What an update was, as names and numbers for any logger ``log(numbers, step)``.

Such a logger is ``wandb.log``, ``mlflow.log_metrics``, :class:`CsvLog`,
:class:`TensorBoardLog`, several at once by :func:`tee`, or two lines of one's own.
"""

import csv
import io
import math
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rightbatch import _checks
from rightbatch.controller import UpdateRecord
from rightbatch.errors import InputError

Log = Callable[[dict[str, float], int], Any]

_NAMES = (
    ("batch/size", "batch_size"),
    ("batch/micro_batch_size", "micro_batch_size"),
    ("batch/accumulation_steps", "accumulation_steps"),
    ("batch/num_replicas", "num_replicas"),
    ("batch/wish", "wish"),
    ("batch/examples", "examples"),
    ("batch/epoch", "epoch"),
    ("batch/tokens", "tokens"),
    ("noise/scale", "noise_scale"),
    ("noise/scale_low", "noise_scale_low"),
    ("noise/scale_high", "noise_scale_high"),
    ("noise/grad_sq_norm", "grad_sq_norm"),
    ("noise/grad_variance", "grad_variance"),
    ("cost/seconds", "seconds"),
    ("loss/batch", "loss"),
    ("loss/evaluated", "eval_loss"),
    ("optim/lr", "lr"),
    ("optim/lr_factor", "lr_factor"),
)
_STEP = "step"


def rows_of(
    record: UpdateRecord, before: UpdateRecord | None = None
) -> dict[str, float]:
    """Return an update's numbers by name; what is not known or not finite is left out.

    The names are ``batch/...``, ``noise/...`` (those of ``NoiseMeter.log``),
    ``cost/...``, ``loss/...`` and ``optim/...``.

    Args:
        record: The update.
        before: The one before it, which ``cost/examples_per_second`` needs; not
            needed of a run's first update.

    Returns:
        Finite numbers.

    Example:
        >>> record = UpdateRecord(1, 8, 8, 4, 2, 1, 0.1, 2.5, "constant", 0.01, 8.0)
        >>> rows = rows_of(record)
        >>> rows["batch/size"], rows["cost/examples_per_second"], "noise/scale" in rows
        (8, 800.0, False)
    """
    values = {name: getattr(record, field) for name, field in _NAMES}
    values["cost/examples_per_second"] = _speed(record, before)
    return {
        name: value
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }


def log_record(
    record: UpdateRecord, log: Log, before: UpdateRecord | None = None
) -> None:
    """Give an update's numbers to a logger.

    Args:
        record: The update.
        log: Called once, with a dict and the update's step.
        before: As for :func:`rows_of`.
    """
    log(rows_of(record, before), record.step)


class UpdateLog:
    """Logs the updates of a run: ``train(..., on_update=UpdateLog(log))``.

    With several replicas all of them know the same: let the first alone log.

    Args:
        log: Takes a dict and a step.
        every: Updates between two that are logged; the first is.

    Raises:
        InputError: `every` is not a whole number from 1 on.

    Example:
        >>> log = UpdateLog(lambda numbers, step: print(step, numbers["batch/size"]))
        >>> log(UpdateRecord(1, 8, 8, 8, 1, 1, 0.1, 2.5, "constant", 0.01, 8.0))
        1 8
    """

    def __init__(self, log: Log, *, every: int = 1) -> None:
        self._log = log
        self._every = _checks.positive_integer("UpdateLog", "every", every)
        self._before: UpdateRecord | None = None

    def __call__(self, record: UpdateRecord) -> None:
        """Log an update, if it is one to be logged.

        Args:
            record: The update after the last one.
        """
        if (record.step - 1) % self._every == 0:
            log_record(record, self._log, self._before)
        self._before = record


def tee(*logs: Log) -> Log:
    """Return a logger that passes everything on to several.

    Args:
        *logs: Each gets a dict of its own, in this order.

    Returns:
        The logger.

    Example:
        >>> both = tee(lambda numbers, step: print(step), lambda *told: print(told))
        >>> both({"loss/batch": 2.5}, 7)
        7
        ({'loss/batch': 2.5}, 7)
    """

    def log(numbers: dict[str, float], step: int) -> None:
        for one in logs:
            one(dict(numbers), step)

    return log


class CsvLog:
    """A logger to a CSV file: a row per step, a column per name.

    What is logged of the same step twice running is one row. A name that appears later
    gets a column, empty in the rows before; for that the file is written anew, beside
    the old one, and takes its place. Each row is handed to the system at once, so a
    run that is killed keeps its rows.

    Args:
        path: The file; a log that lies there is replaced unless gone on with.
        resume: Go on with the log that lies there. Of the first step logged and those
            after it, what the file holds is dropped: it is of a part of the run that
            was lost.

    Raises:
        InputError: The file cannot be written, or what lies there is no such log.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = CsvLog(Path(folder) / "log.csv")
        ...     log({"batch/size": 8, "loss/batch": 2.5}, 1)
        ...     log({"batch/size": 16}, 2)
        ...     print((Path(folder) / "log.csv").read_text())
        step,batch/size,loss/batch
        1,8,2.5
        2,16,
        <BLANKLINE>
    """

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        if not isinstance(path, (str, Path)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"CsvLog: `path` must be a path, got {path!r}.")
        self._is_closed = False
        self._path = _checks.writable_path("CsvLog", path)
        found = _read(self._path) if self._path.exists() else []
        self._rows_before = found if resume else []
        self._resuming = bool(self._rows_before)
        self._columns: list[str] = []
        for row in self._rows_before:
            self._columns += [name for name in row if name not in self._columns]
        # The last row as told, and where it begins in the file.
        self._last: dict[str, str] = {}
        self._place = 0
        self._file = -1
        self._close: Callable[[], Any] = _nothing
        if not self._resuming:
            self._write_anew([])

    def __call__(self, numbers: Mapping[str, float], step: int) -> None:
        """Write a row.

        Args:
            numbers: By name.
            step: Of the run.

        Raises:
            InputError: A value is no number, or the log is closed.
        """
        if self._is_closed:
            raise InputError("CsvLog: the log is closed.", "make one with resume=True")
        row = {_STEP: str(int(step))}
        # A number that is called so too would put the row elsewhere.
        told = {name: one for name, one in numbers.items() if name != _STEP}
        row |= {name: _text(name, value) for name, value in told.items()}
        if self._resuming:
            self._resuming = False
            kept = [one for one in self._rows_before if int(one[_STEP]) < step]
            self._rows_before = []
            self._write_anew([*kept, row])
            return
        if self._last.get(_STEP) == row[_STEP]:
            row = self._last | row
        else:
            self._place = os.lseek(self._file, 0, os.SEEK_END)
        if not row.keys() <= set(self._columns):
            self._widen(row)
            return
        self._last = row
        line = _line([row.get(name, "") for name in self._columns])
        os.lseek(self._file, self._place, os.SEEK_SET)
        os.write(self._file, line)
        os.ftruncate(self._file, self._place + len(line))

    def close(self) -> None:
        """Close the file; done by itself when the log is let go of."""
        self._close()
        self._is_closed = True

    def _widen(self, row: dict[str, str]) -> None:
        rows = _read(self._path)
        if rows and rows[-1][_STEP] == row[_STEP]:
            rows.pop()
        self._write_anew([*rows, row])

    def _write_anew(self, rows: list[dict[str, str]]) -> None:
        for row in rows:
            self._columns += [name for name in row if name not in self._columns]
        lines = [_line(self._columns)] if self._columns else []
        lines += [_line([row.get(name, "") for name in self._columns]) for row in rows]
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        beside.write_bytes(b"".join(lines))
        self._close()
        beside.replace(self._path)
        self._file = os.open(self._path, os.O_RDWR)
        self._close = weakref.finalize(self, os.close, self._file)
        self._last = rows[-1] if rows else {}
        self._place = sum(map(len, lines[:-1]))


class TensorBoardLog:
    """A logger to TensorBoard: a scalar per name.

    Args:
        target: A folder, for a ``SummaryWriter`` of torch; or a writer, which stays
            its owner's to close.

    Raises:
        InputError: A folder is given and tensorboard is not installed.

    Example:
        >>> class Writer:
        ...     def add_scalar(self, name, value, step):
        ...         print(name, value, step)
        >>> TensorBoardLog(Writer())({"batch/size": 8}, 1)
        batch/size 8 1
    """

    def __init__(self, target: Any) -> None:
        self._own = not hasattr(target, "add_scalar")
        self._writer: Any = _summary_writer(target) if self._own else target

    def __call__(self, numbers: Mapping[str, float], step: int) -> None:
        """Write a scalar per number.

        Args:
            numbers: By name.
            step: Of the run.
        """
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left and close the folder's writer."""
        if self._own:
            self._writer.close()


def _speed(record: UpdateRecord, before: UpdateRecord | None) -> float | None:
    """Return the examples per second of an update; None where its time is unknown."""
    if before is None:
        took = record.seconds if record.step == 1 else 0.0
    else:
        took = record.seconds - before.seconds
    return record.batch_size / took if took > 0 else None


def _summary_writer(folder: str | os.PathLike[str]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "TensorBoardLog: tensorboard is not installed.",
            "pip install tensorboard, or give a writer with add_scalar",
        ) from error
    writer: Any = SummaryWriter
    return writer(os.fspath(folder))


def _text(name: str, value: Any) -> str:
    if isinstance(value, int):
        return str(int(value))
    try:
        return repr(float(value))
    except (TypeError, ValueError):
        raise InputError(f"CsvLog: `{name}` must be a number, got {value!r}.") from None


def _line(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a log, without empty cells; a row cut short is left out.

    Raises:
        InputError: The file holds something else.
    """
    whole = path.read_bytes()
    text = whole[: whole.rfind(b"\n") + 1].decode(errors="replace")
    header, *rows = [*csv.reader(io.StringIO(text))] or [[]]
    is_log = header[:1] == [_STEP] and all(row and _is_step(row[0]) for row in rows)
    if whole and not is_log:
        raise InputError(
            f"CsvLog: {path} holds something else than a log.",
            "name another file, or take it away",
        )
    cells = (zip(header, row, strict=False) for row in rows)
    return [{name: cell for name, cell in one if cell} for one in cells]


def _is_step(cell: str) -> bool:
    return cell.removeprefix("-").isdecimal()


def _nothing() -> None:
    """Stand for closing where nothing is open."""
