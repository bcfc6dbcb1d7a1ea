"""What every fit shares: intervals, limits of a profile, tests between nested laws."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its interval, and what it means.

    Args:
        value: The estimate; None where there is none to give.
        low: Lower end; None when unbounded below.
        high: Upper end; None when unbounded above.
        level: Probability that the interval covers the truth.
        unit: Unit of all three.
        definition: What is estimated, in a few words.

    Example:
        >>> print(Interval(value=48.2, low=43, high=55.31, level=0.9, unit="examples"))
        48.2 examples (43 to 55.3, 90 %)
    """

    value: float | None
    low: float | None
    high: float | None
    level: float
    unit: str = ""
    definition: str = ""

    @property
    def is_bounded(self) -> bool:
        """True when both ends are known."""
        return self.low is not None and self.high is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; an unbounded side is null."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "unit": self.unit,
            "definition": self.definition,
        }

    def __contains__(self, value: float) -> bool:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return low <= value <= high

    def __str__(self) -> str:
        value = "no value" if self.value is None else f"{self.value:.3g} {self.unit}"
        if self.low is None and self.high is None:
            return f"{value.strip()} (unbounded)"
        low = "unbounded" if self.low is None else f"{self.low:.3g}"
        high = "unbounded" if self.high is None else f"{self.high:.3g}"
        return f"{value.strip()} ({low} to {high}, {100 * self.level:.0f} %)"


def log_scale_profile(
    log_values: FloatArray, log_shapes: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    r"""Return the chi-square and the best log scale of every shape, for every data set.

    A curve ``scale * shape(x)`` fitted in logarithms is linear in ``ln scale``, so its
    best value is a weighted mean and only the shape is left to search:

    .. math:: \chi^2_g = \sum_j w_j (y_j - c_g - f_{gj})^2,\quad
              c_g = \sum_j w_j (y_j - f_{gj}) / \sum_j w_j

    Args:
        log_values: y, shape (..., k): k points of one or many data sets.
        log_shapes: f, shape (g, k): each candidate shape at the k points.
        weights: w, shape (k,), inverse variances of y.

    Returns:
        Chi-square (..., g) and log scale c (..., g).

    Example:
        >>> shapes = np.array([[0.0, 0.0], [0.0, 1.0]])
        >>> chi2, scale = log_scale_profile(np.array([2.0, 3.0]), shapes, np.ones(2))
        >>> chi2, scale
        (array([0.5, 0. ]), array([2.5, 2. ]))
    """
    total = weights.sum()
    value_mean = log_values @ weights / total
    shape_mean = log_shapes @ weights / total
    values = (log_values - value_mean[..., None]) * np.sqrt(weights)
    shapes = (log_shapes - shape_mean[:, None]) * np.sqrt(weights)
    chi2 = (values**2).sum(-1)[..., None] - 2 * values @ shapes.T + (shapes**2).sum(-1)
    return np.maximum(chi2, 0.0), value_mean[..., None] - shape_mean


def profile_limits(
    parameter: FloatArray, chi2: FloatArray, threshold: float
) -> tuple[float | None, float | None]:
    """Return where a profile crosses its threshold; None for a side it never crosses.

    Args:
        parameter: Grid of the parameter, increasing, shape (g,).
        chi2: Profile of chi-square on that grid, shape (g,).
        threshold: Largest chi-square inside the interval.

    Returns:
        Lower and upper limit, interpolated between grid points.

    Example:
        >>> grid = np.linspace(-3, 3, 601)
        >>> profile_limits(grid, grid**2, 4.0)
        (-2.0, 2.0)
    """
    inside = np.flatnonzero(chi2 <= threshold)
    first, last = int(inside[0]), int(inside[-1])
    low = None if first == 0 else _crossing(parameter, chi2, threshold, first - 1)
    high = (
        None
        if last == len(parameter) - 1
        else _crossing(parameter, chi2, threshold, last)
    )
    return low, high


def _crossing(
    parameter: FloatArray, chi2: FloatArray, threshold: float, left: int
) -> float:
    span = chi2[left + 1] - chi2[left]
    share = (threshold - chi2[left]) / span if span else 0.5
    return float(parameter[left] + share * (parameter[left + 1] - parameter[left]))


def corrected_aic(chi2: float, num_points: int, num_parameters: int) -> float:
    r"""Return the small-sample Akaike criterion of a least-squares fit; low is good.

    .. math:: n \ln(\chi^2/n) + 2p + 2p(p+1)/(n-p-1)

    with p the parameters and one more for the noise (Hurvich and Tsai, 1989).

    Args:
        chi2: Weighted sum of squared residuals.
        num_points: n.
        num_parameters: Parameters of the curve, without the noise.

    Returns:
        The criterion; infinity where there are too few points to judge.

    Example:
        >>> corrected_aic(3.0, num_points=4, num_parameters=2)
        inf
    """
    p = num_parameters + 1
    room = num_points - p - 1
    if room <= 0:
        return math.inf
    # Residuals below a tenth of the assumed error carry no evidence for more terms.
    chi2 = max(chi2, 0.01 * num_points)
    return num_points * math.log(chi2 / num_points) + 2 * p + 2 * p * (p + 1) / room


def half_width(degrees: ArrayLike, level: float) -> Any:
    """Return half the width of an interval in standard errors: Student's quantile.

    Args:
        degrees: Degrees of freedom of the noise, any shape.
        level: Two-sided level of the interval.

    Returns:
        A float for a number, else an array.

    Example:
        >>> round(half_width(10, 0.9), 3)
        1.812
    """
    # Here and below: scipy.special is a third of the start of a command that needs it.
    from scipy.special import stdtrit

    quantile = stdtrit(degrees, (1 + level) / 2)
    return float(quantile) if np.ndim(quantile) == 0 else quantile


def f_test(ratio: float, degrees: int, other_degrees: int) -> float:
    """Return the probability of so large a ratio of variances by chance.

    Args:
        ratio: F.
        degrees: Of the numerator.
        other_degrees: Of the denominator.

    Returns:
        p.

    Example:
        >>> round(f_test(4.96, 1, 10), 3)
        0.05
    """
    from scipy.special import fdtrc

    return float(fdtrc(degrees, other_degrees, ratio))


def redrawn_scales(
    generator: np.random.Generator, num: int, scale: float, degrees: float
) -> FloatArray:
    """Return draws of a noise level whose estimate has few degrees of freedom.

    A bootstrap that keeps the estimated noise fixed covers too rarely at five to ten
    runs; drawing it from its scaled inverse chi-square repairs that.

    Args:
        generator: Source of randomness.
        num: How many draws.
        scale: Estimated standard deviation.
        degrees: Degrees of freedom of the estimate; infinity keeps it fixed.

    Returns:
        Standard deviations, shape (num,).

    Example:
        >>> redrawn_scales(np.random.default_rng(0), 2, 0.1, math.inf)
        array([0.1, 0.1])
    """
    if math.isinf(degrees):
        return np.full(num, scale)
    return scale * np.sqrt(degrees / generator.chisquare(degrees, num))
