"""Random numbers of a run's own: no run sees what another one draws."""

import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derived_seed(seed: int, stream: int) -> int:
    """Return a seed for one of a run's streams of random numbers.

    Example:
        >>> derived_seed(0, 1) == derived_seed(1, 0)
        False
    """
    # Consecutive seeds must not share streams, as seed + stream would.
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0])


class OwnRandomness:
    """Generators put in place of the global ones (torch, numpy, random) for a while.

    Runs of one process are interleaved; dropout must not see it, nor the caller.

    Args:
        seed: Where they start.

    Example:
        >>> def draws():
        ...     own = OwnRandomness(0)
        ...     with own.in_use():
        ...         first = random.random()
        ...     random.random()
        ...     with own.in_use():
        ...         return first, random.random()
        >>> draws() == draws()
        True
    """

    def __init__(self, seed: int) -> None:
        outside = _captured()
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        self._inside = _captured()
        _restore(outside)

    @contextmanager
    def in_use(self) -> Generator[None]:
        """Draw from these generators; they go on where they were left."""
        outside = _captured()
        _restore(self._inside)
        try:
            yield
        finally:
            self._inside = _captured()
            _restore(outside)


def _captured() -> tuple[Any, Any, Any]:
    state = torch.default_generator.get_state()
    return state, np.random.get_state(), random.getstate()


def _restore(states: tuple[Any, Any, Any]) -> None:
    torch.default_generator.set_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
