r"""One step of any optimizer along one direction, as a small matrix.

With x the parameter and d the momentum buffer (preconditioned, as torch holds it: the
learning rate stays outside, so that it may change between steps, even to zero), and y
what the loss is read at,

.. math::
    d' &= m\,d + p (h x + n) \\
    x' &= x - lr\,d' \quad\text{or}\quad x - lr\,(p (h x + n) + m\,d')
          \quad\text{(Nesterov)} \\
    y' &= (1 - forget)\, y + take\, x'

with take = forget = 1 - ema_decay for a moving average, and take = 1, forget = 0 for
the sum that a plain average divides. The functions below give the *change* of the
state: near the identity its entries keep their digits, where those of the matrix
itself would lose them; 1 - momentum enters as it is for the same reason. Beyond half
the stability edge the state changes sign at every step; there the step is turned
around, M -> -M, and d replaced by 2x/nu + lr d, so that the distance to the edge is an
entry and keeps its digits as well.

The functions take numbers or arrays: numpy runs them on all directions together, numba
compiles them for one, and both round alike.
"""

from typing import Any, NamedTuple

import numpy as np

from rightbatch.quadratic.optimizers import Optimizer, OptimizerName
from rightbatch.quadratic.spectrum import FloatArray

Layout = tuple[bool, bool]
"""Whether there is a buffer d, and whether the loss is read apart, at y."""


class Settings(NamedTuple):
    """Settings of m runs of one optimizer, each of shape (m,).

    Args:
        lr: Learning rates.
        inertia_gap: 1 - momentum; one without momentum.
        ema_gap: 1 - ema_decay; one without a moving average.
    """

    lr: FloatArray
    inertia_gap: FloatArray
    ema_gap: FloatArray


class Coefficients(NamedTuple):
    """What a step is made of, each of shape (m,).

    Args:
        lr: Learning rate.
        gap: 1 - momentum.
        nesterov: 1 for Nesterov's momentum, 0 for heavy ball or none.
        take: How much of x' goes into y'.
        forget: How much of y goes out.
    """

    lr: FloatArray
    gap: FloatArray
    nesterov: FloatArray
    take: FloatArray
    forget: FloatArray


def settings_of(optimizer: Optimizer) -> Settings:
    """Return one optimizer's settings as arrays of shape (1,)."""
    return Settings(
        np.array([optimizer.lr]),
        np.array([1 - optimizer.momentum]),
        np.array([1 - optimizer.ema_decay]),
    )


def layout_of(name: OptimizerName) -> Layout:
    """Return what the state of an optimizer is made of."""
    return name.startswith(("momentum", "nesterov")), name.endswith(("ema", "average"))


def begin_of(name: OptimizerName) -> float:
    """Return where y starts, in units of x_0: a sum starts at zero."""
    return 1.0 if name.endswith("ema") else 0.0


def coefficients(name: OptimizerName, settings: Settings) -> Coefficients:
    """Return what the steps of m runs are made of."""
    lr, gap, ema_gap = (np.asarray(part, dtype=float) for part in settings)
    nesterov = np.full(lr.shape, float(name.startswith("nesterov")))
    if name.endswith("average"):
        return Coefficients(lr, gap, nesterov, np.ones_like(lr), np.zeros_like(lr))
    return Coefficients(lr, gap, nesterov, ema_gap, ema_gap)


def change(lr: Any, gap: Any, nesterov: Any, rate: Any) -> Any:
    """Return one step of (x, d) as a change of the state.

    Args:
        lr: Learning rate.
        gap: 1 - momentum.
        nesterov: 1 or 0.
        rate: p h.

    Returns:
        The changes xx, xd, dx, dd; what noise adds to x and to d; d at the start, in
        units of x; and 1 where the step is turned around, else 0.
    """
    momentum = 1 - gap
    nu = 1 + 2 * momentum * nesterov
    ahead = momentum * (1 - gap * nesterov)
    pull = 1 + momentum * nesterov
    x = lr * rate
    turned = (nu * x > 2 - gap) * 1.0
    plain = 1 - turned
    # The distance to the edge, 2 (2 - gap) - nu x: `both` adds two exact terms, `lost`
    # is what that rounds off, so that its digits are right where little remains.
    level = 1 - nesterov * x
    past = (2 * nesterov - 1) * x
    both = 4 * level + past
    lost = past - (both - 4 * level)
    edge = (both - 2 * gap * level) + lost
    far = (1 + 3 * momentum) / nu
    return (
        -(turned * (pull / nu * edge) + plain * (pull * x)),
        ahead * (turned - plain * lr),
        plain * rate - turned * (edge / (nu * nu)),
        -(gap + turned * nesterov * (far - gap)),
        -pull * lr,
        plain - turned * (lr / nu),
        turned * (2 / nu),
        turned,
    )


def turn(x: Any, d: Any, lr: Any, shift: Any, turned: Any) -> Any:
    """Return a row (x, d) that reads the state where its step is turned around.

    Args:
        x: How x is read.
        d: How d is read, as torch holds it.
        lr: Learning rate.
        shift: As :func:`change` returns it, d at the start.
        turned: As :func:`change` returns it.

    Returns:
        How x and the other d are read; the same where the step is not turned around.
    """
    other = d / (turned * lr + (1 - turned))
    return x - shift * other, other


def turn_back(x: Any, d: Any, lr: Any, shift: Any, turned: Any) -> Any:
    """Return the row that :func:`turn` was given."""
    return x + shift * d, d * (turned * lr + (1 - turned))
