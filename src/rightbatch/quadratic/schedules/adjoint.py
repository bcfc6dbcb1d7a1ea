r"""The loss of SGD after pieces of constant learning rate, and its derivatives.

Over a piece of K steps at rate x = lr p h, the second moment along one direction goes
from m to

.. math:: P m + lr^2 F v, \qquad P = (1-x)^{2K}, \quad
          F = \frac{1 - (1-x)^{2K}}{x(2-x)}

so with c_n = w h / 2 behind the last piece and c_{k-1} = P_k c_k, one pass forward for
the moments and one back for these costates give the derivative by every log lr,
:math:`\sum c_k (P_k' m_{k-1} + (lr^2 F)_k' v)`. Carrying the derivatives of the
moments forward as well gives every second derivative, at about the same cost. Numbers
of steps need not be whole.
"""

from typing import Any, NamedTuple

import numpy as np

from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.spectrum import FloatArray

_TINY = 1e-150  # its square still is a normal number
_SERIES = 1e-4


class Directions(NamedTuple):
    """A problem at one batch size as arrays of shape (n,).

    Args:
        rates: p h.
        start: Second moments before the first step.
        noise: p^2 c / B.
        weights: w h / 2, which make the loss of second moments.
    """

    rates: FloatArray
    start: FloatArray
    noise: FloatArray
    weights: FloatArray


class Expansion(NamedTuple):
    """The loss above the irreducible one, to second order in the log lrs of n pieces.

    Args:
        loss: The value.
        gradient: By log lr, shape (n,).
        hessian: By log lr twice, shape (n, n).
        by_length: By the logarithm of all numbers of steps together.
    """

    loss: float
    gradient: FloatArray
    hessian: FloatArray
    by_length: float


class _Maps(NamedTuple):
    """P and lr^2 F v of every piece and direction, shape (n, d), with derivatives.

    Args:
        shrink: P.
        shrink_slope: By log lr.
        shrink_bend: By log lr twice.
        noise: lr^2 F v.
        noise_slope: By log lr.
        noise_bend: By log lr twice.
        shrink_growth: P by log K.
        noise_growth: lr^2 F v by log K.
    """

    shrink: FloatArray
    shrink_slope: FloatArray
    shrink_bend: FloatArray
    noise: FloatArray
    noise_slope: FloatArray
    noise_bend: FloatArray
    shrink_growth: FloatArray
    noise_growth: FloatArray


def directions(problem: NoisyQuadratic, batch_size: float) -> Directions:
    """Return a problem at one batch size as plain arrays."""
    return Directions(
        np.ascontiguousarray(problem.rates),
        np.ascontiguousarray(problem.start),
        problem.step_noise / batch_size,
        problem.loss_weights,
    )


def loss_of(along: Directions, log_lrs: FloatArray, counts: FloatArray) -> FloatArray:
    """Return the loss above the irreducible one after pieces of SGD.

    Args:
        along: The directions.
        log_lrs: Of the pieces, in order. Shape (n,), or (m, n) for m schedules.
        counts: Steps of each, positive or 0, not necessarily whole. Broadcasts.

    Returns:
        The loss of each schedule, shape () or (m,); infinite past what a float holds.
    """
    lr = np.exp(log_lrs)[..., None]
    x = lr * along.rates
    turn = x * (2 - x)
    steps = np.broadcast_to(np.asarray(counts)[..., None], turn.shape)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        power = steps * np.where(
            np.abs(turn) < 0.5, np.log1p(-turn), 2 * np.log(np.abs(1 - x))
        )
        # No step is no change, even where one step leaves nothing.
        power = np.where(steps == 0, 0.0, power)
        shrink = np.exp(power)
        spread = np.where(turn == 0, steps, -np.expm1(power) / turn)
        moments = along.start
        for k in range(lr.shape[-2]):
            kick = (lr * lr)[..., k, :] * spread[..., k, :] * along.noise
            moments = shrink[..., k, :] * moments + kick
        losses = moments @ along.weights
    return np.where(np.isnan(losses), np.inf, losses)


def expand(
    along: Directions, log_lrs: FloatArray, counts: FloatArray, kernels: Any = None
) -> Expansion:
    """Return the loss after pieces of SGD with its first and second derivatives.

    Args:
        along: The directions.
        log_lrs: Of the pieces, in order. Shape (n,).
        counts: Steps of each, positive or 0, not necessarily whole. Shape (n,).
        kernels: :func:`schedule_kernels`, or None for numpy.

    Returns:
        The expansion; not finite past what a float holds.
    """
    if kernels is not None:
        return Expansion(*kernels.expand(tuple(along), log_lrs, counts))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _sweep(along, _maps(along, log_lrs, counts))


def schedule_kernels(backend: Backend = "auto") -> Any:
    """Return the compiled loops over schedules, or None where numpy is all there is."""
    from rightbatch.quadratic.recursions.powers import compiled

    if compiled(backend) is None:
        return None
    from rightbatch.quadratic.schedules import compiled_schedules as kernels

    return kernels


def _maps(along: Directions, log_lrs: FloatArray, counts: FloatArray) -> _Maps:
    """Return the maps of all pieces; sums where x (2 - x) is small are by series."""
    lr, k = np.exp(log_lrs)[:, None], counts[:, None]
    x = lr * along.rates
    turn = x * (2 - x)
    left = 1 - x
    left = np.where(np.abs(left) < _TINY, _TINY, left)
    near = np.abs(turn) < 0.5
    log = np.where(near, np.log1p(-np.where(near, turn, 0)), 2 * np.log(np.abs(left)))
    power = k * log
    shrink = np.exp(power)
    safe = np.where(turn == 0, 1, turn)
    sums = np.where(turn == 0, k, -np.expm1(power) / safe)
    # Derivatives of F = (1 - (1 - D)^K)/D by D = x (2 - x): a polynomial near D = 0.
    series = np.abs(k * turn) < _SERIES
    safe_turn = np.where(series, 1, turn)
    c2 = k * (k - 1) / 2
    c3 = c2 * (k - 2) / 3
    c4 = c3 * (k - 3) / 4
    c5 = c4 * (k - 4) / 5
    once = shrink / (left * left)
    slope = np.where(
        series, -c2 + turn * (2 * c3 - 3 * c4 * turn), (k * once - sums) / safe_turn
    )
    bend = np.where(
        series,
        2 * c3 - turn * (6 * c4 - 12 * c5 * turn),
        (-2 * c2 * once / (left * left) - 2 * slope) / safe_turn,
    )
    scale = lr * lr * along.noise
    by_u, by_u_twice = 2 * x * left, 2 * x - 4 * x * x
    ratio = x / left
    return _Maps(
        shrink=shrink,
        shrink_slope=-2 * k * shrink * ratio,
        shrink_bend=2 * k * shrink * ratio * ((2 * k - 1) * ratio - 1),
        noise=scale * sums,
        noise_slope=scale * (2 * sums + by_u * slope),
        noise_bend=scale
        * (4 * sums + (4 * by_u + by_u_twice) * slope + by_u * by_u * bend),
        shrink_growth=power * shrink,
        noise_growth=-scale * k * shrink * np.where(turn == 0, -1, log / safe),
    )


def _sweep(along: Directions, maps: _Maps) -> Expansion:
    """Return the expansion by one pass forward and one back."""
    n = len(maps.shrink)
    before, behind = np.empty_like(maps.shrink), np.empty_like(maps.shrink)
    moments, costate = along.start, along.weights
    for k in range(n):
        before[k] = moments
        moments = maps.shrink[k] * moments + maps.noise[k]
    for k in reversed(range(n)):
        behind[k] = costate
        costate = maps.shrink[k] * costate
    tangents = maps.shrink_slope * before + maps.noise_slope
    bends = maps.shrink_bend * before + maps.noise_bend
    growth = maps.shrink_growth * before + maps.noise_growth
    pull = behind * maps.shrink_slope
    gradient = np.einsum("kj,kj->k", behind, tangents)
    hessian = np.diag(np.einsum("kj,kj->k", behind, bends))
    for k in range(n):
        hessian[:k, k] = hessian[k, :k] = tangents[:k] @ pull[k]
        tangents[:k] *= maps.shrink[k]
    by_length = float(np.einsum("kj,kj->", behind, growth))
    return Expansion(float(moments @ along.weights), gradient, hessian, by_length)
