"""One stream of examples cut into fixed micro-batches, however large the batch."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.sampler.cuts import Dealing, Layout
from rightbatch.sampler.draws import DrawnItems, Draws
from rightbatch.sampler.examples import length_of_dataset, tensors_of
from rightbatch.sampler.loading import Loading
from rightbatch.sampler.order import Order
from rightbatch.sampler.sources import (
    ItemSource,
    Source,
    TensorSource,
    WorkerSource,
)
from rightbatch.sampler.update_batch import ForwardPass, UpdateBatch, make_passes

Tail = Literal["carry", "short", "drop"]
TAILS = ("carry", "short", "drop")
WHO = "MicroBatchStream"


class MicroBatchStream:
    """An endless stream of updates' examples, each of any batch size.

    The order of the examples is :class:`ExampleStream`'s: it depends on the seed and
    the epoch alone. An update takes the next examples of it. They are dealt out to the
    replicas a micro-batch at a time, and each replica joins 1, 2, 4, 8, ... of its
    micro-batches into a forward pass, up to the largest that fits; what is past that
    is accumulated. Position is counted in examples, so that a stream goes on exactly at
    another batch size, micro-batch size or number of replicas.

    Args:
        dataset: Map-style: ``len(dataset)`` and ``dataset[i]``. One that is gathered
            (see :class:`ExampleStream`) is not read item by item.
        micro_batch_size: Examples of one replica that are loaded together, and the
            least a forward pass has.
        seed: Decides the order, alone, and what loading processes draw.
        collate: Makes a micro-batch of a list of items; stacks tensors when None.
        tail: What happens where an epoch ends inside a batch. "carry": the batch goes
            on in the next epoch, nothing is lost; "short": the batch has what is left;
            "drop": what is left is skipped, at once where it is less than the batch
            before, else as soon as a larger batch is asked for.
        loading: Device, loading processes, largest forward pass, replicas.

    Raises:
        InputError: The data set is empty or has no length, one of its tensors holds
            NaN, a size is not positive, `largest_pass` is below the micro-batch size,
            or a micro-batch for each replica is more than the data set.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> stream = MicroBatchStream(TensorDataset(torch.arange(40)), 4)
        >>> [one.num_examples for one in stream.next(28).passes]
        [16, 8, 4]
        >>> stream.largest_pass = 8
        >>> [one.num_examples for one in stream.next(16).passes], stream.examples
        ([8, 8], 44)
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        micro_batch_size: int,
        *,
        seed: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        tail: Tail = "carry",
        loading: Loading = Loading(),  # noqa: B008  # frozen
    ) -> None:
        self._length = length_of_dataset(dataset)
        size = _checks.positive_integer(WHO, "micro_batch_size", micro_batch_size)
        self._deal = loading.dealing(size)
        if self.granule > self._length:
            raise InputError(
                f"{WHO}: `micro_batch_size` times {self._deal.num_replicas} replicas "
                f"must be at most the data set's {self._length} examples, "
                f"got {self.granule}.",
                "take a smaller micro-batch",
            )
        loading.check(size)
        _checks.one_of(WHO, "tail", tail, TAILS)
        self._tail: Tail = tail
        self._drops = tail == "drop"
        self._loading = loading
        self._device = loading.place
        self._delivery = loading.delivery
        self._seed = seed
        self._examples = self._skipped = 0
        self._source = self._source_of(dataset, collate)
        self.largest_pass = loading.largest_pass
        self._forget()

    # Position and sizes -----------------------------------------------------------

    @property
    def examples(self) -> int:
        """Position: examples handed out over all replicas, and skipped by "drop"."""
        return self._examples

    @property
    def taken(self) -> int:
        """Examples handed out over all replicas; those that "drop" skipped are not."""
        return self._examples - self._skipped

    @property
    def epoch(self) -> float:
        """Position in epochs."""
        return self._examples / self._length

    @property
    def dataset_size(self) -> int | None:
        """Examples of the data set."""
        return self._length

    @property
    def micro_batch_size(self) -> int:
        """Examples of one replica that are loaded together."""
        return self._deal.micro_batch_size

    @property
    def num_replicas(self) -> int:
        """How many replicas share each update."""
        return self._deal.num_replicas

    @property
    def device(self) -> torch.device:
        """Where batches are put."""
        return self._device

    @property
    def granule(self) -> int:
        """What a batch size is best a multiple of: a micro-batch for each replica."""
        return self._deal.granule

    @property
    def largest_pass(self) -> int | None:
        """Examples of one replica in one forward pass at most; None for any.

        May be set at any time, below the micro-batch size too: micro-batches are then
        cut, after an update that ran out of memory.
        """
        return self._largest_pass

    @largest_pass.setter
    def largest_pass(self, value: int | None) -> None:
        if value is not None:
            value = _checks.positive_integer(WHO, "largest_pass", value)
        self._largest_pass = value
        self._layouts: dict[tuple[int, int], Layout] = {}
        self._forget()

    def served(
        self, wish: float, how: Literal["nearest", "up", "down"] = "nearest"
    ) -> int:
        """Return the batch size that is served for a wish.

        Args:
            wish: Any positive number; infinity for as many as there are.
            how: Which way to round.

        Returns:
            A multiple of the granule, at least one and at most the data set.

        Raises:
            InputError: `wish` is not positive, or `how` is none of the three.

        Example:
            >>> from torch.utils.data import TensorDataset
            >>> stream = MicroBatchStream(TensorDataset(torch.arange(50)), 8)
            >>> [stream.served(wish) for wish in (1, 19.9, 20.1, 1000)]
            [8, 16, 24, 48]
        """
        return nearest_served(WHO, wish, how, self.granule, self._length)

    # Examples ---------------------------------------------------------------------

    def begins_at(self, batch_size: int) -> int:
        """Return the position at which an update of that size would begin.

        A loop that is to end with an epoch asks it before the update: with tail "drop"
        a batch that has grown may no longer fit into what is left.

        Args:
            batch_size: Over all replicas.

        Raises:
            InputError: `batch_size` is not positive or above the data set's size.

        Example:
            >>> from torch.utils.data import TensorDataset
            >>> data = TensorDataset(torch.arange(9))
            >>> stream = MicroBatchStream(data, 1, tail="drop")
            >>> stream.next(4).num_examples, stream.begins_at(5), stream.begins_at(6)
            (4, 4, 9)
        """
        return self._extent(self._check(batch_size))[0]

    def next(self, batch_size: int, *, min_units: int = 1) -> UpdateBatch:
        """Return the examples of the next update.

        Args:
            batch_size: Over all replicas.
            min_units: Forward passes wanted over all replicas at least: a meter of
                gradient noise wants some. Never more than there are examples.

        Returns:
            This replica's forward passes. With tail "short" the last of an epoch may
            have fewer examples than asked for.

        Raises:
            InputError: `batch_size` is not positive or above the data set's size, or
                `min_units` is not positive.
        """
        # The common case, first and bare: the same size as before, on tensors.
        if batch_size == self._ready_size and min_units == self._ready_units:
            for passes in self._ready:
                first = self._examples
                self._examples = first + batch_size
                if self._drops:
                    self._skip_rest(batch_size)
                layout, local = self._ready_layout, self._ready_local
                return UpdateBatch(
                    passes, batch_size, local, first, layout, self._delivery
                )
        return self._next(batch_size, min_units)

    def _next(self, batch_size: int, min_units: int) -> UpdateBatch:
        size = self._check(batch_size)
        first, count = self._extent(size)
        layout = self._layout(count, min_units)
        local = layout.local_examples
        passes: Sequence[ForwardPass]
        if isinstance(self._source, TensorSource):
            passes = self._tensor_passes(self._source, first, layout)
        else:
            pieces = self._source.load(first, count)
            passes = make_passes(pieces, layout, self._delivery)
        self._skipped += first - self._examples
        self._examples = first + count
        if self._drops:
            self._skip_rest(size)
        return UpdateBatch(passes, count, local, first, layout, self._delivery)

    def _tensor_passes(
        self, source: TensorSource, first: int, layout: Layout
    ) -> tuple[ForwardPass, ...]:
        """Return views of gathered rows; many updates' ahead where sizes repeat."""
        if layout is self._ready_layout and layout.num_examples % self.granule == 0:
            self._ready = source.passes_ahead(first, layout)
            self._ready_size = layout.num_examples
            self._ready_units = layout.min_units
            self._ready_local = layout.local_examples
            return next(self._ready)
        self._forget()
        self._ready_layout = layout
        return source.passes(first, layout)

    def _extent(self, size: int) -> tuple[int, int]:
        """Return where an update begins and how many positions it takes."""
        first = self._examples
        left = self._length - first % self._length
        if self._tail == "carry" or size <= left:
            return first, size
        return (first, left) if self._tail == "short" else (first + left, size)

    def _skip_rest(self, size: int) -> None:
        """Go to the next epoch where another batch of a size would not fit into this.

        Now, not when it is asked for: whoever looks at the position to end with an
        epoch, or to count epochs, is to see that this one is over.
        """
        left = -self._examples % self._length
        if left < size:
            self._examples += left
            self._skipped += left

    def _layout(self, count: int, min_units: int) -> Layout:
        layout = self._layouts.get((count, min_units))
        if layout is None:
            layout = self._layouts[count, min_units] = Layout(
                dealing=self._deal,
                num_examples=count,
                largest_pass=self._largest_pass,
                join=self._loading.join,
                min_units=_checks.positive_integer(WHO, "min_units", min_units),
            )
        return layout

    def _check(self, batch_size: int) -> int:
        size = _checks.positive_integer(WHO, "batch_size", batch_size)
        if size > self._length:
            raise InputError(
                f"{WHO}: `batch_size` must be at most the data set's "
                f"{self._length} examples, got {batch_size}."
            )
        return size

    def _forget(self) -> None:
        self._ready: Iterator[tuple[ForwardPass, ...]] = iter(())
        self._ready_size = self._ready_units = self._ready_local = 0
        self._ready_layout = Layout(dealing=self._deal, num_examples=1)

    # State ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and what decides the order: plain numbers."""
        return {
            "version": 1,
            "examples": self._examples,
            "skipped": self._skipped,
            "seed": self._seed,
            "dataset_size": self._length,
            "shuffle": self._loading.shuffle,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream of the same order was.

        Args:
            state: Of a stream at any batch size, micro-batch size or number of
                replicas.

        Raises:
            InputError: It is of another seed, data set size or order.
        """
        own = self.state_dict()
        missing = ", ".join(name for name in own if name not in state)
        if missing:
            raise InputError(
                f"{WHO}: the state must be of a {WHO}, got one without {missing}."
            )
        for name, value in own.items():
            if name not in ("examples", "skipped") and state[name] != value:
                raise InputError(
                    f"{WHO}: the state's `{name}` must be {value}, got {state[name]}.",
                    "make the stream as it was made for that run",
                )
        self._examples = int(state["examples"])
        self._skipped = int(state["skipped"])
        self._source.reset()
        self._forget()

    # Sources ----------------------------------------------------------------------

    def _source_of(
        self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any] | None
    ) -> Source | TensorSource:
        loading, deal = self._loading, self._deal
        order = Order(self._length, self._seed, shuffle=loading.shuffle)
        # No methods of the stream: a source that held it would keep both alive.
        end = partial(_chunk_end, self._tail, self._length)
        if collate is None:
            tensors = tensors_of(dataset, self._device)
            if tensors is not None:
                return TensorSource(tensors, order, deal, end)
        draws = Draws(seed=self._seed)
        if not loading.num_workers:
            own = draws if loading.by_position else None
            return ItemSource(dataset, order, deal, collate, own)
        items = ItemSource(dataset, order, deal, collate, draws)
        ahead = Order(self._length, self._seed, shuffle=loading.shuffle)
        drawn = DrawnItems(dataset, draws)
        make = partial(_loader, drawn, collate or default_collate, loading)
        cuts = partial(_cuts, deal, self._tail, self._length)
        return WorkerSource(items, ahead, deal, cuts, make)


def _chunk_end(tail: Tail, length: int, position: int) -> int:
    """Return how far what is gathered from a position on may go."""
    if tail == "carry":
        return position + length
    return position + length - position % length


def _cuts(
    deal: Dealing, tail: Tail, length: int, position: int
) -> Iterator[tuple[int, int]]:
    """Yield a replica's micro-batches, as aligned batch sizes will ask."""
    while True:
        count = deal.granule
        if tail != "carry":
            count = min(count, _chunk_end(tail, length, position) - position)
        yield from deal.pieces(position, count)
        position += count


def nearest_served(
    who: str, wish: float, how: str, granule: int, most: int | None
) -> int:
    """Return a multiple of `granule`, at least one and at most `most`, near a wish.

    Raises:
        InputError: `wish` is not positive, or `how` is no way to round.
    """
    _checks.one_of(who, "how", how, ("nearest", "up", "down"))
    if not wish > 0:
        raise InputError(f"{who}: `wish` must be positive, got {wish!r}.")
    rounds = wish / granule
    if most is not None:
        rounds = min(rounds, most // granule)
    if how == "up":
        return math.ceil(rounds) * granule
    return max(1, math.floor(rounds + 0.5 * (how == "nearest"))) * granule


def _loader(
    dataset: Dataset[Any],
    collate: Callable[[list[Any]], Any],
    loading: Loading,
    rows: Any,
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=rows,
        collate_fn=collate,
        num_workers=loading.num_workers,
        prefetch_factor=loading.prefetch_factor,
        persistent_workers=True,
        pin_memory=loading.pin_memory and torch.device(loading.device).type == "cuda",
        # Starting a loader draws a seed; not from the generator of the run.
        generator=torch.Generator().manual_seed(0),
    )
