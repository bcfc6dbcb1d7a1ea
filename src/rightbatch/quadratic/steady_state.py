r"""Where the loss settles at constant settings, and how fast it gets there.

Along one direction every optimizer here is a linear recursion with two characteristic
roots, those of z^2 - t z + m, and a third, g, where an exponential moving average is
read. With x = lr p h:

.. math::
    \text{heavy ball:}\quad & m = \mu, & u &= 2(1 + \mu) - x \\
    \text{Nesterov:}\quad & m = \mu (1 - x), & u &= 2(1 + \mu) - (1 + 2\mu) x

and t = 1 + m - x, so that the polynomial is x at 1 and u at -1; u = 0 is the stability
edge. Every formula below is a sum of terms of one sign, so nothing cancels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rightbatch import _checks
from rightbatch.quadratic.optimizers import Optimizer
from rightbatch.quadratic.problem import NoisyQuadratic, refuse_label_noise
from rightbatch.quadratic.spectrum import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Characteristic:
    """The polynomial z^2 - t z + m of an optimizer's iterates, each of shape (n,).

    Args:
        at_one: Its value at 1, x = lr p h.
        at_minus_one: Its value at -1, u; not positive beyond the stability edge.
        product: m, of the roots.
        product_gap: 1 - m, without cancellation.
        discriminant: t^2 - 4 m; negative for complex roots.
    """

    at_one: FloatArray
    at_minus_one: FloatArray
    product: FloatArray
    product_gap: FloatArray
    discriminant: FloatArray

    @property
    def radius(self) -> FloatArray:
        """The larger modulus of the two roots, shape (n,)."""
        t = (self.at_minus_one - self.at_one) / 2
        root = np.sqrt(np.maximum(self.discriminant, 0))
        real = (np.abs(t) + root) / 2
        return np.where(
            self.discriminant >= 0, real, np.sqrt(np.maximum(self.product, 0))
        )


def characteristic(problem: NoisyQuadratic, optimizer: Optimizer) -> Characteristic:
    """Return the characteristic polynomial of the iterates along each direction.

    Args:
        problem: What is minimised.
        optimizer: With its settings.

    Returns:
        The polynomial, before any averaging.
    """
    x = optimizer.lr * problem.rates
    momentum, gap = optimizer.momentum, 1 - optimizer.momentum
    if optimizer.is_nesterov:
        product, product_gap = momentum * (1 - x), gap + momentum * x
        discriminant = (1 - x) * (gap**2 - (1 + momentum) ** 2 * x)
    else:
        product, product_gap = np.full_like(x, momentum), np.full_like(x, gap)
        near = 1 + np.sqrt(momentum)
        discriminant = (x - (gap / near) ** 2) * (x - near**2)
    return Characteristic(
        at_one=x,
        at_minus_one=2 * (1 + momentum)
        - (1 + 2 * momentum * optimizer.is_nesterov) * x,
        product=product,
        product_gap=product_gap,
        discriminant=discriminant,
    )


def steady_state_moments(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: float
) -> FloatArray:
    r"""Return the second moments that noise alone keeps up, after many steps.

    With f = 1 - m, c = 1 - g and D = (1+m) c (1+mg) + g f u, they are v = lr^2 p^2 c/B
    times

    .. math:: \frac{c}{1 + g} \cdot \frac{D}{f x u \, [c (1 - mg) + g x]}

    which is (1+mu)/(x (1-mu) (2(1+mu) - x)) for heavy ball, read at the iterates; for
    Nesterov times 1 + 2 mu (1+mu) (1+mg) c x / D.

    Args:
        problem: What is minimised.
        optimizer: With its settings.
        batch_size: Examples per step.

    Returns:
        Second moments of what the loss is read at, shape (n,). Infinite along a
        direction at or beyond the stability edge, unless it has neither noise nor a
        start. Zero for a uniform or tail average: it forgets the noise as 1/k.

    Raises:
        InputError: The batch size is not positive or the problem has label noise.
    """
    who = "steady_state_moments"
    refuse_label_noise(who, problem)
    batch = _checks.positive(who, "batch_size", batch_size)
    poly = characteristic(problem, optimizer)
    noise = optimizer.lr**2 * problem.step_noise / batch
    moments = np.zeros_like(noise)
    stable = poly.at_minus_one > 0
    if not optimizer.averages:
        moments[stable] = (noise * _variances(poly, optimizer, stable))[stable]
    moments[~stable & ((noise > 0) | (problem.start > 0))] = np.inf
    return moments


def steady_state_risk(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: float
) -> float:
    """Return the expected loss after infinitely many steps at constant settings.

    Args:
        problem: What is minimised.
        optimizer: With its settings.
        batch_size: Examples per step.

    Returns:
        The loss, the irreducible one included: that one alone for a uniform or tail
        average, and infinity at or beyond the stability edge.

    Raises:
        InputError: The batch size is not positive or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(1))
        >>> steady_state_risk(problem, Optimizer(name="sgd", lr=1.0), batch_size=1)
        0.5
        >>> steady_state_risk(problem, Optimizer(name="sgd", lr=2.0), batch_size=1)
        inf
    """
    return problem.loss(steady_state_moments(problem, optimizer, batch_size))


def convergence_rates(problem: NoisyQuadratic, optimizer: Optimizer) -> FloatArray:
    """Return the factor per step of the mean's distance, along each direction.

    The spectral radius of the recursion: of its two roots, and of the moving average
    that the loss is read at. The loss falls by its square per step, towards
    :func:`steady_state_risk`.

    Args:
        problem: What is minimised.
        optimizer: With its settings.

    Returns:
        Rates, shape (n,); 1 or more where it does not converge. Exactly 1 for a uniform
        or tail average of converging iterates: it forgets the start as 1/k, which no
        rate describes.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(2))
        >>> convergence_rates(problem, Optimizer(name="sgd", lr=0.5)).tolist()
        [0.5, 0.75]
    """
    radius = characteristic(problem, optimizer).radius
    return np.maximum(radius, 1.0 if optimizer.averages else optimizer.ema_decay)


def convergence_rate(problem: NoisyQuadratic, optimizer: Optimizer) -> float:
    """Return the factor per step of the slowest direction.

    Args:
        problem: What is minimised.
        optimizer: With its settings.

    Returns:
        The largest of :func:`convergence_rates`.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(2))
        >>> convergence_rate(problem, Optimizer(name="sgd", lr=0.5))
        0.75
    """
    return float(convergence_rates(problem, optimizer).max())


def _variances(
    poly: Characteristic, optimizer: Optimizer, stable: NDArray[np.bool_]
) -> FloatArray:
    """Return the second moments over v; beyond the edge, anything."""
    g, gap = optimizer.ema_decay, 1 - optimizer.ema_decay
    x, u = poly.at_one, np.where(stable, poly.at_minus_one, 1.0)
    m, f = poly.product, np.where(stable, poly.product_gap, 1.0)
    spread = (1 + m) * gap * (1 + m * g) + g * f * u
    # 1 - m g written so that it keeps its digits when m and g are both close to 1.
    slow = gap * (f + m * gap) + g * x
    variances = gap / (1 + g) * spread / (f * x * u * slow)
    if optimizer.is_nesterov:
        mu = optimizer.momentum
        variances *= 1 + 2 * mu * (1 + mu) * (1 + m * g) * gap * x / spread
    return variances
