"""A stream of examples: shuffled anew each epoch, cut into batches of any size.

The order of the examples depends on the seed alone. Position is counted in examples,
so a stream cut into batches of 3 and then of 5 gives the same examples as one cut
into batches of 8, and a resume at another batch size is exact.
"""

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, default_collate

from rightbatch._checks import positive_integer
from rightbatch.errors import InputError
from rightbatch.sampler.nesting import moved
from rightbatch.sampler.order import Order

# About this much is gathered at once: few gathers, and the views stay in cache.
CHUNK_BYTES = 2**20


class ExampleStream:
    """An endless stream of batches, each of exactly the size asked for.

    A batch may straddle two epochs. A ``TensorDataset`` is gathered a chunk at a time
    and batches are views of the chunk; any other map-style data set goes item by item
    through `collate`. So does a ``TensorDataset`` whose class has a ``__getitem__`` of
    its own, which may augment or normalize. Where that gives the rows of ``.tensors``
    and nothing else, ``rows_are_items = True`` in the same class says so, and the data
    set is gathered.

    Args:
        dataset: Map-style: ``len(dataset)`` and ``dataset[i]``.
        seed: Decides the order, alone.
        collate: Makes a batch of a list of items; stacks tensors when None.
        device: Where batches are put.
        example_count: ``example_count(item)``, how many examples an item counts
            for, where that is not one. A batch is then the fewest items that
            reach the batch size, and may be over it by part of its last item.

    Raises:
        InputError: The data set is empty, or one of its tensors holds NaN.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> stream = ExampleStream(TensorDataset(torch.arange(4)), seed=0)
        >>> [len(stream.next(3)[0]) for _ in range(3)], stream.examples
        ([3, 3, 3], 9)
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        seed: int,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        device: torch.device | str = "cpu",
        example_count: Callable[[Any], int] | None = None,
    ) -> None:
        self._dataset: Any = dataset
        self._length = length_of_dataset(dataset)
        self._order = Order(self._length, seed)
        self._collate: Callable[[list[Any]], Any] = collate or default_collate
        self._device = torch.device(device)
        self._example_count = example_count
        self._tensors: tuple[Tensor, ...] | None = None
        if collate is None and example_count is None:
            self._tensors = tensors_of(dataset, self._device)
        if self._tensors is not None:
            row_bytes = sum(t.nbytes for t in self._tensors) / self._length
            # One epoch at most: each further one costs a permutation of its own.
            rows = min(self._length, int(CHUNK_BYTES / max(row_bytes, 1)))
            self._chunk_examples = rows
        self._views: Iterator[Any] = iter(())
        self._views_of = 0
        self._items = 0
        self._examples = 0

    @property
    def examples(self) -> int:
        """How many examples have been handed out."""
        return self._examples

    @property
    def tensors(self) -> tuple[Tensor, ...] | None:
        """Tensors whose rows are the items; None where it goes item by item."""
        return self._tensors

    def rows(self, count: int, *, ahead: int = 0) -> Tensor:
        """Return which rows of :attr:`tensors` come next; hands none out.

        Args:
            count: How many rows.
            ahead: Examples that are passed over first.
        """
        return self._order.take(self._examples + ahead, count)

    def skip(self, count: int) -> None:
        """Take `count` examples as handed out."""
        self._views_of = 0
        self._examples += count

    def next(self, batch_size: int) -> Any:
        """Return the next `batch_size` examples as one batch.

        Raises:
            InputError: `batch_size` is not positive or above the data set's size.
        """
        # The common case, first and bare: this line is in the inner loop of a sweep.
        if batch_size == self._views_of:
            for batch in self._views:
                self._examples += batch_size
                return batch
        self._check(batch_size)
        if self._tensors is not None:
            return self._refill(self._tensors, batch_size)
        if self._example_count is not None:
            return self._next_counted(batch_size, self._example_count)
        batch = self._batch_of(self._order.take(self._examples, batch_size))
        self._examples += batch_size
        return batch

    def _refill(self, tensors: tuple[Tensor, ...], batch_size: int) -> Any:
        batches = max(1, self._chunk_examples // batch_size)
        rows = self._order.take(self._examples, batches * batch_size)
        chunk = [t.index_select(0, rows.to(t.device)) for t in tensors]
        self._views = zip(*(part.split(batch_size) for part in chunk), strict=True)
        self._views_of = batch_size
        self._examples += batch_size
        return next(self._views)

    def _next_counted(self, batch_size: int, count: Callable[[Any], int]) -> Any:
        items: list[Any] = []
        examples = 0
        while examples < batch_size:
            if len(items) == self._length:
                raise InputError(
                    f"ExampleStream: `batch_size` must be at most the data set's "
                    f"{examples} examples, got {batch_size}."
                )
            item = self._dataset[int(self._order.take(self._items + len(items), 1))]
            examples += positive_integer("workload", "example_count", count(item))
            items.append(item)
        self._items += len(items)
        self._examples += examples
        return moved(self._collate(items), self._device)

    def _batch_of(self, rows: Tensor) -> Any:
        items = [self._dataset[row] for row in rows.tolist()]
        return moved(self._collate(items), self._device)

    def _check(self, batch_size: int) -> None:
        positive_integer("ExampleStream", "batch_size", batch_size)
        if batch_size > self._length and self._example_count is None:
            raise InputError(
                f"ExampleStream: `batch_size` must be at most the data set's "
                f"{self._length} examples, got {batch_size}."
            )


def whole(
    dataset: Dataset[Any],
    *,
    collate: Callable[[list[Any]], Any] | None = None,
    device: torch.device | str = "cpu",
) -> Any:
    """Return the whole data set, in its own order, as one batch.

    Raises:
        InputError: It is empty, or one of its tensors holds NaN.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> whole(TensorDataset(torch.arange(3), torch.ones(3)))
        (tensor([0, 1, 2]), tensor([1., 1., 1.]))
    """
    return chunks(dataset, length_of_dataset(dataset), collate=collate, device=device)[
        0
    ]


def chunks(
    dataset: Dataset[Any],
    chunk_size: int,
    *,
    order: Sequence[int] | Tensor | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Any, ...]:
    """Return the whole data set as batches of `chunk_size`; the last may be shorter.

    Args:
        dataset: Map-style.
        chunk_size: Examples per batch.
        order: Rows in the order wanted (the hardest first, say); all when None.
        collate: Makes a batch of a list of items; stacks tensors when None.
        device: Where batches are put.

    Returns:
        The batches; together each row of `order` once.

    Raises:
        InputError: The data set is empty, one of its tensors holds NaN, or
            `chunk_size` is not positive.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> chunks(TensorDataset(torch.arange(3)), 2, order=[2, 1, 0])
        ((tensor([2, 1]),), (tensor([0]),))
    """
    length = length_of_dataset(dataset)
    size = positive_integer("chunks", "chunk_size", chunk_size)
    rows = torch.arange(length) if order is None else torch.as_tensor(order)
    tensors = tensors_of(dataset) if collate is None else None
    if tensors is not None:
        # Picked where they lie: the device need not hold those not asked for.
        if order is not None:
            tensors = tuple(t.index_select(0, rows.to(t.device)) for t in tensors)
        tensors = tuple(t.to(device) for t in tensors)
        return tuple(zip(*(t.split(size) for t in tensors), strict=True))
    items: Any = dataset
    join: Callable[[list[Any]], Any] = collate or default_collate
    return tuple(
        moved(join([items[row] for row in part.tolist()]), torch.device(device))
        for part in rows.split(size)
    )


def length_of_dataset(dataset: Dataset[Any]) -> int:
    """Return how many items a map-style data set holds.

    Raises:
        InputError: It is empty, or does not know its length.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(
            f"the data set must have a length and items by number, got "
            f"{type(dataset).__name__}.",
            "IterableStream takes any iterable of batches",
        )
    length = len(cast(Sized, dataset))
    if length == 0:
        raise InputError("ExampleStream: the data set is empty.")
    return length


def tensors_of(
    dataset: Dataset[Any], device: torch.device | None = None
) -> tuple[Tensor, ...] | None:
    """Return tensors whose rows are the items of a data set; None where it has none.

    Args:
        dataset: A ``TensorDataset``, or one that says ``rows_are_items``.
        device: Where the tensors are put; they stay where they are when None.

    Raises:
        InputError: One of them holds NaN.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> class Doubled(TensorDataset):
        ...     def __getitem__(self, index):
        ...         return (2 * self.tensors[0][index],)
        >>> tensors_of(Doubled(torch.ones(2))) is None
        True
    """
    if not _rows_are_items(dataset):
        return None
    tensors: tuple[Tensor, ...] = cast(Any, dataset).tensors
    if any(len(tensor) != len(cast(Sized, dataset)) for tensor in tensors):
        return None
    for place, tensor in enumerate(tensors):
        # A sum is finite unless something in it is not, or it overflows: a quick no.
        if not tensor.is_floating_point() or bool(tensor.sum().isfinite()):
            continue
        if bool(tensor.isnan().any()):
            row = int(tensor.isnan().nonzero()[0][0])
            raise InputError(
                f"the data set holds NaN: tensor {place}, row {row}.",
                "clean or drop such rows",
            )
    if device is None:
        return tuple(tensors)
    return tuple(tensor.to(device) for tensor in tensors)


def _rows_are_items(dataset: Dataset[Any]) -> bool:
    """Return whether ``dataset[i]`` is known to be row i of ``dataset.tensors``.

    Comparing some items would not do: an image is flipped half of the time.
    """
    for kind in type(dataset).__mro__:
        own = vars(kind)
        if "__getitem__" in own:
            # Of this class alone: one below it that overrides the items speaks anew.
            return kind is TensorDataset or own.get("rows_are_items") is True
    return False
