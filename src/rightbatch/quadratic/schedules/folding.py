"""SGD with a learning rate that changes at every step, all the way to the last."""

from typing import Any

import numpy as np

from rightbatch.quadratic.schedules.adjoint import Directions
from rightbatch.quadratic.spectrum import FloatArray

_AT_ONCE = 1024  # steps whose maps fit a cache


def loss_of_steps(
    along: Directions, lrs: FloatArray, kernels: Any = None
) -> FloatArray:
    """Return the loss above the irreducible one after schedules of SGD, step by step.

    Compiled, the steps are taken one after another. In numpy the maps of neighbouring
    steps are joined two by two, so that no loop in Python runs over steps.

    Args:
        along: The directions.
        lrs: Learning rate of every step, 0 or more. Shape (m, T).
        kernels: Compiled loops, or None for numpy.

    Returns:
        The losses, shape (m,); infinite past what a float holds.
    """
    after = kernels.step_through if kernels is not None else _fold
    with np.errstate(over="ignore", invalid="ignore"):
        losses = np.array(
            [after(tuple(along), np.ascontiguousarray(row)) for row in lrs]
        )
    return np.where(np.isnan(losses), np.inf, losses)


def _fold(along: tuple[FloatArray, ...], lrs: FloatArray) -> float:
    rates, start, noise, weights = along
    moments = start
    for first in range(0, lrs.size, _AT_ONCE):
        some = lrs[first : first + _AT_ONCE]
        # Steps at lr 0 change nothing: they fill up to a power of two.
        room = 1 << (some.size - 1).bit_length()
        lr = np.pad(some, (0, room - some.size))[:, None]
        shrink = (1 - lr * rates) ** 2
        kick = np.broadcast_to(lr * lr, shrink.shape)
        while len(shrink) > 1:
            kick = shrink[1::2] * kick[::2] + kick[1::2]
            shrink = shrink[::2] * shrink[1::2]
        moments = shrink[0] * moments + kick[0] * noise
    return float(weights @ moments)
