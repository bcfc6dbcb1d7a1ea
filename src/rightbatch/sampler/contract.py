"""What a training loop may ask of a stream of examples."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch

from rightbatch.sampler.update_batch import UpdateBatch


class Stream(Protocol):
    """An endless stream of updates' examples, each of the batch size asked for.

    :class:`MicroBatchStream` and :class:`IterableStream` are such.
    """

    @property
    def examples(self) -> int:
        """Position in examples, over all replicas."""
        ...

    @property
    def taken(self) -> int:
        """Examples handed out, over all replicas: without those that were skipped."""
        ...

    @property
    def epoch(self) -> float:
        """Position in epochs."""
        ...

    @property
    def dataset_size(self) -> int | None:
        """Examples of an epoch; None where unknown."""
        ...

    @property
    def micro_batch_size(self) -> int:
        """Examples of one replica that are loaded together."""
        ...

    @property
    def num_replicas(self) -> int:
        """How many replicas share each update."""
        ...

    @property
    def device(self) -> torch.device:
        """Where batches are put."""
        ...

    @property
    def granule(self) -> int:
        """What a batch size is best a multiple of."""
        ...

    @property
    def largest_pass(self) -> int | None:
        """Examples of one replica in one forward pass at most; None for any."""
        ...

    @largest_pass.setter
    def largest_pass(self, value: int | None) -> None: ...

    def served(
        self, wish: float, how: Literal["nearest", "up", "down"] = "nearest"
    ) -> int:
        """Return the batch size that is served for a wish."""
        ...

    def begins_at(self, batch_size: int) -> int:
        """Return the position at which an update of that size would begin."""
        ...

    def next(self, batch_size: int, *, min_units: int = 1) -> UpdateBatch:
        """Return the examples of the next update."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position."""
        ...
