r"""Batches that grow as the loss falls, or as if it did: AdaDamp and its kin.

Noise is damped by averaging over more examples, in step with the progress made: the
batch of Sievert and Shah (2021) is inversely proportional to the loss that is left.
"""

import math
from dataclasses import dataclass

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.policies.contract import (
    CLOCK_ALONE,
    UNBOUNDED,
    Decision,
    Observation,
    check_positive,
    nothing_remembered,
)
from rightbatch.policies.noise_reading import hold, wish

FirstAndLast = tuple[float | None, float | None]
"""The value that later ones are compared with, and the size last asked for."""


def _nothing_yet(policy: object) -> FirstAndLast:
    """Return that neither is known."""
    del policy
    return None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaDamp:
    r"""The batch size inversely proportional to the loss that is left.

    .. math:: B_k = B_0 \frac{F_0 - F^*}{F_k - F^*}

    Sievert and Shah (2021); the ceiling of their formula is left to whoever serves the
    batch. The loss is evaluated at every call, the first one included: wrap it in
    :class:`~rightbatch.policies.Dwell` to have it evaluated less often.

    A loss at or below :math:`F^*` leaves nothing to damp by: the wish is then
    :data:`~rightbatch.policies.UNBOUNDED`, which the cap takes. :math:`F_0` is the
    first loss above :math:`F^*`. Where no loss is known, or it is not a number, the
    batch stays as it is.

    Args:
        initial_batch_size: :math:`B_0`, in examples.
        best_loss: :math:`F^*`, the least loss there is.

    Raises:
        InputError: The size is not positive, or the loss not finite.

    Example:
        >>> policy = AdaDamp(initial_batch_size=8)
        >>> start = Observation(step=0, examples=0, batch_size=0, eval_loss=2.0)
        >>> first, state = policy.update(policy.init(), start)
        >>> later = Observation(step=9, examples=72, batch_size=8, eval_loss=0.5)
        >>> first.batch_size, policy.update(state, later)[0].batch_size
        (8.0, 32.0)
    """

    initial_batch_size: float
    best_loss: float = 0.0

    needs = frozenset({"eval_loss"})
    init = _nothing_yet

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size")
        _checks.finite("AdaDamp", "best_loss", self.best_loss)

    def update(
        self, state: FirstAndLast, seen: Observation
    ) -> tuple[Decision, FirstAndLast]:
        """Return the batch size for the loss seen, and the first loss to compare."""
        first, last = state
        loss = seen.eval_loss
        if loss is None or not math.isfinite(loss):
            why = "loss unknown" if loss is None else f"loss {loss}"
            return hold(last, seen, self.initial_batch_size, why)[0], state
        loss = float(loss)
        if loss <= self.best_loss:
            reason = f"loss {loss:.3g} at or below the best"
            return Decision(UNBOUNDED, reason=reason), (first, UNBOUNDED)
        first = loss if first is None else first
        size = self.initial_batch_size * (first - self.best_loss)
        decision, last = wish(size / (loss - self.best_loss), f"loss {loss:.3g}")
        return decision, (first, last)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaDampNN:
    r"""The batch size inversely proportional to the squared norm of the gradient.

    .. math:: B_k = B_0 |G_0|^2 / |G_k|^2

    adadamp 0.2, which takes the norms over the whole data set; here they are the
    unbiased ones off the training batches. The batch may fall below :math:`B_0`.
    Where :math:`|G|^2` is unknown or not above zero the batch stays as it is.

    Args:
        initial_batch_size: :math:`B_0`, in examples.

    Raises:
        InputError: It is not positive.

    Example:
        >>> from rightbatch.noise_scale import GradientMoments
        >>> policy, state = AdaDampNN(initial_batch_size=8), (4.0, 8.0)
        >>> moments = GradientMoments(grad_sq_norm=1.0, grad_variance=9.0)
        >>> seen = Observation(step=9, examples=72, batch_size=8, moments=moments)
        >>> policy.update(state, seen)[0].batch_size
        32.0
    """

    initial_batch_size: float

    needs = frozenset({"moments"})
    init = _nothing_yet

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size")

    def update(
        self, state: FirstAndLast, seen: Observation
    ) -> tuple[Decision, FirstAndLast]:
        """Return the batch size for the norm seen, and the first norm to compare."""
        first, last = state
        if seen.moments is None or seen.moments.grad_sq_norm <= 0:
            why = "|G|^2 unresolved"
            return hold(last, seen, self.initial_batch_size, why)[0], state
        square = float(seen.moments.grad_sq_norm)
        first = square if first is None else first
        size = self.initial_batch_size * first / square
        decision, last = wish(size, f"|G|^2 {square:.3g}")
        return decision, (first, last)


@dataclass(frozen=True, slots=True, kw_only=True)
class PadaDamp:
    r"""The batch size that grows by the same amount at every update.

    .. math:: B_k = B_0 + r k

    Sievert and Shah (2021): what AdaDamp does where the loss falls as 1/k, without an
    evaluation. k counts the updates of the run.

    Args:
        initial_batch_size: :math:`B_0`, in examples.
        rate: r, examples more per update, not negative; :func:`padadamp_rate` picks it.

    Raises:
        InputError: The size is not positive, or the rate negative.

    Example:
        >>> policy = PadaDamp(initial_batch_size=16, rate=0.05)
        >>> seen = Observation(step=100, examples=1840, batch_size=21)
        >>> policy.update(None, seen)[0].batch_size
        21.0
    """

    initial_batch_size: float
    rate: float

    needs = CLOCK_ALONE
    init = nothing_remembered

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size")
        _checks.nonnegative("PadaDamp", "rate", self.rate)

    def update(self, state: None, seen: Observation) -> tuple[Decision, None]:
        """Return the batch size for the updates done."""
        size = min(self.initial_batch_size + self.rate * seen.step, UNBOUNDED)
        return Decision(size, reason=f"update {seen.step}"), state


def padadamp_rate(
    *,
    initial_batch_size: float,
    max_batch_size: float,
    epochs: float,
    dataset_size: float,
) -> float:
    r"""Return the growth per update at which PadaDamp ends at a given batch size.

    .. math:: r = (B_{\max}^2 - B_0^2) / (2 e n)

    From :math:`e n = \int_0^K (B_0 + r k)\,dk` with :math:`B_0 + r K = B_{\max}`.

    Args:
        initial_batch_size: :math:`B_0`, in examples.
        max_batch_size: :math:`B_{\max}`, reached at the end, in examples.
        epochs: e.
        dataset_size: n, in examples.

    Returns:
        r, examples per update.

    Raises:
        InputError: An argument is not positive, or the batch would have to shrink.

    Example:
        >>> padadamp_rate(
        ...     initial_batch_size=16, max_batch_size=144, epochs=2, dataset_size=1280
        ... )
        4.0
    """
    who = "padadamp_rate"
    first = _checks.positive(who, "initial_batch_size", initial_batch_size)
    last = _checks.positive(who, "max_batch_size", max_batch_size)
    _checks.positive(who, "epochs", epochs)
    _checks.positive(who, "dataset_size", dataset_size)
    if last < first:
        raise InputError(
            f"{who}: `max_batch_size` must be >= `initial_batch_size`, got {last:g} "
            f"and {first:g}."
        )
    return (last**2 - first**2) / (2 * epochs * dataset_size)
