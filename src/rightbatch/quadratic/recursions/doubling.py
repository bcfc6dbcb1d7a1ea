r"""Many steps at once: powers of a step by repeated squaring.

With R = I + E the change of the mean over n steps and Q the covariance that noise of
variance one leaves behind, two such stretches make one of twice the length:

.. math:: E \leftarrow 2E + E E, \qquad Q \leftarrow Q + R Q R'

and k is put together from its binary digits by the row that reads the loss off the
state, r -> r R, while its noise adds up, r Q r'. No eigenvectors, so that equal
eigenvalues (critical damping, lr p h = 1 - ema_decay) are like any others, and no
difference of large numbers where k is far shorter than the memory.

Near the identity the change keeps the digits; once a diagonal entry of R has decayed,
the entry itself does. So each is held as a one and a change, and once their sum has
decayed the one becomes 0 and the change the entry.

The formulas are written once, for numbers and for arrays: numpy runs them on all
directions together, :mod:`rightbatch.quadratic.recursions.compiled` compiles them, and
both round alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rightbatch.quadratic.recursions.transition import (
    Coefficients,
    Layout,
    change,
    turn,
    turn_back,
)
from rightbatch.quadratic.spectrum import FloatArray

Parts = tuple[FloatArray, ...]
Ones = tuple[FloatArray | float, ...]
IntArray = NDArray[np.int64]


class Moments(NamedTuple):
    """What is left of the start and of the noise where the loss is read.

    Args:
        mean: E y_k / x_0. Shape (m, n) for m runs and n directions.
        variance: Var y_k with noise of variance one in every preconditioned gradient.
    """

    mean: FloatArray
    variance: FloatArray


class Carried(NamedTuple):
    """A row that reads the loss, moved back to an earlier state.

    Args:
        row: How x, d, y are read there; d and y only where there are any. Shape
            (r, m, n) for r parts of the state.
        variance: What noise of variance one, in every preconditioned gradient on the
            way, adds to what is read. Shape (m, n).
    """

    row: FloatArray
    variance: FloatArray


# The formulas, for numbers and arrays ------------------------------------------------


def twice_xd(ones: Any, change: Any, noise: Any) -> Any:
    """Return change and noise of twice as many steps of (x, d).

    Args:
        ones: ox and od, which are added to xx and dd: 1, or 0 once the sum has decayed,
            as :func:`settle` makes them.
        change: xx, xd, dx, dd.
        noise: q, qxd, qdd.

    Returns:
        The seven numbers, in that order.
    """
    ox, od = ones
    xx, xd, dx, dd = change
    q, qxd, qdd = noise
    rx = ox + xx
    rd = od + dd
    a = rx * q + xd * qxd
    b = rx * qxd + xd * qdd
    c = dx * q + rd * qxd
    d = dx * qxd + rd * qdd
    cross = xd * dx
    trace = (ox + od) + (xx + dd)
    xx = xx * (2 * ox + xx) + cross
    dd = dd * (2 * od + dd) + cross
    return (
        xx,
        xd * trace,
        dx * trace,
        dd,
        q + (a * rx + b * xd),
        qxd + (a * dx + b * rd),
        qdd + (c * dx + d * rd),
    )


def twice_xy(ones: Any, change: Any, noise: Any) -> Any:
    """Return change and noise of twice as many steps of (x, y).

    Args:
        ones: As for :func:`twice_xd`, of x and of y.
        change: xx, yx, yy.
        noise: q, qxy, qyy.

    Returns:
        The six numbers, in that order.
    """
    ox, oy = ones
    xx, yx, yy = change
    q, qxy, qyy = noise
    rx = ox + xx
    ry = oy + yy
    a = rx * q
    b = rx * qxy
    c = yx * q + ry * qxy
    d = yx * qxy + ry * qyy
    after = yx * ((ox + oy) + (xx + yy))
    xx = xx * (2 * ox + xx)
    yy = yy * (2 * oy + yy)
    return (
        xx,
        after,
        yy,
        q + a * rx,
        qxy + (a * yx + b * ry),
        qyy + (c * yx + d * ry),
    )


def twice_y(ones: Any, change: Any, noise: Any, state: Any) -> Any:
    """Return what y adds to (x, d), for twice as many steps.

    Args:
        ones: As for :func:`twice_xd`, of x, d and y.
        change: yx, yd, yy.
        noise: qxy, qdy, qyy.
        state: Change and noise of (x, d) as :func:`twice_xd` takes them, not yet
            doubled; seven numbers.

    Returns:
        The six numbers, in that order.
    """
    ox, od, oy = ones
    yx, yd, yy = change
    qxy, qdy, qyy = noise
    xx, xd, dx, dd, q, qxd, qdd = state
    rx = ox + xx
    rd = od + dd
    ry = oy + yy
    a = rx * q + xd * qxd
    b = rx * qxd + xd * qdd
    c = rx * qxy + xd * qdy
    d = dx * q + rd * qxd
    e = dx * qxd + rd * qdd
    f = dx * qxy + rd * qdy
    g = yx * q + yd * qxd + ry * qxy
    h = yx * qxd + yd * qdd + ry * qdy
    i = yx * qxy + yd * qdy + ry * qyy
    after_x = yx * ((ox + oy) + (xx + yy)) + yd * dx
    after_d = yd * ((od + oy) + (dd + yy)) + yx * xd
    after_y = yy * (2 * oy + yy)
    return (
        after_x,
        after_d,
        after_y,
        qxy + (a * yx + b * yd + c * ry),
        qdy + (d * yx + e * yd + f * ry),
        qyy + (g * yx + h * yd + i * ry),
    )


def settles(level: Any) -> Any:
    """Return whether ones are settled after that many doublings, counted from 0.

    Every third: until then what was above .9 is still above .4, and has lost nothing.
    """
    return level % 3 == 0


def settle(one: Any, change: Any) -> Any:
    """Return a one and a change, the one 0 if their sum has fallen below .9."""
    decayed = (abs(one + change) < 0.9) * one
    return one - decayed, change + decayed


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


def _as_it_is(row: Parts) -> Parts:
    return row


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """One step of every run, and how more are made of it.

    Args:
        step: Change and noise, as the `twice` of the layout takes them.
        diagonal: Where in `step` the diagonal is.
        twice: (ones, step) -> the doubled step.
        read: (row, step) -> variance read.
        move: (row, ones, step) -> the row, that many steps earlier.
        turn: Row -> the row that reads the state as `step` has it.
        turn_back: The other way.
        turned: Where the step is turned around, so that odd powers change sign.
        ones: What is added to the diagonal of the change, for each of x, d, y.
        exact: Whether to settle them.
    """

    step: Parts
    diagonal: tuple[int, ...]
    twice: Callable[[Ones, Parts], Parts]
    read: Callable[[Parts, Parts], FloatArray]
    move: Callable[[Parts, Ones, Parts], Parts]
    turn: Callable[[Parts], Parts] = _as_it_is
    turn_back: Callable[[Parts], Parts] = _as_it_is
    turned: FloatArray | float = 0.0
    ones: Ones = (1.0, 1.0, 1.0)
    exact: bool = True

    def doubled(self, level: int) -> "Stretch":
        """Return twice as many steps; `level` counts the doublings so far, from 0."""
        ones, step = list(self.ones), list(self.twice(self.ones, self.step))
        if self.exact and settles(level):
            for place, entry in enumerate(self.diagonal):
                ones[place], step[entry] = settle(ones[place], step[entry])
        return replace(self, ones=tuple(ones), step=tuple(step))


def carry(stretch: Stretch, row: FloatArray, steps: IntArray) -> Carried:
    """Return rows carried back through `steps` steps of each run.

    Args:
        stretch: One step.
        row: How the state after the steps is read, shape (r, m, n).
        steps: Of each run, shape (m,).

    Returns:
        How the state before them is read, and the noise on the way.
    """
    parts = stretch.turn(tuple(row))
    variance = np.zeros(row.shape[1:])
    for bit in range(int(steps.max()).bit_length()):
        if bit:
            stretch = stretch.doubled(bit - 1)
        chosen = ((steps >> bit) & 1).astype(bool)[:, None]
        if chosen.any():
            more = variance + stretch.read(parts, stretch.step)
            variance = np.where(chosen, more, variance)
            moved = stretch.move(parts, stretch.ones, stretch.step)
            parts = tuple(
                np.where(chosen, new, old)
                for new, old in zip(moved, parts, strict=True)
            )
    sign = 1 - 2 * stretch.turned * (steps & 1)[:, None]
    return Carried(sign * np.stack(stretch.turn_back(parts)), variance)


def ladder(stretch: Stretch, row: FloatArray, begin: float, num_levels: int) -> Moments:
    """Return the moments after 1, 2, 4, ... steps: what one doubling passes through.

    Args:
        stretch: One step of m runs.
        row: How the state after the steps is read, shape (r, n).
        begin: Where y starts, in units of x_0.
        num_levels: How many numbers of steps.

    Returns:
        Moments, each of shape (num_levels, m, n).
    """
    shape = stretch.step[0].shape
    parts = stretch.turn(tuple(np.broadcast_to(part, shape) for part in row))
    means: list[FloatArray] = []
    variances: list[FloatArray] = []
    for level in range(num_levels):
        if level:
            stretch = stretch.doubled(level - 1)
        sign = 1 - 2 * stretch.turned * (level == 0)
        moved = stretch.move(parts, stretch.ones, stretch.step)
        x, *_, last = stretch.turn_back(moved)
        means.append(sign * (x + begin * last))
        variances.append(np.zeros(shape) + stretch.read(parts, stretch.step))
    return Moments(np.stack(means), np.stack(variances))


def unit_row(layout: Layout, num_dims: int) -> FloatArray:
    """Return the row that reads y, or x where there is no y. Shape (r, n)."""
    row = np.zeros((1 + sum(layout), num_dims))
    row[-1 if layout[1] else 0] = 1
    return row


def stretch_xd(co: Coefficients, rates: FloatArray) -> Stretch:
    """Return one step of momentum, read at the parameter; `rates` of shape (n,)."""
    lr, gap, nesterov = (part[:, None] for part in co[:3])
    *step, kick_x, kick_d, shift, turned = change(lr, gap, nesterov, rates)
    one = np.ones((lr.shape[0], rates.size))
    noise = (kick_x * kick_x * one, kick_x * kick_d, kick_d * kick_d)
    return Stretch(
        step=(*step, *noise),
        diagonal=(0, 3),
        twice=lambda o, s: twice_xd(o[:2], s[:4], s[4:]),
        read=lambda r, s: read_xd(*r, *s[4:]),
        move=lambda r, o, s: (
            o[0] * r[0] + (r[0] * s[0] + r[1] * s[2]),
            o[1] * r[1] + (r[0] * s[1] + r[1] * s[3]),
        ),
        turn=lambda r: turn(r[0], r[1], lr, shift, turned),
        turn_back=lambda r: turn_back(r[0], r[1], lr, shift, turned),
        turned=turned,
    )


def stretch_xy(co: Coefficients, rates: FloatArray) -> Stretch:
    """Return one step of SGD, read at a mean or a sum; `rates` of shape (n,)."""
    lr, take, forget = (part[:, None] for part in (co.lr, co.take, co.forget))
    one = np.ones((lr.shape[0], rates.size))
    rate = lr * rates
    kick_x, kick_y = -lr, -take * lr
    noise = (kick_x * kick_x, kick_x * kick_y, kick_y * kick_y)
    return Stretch(
        step=(-rate, take * (1 - rate), -forget * one, *(part * one for part in noise)),
        diagonal=(0, 2),
        twice=lambda o, s: twice_xy(o[:2], s[:3], s[3:]),
        read=lambda r, s: read_xy(*r, *s[3:]),
        move=lambda r, o, s: (
            o[0] * r[0] + (r[0] * s[0] + r[1] * s[1]),
            o[1] * r[1] + r[1] * s[2],
        ),
    )


def stretch_xdy(co: Coefficients, rates: FloatArray) -> Stretch:
    """Return one step of momentum, read at a mean or a sum; `rates` of shape (n,)."""
    lr, gap, nesterov, take, forget = (part[:, None] for part in co)
    *step, kick_x, kick_d, shift, turned = change(lr, gap, nesterov, rates)
    one = np.ones((lr.shape[0], rates.size))
    kick_y = take * kick_x
    noise = (kick_x * kick_x * one, kick_x * kick_d, kick_d * kick_d)
    noise_y = (kick_x * kick_y * one, kick_d * kick_y, kick_y * kick_y * one)
    forgotten = forget + turned * (2 - forget - forget)
    step_y = (take * (1 + step[0]), take * step[1], -forgotten)
    return Stretch(
        step=(*step, *noise, *step_y, *noise_y),
        diagonal=(0, 3, 9),
        twice=lambda o, s: (
            *twice_xd(o[:2], s[:4], s[4:7]),
            *twice_y(o, s[7:10], s[10:], s[:7]),
        ),
        read=lambda r, s: read_xd(r[0], r[1], *s[4:7]) + read_y(*r, *s[10:]),
        move=lambda r, o, s: (
            o[0] * r[0] + (r[0] * s[0] + r[1] * s[2] + r[2] * s[7]),
            o[1] * r[1] + (r[0] * s[1] + r[1] * s[3] + r[2] * s[8]),
            o[2] * r[2] + r[2] * s[9],
        ),
        turn=lambda r: (*turn(r[0], r[1], lr, shift, turned), r[2]),
        turn_back=lambda r: (*turn_back(r[0], r[1], lr, shift, turned), r[2]),
        turned=turned,
    )
