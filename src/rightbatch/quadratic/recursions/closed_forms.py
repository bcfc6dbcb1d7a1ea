r"""Moments after k steps in closed form: SGD, heavy ball, moving and plain averages.

With R and r the roots of z^2 - t z + m and

.. math:: b_k = \frac{R^{k+1} - r^{k+1}}{R - r}, \qquad
          S_k = \sum_{j<k} b_j^2 = A \left(1 - (b_k - m b_{k-1})^2
          - \frac{2 m (1 + m - t)}{1 + m} b_k b_{k-1}\right)

the noise left is S, up to a factor. 1 - momentum, 1 - ema_decay and x = lr p h are
taken as they are, so that R and r close to 1, and to each other, keep their digits.
What is in the brackets does not where k is much shorter than the memory, S below
1e-4 A: there the sum is by doubling, which has no such weakness and is what the rest of
the package uses for all but SGD.
"""

import numpy as np

from rightbatch.quadratic.optimizers import OptimizerName
from rightbatch.quadratic.recursions import doubling
from rightbatch.quadratic.recursions.doubling import IntArray, Moments
from rightbatch.quadratic.recursions.transition import Settings, coefficients, layout_of
from rightbatch.quadratic.spectrum import FloatArray

# Digits lost by a difference: 1e-16 of the first term is 1e-12 of a 1e-4th of it.
_SHORT = 1e-4


def sgd_moments(lr: FloatArray, rates: FloatArray, steps: IntArray) -> Moments:
    r"""Return the moments of SGD's iterates.

    .. math:: a = (1 - x)^k, \quad S = lr^2 \frac{1 - (1 - x)^{2k}}{x (2 - x)}

    Args:
        lr: Learning rates of m runs, shape (m,).
        rates: p h of the directions, shape (n,).
        steps: Of each run, 0 or more. Shape (m,).

    Returns:
        Mean and variance, each of shape (m, n); infinite past what a float holds.

    Example:
        >>> one = sgd_moments(np.array([0.5]), np.array([1.0, 0.1]), np.array([3]))
        >>> one.mean.round(6).tolist(), one.variance.round(6).tolist()
        ([[0.125, 0.857375]], [[0.328125, 0.679252]])
    """
    x, k = lr[:, None] * rates, steps[:, None]
    with np.errstate(all="ignore"):
        turn = x * (2 - x)
        spread = -np.expm1(2 * _log_power(x, k)) / np.where(turn == 0, 1, turn)
        spread = np.where(turn == 0, k, spread)
        return Moments(_power(x, k), lr[:, None] ** 2 * spread)


def momentum_moments(settings: Settings, rates: FloatArray, steps: IntArray) -> Moments:
    r"""Return the moments of heavy ball's iterates.

    m is the momentum and t = 1 + m - x; the mean is b_k - m b_{k-1}, the noise lr^2 S
    with A = (1 + m) / (x (1 - m) (2 (1 + m) - x)). Roots are complex between
    x = (1 -+ sqrt m)^2; past the larger they are negative, and x is replaced by its
    distance to the stability edge.

    Args:
        settings: Of m runs; `ema_gap` is not used.
        rates: p h of the directions, shape (n,).
        steps: Of each run, at least 1. Shape (m,).

    Returns:
        Mean and variance, each of shape (m, n). Not meant for x at or past the edge.
    """
    lr, gap, k = settings.lr[:, None], settings.inertia_gap[:, None], steps[:, None]
    m, x = 1 - gap, lr * rates
    # 2 (2 - gap) - x, in the order that is exact where x is close to it.
    edge = np.where(gap < 0.5, (4 - x) - 2 * gap, (2 - x) + 2 * m)
    turned = x > 2 - gap
    z = np.where(turned, edge, x)
    with np.errstate(all="ignore"):
        now, before, ahead = _responses(z, gap, k)
        scale = (1 + m) / (x * gap * edge)
        bracket = 1 - ahead**2 - 2 * m * z / (1 + m) * now * before
    sign = np.where(turned & (k % 2 == 1), -1.0, 1.0)
    mean = np.where(turned, sign * (now + m * before), ahead)
    return _guarded("momentum", settings, (rates, steps), mean, lr**2 * scale, bracket)


def ema_moments(settings: Settings, rates: FloatArray, steps: IntArray) -> Moments:
    r"""Return the moments of an exponential moving average of SGD's iterates.

    The roots are c = 1 - x and the decay g; the mean is g^k + (1 - g) c b_{k-1} and the
    noise lr^2 (1 - g)^2 S with A = (1 + m) / ((1 - m) (1 - c^2) (1 - g^2)), m = c g.

    Args:
        settings: Of m runs; `inertia_gap` is not used.
        rates: p h of the directions, shape (n,).
        steps: Of each run, at least 1. Shape (m,).

    Returns:
        Mean and variance, each of shape (m, n). Not meant for x at or past the edge, 2.
    """
    lr, gap, k = settings.lr[:, None], settings.ema_gap[:, None], steps[:, None]
    x = lr * rates
    c, g = 1 - x, 1 - gap
    m = c * g
    with np.errstate(all="ignore"):
        now, before = _difference(x, gap, k + 1), _difference(x, gap, k)
        mean = _power(gap, k) + gap * c * before
        scale = (1 + m) / ((x + c * gap) * x * (2 - x) * gap * (2 - gap))
        slow = np.minimum(x, gap)
        ahead = np.where(c > 0, _power(slow, k + 1) + slow * now, now - m * before)
        bracket = 1 - ahead**2 - 2 * m * x * gap / (1 + m) * now * before
    scale = (lr * gap) ** 2 * scale
    return _guarded("ema", settings, (rates, steps), mean, scale, bracket)


def average_moments(
    lr: FloatArray, rates: FloatArray, steps: IntArray, averaged: IntArray | None = None
) -> Moments:
    r"""Return the moments of the mean of SGD's last iterates.

    With n of them averaged, after k - n steps that are not,

    .. math:: a = (1-x)^{k-n} \frac{(1-x) (1 - (1-x)^n)}{n x}, \quad
              S = \frac{lr^2}{n^2} \sum_{j=1}^n \Big(\frac{1 - (1-x)^j}{x}\Big)^2
              + \Big(\frac{a}{(1-x)^{k-n}}\Big)^2 S_{k-n}

    Args:
        lr: Learning rates of m runs, shape (m,).
        rates: p h of the directions, shape (n,).
        steps: Of each run, at least 1. Shape (m,).
        averaged: How many of the last steps are in the mean, at least 1; all by
            default. Shape (m,).

    Returns:
        Mean and variance, each of shape (m, n). Not meant for x at or past the edge, 2.
    """
    last = steps if averaged is None else averaged
    x, n = lr[:, None] * rates, last[:, None].astype(float)
    c = 1 - x
    with np.errstate(all="ignore"):
        faded = np.where(c > 0, -np.expm1(_log_power(x, n)), 1 - _power(x, n))
        once = c * faded / x
        twice = c**2 * -np.expm1(2 * _log_power(x, n)) / (x * (2 - x))
        bracket = 1 - (2 * once - twice) / n
    one = np.ones_like(lr)
    settings = Settings(lr, one, one)
    scale = (lr[:, None] / x) ** 2 / n
    tail = _guarded("average", settings, (rates, last), once / n, scale, bracket)
    before = sgd_moments(lr, rates, steps - last)
    return Moments(
        tail.mean * before.mean, tail.variance + tail.mean**2 * before.variance
    )


def _log_power(x: FloatArray, k: FloatArray | IntArray) -> FloatArray:
    """Return the logarithm of |1 - x|^k."""
    # 1 - x is exact from 1/2 on; below it log1p keeps the digits of x.
    log = np.where(x < 0.5, np.log1p(-np.minimum(x, 0.5)), np.log(np.abs(1 - x)))
    return np.where(k == 0, 0.0, k * log)


def _power(x: FloatArray, k: FloatArray | IntArray) -> FloatArray:
    """Return (1 - x)^k."""
    return np.where((x > 1) & (k % 2 == 1), -1, 1) * np.exp(_log_power(x, k))


def _ratio(slow: FloatArray, apart: FloatArray, k: IntArray) -> FloatArray:
    """Return (R^k - r^k)/(R - r), R = 1 - slow the larger and R - r = apart >= 0."""
    faded = np.expm1(k * np.log1p(-apart / (1 - slow)))
    double = k * _power(slow, k - 1)
    return np.where(apart == 0, double, -_power(slow, k) * faded / apart)


def _difference(x: FloatArray, gap: FloatArray, k: IntArray) -> FloatArray:
    """Return (c^k - g^k)/(c - g) with c = 1 - x and g = 1 - gap."""
    direct = (_power(x, k) - _power(gap, k)) / (gap - x)
    return np.where(x <= 1, _ratio(np.minimum(x, gap), np.abs(gap - x), k), direct)


def _responses(
    x: FloatArray, gap: FloatArray, k: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return b_k, b_{k-1} and b_k - m b_{k-1}, x up to 1 + m."""
    m = 1 - gap
    root = 1 + np.sqrt(m)
    discriminant = (x - (gap / root) ** 2) * (x - root**2)
    # Real roots, both positive: every term has the same sign.
    apart = np.sqrt(np.maximum(discriminant, 0))
    slow = 2 * x / (x + gap + apart)
    real = _ratio(slow, apart, k + 1), _ratio(slow, apart, k)
    real_ahead = _power(slow, k + 1) + slow * real[0]
    # Complex roots rho e^(+- i angle).
    wave = np.sqrt(np.maximum(-discriminant, 0))
    angle = np.arctan2(wave, 2 - gap - x)
    rho = np.sqrt(m)
    size, sine = np.exp(k * np.log1p(-gap) / 2), wave / (2 * rho)
    now = size * np.sin((k + 1) * angle) / sine
    before = size / rho * np.sin(k * angle) / sine
    ahead = size * (np.cos(k * angle) + (gap - x) / wave * np.sin(k * angle))
    is_real = discriminant >= 0
    return (
        np.where(is_real, real[0], now),
        np.where(is_real, real[1], before),
        np.where(is_real, real_ahead, ahead),
    )


def _guarded(
    name: OptimizerName,
    settings: Settings,
    runs: tuple[FloatArray, IntArray],
    mean: FloatArray,
    scale: FloatArray,
    bracket: FloatArray,
) -> Moments:
    """Return the moments, by doubling where the bracket has lost its digits."""
    variance = scale * bracket
    short = ~(bracket >= _SHORT)
    if short.any():
        rates, steps = runs
        co = coefficients(name, settings)
        layout = layout_of(name)
        stretch = {
            (True, False): doubling.stretch_xd,
            (False, True): doubling.stretch_xy,
        }[layout](co, rates)
        unit = doubling.unit_row(layout, rates.size)
        row = np.broadcast_to(unit[:, None], (2, *mean.shape))
        count = steps[:, None].astype(float) if name == "average" else 1.0
        summed = doubling.carry(stretch, row, steps).variance / count**2
        variance = np.where(short, summed, variance)
    return Moments(mean, variance)
