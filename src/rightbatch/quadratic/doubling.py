r"""Many steps at once: powers of a step by repeated squaring.

With R = I + E the change of the mean over n steps and Q the covariance that noise of
variance one leaves behind, two such stretches make one of twice the length:

.. math:: E \leftarrow 2E + E E, \qquad Q \leftarrow Q + R Q R'

and k is put together from its binary digits by the row that reads the loss off the
state, r -> r R, while its noise adds up, r Q r'. No eigenvectors, so that equal
eigenvalues (critical damping, lr p h = 1 - ema_decay) are like any others, and no
difference of large numbers where k is far shorter than the memory.

The formulas are written once, for numbers and for arrays: numpy runs them on all
directions together, :mod:`rightbatch.quadratic.compiled` compiles them, and both round
alike.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.transition import Coefficients, change

Parts = tuple[FloatArray, ...]
IntArray = NDArray[np.int64]


class Moments(NamedTuple):
    """What is left of the start and of the noise where the loss is read.

    Args:
        mean: E y_k / x_0. Shape (m, n) for m runs and n directions.
        variance: Var y_k with noise of variance one in every preconditioned gradient.
    """

    mean: FloatArray
    variance: FloatArray


# The formulas, for numbers and arrays ------------------------------------------------


def twice_xd(xx: Any, xd: Any, dx: Any, dd: Any, q: Any, qxd: Any, qdd: Any) -> Any:
    """Return the change (xx, xd, dx, dd) and noise of twice as many steps of (x, d)."""
    rx = 1 + xx
    rd = 1 + dd
    a = rx * q + xd * qxd
    b = rx * qxd + xd * qdd
    c = dx * q + rd * qxd
    d = dx * qxd + rd * qdd
    cross = xd * dx
    trace = 2 + xx + dd
    return (
        xx * (2 + xx) + cross,
        xd * trace,
        dx * trace,
        dd * (2 + dd) + cross,
        q + (a * rx + b * xd),
        qxd + (a * dx + b * rd),
        qdd + (c * dx + d * rd),
    )


def twice_xy(xx: Any, yx: Any, yy: Any, q: Any, qxy: Any, qyy: Any) -> Any:
    """Return the change (xx, yx, yy) and noise of twice as many steps of (x, y)."""
    rx = 1 + xx
    ry = 1 + yy
    a = rx * q
    b = rx * qxy
    c = yx * q + ry * qxy
    d = yx * qxy + ry * qyy
    return (
        xx * (2 + xx),
        yx * (2 + xx + yy),
        yy * (2 + yy),
        q + a * rx,
        qxy + (a * yx + b * ry),
        qyy + (c * yx + d * ry),
    )


def twice_y(state: Any, yx: Any, yd: Any, yy: Any, qxy: Any, qdy: Any, qyy: Any) -> Any:
    """Return what y adds to (x, d): yx, yd, yy and its covariances, twice as long.

    `state` is what :func:`twice_xd` takes, before it is doubled.
    """
    xx, xd, dx, dd, q, qxd, qdd = state
    rx = 1 + xx
    rd = 1 + dd
    ry = 1 + yy
    a = rx * q + xd * qxd
    b = rx * qxd + xd * qdd
    c = rx * qxy + xd * qdy
    d = dx * q + rd * qxd
    e = dx * qxd + rd * qdd
    f = dx * qxy + rd * qdy
    g = yx * q + yd * qxd + ry * qxy
    h = yx * qxd + yd * qdd + ry * qdy
    i = yx * qxy + yd * qdy + ry * qyy
    return (
        yx * (2 + xx + yy) + yd * dx,
        yd * (2 + dd + yy) + yx * xd,
        yy * (2 + yy),
        qxy + (a * yx + b * yd + c * ry),
        qdy + (d * yx + e * yd + f * ry),
        qyy + (g * yx + h * yd + i * ry),
    )


def read_xd(x: Any, d: Any, q: Any, qxd: Any, qdd: Any) -> Any:
    """Return the variance that a row (x, d) reads off (x, d)."""
    return x * (x * q + 2 * d * qxd) + d * d * qdd


def read_xy(x: Any, y: Any, q: Any, qxy: Any, qyy: Any) -> Any:
    """Return the variance that a row (x, y) reads off (x, y)."""
    return x * (x * q) + y * (2 * (x * qxy) + y * qyy)


def read_y(x: Any, d: Any, y: Any, qxy: Any, qdy: Any, qyy: Any) -> Any:
    """Return what y adds to the variance that a row (x, d, y) reads."""
    return y * (2 * (x * qxy + d * qdy) + y * qyy)


# In numpy, all runs and directions together ------------------------------------------


class Stretch(NamedTuple):
    """A number of steps, the same for all, and the row that reads the loss.

    Args:
        step: Change and noise, as the `twice` of the layout takes them.
        row: How x, d, y are read; d and y only where the layout has them.
        twice: The doubling.
        read: (row, step) -> variance read.
        move: (row, step) -> the row, that many steps earlier.
        start: row -> what it reads off the start.
        turned: Where the step is turned around, so that odd powers change sign.
    """

    step: Parts
    row: Parts
    twice: Callable[[Parts], Parts]
    read: Callable[[Parts, Parts], FloatArray]
    move: Callable[[Parts, Parts], Parts]
    start: Callable[[Parts], FloatArray]
    turned: FloatArray | float = 0.0


def moments(stretch: Stretch, steps: IntArray) -> Moments:
    """Return the moments after `steps` steps of each run, shape (m,)."""
    step, row = stretch.step, stretch.row
    variance = np.zeros_like(row[0])
    for bit in range(int(steps.max()).bit_length()):
        chosen = ((steps >> bit) & 1).astype(bool)[:, None]
        if chosen.any():
            more = variance + stretch.read(row, step)
            variance = np.where(chosen, more, variance)
            moved = stretch.move(row, step)
            row = tuple(
                np.where(chosen, new, old) for new, old in zip(moved, row, strict=True)
            )
        step = stretch.twice(step)
    sign = 1 - 2 * stretch.turned * (steps & 1)[:, None]
    return Moments(sign * stretch.start(row), variance)


def ladder(stretch: Stretch, num_levels: int) -> Moments:
    """Return the moments after 1, 2, 4, ... steps, shape (num_levels, m, n)."""
    step, row = stretch.step, stretch.row
    means: list[FloatArray] = []
    variances: list[FloatArray] = []
    for level in range(num_levels):
        sign = 1 - 2 * stretch.turned * (level == 0)
        means.append(sign * stretch.start(stretch.move(row, step)))
        variances.append(np.zeros_like(row[0]) + stretch.read(row, step))
        step = stretch.twice(step)
    return Moments(np.stack(means), np.stack(variances))


def stretch_xd(co: Coefficients, rates: FloatArray) -> Stretch:
    """Return one step of momentum, read at the parameter; `rates` of shape (n,)."""
    lr, gap, nesterov = (part[:, None] for part in co[:3])
    *step, kick_x, kick_d, start_d, turned = change(lr, gap, nesterov, rates)
    one = np.ones((lr.shape[0], rates.size))
    noise = (kick_x * kick_x * one, kick_x * kick_d, kick_d * kick_d)
    return Stretch(
        step=(*step, *noise),
        row=(one, 0 * one),
        twice=lambda s: twice_xd(*s),
        read=lambda r, s: read_xd(*r, *s[4:]),
        move=lambda r, s: (
            r[0] + (r[0] * s[0] + r[1] * s[2]),
            r[1] + (r[0] * s[1] + r[1] * s[3]),
        ),
        start=lambda r: r[0] + start_d * r[1],
        turned=turned,
    )


def stretch_xy(co: Coefficients, rates: FloatArray, begin: float) -> Stretch:
    """Return one step of SGD, read at an average that starts at `begin` times x_0."""
    lr, take, forget = (part[:, None] for part in (co.lr, co.take, co.forget))
    one = np.ones((lr.shape[0], rates.size))
    rate = lr * rates
    kick_x, kick_y = -lr, -take * lr
    noise = (kick_x * kick_x, kick_x * kick_y, kick_y * kick_y)
    step = (-rate, take * (1 - rate), -forget * one)
    return Stretch(
        step=(*step, *(part * one for part in noise)),
        row=(0 * one, one),
        twice=lambda s: twice_xy(*s),
        read=lambda r, s: read_xy(*r, *s[3:]),
        move=lambda r, s: (
            r[0] + (r[0] * s[0] + r[1] * s[1]),
            r[1] + r[1] * s[2],
        ),
        start=lambda r: r[0] + begin * r[1],
    )


def stretch_xdy(co: Coefficients, rates: FloatArray, begin: float) -> Stretch:
    """Return one step of momentum, read at an average that starts at `begin` x_0."""
    lr, gap, nesterov, take, forget = (part[:, None] for part in co)
    *step, kick_x, kick_d, start_d, turned = change(lr, gap, nesterov, rates)
    one = np.ones((lr.shape[0], rates.size))
    kick_y = take * kick_x
    noise = (kick_x * kick_x * one, kick_x * kick_d, kick_d * kick_d)
    noise_y = (kick_x * kick_y * one, kick_d * kick_y, kick_y * kick_y * one)
    forgotten = forget + turned * (2 - forget - forget)
    step_y = (take * (1 + step[0]), take * step[1], -forgotten)
    return Stretch(
        step=(*step, *noise, *step_y, *noise_y),
        row=(0 * one, 0 * one, one),
        twice=lambda s: (*twice_xd(*s[:7]), *twice_y(s[:7], *s[7:])),
        read=lambda r, s: read_xd(r[0], r[1], *s[4:7]) + read_y(*r, *s[10:]),
        move=lambda r, s: (
            r[0] + (r[0] * s[0] + r[1] * s[2] + r[2] * s[7]),
            r[1] + (r[0] * s[1] + r[1] * s[3] + r[2] * s[8]),
            r[2] + r[2] * s[9],
        ),
        start=lambda r: r[0] + start_d * r[1] + begin * r[2],
        turned=turned,
    )
