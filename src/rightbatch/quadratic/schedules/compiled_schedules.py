"""Loops over schedules of SGD, compiled by numba; numpy's formulas, one at a time.

The counterparts are in the modules ``adjoint``, ``folding`` and ``greedy`` beside it.
"""

import math
from typing import Any

import numpy as np

from rightbatch.quadratic.recursions.jit import inlined, kernels_of
from rightbatch.quadratic.spectrum import FloatArray

_TINY = 1e-150
_SERIES = 1e-4
_kernel = kernels_of()


@inlined
def _sum_slopes(k: float, turn: float, sums: float, once: float, twice: float) -> Any:
    """Return the first and second derivative of F = (1 - (1 - D)^K) / D by D."""
    c2 = k * (k - 1) / 2
    if abs(k * turn) < _SERIES:
        c3 = c2 * (k - 2) / 3
        c4 = c3 * (k - 3) / 4
        c5 = c4 * (k - 4) / 5
        slope = -c2 + turn * (2 * c3 - 3 * c4 * turn)
        return slope, 2 * c3 - turn * (6 * c4 - 12 * c5 * turn)
    slope = (k * once - sums) / turn
    return slope, (-2 * c2 * twice - 2 * slope) / turn


@inlined
def _map(k: float, x: float, scale: float) -> Any:
    """Return P and the noise of a piece, with derivatives by log lr and log K."""
    turn = x * (2 - x)
    left = 1 - x
    if abs(left) < _TINY:
        left = _TINY
    log = math.log1p(-turn) if abs(turn) < 0.5 else 2 * math.log(abs(left))
    power = k * log
    shrink = math.exp(power)
    sums = k if turn == 0 else -math.expm1(power) / turn
    once = shrink / (left * left)
    first, second = _sum_slopes(k, turn, sums, once, once / (left * left))
    by_u = 2 * x * left
    ratio = x / left
    mixed = 4 * by_u + (2 * x - 4 * x * x)
    return (
        shrink,
        -2 * k * shrink * ratio,
        2 * k * shrink * ratio * ((2 * k - 1) * ratio - 1),
        scale * sums,
        scale * (2 * sums + by_u * first),
        scale * (4 * sums + mixed * first + by_u * by_u * second),
        power * shrink,
        scale * k * shrink * (1.0 if turn == 0 else -log / turn),
    )


@_kernel
def expand(along: Any, log_lrs: FloatArray, counts: FloatArray) -> Any:
    """Return loss, gradient, Hessian and derivative by log steps, as numpy does.

    Args:
        along: Rates, start, noise and weights of the directions.
        log_lrs: Of the pieces.
        counts: Steps of each.

    Returns:
        The four.
    """
    rates, start, noise, weights = along
    n = log_lrs.size
    gradient, hessian = np.zeros(n), np.zeros((n, n))
    maps, tangents, before = np.empty((n, 8)), np.empty(n), np.empty(n)
    lrs = np.exp(log_lrs)
    loss = 0.0
    by_length = 0.0
    for j in range(rates.size):
        moment = start[j]
        for i in range(n):
            lr = lrs[i]
            maps[i] = _map(counts[i], lr * rates[j], lr * lr * noise[j])
            before[i] = moment
            moment = maps[i, 0] * moment + maps[i, 3]
        loss += weights[j] * moment
        behind = weights[j]
        for i in range(n - 1, -1, -1):
            _, slope, bend, _, kick_slope, kick_bend, grow, kick_grow = maps[i]
            tangents[i] = slope * before[i] + kick_slope
            gradient[i] += behind * tangents[i]
            hessian[i, i] += behind * (bend * before[i] + kick_bend)
            by_length += behind * (grow * before[i] + kick_grow)
            maps[i, 1] = behind * slope
            behind *= maps[i, 0]
        for i in range(n):
            for other in range(i):
                hessian[i, other] += maps[i, 1] * tangents[other]
                tangents[other] *= maps[i, 0]
    for i in range(n):
        hessian[:i, i] = hessian[i, :i]
    return loss, gradient, hessian, by_length


@_kernel
def step_through(along: Any, lrs: FloatArray) -> Any:
    """Return the loss after one step of SGD at each learning rate.

    Args:
        along: Rates, start, noise and weights of the directions.
        lrs: Of the steps.

    Returns:
        The loss.
    """
    rates, start, noise, weights = along
    moments = start.copy()
    for lr in lrs:
        square = lr * lr
        for j in range(rates.size):
            keep = 1 - lr * rates[j]
            moments[j] = keep * keep * moments[j] + square * noise[j]
    loss = 0.0
    for j in range(rates.size):
        loss += weights[j] * moments[j]
    return loss


@_kernel
def run_greedy(along: Any, goal: float, most: int) -> Any:
    """Return steps taken, loss and last learning rate of the greedy schedule.

    Args:
        along: Rates, start, noise and weights of the directions.
        goal: The loss to reach.
        most: Where to stop.

    Returns:
        The three.
    """
    rates, start, noise, weights = along
    moments = start.copy()
    noise_loss = 0.0
    for j in range(rates.size):
        noise_loss += weights[j] * noise[j]
    lr = 0.0
    loss = np.inf
    for step in range(1, most + 1):
        above = 0.0
        below = noise_loss
        for j in range(rates.size):
            pull = weights[j] * rates[j] * moments[j]
            above += pull
            below += pull * rates[j]
        lr = above / below if below > 0 else 0.0
        square = lr * lr
        loss = 0.0
        for j in range(rates.size):
            keep = 1 - lr * rates[j]
            moments[j] = keep * keep * moments[j] + square * noise[j]
            loss += weights[j] * moments[j]
        if loss <= goal:
            return step, loss, lr
    return most, loss, lr
