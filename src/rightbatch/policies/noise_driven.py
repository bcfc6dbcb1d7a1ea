r"""Batches read off the gradient noise scale :math:`\phi`, each by its own formula.

All of them need the noise scale and nothing else, so that any can be gated by its
interval (:class:`~rightbatch.policies.OnlyIfSure`). Where it is unresolved the batch
stays as it is; see :mod:`~rightbatch.policies.noise_reading`.
"""

import math
from dataclasses import dataclass

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.noise_scale import similarity_batch
from rightbatch.policies.contract import (
    Decision,
    Observation,
    check_positive,
    nothing_remembered,
)
from rightbatch.policies.noise_reading import (
    NOISE_SCALE,
    UNRESOLVED,
    LastWish,
    follow_noise,
    hold,
    moments_of_scale,
    noise_scale_of,
    wish,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFollowing:
    r"""The batch size in proportion to the noise scale.

    .. math:: B = c\,\phi

    McCandlish et al. (2018): at c = 1 a run takes twice the fewest steps and twice the
    fewest examples, as far as :math:`\phi` is the critical batch size.

    Args:
        initial_batch_size: Until the noise scale is known, in examples.
        factor: c.

    Raises:
        InputError: A value is not positive.

    Example:
        >>> from rightbatch.fitting import Interval
        >>> phi = Interval(value=118.0, low=90.0, high=160.0, level=0.95)
        >>> seen = Observation(step=9, examples=72, batch_size=8, noise_scale=phi)
        >>> NoiseFollowing(initial_batch_size=8).update(None, seen)[0]
        Decision(batch_size=118.0, lr_factor=1.0, reason='noise scale 118')
    """

    initial_batch_size: float
    factor: float = 1.0

    needs = NOISE_SCALE
    init = nothing_remembered
    update = follow_noise

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size", "factor")

    def batch_size_for(self, noise_scale: float) -> float:
        """Return c times the noise scale, in examples."""
        return self.factor * noise_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRate:
    r"""The batch size at which one update more is worth so many examples.

    .. math:: B = \sqrt{r\,\phi}

    McCandlish et al. (2018): the least of :math:`E + r S` along
    :math:`S = S_{\min}(1 + \phi/B)`, :math:`E = B S`.

    Args:
        initial_batch_size: Until the noise scale is known, in examples.
        examples_per_update: r: how many examples are as dear as one update.

    Raises:
        InputError: A value is not positive.

    Example:
        >>> from rightbatch.fitting import Interval
        >>> phi = Interval(value=100.0, low=90.0, high=160.0, level=0.95)
        >>> seen = Observation(step=9, examples=72, batch_size=8, noise_scale=phi)
        >>> policy = ExchangeRate(initial_batch_size=8, examples_per_update=64)
        >>> policy.update(None, seen)[0].batch_size
        80.0
    """

    initial_batch_size: float
    examples_per_update: float

    needs = NOISE_SCALE
    init = nothing_remembered
    update = follow_noise

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size", "examples_per_update")

    def batch_size_for(self, noise_scale: float) -> float:
        """Return the root of r times the noise scale, in examples."""
        return math.sqrt(self.examples_per_update * noise_scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyFloor:
    r"""The largest batch size whose examples are still worth a given share.

    An example is worth :math:`e = 1/(1 + B/\phi)` of one in a tiny batch, so that

    .. math:: B = \phi (1/e - 1),

    and :math:`(\phi + B_0)/(\phi + B)` of one in the initial batch (Pollux, Qiao et al.
    2021), so that :math:`B = (\phi + B_0)/e - \phi`.

    Args:
        initial_batch_size: :math:`B_0`, and until the noise scale is known; examples.
        efficiency: e, between 0 and 1.
        from_initial: Count from the initial batch, not from tiny ones.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> from rightbatch.fitting import Interval
        >>> phi = Interval(value=100.0, low=90.0, high=160.0, level=0.95)
        >>> seen = Observation(step=9, examples=72, batch_size=8, noise_scale=phi)
        >>> for from_initial in (False, True):
        ...     policy = EfficiencyFloor(
        ...         initial_batch_size=8, efficiency=0.8, from_initial=from_initial)
        ...     print(round(policy.update(None, seen)[0].batch_size))
        25
        35
    """

    initial_batch_size: float
    efficiency: float = 0.5
    from_initial: bool = False

    needs = NOISE_SCALE
    init = nothing_remembered
    update = follow_noise

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size")
        _check_share("EfficiencyFloor", "efficiency", self.efficiency)

    def batch_size_for(self, noise_scale: float) -> float:
        """Return the batch size whose examples are worth e, in examples."""
        start = self.initial_batch_size if self.from_initial else 0.0
        return (noise_scale + start) / self.efficiency - noise_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    r"""The batch size in proportion to the diversity of the gradients.

    .. math:: B = \delta\, n\sum|g_i|^2/|\sum g_i|^2 = \delta (\phi + 1)

    Up to this bound with :math:`\delta` of order 1 a batch does the work of as many
    single examples (Yin et al. 2018); grown along it by DiveBatch (2025).

    Args:
        initial_batch_size: Until the noise scale is known, in examples.
        share: :math:`\delta`.

    Raises:
        InputError: A value is not positive.

    Example:
        >>> from rightbatch.fitting import Interval
        >>> phi = Interval(value=99.0, low=90.0, high=160.0, level=0.95)
        >>> seen = Observation(step=9, examples=72, batch_size=8, noise_scale=phi)
        >>> Diversity(initial_batch_size=8, share=0.5).update(None, seen)[0].batch_size
        50.0
    """

    initial_batch_size: float
    share: float = 1.0

    needs = NOISE_SCALE
    init = nothing_remembered

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size", "share")

    def update(self, state: LastWish, seen: Observation) -> tuple[Decision, LastWish]:
        """Return the batch size for the noise seen, and remember it."""
        phi = noise_scale_of(seen)
        if phi is None:
            return hold(state, seen, self.initial_batch_size, UNRESOLVED)
        bound = moments_of_scale(phi).diversity_batch_bound
        return wish(self.share * bound, f"diversity {bound:.3g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    r"""The batch size whose two halves have gradients that agree so well.

    .. math:: B = 2 \phi s/(1 - s)

    After SimiGrad (Qin et al. 2021), whose similarity is a cosine measured in the
    batch; see :func:`~rightbatch.noise_scale.similarity_batch`.

    Args:
        initial_batch_size: Until the noise scale is known, in examples.
        similarity: s, between 0 and 1.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> from rightbatch.fitting import Interval
        >>> phi = Interval(value=100.0, low=90.0, high=160.0, level=0.95)
        >>> seen = Observation(step=9, examples=72, batch_size=8, noise_scale=phi)
        >>> policy = Similarity(initial_batch_size=8, similarity=0.5)
        >>> policy.update(None, seen)[0].batch_size
        200.0
    """

    initial_batch_size: float
    similarity: float = 0.5

    needs = NOISE_SCALE
    init = nothing_remembered
    update = follow_noise

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size")
        _check_share("Similarity", "similarity", self.similarity)

    def batch_size_for(self, noise_scale: float) -> float:
        """Return the batch size whose halves agree by s, in examples."""
        size = similarity_batch(moments_of_scale(noise_scale), self.similarity)
        assert size is not None
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class DoublingWarmup:
    r"""The batch size doubled whenever the noise scale surely lies above twice it.

    It looks at the lower end of the interval of :math:`\phi` alone, which is there
    before a point estimate is, and never shrinks. The batch-size warm-up of Merrill et
    al. (2025), gated by an interval; what the learning rate does at a doubling is the
    rule's that the run was given.

    Args:
        initial_batch_size: In examples.

    Raises:
        InputError: It is not positive.

    Example:
        >>> from rightbatch.fitting import Interval
        >>> at_least = Interval(value=None, low=40.0, high=None, level=0.95)
        >>> seen = Observation(step=9, examples=72, batch_size=8, noise_scale=at_least)
        >>> DoublingWarmup(initial_batch_size=8).update(None, seen)[0]
        Decision(batch_size=16, lr_factor=1.0, reason='noise scale above 40')
    """

    initial_batch_size: float

    needs = NOISE_SCALE
    init = nothing_remembered

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size")

    def update(self, state: LastWish, seen: Observation) -> tuple[Decision, LastWish]:
        """Return the batch size, doubled or as it was, and remember it."""
        present = self.initial_batch_size if state is None else state
        low = None if seen.noise_scale is None else seen.noise_scale.low
        if low is None:
            return hold(state, seen, self.initial_batch_size, UNRESOLVED)
        if 2 * present < low < math.inf:
            doubled = 2 * present
            return Decision(doubled, reason=f"noise scale above {low:.3g}"), doubled
        return Decision(present, reason=f"noise scale may be {low:.3g}"), present


def _check_share(who: str, name: str, value: float) -> None:
    if not 0 < _checks.finite(who, name, value) < 1:
        raise InputError(f"{who}: `{name}` must be between 0 and 1, got {value:g}.")
