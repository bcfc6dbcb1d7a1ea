"""From squared norms of one update's units to both moments, over all replicas."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rightbatch.errors import InputError
from rightbatch.gradients.ledger import Table
from rightbatch.gradients.replicas import Replicas
from rightbatch.noise_scale import UnitSums

# Replicas hold the same sum, but each adds its squares up in an order of its own.
_SAME = 1e-5


@dataclass(frozen=True, slots=True)
class Unit:
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
    """

    units: Sequence[Unit]
    table: Table
    problem: str = ""
    is_spoiled: bool = False

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


def read_update(update: Update, replicas: Replicas) -> list[PartSums]:
    """Return the sums of every part over all replicas, in one exchange.

    Args:
        update: What this replica read; the whole is the first part.
        replicas: Who shares the gradient.

    Returns:
        Sums per part, the same on every replica.

    Raises:
        InputError: Something went wrong, here or on another replica; all raise.
    """
    *rows, totals = update.table.numbers()
    shares = _weights(update.units)
    norms = [0.0] * len(totals)
    for row, factor in zip(rows, _factors(update, shares), strict=True):
        norms = [
            norm + factor * square for norm, square in zip(norms, row, strict=True)
        ]
    head = [*_head(update, totals[0]), *_sums(update.units, shares)]
    summed = replicas.sum([*head, *totals, *norms])
    _check(update, summed, replicas)
    return _parts_of(summed[len(head) - 5 :], replicas)


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


def _head(update: Update, total: float) -> list[float]:
    """Return what replicas tell each other to find out whether they agree."""
    told = any(unit.weight is not None for unit in update.units)
    # Not finite, it would hide what the others say.
    total = total if math.isfinite(total) else 0.0
    count = len(update.units)
    problem = float(bool(update.problem))
    return [problem, float(told), count, count**2, total, total**2]


def _parts_of(summed: Sequence[float], replicas: Replicas) -> list[PartSums]:
    units, examples, weight, inverse, square = summed[:5]
    count = (len(summed) - 5) // 2
    totals, norms = summed[5 : 5 + count], summed[5 + count :]
    # DDP and FSDP2 divide what replicas contribute by their number.
    share = 1 / replicas.num**2
    return [
        PartSums(
            UnitSums(
                num_units=round(units),
                examples=examples,
                weight=weight,
                norms=norm * share,
                inverse=inverse,
                square=square,
            ),
            total if replicas.sharded else total / replicas.num,
        )
        for total, norm in zip(totals, norms, strict=True)
    ]


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


def _sums(units: Sequence[Unit], shares: Sequence[float]) -> list[float]:
    """Return units, examples, weight, inverse and square as ``UnitSums`` has them."""
    count = examples = weight = inverse = square = 0.0
    for unit, share in zip(units, shares, strict=True):
        size = unit.examples
        inner = 1.0 if unit.known is None else size
        count += inner
        examples += size
        weight += share
        inverse += share * inner / size
        square += share**2 / size
    return [count, examples, weight, inverse, square]


def _check(update: Update, summed: Sequence[float], replicas: Replicas) -> None:
    who = "NoiseMeter.update"
    problems, told, count, squared, total, total_squared = summed[:6]
    check_alone(update)
    if problems:
        raise InputError(f"{who}: another replica could not read its gradients.")
    if replicas.num == 1:
        return
    if not told and round(replicas.num * squared) != round(count**2):
        raise InputError(
            f"{who}: replicas have a different number of units, "
            f"{len(update.units)} here and {count / replicas.num:g} on average.",
            "give every replica as many units, or each unit's `weight` in the update",
        )
    if told and round(told) != replicas.num:
        raise InputError(
            f"{who}: `weight` must be given on every replica or on none, got it on "
            f"{round(told)} of {replicas.num}."
        )
    if replicas.sharded:
        return
    if replicas.num * total_squared - total**2 > _SAME * total**2:
        raise InputError(
            f"{who}: replicas hold different gradients.",
            "the last backward of an update must sum them: leave `no_sync` for it",
        )
