r"""How many updates a noise scale will take, before or while it is measured.

For gradients of examples that are normal about G with covariance :math:`\Sigma`, in R
equal units of b examples with the norms of m of them read, B = R b, T and M are
uncorrelated, and

.. math:: \mathrm{var}\,T = \Bigl[4 b\, G'\Sigma G
          \bigl(\tfrac1m - \tfrac1R\bigr) + 2\,\mathrm{tr}\,\Sigma^2
          \bigl(\tfrac1m - \tfrac1{R^2}\bigr)\Bigr] \bigl(\tfrac{R}{R-1}\bigr)^2,\quad
          \mathrm{var}\,M = \tfrac{4}{B} G'\Sigma G + \tfrac{2}{B^2}
          \mathrm{tr}\,\Sigma^2

and the estimate of :math:`|G|^2` is M - T/B. With all norms read, var T is
:math:`2\,\mathrm{tr}\,\Sigma^2/(R - 1)`: many directions are read more easily than few.
"""

import math
from typing import NamedTuple

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.noise_scale.fieller import RatioLimits, fieller_interval
from rightbatch.noise_scale.scatter import Covariance

_MOST_STEPS = 1e15


class RelativeSds(NamedTuple):
    r"""Standard deviations of what one update tells, as shares of the truth.

    Args:
        grad_variance: Of the estimate of :math:`\mathrm{tr}\,\Sigma`.
        grad_sq_norm: Of the estimate of :math:`|G|^2`.
        covariance: Of the two, each as a share of its truth; below zero.
    """

    grad_variance: float
    grad_sq_norm: float
    covariance: float

    @property
    def noise_scale(self) -> float:
        """Of the ratio of averages times the root of their number, once that is large.

        Not of the ratio of one update, which has no standard deviation.
        """
        squares = self.grad_variance**2 + self.grad_sq_norm**2
        return math.sqrt(squares - 2 * self.covariance)


def relative_sds(
    noise_scale: float,
    batch_size: float,
    num_units: int,
    effective_dims: float,
    *,
    num_read: int | None = None,
    alignment: float | None = None,
) -> RelativeSds:
    r"""Return how far one update's estimates scatter about the truth.

    Args:
        noise_scale: :math:`\phi`, in examples.
        batch_size: B, in examples.
        num_units: R, equal units the batch is made of; B for single examples.
        effective_dims: :math:`(\mathrm{tr}\,\Sigma)^2/\mathrm{tr}\,\Sigma^2`, the
            directions that carry the noise.
        num_read: m, units whose norms are read; all by default.
        alignment: :math:`G'\Sigma G/|G|^4`, in examples: the noise along the gradient.
            :math:`\phi` over `effective_dims` by default, as noise has it that is alike
            in every direction.

    Returns:
        Standard deviations of both moments, and their covariance.

    Raises:
        InputError: A number is not positive, there is one unit only, or more are read
            than there are.

    Example:
        >>> few, many = (relative_sds(1000, 4096, n, 50) for n in (8, 256))
        >>> round(few.grad_variance, 3), round(many.grad_variance, 3)
        (0.076, 0.013)
        >>> round(few.grad_sq_norm, 2), round(many.grad_sq_norm, 2)
        (0.15, 0.15)
    """
    who = "relative_sds"
    phi = _checks.positive(who, "noise_scale", noise_scale)
    batch = _checks.positive(who, "batch_size", batch_size)
    dims = _checks.positive(who, "effective_dims", effective_dims)
    units = _checks.positive_integer(who, "num_units", num_units)
    read = units if num_read is None else num_read
    read = _checks.positive_integer(who, "num_read", read)
    along = phi / dims if alignment is None else alignment
    _checks.nonnegative(who, "alignment", along)
    if units < 2:
        raise InputError(f"{who}: `num_units` must be at least 2, got {units}.")
    if read > units:
        raise InputError(
            f"{who}: `num_read` must be at most `num_units`, got {read} of {units}."
        )
    linear = 4 * (batch / units) * along / phi**2 * (1 / read - 1 / units)
    variance = linear + 2 / dims * (1 / read - 1 / units**2)
    variance *= (units / (units - 1)) ** 2
    noise = phi / batch
    square = 4 * along / batch + noise**2 * (2 / dims + variance)
    return RelativeSds(
        grad_variance=math.sqrt(variance),
        grad_sq_norm=math.sqrt(square),
        covariance=-noise * variance,
    )


def steps_for(relative_error: float, sds: RelativeSds, *, level: float = 0.95) -> float:
    """Return how many updates bring a noise scale's interval to a relative half-width.

    Args:
        relative_error: Half the interval's width over the value.
        sds: What one update tells.
        level: Of the interval.

    Returns:
        Updates, two at least; not a whole number.

    Raises:
        InputError: `relative_error` is not positive, or `level` is out of range.

    Example:
        >>> round(steps_for(0.2, relative_sds(1000, 256, 8, 50)))
        112
    """
    _checks.positive("steps_for", "relative_error", relative_error)
    _checks.confidence_level("steps_for", level)
    one = Covariance(sds.grad_variance**2, sds.covariance, sds.grad_sq_norm**2)
    return steps_to_narrow(1.0, 1.0, one, relative_error, level=level)


def steps_to_narrow(
    numerator: float,
    denominator: float,
    per_step: Covariance,
    relative_error: float,
    *,
    level: float,
) -> float:
    """Return how many updates narrow the limits of a ratio that stays where it is.

    Args:
        numerator: Average of the numerator.
        denominator: Average of the denominator.
        per_step: Covariance of what one update tells of the two.
        relative_error: Half the interval's width over the ratio.
        level: Of the interval.

    Returns:
        Updates, two at least; infinite where either average is not above zero.
    """
    if numerator <= 0 or denominator <= 0:
        return math.inf

    def width(steps: float) -> float:
        there = Covariance(*(one / steps for one in per_step))
        limits = fieller_interval(numerator, denominator, there, steps - 1, level=level)
        return relative_half_width(numerator / denominator, limits)

    low, high = math.log(2.0), math.log(_MOST_STEPS)
    if width(2.0) <= relative_error:
        return 2.0
    for _ in range(60):
        middle = (low + high) / 2
        if width(math.exp(middle)) > relative_error:
            low = middle
        else:
            high = middle
    return math.exp(high)


def relative_half_width(value: float, limits: RatioLimits) -> float:
    """Return half the width of some limits over the value; infinite without an end.

    Args:
        value: The ratio.
        limits: Its limits.

    Returns:
        A share; 0 for limits without width, whatever the value.

    Example:
        >>> relative_half_width(100.0, RatioLimits(80.0, 130.0))
        0.25
    """
    width = limits.high - limits.low
    if width == 0:
        return 0.0
    return width / 2 / value if value > 0 else math.inf
