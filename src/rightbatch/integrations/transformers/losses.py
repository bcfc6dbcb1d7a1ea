"""What the loss of a micro-batch is a mean over, and what a Trainer makes of it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from rightbatch.errors import InputError

_WHO = "BatchSizeCallback"
_IGNORED = -100


class TrainerLosses:
    """The Trainer's ways with a loss, so that each micro-batch counts its share.

    It divides a mean loss by the number of micro-batches, which is right where all are
    of one size; a loss that the model sums and divides by the items (tokens) of the
    whole update it leaves alone. Some models are told the items and do not look at
    them: whether one does is tried out, once, on the first micro-batch.

    Args:
        trainer: Whose.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._looks: bool | None = None

    @property
    def counts_items(self) -> bool:
        """Whether the Trainer counts the items of an update's labels."""
        trainer = self._trainer
        return bool(trainer.model_accepts_loss_kwargs) or (
            trainer.compute_loss_func is not None
        )

    def weights(self, batches: list[Any], num_items: Any) -> list[float]:
        """Return what each micro-batch's loss is a mean over.

        Args:
            batches: Of an update.
            num_items: In their labels, as the Trainer counted; None where it did not.

        Returns:
            The items of their labels; examples where nobody counts items.
        """
        if num_items is None:
            return [float(examples_of(batch)) for batch in batches]
        counts = [self._labels(batch).ne(_IGNORED).sum() for batch in batches]
        # One number to wait for, not one a micro-batch.
        return [float(count) for count in torch.stack(counts).tolist()]

    def _labels(self, batch: Any) -> Any:
        if "shift_labels" in batch:
            return batch["shift_labels"]
        # As the Trainer at hand counts: not all versions leave out the first token.
        shifts = getattr(self._trainer, "_loss_shifts_labels", False)
        return batch["labels"][..., 1:] if shifts else batch["labels"]

    def is_divided(self, num_items: Any) -> bool:
        """Return whether the Trainer divides the loss by the micro-batches.

        Args:
            num_items: As the Trainer counted.
        """
        trainer = self._trainer
        says = getattr(trainer, "loss_is_scaled_for_ga", None)
        if says is not None:
            return not says
        if trainer.compute_loss_func is not None:
            return False
        return num_items is None or not trainer.model_accepts_loss_kwargs

    def is_normalized(
        self, compute_loss: Callable[..., Any], model: Any, inputs: Any, num_items: Any
    ) -> bool:
        """Return whether a loss that is not divided is one of the whole update.

        Args:
            compute_loss: The Trainer's.
            model: As it calls it.
            inputs: Of a micro-batch.
            num_items: Of the update.
        """
        if getattr(self._trainer, "loss_is_scaled_for_ga", None):
            return True
        if num_items is None:
            return False
        if self._looks is None:
            self._looks = _looks_at_items(compute_loss, model, inputs, num_items)
        return self._looks is not False

    def times(self, num_items: Any) -> int:
        """Return what the Trainer multiplies a loss by: the replicas, or one.

        Args:
            num_items: Of the update.
        """
        args = self._trainer.args
        averages = getattr(args, "average_tokens_across_devices", False)
        if averages and self.counts_items and num_items is not None:
            return int(args.world_size)
        return 1


def examples_of(batch: Any) -> int:
    """Return how many examples a micro-batch holds: the rows of its first tensor.

    Args:
        batch: As a collator makes it.

    Returns:
        Their number.

    Raises:
        InputError: There is no tensor in it.

    Example:
        >>> examples_of({"x": torch.zeros(3, 5), "labels": torch.zeros(3)})
        3
    """
    values = batch.values() if isinstance(batch, Mapping) else batch  # pyright: ignore
    for value in values:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, torch.Tensor) and value.ndim:
            return len(value)
    raise InputError(
        f"{_WHO}: a batch must hold a tensor, whose rows are counted; got {batch!r}.",
        "let the collator return a dict of tensors",
    )


def _looks_at_items(
    compute_loss: Callable[..., Any], model: Any, inputs: Any, num_items: Any
) -> bool | None:
    """Return whether a loss halves with twice the items; None where it cannot tell."""
    device = next(model.parameters()).device
    kept = [device] if device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(kept):
            once, twice = (
                float(compute_loss(model, dict(inputs), num_items_in_batch=items))
                for items in (num_items, 2 * num_items)
            )
    finally:
        model.train()
    if not math.isfinite(once) or once == 0:
        return None
    return abs(2 * twice - once) < abs(twice - once)
