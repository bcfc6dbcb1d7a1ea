"""What items made by chance are drawn from, wherever and whenever they are loaded."""

import random
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset

# The position of the first of some examples, and their rows in the data set.
RowsAt = tuple[int, list[int]]
_WORD = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Random numbers of the example at each position, by a stream's seed.

    An augmented example is then the same whichever process loads it, in whichever
    micro-batch, in a run that was resumed too; and another one at its next visit.

    Args:
        seed: Of the stream.

    Example:
        >>> with generators_put_back():
        ...     Draws(seed=0).begin(7)
        ...     first = torch.rand(())
        ...     Draws(seed=0).begin(7)
        ...     bool(first == torch.rand(()))
        True
    """

    seed: int

    def begin(self, position: int) -> None:
        """Set torch's, numpy's and Python's generators for the example at a position.

        Those of a GPU are left as they are.

        Args:
            position: Of the stream.
        """
        word = _mixed(_mixed(self.seed) + position)
        torch.default_generator.manual_seed(word)
        np.random.seed(word & 0xFFFFFFFF)
        random.seed(word)

    def items(self, dataset: Dataset[Any], begin: int, rows: list[int]) -> list[Any]:
        """Return items of a data set, each with the draws of its position.

        Args:
            dataset: Map-style.
            begin: Position of the first of them.
            rows: Which ones, at this position and those after it.
        """
        items: list[Any] = []
        for position, row in enumerate(rows, begin):
            self.begin(position)
            items.append(dataset[row])
        return items


class DrawnItems(Dataset[Any]):
    """A data set whose items are asked for by position and rows, all at once.

    Args:
        dataset: Map-style.
        draws: What items are drawn from.
    """

    def __init__(self, dataset: Dataset[Any], draws: Draws) -> None:
        self._dataset = dataset
        self._draws = draws

    def __getitems__(self, rows: RowsAt) -> list[Any]:
        """Return the items of a micro-batch; the way in that a loader looks for."""
        return self._draws.items(self._dataset, *rows)


@contextmanager
def generators_put_back() -> Generator[None]:
    """Return a block after which the CPU's generators are where they were before it.

    Example:
        >>> before = torch.get_rng_state()
        >>> with generators_put_back():
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    before = generators_state()
    try:
        yield
    finally:
        set_generators(before)


def generators_state() -> dict[str, Any]:
    """Return where the CPU's generators of torch, numpy and Python are."""
    return {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }


def set_generators(state: Mapping[str, Any]) -> None:
    """Have the CPU's generators go on from where they were.

    Args:
        state: From :func:`generators_state`.
    """
    torch.set_rng_state(torch.as_tensor(state["torch"], dtype=torch.uint8))
    np.random.set_state(tuple(state["numpy"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def plain(state: Any) -> Any:
    """Return generators' state as lists of numbers, for a checkpoint.

    Args:
        state: From :func:`generators_state`, or a part of it.

    Example:
        >>> plain({"torch": torch.ones(2, dtype=torch.uint8), "python": (3, None)})
        {'torch': [1, 1], 'python': [3, None]}
    """
    if isinstance(state, Mapping):
        members = cast(Mapping[str, Any], state)
        return {name: plain(value) for name, value in members.items()}
    if isinstance(state, (torch.Tensor, np.ndarray)):
        return cast(Any, state).tolist()
    if isinstance(state, (list, tuple)):
        return [plain(value) for value in cast(Sequence[Any], state)]
    return state


def _mixed(word: int) -> int:
    """Return a word of which near ones give far ones (Steele et al. 2014, splitmix)."""
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
