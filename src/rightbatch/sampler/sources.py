"""Where a replica's micro-batches come from: tensors, items, or loading processes."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from rightbatch.sampler.cuts import Dealing, Layout
from rightbatch.sampler.draws import Draws, RowsAt, generators_put_back
from rightbatch.sampler.order import Order
from rightbatch.sampler.update_batch import ForwardPass, Piece

# About this much is gathered at once: few gathers, and the views stay in cache.
CHUNK_BYTES = 2**20
# Examples that a replica repeats where it has none: batch normalization needs two.
MOST_SPARE = 2


class Source(Protocol):
    """Loads what of the next positions is a replica's."""

    def load(self, first: int, count: int) -> list[Piece]:
        """Return this replica's share of `count` positions from `first` on.

        Args:
            first: A position of the stream.
            count: How many positions, over all replicas.

        Returns:
            Batches, each with the examples it holds, in the stream's order; where no
            position is this replica's one batch that counts for none.
        """
        ...

    def reset(self) -> None:
        """Forget what was loaded ahead."""
        ...


class TensorSource:
    """Gathers rows of tensors, a chunk of several updates at a time.

    Args:
        tensors: Rows along the first axis.
        order: Which row comes where.
        dealing: Which positions are whose.
        end: ``end(position)``, a position no chunk that begins before it may pass.
    """

    def __init__(
        self,
        tensors: tuple[Tensor, ...],
        order: Order,
        dealing: Dealing,
        end: Callable[[int], int],
    ) -> None:
        self._tensors = tensors
        self._order = order
        self._deal = dealing
        self._end_after = end
        row_bytes = sum(tensor[:1].nbytes for tensor in tensors)
        # One epoch at most: each further one costs a permutation of its own.
        rows = min(len(tensors[0]), int(CHUNK_BYTES / max(row_bytes, 1)))
        self._chunk_examples = rows
        self.reset()

    def reset(self) -> None:
        """Forget the chunk."""
        self._chunk: tuple[Tensor, ...] = ()
        self._first = self._stop = 0

    def passes(self, first: int, layout: Layout) -> tuple[ForwardPass, ...]:
        """Return this replica's forward passes of one update.

        Args:
            first: Position of the update.
            layout: How it is cut.
        """
        count, local = layout.num_examples, layout.local_examples
        if count % self._deal.granule:
            rows = self._own_rows(first, count) if local else self._spare(first, count)
            parts = self._gathered(rows)
        else:
            start = self._start_in_chunk(first, count)
            parts = tuple(t[start : start + local] for t in self._chunk)
        if len(layout.passes) == 1:
            return (ForwardPass(parts, *layout.passes[0]),)
        return next(_in_passes(parts, layout, 1))

    def passes_ahead(
        self, first: int, layout: Layout
    ) -> Iterator[tuple[ForwardPass, ...]]:
        """Return those of updates in a row, as far as the chunk goes.

        Args:
            first: Position of the first update.
            layout: How each is cut; its examples a multiple of the granule.
        """
        start = self._start_in_chunk(first, layout.num_examples)
        num = (len(self._chunk[0]) - start) // layout.local_examples
        stop = start + num * layout.local_examples
        return _in_passes(tuple(t[start:stop] for t in self._chunk), layout, num)

    def _start_in_chunk(self, first: int, count: int) -> int:
        """Return where in the chunk an update begins, having gathered it if need be."""
        behind = first - self._first
        inside = self._first <= first and first + count <= self._stop
        if not inside or behind % self._deal.granule:
            wanted = max(1, self._chunk_examples // count) * count
            room = self._end_after(first) - first
            taken = max(count, min(wanted, room - room % self._deal.granule))
            self._chunk = self._gathered(self._own_rows(first, taken))
            self._first, self._stop, behind = first, first + taken, 0
        return behind // self._deal.num_replicas

    def _spare(self, first: int, count: int) -> Tensor:
        return self._order.take(first, min(count, MOST_SPARE))

    def _own_rows(self, first: int, count: int) -> Tensor:
        return own_rows(self._order.take(first, count), self._deal)

    def _gathered(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.index_select(0, rows.to(t.device)) for t in self._tensors)


def _in_passes(
    parts: tuple[Tensor, ...], layout: Layout, num: int
) -> Iterator[tuple[ForwardPass, ...]]:
    """Yield the passes of each of `num` updates, whose rows `parts` holds."""
    passes = layout.passes
    if len(passes) == 1:
        size, micro_batches = passes[0]
        for batch in zip(*(part.split(size) for part in parts), strict=True):
            yield (ForwardPass(batch, size, micro_batches),)
        return
    sizes = layout.sizes * num
    views = zip(*(part.split(sizes) for part in parts), strict=True)
    for _ in range(num):
        yield tuple(
            ForwardPass(
                batch if size else tuple(t[:MOST_SPARE] for t in parts), size, pieces
            )
            for (size, pieces), batch in zip(passes, views, strict=False)
        )


class ItemSource:
    """Takes items one by one, in this process.

    Args:
        dataset: Map-style.
        order: Which row comes where.
        dealing: Which positions are whose.
        collate: Makes a batch of a list of items; stacks tensors when None.
        draws: What items made by chance are drawn from; this process's generators, as
            they are, when None.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        order: Order,
        dealing: Dealing,
        collate: Callable[[list[Any]], Any] | None,
        draws: Draws | None = None,
    ) -> None:
        self._dataset = dataset
        self._order = order
        self._deal = dealing
        self._collate = collate
        self._draws = draws

    def load(self, first: int, count: int) -> list[Piece]:
        """Return this replica's micro-batches; one batch of all where that is the same.

        Stacking is: micro-batches stacked and then joined are the examples stacked.
        """
        if not self._deal.local(count):
            return [(self.load_one(first, min(count, MOST_SPARE)), 0)]
        if self._collate is None and self._draws is None:
            rows = own_rows(self._order.take(first, count), self._deal)
            return [(self._batch(rows), len(rows))]
        return [
            (self.load_one(begin, size), size)
            for begin, size in self._deal.pieces(first, count)
        ]

    def load_one(self, begin: int, size: int) -> Any:
        """Return one micro-batch."""
        rows = self._order.take(begin, size)
        if self._draws is None:
            return self._batch(rows)
        with generators_put_back():
            items = self._draws.items(self._dataset, begin, rows.tolist())
            return (self._collate or default_collate)(items)

    def reset(self) -> None:
        """Nothing is loaded ahead."""

    def _batch(self, rows: Tensor) -> Any:
        items = [self._dataset[row] for row in rows.tolist()]
        return (self._collate or default_collate)(items)


class WorkerSource:
    """Micro-batches that other processes load ahead, whatever the batch size will be.

    Args:
        items: Loads what was not foreseen, in this process.
        order: Which row comes where; its own, since it runs ahead.
        cuts: ``cuts(position)``, this replica's micro-batches from there on.
        make_loader: Makes a loader of what yields positions and rows.
    """

    def __init__(
        self,
        items: ItemSource,
        order: Order,
        dealing: Dealing,
        cuts: Callable[[int], Iterator[tuple[int, int]]],
        make_loader: Callable[[Any], DataLoader[Any]],
    ) -> None:
        self._items = items
        self._deal = dealing
        self._rows = _RowsAhead(order, cuts)
        self._loader = make_loader(self._rows)
        self._loaded: Iterator[Any] | None = None

    def load(self, first: int, count: int) -> list[Piece]:
        """Return this replica's micro-batches, loaded ahead where foreseen."""
        pieces = self._deal.pieces(first, count)
        if not pieces:
            return self._items.load(first, count)
        if self._loaded is None and count >= self._deal.granule:
            self._rows.begin_at(first)
            self._loaded = iter(self._loader)
        return [(self._load_one(*piece), piece[1]) for piece in pieces]

    def reset(self) -> None:
        """Forget what was loaded ahead; the processes live on."""
        self._loaded = None

    def _load_one(self, begin: int, size: int) -> Any:
        loaded, ahead = self._loaded, self._rows.foreseen
        while loaded is not None:
            foreseen = ahead.popleft() if ahead else (begin, size)
            if foreseen[0] > begin or (foreseen[0] == begin and foreseen[1] != size):
                self._loaded = None
                break
            batch = next(loaded)
            if foreseen[0] == begin:
                return batch
        return self._items.load_one(begin, size)


class _RowsAhead:
    """Position and rows of each micro-batch to load, without an end.

    It knows nothing of who loads: a source that nobody has any more is freed at once,
    its processes with it.
    """

    def __init__(
        self, order: Order, cuts: Callable[[int], Iterator[tuple[int, int]]]
    ) -> None:
        self._order = order
        self._cuts = cuts
        self._begin = 0
        self.foreseen: deque[tuple[int, int]] = deque()

    def begin_at(self, position: int) -> None:
        """Have the next time around begin at a position."""
        self._begin = position
        self.foreseen.clear()

    def __iter__(self) -> Iterator[RowsAt]:
        for begin, size in self._cuts(self._begin):
            self.foreseen.append((begin, size))
            yield begin, self._order.take(begin, size).tolist()


def own_rows(rows: Tensor, dealing: Dealing) -> Tensor:
    """Return a replica's share of an update's rows, in order.

    Args:
        rows: Of the whole update.
        dealing: Which are whose.

    Example:
        >>> deal = Dealing(micro_batch_size=2, num_replicas=2, rank=1)
        >>> own_rows(torch.arange(11), deal).tolist()
        [2, 3, 6, 7, 10]
    """
    if dealing.num_replicas == 1:
        return rows
    rounds, begin, share = dealing.share(len(rows))
    table = rows[: rounds * dealing.granule].view(
        rounds, dealing.num_replicas, dealing.micro_batch_size
    )
    own = table[:, dealing.rank].reshape(-1)
    return torch.cat([own, rows[begin : begin + share]]) if share else own
