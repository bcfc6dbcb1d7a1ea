"""The schema of a store, and how older files become it.

A file of an older schema is read as it is. To be written to it is brought up step by
step, in one transaction, after a copy of it was put beside it.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from rightbatch.experiments.database import transaction

SCHEMA = 3
TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS runs (
        id INTEGER PRIMARY KEY, session INTEGER NOT NULL,
        batch_size INTEGER NOT NULL, lr REAL NOT NULL, seed INTEGER NOT NULL,
        targets TEXT NOT NULL, crossing TEXT NOT NULL, budget INTEGER NOT NULL,
        status TEXT NOT NULL, last_step INTEGER NOT NULL, nearest REAL,
        crossings TEXT NOT NULL, trace TEXT NOT NULL,
        seconds_training REAL NOT NULL, seconds_checking REAL NOT NULL,
        median_step_seconds REAL, versions TEXT NOT NULL, finished TEXT NOT NULL,
        held_out_trace TEXT NOT NULL DEFAULT '[]',
        tier TEXT NOT NULL DEFAULT 'plain',
        UNIQUE (session, batch_size, lr, seed, targets, crossing, budget))""",
    """CREATE TABLE IF NOT EXISTS timings (
        id INTEGER PRIMARY KEY, session INTEGER NOT NULL,
        batch_size INTEGER NOT NULL, num_replicas INTEGER NOT NULL,
        seconds REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL,
        device TEXT NOT NULL, versions TEXT NOT NULL,
        UNIQUE (session, batch_size, num_replicas, device))""",
    """CREATE TABLE IF NOT EXISTS trainings (
        id INTEGER PRIMARY KEY, session INTEGER NOT NULL,
        policy TEXT NOT NULL, seed INTEGER NOT NULL, settings TEXT NOT NULL,
        status TEXT NOT NULL, steps INTEGER NOT NULL, examples INTEGER NOT NULL,
        loss REAL, seconds REAL NOT NULL, content BLOB NOT NULL,
        versions TEXT NOT NULL, finished TEXT NOT NULL,
        UNIQUE (session, policy, seed, settings))""",
)


def as_current(table: str, row: sqlite3.Row) -> dict[str, Any]:
    """Return a row of any schema so far with the columns that it has today.

    Args:
        table: Its table.
        row: As it was read.

    Returns:
        Values by column.
    """
    values = dict(row)
    if table == "runs":
        values.setdefault("held_out_trace", "[]")
        values.setdefault("tier", "plain")
        values["crossing"] = _with_interval(values["crossing"])
    return values


def migrate(connection: sqlite3.Connection, path: Path, written_by: str) -> Path | None:
    """Bring a file to the schema of today, in one transaction.

    Args:
        connection: To the file, to write.
        path: The file.
        written_by: The version that does it.

    Returns:
        The copy of the file as it was, beside it; None where nothing was to be done.

    Raises:
        StoreError: The file or the copy cannot be written; it is as it was.
    """
    if _schema(connection) >= SCHEMA:
        return None
    with transaction(connection, path) as cursor:
        # Another process may have done it while this one waited for its turn.
        schema = _schema(connection)
        if schema >= SCHEMA:
            return None
        kept = _keep_copy(path, schema)
        for older in range(schema, SCHEMA):
            STEPS[older](cursor)
        new = {"schema": str(SCHEMA), "written_by": written_by}
        for key, value in new.items():
            cursor.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
        return kept


def _to_2(cursor: sqlite3.Cursor) -> None:
    # Training runs came within schema 1: its first files have no table of them.
    for table in TABLES:
        cursor.execute(table)
    cursor.execute(
        "ALTER TABLE runs ADD COLUMN held_out_trace TEXT NOT NULL DEFAULT '[]'"
    )
    # Written as it is today, or the same run would be stored a second time.
    found = cursor.execute("SELECT DISTINCT crossing FROM runs").fetchall()
    for (crossing,) in found:
        cursor.execute(
            "UPDATE runs SET crossing = ? WHERE crossing = ?",
            (_with_interval(crossing), crossing),
        )


def _to_3(cursor: sqlite3.Cursor) -> None:
    cursor.execute("ALTER TABLE runs ADD COLUMN tier TEXT NOT NULL DEFAULT 'plain'")


STEPS: Mapping[int, Callable[[sqlite3.Cursor], None]] = {1: _to_2, 2: _to_3}


def _with_interval(crossing: str) -> str:
    found = json.loads(crossing)
    found.setdefault("every", 1)
    return json.dumps(found)


def _schema(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    return int(found[0])


def _keep_copy(path: Path, schema: int) -> Path:
    kept, num = Path(f"{path}.schema-{schema}"), 1
    while kept.exists():
        num += 1
        kept = Path(f"{path}.schema-{schema}.{num}")
    beside = Path(f"{kept}.part")
    # A reader of its own: what this connection has under way is not in the copy.
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True)) as source,
            closing(sqlite3.connect(beside)) as target,
        ):
            source.backup(target)
        beside.replace(kept)
    finally:
        beside.unlink(missing_ok=True)
    return kept
