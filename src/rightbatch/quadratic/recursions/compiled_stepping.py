"""The steps of :mod:`rightbatch.quadratic.recursions.stepping`, compiled by numba."""

from typing import Any

import numpy as np

from rightbatch.quadratic.recursions import stepping
from rightbatch.quadratic.recursions.jit import inlined, kernels_of
from rightbatch.quadratic.recursions.stepping import Course, Memory
from rightbatch.quadratic.recursions.transition import Layout
from rightbatch.quadratic.spectrum import FloatArray

_kernel = kernels_of(
    stepping.step_x,
    stepping.weigh,
    stepping.step_xd,
    stepping.step_xy,
    stepping.step_xdy,
)
_step_x = inlined(stepping.step_x)
_weigh = inlined(stepping.weigh)
_step_xd = inlined(stepping.step_xd)
_step_xy = inlined(stepping.step_xy)
_step_xdy = inlined(stepping.step_xdy)


@_kernel
def _walk_x(memory: Any, course: Any, state: Any, trace: Any) -> None:
    num_runs, num_steps = course.lrs.shape
    keep = trace.shape[1] > 0
    for i in range(num_runs):
        xx = state[0, i]
        for t in range(num_steps):
            lr, inverse = course.lrs[i, t], course.inverses[i, t]
            for j in range(xx.size):
                xx[j] = _step_x(lr, inverse, course.rates[j], course.noises[j], xx[j])
            if keep:
                trace[i, t] = xx


@_kernel
def _walk_xy(memory: Any, course: Any, state: Any, trace: Any) -> None:
    num_runs, num_steps = course.lrs.shape
    rates, noises = course.rates, course.noises
    keep = trace.shape[1] > 0
    for i in range(num_runs):
        xx, xy, yy = state[0, i], state[1, i], state[2, i]
        for t in range(num_steps):
            lr, inverse = course.lrs[i, t], course.inverses[i, t]
            for j in range(xx.size):
                xx[j] = _step_x(lr, inverse, rates[j], noises[j], xx[j])
                xy[j], yy[j] = _step_xy(
                    1 - lr * rates[j], memory.stay, memory.take, xx[j], xy[j], yy[j]
                )
            if keep:
                trace[i, t] = yy


@_kernel
def _walk_xd(memory: Any, course: Any, state: Any, trace: Any) -> None:
    num_runs, num_steps = course.lrs.shape
    rates, noises = course.rates, course.noises
    momentum, nesterov = memory.momentum, memory.nesterov
    keep = trace.shape[1] > 0
    for i in range(num_runs):
        xx, xd, dd = state[0, i], state[1, i], state[2, i]
        for t in range(num_steps):
            lr, inverse = course.lrs[i, t], course.inverses[i, t]
            for j in range(xx.size):
                step = _weigh(lr, momentum, nesterov, rates[j])
                noise = inverse * noises[j]
                xx[j], xd[j], dd[j] = _step_xd(
                    step, momentum, rates[j], noise, (xx[j], xd[j], dd[j])
                )
            if keep:
                trace[i, t] = xx


@_kernel
def _walk_xdy(memory: Any, course: Any, state: Any, trace: Any) -> None:
    num_runs, num_steps = course.lrs.shape
    rates, noises = course.rates, course.noises
    momentum, nesterov = memory.momentum, memory.nesterov
    kept = (momentum, memory.stay, memory.take)
    keep = trace.shape[1] > 0
    for i in range(num_runs):
        xx, xd, dd, xy, dy, yy = state[:, i]
        for t in range(num_steps):
            lr, inverse = course.lrs[i, t], course.inverses[i, t]
            for j in range(xx.size):
                step = _weigh(lr, momentum, nesterov, rates[j])
                noise = inverse * noises[j]
                xx[j], xd[j], dd[j] = _step_xd(
                    step, momentum, rates[j], noise, (xx[j], xd[j], dd[j])
                )
                xy[j], dy[j], yy[j] = _step_xdy(
                    step, kept, rates[j], (xx[j], xd[j]), (xy[j], dy[j], yy[j])
                )
            if keep:
                trace[i, t] = yy


_WALKS = {
    (False, False): _walk_x,
    (True, False): _walk_xd,
    (False, True): _walk_xy,
    (True, True): _walk_xdy,
}


def walk(
    layout: Layout, memory: Memory, course: Course, state: FloatArray, trace: FloatArray
) -> None:
    """Do what :func:`rightbatch.quadratic.recursions.stepping.walk` does."""
    course = Course(*(np.ascontiguousarray(part) for part in course))
    _WALKS[layout](memory, course, state, trace)
