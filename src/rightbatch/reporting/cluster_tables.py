"""The tables of a cluster's result, as sheets."""

from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import (
    count,
    ends,
    entries,
    estimate,
    field,
    is_number,
    label,
    number,
    percent,
    seconds,
)
from rightbatch.reporting.sheet import Column, Sheet

Record = Mapping[str, Any]


def cluster_sheets(document: Record) -> list[Sheet]:
    """Return the tables of a document, in reading order.

    Args:
        document: What `cluster` prints with `--json`.

    Returns:
        The mix, what more would gain, the jobs, and the front.

    Example:
        >>> best = {"amounts": {"replicas": 4.0}, "price": 8.0, "money": 8.0}
        >>> [sheet.caption for sheet in cluster_sheets({"best": best})]
        ['The best mix']
    """
    sheets = [
        mix_sheet(document),
        changes_sheet(document),
        shares_sheet(document),
        pareto_sheet(document),
    ]
    return [sheet for sheet in sheets if sheet.rows]


def currency_of(document: Record, *, hourly: bool = False) -> str:
    """Return the name of the money, per hour where prices are.

    Example:
        >>> currency_of({"inputs": {"currency": "EUR", "prices": "per hour"}})
        'EUR'
    """
    name = label(field(document, "inputs", "currency") or "money")
    renting = field(document, "inputs", "prices") == "per hour"
    return f"{name}/h" if hourly and renting else name


def mix_sheet(document: Record) -> Sheet:
    """Return the best mix: one row per component, with what more of it gains."""
    money = currency_of(document, hourly=True)
    best = field(document, "best") or {}
    gains = {
        field(each, "component"): each
        for each in entries(document, "marginal", "components")
    }
    rows = [
        (
            label(name),
            number(amount),
            number(field(best, "prices", name)),
            number(field(gains.get(name), "gain")),
            _where(gains.get(name)),
        )
        for name, amount in (field(best, "amounts") or {}).items()
    ]
    notes = ("gain: time saved by more of it, the batch re-chosen",)
    return Sheet(
        caption="The best mix",
        columns=(
            Column("component", align="left"),
            Column("amount"),
            Column(f"price, {money}", f"price,\n{money}"),
            Column(f"seconds saved per {money}", f"gain,\ns per {money}"),
            Column("at", align="left"),
        ),
        rows=tuple(rows),
        notes=notes if gains else (),
    )


def _where(gain: Any) -> str:
    at = field(gain, "at")
    if at != "step":
        words = {"interior": "any amount", "low": "the least", "high": "the most"}
        return words.get(str(at), "–")
    if field(gain, "next_amount") is None:
        return "the largest sold"
    return f"next: {number(field(gain, 'next_amount'))}"


def changes_sheet(document: Record) -> Sheet:
    """Return what one more replica and twice the bandwidth would be worth."""
    money = currency_of(document, hourly=True)
    rows = tuple(
        (
            label(field(each, "what")),
            seconds(field(each, "seconds_saved")),
            number(field(each, "worth")),
            number(field(each, "price")),
        )
        for each in entries(document, "marginal", "changes")
    )
    return Sheet(
        caption="Changes beyond the mix",
        columns=(
            Column("change", align="left"),
            Column("time saved"),
            Column(f"worth, {money}", f"worth,\n{money}"),
            Column(f"price, {money}", f"price,\n{money}"),
        ),
        rows=rows,
    )


def shares_sheet(document: Record) -> Sheet:
    """Return the jobs: replicas, batch and time of each."""
    shares = entries(document, "best", "jobs")
    laws = {field(each, "name"): each for each in entries(document, "jobs")}
    rows = tuple(
        (
            label(field(share, "name")),
            count(field(share, "num_replicas")),
            count(field(share, "batch_size")),
            _shape(share),
            number(field(share, "steps")),
            seconds(field(share, "seconds")),
            ends(field(share, "seconds_interval"), seconds),
            label(field(laws.get(field(share, "name")), "status")),
            _phi(laws.get(field(share, "name"))),
        )
        for share in shares
    )
    level = next(
        (
            percent(found)
            for share in shares
            if is_number(found := field(share, "seconds_interval", "level"))
        ),
        "90 %",
    )
    return Sheet(
        caption="What each job gets",
        columns=(
            Column("job", align="left"),
            Column("replicas", "P"),
            Column("batch size", "batch\nsize"),
            Column("micro × accumulation × replicas", "micro\n×acc×P"),
            Column("steps"),
            Column("time to target", "time"),
            Column(f"{level} interval of the time", f"{level}\ntime"),
            Column("law of steps", align="left", wide=True),
            Column("critical batch size", "critical\nbatch size", wide=True),
        ),
        rows=rows,
    )


def _shape(share: Record) -> str:
    parts = ("micro_batch_size", "accumulation_steps", "num_replicas")
    return "×".join(count(field(share, part)) for part in parts)


def _phi(law: Any) -> str:
    phi = field(law, "critical_batch_size")
    if field(law, "status") == "given":
        return number(field(phi, "value"))
    return estimate(phi)


def pareto_sheet(document: Record) -> Sheet:
    """Return the front of time against money: one row per mix."""
    mixes: Sequence[Record] = entries(document, "pareto")
    best = field(document, "best")
    names = list(field(best, "amounts") or {})
    money = currency_of(document)
    rows = tuple(
        (
            ("* " if _is_best(mix, best) else "") + number(field(mix, "money")),
            seconds(field(mix, "seconds")),
            *(number(field(mix, "amounts", name)) for name in names),
            ", ".join(count(each) for each in _batches(mix)),
        )
        for mix in mixes
    )
    return Sheet(
        caption="Time against money: none is both sooner and cheaper",
        columns=(
            Column(f"money, {money}", f"money,\n{money}"),
            Column("time"),
            *(Column(label(name)) for name in names),
            Column("batch size", "batch\nsize", wide=len(names) > 3),
        ),
        rows=rows,
        notes=("* the best mix",) if any("*" in row[0] for row in rows) else (),
    )


def _batches(mix: Record) -> list[Any]:
    return list((field(mix, "batch_sizes") or {}).values())


def _is_best(mix: Record, best: Any) -> bool:
    return all(field(mix, key) == field(best, key) for key in ("money", "seconds"))
