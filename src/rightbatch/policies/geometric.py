r"""Batches that grow by a factor, per epoch or per update, and rates that fall by it.

Per update is what a strongly convex loss asks for (Bottou, Curtis and Nocedal 2018,
section 5); per some epochs what serves neural networks (Smith et al. 2018). As far as
noise sets the pace, only lr/B matters, so that a falling rate does what a growing batch
does, in more updates.
"""

import math
import sys
from dataclasses import dataclass

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.policies.contract import (
    CLOCK_ALONE,
    UNBOUNDED,
    Decision,
    Observation,
    check_positive,
    nothing_remembered,
    policy_name,
)


def _check_factor(who: str, factor: float) -> None:
    if _checks.finite(who, "factor", factor) < 1:
        raise InputError(
            f"{who}: `factor` must be at least 1, got {factor:g}.",
            "2 doubles the batch",
        )


def _check_cuts(policy: "GeoDamp | GeoDampLR") -> None:
    check_positive(policy, "initial_batch_size")
    _check_factor(policy_name(policy), policy.factor)
    check_positive(policy, "delay")


def _not_once(policy: object) -> int:
    """Return how many times the batch has grown, or the rate was cut: 0."""
    del policy
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoDamp:
    r"""The batch size times a factor every so many epochs.

    .. math:: B = B_0 f^{\lfloor e/d \rfloor}

    adadamp 0.2; Smith et al. (2018) with d the epochs between cuts of the rate. Where
    the epoch is not known the batch stays as it is.

    Args:
        initial_batch_size: :math:`B_0`, in examples.
        factor: f, at least 1.
        delay: d, in epochs.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> policy = GeoDamp(initial_batch_size=16, factor=2, delay=5)
        >>> seen = Observation(step=900, examples=14400, batch_size=16, epoch=10.0)
        >>> policy.update(0, seen)
        (Decision(batch_size=64.0, lr_factor=1.0, reason='epoch 10'), 2)
    """

    initial_batch_size: float
    factor: float = 2.0
    delay: float = 5.0

    needs = frozenset({"epoch"})
    init = _not_once
    __post_init__ = _check_cuts

    def update(self, state: int, seen: Observation) -> tuple[Decision, int]:
        """Return the batch size of the epoch, and how often it has grown."""
        times, reason = _times(state, seen, self.delay)
        size = _grown(self.initial_batch_size, self.factor, times)
        return Decision(size, reason=reason), times


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoDampLR:
    r"""The learning rate over a factor every so many epochs, the batch as it was.

    .. math:: \mathrm{lr} = \mathrm{lr}_0 f^{-\lfloor e/d \rfloor}

    lr/B is that of :class:`GeoDamp` at every epoch (adadamp 0.2).

    Args:
        initial_batch_size: In examples, throughout.
        factor: f, at least 1.
        delay: d, in epochs.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> policy = GeoDampLR(initial_batch_size=16, factor=2, delay=5)
        >>> seen = Observation(step=900, examples=14400, batch_size=16, epoch=10.0)
        >>> policy.update(0, seen)
        (Decision(batch_size=16, lr_factor=0.25, reason='epoch 10'), 2)
    """

    initial_batch_size: float
    factor: float = 2.0
    delay: float = 5.0

    needs = frozenset({"epoch"})
    init = _not_once
    __post_init__ = _check_cuts

    def update(self, state: int, seen: Observation) -> tuple[Decision, int]:
        """Return the factor on the rate of the epoch, and how often it was cut."""
        times, reason = _times(state, seen, self.delay)
        cut = 1.0 / _grown(1.0, self.factor, times)
        return Decision(self.initial_batch_size, cut, reason), times


@dataclass(frozen=True, slots=True, kw_only=True)
class CntsDampLR:
    r"""The learning rate falling as one over the updates, the batch as it was.

    .. math:: \mathrm{lr} = \mathrm{lr}_0 \frac{B_0}{B_0 + r k}

    lr/B is that of :class:`PadaDamp` at every update, and starts at
    :math:`\mathrm{lr}_0/B_0`. adadamp 0.2 has :math:`B_0/[B_0 + 1 + r (k + 1)]`, the
    bracket rounded to a whole number, which starts below.

    Args:
        initial_batch_size: :math:`B_0`, in examples, throughout.
        rate: r, not negative; by default that of adadamp.

    Raises:
        InputError: The size is not positive, or the rate negative.

    Example:
        >>> policy = CntsDampLR(initial_batch_size=16, rate=0.16)
        >>> seen = Observation(step=300, examples=4800, batch_size=16)
        >>> policy.update(None, seen)[0]
        Decision(batch_size=16, lr_factor=0.25, reason='update 300')
    """

    initial_batch_size: float
    rate: float = 0.02

    needs = CLOCK_ALONE
    init = nothing_remembered

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size")
        _checks.nonnegative("CntsDampLR", "rate", self.rate)

    def update(self, state: None, seen: Observation) -> tuple[Decision, None]:
        """Return the factor on the learning rate for the updates done."""
        first = self.initial_batch_size
        factor = first / (first + self.rate * seen.step)
        return Decision(first, factor, f"update {seen.step}"), state


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometric:
    r"""The batch size times a factor at every update.

    .. math:: B_k = B_0 f^k

    On a strongly convex loss the expected distance to the least loss then falls by a
    factor per update as well, as full gradient descent's does, for
    :math:`f > 1` at a fixed rate (Bottou, Curtis and Nocedal 2018, theorem 5.3).

    Args:
        initial_batch_size: :math:`B_0`, in examples.
        factor: f, at least 1: 1.01 doubles in 70 updates.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> policy = Geometric(initial_batch_size=8, factor=1.5)
        >>> seen = Observation(step=2, examples=20, batch_size=12)
        >>> policy.update(None, seen)[0].batch_size
        18.0
    """

    initial_batch_size: float
    factor: float

    needs = CLOCK_ALONE
    init = nothing_remembered

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size")
        _check_factor("Geometric", self.factor)

    def update(self, state: None, seen: Observation) -> tuple[Decision, None]:
        """Return the batch size for the updates done."""
        size = _grown(self.initial_batch_size, self.factor, seen.step)
        return Decision(size, reason=f"update {seen.step}"), state


def _times(state: int, seen: Observation, delay: float) -> tuple[int, str]:
    if seen.epoch is None or not math.isfinite(seen.epoch):
        return state, "epoch unknown"
    return int(seen.epoch // delay), f"epoch {seen.epoch:.3g}"


def _grown(start: float, factor: float, times: int) -> float:
    # A power of floats raises where it passes their range.
    if times * math.log(factor) > math.log(UNBOUNDED / max(start, sys.float_info.min)):
        return UNBOUNDED
    return float(start * factor**times)
