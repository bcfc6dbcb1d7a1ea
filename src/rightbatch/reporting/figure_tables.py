"""The numbers that figures show, as sheets: one for each figure, curves thinned."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import (
    count,
    ends,
    entries,
    field,
    is_number,
    label,
    number,
    percent,
    seconds,
    span,
    times,
    whole,
)
from rightbatch.reporting.sheet import Column, Sheet
from rightbatch.reporting.tables import fit_name

Record = Mapping[str, Any]
MOST_ROWS = 16  # of one curve


def curve_rows(curve: Any, key: str) -> list[tuple[float, float, Any, Any]]:
    """Return a curve thinned to a few rows: batch size, value, low and high.

    Args:
        curve: `batch_size`, the values, and perhaps `low` and `high`.
        key: Of the values.

    Returns:
        Rows, the first and the last point among them.

    Example:
        >>> curve = {"batch_size": [1, 2], "seconds": [0.1, 0.2]}
        >>> curve_rows(curve, "seconds")
        [(1, 0.1, None, None), (2, 0.2, None, None)]
    """
    sizes, values = field(curve, "batch_size") or [], field(curve, key) or []
    none = [None] * len(values)
    columns = (sizes, values, field(curve, "low") or none, field(curve, "high") or none)
    rows = list(zip(*columns, strict=True))
    if len(rows) <= MOST_ROWS:
        return rows
    last = len(rows) - 1
    places = {round(i * last / (MOST_ROWS - 1)) for i in range(MOST_ROWS)}
    return [rows[place] for place in sorted(places)]


def time_to_target_numbers(series: Sequence[Record]) -> Sheet:
    """Return seconds to the target at batch sizes, for each number of replicas."""
    rows = [
        (
            count(field(one, "num_replicas")),
            number(size),
            seconds(value),
            span(low, high, seconds) if is_number(low) else "",
        )
        for one in series
        for size, value, low, high in curve_rows(field(one, "curve"), "seconds")
    ]
    heads = ("replicas", "batch size", "time to the target", "interval")
    return _sheet("Time to the target, as the laws have it", heads, rows)


def steps_numbers(fits: Sequence[Record]) -> Sheet:
    """Return the fitted steps at batch sizes, for each fit."""
    rows = [
        (fit_name(fit), number(size), number(value), span(low, high))
        for fit in fits
        for size, value, low, high in curve_rows(field(fit, "curve"), "steps")
    ]
    heads = ("fit", "batch size", "steps", "interval")
    return _sheet("Steps to the target, as the law has them", heads, rows)


def trade_numbers(fit: Record, unit: str) -> Sheet:
    """Return steps and examples at the batch sizes that were run."""
    fewest = field(fit, "min_steps", "value"), field(fit, "min_examples", "value")
    rows: list[tuple[str, ...]] = []
    for point in entries(fit, "points"):
        size, steps = point["batch_size"], point["mean_steps"]
        pair = ((steps, fewest[0]), (size * steps, fewest[1]))
        ratios = [
            times(value / least) if is_number(least) and least > 0 else number(None)
            for value, least in pair
        ]
        rows.append((count(size), number(steps), number(size * steps), *ratios))
    heads = (
        "batch size",
        "steps",
        unit,
        "of the fewest steps",
        f"of the fewest {unit}",
    )
    return _sheet("Steps and examples to the target, measured", heads, rows)


def step_time_numbers(curve: Any) -> Sheet:
    """Return the fitted seconds per step at batch sizes."""
    rows = [
        (number(size), seconds(value))
        for size, value, _, _ in curve_rows(curve, "seconds")
    ]
    heads = ("batch size", "time of a step")
    return _sheet("Seconds per step, as the law has them", heads, rows)


def scaling_numbers(scaling: Any) -> Sheet:
    """Return speed-ups on each number of replicas, a column per scaling."""
    replicas = field(scaling, "replicas") or []
    kinds = ("optimal", "strong", "weak")
    columns = [field(scaling, kind, "speedup") or [] for kind in kinds]
    rows = [
        (
            count(each),
            *(times(c[i]) if i < len(c) else number(None) for c in columns),
        )
        for i, each in enumerate(replicas)
    ]
    return _sheet("Speed-up against one replica", ("replicas", *kinds), rows)


def best_batch_numbers(plan: Sequence[Record]) -> Sheet:
    """Return the best batch with its ranges on each number of replicas."""
    rows = [
        (
            count(field(entry, "num_replicas")),
            count(field(entry, "batch_size")),
            ends(field(entry, "batch_size_interval"), whole),
            span(*(field(entry, "within_5_percent") or (None, None)), text=count),
        )
        for entry in plan
    ]
    heads = ("replicas", "best batch", "interval", "within 5 %")
    return _sheet("The best batch size", heads, rows)


def regret_numbers(series: Sequence[Record]) -> Sheet:
    """Return the time lost at batch sizes, for each number of replicas."""
    rows = [
        (
            count(field(one, "num_replicas")),
            count(size),
            percent(value),
            span(low, high, percent),
        )
        for one in series
        for size, value, low, high in curve_rows(field(one, "regret_curve"), "value")
    ]
    heads = ("replicas", "batch size", "time lost", "interval")
    return _sheet("Time lost against the best batch", heads, rows)


def targets_numbers(fits: Sequence[Record]) -> Sheet:
    """Return the fewest steps and examples of each target."""
    rows = [
        (
            label(field(fit, "target")),
            number(field(fit, "min_steps", "value")),
            ends(field(fit, "min_steps")),
            number(field(fit, "min_examples", "value")),
            ends(field(fit, "min_examples")),
        )
        for fit in fits
    ]
    heads = ("target", "fewest steps", "interval", "fewest examples", "interval")
    return _sheet("Limits of the law at each target", heads, rows)


def lr_numbers(fits: Sequence[Record]) -> Sheet:
    """Return the best learning rate at each batch size, for each fit."""
    rows = [
        (
            fit_name(fit),
            count(entry["batch_size"]),
            number(entry["lr"]),
            label(bool(field(entry, "at_edge"))),
        )
        for fit in fits
        for entry in entries(fit, "lrs")
    ]
    heads = ("fit", "batch size", "best lr", "at the edge of those tried")
    return _sheet("The best learning rate", heads, rows)


def _sheet(
    caption: str, heads: Iterable[str], rows: Sequence[tuple[str, ...]]
) -> Sheet:
    columns = tuple(Column(head) for head in heads)
    return Sheet(caption=caption, columns=columns, rows=tuple(rows))
