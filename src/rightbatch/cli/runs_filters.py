"""Which runs of a store are meant: the filters of ``runs``, and the rows they leave."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightbatch._checks import one_of
from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.experiments.record import Run
    from rightbatch.experiments.store import StoreIdentity

STATUSES = ("reached", "not_reached", "diverged", "out_of_memory")
COLUMNS = (
    "workload",
    "run",
    "batch_size",
    "lr",
    "seed",
    "target",
    "steps",
    "examples",
    "status",
    "crossing",
    "held_out_steps",
    "unit",
    "session",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilters:
    """Which runs to take; None for any.

    Args:
        batch_sizes: These.
        lrs: These, to six digits.
        seeds: These.
        statuses: Of the rows; a run has one per target.
        targets: Of the rows.
        sessions: These.
        unique: Of a batch size, lr, seed, target and crossing only the run that tells
            most, over all stores of a workload.
    """

    batch_sizes: tuple[float, ...] | None = None
    lrs: tuple[float, ...] | None = None
    seeds: tuple[float, ...] | None = None
    statuses: tuple[str, ...] | None = None
    targets: tuple[float, ...] | None = None
    sessions: tuple[float, ...] | None = None
    unique: bool = False

    def inputs(self) -> dict[str, Any]:
        """Return the filters as the JSON document gives them."""
        return {
            "batch_size": self.batch_sizes,
            "lr": self.lrs,
            "seed": self.seeds,
            "status": self.statuses,
            "target": self.targets,
            "session": self.sessions,
            "unique": self.unique,
        }

    def apply(self, paths: Sequence[Path]) -> "list[StoredRuns]":
        """Return what stores have of them.

        Args:
            paths: Their files.

        Returns:
            One entry per file. Runs are sorted by batch size, lr and seed; of equal
            ones the latest is first. Of equal ones in several stores the first store's
            is the unique one.

        Raises:
            InputError: There is no such file, or it is no store.
            StoreError: It cannot be read.
        """
        from rightbatch.experiments.cells import unique_crossings

        stores = [self._read(path) for path in paths]
        if not self.unique:
            return stores
        told = {
            (id(run), crossed.target)
            for same in _by_workload(stores)
            for run, crossed in unique_crossings(r for one in same for r in one.runs)
        }
        return [
            replace(
                store,
                listed=[
                    (run, row)
                    for run, row in store.listed
                    if (id(run), row["target"]) in told
                ],
            )
            for store in stores
        ]

    def _read(self, path: Path) -> "StoredRuns":
        from rightbatch.experiments.cells import crossing_name
        from rightbatch.experiments.store import RunStore

        with RunStore(path) as store:
            found = [
                (session, run)
                for session in store.sessions()
                if _among(self.sessions, session)
                for run in store.runs(session=session)
                if self._takes(run)
            ]
            identity = store.identity
            # A filter of runs to a target is none of a training: its batch changes.
            of_sweeps = (self.batch_sizes, self.lrs, self.statuses, self.targets)
            trainings = [
                run.summary()
                for run in (store.trainings() if of_sweeps == (None,) * 4 else ())
                if _among(self.seeds, run.seed)
            ]
        crossings = dict.fromkeys(crossing_name(run.crossing) for _, run in found)
        found.sort(key=lambda one: (one[1].batch_size, one[1].lr, one[1].seed))
        return StoredRuns(
            path=path,
            identity=identity,
            runs=tuple(run for _, run in found),
            crossings=tuple(crossings),
            listed=self._listed(found, identity.workload, path),
            trainings=trainings,
        )

    def _takes(self, run: "Run") -> bool:
        return (
            _among(self.batch_sizes, run.batch_size)
            and _among(self.lrs, run.lr)
            and _among(self.seeds, run.seed)
        )

    def _listed(
        self, found: "list[tuple[int, Run]]", workload: str, path: Path
    ) -> "list[tuple[Run, dict[str, Any]]]":
        from rightbatch.experiments.cells import crossing_name

        place = {"workload": workload, "store": str(path)}
        return [
            (
                run,
                {
                    **row,
                    **place,
                    "session": session,
                    "crossing": crossing_name(run.crossing),
                },
            )
            for session, run in found
            for row in run.rows()
            if _among(self.targets, row["target"])
            and (self.statuses is None or row["status"] in self.statuses)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRuns:
    """What the filters leave of a store.

    Args:
        path: Its file.
        identity: What it belongs to.
        runs: The latest of equal ones first.
        crossings: How they were read off, the latest session's first.
        listed: The JSON rows, one per run and target, each with its run.
        trainings: The JSON rows of training runs.
    """

    path: Path
    identity: "StoreIdentity"
    runs: "tuple[Run, ...]"
    crossings: tuple[str, ...]
    listed: "list[tuple[Run, dict[str, Any]]]"
    trainings: list[dict[str, Any]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The JSON rows, one per run and target."""
        return [row for _, row in self.listed]


def parse_whole(option: str, text: str | None, least: int) -> tuple[float, ...] | None:
    """Return the whole numbers of a list.

    Args:
        option: The option they come from, for the error.
        text: As for :func:`rightbatch.cli.options.parse_numbers`; None for none.
        least: The least one allowed.

    Returns:
        The numbers in the order written; None for none.

    Raises:
        InputError: Not such a list, or a number is not whole or too small.

    Example:
        >>> parse_whole("--seed", "0,2", 0)
        (0.0, 2.0)
    """
    from rightbatch.cli.options import parse_numbers

    if text is None:
        return None
    numbers = parse_numbers(option, text)
    for number in numbers:
        if number < least or not number.is_integer():
            raise InputError(f"{option}: must be whole and >= {least}, got {number:g}.")
    return numbers


def parse_statuses(text: str | None) -> tuple[str, ...] | None:
    """Return the statuses of a list.

    Args:
        text: ``reached,diverged``; None for none.

    Returns:
        The statuses; None for none.

    Raises:
        InputError: One is none.
    """
    if text is None:
        return None
    statuses = tuple(part.strip() for part in text.split(","))
    for status in statuses:
        one_of("--status", "status", status, STATUSES)
    return statuses


def write_rows(path: Path, stores: Sequence[StoredRuns]) -> None:
    """Write the rows of stores as the CSV that ``fit`` and ``plan --runs`` read.

    Args:
        path: The file.
        stores: From :meth:`RunFilters.apply`.

    Raises:
        RightbatchError: The disk failed or is full; an older file is kept.
    """
    from rightbatch.experiments.tables import write_csv

    rows = [
        {**row, "run": _run_name(name, row), "unit": store.identity.example_unit}
        for name, store in zip(_names(stores), stores, strict=True)
        for row in store.rows
    ]
    columns = [
        column
        for column in COLUMNS
        if column != "held_out_steps" or any(column in row for row in rows)
    ]
    write_csv(path, columns, [[row.get(name) for name in columns] for row in rows])


def _names(stores: Sequence[StoredRuns]) -> list[str]:
    stems = [store.path.stem for store in stores]
    return [
        stem if stems.count(stem) == 1 else f"{stem}#{number}"
        for number, stem in enumerate(stems, 1)
    ]


def _run_name(store: str, row: dict[str, Any]) -> str:
    from rightbatch.experiments.record import exact_text

    # A name of its own for each run: its rows of several targets belong together.
    how = "" if row["crossing"] == "smoothed" else f"-{row['crossing']}"
    lr = exact_text(row["lr"])
    return f"{store}-{row['session']}-b{row['batch_size']}-lr{lr}-{row['seed']}{how}"


def _by_workload(stores: Sequence[StoredRuns]) -> list[list[StoredRuns]]:
    groups: list[list[StoredRuns]] = []
    for store in stores:
        mine = store.identity
        for group in groups:
            other = group[0].identity
            if other.workload == mine.workload and not other.differences(mine, ""):
                group.append(store)
                break
        else:
            groups.append([store])
    return groups


def _among(wanted: tuple[float, ...] | None, value: float) -> bool:
    # A list such as .01:.16:x2 is computed, and need not meet what was written then.
    return wanted is None or any(
        math.isclose(value, one, rel_tol=1e-6) for one in wanted
    )
