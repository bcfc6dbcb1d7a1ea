r"""Moments after k steps of any optimizer, for many settings at once.

SGD has a closed form; everything else doubles. numba is used where it is installed;
numpy gives the same numbers, 10 to 100 times slower.
"""

from functools import cache
from importlib import import_module, util
from typing import Any, Literal

import numpy as np

from rightbatch.errors import InputError
from rightbatch.quadratic import doubling
from rightbatch.quadratic.doubling import IntArray, Moments
from rightbatch.quadratic.optimizers import OptimizerName
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.transition import (
    Settings,
    coefficients,
    has_buffer,
    reads_apart,
)

Backend = Literal["auto", "numpy", "numba"]


@cache
def compiled(backend: Backend = "auto") -> Any:
    """Return the compiled kernels, or None where numpy is wanted or all there is.

    Raises:
        InputError: numba is asked for and not installed.
    """
    if backend == "numpy":
        return None
    if util.find_spec("numba") is None:
        if backend == "numba":
            raise InputError(
                "quadratic: `backend` is numba, which is not installed.",
                "pip install 'rightbatch[fast]', or leave it at auto",
            )
        return None
    return import_module("rightbatch.quadratic.compiled")


def moments_after(
    name: OptimizerName,
    settings: Settings,
    rates: FloatArray,
    steps: IntArray,
    *,
    tail_fraction: float = 0.5,
    backend: Backend = "auto",
) -> Moments:
    """Return the moments of what the loss is read at, after given numbers of steps.

    Args:
        name: The optimizer.
        settings: Of m runs.
        rates: p h of the directions, shape (n,).
        steps: Of each run, at least 1. Shape (m,).
        tail_fraction: What a tail average takes.
        backend: numpy, numba, or whichever is there.

    Returns:
        Mean and variance, each of shape (m, n). What is unstable is infinite or not a
        number.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if name == "sgd":
            return sgd_moments(settings.lr, rates, steps)
        if name.endswith("average"):
            share = 1.0 if name == "average" else tail_fraction
            return _average(settings, rates, steps, share, backend)
        found = _run(name, settings, rates, steps, 0, backend)
        return Moments(found.mean[0], found.variance[0])


def moments_ladder(
    name: OptimizerName,
    settings: Settings,
    rates: FloatArray,
    num_levels: int,
    *,
    tail_fraction: float = 0.5,
    backend: Backend = "auto",
) -> Moments:
    """Return the moments after 1, 2, 4, ... steps: what one doubling passes through.

    Args:
        name: The optimizer.
        settings: Of m runs.
        rates: p h of the directions, shape (n,).
        num_levels: How many numbers of steps.
        tail_fraction: What a tail average takes.
        backend: numpy, numba, or whichever is there.

    Returns:
        Mean and variance, each of shape (num_levels, m, n).
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if name != "sgd" and not name.endswith("average"):
            top = np.full(settings.lr.shape, 2**num_levels - 1, dtype=np.int64)
            return _run(name, settings, rates, top, num_levels, backend)
        rungs = [
            moments_after(
                name,
                settings,
                rates,
                np.full(settings.lr.shape, 2**level, dtype=np.int64),
                tail_fraction=tail_fraction,
                backend=backend,
            )
            for level in range(num_levels)
        ]
        means, variances = zip(*rungs, strict=True)
        return Moments(np.stack(means), np.stack(variances))


def sgd_moments(lr: FloatArray, rates: FloatArray, steps: IntArray) -> Moments:
    r"""Return SGD's moments in closed form.

    .. math:: a = (1 - x)^k, \quad S = lr^2 \frac{1 - (1 - x)^{2k}}{x (2 - x)}
    """
    x = lr[:, None] * rates
    # 1 - x is exact from 1/2 on; below it log1p keeps the digits of x.
    log = np.where(x < 0.5, np.log1p(-np.minimum(x, 0.5)), np.log(np.abs(1 - x)))
    power = steps[:, None] * log
    mean = np.where((x > 1) & (steps[:, None] % 2 == 1), -1, 1) * np.exp(power)
    edge = np.where(x == 2, 1.0, x * (2 - x))
    spread = np.where(x == 2, steps[:, None], -np.expm1(2 * power) / edge)
    return Moments(mean, lr[:, None] ** 2 * spread)


def _average(
    settings: Settings,
    rates: FloatArray,
    steps: IntArray,
    share: float,
    backend: Backend,
) -> Moments:
    """Return the moments of the mean of the last `share` of SGD's iterates."""
    tail = np.maximum(1, np.round(share * steps)).astype(np.int64)
    total = _run("average", settings, rates, tail, 0, backend)
    mean, variance = total.mean[0] / tail[:, None], total.variance[0]
    variance = variance / tail[:, None].astype(float) ** 2
    before = (steps - tail).astype(np.int64)
    if not before.any():
        return Moments(mean, variance)
    ahead = sgd_moments(settings.lr, rates, before)
    return Moments(mean * ahead.mean, variance + mean**2 * ahead.variance)


def _run(
    name: OptimizerName,
    settings: Settings,
    rates: FloatArray,
    steps: IntArray,
    levels: int,
    backend: Backend,
) -> Moments:
    co = coefficients(name, settings)
    begin = 1.0 if name.endswith("ema") else 0.0
    kernels = compiled(backend)
    if kernels is not None:
        return kernels.run(
            co, rates, (has_buffer(name), reads_apart(name)), begin, steps, levels
        )
    if not reads_apart(name):
        stretch = doubling.stretch_xd(co, rates)
    elif has_buffer(name):
        stretch = doubling.stretch_xdy(co, rates, begin)
    else:
        stretch = doubling.stretch_xy(co, rates, begin)
    if levels:
        return doubling.ladder(stretch, levels)
    found = doubling.moments(stretch, steps)
    return Moments(found.mean[None], found.variance[None])
