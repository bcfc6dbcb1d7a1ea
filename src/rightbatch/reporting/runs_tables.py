"""What a store of runs holds, as sheets: runs, summary, comparison, merger."""

from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import (
    MISSING,
    count,
    ends,
    entries,
    estimate,
    field,
    is_number,
    label,
    number,
    percent,
    times,
)
from rightbatch.reporting.sheet import Column, Sheet

Record = Mapping[str, Any]


def stored_runs_sheet(runs: Sequence[Record]) -> Sheet:
    """Return single runs, one row per run and target.

    Args:
        runs: `runs` of the document.

    Returns:
        The sheet; workload, session and crossing stand where there are several, steps
        on the held-out set where they were recorded.
    """
    workloads = {field(run, "workload") for run in runs}
    sessions = {(field(run, "store"), field(run, "session")) for run in runs}
    crossings = {field(run, "crossing") for run in runs}
    columns = [
        Column("batch size", "batch\nsize"),
        Column("lr"),
        Column("seed"),
        Column("target"),
        Column("steps"),
        Column("examples"),
        Column("status", align="left"),
    ]
    rows = [
        (
            count(field(run, "batch_size")),
            number(field(run, "lr")),
            label(field(run, "seed")),
            label(field(run, "target")),
            count(field(run, "steps")),
            count(field(run, "examples")),
            label(field(run, "status")).replace("_", " "),
        )
        for run in runs
    ]
    if any("held_out_steps" in run for run in runs):
        columns.append(Column("steps held out", "steps\nheld out"))
        rows = [
            (*row, count(field(run, "held_out_steps")))
            for run, row in zip(runs, rows, strict=True)
        ]
    if len(crossings) > 1:
        columns.append(Column("crossing", align="left"))
        rows = [
            (*row, label(field(run, "crossing")))
            for run, row in zip(runs, rows, strict=True)
        ]
    if len(sessions) > 1:
        columns.insert(0, Column("session", wide=True))
        rows = [
            (label(field(run, "session")), *row)
            for run, row in zip(runs, rows, strict=True)
        ]
    if len(workloads) > 1:
        columns.insert(0, Column("workload", align="left"))
        rows = [
            (label(field(run, "workload")), *row)
            for run, row in zip(runs, rows, strict=True)
        ]
    return Sheet(caption="Every run", columns=tuple(columns), rows=tuple(rows))


def summary_sheets(summary: Sequence[Record]) -> list[Sheet]:
    """Return the best rate and its steps per batch size.

    One sheet per store, target and way in which crossings were read off.

    Args:
        summary: `summary` of the document.

    Returns:
        The sheets, in the order of the entries.

    Example:
        >>> entry = {"workload": "mine", "target": 0.2, "batch_size": 8, "lr": 0.1,
        ...     "num_runs": 3, "spread": 0.1, "statuses": {"reached": 3}}
        >>> (sheet,) = summary_sheets([entry])
        >>> sheet.caption, sheet.rows[0][:3]
        ('mine: steps to 0.2', ('8', '0.1', '3'))
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for entry in summary:
        key = tuple(
            field(entry, name) for name in ("store", "workload", "target", "crossing")
        )
        groups.setdefault(key, []).append(entry)
    several = len({crossing for _, _, _, crossing in groups}) > 1
    return [
        Sheet(
            caption=f"{label(workload)}: steps to {label(target)}"
            + (f", {label(crossing)}" if several else ""),
            columns=(
                Column("batch size", "batch\nsize"),
                Column("best lr", "best\nlr"),
                Column("runs at it", "runs\nat it"),
                Column("mean steps"),
                Column(f"{_level(found, 'steps')} interval"),
                Column("spread from seed to seed", "spread"),
                Column("all runs", align="left"),
            ),
            rows=tuple(map(_summary_row, found)),
            notes=_summary_notes(found),
        )
        for (_, workload, target, crossing), found in groups.items()
    ]


def _summary_row(entry: Record) -> tuple[str, ...]:
    lr = number(field(entry, "lr")) + ("*" if field(entry, "at_edge") else "")
    return (
        count(field(entry, "batch_size")),
        lr,
        count(field(entry, "num_runs")),
        number(field(entry, "steps", "value")),
        ends(field(entry, "steps")) if _has_ends(field(entry, "steps")) else MISSING,
        percent(field(entry, "spread")),
        _statuses(field(entry, "statuses")),
    )


def _statuses(counts: Any) -> str:
    found: Mapping[str, Any] = counts or {}
    return ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in found.items())


def _summary_notes(found: Sequence[Record]) -> tuple[str, ...]:
    notes = ["Means are geometric, over the runs at the best rate."]
    if any(field(entry, "at_edge") for entry in found):
        notes.append("* the least or the largest rate tried: the best may lie beyond")
    if any(
        field(entry, "lr") is not None and field(entry, "steps") is None
        for entry in found
    ):
        notes.append("No mean where a run at the best rate missed the target.")
    return tuple(notes)


def compared_sheets(comparison: Record) -> list[Sheet]:
    """Return two stores beside each other: at their best rates, at the same ones, phi.

    Args:
        comparison: `comparison` of the document.

    Returns:
        Two sheets or three.
    """
    sheets = [_critical_sheet(comparison)]
    best, same = entries(comparison, "at_best_lr"), entries(comparison, "at_same_lr")
    if best:
        sheets.append(_contrast_sheet("Each at its best learning rate", best))
    if same:
        sheets.append(_contrast_sheet("At the same learning rate", same))
    return sheets


def _critical_sheet(comparison: Record) -> Sheet:
    columns = (
        Column("", align="left"),
        Column("workload", align="left"),
        Column("target"),
        Column("critical batch size"),
    )
    rows = [
        (
            which,
            label(field(comparison, which, "workload")),
            label(field(comparison, which, "target")),
            _estimate(field(comparison, "critical_batch_size", which)),
        )
        for which in ("first", "second")
    ]
    ratio = field(comparison, "critical_batch_size", "ratio")
    rows.append(("second / first", "", "", _estimate(ratio)))
    unit = label(field(comparison, "first", "example_unit") or "example")
    return Sheet(
        caption="Two stores compared",
        columns=columns,
        rows=tuple(rows),
        notes=(
            f"Critical batch sizes in {unit}s, each tuned; intervals of "
            f"{percent(field(comparison, 'level'))}.",
        ),
    )


def _contrast_sheet(caption: str, contrasts: Sequence[Record]) -> Sheet:
    columns = (
        Column("batch size", "batch\nsize"),
        Column("lr of the first", "lr\nfirst"),
        Column("lr of the second", "lr\nsecond"),
        Column("steps of the first", "steps\nfirst"),
        Column("steps of the second", "steps\nsecond"),
        Column("second / first", "second\n/ first"),
        Column(f"{_level(contrasts, 'ratio')} interval"),
        Column("p by Holm", "p by\nHolm"),
        Column("differs", align="left"),
    )
    tested = sum(is_number(field(one, "p_value")) for one in contrasts)
    note = (
        f"{tested} tested together: Welch's test on ln steps, adjusted by Holm."
        if tested
        else "None tested: that needs two runs or more on each side, all at the target."
    )
    notes = [note]
    cells = [field(one, which) for one in contrasts for which in ("first", "second")]
    if any(field(one, "num_reached") != field(one, "num_runs") for one in cells):
        notes.append("0 of 3: so many runs reached the target; steps need all of them.")
    rows = tuple(map(_contrast_row, contrasts))
    return Sheet(caption=caption, columns=columns, rows=rows, notes=tuple(notes))


def _contrast_row(one: Record) -> tuple[str, ...]:
    ratio = field(one, "ratio")
    return (
        count(field(one, "batch_size")),
        number(field(one, "first", "lr")),
        number(field(one, "second", "lr")),
        _steps(field(one, "first")),
        _steps(field(one, "second")),
        times(field(ratio, "value")),
        ends(ratio) if _has_ends(ratio) else MISSING,
        number(field(one, "adjusted_p")),
        label(field(one, "differs")),
    )


def _steps(cell: Any) -> str:
    reached, runs = field(cell, "num_reached"), field(cell, "num_runs")
    if reached != runs:
        return f"{count(reached)} of {count(runs)}"
    return number(field(cell, "steps", "value"))


def merged_sheet(merged: Record) -> Sheet:
    """Return what each store gave to a merged one, one row each.

    Args:
        merged: `merged` of the document.

    Returns:
        The sheet.

    Example:
        >>> merged_sheet({"store": "both.sqlite", "num_runs": 5, "stores": []}).caption
        'both.sqlite: 5 runs'
    """
    columns = (
        Column("store", align="left"),
        Column("runs"),
        Column("of them known", "of them\nknown"),
        Column("timings"),
        Column("trainings"),
        Column("sessions here → there", "sessions", align="left"),
    )
    rows = tuple(
        (
            label(field(part, "store")),
            count(field(part, "num_runs")),
            count(field(part, "num_equal")),
            count(field(part, "num_timings")),
            count(field(part, "num_trainings")),
            ", ".join(
                f"{here} → {there}"
                for here, there in (field(part, "sessions") or {}).items()
            ),
        )
        for part in entries(merged, "stores")
    )
    caption = (
        f"{label(field(merged, 'store'))}: {count(field(merged, 'num_runs'))} runs"
    )
    return Sheet(caption=caption, columns=columns, rows=rows)


def _estimate(interval: Any) -> str:
    return MISSING if interval is None else estimate(interval)


def _has_ends(interval: Any) -> bool:
    return is_number(field(interval, "low")) or is_number(field(interval, "high"))


def _level(records: Sequence[Record], key: str) -> str:
    levels = (field(record, key, "level") for record in records)
    return percent(next((level for level in levels if level is not None), 0.9))
