"""A stream over any iterable of batches: each item of it is a micro-batch."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.sampler.cuts import RaggedLayout
from rightbatch.sampler.loading import Loading
from rightbatch.sampler.micro_batches import nearest_served
from rightbatch.sampler.nesting import length_of
from rightbatch.sampler.turns import all_tell
from rightbatch.sampler.update_batch import Piece, UpdateBatch, make_passes

WHO = "IterableStream"


class IterableStream:
    """An endless stream of updates' examples, from batches that something else makes.

    Each item of the iterable is a micro-batch of this replica. An update takes as many
    items as make about the batch size asked for, the same number on every replica;
    they are joined into forward passes where their shapes allow, else accumulated. At
    its end the iterable is begun anew; ``set_epoch`` of it, its sampler or its data set
    is called first, where there is one. A shorter last item counts for what it holds,
    so an update may have fewer examples than asked for: its ``num_examples`` says.

    Position is resumed by the iterable's own ``state_dict`` where it has one. Otherwise
    the items of the epoch that had been taken are drawn and thrown away, which takes
    their time, and is exact where the iterable gives the same items again. The items'
    size and the replicas' shares are the iterable's own, and have to stay.

    Args:
        batches: A DataLoader or any other iterable of batches; with several replicas
            this one's share of them.
        micro_batch_size: Examples of an item, the usual ones.
        dataset_size: Examples of an epoch over all replicas; None where unknown.
        count: ``count(batch)``, how many examples an item or a part of it counts for;
            the length of its first tensor when None.
        loading: Device, largest forward pass, replicas; `batches` does the loading.

    Raises:
        InputError: `batches` cannot be iterated, a size is not positive, or `loading`
            asks for loading processes.

    Example:
        >>> loader = torch.utils.data.DataLoader(torch.arange(10), batch_size=4)
        >>> stream = IterableStream(loader, 4)
        >>> [stream.next(8).num_examples for _ in range(3)], stream.examples
        ([8, 6, 6], 20)
    """

    def __init__(
        self,
        batches: Iterable[Any],
        micro_batch_size: int,
        *,
        dataset_size: int | None = None,
        count: Callable[[Any], int] | None = None,
        loading: Loading = Loading(),  # noqa: B008  # frozen
    ) -> None:
        if not hasattr(batches, "__iter__"):
            raise InputError(
                f"{WHO}: `batches` must be iterable, got {type(batches).__name__}.",
                "a DataLoader, say",
            )
        size = _checks.positive_integer(WHO, "micro_batch_size", micro_batch_size)
        if dataset_size is not None:
            _checks.positive_integer(WHO, "dataset_size", dataset_size)
        if loading.num_workers:
            raise InputError(
                f"{WHO}: `num_workers` must be 0, got {loading.num_workers}.",
                "give it to the DataLoader",
            )
        loading.check(size)
        self._batches: Any = batches
        self._deal = loading.dealing(size)
        self._dataset_size = dataset_size
        self._loading = loading
        self._largest_pass = loading.largest_pass
        self._delivery = replace(loading.delivery, count=count)
        self._items: Iterator[Any] | None = None
        self._examples = self._epochs = self._taken = 0

    @property
    def examples(self) -> int:
        """Position: examples handed out over all replicas."""
        return self._examples

    @property
    def taken(self) -> int:
        """Examples handed out over all replicas: all up to the position."""
        return self._examples

    @property
    def epoch(self) -> float:
        """Position in epochs; whole ones where the size of the data is not known."""
        if self._dataset_size is None:
            return float(self._epochs)
        return self._examples / self._dataset_size

    @property
    def dataset_size(self) -> int | None:
        """Examples of an epoch; None where unknown."""
        return self._dataset_size

    @property
    def micro_batch_size(self) -> int:
        """Examples of an item, the usual ones."""
        return self._deal.micro_batch_size

    @property
    def num_replicas(self) -> int:
        """How many replicas share each update."""
        return self._deal.num_replicas

    @property
    def device(self) -> torch.device:
        """Where batches are put."""
        return torch.device(self._loading.device)

    @property
    def granule(self) -> int:
        """What a batch size is a multiple of: an item for each replica."""
        return self._deal.granule

    @property
    def largest_pass(self) -> int | None:
        """Examples of one replica in one forward pass at most; None for any."""
        return self._largest_pass

    @largest_pass.setter
    def largest_pass(self, value: int | None) -> None:
        if value is not None:
            value = _checks.positive_integer(WHO, "largest_pass", value)
        self._largest_pass = value

    def served(
        self, wish: float, how: Literal["nearest", "up", "down"] = "nearest"
    ) -> int:
        """Return the batch size that is served for a wish.

        Args:
            wish: Any positive number.
            how: Which way to round.

        Returns:
            A multiple of the granule, at least one; at most the data set, where its
            size is known.

        Raises:
            InputError: `wish` is not positive, or infinite where nothing bounds it.
        """
        if self._dataset_size is None:
            _checks.positive(WHO, "wish", wish)
        return nearest_served(WHO, wish, how, self.granule, self._dataset_size)

    def begins_at(self, batch_size: int) -> int:
        """Return the position at which an update would begin: the present one.

        Args:
            batch_size: Of any size.

        Example:
            >>> IterableStream([torch.ones(4)], 4).begins_at(8)
            0
        """
        return self._examples

    def next(self, batch_size: int, *, min_units: int = 1) -> UpdateBatch:
        """Return the examples of the next update.

        Args:
            batch_size: Over all replicas; the nearest multiple of the granule is taken.
            min_units: Forward passes wanted over all replicas at least.

        Returns:
            This replica's forward passes, and how many examples all have together.

        Raises:
            InputError: A size is not positive, an item's examples cannot be counted,
                or the items have ended for good.
        """
        size = _checks.positive_integer(WHO, "batch_size", batch_size)
        units = _checks.positive_integer(WHO, "min_units", min_units)
        num = self.served(size) // self.granule
        pieces = [self._piece() for _ in range(num)]
        rows = sum(length for _, length in pieces)
        examples = rows
        if self._delivery.count is not None:
            examples = sum(self._delivery.count(batch) for batch, _ in pieces)
        told = [(rows, examples)]
        if self._delivery.together:
            told = all_tell((rows, examples))
        layout = RaggedLayout(
            rows=tuple(length for _, length in pieces),
            least=min(length for length, _ in told),
            most=max(length for length, _ in told),
            micro_batch_size=self.micro_batch_size,
            largest_pass=self._largest_pass,
            join=self._loading.join,
            units=-(-units // self.num_replicas),
        )
        passes = make_passes(pieces, layout, self._delivery)
        total = sum(count for _, count in told)
        if not self._delivery.together:
            total *= self.num_replicas
        first = self._examples
        self._examples = first + total
        return UpdateBatch(passes, total, examples, first, layout, self._delivery)

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and the iterable's own state where it has one."""
        own = (
            self._batches.state_dict() if hasattr(self._batches, "state_dict") else None
        )
        return {
            "version": 1,
            "examples": self._examples,
            "epochs": self._epochs,
            "items": self._taken,
            "batches": own,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream over the same batches was.

        Args:
            state: Its state.

        Raises:
            InputError: It is not of such a stream, the iterable has no state where
                the other had one, or it has fewer items.
        """
        missing = {"examples", "epochs", "items", "batches"} - state.keys()
        if missing:
            raise InputError(
                f"{WHO}: the state must be of an {WHO}, got one without "
                f"{', '.join(sorted(missing))}."
            )
        has_state = hasattr(self._batches, "load_state_dict")
        if (state["batches"] is not None) != has_state:
            raise InputError(
                f"{WHO}: `batches` must have a state where those of the checkpoint had "
                f"one, got {type(self._batches).__name__}.",
                "use the same kind of loader",
            )
        self._examples, self._epochs = int(state["examples"]), int(state["epochs"])
        self._taken, self._items = 0, None
        if has_state:
            self._batches.load_state_dict(state["batches"])
            self._taken = int(state["items"])
            return
        for _ in range(int(state["items"])):
            self._item()
        if self._epochs != state["epochs"]:
            raise InputError(
                f"{WHO}: `batches` must have the {state['items']} items of an epoch "
                "that had been taken, and has fewer.",
                "give the batches of that run",
            )

    def _piece(self) -> Piece:
        batch = self._item()
        length = length_of(batch)
        if length is None and self._delivery.count is not None:
            length = self._delivery.count(batch)
        if not length:
            raise InputError(
                f"{WHO}: an item of `batches` must hold a tensor of its examples, got "
                f"{type(batch).__name__}.",
                "give `count`",
            )
        return batch, length

    def _item(self) -> Any:
        for _ in range(2):
            if self._items is None:
                _tell_epoch(self._batches, self._epochs)
                self._items = iter(self._batches)
            for item in self._items:
                self._taken += 1
                return item
            if not self._taken or self._items is self._batches:
                break
            self._items, self._taken = None, 0
            self._epochs += 1
        raise InputError(
            f"{WHO}: `batches` ended after {self._examples} examples and cannot be "
            "iterated again.",
            "give a DataLoader or a list, or train on fewer examples",
        )


def _tell_epoch(batches: Any, epoch: int) -> None:
    """Have a distributed sampler or a streamed data set shuffle anew."""
    holders = [batches]
    holders += [batches.sampler] if hasattr(batches, "sampler") else []
    holders += [batches.dataset] if hasattr(batches, "dataset") else []
    for holder in holders:
        if hasattr(holder, "set_epoch"):
            holder.set_epoch(epoch)
