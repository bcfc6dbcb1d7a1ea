"""The tables of a replay: what policies would have asked for on a recorded run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import count, entries, field, label, number, whole
from rightbatch.reporting.sheet import Column, Sheet

Record = Mapping[str, Any]

OPEN_LOOP = (
    "Open loop: losses and measurements are those of the recorded run, at its batches; "
    "what would have become of a run at these batches, it does not tell."
)


def replay_sheets(document: Record) -> list[Sheet]:
    """Return the tables of a replay, in reading order.

    Args:
        document: What `replay` prints with `--json`.

    Returns:
        What each policy would have asked for in all, and at a few moments.

    Example:
        >>> replay_sheets({"replays": []})
        []
    """
    replays = entries(document, "replays")
    if not replays:
        return []
    return [totals_sheet(document, replays), moments_sheet(document, replays)]


def totals_sheet(document: Record, replays: Sequence[Record]) -> Sheet:
    """Return the ends of what was asked for, and updates on the recorded examples."""
    recorded = field(document, "recorded")
    columns = (
        Column("policy", align="left"),
        Column("first batch", "first\nbatch"),
        Column("smallest"),
        Column("largest"),
        Column("last batch", "last\nbatch"),
        Column("updates on the recorded examples", "updates on\nits examples"),
    )
    rows = [
        (
            label(one["policy"]),
            whole(one["first"]),
            whole(one["smallest"]),
            whole(one["largest"]),
            whole(one["last"]),
            whole(one["steps"]),
        )
        for one in ({**recorded, "policy": "recorded"}, *replays)
    ]
    return Sheet(
        caption="What policies would have asked for on the recorded run",
        columns=columns,
        rows=tuple(rows),
        notes=(OPEN_LOOP,),
    )


def moments_sheet(document: Record, replays: Sequence[Record]) -> Sheet:
    """Return what was asked for at a few moments, a column per policy."""
    recorded = entries(document, "recorded", "points")
    points = [entries(one, "points") for one in replays]
    columns = (
        Column("examples"),
        Column("updates"),
        Column("loss"),
        Column("recorded"),
        *(Column(label(one["policy"]), _broken(one["policy"])) for one in replays),
    )
    rows = [
        (
            count(point["examples"]),
            count(point["step"]),
            number(field(point, "loss")),
            count(point["batch_size"]),
            *(whole(of[place]["batch_size"]) for of in points),
        )
        for place, point in enumerate(recorded)
    ]
    return Sheet(
        caption="The batch size asked for, as the recorded run went on",
        columns=columns,
        rows=tuple(rows),
    )


def _broken(name: str) -> str:
    head, colon, rest = label(name).partition(":")
    return f"{head}{colon}\n{rest}" if colon else head
