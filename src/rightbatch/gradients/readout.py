"""From squared norms of one update's units to both moments, over all replicas."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rightbatch.errors import InputError
from rightbatch.gradients.ledger import Table
from rightbatch.gradients.replicas import Replicas
from rightbatch.noise_scale import UnitSums

# Replicas hold the same sum, but each adds its squares up in an order of its own.
_SAME = 1e-5


class Unit(NamedTuple):
    """What one unit is besides its gradient.

    Args:
        examples: How many examples it holds.
        weight: Of its mean gradient in the update, up to a common factor; None for its
            share of its own replica's examples.
        known: Examples whose own norms were read; None for a unit read as a whole.
    """

    examples: float
    weight: float | None = None
    known: float | None = None

    def with_known(self, known: float) -> "Unit":
        """Return the unit as one whose examples were read."""
        return Unit(self.examples, self.weight, known)


@dataclass(frozen=True, slots=True)
class Update:
    """What was read of one update on one replica.

    Args:
        units: Its units.
        table: Squared norms, over each part of the parameters: a row per unit of what
            it added, or of its examples that were read, summed; then one of the
            gradient all of them added up to.
        problem: What went wrong, a sentence; "" for nothing.
        is_spoiled: Whether it has to be left out of the averages.
        left_out: Columns that were not read.
    """

    units: Sequence[Unit]
    table: Table
    problem: str = ""
    is_spoiled: bool = False
    left_out: Sequence[int] = ()

    @property
    def num_units(self) -> float:
        """Units on this replica; each example whose norm was read is one."""
        return sum(1 if u.known is None else u.examples for u in self.units)


@dataclass(frozen=True, slots=True)
class PartSums:
    """The sums over the units of all replicas, for one part of the parameters.

    Args:
        sums: Over units.
        total: Squared norm of the part's gradient.
    """

    sums: UnitSums
    total: float


def read_update(
    update: Update, replicas: Replicas, examples: float = 0.0
) -> tuple[list[PartSums], float]:
    """Return the sums of every part over all replicas, in one exchange.

    Args:
        update: What this replica read; the whole is the first part.
        replicas: Who shares the gradient.
        examples: That this replica trained on since the last update that was read.

    Returns:
        Sums per part, and all replicas' examples; the same on every replica.

    Raises:
        InputError: Something went wrong, here or on another replica; all raise.
    """
    *rows, totals = update.table.numbers()
    shares = _weights(update.units)
    norms = [0.0] * len(totals)
    for row, factor in zip(rows, _factors(update, shares), strict=True):
        norms = [a + factor * b for a, b in zip(norms, row, strict=True)]
    whole = _base(update.units, shares)
    if replicas.num == 1:  # checked when it was taken
        pairs = zip(totals, norms, strict=True)
        return [PartSums(_with_norms(whole, n), t) for t, n in pairs], examples
    head, base = _head(update, totals[0]), whole.to_vector()
    mine = iter([*head, examples, *base, *totals, *norms])
    summed = iter(replicas.sum(list(mine)))

    def take(count: int) -> list[float]:
        return [next(summed) for _ in range(count)]

    _check(update, take(len(head)), replicas)
    (elapsed,) = take(1)
    whole = UnitSums.from_vector(take(len(base)))
    # DDP and FSDP2 divide what replicas contribute by their number.
    share = 1 / replicas.num**2
    once = 1.0 if replicas.sharded else 1 / replicas.num
    pairs = zip(take(len(totals)), take(len(norms)), strict=True)
    found = [
        PartSums(_with_norms(whole, norm * share), total * once)
        for total, norm in pairs
    ]
    return found, elapsed


def check_alone(update: Update) -> None:
    """Refuse an update of this process alone, before its numbers are read.

    Args:
        update: What it read.

    Raises:
        InputError: Something went wrong.
    """
    if update.problem:
        message, _, way_out = update.problem.partition(" | ")
        raise InputError(message, way_out)
    if any(unit.weight is not None for unit in update.units):
        base = _base(update.units, _weights(update.units))
        # Of no use, it would spoil the updates read with it: found out now.
        _with_norms(base, 1.0).moments(0.0)


def _head(update: Update, total: float) -> list[float]:
    """Return what replicas tell each other to find out whether they agree."""
    told = any(unit.weight is not None for unit in update.units)
    # Not finite, it would hide what the others say.
    total = total if math.isfinite(total) else 0.0
    count = len(update.units)
    missing = float(sum((column + 1) ** 2 for column in update.left_out))
    problem = float(bool(update.problem))
    return [problem, told, count, count**2, total, total**2, missing, missing**2]


def _weights(units: Sequence[Unit]) -> list[float]:
    """Return the weight of each unit: as told, or its share of this replica's."""
    mine = sum(unit.examples for unit in units)
    return [u.examples / mine if u.weight is None else u.weight for u in units]


def _factors(update: Update, shares: Sequence[float]) -> list[float]:
    """Return what makes a unit's squared norms its part of ``UnitSums.norms``."""
    if update.is_spoiled:
        return [math.nan for _ in shares]
    # Examples that were read have an equal weight each, and stand for all of them.
    return [
        (1.0 if unit.known is None else unit.examples**2 / unit.known) / share
        for unit, share in zip(update.units, shares, strict=True)
    ]


def _base(units: Sequence[Unit], shares: Sequence[float]) -> UnitSums:
    """Return the sums over units, their norms left out."""
    count, inverse, square = 0.0, 0.0, 0.0
    for unit, share in zip(units, shares, strict=True):
        inner = 1.0 if unit.known is None else unit.examples
        count += inner
        inverse += share * inner / unit.examples
        square += share**2 / unit.examples
    return UnitSums(
        num_units=round(count),
        examples=sum(unit.examples for unit in units),
        weight=sum(shares),
        norms=0.0,
        inverse=inverse,
        square=square,
    )


def _with_norms(sums: UnitSums, norms: float) -> UnitSums:
    return UnitSums(
        num_units=sums.num_units,
        examples=sums.examples,
        weight=sums.weight,
        norms=norms,
        inverse=sums.inverse,
        square=sums.square,
    )


def _check(update: Update, summed: Sequence[float], replicas: Replicas) -> None:
    who = "NoiseMeter.update"
    problems, told, count, squared, total, total_squared, missing, missed = summed
    check_alone(update)
    if problems:
        raise InputError(
            f"{who}: another replica could not read its gradients.",
            "its own error says why",
        )
    if told and round(told) != replicas.num:
        raise InputError(
            f"{who}: `weight` must be given on every replica or on none, got it on "
            f"{round(told)} of {replicas.num}."
        )
    if not told and _differ(count, squared, replicas.num):
        raise InputError(
            f"{who}: replicas have a different number of units, "
            f"{len(update.units)} here and {count / replicas.num:g} on average.",
            "give every replica as many units, or each unit's `weight` in the update",
        )
    if _differ(missing, missed, replicas.num):
        raise InputError(
            f"{who}: replicas can read the gradients of different parameters.",
            "read units instead: source='units'",
        )
    if not replicas.sharded and _differ(total, total_squared, replicas.num):
        raise InputError(
            f"{who}: replicas hold different gradients.",
            "the last backward of an update must sum them: leave `no_sync` for it",
        )


def _differ(total: float, squared: float, count: int) -> bool:
    """Return whether numbers with that sum and that sum of squares are not all one."""
    return count * squared - total**2 > _SAME * total**2
