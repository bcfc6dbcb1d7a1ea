r"""The batch size that each published rule reads off the same two moments.

They answer different questions and differ by orders of magnitude; none of them is the
critical batch size of a run. Beside each other they show the range a single "suggested
batch" would hide.
"""

import math
from typing import NamedTuple

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.noise_scale.moments import GradientMoments
from rightbatch.noise_scale.norm_tests import inner_product_test_batch, norm_test_batch


class Suggestion(NamedTuple):
    """A batch size by one definition.

    Args:
        batch_size: In examples, not rounded; None where it cannot be told.
        definition: What it is, in a formula or a few words.
        source: Who proposed it.
    """

    batch_size: float | None
    definition: str
    source: str


def suggested_batch_sizes(
    moments: GradientMoments,
    *,
    lr: float | None = None,
    loss: float | None = None,
    inner_product_variance: float | None = None,
    theta: float = 0.9,
    similarity: float = 0.5,
) -> dict[str, Suggestion]:
    r"""Return the batch size by each definition; some need more than the moments.

    Args:
        moments: Averages over a window.
        lr: Learning rate of plain SGD; for CABS.
        loss: Mean loss above the least there is; for CABS.
        inner_product_variance: :math:`G'\Sigma G`, an average; for its test.
        theta: Of the norm test and of the inner-product test.
        similarity: Of the gradients of two halves of a batch, between 0 and 1.

    Returns:
        Suggestions by name.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
        >>> for name, found in suggested_batch_sizes(moments, lr=.1, loss=2.).items():
        ...     print(f"{name}: {found.batch_size:.0f}")
        noise_scale: 700
        diversity: 701
        norm_test: 864
        similarity: 1400
        cabs: 18
    """
    known = moments.grad_sq_norm > 0
    scale = moments.simple_noise_scale
    found = {
        "noise_scale": Suggestion(
            scale if known else None,
            "tr(Sigma)/|G|^2: as much noise as signal in a batch",
            "McCandlish et al. (2018)",
        ),
        "diversity": Suggestion(
            1 + scale if known else None,
            "n sum|g_i|^2/|sum g_i|^2: gradients still add up",
            "Yin et al. (2018)",
        ),
        "norm_test": Suggestion(
            norm_test_batch(moments, theta),
            f"tr(Sigma)/(theta^2 |G|^2), theta = {theta:g}",
            "Byrd et al. (2012)",
        ),
        "similarity": Suggestion(
            similarity_batch(moments, similarity),
            f"halves of a batch agree to s = {similarity:g}: 2 phi s/(1 - s)",
            "after SimiGrad, Qin et al. (2021)",
        ),
    }
    if inner_product_variance is not None:
        found["inner_product_test"] = Suggestion(
            inner_product_test_batch(moments, inner_product_variance, theta),
            f"G'Sigma G/(theta^2 |G|^4), theta = {theta:g}",
            "Bollapragada et al. (2018)",
        )
    if lr is not None and loss is not None:
        found["cabs"] = Suggestion(
            cabs_batch(moments, lr, loss),
            "lr tr(Sigma)/loss: the most progress per example of plain SGD",
            "Balles et al. (2017)",
        )
    return found


def cabs_batch(moments: GradientMoments, lr: float, loss: float) -> float:
    r"""Return :math:`lr\,\mathrm{tr}\,\Sigma/(F - F^*)` (CABS, Balles et al., 2017).

    It needs no :math:`|G|^2`, and so is known where the noise scale is not.

    Args:
        moments: Averages.
        lr: Learning rate of plain SGD, positive.
        loss: Mean loss above the least there is, F - F*, positive.

    Returns:
        Examples, not rounded, none below zero.

    Raises:
        InputError: `lr` or `loss` is not positive.

    Example:
        >>> moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
        >>> cabs_batch(moments, lr=0.1, loss=2.0)
        17.5
    """
    _checks.positive("cabs_batch", "lr", lr)
    _checks.positive("cabs_batch", "loss", loss)
    return max(0.0, lr * moments.grad_variance / loss)


def gain(moments: GradientMoments, from_batch: float, to_batch: float) -> float:
    r"""Return how many steps at one batch size a step at another is worth.

    .. math:: r = \frac{\mathrm{tr}\,\Sigma/B_0 + |G|^2}{\mathrm{tr}\,\Sigma/B + |G|^2}

    AdaScale's gain (Johnson et al., 2020), both parts from averages; an average below
    zero is taken for zero here, after averaging, so that the gain stays between 1 and
    :math:`B/B_0`.

    Args:
        moments: Averages.
        from_batch: :math:`B_0`, in examples.
        to_batch: B, in examples.

    Returns:
        The gain; nan where neither average is above zero.

    Raises:
        InputError: A batch size is not positive.

    Example:
        >>> gain(GradientMoments(grad_sq_norm=0.5, grad_variance=350.0), 175, 700)
        2.5
    """
    _checks.positive("gain", "from_batch", from_batch)
    _checks.positive("gain", "to_batch", to_batch)
    square = max(0.0, moments.grad_sq_norm)
    variance = max(0.0, moments.grad_variance)
    if not square and not variance:
        return math.nan
    return (variance / from_batch + square) / (variance / to_batch + square)


def half_batch_similarity(moments: GradientMoments, batch_size: float) -> float:
    r"""Return how well the gradients of two halves of a batch agree.

    .. math:: E\langle g_1, g_2\rangle / E|g_1|^2
              = |G|^2/(|G|^2 + 2\,\mathrm{tr}\,\Sigma/B)

    Args:
        moments: Averages.
        batch_size: B, both halves.

    Returns:
        Between 0, nothing but noise, and 1; nan where neither average is above zero.

    Raises:
        InputError: `batch_size` is not positive.

    Example:
        >>> moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
        >>> half_batch_similarity(moments, 1400)
        0.5
    """
    _checks.positive("half_batch_similarity", "batch_size", batch_size)
    square = max(0.0, moments.grad_sq_norm)
    variance = max(0.0, moments.grad_variance)
    if not square and not variance:
        return math.nan
    return square / (square + 2 * variance / batch_size)


def similarity_batch(moments: GradientMoments, similarity: float) -> float | None:
    r"""Return the batch whose halves agree so well, :math:`2\phi s/(1 - s)`.

    Args:
        moments: Averages.
        similarity: s, as :func:`half_batch_similarity` has it.

    Returns:
        Examples, not rounded; None where :math:`|G|^2` is not above zero.

    Raises:
        InputError: `similarity` is not between 0 and 1.

    Example:
        >>> moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
        >>> round(similarity_batch(moments, 0.8))
        5600
    """
    if not 0 < similarity < 1:
        raise InputError(
            f"similarity_batch: `similarity` must be between 0 and 1, "
            f"got {similarity!r}."
        )
    if moments.grad_sq_norm <= 0:
        return None
    return 2 * moments.simple_noise_scale * similarity / (1 - similarity)
