"""One policy until a point of the run, then another."""

from dataclasses import dataclass
from typing import Any

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.policies.contract import (
    Decision,
    Observation,
    Policy,
    check_policy,
    needs_now,
)
from rightbatch.policies.schedules import UNITS, Unit, fields_of, position


@dataclass(frozen=True, slots=True, kw_only=True)
class InTurn:
    """Policies one after the other, each with a fresh memory when its turn comes.

    Where it is not known how far the run is, the turn stays.

    Args:
        policies: Two or more.
        until: Where each but the last ends, increasing.
        unit: What `until` counts: ``step``, ``epoch``, ``example`` or ``token``.

    Raises:
        InputError: There are fewer than two policies, not one end less than policies,
            or ends are out of order.

    Example:
        >>> from rightbatch.policies import AdaDamp, Constant
        >>> policy = InTurn(
        ...     policies=(Constant(batch_size=8), AdaDamp(initial_batch_size=8)),
        ...     until=(1000,),
        ...     unit="step",
        ... )
        >>> start = Observation(step=0, examples=0, batch_size=0)
        >>> sorted(policy.needs), sorted(policy.needs_now(policy.init(), start))
        (['eval_loss'], [])
    """

    policies: tuple[Policy[Any], ...]
    until: tuple[float, ...]
    unit: Unit

    def __post_init__(self) -> None:
        who = "InTurn"
        object.__setattr__(self, "policies", tuple(self.policies))
        object.__setattr__(self, "until", tuple(self.until))
        for policy in self.policies:
            check_policy(who, policy)
        _checks.one_of(who, "unit", self.unit, UNITS)
        if len(self.policies) < 2 or len(self.until) != len(self.policies) - 1:
            raise InputError(
                f"{who}: `until` must be one less than `policies`, of which there are "
                f"two or more, got {len(self.until)} and {len(self.policies)}."
            )
        _checks.positive_array(who, "until", self.until)
        for before, after in zip(self.until, self.until[1:], strict=False):
            if after <= before:
                raise InputError(
                    f"{who}: `until` must be in order, got {before:g} then {after:g}."
                )

    @property
    def needs(self) -> frozenset[str]:
        """What any of them needs, and what tells whose turn it is."""
        return fields_of(self.unit).union(*(one.needs for one in self.policies))

    def needs_now(self, state: tuple[int, Any], seen: Observation) -> frozenset[str]:
        """Return what the policy whose turn it is will look at now."""
        turn, inner = self._turn(state, seen)
        return fields_of(self.unit) | needs_now(self.policies[turn], inner, seen)

    def init(self) -> tuple[int, Any]:
        """Return the first turn, and the memory of its policy."""
        return 0, self.policies[0].init()

    def update(
        self, state: tuple[int, Any], seen: Observation
    ) -> tuple[Decision, tuple[int, Any]]:
        """Return what the policy whose turn it is decides, and whose it is."""
        turn, inner = self._turn(state, seen)
        decision, inner = self.policies[turn].update(inner, seen)
        return decision, (turn, inner)

    def _turn(self, state: tuple[int, Any], seen: Observation) -> tuple[int, Any]:
        turn, inner = state
        place = position(seen, self.unit)
        now = turn
        while place is not None and now < len(self.until) and place >= self.until[now]:
            now += 1
        return (turn, inner) if now == turn else (now, self.policies[now].init())
