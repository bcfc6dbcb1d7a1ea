"""One SQLite file: opened with care, changed in transactions, its errors in words."""

import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rightbatch.errors import InputError, StoreError

# How long to wait for another process's transaction; each lasts milliseconds.
BUSY_SECONDS = 60.0
RETRY_SECONDS = 0.02
ANOTHER = "name another file with --store"

# Part of SQLite's message, what it means, and the way out of a command that writes.
MEANINGS = (
    (
        "full",
        "the disk is full; what was stored is kept",
        "make room, then run the same command with --resume",
    ),
    (
        "disk i/o",
        "the disk does not take or give data; what was stored is kept",
        "check its space and limits, then run the same command with --resume",
    ),
    (
        "readonly",
        "it cannot be written to: no permission",
        ANOTHER,
    ),
    (
        "unable to open",
        "it cannot be opened: no permission, or its folder is gone",
        ANOTHER,
    ),
    (
        "malformed",
        "the file is damaged",
        "put it aside, and name another file with --store",
    ),
    (
        "locked",
        f"another process has been writing to it for {BUSY_SECONDS:.0f} s",
        "wait for it to end, then run the same command with --resume",
    ),
)


def connect(path: Path, application_id: int) -> sqlite3.Connection:
    """Return a connection to a file of ours, made if need be, in write-ahead mode.

    Args:
        path: The file.
        application_id: Marks our files; a database without it is not touched.

    Raises:
        InputError: The path is a folder or has none, or the file is another
            program's.
        StoreError: It cannot be opened or written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     connection = connect(Path(folder) / "runs.sqlite", 7)
        ...     connection.execute("PRAGMA journal_mode").fetchone()[0]
        'wal'
        >>> connection.close()
    """
    _check_place(path)
    with in_words(path):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            # Before anything is written: it may be another program's database.
            _check_ours(connection, path, application_id, may_be_new=True)
            _write_ahead(connection)
        except BaseException:
            connection.close()
            raise
    connection.row_factory = sqlite3.Row
    return connection


def connect_read_only(path: Path, application_id: int) -> sqlite3.Connection:
    """Return a connection to an existing file of ours that cannot change it.

    Raises:
        InputError: There is no such file, or it is another program's.
        StoreError: It cannot be opened.
    """
    _check_place(path)
    if not path.is_file():
        raise InputError(f"store {path} does not exist.", "a sweep makes it")
    with in_words(path, reading=True):
        connection = _opened_read_only(path, application_id)
    connection.row_factory = sqlite3.Row
    return connection


@contextmanager
def transaction(
    connection: sqlite3.Connection, path: Path
) -> Generator[sqlite3.Cursor]:
    """Commit all that is done inside, or nothing of it.

    Yields:
        A cursor to do it with.

    Raises:
        StoreError: The file cannot be written.
    """
    with in_words(path):
        cursor = connection.cursor()
        try:
            # IMMEDIATE: a lock asked for in the middle would fail without waiting.
            cursor.execute("BEGIN IMMEDIATE")
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            # A full disk has rolled it back already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def in_words(path: Path, *, reading: bool = False) -> Generator[None]:
    """Turn an error of SQLite into ours, with what it means and the way out.

    Args:
        path: The file.
        reading: By a command that takes a file as it is: it has no ``--store`` and no
            ``--resume``.

    Raises:
        InputError: The file is not a database.
        StoreError: Any other error of SQLite.

    Example:
        >>> from rightbatch.errors import StoreError
        >>> with in_words(Path("runs.sqlite")):
        ...     raise sqlite3.OperationalError("database or disk is full")
        Traceback (most recent call last):
            ...
        rightbatch.errors.StoreError: store runs.sqlite: the disk is full; ...
    """
    try:
        yield
    except sqlite3.Error as error:
        message = str(error).lower()
        if "not a database" in message:
            raise InputError(
                f"{path} is not a database.", _way_out(ANOTHER, reading)
            ) from error
        for part, meaning, way_out in MEANINGS:
            if part in message:
                raise StoreError(
                    f"store {path}: {meaning}.", _way_out(way_out, reading)
                ) from error
        raise StoreError(f"store {path}: {error}.") from error


def _way_out(way_out: str, reading: bool) -> str:
    if reading:
        return way_out.replace(" with --store", "").replace(" with --resume", " again")
    return way_out


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"store {path} is a folder.", "name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"store {path}: there is no folder {path.parent}.", "make it")


def _check_ours(
    connection: sqlite3.Connection, path: Path, application_id: int, *, may_be_new: bool
) -> None:
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    if may_be_new and not tables and not found:
        return
    if found != application_id:
        raise InputError(
            f"{path} is a database, but not a store of rightbatch.",
            _way_out(ANOTHER, reading=not may_be_new),
        )


def _opened_read_only(path: Path, application_id: int) -> sqlite3.Connection:
    try:
        return _opened_in_mode(path, application_id, "mode=ro")
    except sqlite3.OperationalError:
        # SQLite keeps an index beside the file even to read; where the folder cannot
        # be written to, or the disk is full, a file without a log is whole without one.
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            raise
        return _opened_in_mode(path, application_id, "immutable=1")


def _opened_in_mode(path: Path, application_id: int, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{mode}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )
    try:
        _check_ours(connection, path, application_id, may_be_new=False)
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    # The change of mode needs the file to itself and does not wait as others do.
    give_up_at = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(RETRY_SECONDS)
