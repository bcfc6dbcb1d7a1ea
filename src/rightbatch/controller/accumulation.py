"""A gradient from several forward passes: exactly the mean over the update's batch."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from rightbatch.controller.acting import Acting
from rightbatch.controller.sensing import NoiseSensor, Sensing
from rightbatch.controller.shared import GradientSharing
from rightbatch.controller.update import entered
from rightbatch.errors import InputError
from rightbatch.sampler import ForwardPass, Stream, UpdateBatch


class Accumulation:
    """What an update asks for around its passes.

    Args:
        optimizer: Of all or some of the model's parameters.
        stream: Where batches come from.
        sharing: Who shares the gradient.
        noise: Reads it on the way; None where nobody needs to know.
        sensing: How passes are weighed.
        acting: Mixed precision.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        stream: Stream,
        sharing: GradientSharing,
        noise: NoiseSensor | None,
        sensing: Sensing,
        acting: Acting,
    ) -> None:
        self._optimizer, self._stream, self._sharing = optimizer, stream, sharing
        self.noise, self._tokens, self._scaler = noise, sensing.tokens, acting.scaler
        self._weights: Sequence[float] = ()
        self._times = 0
        self.tokens = 0.0
        own: Any = type(optimizer).zero_grad
        self._empties_plainly = own is Optimizer.zero_grad
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._others = [p for p in sharing.model.parameters() if id(p) not in held]
        self._is_open = False
        self._is_plain = sharing.num_replicas == 1

    def start(self) -> None:
        """Begin another update; one that was broken off is forgotten."""
        self._times = 0
        if self._is_open and self.noise is not None:
            self.noise.discard()
        self._is_open = False

    def begin(self) -> None:
        """Empty the gradient; a closure comes here several times in one update."""
        if self._empties_plainly:
            # What `zero_grad` does, without what it costs on a small model.
            for group in self._optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        else:
            self._optimizer.zero_grad(set_to_none=True)
        self.empty_others()
        self._is_open = True
        if self._times and self.noise is not None:
            self.noise.discard()
        self._times += 1

    def empty_others(self) -> None:
        """Empty the gradients of parameters that this optimizer does not have.

        They would add up for ever, and be read as noise.
        """
        for parameter in self._others:
            parameter.grad = None

    def shares(self, batch: UpdateBatch) -> list[float]:
        """Return the factor of each pass's mean loss.

        The gradient is averaged over the P replicas, so a pass of b examples of B
        counts b P / B.

        Args:
            batch: Of this update.

        Returns:
            One factor per pass.

        Raises:
            InputError: No token of the batch counts.
        """
        passes = batch.passes
        if self._tokens is None:
            if self._is_plain and len(passes) == 1:
                return [1.0]
            self._weights = [part.num_examples for part in passes]
            total = float(batch.num_examples)
        else:
            tokens = self._tokens
            self._weights = [
                float(tokens(part.batch)) if part.num_examples else 0.0
                for part in passes
            ]
            total = self.tokens = self._sharing.sum([sum(self._weights)])[0]
        if not total > 0:
            raise InputError(
                "BatchSizeController: an update must hold a token that counts, got "
                "none.",
                "drop such examples, or count at least one",
            )
        factor = self._sharing.num_replicas / total
        return [weight * factor for weight in self._weights]

    def enter_pass(
        self, part: ForwardPass, place: int, *, is_last: bool
    ) -> AbstractContextManager[Any] | None:
        """Return the block that a pass runs in; None where it needs none.

        Args:
            part: The pass.
            place: Its number.
            is_last: Whether the gradient is complete after it.
        """
        exchange = self._sharing.without_exchange(is_last=is_last)
        noise = self.noise
        if noise is None or self._times > 1 or not noise.is_measuring:
            return exchange
        if not part.num_examples:
            return exchange
        weight = None if self._tokens is None else self._weights[place]
        return entered(exchange, noise.unit(part.num_examples, weight))

    def passes_done(self, batch: UpdateBatch) -> None:
        """Have the gradient read, once it is complete and before anyone changes it."""
        self._is_open = False
        if self.noise is not None and self._times == 1:
            scale = 1.0 if self._scaler is None else self._scaler.get_scale()
            self.noise.update(batch.num_examples, self._stream.taken, scale)

    @property
    def counts_tokens(self) -> bool:
        """Whether passes weigh by tokens."""
        return self._tokens is not None

    def scaled(self, loss: Tensor) -> Tensor:
        """Return a loss as mixed precision wants it."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def smaller_passes(self, batch: UpdateBatch) -> UpdateBatch:
        """Return the batch in forward passes half as large, as later ones will be.

        Raises:
            InputError: They hold one example each, or replicas share the batch.
        """
        largest = max(part.num_examples for part in batch.passes)
        if largest < 2:
            raise InputError(
                "Update.in_smaller_passes: a forward pass holds one example already.",
                "the model does not fit: use a smaller one, or checkpointing",
            )
        if not self._is_plain:
            raise InputError(
                "Update.in_smaller_passes: replicas share this batch, and the others "
                "are further on.",
                "begin with passes that fit: find_micro_batch_size",
            )
        self._times = 0
        if self.noise is not None:
            self.noise.discard()
        self._stream.largest_pass = largest // 2
        return batch.recut(largest // 2)
