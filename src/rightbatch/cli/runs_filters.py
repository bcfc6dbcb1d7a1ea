"""Which runs of a store are meant: the filters of ``runs``, and the rows they leave."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
        unique: Of a batch size, lr, seed and target only the run that tells most.
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

    def apply(self, path: Path) -> "StoredRuns":
        """Return what a store has of them.

        Args:
            path: Its file.

        Returns:
            Runs sorted by batch size, lr and seed; of equal ones the latest first.

        Raises:
            InputError: There is no such file, or it is no store.
            StoreError: It cannot be read.
        """
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
        found.sort(key=lambda one: (one[1].batch_size, one[1].lr, one[1].seed))
        return StoredRuns(
            path=path,
            identity=identity,
            runs=tuple(run for _, run in found),
            rows=self._rows(found, identity.workload, path),
            trainings=trainings,
        )

    def _takes(self, run: "Run") -> bool:
        return (
            _among(self.batch_sizes, run.batch_size)
            and _among(self.lrs, run.lr)
            and _among(self.seeds, run.seed)
        )

    def _rows(
        self, found: "list[tuple[int, Run]]", workload: str, path: Path
    ) -> list[dict[str, Any]]:
        from rightbatch.experiments.cells import unique_crossings

        once = unique_crossings(run for _, run in found) if self.unique else ()
        told = {(id(run), crossed.target) for run, crossed in once}
        place = {"workload": workload, "store": str(path)}
        return [
            {**row, **place, "session": session}
            for session, run in found
            for row in run.rows()
            if (not self.unique or (id(run), row["target"]) in told)
            and _among(self.targets, row["target"])
            and (self.statuses is None or row["status"] in self.statuses)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRuns:
    """What the filters leave of a store.

    Args:
        path: Its file.
        identity: What it belongs to.
        runs: The latest of equal ones first.
        rows: The JSON rows, one per run and target.
        trainings: The JSON rows of training runs.
    """

    path: Path
    identity: "StoreIdentity"
    runs: "tuple[Run, ...]"
    rows: list[dict[str, Any]]
    trainings: list[dict[str, Any]]


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
        _cells(row, store.identity.example_unit)
        for store in stores
        for row in store.rows
    ]
    write_csv(path, COLUMNS, rows)


def _cells(row: dict[str, Any], unit: str | None) -> list[Any]:
    # A name of its own for each run: its rows of several targets belong together.
    store = Path(row["store"]).stem
    name = (
        f"{store}-{row['session']}-b{row['batch_size']}-lr{row['lr']:g}-{row['seed']}"
    )
    more = {"run": name, "unit": unit}
    return [more[column] if column in more else row[column] for column in COLUMNS]


def _among(wanted: tuple[float, ...] | None, value: float) -> bool:
    # A list such as .01:.16:x2 is computed, and need not meet what was written then.
    return wanted is None or any(
        math.isclose(value, one, rel_tol=1e-6) for one in wanted
    )
