r"""Does the noise scale change within the window that was averaged?

With :math:`\phi` the ratio of the averages, :math:`d_k = T_k - \phi Q_k` averages to
zero. If the noise scale stays what it is, so do the :math:`d_k` along the window, even
while both moments shrink together; if it grows, they go from below zero to above. The
test is that of the slope of :math:`d_k` against the examples seen.
"""

import math
from dataclasses import dataclass
from typing import Any

from rightbatch import _checks
from rightbatch.noise_scale.scatter import Scatter, Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftTest:
    """Whether a noise scale changed within its window.

    Args:
        slope: Its change per example seen, by a straight line.
        change: Its change over the window as a share of its value.
        statistic: Student's t of the slope.
        degrees: Degrees of freedom of the statistic.
        p_value: Probability of so large a slope by chance, either way.

    Example:
        >>> print(DriftTest(slope=.5, change=.8, statistic=4.0, degrees=18.0,
        ...                 p_value=.0008))
        grew by 80 % within the window (p = 0.0008)
    """

    slope: float
    change: float
    statistic: float
    degrees: float
    p_value: float

    def is_significant(self, level: float = 0.99) -> bool:
        """Return True if chance makes such a slope more rarely than 1 - `level`.

        Raises:
            InputError: `level` is not between 0 and 1.
        """
        return self.p_value < 1 - _checks.confidence_level("is_significant", level)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for a program; an infinite statistic is null."""
        finite = math.isfinite(self.statistic)
        return {
            "slope": self.slope,
            "change": self.change,
            "statistic": self.statistic if finite else None,
            "degrees": self.degrees,
            "p_value": self.p_value,
        }

    def __str__(self) -> str:
        verb = "grew" if self.change > 0 else "fell"
        size = f"{verb} by {100 * abs(self.change):.0f} % within the window"
        return f"{size} (p = {self.p_value:.2g})"


def drift_test(scatter: Scatter) -> DriftTest | None:
    r"""Return the test of a drift, or None where there is nothing to test.

    The slope is :math:`\sum w (x - \bar x) d/\sum w (x - \bar x)^2` with variance
    :math:`\sigma^2 \sum w^2 (x - \bar x)^2/(\sum w (x - \bar x)^2)^2`, where
    :math:`\sigma^2`, the variance of one :math:`d_k`, comes from the residuals.

    Args:
        scatter: Sums over the window.

    Returns:
        None with less than one degree of freedom, where all updates lie at one place,
        or where the average of either moment is not above zero.

    Example:
        >>> window = Scatter()
        >>> for t in (1.0, 2.2, 2.8, 4.1, 5.0, 5.9):
        ...     window = window.joined(Scatter.of(t, 1.0, weight=8.0), 8.0)
        >>> found = drift_test(window)
        >>> round(found.slope, 3), round(found.change, 2), found.p_value < 1e-4
        (0.122, 1.65, True)
    """
    sums, degrees = scatter.sums, scatter.degrees - 1
    if degrees < 1 or min(sums.xx, sums.q, sums.t) <= 0:
        return None
    phi = sums.t / sums.q
    slope = (sums.xt - phi * sums.xq) / sums.xx
    squares = scatter.squares.about(sums.x, sums.t, sums.q)
    residual = _residual(squares, phi, slope) * (degrees + 2) / degrees
    variance = residual / squares.weight * squares.xx / sums.xx**2
    # A uniform window is sqrt(12) of its standard deviations long.
    length = math.sqrt(12 * sums.xx / sums.weight)
    statistic = 0.0
    if slope:
        error = math.sqrt(variance)
        statistic = slope / error if error else math.copysign(math.inf, slope)
    return DriftTest(
        slope=slope / sums.q,
        change=slope * length / sums.t,
        statistic=statistic,
        degrees=degrees,
        p_value=_two_sided(degrees, statistic),
    )


def _residual(squares: Spread, phi: float, slope: float) -> float:
    """Return the sum of squares of d about the line, by squared weights."""
    flat = squares.tt - 2 * phi * squares.tq + phi**2 * squares.qq
    tilt = squares.xt - phi * squares.xq
    return max(0.0, flat - 2 * slope * tilt + slope**2 * squares.xx)


def _two_sided(degrees: float, statistic: float) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(degrees, -abs(statistic)))
