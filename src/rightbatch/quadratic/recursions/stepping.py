r"""Second moments one step at a time, for schedules that change at every step.

With A and b how x' comes out of x and d, and r and m how d' does,

.. math::
    E\,x'^2 = A^2 E\,x^2 + 2 A b\, E\,x d + b^2 E\,d^2 + (pull \cdot lr)^2 p^2 c / B

and likewise for the other products. The formulas are written once, for numbers and for
arrays, as in :mod:`rightbatch.quadratic.recursions.doubling`.
"""

from typing import Any, NamedTuple

import numpy as np

from rightbatch.quadratic.optimizers import Optimizer
from rightbatch.quadratic.recursions.transition import Layout, layout_of
from rightbatch.quadratic.spectrum import FloatArray


class Memory(NamedTuple):
    """What of an optimizer stays the same while the learning rate changes.

    Args:
        momentum: Of the buffer, 0 without one.
        nesterov: 1 for Nesterov's momentum, else 0.
        stay: How much of y stays; the moving average's decay, or 1 for a sum.
        take: How much of x' goes into y'.
    """

    momentum: float = 0.0
    nesterov: float = 0.0
    stay: float = 1.0
    take: float = 1.0


class Course(NamedTuple):
    """m schedules over a number of steps, along n directions.

    Args:
        lrs: Learning rates, shape (m, T).
        inverses: One over the batch sizes, shape (m, T).
        rates: p h, shape (n,).
        noises: p^2 c, shape (n,).
    """

    lrs: FloatArray
    inverses: FloatArray
    rates: FloatArray
    noises: FloatArray

    def cut(self, first: int, last: int) -> "Course":
        """Return the steps from `first` up to `last`, that one left out."""
        lrs, inverses = self.lrs[:, first:last], self.inverses[:, first:last]
        return Course(lrs, inverses, self.rates, self.noises)


def memory_of(optimizer: Optimizer) -> Memory:
    """Return what of an optimizer stays the same while the learning rate changes."""
    stay = 1.0 if optimizer.averages else optimizer.ema_decay
    take = 1.0 if optimizer.averages else 1 - optimizer.ema_decay
    return Memory(optimizer.momentum, float(optimizer.is_nesterov), stay, take)


def first_moments(optimizer: Optimizer, start: FloatArray, num_runs: int) -> FloatArray:
    """Return the second moments before the first step, as :func:`walk` takes them."""
    state = np.zeros((_NUM_MOMENTS[layout_of(optimizer.name)], num_runs, start.size))
    state[0] = start
    if optimizer.has_ema:  # y starts at x_0
        state[3 if optimizer.has_momentum else 1] = state[-1] = start
    return state


_NUM_MOMENTS = {
    (False, False): 1,
    (True, False): 3,
    (False, True): 3,
    (True, True): 6,
}


# The formulas, for numbers and arrays ------------------------------------------------


def step_x(lr: Any, inverse: Any, rate: Any, noise: Any, xx: Any) -> Any:
    """Return E x'^2 of SGD."""
    keep = 1 - lr * rate
    return keep * keep * xx + lr * lr * inverse * noise


def weigh(lr: Any, momentum: Any, nesterov: Any, rate: Any) -> Any:
    """Return how x' comes out of x and of d, and out of the noise, up to its sign."""
    push = lr * (1 + momentum * nesterov)
    ahead = momentum * (1 - (1 - momentum) * nesterov)
    return 1 - push * rate, -lr * ahead, push


def step_xd(step: Any, momentum: Any, rate: Any, noise: Any, moments: Any) -> Any:
    """Return E x'^2, E x'd', E d'^2; `step` as :func:`weigh` returns it."""
    keep, carry, push = step
    xx, xd, dd = moments
    a = keep * xx + carry * xd
    b = keep * xd + carry * dd
    c = rate * xx + momentum * xd
    d = rate * xd + momentum * dd
    return (
        a * keep + b * carry + push * push * noise,
        a * rate + b * momentum - push * noise,
        c * rate + d * momentum + noise,
    )


def step_xy(keep: Any, stay: Any, take: Any, xx: Any, xy: Any, yy: Any) -> Any:
    """Return E x'y', E y'^2 of SGD; `xx` is E x'^2, after the step."""
    a = keep * xy
    return stay * a + take * xx, stay * (stay * yy + 2 * take * a) + take * take * xx


def step_xdy(step: Any, memory: Any, rate: Any, after: Any, moments: Any) -> Any:
    """Return E x'y', E d'y', E y'^2; `after` are E x'^2 and E x'd', after the step."""
    keep, carry, _ = step
    momentum, stay, take = memory
    xx, xd = after
    xy, dy, yy = moments
    a = keep * xy + carry * dy
    b = rate * xy + momentum * dy
    return (
        stay * a + take * xx,
        stay * b + take * xd,
        stay * (stay * yy + 2 * take * a) + take * take * xx,
    )


# In numpy, all schedules and directions together -------------------------------------


def walk(
    layout: Layout, memory: Memory, course: Course, state: FloatArray, trace: FloatArray
) -> None:
    """Take every step of a course, in place.

    Args:
        layout: Of the optimizer's state.
        memory: Of the optimizer.
        course: The schedules.
        state: Second moments, shape (r, m, n): E x^2, then E xd and E d^2 where there
            is a buffer, then E xy, E dy (with a buffer) and E y^2 where y is read.
        trace: Where E x^2, or E y^2 where there is a y, is kept after each step. Shape
            (m, T, n), or (m, 0, n) to keep nothing.
    """
    advance, read = _LAYOUTS[layout]
    keep = trace.shape[1] > 0
    with np.errstate(over="ignore", invalid="ignore"):
        for place in range(course.lrs.shape[1]):
            lr, inverse = course.lrs[:, place, None], course.inverses[:, place, None]
            advance(memory, lr, inverse, course, state)
            if keep:
                trace[:, place] = state[read]


def _advance_x(
    memory: Memory, lr: FloatArray, inverse: FloatArray, course: Course, state: Any
) -> None:
    state[0] = step_x(lr, inverse, course.rates, course.noises, state[0])


def _advance_xd(
    memory: Memory, lr: FloatArray, inverse: FloatArray, course: Course, state: Any
) -> None:
    momentum, nesterov, _, _ = memory
    step = weigh(lr, momentum, nesterov, course.rates)
    noise = inverse * course.noises
    state[:3] = step_xd(step, momentum, course.rates, noise, state[:3])


def _advance_xy(
    memory: Memory, lr: FloatArray, inverse: FloatArray, course: Course, state: Any
) -> None:
    _advance_x(memory, lr, inverse, course, state)
    keep = 1 - lr * course.rates
    state[1:] = step_xy(keep, memory.stay, memory.take, *state)


def _advance_xdy(
    memory: Memory, lr: FloatArray, inverse: FloatArray, course: Course, state: Any
) -> None:
    _advance_xd(memory, lr, inverse, course, state)
    momentum, nesterov, stay, take = memory
    step = weigh(lr, momentum, nesterov, course.rates)
    kept = (momentum, stay, take)
    state[3:] = step_xdy(step, kept, course.rates, state[:2], state[3:])


_LAYOUTS = {
    (False, False): (_advance_x, 0),
    (True, False): (_advance_xd, 0),
    (False, True): (_advance_xy, 2),
    (True, True): (_advance_xdy, 5),
}
