"""The contract of a batch-size policy: an observation in, a decision out.

A policy is asked before every update, the first time at step 0. It is configuration
only: what it remembers is a value that is handed in and comes back, so that a run can
be saved, simulated and asked "what if" without copying anything.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.fitting import Interval
from rightbatch.noise_scale import GradientMoments

State = TypeVar("State")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    r"""What a policy may know when it is asked for the next batch size.

    The clock is always there. The rest is measured only for a policy that `needs` it,
    and is None where nobody has measured it yet: whatever a batch tells belongs to the
    last update, taken at the point before it, so at step 0 there is none. A policy says
    what it does then.

    Args:
        step: Updates done.
        examples: Examples they took, the position in the stream.
        batch_size: Examples of the last update, 0 before the first. Whole numbers in a
            run; a simulation may be asked for real ones.
        num_replicas: Replicas that share a batch.
        epoch: Examples over the size of the data set.
        dataset_size: Examples in the data set.
        lr: Learning rate of the last update, all factors in it.
        batch_loss: Mean loss on the batch of the last update, before the update.
        eval_loss: Mean loss over what the run is evaluated on, now, at the average
            where the optimizer keeps one.
        batch_grad_sq_norm: Squared norm of the last batch's mean gradient,
            :math:`|g_B|^2`.
        moments: :math:`|G|^2` and :math:`\mathrm{tr}\,\Sigma`, unbiased.
        noise_scale: :math:`\mathrm{tr}\,\Sigma/|G|^2` with its interval, in examples.
        inner_product_variance: Variance over examples of their gradient's product with
            the mean gradient, :math:`G'\Sigma G`.
        tokens: Tokens taken.
        seconds: Seconds since the first update began.

    Example:
        >>> Observation(step=10, examples=640, batch_size=64, eval_loss=2.5).examples
        640
    """

    step: int
    examples: float
    batch_size: float
    num_replicas: int = 1
    epoch: float | None = None
    dataset_size: int | None = None
    lr: float | None = None
    batch_loss: float | None = None
    eval_loss: float | None = None
    batch_grad_sq_norm: float | None = None
    moments: GradientMoments | None = None
    noise_scale: Interval | None = None
    inner_product_variance: float | None = None
    tokens: float | None = None
    seconds: float | None = None


CLOCK = ("step", "examples", "batch_size", "num_replicas")
"""Fields of an observation that are always there."""

CLOCK_ALONE: frozenset[str] = frozenset()
"""The needs of a policy for which nothing has to be measured."""

OBSERVABLE = frozenset(one.name for one in fields(Observation)) - frozenset(CLOCK)
"""Fields of an observation that a policy can need."""

UNBOUNDED = 2.0**53
"""The wish for as many examples as can be served, where a formula has no end.

A number and not infinity, so that every wish can be rounded, counted and written down;
past it floats no longer tell one whole number from the next. Whoever caps a wish serves
the cap; whoever divides by one (:class:`~rightbatch.policies.SpillToLr`) knows that it
is no measurement.
"""


class Decision(NamedTuple):
    """What a policy asks of the next update.

    Args:
        batch_size: A wish in examples, positive, not necessarily whole; what can be
            served is found from it.
        lr_factor: On the learning rate the update would have without the policy, not on
            that of the update before. 1 except for moves that belong to the policy.
        reason: Why, in a few words, for the trace.
    """

    batch_size: float
    lr_factor: float = 1.0
    reason: str = ""


class Policy(Protocol[State]):
    """What every batch-size policy has; `State` is what it remembers, of any type.

    `needs` names the fields of :class:`Observation` it looks at beside the clock:
    only these are measured, and every measurement costs. Where no setting changes them
    they stand as a constant of the class.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Names of the observed fields."""
        ...

    def init(self) -> State:
        """Return the memory at the start of a run."""
        ...

    def update(self, state: State, seen: Observation) -> tuple[Decision, State]:
        """Return the decision for the next update, and the memory from now on.

        Args:
            state: The memory, from `init` or the last call.
            seen: The clock and what `needs` names, None where it is not known.

        Returns:
            The decision and the memory.
        """
        ...


class Sparing(Protocol):
    """A policy that says, ahead of each call, which of its needs it will look at.

    An optional part of the contract, read through :func:`needs_now`. A policy that
    holds its batch size for twenty updates needs the loss at one of them.
    """

    def needs_now(self, state: Any, seen: Observation) -> frozenset[str]:
        """Return what `update` will look at when asked next with this state.

        Args:
            state: The memory that `update` will be given.
            seen: The clock, and of the rest at most `dataset_size`, `epoch`, `tokens`
                and `seconds`: what costs nothing to know.

        Returns:
            Names of observed fields, among those of `needs`.
        """
        ...


def needs_now(policy: Policy[State], state: State, seen: Observation) -> frozenset[str]:
    """Return what a policy will look at in its very next call, beside the clock.

    Whatever is not named may be None in the observation it is then asked with.

    Args:
        policy: Who will be asked.
        state: Its memory.
        seen: What is known without measuring.

    Returns:
        Names of :data:`OBSERVABLE`: all the policy needs, or fewer where it is
        :class:`Sparing`.

    Example:
        >>> from rightbatch.policies import AdaDamp, Dwell
        >>> policy = Dwell(AdaDamp(initial_batch_size=8), updates=20)
        >>> start = Observation(step=0, examples=0, batch_size=0, eval_loss=2.0)
        >>> sorted(needs_now(policy, policy.init(), start))
        ['eval_loss']
        >>> _, state = policy.update(policy.init(), start)
        >>> later = Observation(step=1, examples=8, batch_size=8)
        >>> sorted(needs_now(policy, state, later))
        []
    """
    # Not isinstance: on a protocol it takes longer than most policies, every update.
    asked: Any = policy
    if hasattr(asked, "needs_now"):
        return OBSERVABLE & asked.needs_now(state, seen)
    return OBSERVABLE & policy.needs


def policy_name(policy: Policy[Any]) -> str:
    """Return what messages call a policy: the name of its class.

    Example:
        >>> from rightbatch.policies import Constant
        >>> policy_name(Constant(batch_size=8))
        'Constant'
    """
    return type(policy).__name__


def nothing_remembered(policy: object) -> None:
    """Return None, the memory of a policy that has nothing to remember, or not yet.

    It is the `init` of these policies.

    Args:
        policy: Any.
    """


def check_positive(policy: object, *names: str) -> None:
    """Check settings of a policy that have to be positive.

    Args:
        policy: A policy.
        *names: Of its settings.

    Raises:
        InputError: One is not finite and above zero; policy and setting are named.

    Example:
        >>> from rightbatch.policies import Constant
        >>> check_positive(Constant(batch_size=8), "batch_size")
    """
    for name in names:
        _checks.positive(type(policy).__name__, name, getattr(policy, name))


def check_policy(who: str, policy: Policy[Any]) -> frozenset[str]:
    """Return what a policy needs, once it is clear that it is one.

    Args:
        who: The function that was given it.
        policy: Anything.

    Returns:
        Names of :data:`OBSERVABLE`.

    Raises:
        InputError: It lacks a part of the contract, or needs what nobody observes.
    """
    given: Any = policy
    if isinstance(given, type):
        raise InputError(
            f"{who}: `policy` must be a policy, got the class {given.__name__}.",
            "give it its settings: Constant(batch_size=64)",
        )
    missing = [part for part in ("needs", "init", "update") if not hasattr(given, part)]
    if missing:
        raise InputError(
            f"{who}: `policy` must have needs, init and update, "
            f"got {given!r} without {' and '.join(missing)}."
        )
    name, needs = policy_name(policy), given.needs
    if not isinstance(needs, (frozenset, set)):
        raise InputError(
            f"{who}: `needs` of {name} must be a frozenset of names, got {needs!r}."
        )
    for need in sorted(map(str, needs)):
        if need not in CLOCK:
            _checks.one_of(
                who, f"needs of {name}", need, sorted(OBSERVABLE | set(CLOCK))
            )
    return frozenset(map(str, needs)) & OBSERVABLE


def ask(
    policy: Policy[State], state: State, seen: Observation
) -> tuple[Decision, State]:
    """Return a policy's decision and memory, once the decision is found usable.

    Args:
        policy: Who is asked.
        state: Its memory.
        seen: What it may know.

    Returns:
        The decision, its numbers plain floats or ints, and the new memory.

    Raises:
        InputError: The answer is no decision, or its batch size or factor is not
            finite and positive; the policy and the step are named.

    Example:
        >>> from rightbatch.policies import Constant
        >>> seen = Observation(step=0, examples=0, batch_size=0)
        >>> ask(Constant(batch_size=8), None, seen)[0].batch_size
        8
    """
    answer: Any = policy.update(state, seen)
    if not (
        isinstance(answer, tuple)
        and len(answer) == 2  # pyright: ignore[reportUnknownArgumentType]
        and isinstance(answer[0], Decision)
    ):
        raise InputError(
            f"{policy_name(policy)}: `update` must return a Decision and a state, "
            f"got {answer!r} at step {seen.step}."
        )
    decision, state = answer
    return (
        Decision(
            _usable(policy, "batch_size", decision.batch_size, seen),
            _usable(policy, "lr_factor", decision.lr_factor, seen),
            decision.reason,
        ),
        state,
    )


def _usable(policy: Policy[Any], name: str, value: Any, seen: Observation) -> float:
    # The quick way for what nearly every answer is; this runs at every update.
    if type(value) in (int, float) and 0 < value < math.inf:
        return value
    if isinstance(value, (np.integer, np.floating)) and 0 < float(value) < math.inf:
        return value.item()
    raise InputError(
        f"{policy_name(policy)}: `{name}` must be positive and finite, "
        f"got {value!r} at step {seen.step}."
    )
