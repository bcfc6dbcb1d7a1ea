"""Where a Trainer is, in micro-batches: it counts updates, which are of any size."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self


@dataclass(slots=True)
class Position:
    """Micro-batches of one replica that were trained on.

    Args:
        per_epoch: In an epoch; None where nobody knows.
        in_all: Where training ends; None where something else says so.
        epoch: Epochs that are over.
        batches: Of the present one.

    Example:
        >>> position = Position(per_epoch=10, in_all=25, epoch=2, batches=4)
        >>> position.done, position.left
        (24, 1)
    """

    per_epoch: int | None
    in_all: int | None = None
    epoch: int = 0
    batches: int = 0
    is_over: bool = False

    @property
    def done(self) -> int:
        """Of the whole run, as far as the length of an epoch is known."""
        return self.epoch * (self.per_epoch or 0) + self.batches

    @property
    def left(self) -> int | None:
        """In this epoch, and before the end; None where nobody knows."""
        if self.is_over:
            return 0
        if self.per_epoch is None:
            return None
        end = math.inf if self.in_all is None else self.in_all - self.done
        return int(max(0, min(self.per_epoch - self.batches, end)))

    def next_epoch(self) -> None:
        """Begin another epoch."""
        self.epoch += 1
        self.batches, self.is_over = 0, False

    @property
    def to_go_on_from(self) -> tuple[int, int]:
        """Epoch and micro-batches of it; where it is through, the next one's begin."""
        if self.per_epoch is not None and self.batches >= self.per_epoch:
            return self.epoch + 1, 0
        return self.epoch, self.batches


class UpdatesPerEpoch(int):
    """How many updates an epoch may have, as the Trainer asks for it.

    Going on from a checkpoint, the Trainer divides the updates made by it, to see in
    which epoch it was and how far: right only where all updates are of one size. This
    is the same number in every other use, but knows where the checkpoint was.

    Args:
        number: Updates.
        where: Called for the epoch and the micro-batches of it.

    Example:
        >>> updates = UpdatesPerEpoch(100, lambda: (3, 40))
        >>> 77 // updates, 77 % updates, updates - 1
        (3, 40, 99)
    """

    where: Callable[[], tuple[int, int]]

    def __new__(cls, number: int, where: Callable[[], tuple[int, int]]) -> Self:
        """Make the number, with whom to ask beside it."""
        made = super().__new__(cls, number)
        made.where = where
        return made

    def __rfloordiv__(self, updates: int) -> int:
        return self.where()[0]

    def __rmod__(self, updates: int) -> int:
        return self.where()[1]
