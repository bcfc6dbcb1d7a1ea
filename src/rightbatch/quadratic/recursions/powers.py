r"""Moments after k steps of any optimizer, for many settings at once.

SGD has a closed form; everything else doubles. numba is used where it is installed;
numpy gives the same numbers, 10 to 100 times slower.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module, util
from typing import Any, Literal

import numpy as np

from rightbatch.errors import InputError
from rightbatch.quadratic.optimizers import OptimizerName
from rightbatch.quadratic.recursions import doubling, stepping
from rightbatch.quadratic.recursions.closed_forms import sgd_moments
from rightbatch.quadratic.recursions.doubling import Carried, IntArray, Moments
from rightbatch.quadratic.recursions.transition import (
    Coefficients,
    Layout,
    Settings,
    begin_of,
    coefficients,
    layout_of,
)
from rightbatch.quadratic.spectrum import FloatArray

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
    return import_module("rightbatch.quadratic.recursions.compiled")


def walker(backend: Backend = "auto") -> Callable[..., None]:
    """Return the walk of :mod:`rightbatch.quadratic.recursions.stepping`, or its twin.

    Raises:
        InputError: numba is asked for and not installed.
    """
    if compiled(backend) is None:
        return stepping.walk
    return import_module("rightbatch.quadratic.recursions.compiled_stepping").walk


def moments_after(
    name: OptimizerName,
    settings: Settings,
    rates: FloatArray,
    steps: IntArray,
    *,
    tail_fraction: float = 0.5,
    exact: bool = True,
    backend: Backend = "auto",
) -> Moments:
    """Return the moments of what the loss is read at, after given numbers of steps.

    Args:
        name: The optimizer.
        settings: Of m runs.
        rates: p h of the directions, shape (n,).
        steps: Of each run, at least 1. Shape (m,).
        tail_fraction: What a tail average takes.
        exact: Whether means that have all but vanished keep their digits, for a third
            more time. Otherwise they are right to 1e-15 of the start, which shows in
            a loss where there is next to no noise.
        backend: numpy, numba, or whichever is there.

    Returns:
        Mean and variance, each of shape (m, n). What is unstable is infinite or not a
        number.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if name == "sgd":
            kernels = None if exact else compiled(backend)
            sgd = sgd_moments if kernels is None else kernels.sgd_moments
            return sgd(settings.lr, rates, steps)
        if name.endswith("average"):
            share = 1.0 if name == "average" else tail_fraction
            return _average(settings, rates, steps, share, (exact, backend))
        return _run(name, settings, rates, steps, (exact, backend))


def moments_ladder(
    name: OptimizerName,
    settings: Settings,
    rates: FloatArray,
    num_levels: int,
    *,
    tail_fraction: float = 0.5,
    exact: bool = True,
    backend: Backend = "auto",
) -> Moments:
    """Return the moments after 1, 2, 4, ... steps: what one doubling passes through.

    Args:
        name: The optimizer.
        settings: Of m runs.
        rates: p h of the directions, shape (n,).
        num_levels: How many numbers of steps.
        tail_fraction: What a tail average takes.
        exact: Whether means that have all but vanished keep their digits, for a third
            more time. Otherwise they are right to 1e-15 of the start, which shows in
            a loss where there is next to no noise.
        backend: numpy, numba, or whichever is there.

    Returns:
        Mean and variance, each of shape (num_levels, m, n).
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if name != "sgd" and not name.endswith("average"):
            return _ladder(name, settings, rates, num_levels, (exact, backend))
        runs = settings.lr.size
        # All rungs at once, as runs of their own.
        found = moments_after(
            name,
            Settings(*(np.tile(part, num_levels) for part in settings)),
            rates,
            np.repeat(2 ** np.arange(num_levels, dtype=np.int64), runs),
            tail_fraction=tail_fraction,
            exact=exact,
            backend=backend,
        )
        shape = (num_levels, runs, rates.size)
        return Moments(found.mean.reshape(shape), found.variance.reshape(shape))


def num_averaged(share: float, steps: IntArray) -> IntArray:
    """Return how many of the last steps are in an average: at least one."""
    return np.maximum(1, np.round(share * steps)).astype(np.int64)


def _average(
    settings: Settings,
    rates: FloatArray,
    steps: IntArray,
    share: float,
    how: tuple[bool, Backend],
) -> Moments:
    """Return the moments of the mean of the last `share` of SGD's iterates."""
    tail = num_averaged(share, steps)
    total = _run("average", settings, rates, tail, how)
    count = tail[:, None].astype(float)
    mean, variance = total.mean / count, total.variance / count**2
    before = (steps - tail).astype(np.int64)
    if not before.any():
        return Moments(mean, variance)
    ahead = sgd_moments(settings.lr, rates, before)
    return Moments(mean * ahead.mean, variance + mean**2 * ahead.variance)


def carry(
    layout: Layout,
    co: Coefficients,
    rates: FloatArray,
    row: FloatArray,
    steps: IntArray,
    exact: bool = True,
    backend: Backend = "auto",
) -> Carried:
    """Return rows carried back through `steps` steps of m runs, by doubling.

    Args:
        layout: Whether there is a buffer d and whether y is read; SGD alone is neither
            and has :func:`sgd_moments`.
        co: What the steps are made of.
        rates: p h of the directions, shape (n,).
        row: How x, then d and y where there are any, are read at the end, d as torch
            holds it. Shape (r, m, n).
        steps: Of each run, 0 or more. Shape (m,).
        exact: As for :func:`moments_after`.
        backend: numpy, numba, or whichever is there.

    Returns:
        How the state before the steps is read, and the noise on the way.
    """
    kernels = compiled(backend)
    if kernels is not None:
        return kernels.carry(layout, co, rates, row, steps, exact)
    return doubling.carry(_stretch(layout, co, rates, exact), row, steps)


def _run(
    name: OptimizerName,
    settings: Settings,
    rates: FloatArray,
    steps: IntArray,
    how: tuple[bool, Backend],
) -> Moments:
    layout, begin = layout_of(name), begin_of(name)
    co = coefficients(name, settings)
    unit = doubling.unit_row(layout, rates.size)
    shape = (unit.shape[0], settings.lr.size, rates.size)
    row = np.broadcast_to(unit[:, None], shape)
    found = carry(layout, co, rates, row, steps, *how)
    return Moments(found.row[0] + begin * found.row[-1], found.variance)


def _ladder(
    name: OptimizerName,
    settings: Settings,
    rates: FloatArray,
    num_levels: int,
    how: tuple[bool, Backend],
) -> Moments:
    layout, begin = layout_of(name), begin_of(name)
    co = coefficients(name, settings)
    exact, backend = how
    kernels = compiled(backend)
    if kernels is not None:
        return kernels.ladder(layout, co, rates, begin, num_levels, exact)
    unit = doubling.unit_row(layout, rates.size)
    stretch = _stretch(layout, co, rates, exact)
    return doubling.ladder(stretch, unit, begin, num_levels)


def _stretch(
    layout: Layout, co: Coefficients, rates: FloatArray, exact: bool
) -> doubling.Stretch:
    match layout:
        case (True, False):
            stretch = doubling.stretch_xd(co, rates)
        case (True, True):
            stretch = doubling.stretch_xdy(co, rates)
        case _:
            stretch = doubling.stretch_xy(co, rates)
    return replace(stretch, exact=exact)
