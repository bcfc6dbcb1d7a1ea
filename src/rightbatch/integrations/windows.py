"""How many micro-batches an update has, as frameworks count them."""

from typing import Any, Self


class WindowLength(int):
    """A number of micro-batches that counts from where its update began.

    Frameworks step where ``batches_so_far % accumulation == 0``, which is right only as
    long as accumulation never changes. This is the same number in every other use, but
    what is divided by it is counted from the update's first micro-batch.

    Args:
        length: Micro-batches of the update.
        start: Micro-batches of the epoch before it.

    Example:
        >>> length = WindowLength(3, start=4)
        >>> [batches % length == 0 for batches in (4, 5, 6, 7)], length + 1
        ([True, False, False, True], 4)
    """

    start: int

    def __new__(cls, length: int, start: int = 0) -> Self:
        """Make the number, with where it counts from beside it."""
        made = super().__new__(cls, length)
        made.start = start
        return made

    def __rmod__(self, batches: int) -> int:
        return (batches - self.start) % int(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # Settings are saved with the framework's checkpoints: there it is a number.
        return int, (int(self),)
