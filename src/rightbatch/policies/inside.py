"""What a wrapper hands on from the policy inside: its needs and its memory.

A wrapper is a policy with a field `policy`, whose parts these become:
``needs = needs_inside``. One that remembers something of its own keeps it behind the
memory of the policy inside, as a pair or longer.
"""

from typing import Any, Protocol

from rightbatch.policies.contract import Observation, Policy, needs_now


class Wrapper(Protocol):
    """A policy around another."""

    @property
    def policy(self) -> Policy[Any]:
        """The policy inside."""
        ...


@property
def needs_inside(wrapper: Wrapper) -> frozenset[str]:
    """What the policy inside needs."""
    return frozenset(wrapper.policy.needs)


def looks_inside(wrapper: Wrapper, state: Any, seen: Observation) -> frozenset[str]:
    """Return what the policy inside, whose memory the state is, will look at now."""
    return needs_now(wrapper.policy, state, seen)


def looks_inside_first(
    wrapper: Wrapper, state: tuple[Any, ...], seen: Observation
) -> frozenset[str]:
    """Return what the policy inside, whose memory comes first, will look at now."""
    return needs_now(wrapper.policy, state[0], seen)


def init_inside(wrapper: Wrapper) -> Any:
    """Return the memory of the policy inside."""
    return wrapper.policy.init()


def init_inside_first(wrapper: Wrapper) -> tuple[Any, None]:
    """Return the memory of the policy inside, and nothing yet of the wrapper's own."""
    return wrapper.policy.init(), None
