"""What a policy reads of the noise, and what it does where there is nothing to read.

Policies whose batch is a function of the noise scale alone have that function,
`batch_size_for`, and share the rest: :func:`follow_noise`.

Noise is unresolved where nobody has measured it yet, where the gradient is not told
from it, or where an estimate has come out negative. A policy then stays at the size it
last asked for; before it has asked for any, at the size of the last update, and at the
first update at its initial size.
"""

import math
from typing import Protocol

from rightbatch.noise_scale import GradientMoments
from rightbatch.policies.contract import UNBOUNDED, Decision, Observation

LastWish = float | None
"""What a policy that follows the noise remembers: the size it last asked for."""

NOISE_SCALE = frozenset({"noise_scale"})
"""The needs of a policy that looks at the noise scale alone."""

UNRESOLVED = "noise scale unresolved"


class Follower(Protocol):
    """A policy whose batch is a function of the noise scale alone."""

    @property
    def initial_batch_size(self) -> float:
        """Until the noise scale is known, in examples."""
        ...

    def batch_size_for(self, noise_scale: float) -> float:
        """Return the batch size at a noise scale, both in examples."""
        ...


def follow_noise(
    policy: Follower, state: LastWish, seen: Observation
) -> tuple[Decision, LastWish]:
    """Return the batch size for the noise seen, as the formula of a policy has it.

    It is the `update` of these policies.

    Args:
        policy: Whose formula it is.
        state: The last wish.
        seen: With `noise_scale`.

    Returns:
        The decision and the wish.

    Example:
        >>> from rightbatch.policies import NoiseFollowing
        >>> seen = Observation(step=9, examples=90, batch_size=10)
        >>> follow_noise(NoiseFollowing(initial_batch_size=4), 50.0, seen)[0]
        Decision(batch_size=50.0, lr_factor=1.0, reason='noise scale unresolved')
    """
    phi = noise_scale_of(seen)
    if phi is None:
        return hold(state, seen, policy.initial_batch_size, UNRESOLVED)
    return wish(policy.batch_size_for(phi), f"noise scale {phi:.3g}")


def noise_scale_of(seen: Observation) -> float | None:
    """Return the noise scale that was seen, in examples; None where unresolved.

    Args:
        seen: With `noise_scale`.

    Returns:
        The point estimate, not below zero.

    Example:
        >>> noise_scale_of(Observation(step=0, examples=0, batch_size=0)) is None
        True
    """
    if seen.noise_scale is None or seen.noise_scale.value is None:
        return None
    value = float(seen.noise_scale.value)
    return value if 0 <= value < math.inf else None


def moments_of_scale(noise_scale: float) -> GradientMoments:
    """Return moments with this noise scale, for the laws that depend on it alone.

    Args:
        noise_scale: In examples.

    Returns:
        Moments with a squared norm of one.

    Example:
        >>> moments_of_scale(700.0).diversity_batch_bound
        701.0
    """
    return GradientMoments(grad_sq_norm=1.0, grad_variance=noise_scale)


def wish(batch_size: float, reason: str) -> tuple[Decision, LastWish]:
    """Return a decision for a size that a formula gave, and the memory of it.

    A formula may ask for nothing, where there is no noise, or for more than any number
    says: one example and :data:`UNBOUNDED` stand for these.

    Args:
        batch_size: Zero or above, in examples.
        reason: A few words.

    Returns:
        The decision and the wish.

    Example:
        >>> wish(118.0, "noise scale 118")[0].batch_size
        118.0
    """
    size = min(float(batch_size), UNBOUNDED) if batch_size > 0 else 1.0
    return Decision(size, 1.0, reason), size


def hold(
    last: LastWish, seen: Observation, initial_batch_size: float, why: str
) -> tuple[Decision, LastWish]:
    """Return the decision to stay, for a policy that cannot tell.

    Args:
        last: What it last asked for; None before its first wish.
        seen: Tells the batch size of the last update.
        initial_batch_size: For the first update.
        why: A few words.

    Returns:
        The decision and the memory, unchanged.

    Example:
        >>> seen = Observation(step=9, examples=90, batch_size=10)
        >>> hold(None, seen, 4, "noise unresolved")
        (Decision(batch_size=10, lr_factor=1.0, reason='noise unresolved'), None)
    """
    size = last if last is not None else seen.batch_size or initial_batch_size
    return Decision(size, 1.0, "start" if seen.step == 0 else why), last
