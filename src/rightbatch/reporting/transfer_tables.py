"""The tables of a transfer, as sheets: each takes records of the JSON document."""

from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import (
    count,
    entries,
    field,
    label,
    number,
    percent,
    whole,
)
from rightbatch.reporting.sheet import Column, Sheet

Record = Mapping[str, Any]


def changes_sheet(document: Record) -> Sheet:
    """Return what changes with the batch size: one row per setting, sources below.

    Args:
        document: Of ``transfer``.

    Returns:
        A sheet that fits 80 columns.

    Example:
        >>> change = {"setting": "lr", "old": 0.1, "new": 0.2, "rule": "square_root"}
        >>> changes_sheet({"changes": [change]}).rows
        (('lr', '0.1', '0.2', 'square_root'),)
    """
    changes = entries(document, "changes")
    columns = (
        Column("setting", align="left"),
        Column("old"),
        Column("new"),
        Column("rule", align="left"),
    )
    rows = tuple(
        tuple(label(field(one, key)) for key in ("setting", "old", "new", "rule"))
        for one in changes
    )
    old, new = field(document, "from_batch"), field(document, "to_batch")
    caption = f"From batch size {count(old)} to {count(new)}"
    if not rows:
        caption += ": nothing changes"
    return Sheet(
        caption=caption, columns=columns, rows=rows, notes=_notes(document, changes)
    )


def _notes(document: Record, changes: Sequence[Record]) -> tuple[str, ...]:
    rules = {
        label(field(one, "rule")): (field(one, "source"), field(one, "holds_when"))
        for one in changes
    }
    notes = [
        f"{rule}: {label(source)}. Holds when: {label(holds)}."
        for rule, (source, holds) in rules.items()
    ]
    kept = ", ".join(label(field(one, "setting")) for one in entries(document, "kept"))
    if kept and changes:
        notes.append(f"kept as it is: {kept}")
    check = field(document, "check")
    if check:
        rates = ", ".join(label(float(lr)) for lr in check)
        notes.append(f"no rule always transfers: try the learning rates {rates}")
    return tuple(notes)


def growth_sheet(schedule: Record) -> Sheet:
    """Return a schedule's stages: one row per batch size or learning rate.

    Args:
        schedule: `schedule` of a document of ``transfer``.

    Returns:
        A sheet that fits 80 columns.

    Example:
        >>> growth_sheet({"stages": [{"start_example": 0, "batch_size": 256}]}).rows[0]
        ('0', '256', '–', '–', '–')
    """
    columns = (
        Column("from example"),
        Column("batch size"),
        Column("lr"),
        Column("steps"),
        Column("examples"),
    )
    rows = tuple(
        (
            whole_count(field(stage, "start_example")),
            whole_count(field(stage, "batch_size")),
            number(field(stage, "lr")),
            whole(field(stage, "steps")),
            whole_count(field(stage, "examples")),
        )
        for stage in entries(schedule, "stages")
    )
    saved, free = field(schedule, "saved"), field(schedule, "saved_uncapped")
    caption = (
        f"{label(field(schedule, 'schedule'))} as {label(field(schedule, 'grow'))}: "
        f"{percent(saved)} of {whole(field(schedule, 'total_steps'))} steps saved"
    )
    notes = [
        f"{label(field(schedule, 'source'))}. Holds when: "
        f"{label(field(schedule, 'holds_when'))}."
    ]
    if field(schedule, "max_batch_size") is not None:
        notes.append(f"without the cap {percent(free)} of the steps would be saved")
    return Sheet(caption=caption, columns=columns, rows=rows, notes=tuple(notes))


def whole_count(value: Any) -> str:
    """Return a counted number in full, rounded to a whole one from 10 up.

    Example:
        >>> whole_count(2067500.4), whole_count(None)
        ('2,067,500', '–')
    """
    return count(round(value)) if isinstance(value, (int, float)) else count(value)
