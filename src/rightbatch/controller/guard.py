"""A lost run is noticed, and the last good state put back."""

import copy
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from rightbatch import _checks

# The running loss is a mean over about this share of the updates made so far.
_RUNNING_SHARE = 0.1
_RUNNING_MIN_UPDATES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """When a run counts as lost, and how often its state is kept until then.

    A run is lost when the loss of a batch is not finite, or when the running loss has
    stayed above `factor` times the first for `patience` updates.

    Args:
        factor: On the loss of the first update.
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
        >>> watch.is_lost(2.3, step=1), watch.is_lost(math.nan, step=2)
        (False, True)
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._first: float | None = None
        self._running = math.inf
        self._exploded_at: int | None = None

    @property
    def is_sane(self) -> bool:
        """Whether the running loss is where a good state may be kept."""
        return self._exploded_at is None

    def is_lost(self, loss: float, step: int) -> bool:
        """Return whether the run is lost, the batch of update `step` included.

        Args:
            loss: Of that batch, before the update.
            step: Counted from 1.
        """
        if not math.isfinite(loss):
            return True
        if self._first is None:
            self._first = self._running = loss
        limit = self._guard.factor * self._first
        # A spike, however high, must be forgotten again: it counts as twice the limit.
        bounded = min(loss, 2 * limit) if limit > 0 else loss
        weight = 1 / min(step, max(_RUNNING_MIN_UPDATES, _RUNNING_SHARE * step))
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
            "first": self._first,
            "running": self._running,
            "exploded_at": self._exploded_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._first = state["first"]
        self._running = state["running"]
        self._exploded_at = state["exploded_at"]


class LastGood:
    """A copy of a model and its optimizer, on the CPU, to be put back.

    Args:
        model: Any.
        optimizer: Of its parameters.
        position: The controller's own state at that point.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, position: dict[str, Any]
    ) -> None:
        self.position = position
        self._weights = _copied(model.state_dict())
        self._optimizer = _copied(optimizer.state_dict())

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Put the copy back; the gradient, which is lost, is dropped."""
        model.load_state_dict(self._weights)
        optimizer.load_state_dict(copy.deepcopy(self._optimizer))
        optimizer.zero_grad(set_to_none=True)


def _copied(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.detach().to("cpu", copy=True)
    if isinstance(values, dict):
        return {key: _copied(value) for key, value in values.items()}  # pyright: ignore
    if isinstance(values, list):
        return [_copied(value) for value in values]  # pyright: ignore
    return copy.deepcopy(values)
