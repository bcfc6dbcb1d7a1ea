"""The step itself: clipped, at the learning rate that goes with the batch."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rightbatch.controller.acting import (
    Acting,
    Follower,
    ScheduleClock,
    check_scheduler,
)
from rightbatch.errors import InputError

# Up to so many numbers a copy costs less than a call for each parameter.
_SMALL = 2**16
# Where a dot product adds up in a precision that serves.
_EXACT = (torch.float32, torch.float64)


class StepTaken(NamedTuple):
    """What a step was made with.

    Args:
        lr: Learning rate of the first group, all factors in it.
        grad_sq_norm: Squared norm of the gradient before clipping; None where nobody
            asked.
        is_made: False where mixed precision overflowed and the step was left out.
    """

    lr: float
    grad_sq_norm: float | None
    is_made: bool = True


class Stepper:
    """Makes the steps of one optimizer, and moves the user's schedule along.

    Args:
        optimizer: Whose.
        follower: Changes its settings while the step is made.
        acting: Scheduler, mixed precision, clipping.
        wants_norm: Whether somebody looks at the norm of the gradient.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        follower: Follower,
        acting: Acting,
        *,
        wants_norm: bool,
    ) -> None:
        self._optimizer, self._follower, self._acting = optimizer, follower, acting
        self._wants_norm = wants_norm
        self._num_plain = -1
        scheduler = acting.scheduler
        self.clock: ScheduleClock | None = None
        if scheduler is not None:
            check_scheduler(scheduler, optimizer)
            self.clock = ScheduleClock(scheduler)

    def step(
        self,
        batch_size: int,
        noise_scale: float | None,
        lr_factor: float,
        closure: Callable[[], Tensor] | None,
    ) -> StepTaken:
        """Make a step.

        Args:
            batch_size: Of the update.
            noise_scale: As known, for the rule.
            lr_factor: Of the policy.
            closure: For an optimizer that asks for the loss again.

        Returns:
            What it was made with.
        """
        follower = self._follower
        if closure is None and follower.is_idle and lr_factor == 1:
            # Most steps of many runs: nothing to change, and nothing to put back.
            norm, is_made = self._plain()
            return StepTaken(follower.start(batch_size), norm, is_made)
        with follower.applied(batch_size, noise_scale, lr_factor) as lr:
            if closure is not None:
                return StepTaken(lr, self._asking_again(closure))
            norm, is_made = self._plain()
        return StepTaken(lr, norm, is_made)

    def advance(self, batch_size: int, noise_scale: float | None) -> None:
        """Move the user's schedule as far as an update that was made moves it."""
        if self.clock is not None:
            self.clock.advance(self._follower.progress(batch_size, noise_scale))

    def measured(self) -> float | None:
        """Return the squared norm of the gradient as it is, where somebody looks."""
        return self._clipped(None) if self._wants_norm else None

    def _asking_again(self, closure: Callable[[], Tensor]) -> float | None:
        """Step an optimizer that evaluates the loss itself; clipped every time.

        Returns:
            The squared norm of the first gradient, where somebody looks at it.

        Raises:
            InputError: Under mixed precision, which torch does not have for these.
        """
        if self._acting.scaler is not None:
            raise InputError(
                "Update.step: a GradScaler does not go with a closure.",
                "leave the scaler out: bfloat16 does without",
            )
        norms: list[float | None] = []

        def clipped() -> Tensor:
            loss = closure()
            norms.append(self._clipped(self._acting.max_grad_norm))
            return loss

        self._optimizer.step(clipped)  # pyright: ignore
        return norms[0] if norms else None

    def _plain(self) -> tuple[float | None, bool]:
        scaler, limit = self._acting.scaler, self._acting.max_grad_norm
        norm = None
        if limit is not None or self._wants_norm:
            if scaler is not None:
                scaler.unscale_(self._optimizer)
            norm = self._clipped(limit)
        if scaler is None:
            self._optimizer.step()
            return norm, True
        before = scaler.get_scale()
        scaler.step(self._optimizer)
        scaler.update()
        return norm, scaler.get_scale() >= before

    def _clipped(self, limit: float | None) -> float | None:
        parameters = [
            parameter
            for group in self._optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        square = None
        if self._wants_norm:
            square = self._sq_norm([one.grad for one in parameters])
        if limit is not None:
            nn.utils.clip_grad_norm_(parameters, limit)
        return square

    def _sq_norm(self, gradients: Sequence[Tensor]) -> float:
        # Of what kind they are is looked at when their number changes, not each time.
        if len(gradients) != self._num_plain:
            self._num_plain = len(gradients) if _are_plain(gradients) else -1
        return _dots(gradients) if self._num_plain >= 0 else _total(gradients)


def _are_plain(gradients: Sequence[Tensor]) -> bool:
    """Return whether dot products serve: dense, in full precision, on one device."""
    return len({part.device for part in gradients}) == 1 and all(
        type(part) is Tensor and part.dtype in _EXACT and not part.is_sparse
        for part in gradients
    )


def _dots(gradients: Sequence[Tensor]) -> float:
    """Return the squared norm: on a small model a fifth of `get_total_norm`'s time."""
    flat = [one.reshape(-1) for one in gradients]
    if sum(map(len, flat)) <= _SMALL:
        whole = torch.cat(flat)
        return float(whole.dot(whole))
    squares = [part.dot(part) for part in flat]
    return float(torch.stack(squares).sum())  # one number to wait for


def _total(gradients: Sequence[Tensor]) -> float:
    """Return the squared norm of a gradient, given in parts of any kind."""
    total: Any = nn.utils.get_total_norm(gradients)
    if hasattr(total, "full_tensor"):  # of shards
        total = total.full_tensor()
    return float(total) ** 2
