"""The micro-batches of an update, each with its share of the gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from rightbatch.controller import HostedController
from rightbatch.errors import InputError
from rightbatch.integrations.transformers.losses import TrainerLosses, examples_of

_WHO = "BatchSizeCallback"
# A factor of one is recognized in low precision too.
_CLOSE = 0.01


@dataclass(slots=True)
class _Window:
    """The micro-batches of an update that were fetched, and which is trained on."""

    batches: list[Any]
    counts: list[int]
    num_items: Any
    weights: list[float] = field(default_factory=list[float])
    at: int = 0
    share: float = 1.0
    factor: float = 1.0
    grad_scale: float = 1.0
    is_inside: bool = False
    is_entered: bool = False
    is_divided: bool = False
    is_untold: bool = False
    loss: Any = None
    # What the gradient is multiplied by between the step's loss and compute_loss's.
    passed_on: list[torch.Tensor] = field(default_factory=list[torch.Tensor])


class MicroBatches:
    """Those that a Trainer fetched for an update, and trains on one by one.

    Args:
        trainer: Whose.
        controller: Of its batch.
        losses: What the Trainer makes of a loss.
        tokens: Counts what a micro-batch's loss is a mean over; None where the Trainer
            says so.
    """

    def __init__(
        self,
        trainer: Any,
        controller: HostedController,
        losses: TrainerLosses,
        tokens: Callable[[Any], float] | None,
    ) -> None:
        self._trainer, self._controller = trainer, controller
        self._losses, self._tokens = losses, tokens
        self._window: _Window | None = None
        self._is_seen_to_divide = False

    def open(self, batches: list[Any], num_items: Any) -> None:
        """Begin an update of these micro-batches.

        Args:
            batches: As the Trainer fetched them.
            num_items: In their labels, as it counted; None where it did not.
        """
        counts = [examples_of(batch) for batch in batches]
        self._window = _Window(batches, counts, num_items)
        self._weigh(self._window)

    def close(self) -> tuple[int, bool]:
        """End the update.

        Returns:
            How many micro-batches it had, and whether mixed precision left its step
            out.
        """
        window, self._window = self._window, None
        if window is None:
            return 0, False
        # A fused optimizer leaves its step out by itself, and only the scale tells.
        return len(window.counts), self._grad_scale < window.grad_scale

    def train(
        self, original: Callable[..., Any], model: Any, *rest: Any, **named: Any
    ) -> Any:
        """Train on a micro-batch.

        Args:
            original: The Trainer's ``training_step``.
            model: As it calls it.
            *rest: The rest of its arguments.
            **named: The same, by name.

        Returns:
            What that returns.

        Raises:
            InputError: It does not call ``compute_loss``, or does not divide a loss
                that is a mean.
        """
        window = self._window
        if window is None:
            return original(model, *rest, **named)
        window.is_inside, window.is_entered = True, False
        try:
            loss = original(model, *rest, **named)
        finally:
            window.is_inside = False
        if not window.is_entered:
            raise InputError(
                f"{_WHO}: the Trainer's training_step must call compute_loss, where a "
                "micro-batch gets its share; it did not.",
                "override compute_loss instead",
            )
        if window.is_untold:
            # What is returned may be divided or not; it is what was computed.
            loss_of_it = window.loss
        else:
            share = window.share
            loss_of_it = loss if share in (0, 1) else loss / share
        self._see_to_division(window)
        window.at += 1
        is_last = window.at == len(window.counts)
        if is_last:
            window.grad_scale = self._grad_scale
        self._controller.leave(
            loss_of_it,
            grad_scale=window.grad_scale,
            is_last=is_last,
        )
        return loss

    def loss(
        self,
        original: Callable[..., Any],
        model: Any,
        inputs: Any,
        *rest: Any,
        **named: Any,
    ) -> Any:
        """Compute a loss; in training, one whose gradient has its share.

        Args:
            original: The Trainer's ``compute_loss``.
            model: As it calls it.
            inputs: Of the model.
            *rest: The rest of its arguments.
            **named: The same, by name.

        Returns:
            What that returns.
        """
        window = self._window
        if window is None or not window.is_inside:
            return original(model, inputs, *rest, **named)
        if len(rest) > 1:
            named["num_items_in_batch"], rest = rest[1], rest[:1]
        told = named.get("num_items_in_batch")
        is_first = not window.is_entered
        if is_first:
            self._enter(window, original, model, inputs, told)
        if self._losses.recounts and told is not None:
            named["num_items_in_batch"] = window.num_items
        found = original(model, inputs, *rest, **named)
        loss: Any = found[0] if isinstance(found, tuple) else found
        if is_first:
            window.loss = loss.detach()
        if window.factor != 1:
            loss = loss * window.factor
        if is_first and self._is_asked_to_divide(window) and loss.requires_grad:
            loss.register_hook(window.passed_on.append)
        return (loss, *found[1:]) if isinstance(found, tuple) else loss  # pyright: ignore

    @property
    def _grad_scale(self) -> float:
        scaler = self._trainer.accelerator.scaler
        return 1.0 if scaler is None else float(scaler.get_scale())

    def _weigh(self, window: _Window) -> None:
        """Say what the micro-batches of an update weigh."""
        losses, tokens = self._losses, self._tokens
        items, controller = window.num_items, self._controller
        if tokens is not None:
            window.weights = [float(tokens(batch)) for batch in window.batches]
        else:
            window.weights = losses.weights(window.batches, items)
        counted = tokens is not None or losses.counts_items
        total = sum(window.weights) if counted else float(sum(window.counts))
        if tokens is not None or items is None:
            total *= controller.num_replicas
        elif losses.recounts:
            total = controller.sum_over_replicas([total])[0]
            window.num_items = torch.full_like(torch.as_tensor(items), round(total))
        elif controller.num_replicas > 1:
            total = float(items)  # which the Trainer added up over the replicas
        controller.expect(total)

    def _try_out(
        self, compute_loss: Callable[..., Any], model: Any, inputs: Any
    ) -> None:
        """Find out what the loss makes of the items, and weigh the update by that."""
        controller, losses = self._controller, self._losses
        found = losses.try_out(compute_loss, model, inputs)
        first = controller.is_first_replica
        losses.settle(
            *controller.sum_over_replicas([one if first else 0.0 for one in found])
        )
        if losses.recounts and self._window is not None:
            self._weigh(self._window)

    def _enter(
        self,
        window: _Window,
        original: Callable[..., Any],
        model: Any,
        inputs: Any,
        told: Any,
    ) -> None:
        """Begin a micro-batch, and see to it that its gradient has its share."""
        losses, items = self._losses, window.num_items
        if not (losses.is_divided(items, items) or losses.is_tried or items is None):
            self._try_out(original, model, inputs)
        count, weight = window.counts[window.at], window.weights[window.at]
        share = window.share = self._controller.enter(count, weight)
        window.factor, window.is_entered = 1.0, True
        window.is_divided = losses.is_divided(items, told)
        window.is_untold = window.is_divided and told is None
        if window.is_divided:
            # By this attribute or by the setting: both are how many they are.
            length = len(window.counts)
            self._trainer.current_gradient_accumulation_steps = length
            factor = share * length / losses.times(told)
            is_one = math.isclose(factor, 1.0, rel_tol=1e-12)
            window.factor = 1.0 if is_one else factor
        elif not losses.is_normalized(items):
            window.factor = share / losses.times(told)

    def _is_asked_to_divide(self, window: _Window) -> bool:
        return (
            window.is_divided and len(window.counts) > 1 and not self._is_seen_to_divide
        )

    def _see_to_division(self, window: _Window) -> None:
        """Refuse, once, a step that leaves the mean of a micro-batch as it is.

        Raises:
            InputError: It does.
        """
        if not window.passed_on:
            return
        factor = float(window.passed_on[0]) / self._grad_scale
        window.passed_on.clear()
        self._is_seen_to_divide = True
        if math.isclose(factor, 1.0, rel_tol=_CLOSE):
            raise InputError(
                f"{_WHO}: the Trainer's training_step must divide the loss, which is "
                "the mean of one micro-batch, by those of the update; it did not.",
                "divide it by self.args.gradient_accumulation_steps, or give "
                "num_items_in_batch to compute_loss where the model takes it",
            )
