"""What the loss of a micro-batch is a mean over, and what a Trainer makes of it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from rightbatch.errors import InputError

_WHO = "BatchSizeCallback"
_IGNORED = -100
# A number of items is recognized by its quotient of two losses.
_CLOSE = 0.01


class TrainerLosses:
    """The Trainer's ways with a loss, so that each micro-batch counts its share.

    It divides a mean loss by the number of micro-batches, which is right where all are
    of one size; a loss that the model sums and divides by the items (tokens) of the
    whole update it leaves alone. Some models are told the items and do not look at
    them, and for some it counts labels that no loss is taken at: what is so is tried
    out, once, on the first micro-batch.

    Args:
        trainer: Whose.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._looks = True
        self._shifts: bool | None = None
        self.is_tried = False

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
        shifts = self._believed if self._shifts is None else self._shifts
        counts = [_items(batch, shifts=shifts) for batch in batches]
        # One number to wait for, not one a micro-batch.
        return [float(count) for count in torch.stack(counts).tolist()]

    @property
    def _believed(self) -> bool:
        """Whether the Trainer at hand leaves out the first label of each row."""
        return getattr(self._trainer, "_loss_shifts_labels", False)

    @property
    def recounts(self) -> bool:
        """Whether the loss is over other labels than those that the Trainer counts."""
        return self._shifts is not None and self._shifts != self._believed

    def try_out(
        self, compute_loss: Callable[..., Any], model: Any, inputs: Any
    ) -> list[float]:
        """Find out, on a micro-batch, what its loss makes of the items.

        Args:
            compute_loss: The Trainer's.
            model: As it calls it.
            inputs: Of the micro-batch.

        Returns:
            The findings, for :meth:`settle`: those of one replica are for all.
        """
        counts = [int(_items(inputs, shifts=one)) for one in (False, True)]
        whole, twice, mean = _losses(compute_loss, model, inputs, counts[0])
        if not (math.isfinite(whole) and whole and math.isfinite(twice)):
            return [0.0, 1.0, -1.0]
        looks = abs(2 * twice - whole) < abs(twice - whole)
        if not (looks and mean and math.isfinite(mean)):
            return [1.0, float(looks), -1.0]
        over = counts[0] * whole / mean / self.times(counts[0])
        found = min((abs(over - count), shifts) for shifts, count in enumerate(counts))
        return [1.0, 1.0, float(found[1]) if found[0] < _CLOSE * over else -1.0]

    def settle(self, is_tried: float, looks: float, shifts: float) -> None:
        """Take the findings for what is so from now on.

        Args:
            is_tried: Whether there are any.
            looks: Whether the loss goes by the number of items.
            shifts: Whether it leaves out the first label; negative where unknown.
        """
        self.is_tried, self._looks = bool(is_tried), bool(looks)
        self._shifts = None if shifts < 0 else bool(shifts)

    def is_divided(self, num_items: Any, told: Any) -> bool:
        """Return whether ``training_step`` divides the loss by the micro-batches.

        One of a user's own that does not tell ``compute_loss`` the items gets a mean
        from it, and has to.

        Args:
            num_items: As the Trainer counted.
            told: Those that ``compute_loss`` was told.
        """
        trainer = self._trainer
        says = getattr(trainer, "loss_is_scaled_for_ga", None)
        if says is not None:
            return not says
        if num_items is not None and told is None:
            return True
        if trainer.compute_loss_func is not None:
            return False
        return num_items is None or not trainer.model_accepts_loss_kwargs

    def is_normalized(self, num_items: Any) -> bool:
        """Return whether a loss that is not divided is one of the whole update.

        Args:
            num_items: Of the update.
        """
        if getattr(self._trainer, "loss_is_scaled_for_ga", None):
            return True
        return num_items is not None and self._looks

    def times(self, num_items: Any) -> int:
        """Return what the Trainer multiplies a loss by: the replicas, or one.

        Args:
            num_items: That ``compute_loss`` was told.
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


def _items(batch: Any, *, shifts: bool) -> torch.Tensor:
    """Return how many labels of a micro-batch a loss is taken at."""
    if "shift_labels" in batch:
        labels = batch["shift_labels"]
    else:
        labels = batch["labels"][..., 1:] if shifts else batch["labels"]
    return labels.ne(_IGNORED).sum()


def _losses(
    compute_loss: Callable[..., Any], model: Any, inputs: Any, items: int
) -> list[float]:
    """Return the losses at so many items, at twice as many, and without a number."""
    device = next(model.parameters()).device
    kept = [device] if device.type == "cuda" else []
    found: list[float] = []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(kept):
            for number in (items, 2 * items, None):
                given = None if number is None else torch.tensor(number, device=device)
                loss = compute_loss(model, dict(inputs), num_items_in_batch=given)
                found.append(float(loss))
    except TypeError:
        # Of one's own functions not all do without the number.
        found += [math.nan] * (3 - len(found))
    finally:
        model.train()
    return found
