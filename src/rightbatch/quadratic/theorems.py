r"""The bounds of Zhang et al. (2019) on the risk after k steps, beside the exact risk.

Theorem 1 (momentum) and its analogue for an exponential moving average bound the risk
along a direction by what is left of the start plus all the noise there can ever be:

.. math::
    R_k \le \left[\frac{(r_1^{k+1} - r_2^{k+1}) - m (r_1^k - r_2^k)}{r_1 - r_2}\right]^2
    \tfrac12 h s + \tfrac12 h\,E_\infty

with r_1, r_2 the roots of z^2 - (1 - lr h + mu) z + mu and m = mu for heavy ball;
r_1 = 1 - lr h, r_2 = g and m = r_1 r_2 for the average. E_inf is what
:func:`~rightbatch.quadratic.steady_state.steady_state_moments` returns, for heavy ball
(1+mu) lr c / (B h (2 mu + 2 - lr h) (1 - mu)). The first term is exact; only the noise
is bounded. The paper asks for r_1 != r_2, so for lr h != (1 - sqrt(mu))^2; here the
limit (k + 1) r^k is taken, and near it the difference quotient by expm1 or sines.
"""

from dataclasses import dataclass

import numpy as np

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.dynamics import loss_after
from rightbatch.quadratic.optimizers import Optimizer
from rightbatch.quadratic.problem import NoisyQuadratic, refuse_label_noise
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.steady_state import (
    Characteristic,
    characteristic,
    steady_state_moments,
)

COVERED = ("sgd", "momentum", "ema")


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskBound:
    """A theorem's bound on the expected loss after some steps, and the loss itself.

    Args:
        transient: What is left of the start, exactly.
        steady_state: All the noise there can ever be.
        irreducible_loss: The loss at the minimum.
        exact: The expected loss; never above :attr:`bound` but for rounding.
    """

    transient: float
    steady_state: float
    irreducible_loss: float
    exact: float

    @property
    def bound(self) -> float:
        """The theorem's right-hand side, summed over directions."""
        return self.transient + self.steady_state + self.irreducible_loss

    def __str__(self) -> str:
        return (
            f"at most {self.bound:.6g} ({self.transient:.3g} of the start, "
            f"{self.steady_state:.3g} of noise), exactly {self.exact:.6g}"
        )


def risk_bound(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: float, steps: int
) -> RiskBound:
    """Return the theorem's bound on the loss after some steps, with the exact loss.

    Args:
        problem: What is minimised; a preconditioner enters as in
            :class:`~rightbatch.quadratic.problem.NoisyQuadratic`.
        optimizer: ``sgd``, ``momentum`` or ``ema``, with settings that are stable.
        batch_size: Examples per step.
        steps: k, at least 1.

    Returns:
        The bound and the exact value.

    Raises:
        InputError: No theorem covers the optimizer, it is not stable, an argument is
            out of range, or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> heavy_ball = Optimizer(name="momentum", lr=0.1, momentum=0.9)
        >>> print(risk_bound(problem, heavy_ball, batch_size=32, steps=100))
        at most 0.0623514 (0.0215 of the start, 0.0409 of noise), exactly 0.0619567
    """
    who = "risk_bound"
    refuse_label_noise(who, problem)
    num = _checks.positive_integer(who, "steps", steps)
    if optimizer.name not in COVERED:
        raise InputError(
            f"{who}: the theorems cover {', '.join(COVERED)}, got {optimizer.name}.",
            "loss_after gives the exact loss of every optimizer",
        )
    poly = _polynomial(problem, optimizer)
    if poly.at_minus_one.min() <= 0:
        raise InputError(
            f"{who}: `lr` must be below the stability edge "
            f"{optimizer.max_stable_rate / problem.rates.max():g}, "
            f"got {optimizer.lr:g}."
        )
    left = _divided_power(poly, num) - poly.product * _divided_power(poly, num - 1)
    noise = steady_state_moments(problem, optimizer, batch_size)
    return RiskBound(
        transient=float(problem.loss_weights @ (left**2 * problem.start)),
        steady_state=float(problem.loss_weights @ noise),
        irreducible_loss=problem.irreducible_loss,
        exact=float(loss_after(problem, optimizer, batch_size, num)),
    )


def _polynomial(problem: NoisyQuadratic, optimizer: Optimizer) -> Characteristic:
    """Return that of what the loss is read at: z^2 - (c + g) z + c g for an average."""
    plain = characteristic(problem, optimizer)
    if not optimizer.has_ema:
        return plain
    g, gap, x = optimizer.ema_decay, 1 - optimizer.ema_decay, plain.at_one
    return Characteristic(
        at_one=x * gap,
        at_minus_one=plain.at_minus_one * (1 + g),
        product=g * (1 - x),
        product_gap=gap + g * x,
        discriminant=(gap - x) ** 2,
    )


def _divided_power(poly: Characteristic, steps: int) -> FloatArray:
    """Return b_k = (R^(k+1) - r^(k+1)) / (R - r), b_0 = 1, b_1 = R + r; shape (n,)."""
    return np.where(
        poly.discriminant >= 0,
        _divided_real_power(poly, steps),
        _divided_complex_power(poly, steps),
    )


def _divided_real_power(poly: Characteristic, steps: int) -> FloatArray:
    """Return b_k of real roots R, r with |R| >= |r|, by expm1 of k log(r / R)."""
    num = steps + 1
    root = np.sqrt(np.maximum(poly.discriminant, 0))
    positive = poly.at_minus_one >= poly.at_one  # R + r >= 0; else mirror the roots
    near = np.where(positive, poly.at_one, poly.at_minus_one)
    # (1 - |R|) (1 - r) is the polynomial at 1 (at -1), and its other factor is safe.
    gap = 2 * near / (near + poly.product_gap + root)
    large = np.where(gap < 1, 1 - gap, 1.0)
    log_large = np.log1p(-np.where(gap < 1, gap, 0.0))
    apart = root / large
    close = (apart > 0) & (apart < 1)
    same_sign = np.expm1(num * np.log1p(-np.where(close, apart, 0.5)))
    opposite = (1 - apart) ** num - 1
    quotient = np.where(close, same_sign, opposite) / -np.where(apart > 0, apart, 1.0)
    value = np.exp(steps * log_large) * np.where(apart > 0, quotient, num)
    sign = np.where(positive, 1.0, (-1.0) ** steps)
    # Both roots 0, one step of the whole way: b_0 = 1 and nothing after.
    return np.where(gap < 1, sign * value, 1.0 if steps == 0 else 0.0)


def _divided_complex_power(poly: Characteristic, steps: int) -> FloatArray:
    """Return b_k of complex roots: rho^k sin((k+1) angle) / sin(angle)."""
    complex_ = poly.discriminant < 0
    height = np.sqrt(np.where(complex_, -poly.discriminant, 1.0))
    angle = np.arctan2(height, (poly.at_minus_one - poly.at_one) / 2)
    # A momentum below 1e-16 rounds its gap to one.
    gap = np.minimum(np.where(complex_, poly.product_gap, 0.5), 1 - 2.0**-53)
    log_radius = 0.5 * np.log1p(-gap)
    waves = np.sin((steps + 1) * angle) / np.sin(angle)
    return np.exp(steps * log_radius) * waves
