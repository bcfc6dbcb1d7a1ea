"""Which row of a data set comes at which position of the stream."""

import numpy as np
import torch
from torch import Tensor


class Order:
    """An endless order of rows; each epoch is a permutation of its own.

    Args:
        length: Rows of the data set.
        seed: Decides the order, alone.
        shuffle: False for the data set's own order, epoch after epoch.

    Example:
        >>> order = Order(4, seed=0)
        >>> sorted(order.take(0, 4).tolist()), len(order.take(3, 7))
        ([0, 1, 2, 3], 7)
    """

    def __init__(self, length: int, seed: int, *, shuffle: bool = True) -> None:
        self._length = length
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = -1
        self._rows = torch.empty(0, dtype=torch.int64)

    def take(self, position: int, count: int) -> Tensor:
        """Return the rows at `position` and the `count` - 1 after it."""
        parts: list[Tensor] = []
        while count > 0:
            epoch, start = divmod(position, self._length)
            part = self._permutation(epoch)[start : start + count]
            parts.append(part)
            position += len(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            self._rows = self._drawn(epoch)
            self._epoch = epoch
        return self._rows

    def _drawn(self, epoch: int) -> Tensor:
        if not self._shuffle:
            return torch.arange(self._length)
        # A hash of both: seed + epoch would give seed 1 the orders of seed 0.
        mixed = np.random.SeedSequence([self._seed, epoch]).generate_state(1)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        return torch.randperm(self._length, generator=generator)
