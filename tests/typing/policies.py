"""What the strict type checker must conclude of policies; never executed."""

from dataclasses import dataclass
from typing import Any, assert_type

from rightbatch.policies import Constant, Decision, Observation, Policy, ask


@dataclass(frozen=True)
class Remembers:
    """A user's policy: its state has a type of its own, its needs are a field."""

    needs: frozenset[str] = frozenset({"eval_loss"})

    def init(self) -> float | None:
        return None

    def update(
        self, state: float | None, seen: Observation
    ) -> tuple[Decision, float | None]:
        return Decision(8), seen.eval_loss


start = Observation(step=0, examples=0, batch_size=0)
decision, state = ask(Remembers(), None, start)
assert_type(decision, Decision)
assert_type(state, float | None)

policies: list[Policy[Any]] = [Remembers(), Constant(batch_size=8)]
constant: Policy[None] = Constant(batch_size=8)
