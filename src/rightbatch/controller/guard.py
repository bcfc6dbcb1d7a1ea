"""A lost run is noticed, and the last good state put back."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from rightbatch import _checks

# The running loss is a mean over about this share of the updates made so far.
_RUNNING_SHARE = 0.1
_RUNNING_MIN_UPDATES = 20
_FIRST_EXAMPLES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """When a run counts as lost, and how often its state is kept until then.

    A run is lost when the loss of a batch is not finite, or when the running loss has
    stayed above `factor` times the mean over the first 128 examples for `patience`
    updates; where that mean is not above zero, only when it is not finite.

    Args:
        factor: On the mean loss of the first examples.
        patience: Updates.
        keep_every: Updates between two copies of model and optimizer, held on the CPU;
            None to keep none, and put back none.

    Raises:
        InputError: A number is not positive.

    Example:
        >>> Guard(keep_every=None).factor
        10.0
    """

    factor: float = 10.0
    patience: int = 50
    keep_every: int | None = 100

    def __post_init__(self) -> None:
        _checks.positive("Guard", "factor", self.factor)
        _checks.positive_integer("Guard", "patience", self.patience)
        if self.keep_every is not None:
            _checks.positive_integer("Guard", "keep_every", self.keep_every)


class LossWatch:
    """Follows the loss of the batches, and tells when a run is lost.

    Args:
        guard: When.

    Example:
        >>> watch = LossWatch(Guard())
        >>> watch.is_lost(2.3, 1, examples=8), watch.is_lost(math.nan, 2, examples=8)
        (False, True)
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.reset()

    def reset(self) -> None:
        """Forget every loss."""
        self._seen = 0
        self._first = 0.0
        self._running = 0.0
        self._is_within = True
        self._exploded_at: int | None = None

    @property
    def is_sane(self) -> bool:
        """Whether a state at which the last loss was taken may be kept as good."""
        return self._exploded_at is None and self._is_within

    def is_lost(self, loss: float, step: int, examples: int) -> bool:
        """Return whether the run is lost, the batch of update `step` included.

        Args:
            loss: Of that batch, before the update.
            step: Counted from 1.
            examples: Of that batch.
        """
        if not math.isfinite(loss):
            return True
        if self._seen < _FIRST_EXAMPLES:
            # One small batch is no scale: a lucky one would stop a good run.
            self._seen += examples
            self._first += (loss - self._first) * examples / self._seen
            self._running = self._first
            return False
        limit = self._guard.factor * self._first
        self._is_within = limit <= 0 or loss <= limit
        # A spike, however high, must be forgotten again: it counts as twice the limit.
        bounded = min(loss, 2 * limit) if limit > 0 else loss
        weight = 1 / max(_RUNNING_MIN_UPDATES, _RUNNING_SHARE * step)
        self._running += weight * (bounded - self._running)
        # A loss that can be negative has no scale to compare with.
        if limit <= 0 or self._running <= limit:
            self._exploded_at = None
            return False
        if self._exploded_at is None:
            self._exploded_at = step
        return step - self._exploded_at >= self._guard.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered, for a checkpoint."""
        return {
            "seen": self._seen,
            "first": self._first,
            "running": self._running,
            "exploded_at": self._exploded_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._seen = state["seen"]
        self._first = state["first"]
        self._running = state["running"]
        self._exploded_at = state["exploded_at"]


class Stateful(Protocol):
    """What can be copied and put back: a model, an optimizer, a scheduler, a scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Put a state back."""
        ...


class LastGood:
    """A copy of a model and what trains it, on the CPU, to be put back.

    Args:
        parts: What is copied.
        position: The controller's own state at that point.
    """

    def __init__(self, parts: Sequence[Stateful], position: dict[str, Any]) -> None:
        self.position = position
        self._parts = [(part, _copied(part.state_dict())) for part in parts]

    def restore(self) -> None:
        """Put the copies back."""
        for part, state in self._parts:
            part.load_state_dict(copy.deepcopy(state))


class Rescue:
    """Tells when a run is lost, and puts back what was kept while it was not.

    Args:
        guard: When, and how often a copy is kept.
        parts: What is copied.
    """

    def __init__(self, guard: Guard, parts: Sequence[Stateful]) -> None:
        self._guard, self._parts = guard, parts
        self._watch = LossWatch(guard)
        self._last_good: LastGood | None = None
        self._candidate: LastGood | None = None

    def is_lost(self, loss: float, step: int, examples: int) -> bool:
        """Return whether the run is lost with the loss of a batch, before its step."""
        if self._watch.is_lost(loss, step, examples):
            return True
        # A copy is a good one once the loss at it was seen to be.
        if self._candidate is not None and self._watch.is_sane:
            self._last_good, self._candidate = self._candidate, None
        return False

    def is_due(self, step: int) -> bool:
        """Return whether a copy is wanted after an update."""
        every = self._guard.keep_every
        return every is not None and step % every == 0 and self._watch.is_sane

    def keep(self, position: dict[str, Any]) -> None:
        """Copy all parts, with the position they belong to."""
        self._candidate = LastGood(self._parts, position)

    def put_back(self) -> dict[str, Any] | None:
        """Put the last good copy back.

        Returns:
            The position it belongs to; None where there is no copy.
        """
        self._candidate = None
        if self._last_good is None:
            return None
        self._last_good.restore()
        return self._last_good.position

    def reset(self) -> None:
        """Forget every loss."""
        self._watch.reset()

    def state_dict(self) -> dict[str, Any]:
        """Return what the watch remembers; copies are not saved."""
        return self._watch.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._watch.load_state_dict(state)


def _copied(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.detach().to("cpu", copy=True)
    if isinstance(values, dict):
        return {key: _copied(value) for key, value in values.items()}  # pyright: ignore
    if isinstance(values, list):
        return [_copied(value) for value in values]  # pyright: ignore
    return copy.deepcopy(values)
