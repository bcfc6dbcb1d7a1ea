"""When a policy may change its mind: dwell, wait, by how much, and how surely.

Each is a policy again and nests with the others. Dwell and Wait do not ask the policy
inside while they hold, so that nothing is measured for it. Outermost, Dwell spares the
most: ``Dwell(Wait(policy, updates=100), updates=20)`` asks at update 0, then at 100,
120, 140, ...
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.fitting import Interval
from rightbatch.policies.contract import (
    CLOCK_ALONE,
    Decision,
    Observation,
    Policy,
    check_policy,
    needs_now,
    policy_name,
)
from rightbatch.policies.inside import (
    init_inside_first,
    looks_inside_first,
    needs_inside,
)

Held = tuple[float, float, str] | None
"""A decision that is kept, its three parts; None before the first."""

SureState = tuple[Any, Held, tuple[float | None, float | None] | None]

_FAR = 1e15  # where an interval has no upper end


@dataclass(frozen=True, slots=True)
class Dwell:
    """A policy that is asked every so many updates and holds in between.

    It is asked when first called, and then at the multiples of `updates`: at updates 0,
    20, 40, ... (adadamp's `dwell`). Where updates are skipped, as in a trace with gaps,
    it is asked at the first one past a multiple. A policy that reads every batch
    (RadaDamp, which dwells by itself) should not be wrapped.

    Args:
        policy: Who is asked.
        updates: Updates from one question to the next.

    Raises:
        InputError: `updates` is no whole number of at least one.

    Example:
        >>> from rightbatch.policies import PadaDamp
        >>> policy = Dwell(PadaDamp(initial_batch_size=8, rate=1), updates=3)
        >>> state, sizes = policy.init(), []
        >>> for step in range(7):
        ...     seen = Observation(step=step, examples=step, batch_size=1)
        ...     decision, state = policy.update(state, seen)
        ...     sizes.append(decision.batch_size)
        >>> sizes
        [8, 8, 8, 11, 11, 11, 14]
    """

    policy: Policy[Any]
    _: KW_ONLY
    updates: int

    needs = needs_inside

    def __post_init__(self) -> None:
        check_policy("Dwell", self.policy)
        updates = _checks.positive_integer("Dwell", "updates", self.updates)
        object.__setattr__(self, "updates", updates)

    def needs_now(
        self, state: tuple[Any, Held, int], seen: Observation
    ) -> frozenset[str]:
        """Return nothing while it holds, else what the policy inside looks at."""
        inner, held, due = state
        if held is not None and seen.step < due:
            return CLOCK_ALONE
        return needs_now(self.policy, inner, seen)

    def init(self) -> tuple[Any, Held, int]:
        """Return the memory of the policy inside, no decision, and when it is due."""
        return self.policy.init(), None, 0

    def update(
        self, state: tuple[Any, Held, int], seen: Observation
    ) -> tuple[Decision, tuple[Any, Held, int]]:
        """Return what the policy inside last decided, or decides now."""
        inner, held, due = state
        if held is not None and seen.step < due:
            return Decision(*held), state
        decision, inner = self.policy.update(inner, seen)
        due = (seen.step // self.updates + 1) * self.updates
        return decision, (inner, decision, due)


@dataclass(frozen=True, slots=True)
class Wait:
    """A policy that decides once at the start and not again before an update.

    Args:
        policy: Who is asked.
        updates: Updates of the run before it is asked again.

    Raises:
        InputError: `updates` is negative.

    Example:
        >>> from rightbatch.policies import PadaDamp
        >>> policy = Wait(PadaDamp(initial_batch_size=8, rate=1), updates=3)
        >>> state, sizes = policy.init(), []
        >>> for step in range(5):
        ...     seen = Observation(step=step, examples=step, batch_size=1)
        ...     decision, state = policy.update(state, seen)
        ...     sizes.append(decision.batch_size)
        >>> sizes
        [8, 8, 8, 11, 12]
    """

    policy: Policy[Any]
    _: KW_ONLY
    updates: float

    needs = needs_inside
    init = init_inside_first

    def __post_init__(self) -> None:
        check_policy("Wait", self.policy)
        _checks.nonnegative("Wait", "updates", self.updates)

    def needs_now(self, state: tuple[Any, Held], seen: Observation) -> frozenset[str]:
        """Return nothing while it holds, else what the policy inside looks at."""
        inner, held = state
        if held is not None and seen.step < self.updates:
            return CLOCK_ALONE
        return needs_now(self.policy, inner, seen)

    def update(
        self, state: tuple[Any, Held], seen: Observation
    ) -> tuple[Decision, tuple[Any, Held]]:
        """Return the first decision, or from `updates` on what is decided now."""
        inner, held = state
        if held is not None and seen.step < self.updates:
            return Decision(*held), state
        decision, inner = self.policy.update(inner, seen)
        return decision, (inner, decision)


@dataclass(frozen=True, slots=True)
class Relative:
    """A policy whose batch changes only by more than a given share, up or down.

    A wish that is less than 1 + `change` times the present one, and more than one over
    that, leaves the batch as it is. The factor on the learning rate is passed on.

    Args:
        policy: Who is asked.
        change: Share of the present size.

    Raises:
        InputError: `change` is negative.

    Example:
        >>> from rightbatch.policies import PadaDamp
        >>> policy = Relative(PadaDamp(initial_batch_size=10, rate=1), change=0.2)
        >>> state, sizes = policy.init(), []
        >>> for step in range(5):
        ...     seen = Observation(step=step, examples=step, batch_size=1)
        ...     decision, state = policy.update(state, seen)
        ...     sizes.append(decision.batch_size)
        >>> sizes
        [10, 10, 10, 13, 13]
    """

    policy: Policy[Any]
    _: KW_ONLY
    change: float = 0.2

    needs = needs_inside
    needs_now = looks_inside_first
    init = init_inside_first

    def __post_init__(self) -> None:
        check_policy("Relative", self.policy)
        _checks.nonnegative("Relative", "change", self.change)

    def update(
        self, state: tuple[Any, float | None], seen: Observation
    ) -> tuple[Decision, tuple[Any, float | None]]:
        """Return the wish, or the present size where it is near."""
        inner, present = state
        decision, inner = self.policy.update(inner, seen)
        size = decision.batch_size
        if present is None or max(size / present, present / size) > 1 + self.change:
            return decision, (inner, size)
        return decision._replace(batch_size=present), (inner, present)


@dataclass(frozen=True, slots=True)
class OnlyIfSure:
    r"""A policy that changes only where the interval of the noise scale calls for it.

    The policy inside is asked at both ends of the interval of :math:`\phi`. While the
    present batch lies between what it would ask for there, nothing changes: for
    ``NoiseFollowing`` that is while the interval contains the present batch. Where it
    lies outside, the decision is that of the point estimate; where there is none, as
    for a noise scale of *at least* so much, that of the end nearest to the present. An
    open end reaches as far as there is: towards none below, without limit above.
    Without an interval, and while it stays the same, nothing changes.

    Args:
        policy: Who is asked; it must follow the noise scale.

    Raises:
        InputError: The policy does not look at the noise scale.

    Example:
        >>> from rightbatch.policies import NoiseFollowing
        >>> policy = OnlyIfSure(NoiseFollowing(initial_batch_size=64))
        >>> _, state = policy.update(
        ...     policy.init(), Observation(step=0, examples=0, batch_size=0))
        >>> for low, high in ((50.0, 400.0), (90.0, 400.0)):
        ...     phi = Interval(value=150.0, low=low, high=high, level=0.95)
        ...     seen = Observation(step=9, examples=576, batch_size=64, noise_scale=phi)
        ...     print(policy.update(state, seen)[0])
        Decision(batch_size=64, lr_factor=1.0, reason='not sure: noise scale 50 to 400')
        Decision(batch_size=150.0, lr_factor=1.0, reason='noise scale 150')
    """

    policy: Policy[Any]

    needs = needs_inside
    needs_now = looks_inside_first

    def __post_init__(self) -> None:
        if "noise_scale" not in check_policy("OnlyIfSure", self.policy):
            raise InputError(
                "OnlyIfSure: `policy` must follow the noise scale, got "
                f"{policy_name(self.policy)}.",
                "only an interval can be sure; NoiseFollowing has one, for instance",
            )

    def init(self) -> SureState:
        """Return the memory of the policy inside, no decision, and no interval."""
        return self.policy.init(), None, None

    def update(self, state: SureState, seen: Observation) -> tuple[Decision, SureState]:
        """Return the present decision, or a new one that is called for."""
        inner, held, known = state
        interval = seen.noise_scale
        ends = None if interval is None else (interval.low, interval.high)
        # A meter tells the same for some updates, and asking three times costs.
        if held is not None and ends is not None and ends == known:
            return Decision(*held), state
        decision, after = self.policy.update(inner, seen)
        if held is None and not seen.batch_size:
            return decision, (after, decision, known)
        present = Decision(*held) if held else Decision(seen.batch_size)
        # While a Dwell inside holds, both ends would agree without being asked.
        looks = "noise_scale" in needs_now(self.policy, inner, seen)
        if not looks or interval is None or interval.low is interval.high is None:
            why = "noise scale unresolved" if looks else "holds"
            return present._replace(reason=why), (after, present, known)
        at_low, at_high = self._ends(inner, seen, interval)
        if at_low[0].batch_size <= present.batch_size <= at_high[0].batch_size:
            present = present._replace(reason=f"not sure: {_told(interval)}")
            return present, (after, present, ends)
        if interval.value is None:
            is_below = present.batch_size < at_low[0].batch_size
            decision, after = at_low if is_below else at_high
        return decision, (after, decision, ends)

    def _ends(
        self, inner: Any, seen: Observation, interval: Interval
    ) -> list[tuple[Decision, Any]]:
        """Return what the policy inside would decide at both ends."""
        sides: list[tuple[Decision, Any]] = []
        for end, reaches in ((interval.low, 0.0), (interval.high, _FAR)):
            point = replace(interval, value=reaches if end is None else end)
            there = replace(seen, noise_scale=point)
            sides.append(self.policy.update(inner, there))
        return sides


def _told(interval: Interval) -> str:
    low = 0.0 if interval.low is None else interval.low
    high = "any" if interval.high is None else f"{interval.high:.3g}"
    return f"noise scale {low:.3g} to {high}"
