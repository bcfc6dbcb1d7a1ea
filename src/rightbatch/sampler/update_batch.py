"""One update's examples, cut into the forward passes of this replica."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import torch

from rightbatch._checks import positive_integer
from rightbatch.sampler.cuts import Cut
from rightbatch.sampler.nesting import (
    NotJoinableError,
    cut,
    joined,
    length_of,
    moved,
)
from rightbatch.sampler.turns import all_can


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """What goes through the model at once.

    Args:
        batch: As the data set and its collate make it, on the stream's device.
        num_examples: How many examples it counts for. Zero where a replica has none
            left while others have: the batch then repeats two, to keep step, or one
            where there are no two, and is to be weighted zero. Batch normalization
            cannot train on one.
        num_micro_batches: How many micro-batches are in it, wholly or in part.
    """

    batch: Any
    num_examples: int
    num_micro_batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Where forward passes go, and whether the replicas have to agree on their cut.

    Args:
        device: Where passes go when they are asked for; None to leave them.
        non_blocking: Whether they go there without waiting.
        together: Whether the processes of the default group cut alike.
        count: How many examples a batch counts for, where that is not its length.
    """

    device: torch.device | None = None
    non_blocking: bool = False
    together: bool = False
    count: Callable[[Any], int] | None = None

    def rows(self, one: ForwardPass) -> int:
        """Return how long a pass is along its first axis, a repeated example not."""
        if self.count is None or not one.num_examples:
            return one.num_examples
        return length_of(one.batch) or 1

    def counted(self, one: ForwardPass) -> ForwardPass:
        """Return a pass with the examples it counts for in place of its rows."""
        if self.count is None or not one.num_examples:
            return one
        return replace(one, num_examples=self.count(one.batch))

    def all_can(self, this_one: bool) -> bool:
        """Return whether every replica can join its batches."""
        return all_can(this_one) if self.together else this_one


@dataclass(slots=True, eq=False)
class UpdateBatch:
    """The examples of one update.

    Args:
        passes: Of this replica; as many on every replica.
        num_examples: Over all replicas.
        local_examples: Of this replica.
        first_example: The stream's position before this update.
        layout: How it was cut.
        delivery: Where the passes go.
    """

    passes: Sequence[ForwardPass]
    num_examples: int
    local_examples: int
    first_example: int
    layout: Cut
    delivery: Delivery

    @property
    def is_padded(self) -> bool:
        """Whether some replica has a pass of no examples."""
        return self.layout.is_padded

    def recut(self, largest_pass: int) -> Self:
        """Return the same examples in smaller forward passes.

        For an update that ran out of memory: the global batch stays what it was. With
        several replicas all have to cut alike.

        Args:
            largest_pass: Examples of one pass at most; may be below the micro-batch
                size. Batches that cannot be cut stay as they are.

        Returns:
            A new update of the same examples in the same order.

        Raises:
            InputError: `largest_pass` is not a whole number of at least one.

        Example:
            >>> import torch
            >>> from torch.utils.data import TensorDataset
            >>> from rightbatch.sampler import MicroBatchStream
            >>> stream = MicroBatchStream(TensorDataset(torch.arange(9)), 2)
            >>> update = stream.next(8)
            >>> [one.num_examples for one in update.recut(3).passes]
            [2, 2, 2, 2]
        """
        largest = positive_integer("UpdateBatch.recut", "largest_pass", largest_pass)
        layout = self.layout.with_largest(largest)
        passes = self.passes
        held = passes.held if isinstance(passes, PassesToMove) else passes
        pieces = [(one.batch, self.delivery.rows(one)) for one in held]
        passes = make_passes(pieces, layout, self.delivery)
        return replace(self, passes=passes, layout=layout)


class PassesToMove(Sequence[ForwardPass]):
    """Forward passes that go to the device one by one, as they are asked for.

    An update of many passes would not fit there at once.
    """

    def __init__(
        self, held: Sequence[ForwardPass], device: torch.device, *, non_blocking: bool
    ) -> None:
        self.held = held
        self.device = device
        self.non_blocking = non_blocking

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return tuple(self._moved(one) for one in self.held[place])
        return self._moved(self.held[place])

    def __iter__(self) -> Iterator[ForwardPass]:
        return map(self._moved, self.held)

    def _moved(self, one: ForwardPass) -> ForwardPass:
        batch = moved(one.batch, self.device, non_blocking=self.non_blocking)
        return replace(one, batch=batch)


Piece = tuple[Any, int]


def make_passes(
    pieces: Sequence[Piece],
    layout: Cut,
    delivery: Delivery,
) -> Sequence[ForwardPass]:
    """Return the forward passes that a layout makes of some pieces.

    Args:
        pieces: Batches with the examples each holds, in order; together those of the
            layout. One with none of its own is there for empty passes.
        layout: How many examples each pass has.
        delivery: Where passes go, and what replicas agree on.

    Returns:
        As many as the layout has; where the pieces of some replica cannot be joined,
        each piece by itself on all of them.

    Example:
        >>> from rightbatch.sampler.cuts import Dealing, Layout
        >>> layout = Layout(dealing=Dealing(micro_batch_size=2), num_examples=3)
        >>> pieces = [(torch.tensor([7, 8]), 2), (torch.tensor([9]), 1)]
        >>> [one.batch.tolist() for one in make_passes(pieces, layout, Delivery())]
        [[7, 8], [9]]
    """
    passes: tuple[ForwardPass, ...] | None
    try:
        passes = _joined_passes(pieces, layout)
    except NotJoinableError:
        passes = None
    if not delivery.all_can(passes is not None) or passes is None:
        passes = _single_passes(pieces, layout)
    if delivery.count is not None:
        passes = tuple(delivery.counted(one) for one in passes)
    if delivery.device is None:
        return passes
    return PassesToMove(passes, delivery.device, non_blocking=delivery.non_blocking)


def _joined_passes(pieces: Sequence[Piece], layout: Cut) -> tuple[ForwardPass, ...]:
    left = [(batch, 0, count) for batch, count in reversed(pieces) if count]
    passes: list[ForwardPass] = []
    for examples, micro_batches in layout.passes:
        if not examples:
            passes.append(_empty_pass(pieces))
            continue
        parts: list[Any] = []
        counts: list[int] = []
        while sum(counts) < examples:
            batch, start, count = left.pop()
            stop = min(count, start + examples - sum(counts))
            parts.append(cut(batch, start, stop, count))
            counts.append(stop - start)
            if stop < count:
                left.append((batch, stop, count))
        passes.append(ForwardPass(joined(parts, counts), examples, micro_batches))
    return tuple(passes)


def _single_passes(pieces: Sequence[Piece], layout: Cut) -> tuple[ForwardPass, ...]:
    """Return each micro-batch as its own pass, or as several where it has to be."""
    passes: list[ForwardPass] = []
    for batch, count in pieces:
        equal = -(-count // layout.units_per_piece)
        if count:
            largest = min(layout.most_examples or count, equal)
            passes += _cut_if_possible(batch, count, largest)
    return tuple(passes + [_empty_pass(pieces)] * (layout.num_pieces - len(passes)))


def _cut_if_possible(batch: Any, count: int, largest: int) -> list[ForwardPass]:
    bounds = [*range(0, count, largest), count]
    try:
        return [
            ForwardPass(cut(batch, start, stop, count), stop - start, 1)
            for start, stop in pairwise(bounds)
        ]
    except NotJoinableError:
        return [ForwardPass(batch, count, 1)]


def _empty_pass(pieces: Sequence[Piece]) -> ForwardPass:
    batch, count = pieces[0]
    try:
        return ForwardPass(cut(batch, 0, 2, count) if count > 2 else batch, 0, 0)
    except NotJoinableError:
        return ForwardPass(batch, 0, 0)
