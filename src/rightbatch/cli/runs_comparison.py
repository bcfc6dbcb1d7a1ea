"""``runs --summary`` and ``runs --compare``: what the runs of stores amount to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.cli.runs_filters import RunFilters, StoredRuns

# Of two stores' identities, what makes a ratio of their steps one of different things.
_OF_TARGETS = ("metric", "direction", "on")


def summary_of(
    stores: "Sequence[StoredRuns]", filters: "RunFilters", level: float
) -> list[dict[str, Any]]:
    """Return the entries of `summary`: one per store, target and batch size.

    Args:
        stores: Read with the filters.
        filters: Say which targets.
        level: Of the intervals.

    Returns:
        In the stores' order, the hardest target first.

    Raises:
        InputError: A target was asked for that no run was made for.
    """
    from rightbatch.experiments.cells import summarize, targets_of

    return [
        {
            "workload": store.identity.workload,
            "store": str(store.path),
            **one.to_dict(),
        }
        for store in stores
        for target in filters.targets or targets_of(store.runs)
        for one in summarize(store.runs, target, level=level)
    ]


def comparison_of(
    stores: "Sequence[StoredRuns]", filters: "RunFilters", level: float
) -> tuple[dict[str, Any], list[str]]:
    """Return the entry `comparison` of two stores, and what to know about it.

    Args:
        stores: Two, read with the filters.
        filters: Say which target, or one for each; where they do not it is the hardest
            that both have, else the hardest of each.
        level: Of the intervals.

    Returns:
        The entry and warnings.

    Where a store's crossings were read off in several ways, one that both know is
    compared, else the latest.

    Raises:
        InputError: There are not two, they count in different units, have no batch size
            in common, or lack the target.
    """
    from rightbatch.experiments.cells import read_off
    from rightbatch.experiments.comparing import compare_runs

    if len(stores) != 2:
        raise InputError(f"runs: --compare takes two stores, got {len(stores)}.")
    first, second = stores
    units = {store.identity.example_unit for store in stores} - {None}
    if len(units) > 1:
        raise InputError(
            f"runs: --compare needs batch sizes in one unit; {first.path} counts "
            f"{first.identity.example_unit}s, {second.path} "
            f"{second.identity.example_unit}s."
        )
    unit = next(iter(units), None)
    targets = _targets(stores, filters)
    ways = _ways(stores, targets)
    found = compare_runs(
        read_off(first.runs, ways[0]) or first.runs,
        read_off(second.runs, ways[1]) or second.runs,
        targets=targets,
        level=level,
        example_unit=unit or "example",
    )
    sides = {
        which: {
            "store": str(store.path),
            "workload": store.identity.workload,
            "target": target,
            "example_unit": unit,
        }
        for which, store, target in zip(
            ("first", "second"), stores, targets, strict=True
        )
    }
    return {**sides, **found.to_dict()}, [
        *_differences(stores, targets),
        *_crossing_notes(stores, targets, ways),
        *found.notes,
    ]


def _targets(
    stores: "Sequence[StoredRuns]", filters: "RunFilters"
) -> tuple[float, float]:
    from rightbatch.experiments.cells import targets_of

    if filters.targets:
        first, *more = filters.targets
        if len(more) > 1:
            raise InputError(
                "runs: --compare takes one --target, or one for each store, got "
                f"{len(filters.targets)}."
            )
        return first, more[0] if more else first
    for store in stores:
        if not store.runs:
            raise InputError(f"runs: --compare finds no run in {store.path}.")
    one, other = (targets_of(store.runs) for store in stores)
    shared = next((target for target in one if target in other), None)
    return (one[0], other[0]) if shared is None else (shared, shared)


def _differences(
    stores: "Sequence[StoredRuns]", targets: tuple[float, float]
) -> list[str]:
    found: list[str] = []
    if targets[0] != targets[1]:
        found.append(f"the targets differ: {targets[0]:g} and {targets[1]:g}")
    one, other = (store.identity.fingerprint for store in stores)
    found += [
        f"the {name} of the targets differs: {one.get(name)} and {other.get(name)}"
        for name in _OF_TARGETS
        if one.get(name) != other.get(name)
    ]
    return found


def _ways(
    stores: "Sequence[StoredRuns]", targets: tuple[float, float]
) -> tuple[str, str]:
    one, other = map(_ways_of, stores, targets)
    shared = next((way for way in one if way in other), None)
    # Without a run of the target there is none; the comparison says so.
    return shared or next(iter(one), ""), shared or next(iter(other), "")


def _ways_of(store: "StoredRuns", target: float) -> list[str]:
    from rightbatch.experiments.cells import crossings_of

    asked = crossings_of(store.runs, target)
    return [way for way in store.crossings if way in asked]


def _crossing_notes(
    stores: "Sequence[StoredRuns]", targets: tuple[float, float], ways: tuple[str, str]
) -> list[str]:
    # First passage comes earlier, the more so the smaller the batch.
    found: list[str] = []
    if ways[0] != ways[1]:
        found.append(f"the crossings are read off differently: {' and '.join(ways)}")
    for store, target, way in zip(stores, targets, ways, strict=True):
        known = _ways_of(store, target)
        if len(known) > 1:
            found.append(
                f"{store.path} has crossings read off in several ways, "
                f"{' and '.join(known)}: {way} is compared"
            )
    return found


def mixed_crossings(stores: "Sequence[StoredRuns]") -> list[str]:
    """Return a warning for each workload whose rows count steps in several ways.

    Args:
        stores: Whose rows are written into one table.

    Returns:
        The warnings.
    """
    ways: dict[str, dict[str, None]] = {}
    for store in stores:
        found = ways.setdefault(store.identity.workload, {})
        found.update(dict.fromkeys(row["crossing"] for row in store.rows))
    return [
        f"the crossings of {workload} are read off in several ways, "
        f"{' and '.join(found)}, which a fit would mix"
        for workload, found in ways.items()
        if len(found) > 1
    ]
