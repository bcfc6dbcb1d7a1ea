"""The position in a stream whose batches somebody else loads."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.sampler.cuts import Dealing, Layout
from rightbatch.sampler.micro_batches import nearest_served
from rightbatch.sampler.update_batch import Delivery, ForwardPass, UpdateBatch

WHO = "CountedStream"


class CountedStream:
    """Counts examples that a framework's own loader serves; holds none of them.

    An update is a whole number of micro-batches on each replica. What the last one of
    an epoch really held is told afterwards, by :meth:`correct`.

    Args:
        micro_batch_size: Examples of one replica in one forward pass.
        dataset_size: Examples of an epoch over all replicas; None where unknown.
        num_replicas: How many share each update.
        device: Of the model.

    Raises:
        InputError: A size is not positive.

    Example:
        >>> stream = CountedStream(4, dataset_size=10)
        >>> batch = stream.next(8)
        >>> len(batch.passes), stream.examples, stream.epoch
        (2, 8, 0.8)
        >>> stream.next(4).num_examples
        4
        >>> stream.correct(2 - 4)
        >>> stream.examples
        10
    """

    def __init__(
        self,
        micro_batch_size: int,
        *,
        dataset_size: int | None = None,
        num_replicas: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        size = _checks.positive_integer(WHO, "micro_batch_size", micro_batch_size)
        replicas = _checks.positive_integer(WHO, "num_replicas", num_replicas)
        if dataset_size is not None:
            _checks.positive_integer(WHO, "dataset_size", dataset_size)
        self._deal = Dealing(micro_batch_size=size, num_replicas=replicas)
        self._length = dataset_size
        self._device = torch.device(device)
        self._examples = 0
        self.largest_pass: int | None = size

    @property
    def examples(self) -> int:
        """Position: examples served over all replicas."""
        return self._examples

    @property
    def taken(self) -> int:
        """The same: none is skipped."""
        return self._examples

    @property
    def epoch(self) -> float:
        """Position in epochs; 0 where their length is unknown."""
        return self._examples / self._length if self._length else 0.0

    @property
    def dataset_size(self) -> int | None:
        """Examples of an epoch; None where unknown."""
        return self._length

    @property
    def micro_batch_size(self) -> int:
        """Examples of one replica in one forward pass."""
        return self._deal.micro_batch_size

    @property
    def num_replicas(self) -> int:
        """How many replicas share each update."""
        return self._deal.num_replicas

    @property
    def device(self) -> torch.device:
        """Where the batches are, as the framework puts them."""
        return self._device

    @property
    def granule(self) -> int:
        """A micro-batch for each replica."""
        return self._deal.granule

    def served(
        self, wish: float, how: Literal["nearest", "up", "down"] = "nearest"
    ) -> int:
        """Return the batch size that is served for a wish: a multiple of the granule.

        Args:
            wish: Any positive number; infinity for a whole epoch, or a granule where
                its length is unknown.
            how: Which way to round.
        """
        most = self._length
        if most is None and wish == float("inf"):
            wish = 1.0
        elif most is not None and most % self.granule:
            most += self.granule  # the last micro-batch, shorter than the others
        return nearest_served(WHO, wish, how, self.granule, most)

    def begins_at(self, batch_size: int) -> int:
        """Return the position at which an update would begin: the present one.

        Args:
            batch_size: Any.
        """
        return self._examples

    def next(self, batch_size: int, *, min_units: int = 1) -> UpdateBatch:
        """Return an update's forward passes without their batches, and count it.

        Args:
            batch_size: Over all replicas; a multiple of the granule.
            min_units: Not looked at: the framework's batches stay as they are.
        """
        size = self.micro_batch_size
        layout = Layout(
            dealing=self._deal, num_examples=batch_size, largest_pass=size, join="never"
        )
        count = batch_size // self.granule
        first, self._examples = self._examples, self._examples + batch_size
        return UpdateBatch(
            passes=(ForwardPass(None, size, 1),) * count,
            num_examples=batch_size,
            local_examples=count * size,
            first_example=first,
            layout=layout,
            delivery=Delivery(),
        )

    def correct(self, by: int) -> None:
        """Take notice that an update had more or fewer examples than was counted.

        Args:
            by: More, over all replicas.
        """
        self._examples += by

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return {"counted": self._examples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position.

        Raises:
            InputError: It is that of another kind of stream.
        """
        if "counted" not in state:
            raise InputError(f"{WHO}.load_state_dict: the state is of another stream.")
        self._examples = int(state["counted"])
