r"""Limits of a ratio of two averages: Fieller's set, honest where they are unbounded.

Whatever :math:`\phi = T/Q` is, :math:`\bar t - \phi \bar q` has mean zero and a
variance that the scatter of the updates tells. The values of phi for which it is not
significantly different from zero,

.. math:: a\phi^2 - 2b\phi + c \le 0,\quad a = \bar q^2 - z^2 V_{qq},\;
          b = \bar t\bar q - z^2 V_{tq},\; c = \bar t^2 - z^2 V_{tt},

are the set (Fieller, 1954), z a quantile of Student's distribution. It has no upper end
where Q is not told from zero, as it should: no finite interval holds a ratio with a
denominator that may vanish (Gleser and Hwang, 1987).
"""

import math
from typing import NamedTuple

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.noise_scale.scatter import Covariance


class RatioLimits(NamedTuple):
    """The set of ratios, not below zero, that the averages allow.

    Args:
        low: Lower end.
        high: Upper end, infinite where there is none.
        is_empty: True where no ratio is allowed: the denominator is significantly
            below zero, or the numerator. The ends are then 0 and infinity.
    """

    low: float
    high: float
    is_empty: bool = False


def fieller_interval(
    numerator: float,
    denominator: float,
    covariance: Covariance,
    degrees: float,
    *,
    level: float = 0.95,
) -> RatioLimits:
    """Return the two-sided limits of a ratio of expectations that is not negative.

    Where the set is of two pieces, from 0 and to infinity, it is all from 0.

    Args:
        numerator: Average of the numerator.
        denominator: Average of the denominator.
        covariance: Of the two averages.
        degrees: Degrees of freedom of the covariance.
        level: Of the interval.

    Returns:
        Its ends.

    Raises:
        InputError: An argument is not finite, a variance or the degrees are out of
            range, or the level is.

    Example:
        >>> covariance = Covariance(tt=4.0, tq=0.0, qq=0.01)
        >>> low, high, _ = fieller_interval(100.0, 1.0, covariance, 30)
        >>> round(low, 1), round(high, 1)
        (82.6, 126.1)
        >>> fieller_interval(100.0, 0.1, covariance, 30).high
        inf
    """
    who = "fieller_interval"
    _check(who, numerator, denominator, covariance, degrees)
    quantile = _quantile(degrees, (1 + _checks.confidence_level(who, level)) / 2)
    (a, b, c), scale = _quadratic(numerator, denominator, covariance, quantile)
    root = math.sqrt(max(0.0, b * b - a * c))
    if a > 0:
        if b + root < 0:
            return RatioLimits(0.0, math.inf, is_empty=True)
        # c/(b + root) is (b - root)/a without its cancellation.
        low = c / (b + root) if c > 0 else 0.0
        return RatioLimits(low * scale, (b + root) / a * scale)
    if c <= 0:
        return RatioLimits(0.0, math.inf)
    if b + root <= 0:
        return RatioLimits(0.0, math.inf, is_empty=True)
    return RatioLimits(c / (b + root) * scale, math.inf)


def fieller_lower_bound(
    numerator: float,
    denominator: float,
    covariance: Covariance,
    degrees: float,
    *,
    level: float = 0.95,
) -> float:
    """Return what the ratio exceeds with the probability `level`.

    Args:
        numerator: Average of the numerator.
        denominator: Average of the denominator.
        covariance: Of the two averages.
        degrees: Degrees of freedom of the covariance.
        level: Of the bound.

    Returns:
        The bound, zero at least; infinite where the denominator is significantly below
        zero.

    Raises:
        InputError: An argument is not finite, a variance or the degrees are out of
            range, or the level is.

    Example:
        >>> covariance = Covariance(tt=4.0, tq=0.0, qq=0.01)
        >>> round(fieller_lower_bound(100.0, 0.1, covariance, 30), 1)
        370.4
    """
    who = "fieller_lower_bound"
    _check(who, numerator, denominator, covariance, degrees)
    quantile = _quantile(degrees, _checks.confidence_level(who, level))
    (a, b, c), scale = _quadratic(numerator, denominator, covariance, quantile)
    if c <= 0 or numerator <= 0:
        return 0.0
    root = math.sqrt(max(0.0, b * b - a * c))
    return c / (b + root) * scale if b + root > 0 else math.inf


def _quadratic(
    numerator: float, denominator: float, covariance: Covariance, quantile: float
) -> tuple[tuple[float, float, float], float]:
    """Return a, b, c of the ratio in units of a scale, and the scale."""
    # Squares of squares of gradients overflow long before the ratio does.
    top = math.hypot(numerator, math.sqrt(covariance.tt)) or 1.0
    bottom = math.hypot(denominator, math.sqrt(covariance.qq)) or 1.0
    t, q, z2 = numerator / top, denominator / bottom, quantile**2
    return (
        q * q - z2 * (covariance.qq / bottom / bottom),
        t * q - z2 * (covariance.tq / top / bottom),
        t * t - z2 * (covariance.tt / top / top),
    ), top / bottom


def _check(
    who: str, top: float, bottom: float, covariance: Covariance, degrees: float
) -> None:
    _checks.finite(who, "numerator", top)
    _checks.finite(who, "denominator", bottom)
    _checks.nonnegative(who, "covariance.tt", covariance.tt)
    _checks.nonnegative(who, "covariance.qq", covariance.qq)
    # A hair of rounding is let pass.
    largest = math.sqrt(covariance.tt) * math.sqrt(covariance.qq) * (1 + 1e-9)
    if not abs(covariance.tq) <= largest:
        raise InputError(
            f"{who}: `covariance.tq` must be between -{largest:g} and {largest:g}, "
            f"got {covariance.tq!r}."
        )
    if not degrees > 0:
        raise InputError(f"{who}: `degrees` must be positive, got {degrees!r}.")


def _quantile(degrees: float, share: float) -> float:
    # scipy.special is slow to import, and much of the library never needs it.
    from scipy.special import ndtri, stdtrit

    return float(ndtri(share) if math.isinf(degrees) else stdtrit(degrees, share))
