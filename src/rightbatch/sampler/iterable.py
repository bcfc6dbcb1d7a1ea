"""A stream over any iterable of batches: each item of it is a micro-batch."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.sampler.cuts import RaggedLayout
from rightbatch.sampler.draws import (
    generators_put_back,
    generators_state,
    plain,
    set_generators,
)
from rightbatch.sampler.loading import Loading
from rightbatch.sampler.micro_batches import nearest_served
from rightbatch.sampler.nesting import length_of
from rightbatch.sampler.turns import all_tell
from rightbatch.sampler.update_batch import UpdateBatch, make_passes

WHO = "IterableStream"
STATE = {
    *("examples", "epochs", "items", "batches"),
    *("epoch_examples", "epoch_size", "begun"),
}


class IterableStream:
    """An endless stream of updates' examples, from batches that something else makes.

    Each item of the iterable is a micro-batch of this replica. An update takes as many
    items as make about the batch size asked for, the same number on every replica;
    they are joined into forward passes where their shapes allow, else accumulated. At
    its end the iterable is begun anew; ``set_epoch`` of it, its sampler or its data set
    is called first, where there is one. A shorter last item counts for what it holds,
    so an update may have fewer examples than asked for: its ``num_examples`` says.

    Position is resumed by the iterable's own ``state_dict`` where it has one. Otherwise
    the generators of torch, numpy and Python, and one that the iterable or its sampler
    has as ``generator``, are put where they were as the epoch began; the items of it
    that had been taken are drawn anew and thrown away, which takes their time; and the
    process's generators are put back. That is exact for a ``DataLoader``, shuffled or
    not. It is not where the order comes from a GPU's generator or one kept elsewhere;
    nor, with no loading processes, for items that are themselves made by chance (their
    draws of one epoch are mixed with the model's), though their order is. The items'
    size and the replicas' shares are the iterable's own, and have to stay.

    Epochs are counted by the iterable's ends, so one that drops its last examples is
    in time; within an epoch by `dataset_size`, or what the epoch before gave.

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
        self._device = loading.place
        self._largest_pass = loading.largest_pass
        self._delivery = replace(loading.delivery, count=count)
        self._items: Iterator[Any] | None = None
        self._examples = self._epochs = self._taken = 0
        # Of this epoch so far, and of the one before; over all replicas.
        self._epoch_examples = self._epoch_size = 0
        self._own_of_epoch = 0
        self._begun: dict[str, Any] = {}

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
        """Position in epochs; the first is told by `dataset_size` alone."""
        size = self._dataset_size or self._epoch_size
        part = min(1.0, self._epoch_examples / size) if size else 0.0
        return self._epochs + part

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
        return self._device

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
        epochs = self._epochs
        pieces = [self._piece() for _ in range(num)]
        rows = sum(length for _, length, _ in pieces)
        examples = sum(count for _, _, count in pieces)
        told = [(rows, examples, self._own_of_epoch)] * self.num_replicas
        if self._delivery.together:
            told = all_tell((rows, examples, self._own_of_epoch))
        layout = RaggedLayout(
            rows=tuple(length for _, length, _ in pieces),
            least=min(length for length, _, _ in told),
            most=max(length for length, _, _ in told),
            micro_batch_size=self.micro_batch_size,
            largest_pass=self._largest_pass,
            join=self._loading.join,
            units=-(-units // self.num_replicas),
        )
        held = [(batch, length) for batch, length, _ in pieces]
        passes = make_passes(held, layout, self._delivery)
        total = sum(count for _, count, _ in told)
        self._count(total, sum(new for _, _, new in told), self._epochs - epochs)
        first = self._examples
        self._examples = first + total
        return UpdateBatch(passes, total, examples, first, layout, self._delivery)

    def _count(self, total: int, of_epoch: int, ended: int) -> None:
        """Note how many examples the present epoch gave, and the one before.

        Args:
            total: Examples of an update.
            of_epoch: Those the present epoch has given by now.
            ended: Epochs that ended within the update.
        """
        if ended:
            before = self._epoch_examples + total - of_epoch
            self._epoch_size = round(before / ended)
        self._epoch_examples = of_epoch

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
            "epoch_examples": (self._epoch_examples, self._own_of_epoch),
            "epoch_size": self._epoch_size,
            "begun": None if own is not None else plain(self._begun),
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
        missing = STATE - state.keys()
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
        self._epoch_size = int(state["epoch_size"])
        self._epoch_examples, self._own_of_epoch = map(int, state["epoch_examples"])
        self._taken, self._items = 0, None
        if has_state:
            self._batches.load_state_dict(state["batches"])
            self._taken = int(state["items"])
            return
        with generators_put_back():
            self._begin_again(int(state["items"]), state["begun"])

    def _begin_again(self, items: int, begun: Mapping[str, Any]) -> None:
        """Begin the present epoch as it was begun, and go past some items.

        Raises:
            InputError: There are fewer.
        """
        if not items:
            return
        epochs, of_epoch = self._epochs, self._own_of_epoch
        set_generators(begun)
        own = _own_generators(self._batches)
        for generator, held in zip(own, begun["own"], strict=False):
            generator.set_state(torch.tensor(held, dtype=torch.uint8))
        for _ in range(items):
            self._item()
        self._own_of_epoch = of_epoch
        if self._epochs != epochs:
            raise InputError(
                f"{WHO}: `batches` must have the {items} items of an epoch "
                "that had been taken, and has fewer.",
                "give the batches of that run",
            )

    def _piece(self) -> tuple[Any, int, int]:
        """Return the next item, how long it is, and how many examples it counts for.

        Raises:
            InputError: There is no way to tell.
        """
        batch = self._item()
        length = length_of(batch)
        count = length or 0
        if self._delivery.count is not None:
            count = self._delivery.count(batch)
            length = count if length is None else length
        if not length:
            raise InputError(
                f"{WHO}: an item of `batches` must hold a tensor of its examples, got "
                f"{type(batch).__name__}.",
                "give `count`",
            )
        self._own_of_epoch += count
        return batch, length, count

    def _item(self) -> Any:
        for _ in range(2):
            if self._items is None:
                _tell_epoch(self._batches, self._epochs)
                self._begun = _generators_of(self._batches)
                self._items = iter(self._batches)
            for item in self._items:
                self._taken += 1
                return item
            if not self._taken or self._items is self._batches:
                break
            self._items, self._taken = None, 0
            self._own_of_epoch = 0
            self._epochs += 1
        raise InputError(
            f"{WHO}: `batches` ended after {self._examples} examples and cannot be "
            "iterated again.",
            "give a DataLoader or a list, or train on fewer examples",
        )


def _generators_of(batches: Any) -> dict[str, Any]:
    """Return where all generators are that may decide the order of some batches."""
    own = [generator.get_state() for generator in _own_generators(batches)]
    return {**generators_state(), "own": own}


def _own_generators(batches: Any) -> list[torch.Generator]:
    holders = [batches, *([batches.sampler] if hasattr(batches, "sampler") else [])]
    found = [h.generator for h in holders if hasattr(h, "generator")]
    return [one for one in found if isinstance(one, torch.Generator)]


def _tell_epoch(batches: Any, epoch: int) -> None:
    """Have a distributed sampler or a streamed data set shuffle anew."""
    holders = [batches]
    holders += [batches.sampler] if hasattr(batches, "sampler") else []
    holders += [batches.dataset] if hasattr(batches, "dataset") else []
    for holder in holders:
        if hasattr(holder, "set_epoch"):
            holder.set_epoch(epoch)
