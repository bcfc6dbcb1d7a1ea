"""The store: one SQLite file that holds every run, for one workload.

Each run is committed as it ends, in a transaction of its own, so that a kill at any
moment loses at most the runs in progress, and several processes may write at once.
"""

import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from rightbatch.errors import StoreError, StoreMismatchError
from rightbatch.experiments.database import (
    connect,
    connect_read_only,
    in_words,
    transaction,
)
from rightbatch.experiments.migrations import SCHEMA, TABLES, as_current, migrate
from rightbatch.experiments.record import Run
from rightbatch.experiments.run_rows import row_of, run_of
from rightbatch.experiments.train_record import TrainingRun, pack, unpack

# "rbat" in ASCII: tells our files from other programs' databases.
APPLICATION_ID = 0x72626174
# What a store holds, as rows by table.
Contents = Mapping[str, Sequence[Mapping[str, Any]]]
_TABLES_OF_CONTENTS = ("runs", "timings", "trainings")
# Of later making than schema 1: a store without it is as one that holds none.
_LATER_TABLES = frozenset({"trainings"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIdentity:
    """What a store belongs to.

    Args:
        workload: Its name.
        fingerprint: What else must agree for runs to be comparable: counts, a hash
            of the data, the target's metric.
        example_unit: What a batch size counts; None for a store that does not say.
    """

    workload: str
    fingerprint: Mapping[str, str | int]
    example_unit: str | None = None

    def differences(self, other: "StoreIdentity", word: str) -> str:
        """Return in what two workloads of a name differ; empty where in nothing.

        Args:
            other: What this is held against.
            word: Said before its values.

        Example:
            >>> one = StoreIdentity(workload="mine", fingerprint={"parameters": 10})
            >>> other = StoreIdentity(workload="mine", fingerprint={"parameters": 12})
            >>> one.differences(other, "now")
            'parameters 10, now 12'
        """
        mine, others = dict(self.fingerprint), dict(other.fingerprint)
        if self.example_unit and other.example_unit:
            mine["unit"], others["unit"] = self.example_unit, other.example_unit
        return "; ".join(
            f"{key} {mine.get(key)!r}, {word} {others.get(key)!r}"
            for key in sorted({*mine, *others})
            if mine.get(key) != others.get(key)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTiming:
    """Seconds per step at one batch size.

    Args:
        batch_size: Examples per step.
        num_replicas: Machines or devices that share it.
        seconds: Median. Unit: seconds per step.
        spread: (low, high) of the repeats. Unit: seconds per step.
        device: What it was measured on.
    """

    batch_size: int
    num_replicas: int
    seconds: float
    spread: tuple[float, float]
    device: str


class RunStore:
    """The runs and timings of one workload, in one file.

    A file of an older schema is read as it is; to write to it, it is brought to the
    schema of today, and a copy of it kept beside it, ``runs.sqlite.schema-1``.

    Args:
        path: The file; made when it does not exist and `identity` is given.
        identity: What the store must belong to. None opens an existing one to be
            read only.
        max_bytes: The size the file may grow to; the disk's when None.

    Raises:
        InputError: The file or its folder does not exist, or it is no store.
        StoreMismatchError: It belongs to another workload or a newer version.
        StoreError: It cannot be opened or written.

    Example:
        >>> identity = StoreIdentity(workload="mine", fingerprint={"parameters": 10})
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RunStore(Path(folder) / "runs.sqlite", identity) as store:
        ...         store.begin(resume=False), store.runs()
        (1, ())
    """

    def __init__(
        self,
        path: Path,
        identity: StoreIdentity | None = None,
        *,
        max_bytes: int | None = None,
    ) -> None:
        self.path = path
        self._session: int | None = None
        self._is_read_only = identity is None
        if identity is None:
            self._connection = connect_read_only(path, APPLICATION_ID)
        else:
            self._connection = connect(path, APPLICATION_ID)
        try:
            if identity is not None:
                self._limit(max_bytes)
                if self._has("meta"):
                    # Before anything is written: it may be another workload's.
                    _check_same(path, self._read_identity(), identity)
                    migrate(self._connection, path, versions()["rightbatch"])
                self._create(identity)
            self.identity = self._read_identity()
            if identity is not None:
                _check_same(path, self.identity, identity)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was added is there already."""
        self._connection.close()

    @property
    def session(self) -> int | None:
        """The session that runs are added to; None before one is begun."""
        return self._session

    def begin(self, *, resume: bool) -> int:
        """Return the session that runs are added to from now on.

        Args:
            resume: Go on with the latest session, if there is one; else a new one
                is begun, beside the earlier ones.

        Raises:
            StoreError: The store cannot be written.
        """
        with transaction(self._connection, self.path) as cursor:
            if not (resume and int(self._meta("session"))):
                cursor.execute(
                    "UPDATE meta SET value = value + 1 WHERE key = 'session'"
                )
            self._session = int(self._meta("session"))
        return self._session

    def add_run(self, run: Run) -> bool:
        """Store a run, unless the session has it; begins a session if none was.

        Returns:
            Whether it was new.

        Raises:
            StoreError: The store cannot be written; what it held is kept.
        """
        return self._insert("runs", row_of(run) | {"finished": _now()})

    def add_training(self, run: TrainingRun) -> bool:
        """Store a training run, unless the session has it; begins one if none was.

        Returns:
            Whether it was new.

        Raises:
            StoreError: The store cannot be written; what it held is kept.
        """
        row = {
            "policy": run.policy,
            "seed": run.seed,
            "settings": json.dumps(dict(run.settings), sort_keys=True),
            "status": run.status,
            "steps": run.steps,
            "examples": run.examples,
            "loss": run.loss,
            "seconds": run.seconds,
            "content": pack(run),
            "finished": _now(),
        }
        return self._insert("trainings", row)

    def add_timing(self, timing: StoredTiming) -> bool:
        """Store a timing, unless the session has it; begins a session if none was.

        Returns:
            Whether it was new.

        Raises:
            StoreError: The store cannot be written; what it held is kept.
        """
        row = asdict(timing)
        row["low"], row["high"] = row.pop("spread")
        return self._insert("timings", row)

    def runs(
        self,
        *,
        batch_size: int | None = None,
        lr: float | None = None,
        seed: int | None = None,
        status: str | None = None,
        session: int | None = None,
    ) -> tuple[Run, ...]:
        """Return the stored runs that agree with every filter given.

        Returns:
            Sorted by batch size, lr and seed; of equal ones the latest first.

        Raises:
            StoreError: The store cannot be read.
        """
        filters = {
            "batch_size": batch_size,
            "lr": lr,
            "seed": seed,
            "status": status,
            "session": session,
        }
        rows = self._select("runs", filters, "batch_size, lr, seed, id DESC")
        return tuple(run_of(row) for row in rows)

    def trainings(
        self,
        *,
        policy: str | None = None,
        seed: int | None = None,
        settings: Mapping[str, Any] | None = None,
        session: int | None = None,
    ) -> tuple[TrainingRun, ...]:
        """Return the stored training runs that agree with every filter given.

        Returns:
            The latest session's first, and within one in the order they ended.

        Raises:
            StoreError: The store cannot be read, or a run in it.
        """
        same = None if settings is None else json.dumps(dict(settings), sort_keys=True)
        filters = {
            "policy": policy,
            "seed": seed,
            "settings": same,
            "session": session,
        }
        rows = self._select("trainings", filters, "session DESC, id")
        return tuple(
            unpack(
                row["content"],
                policy=row["policy"],
                seed=row["seed"],
                settings=json.loads(row["settings"]),
                status=row["status"],
            )
            for row in rows
        )

    def timings(self, *, session: int | None = None) -> tuple[StoredTiming, ...]:
        """Return the stored timings, of one session or of all.

        Raises:
            StoreError: The store cannot be read.
        """
        order = "num_replicas, batch_size, id DESC"
        return tuple(
            StoredTiming(
                batch_size=row["batch_size"],
                num_replicas=row["num_replicas"],
                seconds=row["seconds"],
                spread=(row["low"], row["high"]),
                device=row["device"],
            )
            for row in self._select("timings", {"session": session}, order)
        )

    def sessions(self) -> tuple[int, ...]:
        """Return the sessions that have runs, the latest first.

        Raises:
            StoreError: The store cannot be read.
        """
        query = "SELECT DISTINCT session FROM runs ORDER BY session DESC"
        with self._in_words():
            return tuple(row[0] for row in self._connection.execute(query))

    def contents(self) -> dict[str, list[dict[str, Any]]]:
        """Return all the store holds at one moment, as rows by table.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._in_words():
            # One transaction sees one state, whoever writes meanwhile.
            self._connection.execute("BEGIN")
        try:
            return {name: self._select(name, {}, "id") for name in _TABLES_OF_CONTENTS}
        finally:
            self._connection.execute("ROLLBACK")

    def fill(self, contents: Contents) -> None:
        """Write all that other stores held into this one, which holds nothing.

        Args:
            contents: Rows by table, with their sessions.

        Raises:
            StoreError: The store cannot be written; it holds nothing then.
        """
        last = 0
        with transaction(self._connection, self.path) as cursor:
            for table, rows in contents.items():
                for row in rows:
                    new = {name: row[name] for name in row if name != "id"}
                    names, marks = ", ".join(new), ", ".join("?" * len(new))
                    cursor.execute(
                        f"INSERT INTO {table} ({names}) VALUES ({marks})",
                        tuple(new.values()),
                    )
                    last = max(last, row["session"])
            cursor.execute("UPDATE meta SET value = ? WHERE key = 'session'", (last,))
        with self._in_words():
            # Out of the log and into the file, or an error: closing would not say so.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _limit(self, max_bytes: int | None) -> None:
        if max_bytes is not None:
            page_size = self._connection.execute("PRAGMA page_size").fetchone()[0]
            pages = max(1, max_bytes // page_size)
            self._connection.execute(f"PRAGMA max_page_count = {pages}")

    def _create(self, identity: StoreIdentity) -> None:
        meta = {
            "schema": str(SCHEMA),
            "written_by": versions()["rightbatch"],
            "workload": identity.workload,
            "fingerprint": json.dumps(dict(identity.fingerprint)),
            "session": "0",
        }
        if identity.example_unit is not None:
            meta["example_unit"] = identity.example_unit
        with transaction(self._connection, self.path) as cursor:
            cursor.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            for table in TABLES:
                cursor.execute(table)
            # One row tells whether the others are there: all come in one transaction.
            cursor.executemany(
                "INSERT OR IGNORE INTO meta VALUES (?, ?)", list(meta.items())
            )

    def _read_identity(self) -> StoreIdentity:
        schema = self._meta("schema")
        if not (schema.isdecimal() and int(schema) <= SCHEMA):
            raise StoreMismatchError(
                f"store {self.path} has schema {schema}, of rightbatch "
                f"{self._meta('written_by')}; this is rightbatch "
                f"{versions()['rightbatch']}, with schema {SCHEMA}.",
                "name another file with --store",
            )
        return StoreIdentity(
            workload=self._meta("workload"),
            fingerprint=json.loads(self._meta("fingerprint")),
            example_unit=self._found("example_unit"),
        )

    def _meta(self, key: str) -> str:
        found = self._found(key)
        if found is None:
            raise StoreError(f"store {self.path}: its entry {key!r} is missing.")
        return found

    def _found(self, key: str) -> str | None:
        with self._in_words():
            found = self._connection.execute(
                "SELECT value FROM meta WHERE key = ?", (key,)
            ).fetchone()
        return None if found is None else str(found[0])

    def _in_words(self) -> AbstractContextManager[None]:
        return in_words(self.path, reading=self._is_read_only)

    def _insert(self, table: str, values: Mapping[str, Any]) -> bool:
        session = self._session or self.begin(resume=False)
        row = {"session": session, **values, "versions": json.dumps(versions())}
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        with transaction(self._connection, self.path) as cursor:
            cursor.execute(
                f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})",
                tuple(row.values()),
            )
            return cursor.rowcount == 1

    def _select(
        self, table: str, filters: Mapping[str, Any], order: str
    ) -> list[dict[str, Any]]:
        if table in _LATER_TABLES and not self._has(table):
            return []
        given = {name: value for name, value in filters.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given) or "1"
        query = f"SELECT * FROM {table} WHERE {where} ORDER BY {order}"
        with self._in_words():
            rows = self._connection.execute(query, tuple(given.values())).fetchall()
        return [as_current(table, row) for row in rows]

    def _has(self, table: str) -> bool:
        with self._in_words():
            found = self._connection.execute(
                "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
                (table,),
            ).fetchone()
        return found is not None


def versions() -> dict[str, str]:
    """Return the versions that runs are made with: rightbatch, torch, python."""
    return {
        "rightbatch": _version("rightbatch"),
        "torch": _version("torch"),
        "python": platform.python_version(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # Run from a source tree, without having been installed.
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _check_same(path: Path, found: StoreIdentity, wanted: StoreIdentity) -> None:
    way_out = "name another file with --store"
    if found.workload != wanted.workload:
        raise StoreMismatchError(
            f"store {path} belongs to workload {found.workload!r}, "
            f"not to {wanted.workload!r}.",
            way_out,
        )
    differences = found.differences(wanted, "now")
    if differences:
        raise StoreMismatchError(
            f"store {path} belongs to another {wanted.workload!r}: {differences}.",
            way_out,
        )
