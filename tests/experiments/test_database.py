import resource
import sqlite3
from pathlib import Path

import pytest

from rightbatch.errors import InputError, StoreError
from rightbatch.experiments.database import (
    connect,
    connect_read_only,
    in_words,
    transaction,
)

OURS = 7


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite"


@pytest.fixture
def connection(path):
    opened = connect(path, OURS)
    opened.execute(f"PRAGMA application_id = {OURS}")
    opened.execute("CREATE TABLE things (x)")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("database or disk is full", "the disk is full; what was stored is kept"),
        ("disk I/O error", "the disk does not take or give data"),
        ("attempt to write a readonly database", "cannot be written to"),
        ("unable to open database file", "cannot be opened"),
        ("database disk image is malformed", "the file is damaged"),
        ("database is locked", "another process has been writing"),
        ("no such table: runs", "no such table: runs"),
    ],
)
def test_every_error_of_sqlite_is_put_in_words(message, words):
    with pytest.raises(StoreError, match=words), in_words(Path("runs.sqlite")):
        raise sqlite3.OperationalError(message)


def test_a_transaction_that_fails_leaves_nothing_behind(connection, path):
    def interrupted():
        with transaction(connection, path) as cursor:
            cursor.execute("INSERT INTO things VALUES (1)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert connection.execute("SELECT count(*) FROM things").fetchone()[0] == 0


def test_a_reader_sees_what_was_committed_and_cannot_write(connection, path):
    with transaction(connection, path) as cursor:
        cursor.execute("INSERT INTO things VALUES (1)")
    reader = connect_read_only(path, OURS)
    assert [tuple(row) for row in reader.execute("SELECT * FROM things")] == [(1,)]
    refused = pytest.raises(StoreError, match="no permission")
    with refused, transaction(reader, path) as cursor:
        cursor.execute("INSERT INTO things VALUES (2)")
    reader.close()


def test_a_full_disk_is_none_to_a_reader_unless_a_log_is_still_to_be_read(path):
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {OURS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE things (x)")
    connection.close()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        reader = connect_read_only(path, OURS)
        assert reader.execute("SELECT count(*) FROM things").fetchone()[0] == 0
        reader.close()
        path.with_name("runs.sqlite-wal").write_bytes(b"not yet in the file")
        with pytest.raises(StoreError, match=r"run the same command again\)$"):
            connect_read_only(path, OURS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_file_that_is_locked_for_long_is_an_error_in_words(connection, path):
    other = sqlite3.connect(path, timeout=0.01, isolation_level=None)
    refused = pytest.raises(StoreError, match="another process")
    with transaction(connection, path), refused, transaction(other, path):
        pass
    other.close()


def test_a_file_of_another_program_is_refused(connection, path):
    with pytest.raises(InputError, match="but not a store of rightbatch"):
        connect(path, OURS + 1)


def test_an_empty_file_is_taken_for_a_new_one_to_write_but_not_to_read(path):
    path.touch()
    with pytest.raises(InputError, match="but not a store of rightbatch"):
        connect_read_only(path, OURS)
    connect(path, OURS).close()
