"""What is done to a policy's wish: clip, round, spill into the rate, never shrink.

A policy answers a real wish; these turn it into what can be served. Each is a policy
again, so that they nest: ``RoundTo(Clip(policy, high=512), multiple=32)`` clips first.
They ask the policy inside at every call, and look at nothing themselves.
"""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.policies.contract import (
    UNBOUNDED,
    Decision,
    Observation,
    Policy,
    check_policy,
    check_positive,
)
from rightbatch.policies.inside import (
    init_inside,
    init_inside_first,
    looks_inside,
    looks_inside_first,
    needs_inside,
)


@dataclass(frozen=True, slots=True)
class Clip:
    """A policy whose batch sizes stay between two ends.

    Args:
        policy: Who is asked.
        low: Least batch size, in examples; None for no such.
        high: Largest; None for no such.

    Raises:
        InputError: An end is not positive, or low is above high.

    Example:
        >>> from rightbatch.policies import Constant
        >>> seen = Observation(step=0, examples=0, batch_size=0)
        >>> Clip(Constant(batch_size=1000), high=512).update(None, seen)[0]
        Decision(batch_size=512, lr_factor=1.0, reason='constant, at most 512')
    """

    policy: Policy[Any]
    _: KW_ONLY
    low: float | None = None
    high: float | None = None

    needs = needs_inside
    needs_now = looks_inside
    init = init_inside

    def __post_init__(self) -> None:
        check_policy("Clip", self.policy)
        for name, value in (("low", self.low), ("high", self.high)):
            if value is not None:
                check_positive(self, name)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise InputError(
                f"Clip: `low` must be <= `high`, got {self.low:g} and {self.high:g}."
            )

    def update(self, state: Any, seen: Observation) -> tuple[Decision, Any]:
        """Return the wish, clipped."""
        decision, state = self.policy.update(state, seen)
        size, factor, reason = decision
        if self.high is not None and size > self.high:
            decision = Decision(self.high, factor, f"{reason}, at most {self.high:g}")
        elif self.low is not None and size < self.low:
            decision = Decision(self.low, factor, f"{reason}, at least {self.low:g}")
        return decision, state


@dataclass(frozen=True, slots=True)
class RoundTo:
    """A policy whose batch sizes are whole numbers that can be served.

    Args:
        policy: Who is asked.
        multiple: Of what the batch is a multiple, and its least size: the micro-batch
            times the replicas.
        powers_of_two: Only multiples by 1, 2, 4, 8, ...
        how: ``nearest``, ``up`` or ``down``. The nearest power is that of the smaller
            ratio.

    Raises:
        InputError: `multiple` is no whole number of at least one, or a word is unknown.

    Example:
        >>> from rightbatch.policies import Constant
        >>> seen = Observation(step=0, examples=0, batch_size=0)
        >>> policy = Constant(batch_size=100)
        >>> for how in ("nearest", "up", "down"):
        ...     rounded = RoundTo(policy, multiple=32, how=how)
        ...     print(how, rounded.update(None, seen)[0].batch_size)
        nearest 96
        up 128
        down 96
    """

    policy: Policy[Any]
    _: KW_ONLY
    multiple: int = 1
    powers_of_two: bool = False
    how: Literal["nearest", "up", "down"] = "nearest"

    needs = needs_inside
    needs_now = looks_inside
    init = init_inside

    def __post_init__(self) -> None:
        check_policy("RoundTo", self.policy)
        multiple = _checks.positive_integer("RoundTo", "multiple", self.multiple)
        object.__setattr__(self, "multiple", multiple)
        _checks.one_of("RoundTo", "how", self.how, ("nearest", "up", "down"))

    def update(self, state: Any, seen: Observation) -> tuple[Decision, Any]:
        """Return the wish, rounded: its batch size is an int."""
        decision, state = self.policy.update(state, seen)
        return decision._replace(batch_size=self.rounded(decision.batch_size)), state

    def rounded(self, wish: float) -> int:
        """Return the batch size that a wish becomes.

        Args:
            wish: In examples.

        Returns:
            Examples, at least `multiple`.
        """
        units = wish / self.multiple
        if not self.powers_of_two:
            return self.multiple * max(1, _whole(units, self.how))
        power = _whole(math.log2(max(units, 1.0)), self.how)
        return int(self.multiple * 2**power)


@dataclass(frozen=True, slots=True)
class SpillToLr:
    r"""A policy whose wish past a cap becomes a factor on the learning rate.

    .. math:: B = \min(B^*, \bar B), \qquad
        \mathrm{lr} \leftarrow \mathrm{lr} \min(1, \bar B/B^*)

    lr/B is then what it would be at the wish. The factor is computed anew at each call
    from nothing but the wish, so that it is undone as soon as the cap releases (adadamp
    0.2 has the factor, and leaves it in place). A wish that is
    :data:`~rightbatch.policies.UNBOUNDED` is no number to divide by: the factor then
    stays as it was.

    Args:
        policy: Who is asked.
        cap: :math:`\bar B`, in examples.

    Raises:
        InputError: The cap is not positive.

    Example:
        >>> from rightbatch.policies import Constant
        >>> policy = SpillToLr(Constant(batch_size=1024), cap=512)
        >>> seen = Observation(step=0, examples=0, batch_size=0)
        >>> policy.update(policy.init(), seen)[0]
        Decision(batch_size=512, lr_factor=0.5, reason='constant, cap 512')
    """

    policy: Policy[Any]
    _: KW_ONLY
    cap: float

    needs = needs_inside
    needs_now = looks_inside_first

    def __post_init__(self) -> None:
        check_policy("SpillToLr", self.policy)
        check_positive(self, "cap")

    def init(self) -> tuple[Any, float]:
        """Return the memory of the policy inside, and the factor."""
        return self.policy.init(), 1.0

    def update(
        self, state: tuple[Any, float], seen: Observation
    ) -> tuple[Decision, tuple[Any, float]]:
        """Return the wish, the part past the cap as a factor."""
        inner, spill = state
        decision, inner = self.policy.update(inner, seen)
        size, factor, reason = decision
        if size <= self.cap:
            return decision, (inner, 1.0)
        if size < UNBOUNDED:
            spill = float(self.cap / size)
        reason = f"{reason}, cap {self.cap:g}"
        return Decision(self.cap, factor * spill, reason), (inner, spill)


@dataclass(frozen=True, slots=True)
class OnlyGrow:
    """A policy whose batch sizes never shrink.

    Args:
        policy: Who is asked.

    Example:
        >>> from rightbatch.policies import Schedule
        >>> policy = OnlyGrow(Schedule(points=((0, 64), (10, 32)), unit="step"))
        >>> seen = Observation(step=20, examples=1280, batch_size=64)
        >>> policy.update((None, 64), seen)[0].batch_size
        64
    """

    policy: Policy[Any]

    needs = needs_inside
    needs_now = looks_inside_first
    init = init_inside_first

    def __post_init__(self) -> None:
        check_policy("OnlyGrow", self.policy)

    def update(
        self, state: tuple[Any, float | None], seen: Observation
    ) -> tuple[Decision, tuple[Any, float | None]]:
        """Return the wish, or the largest before it."""
        inner, largest = state
        decision, inner = self.policy.update(inner, seen)
        if largest is None or decision.batch_size >= largest:
            return decision, (inner, decision.batch_size)
        reason = f"{decision.reason}, does not shrink"
        return decision._replace(batch_size=largest, reason=reason), (inner, largest)


def _whole(value: float, how: str) -> int:
    nearest = math.floor(value + 0.5)
    # The last digits of a quotient that is whole must not take it one up or down.
    if how == "nearest" or math.isclose(value, nearest, rel_tol=1e-12, abs_tol=1e-12):
        return nearest
    return math.ceil(value) if how == "up" else math.floor(value)
