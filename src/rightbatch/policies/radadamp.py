"""A batch that grows as what the training batches tell of loss and gradient falls."""

import math
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.policies.contract import Decision, Observation, check_positive
from rightbatch.policies.noise_reading import wish

Reduction = Literal["min", "mean", "median", "max"]
RadaState = tuple[
    tuple[float, ...],
    tuple[float, ...],
    int,
    tuple[float, float] | None,
    tuple[float, float] | None,
    float | None,
]
"""Losses and squared norms of the window, where it is read next, the first reductions
and their moving averages (of loss and norm), and the size last asked for."""

_REDUCTIONS = {"min": min, "mean": fmean, "median": median, "max": max}


@dataclass(frozen=True, slots=True, kw_only=True)
class RadaDamp:
    r"""The batch size inversely proportional to averages off the training batches.

    .. math:: B = \max\left(B_0, \frac{B_0}{(L/L_0 + N/N_0)/2}\right)

    adadamp 0.2's "rolling average". Losses and squared gradient norms of the batches
    are reduced over a window of updates, and the reductions averaged,
    :math:`x \leftarrow \rho x + (1 - \rho)\,\mathrm{new}`. The window is read at
    multiples of `dwell` from `wait` on. The first reading gives :math:`L_0` and
    :math:`N_0` and leaves the batch at :math:`B_0`; the window of the second still
    starts at the first update, every later one after the reading before it. It looks
    at every update and holds by itself: a wrapper that asks it less often would take
    the updates between from it.

    Updates without a finite loss and norm are left out. A window without any, and first
    reductions that are not above zero, leave the batch as it is.

    Args:
        initial_batch_size: :math:`B_0`, in examples.
        rho: Weight of the past, from 0 to less than 1.
        reduction: ``min``, ``mean``, ``median`` or ``max`` of a window.
        dwell: Updates between readings.
        wait: Updates before the first reading.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> policy = RadaDamp(initial_batch_size=16, dwell=1, wait=1, rho=0.0)
        >>> state, sizes = policy.init(), []
        >>> for step, fell in enumerate([1.0, 1.0, 0.5, 0.25]):
        ...     decision, state = policy.update(state, Observation(
        ...         step=step, examples=16 * step, batch_size=16,
        ...         batch_loss=fell if step else None, batch_grad_sq_norm=fell))
        ...     sizes.append(round(decision.batch_size, 1))
        >>> sizes
        [16, 16, 21.3, 64.0]
    """

    initial_batch_size: float
    rho: float = 0.2
    reduction: Reduction = "mean"
    dwell: int = 20
    wait: int = 100

    needs = frozenset({"batch_loss", "batch_grad_sq_norm"})

    def __post_init__(self) -> None:
        who = "RadaDamp"
        check_positive(self, "initial_batch_size")
        if not 0 <= _checks.finite(who, "rho", self.rho) < 1:
            raise InputError(f"{who}: `rho` must be in [0, 1), got {self.rho:g}.")
        _checks.one_of(who, "reduction", self.reduction, list(_REDUCTIONS))
        _checks.positive_integer(who, "dwell", self.dwell)
        _checks.nonnegative(who, "wait", self.wait)

    def init(self) -> RadaState:
        """Return an empty window."""
        return (), (), self._multiple_from(max(1, self.wait)), None, None, None

    def update(self, state: RadaState, seen: Observation) -> tuple[Decision, RadaState]:
        """Return the batch size after the updates seen, and what was read of them."""
        losses, norms, due, first, average, last = state
        loss, norm = seen.batch_loss, seen.batch_grad_sq_norm
        # Before the first update there is no batch that could have told.
        if loss is None or norm is None or seen.step == 0:
            loss = norm = math.nan
        if math.isfinite(loss) and math.isfinite(norm):
            losses, norms = (*losses, float(loss)), (*norms, float(norm))
        held = self.initial_batch_size if last is None else last
        if seen.step < due or not losses:
            return (
                Decision(held, reason="holds"),
                (losses, norms, due, first, average, last),
            )
        due = self._multiple_from(seen.step + 1)
        reduce = _REDUCTIONS[self.reduction]
        read = reduce(losses), reduce(norms)
        if first is None or average is None:
            decision = Decision(held, reason=f"first loss {read[0]:.3g}")
            return decision, (losses, norms, due, read, read, last)
        keep = self.rho
        average = (
            keep * average[0] + (1 - keep) * read[0],
            keep * average[1] + (1 - keep) * read[1],
        )
        decision, last = self._sized(first, average, held)
        return decision, ((), (), due, first, average, last)

    def _sized(
        self, first: tuple[float, float], now: tuple[float, float], held: float
    ) -> tuple[Decision, float | None]:
        if min(first) <= 0:
            return Decision(held, reason="first loss or norm not above zero"), held
        left = 0.5 * (now[0] / first[0] + now[1] / first[1])
        size = self.initial_batch_size
        grown = size / left if left > 0 else math.inf
        return wish(max(size, grown), f"share left {left:.3g}")

    def _multiple_from(self, step: float) -> int:
        # Upwards, in whole numbers.
        return int(-(-step // self.dwell) * self.dwell)
