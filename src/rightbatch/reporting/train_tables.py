"""The tables of training under batch-size policies, as sheets."""

from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import (
    MISSING,
    count,
    ends,
    entries,
    field,
    is_number,
    label,
    number,
    replicas_text,
    seconds,
    times,
    whole,
)
from rightbatch.reporting.sheet import Column, Sheet

Record = Mapping[str, Any]
MOST_POINTS = 9


def train_sheets(document: Record) -> list[Sheet]:
    """Return the tables of a document of training runs, in reading order.

    Args:
        document: What `train` prints with `--json`.

    Returns:
        How policies compare, the runs, and the course of the first one.

    Example:
        >>> train_sheets({"trained": []})
        []
    """
    sheets = [
        payoff_sheet(entries(document, "comparison")),
        trained_sheet(entries(document, "trained")),
        course_sheet(entries(document, "course"), field(document, "summary", "policy")),
    ]
    return [sheet for sheet in sheets if sheet.rows]


def trained_sheet(trained: Sequence[Record]) -> Sheet:
    """Return the runs: what each took in all, and where it ended.

    Args:
        trained: Of a document.

    Returns:
        A sheet that fits 80 columns with times at two numbers of replicas.
    """
    replicas = _replicas(entries(trained[0], "prices") if trained else [])
    paid = any(is_number(p.get("cost")) for t in trained for p in entries(t, "prices"))
    columns = [
        Column("policy", align="left"),
        Column("seed"),
        Column("updates"),
        Column("examples"),
        Column("final loss", "final\nloss"),
        Column("lowest loss", "lowest\nloss", wide=True),
        Column("measured time", "time", wide=bool(replicas)),
        *(Column(f"time at P = {p}", f"P = {p}") for p in replicas),
        *(Column(f"cost at P = {p}", wide=True) for p in (replicas if paid else ())),
    ]
    rows = [
        (
            label(one["policy"]),
            count(one["seed"]),
            count(one["steps"]),
            count(one["examples"]),
            _loss_text(one),
            number(one["best_loss"]),
            seconds(one["seconds"]),
            *(seconds(_priced(one, p, "seconds")) for p in replicas),
            *(number(_priced(one, p, "cost")) for p in (replicas if paid else ())),
        )
        for one in trained
    ]
    notes = ["time: as it passed here, evaluations left out."]
    if replicas:
        notes.append(
            "P = ..: the law of step times summed over the batches, one pass each."
        )
    return Sheet(
        caption="Runs",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _loss_text(one: Record) -> str:
    if field(one, "status") == "diverged":
        return "diverged"
    return number(one["loss"]) + (" *" if one["status"] == "interrupted" else "")


def payoff_sheet(comparison: Sequence[Record]) -> Sheet:
    """Return what policies took to a loss, as multiples of what the baseline took.

    Args:
        comparison: Of a document.

    Returns:
        A row per policy; empty without a baseline.
    """
    replicas = _replicas(entries(comparison[0], "seconds") if comparison else [])
    several = any(one["num_seeds"] > 1 for one in comparison)
    columns = [
        Column("policy", align="left"),
        Column("at the loss", "at\nloss"),
        Column("updates to it", wide=True),
        Column("updates, of the baseline's", "updates"),
        Column("examples, of the baseline's", "exam-\nples"),
        *(Column(f"time at P = {p}, of the baseline's", f"P = {p}") for p in replicas),
        *(Column(f"range at P = {p}", wide=True) for p in replicas if several),
        *(Column(f"pays at P = {p}", f"pays\nP = {p}") for p in replicas),
    ]
    rows = [
        (
            label(one["policy"]),
            number(one["loss"]),
            whole(field(one, "taken", "steps")),
            times(field(one["steps"], "value")),
            times(field(one["examples"], "value")),
            *(times(field(_of(one, p), "value")) for p in replicas),
            *(ends(_of(one, p)) for p in replicas if several),
            *(verdict_text(field(_of(one, p), "pays")) for p in replicas),
        )
        for one in comparison
    ]
    notes: tuple[str, ...] = ()
    if comparison:
        seeds = max(one["num_seeds"] for one in comparison)
        against = label(comparison[0]["against"])
        notes = (f"All but the loss: as multiples of what {against} took.",)
        if any(p["pays"] == "not_reached" for c in comparison for p in c["seconds"]):
            notes += ("missed: the target, which the other reaches on these examples.",)
        if seeds > 1:
            notes += (f"Medians of {count(seeds)} seeds.",)
    return Sheet(
        caption="To a loss that both reached, beside the baseline",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=notes,
    )


def spread_text(spread: Any) -> str:
    """Return a ratio, and its range over the seeds where there is one.

    Example:
        >>> spread_text({"value": 0.5, "low": 0.4, "high": 0.7})
        '0.5× (0.4–0.7)'
        >>> spread_text({"value": 0.5, "low": 0.5, "high": 0.5})
        '0.5×'
    """
    value = field(spread, "value")
    low, high = field(spread, "low"), field(spread, "high")
    if not is_number(value) or low == high:
        return times(value)
    return f"{times(value)} ({number(low)}–{number(high)})"


def verdict_text(verdict: Any) -> str:
    """Return a verdict as a word.

    Example:
        >>> verdict_text("not_reached"), verdict_text("yes")
        ('missed', 'yes')
    """
    if verdict is None:
        return MISSING
    return "missed" if verdict == "not_reached" else label(verdict)


def course_sheet(course: Sequence[Record], policy: Any) -> Sheet:
    """Return a run at a few moments: batch, learning rate, loss, noise scale.

    Args:
        course: Of a document, a row per moment.
        policy: Its name.

    Returns:
        The sheet.
    """
    columns = (
        Column("examples"),
        Column("updates"),
        Column("batch size", "batch\nsize"),
        Column("forward passes, the largest", "passes"),
        Column("lr"),
        Column("loss evaluated", "loss"),
        Column("noise scale", "noise\nscale"),
        Column("why that batch", "why", "left", wide=True),
    )
    rows = [
        (
            count(one["examples"]),
            count(one["step"]),
            count(one["batch_size"]),
            _passes(one),
            number(one["lr"]),
            number(field(one, "loss")),
            number(field(one, "noise_scale")),
            label(field(one, "reason") or ""),
        )
        for one in course
    ]
    return Sheet(
        caption=f"The course of {label(policy)}", columns=columns, rows=tuple(rows)
    )


def _passes(row: Record) -> str:
    micro, steps = field(row, "micro_batch_size"), field(row, "accumulation_steps")
    return f"{count(steps)}, ≤{count(micro)}" if is_number(micro) else MISSING


def priced_on(document: Record) -> str:
    """Return the numbers of replicas of a document in words.

    Example:
        >>> priced_on({"trained": [{"prices": [{"num_replicas": 8}]}]})
        '8 replicas'
    """
    trained = entries(document, "trained")
    found = _replicas(entries(trained[0], "prices") if trained else [])
    return " and ".join(replicas_text(p) for p in found)


def _replicas(priced: Sequence[Record]) -> list[int]:
    return [one["num_replicas"] for one in priced]


def _priced(run: Record, replicas: int, key: str) -> Any:
    for one in entries(run, "prices"):
        if one["num_replicas"] == replicas:
            return one[key]
    return None


def _of(comparison: Record, replicas: int) -> Record | None:
    for one in entries(comparison, "seconds"):
        if one["num_replicas"] == replicas:
            return one
    return None
