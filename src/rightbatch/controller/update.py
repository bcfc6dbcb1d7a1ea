"""One update: forward passes to loop over, a backward for each, a step at the end."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from rightbatch.errors import InputError
from rightbatch.sampler import ForwardPass, UpdateBatch

_WHO = "Update"


class Gradient(Protocol):
    """What an update asks for around its passes."""

    @property
    def counts_tokens(self) -> bool:
        """Whether passes weigh by tokens."""
        ...

    def begin(self) -> None:
        """Empty the gradient."""
        ...

    def shares(self, batch: UpdateBatch) -> list[float]:
        """Return the factor of each pass's mean loss."""
        ...

    def enter_pass(
        self, part: ForwardPass, place: int, *, is_last: bool
    ) -> AbstractContextManager[Any] | None:
        """Return the block a pass runs in; None where it needs none."""
        ...

    def passes_done(self, batch: UpdateBatch) -> None:
        """Take notice that the gradient is complete."""
        ...

    def scaled(self, loss: Tensor) -> Tensor:
        """Return a loss scaled for mixed precision."""
        ...

    def smaller_passes(self, batch: UpdateBatch) -> UpdateBatch:
        """Return the same examples in smaller forward passes."""
        ...


class Update:
    """One update of the model, made by the loop that goes over it.

    .. code-block:: python

        for update in controller.updates(epochs=20):
            for part in update:
                loss = cross_entropy(model(part.batch[0]), part.batch[1])
                update.backward(loss)
            update.step()

    The gradient that `step` sees is the mean over the update's examples on all
    replicas, however many passes they come in.
    """

    __slots__ = (
        "_batch",
        "_done",
        "_finish",
        "_gradient",
        "_losses",
        "_open",
        "_shares",
        "_stepped",
    )

    def __init__(
        self,
        gradient: Gradient,
        batch: UpdateBatch,
        finish: Callable[["Update", Callable[[], Tensor] | None], None],
    ) -> None:
        self._gradient = gradient
        self._batch = batch
        self._finish = finish
        self._shares: list[float] = []
        self._losses: list[Tensor] = []
        self._open: int | None = None
        self._done = False
        self._stepped = False

    @property
    def batch_size(self) -> int:
        """Examples of the update, over all replicas."""
        return self._batch.num_examples

    @property
    def batch(self) -> UpdateBatch:
        """Its examples, as the stream cut them."""
        return self._batch

    @property
    def is_stepped(self) -> bool:
        """Whether the step was made."""
        return self._stepped

    @property
    def loss(self) -> Tensor:
        """This replica's part of the mean loss over the batch, detached, shape ().

        Raises:
            InputError: No pass had its backward yet.
        """
        if not self._losses:
            raise InputError(
                f"{_WHO}.loss: there is none before the first backward.",
                "go over the parts first",
            )
        total = self._losses[0]
        for one in self._losses[1:]:
            total = total + one
        return total

    def __iter__(self) -> Generator[ForwardPass]:
        """Go over the forward passes; each wants one call of :meth:`backward`.

        Yields:
            The passes of this replica.

        Raises:
            InputError: A pass was left without its backward.
        """
        gradient, passes = self._gradient, self._batch.passes
        gradient.begin()
        self._losses.clear()
        self._done = False
        self._shares = gradient.shares(self._batch)
        last = len(passes) - 1
        for place, part in enumerate(passes):
            block = gradient.enter_pass(part, place, is_last=place == last)
            self._open = place
            if block is None:
                yield part
            else:
                with block:
                    yield part
            # Whoever took the pass had the floor in between, and `backward` closes it.
            if self._open is not None:  # pyright: ignore[reportUnnecessaryComparison]
                self._open = None
                raise InputError(
                    f"{_WHO}: a forward pass ended without its backward.",
                    "call update.backward(loss) for each part",
                )
        gradient.passes_done(self._batch)
        self._done = True

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one forward pass, weighed as its part of the batch.

        Args:
            loss: The mean over the examples of the pass (or over its tokens, where the
                controller counts them), shape (); or the loss of each, shape (b,).

        Raises:
            InputError: No pass is open, it had its backward, or the loss is of another
                shape.
        """
        place = self._open
        if place is None:
            raise InputError(
                f"{_WHO}.backward: no forward pass waits for one.",
                "call it once per part, inside `for part in update`",
            )
        if loss.ndim:
            count = self._batch.passes[place].num_examples
            if self._gradient.counts_tokens:
                raise InputError(
                    f"{_WHO}.backward: `loss` must be the mean over the tokens of the "
                    f"pass, shape (), got shape {tuple(loss.shape)}.",
                    "passes weigh by their tokens, as Sensing(tokens=...) says",
                )
            # A pass of no examples repeats some, to keep step, and counts nothing.
            if count and loss.shape != (count,):
                raise InputError(
                    f"{_WHO}.backward: `loss` must be a mean, shape (), or the loss of "
                    f"each example, shape ({count},), got shape {tuple(loss.shape)}."
                )
            loss = loss.mean()
        share = self._shares[place]
        if share != 1:
            loss = loss * share
        self._open = None
        self._losses.append(loss.detach())
        self._gradient.scaled(loss).backward()  # pyright: ignore[reportUnknownMemberType]

    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        """Make the update; learning rate and kin follow the batch while it is made.

        Args:
            closure: For optimizers that ask for the loss again, from :meth:`closure`.

        Raises:
            InputError: Passes are left, or the step was made already.
            DivergedError: The loss is lost; the last good state is put back.
        """
        if self._stepped:
            raise InputError(f"{_WHO}.step: this update was made already.")
        if closure is None and not self._done:
            raise InputError(
                f"{_WHO}.step: forward passes are left.",
                "go over all parts first, and step after the loop",
            )
        self._finish(self, closure)
        self._stepped = True

    def closure(self, loss_of: Callable[[ForwardPass], Tensor]) -> Callable[[], Tensor]:
        """Return what an optimizer calls for the loss and its gradient, as often as so.

        Args:
            loss_of: ``loss_of(part)``, as :meth:`backward` takes it.

        Returns:
            The closure, for :meth:`step`.
        """

        def evaluate() -> Tensor:
            with torch.enable_grad():
                for part in self:
                    self.backward(loss_of(part))
            return self.loss

        return evaluate

    def in_smaller_passes(self) -> None:
        """Begin the update anew in forward passes half as large.

        For the ``except`` of a loop that ran out of memory. The batch stays as it is;
        so do the later ones, in smaller passes too.

        Raises:
            InputError: The passes cannot be made smaller, or replicas share the batch.
        """
        self._batch = self._gradient.smaller_passes(self._batch)
        self._losses.clear()
        self._open, self._done = None, False


def entered(
    *blocks: AbstractContextManager[Any] | None,
) -> AbstractContextManager[Any] | None:
    """Return one block for several; None where there is none.

    Args:
        blocks: Entered in order.

    Example:
        >>> entered(None, None) is None
        True
    """
    there = [block for block in blocks if block is not None]
    if len(there) < 2:
        return there[0] if there else None
    return _together(there)


@contextmanager
def _together(blocks: list[AbstractContextManager[Any]]) -> Generator[None]:
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block)
        yield
