"""The micro-batches of an update that a framework loads one by one."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from rightbatch.errors import InputError
from rightbatch.sampler import ForwardPass, UpdateBatch


@dataclass(slots=True)
class Window:
    """The micro-batches of one update: what was expected, and what came.

    Args:
        batch: As the stream counted it.
        expected: What all micro-batches weigh together, on all replicas.
        is_told: Whether the framework said so, or it was guessed from the first.
        passes: That came.
        weights: What each counts for.
        losses: Of each, as the framework has it.
        factors: Of each in the mean loss.
        withdrawn: Micro-batches that were left out.
        share: Factor of the loss of the one under way.
        block: Of the noise meter, around it.
        size: Examples that came, over all replicas.
        loss: Their mean.
        grad_sq_norm: Of the gradient, where somebody looks.
        noise_scale: That a rule may act on.
        step: The block in which learning rate and kin follow the batch.
        is_restored: Whether they are the user's own again.
        lr: Of the first group, in that block.

    Example:
        >>> from rightbatch.sampler import CountedStream
        >>> window = Window(CountedStream(4).next(8))
        >>> window.enter(4, None, replicas=1)
        >>> window.share, window.is_full
        (0.5, False)
    """

    batch: UpdateBatch
    expected: float = 0.0
    is_told: bool = False
    passes: list[ForwardPass] = field(default_factory=list[ForwardPass])
    weights: list[float] = field(default_factory=list[float])
    losses: list[Any] = field(default_factory=list[Any])
    factors: list[float] = field(default_factory=list[float])
    withdrawn: int = 0
    share: float = 1.0
    block: AbstractContextManager[Any] | None = None
    size: int = 0
    loss: float = math.nan
    grad_sq_norm: float | None = None
    noise_scale: float | None = None
    step: AbstractContextManager[float] | None = None
    is_restored: bool = False
    lr: float = 0.0

    @property
    def is_unknown(self) -> bool:
        """Whether nothing came yet, and nobody said what will."""
        return not self.passes and not self.is_told

    def enter(
        self,
        num_examples: int,
        weight: float | None,
        replicas: int,
        usual: float | None = None,
    ) -> None:
        """Let a micro-batch come.

        Args:
            num_examples: In it.
            weight: What it counts for, where that is not its examples.
            replicas: Who share the update.
            usual: What micro-batches are guessed to weigh; as this one when None.
        """
        if self.is_unknown:
            self.expected = float(self.batch.num_examples)
            if weight is not None:
                # Of the others nobody knows yet: it is put right at the end.
                guess = (weight if usual is None else usual) or 1
                self.expected = guess * len(self.batch.passes) * replicas
        # Nothing of a micro-batch is kept beyond it.
        self.passes.append(ForwardPass(None, num_examples, 1))
        self.weights.append(float(num_examples) if weight is None else weight)
        self.share = self.weights[-1] * replicas / self.expected

    def withdraw(self) -> None:
        """Take back the last one, which had no backward pass."""
        self.passes.pop()
        self.weights.pop()
        self.withdrawn += 1
        self.end_unit(InputError)

    def end_unit(self, error: type[Exception] | None) -> None:
        """Leave the noise meter's block.

        Args:
            error: That broke it off; None where it is whole.
        """
        if self.block is not None:
            self.block.__exit__(error, None, None)
            self.block = None

    @property
    def examples(self) -> float:
        """How many examples came, on this replica."""
        return float(sum(one.num_examples for one in self.passes))

    def weighed_loss(self) -> float:
        """Return the sum of the losses, each times its factor, waiting for it once."""
        losses, factors = self.losses, self.factors
        if not losses:
            return 0.0
        if factors.count(factors[0]) == len(factors):
            return float(sum(losses[1:], losses[0])) * factors[0]
        pairs = zip(losses, factors, strict=True)
        return float(sum(loss * factor for loss, factor in pairs))

    @property
    def is_full(self) -> bool:
        """Whether as many micro-batches came as were expected."""
        return len(self.passes) + self.withdrawn == len(self.batch.passes)


def shrink(optimizer: Optimizer, larger_by: float) -> None:
    """Divide the gradients of an optimizer's parameters.

    Args:
        optimizer: Whose.
        larger_by: What they are too large by.
    """
    with torch.no_grad():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(1 / larger_by)
