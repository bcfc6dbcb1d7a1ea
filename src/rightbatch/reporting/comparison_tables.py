"""Batch sizes beside the recommended one, as a sheet."""

from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import (
    count,
    ends,
    field,
    is_number,
    number,
    percent,
    seconds,
)
from rightbatch.reporting.sheet import Column, Sheet

Record = Mapping[str, Any]


def comparison_sheet(comparisons: Sequence[Record]) -> Sheet:
    """Return how batch sizes compare: one row per number of replicas and batch size.

    Args:
        comparisons: `comparisons` of a plan's document.

    Returns:
        A sheet that fits 80 columns.

    Example:
        >>> one = {"num_replicas": 1, "batch_size": 64, "than": 128}
        >>> comparison_sheet([one]).rows[0][:3]
        ('1', '64', '128')
    """
    level = percent(
        next(
            (
                found
                for one in comparisons
                if (found := field(one, "regret", "level")) is not None
            ),
            0.9,
        )
    )
    columns = (
        Column("replicas", "P"),
        Column("batch"),
        Column("recommended", "recom-\nmended"),
        Column("steps"),
        Column("time to target", "time"),
        Column("time lost against the best batch", "time\nlost"),
        Column(level + " interval of the loss", level + "\ninterval"),
        Column("probability that it beats the recommended one", "beats\nit"),
        Column("probability that it is within 5 % of the best", "within\n5 %"),
    )
    return Sheet(
        caption="Compared with the recommended batch size",
        columns=columns,
        rows=tuple(_row(one) for one in comparisons),
    )


def _chance(share: Any) -> str:
    # Two digits, as elsewhere, would make 1e+02 % of a certainty.
    return f"{100 * share:.0f} %" if is_number(share) else percent(None)


def _row(one: Record) -> tuple[str, ...]:
    return (
        count(field(one, "num_replicas")),
        count(field(one, "batch_size")),
        count(field(one, "than")),
        number(field(one, "steps")),
        seconds(field(one, "seconds")),
        percent(field(one, "regret", "value")),
        ends(field(one, "regret"), percent),
        _chance(field(one, "probability_faster", "value")),
        _chance(field(one, "probability_within_5_percent", "value")),
    )
