"""Stores of one workload merged into a new one: runs made here and on other machines.

Sessions are kept apart, equal runs are kept once, and the file is there whole or not
at all.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rightbatch._checks import writable_path
from rightbatch.errors import InputError, StoreError, StoreMismatchError
from rightbatch.experiments.run_rows import run_of
from rightbatch.experiments.store import Contents, RunStore, StoreIdentity

# What tells rows of a table apart that are otherwise one thing, written down twice.
_BESIDE = frozenset({"id", "session"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedStore:
    """What one store gave to a merged one.

    Args:
        store: Its file.
        num_runs: Runs it holds.
        num_equal: Of them those that another one of these stores, or an earlier session
            of this one, gave already.
        num_timings: Timings it gave.
        num_trainings: Training runs it gave.
        sessions: The session of the merged store by the session here.
    """

    store: Path
    num_runs: int
    num_equal: int
    num_timings: int
    num_trainings: int
    sessions: Mapping[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {
            "store": str(self.store),
            "num_runs": self.num_runs,
            "num_equal": self.num_equal,
            "num_timings": self.num_timings,
            "num_trainings": self.num_trainings,
            "sessions": {str(here): there for here, there in self.sessions.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A merged store.

    Args:
        store: Its file.
        identity: What it belongs to.
        parts: One entry per store that was merged, in their order.
        num_runs: Runs it holds.
        num_contradicting: Settings and seeds whose runs ended differently in different
            sessions, as other versions and machines make them; all are kept.
    """

    store: Path
    identity: StoreIdentity
    parts: tuple[MergedStore, ...]
    num_runs: int
    num_contradicting: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {
            "store": str(self.store),
            "workload": self.identity.workload,
            "num_runs": self.num_runs,
            "num_contradicting": self.num_contradicting,
            "stores": [part.to_dict() for part in self.parts],
        }


def merge_stores(paths: Sequence[Path], out: Path) -> Merged:
    """Write one store that holds all that several stores of a workload hold.

    Runs are equal when they agree in all that settings and seed decide: the seconds
    they took do not count. Each store is read as it is at one moment, whoever writes to
    it meanwhile.

    Args:
        paths: Two stores or more; they are only read.
        out: The new file.

    Returns:
        What went where.

    Raises:
        InputError: There are fewer than two stores, one stands twice or is none, or the
            new file is there already or cannot be written.
        StoreMismatchError: They belong to different workloads; says in what.
        StoreError: A store cannot be read, or the new one not be written; then there is
            none.

    Example:
        >>> import tempfile
        >>> identity = StoreIdentity(workload="mine", fingerprint={"parameters": 10})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = [Path(folder) / name for name in ("a.sqlite", "b.sqlite")]
        ...     for path in paths:
        ...         RunStore(path, identity).close()
        ...     merge_stores(paths, Path(folder) / "both.sqlite").num_runs
        0
    """
    _check_paths(paths, out)
    identities: list[StoreIdentity] = []
    contents: list[Contents] = []
    for path in paths:
        with RunStore(path) as store:
            identities.append(store.identity)
            contents.append(store.contents())
        _check_same(paths, identities)
    runs = _unique_runs(contents)
    merged, parts = _joined(paths, contents, runs)
    identity = max(identities, key=lambda one: one.example_unit is not None)
    _write(out, identity, merged)
    return Merged(
        store=out,
        identity=identity,
        parts=tuple(parts),
        num_runs=len(merged["runs"]),
        num_contradicting=_contradictions(merged["runs"]),
    )


def _check_paths(paths: Sequence[Path], out: Path) -> None:
    if len(paths) < 2:
        raise InputError("runs: `--merge` needs two stores or more, got 1.")
    for i, path in enumerate(paths):
        for other in paths[:i]:
            if path.exists() and other.exists() and path.samefile(other):
                raise InputError(f"runs: `--merge` {path} stands twice.")
    if out.exists():
        raise InputError(
            f"runs: `--merge` {out} is there already; nothing is overwritten.",
            "name a new file",
        )
    writable_path("runs: `--merge`", out)


def _check_same(paths: Sequence[Path], identities: Sequence[StoreIdentity]) -> None:
    first, last = identities[0], identities[-1]
    place = paths[len(identities) - 1]
    if first.workload != last.workload:
        raise StoreMismatchError(
            f"store {place} belongs to workload {last.workload!r}, and {paths[0]} to "
            f"{first.workload!r}.",
            "merge stores of one workload; --compare takes two of any",
        )
    if differences := first.differences(last, f"in {place}"):
        raise StoreMismatchError(
            f"stores {paths[0]} and {place} belong to different "
            f"{first.workload!r}: {differences}.",
            "merge stores of one workload; --compare takes two of any",
        )


def _unique_runs(contents: Sequence[Contents]) -> set[tuple[int, int]]:
    """Return which run of which store is kept, as (store, row)."""
    kept: dict[str, tuple[int, int]] = {}
    recorded: dict[str, bool] = {}
    for i, content in enumerate(contents):
        for j, row in enumerate(content["runs"]):
            run = run_of(row)
            # In words, for a NaN in a trace is not equal to itself.
            outcome = repr(run.outcome()[:2])
            # Of two that are otherwise equal the one with held-out losses tells more.
            fuller = bool(run.held_out_trace) and not recorded.get(outcome)
            if outcome not in kept or fuller:
                kept[outcome] = (i, j)
                recorded[outcome] = bool(run.held_out_trace)
    return set(kept.values())


def _joined(
    paths: Sequence[Path], contents: Sequence[Contents], runs: set[tuple[int, int]]
) -> tuple[Contents, list[MergedStore]]:
    merged: dict[str, list[dict[str, Any]]] = {table: [] for table in contents[0]}
    seen: set[str] = set()
    last_session = 0
    parts: list[MergedStore] = []
    for i, (path, content) in enumerate(zip(paths, contents, strict=True)):
        new = {"runs": [r for j, r in enumerate(content["runs"]) if (i, j) in runs]}
        for table in merged.keys() - {"runs"}:
            new[table] = [row for row in content[table] if _first_seen(row, seen)]
        sessions = {row["session"] for rows in new.values() for row in rows}
        names = {one: last_session + n for n, one in enumerate(sorted(sessions), 1)}
        last_session += len(names)
        for table, rows in new.items():
            merged[table] += [{**row, "session": names[row["session"]]} for row in rows]
        parts.append(
            MergedStore(
                store=path,
                num_runs=len(content["runs"]),
                num_equal=len(content["runs"]) - len(new["runs"]),
                num_timings=len(new["timings"]),
                num_trainings=len(new["trainings"]),
                sessions=names,
            )
        )
    return merged, parts


def _first_seen(row: Mapping[str, Any], seen: set[str]) -> bool:
    content = repr(sorted((k, v) for k, v in row.items() if k not in _BESIDE))
    is_new = content not in seen
    seen.add(content)
    return is_new


def _contradictions(rows: Sequence[Mapping[str, Any]]) -> int:
    # Equal ones are gone: what asks for the same a second time has ended differently.
    settings = ("batch_size", "lr", "seed", "targets", "crossing", "budget")
    asked = Counter(tuple(row[name] for name in settings) for row in rows)
    return sum(times > 1 for times in asked.values())


def _write(out: Path, identity: StoreIdentity, content: Contents) -> None:
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with RunStore(beside, identity) as store:
            store.fill(content)
        _rename(beside, out)
    except (StoreError, OSError) as error:
        reason = error.__cause__ or error
        raise StoreError(
            f"runs: {out} could not be written, and there is none: {reason}.",
            "free some space, or name a file on another disk",
        ) from error
    finally:
        for ending in ("", "-wal", "-shm", "-journal"):
            with suppress(OSError):
                Path(f"{beside}{ending}").unlink()


def _rename(path: Path, out: Path) -> None:
    try:
        # Unlike a renaming, a link never replaces a file that came there meanwhile.
        os.link(path, out)
    except FileExistsError:
        raise
    except OSError:
        # Not every file system has links.
        path.replace(out)
