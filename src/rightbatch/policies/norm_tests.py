r"""Batches that keep their gradient close to the true one, or the progress largest.

The tests ask that the noise of a batch's gradient stay small beside the gradient; CABS
weighs what noise costs against what examples cost. The formulas are those of
:mod:`rightbatch.noise_scale`. With unbiased moments a batch is asked for that passes;
the usual plug-in forms, which take a batch's own gradient for the true one, stop short
at :math:`\phi (1 - \theta^2)/\theta^2`.
"""

import math
from dataclasses import dataclass

from rightbatch import _checks
from rightbatch.noise_scale import (
    augmented_test_batch,
    cabs_batch,
    inner_product_test_batch,
    norm_test_batch,
)
from rightbatch.policies.contract import (
    Decision,
    Observation,
    check_positive,
    nothing_remembered,
)
from rightbatch.policies.noise_reading import (
    NOISE_SCALE,
    LastWish,
    follow_noise,
    hold,
    moments_of_scale,
    wish,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormTest:
    r"""The smallest batch size that passes the norm test.

    .. math:: B = \phi/\theta^2

    Byrd et al. (2012); Lau et al. (2024) for networks. Where the noise scale is
    unresolved the batch stays as it is.

    Args:
        initial_batch_size: Until the noise scale is known, in examples.
        theta: Tolerated noise over signal.

    Raises:
        InputError: A value is not positive.

    Example:
        >>> from rightbatch.fitting import Interval
        >>> phi = Interval(value=100.0, low=90.0, high=160.0, level=0.95)
        >>> seen = Observation(step=9, examples=72, batch_size=8, noise_scale=phi)
        >>> policy = NormTest(initial_batch_size=8, theta=0.5)
        >>> policy.update(None, seen)[0].batch_size
        400.0
    """

    initial_batch_size: float
    theta: float = 0.9

    needs = NOISE_SCALE
    init = nothing_remembered
    update = follow_noise

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size", "theta")

    def batch_size_for(self, noise_scale: float) -> float:
        """Return the batch size that just passes, in examples."""
        size = norm_test_batch(moments_of_scale(noise_scale), self.theta)
        assert size is not None
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerProductTest:
    r"""The smallest batch size whose gradient rarely points away from the true one.

    .. math:: B = \frac{G'\Sigma G}{\theta^2 |G|^4}
        \quad\text{and, with } \nu,\text{ at least}\quad
        \frac{\mathrm{tr}\,\Sigma - G'\Sigma G/|G|^2}{\nu^2 |G|^2}

    Bollapragada et al. (2018): the inner-product test, and with `nu` the augmented one.
    Where :math:`|G|^2` is not above zero, or a part is unknown, the batch stays.

    Args:
        initial_batch_size: Until the moments are known, in examples.
        theta: Tolerated relative standard deviation of a gradient's product with G.
        nu: Tolerated noise across the gradient over the signal; None for no such test.

    Raises:
        InputError: A value is not positive.

    Example:
        >>> from rightbatch.noise_scale import GradientMoments
        >>> moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
        >>> seen = Observation(step=9, examples=72, batch_size=8, moments=moments,
        ...     inner_product_variance=4.0)
        >>> policy = InnerProductTest(initial_batch_size=8, theta=0.5, nu=2.0)
        >>> policy.update(None, seen)[0].batch_size
        171.0
    """

    initial_batch_size: float
    theta: float = 0.9
    nu: float | None = None

    needs = frozenset({"moments", "inner_product_variance"})
    init = nothing_remembered

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size", "theta")
        if self.nu is not None:
            check_positive(self, "nu")

    def update(self, state: LastWish, seen: Observation) -> tuple[Decision, LastWish]:
        """Return the batch size for the moments seen, and remember it."""
        moments, spread = seen.moments, seen.inner_product_variance
        size = None
        if moments is not None and spread is not None and math.isfinite(spread):
            if self.nu is None:
                size = inner_product_test_batch(moments, spread, self.theta)
            else:
                size = augmented_test_batch(moments, spread, self.theta, self.nu)
        if size is None or moments is None:
            return hold(state, seen, self.initial_batch_size, "|G|^2 unresolved")
        return wish(size, f"|G|^2 {moments.grad_sq_norm:.3g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CABS:
    r"""The batch size of the most progress per example of plain SGD.

    .. math:: B = \mathrm{lr}\,\mathrm{tr}\,\Sigma/(F - F^*)

    Balles et al. (2017), F the loss of the batch, lr that of the last update. It needs
    no :math:`|G|^2`. Where a part is unknown or the variance not above zero, the batch
    stays; so it does where the loss of a batch comes out at or below :math:`F^*`, which
    noise alone can do.

    Args:
        initial_batch_size: Until the moments are known, in examples.
        best_loss: :math:`F^*`, the least loss there is.

    Raises:
        InputError: The size is not positive, or the loss not finite.

    Example:
        >>> from rightbatch.noise_scale import GradientMoments
        >>> moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
        >>> seen = Observation(step=9, examples=72, batch_size=8, moments=moments,
        ...     lr=0.1, batch_loss=2.0)
        >>> CABS(initial_batch_size=8).update(None, seen)[0].batch_size
        17.5
    """

    initial_batch_size: float
    best_loss: float = 0.0

    needs = frozenset({"moments", "lr", "batch_loss"})
    init = nothing_remembered

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size")
        _checks.finite("CABS", "best_loss", self.best_loss)

    def update(self, state: LastWish, seen: Observation) -> tuple[Decision, LastWish]:
        """Return the batch size for the moments, rate and loss seen; remember it."""
        moments, lr, loss = seen.moments, seen.lr, seen.batch_loss
        start = self.initial_batch_size
        if moments is None or moments.grad_variance <= 0 or lr is None or lr <= 0:
            return hold(state, seen, start, "noise unresolved")
        if loss is None or not self.best_loss < loss < math.inf:
            return hold(state, seen, start, "loss unknown or at the best")
        size = cabs_batch(moments, lr, loss - self.best_loss)
        return wish(size, f"noise {moments.grad_variance:.3g}, loss {loss:.3g}")
