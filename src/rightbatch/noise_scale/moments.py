r"""What one gradient's mean and spread say about batch sizes.

:math:`|G|^2` is the squared norm of the gradient over all data, :math:`\mathrm{tr}\,
\Sigma` the variance of one example's gradient summed over the parameters. A batch of B
examples has a gradient with :math:`E|g_B|^2 = |G|^2 + \mathrm{tr}\,\Sigma / B`.
"""

import math
from dataclasses import dataclass
from typing import Any

from rightbatch import _checks


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientMoments:
    r"""Estimates of :math:`|G|^2` and :math:`\mathrm{tr}\,\Sigma`, and what follows.

    An unbiased estimate of :math:`|G|^2` may fall below zero, and so may one of
    :math:`\mathrm{tr}\,\Sigma` where the norms of only some examples are known. Both
    are kept as they are: means over steps or parameters are taken of the two moments
    apart, and divided last. A mean of ratios is biased, and so is a mean of clipped
    values.

    Args:
        grad_sq_norm: :math:`|G|^2`; below zero where noise hides the gradient.
        grad_variance: :math:`\mathrm{tr}\,\Sigma` of one example.

    Raises:
        InputError: A moment is not finite.

    Example:
        >>> moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
        >>> moments.simple_noise_scale, moments.batch_grad_sq_norm(700)
        (700.0, 1.0)
    """

    grad_sq_norm: float
    grad_variance: float

    def __post_init__(self) -> None:
        _checks.finite("GradientMoments", "grad_sq_norm", self.grad_sq_norm)
        _checks.finite("GradientMoments", "grad_variance", self.grad_variance)

    @property
    def simple_noise_scale(self) -> float:
        r""":math:`\mathrm{tr}\,\Sigma/|G|^2`, in examples (McCandlish et al., 2018).

        Infinite where no gradient can be told from the noise, zero where no noise can
        be told from the gradient, nan without either.
        """
        if self.grad_sq_norm > 0:
            return max(0.0, self.grad_variance / self.grad_sq_norm)
        return math.inf if self.grad_variance > 0 else math.nan

    @property
    def diversity_batch_bound(self) -> float:
        r""":math:`n\sum|g_i|^2/|\sum g_i|^2`, in examples (Yin et al., 2018).

        Gradient diversity times the number of examples: 1 + the noise scale.
        """
        return 1.0 + self.simple_noise_scale

    def batch_grad_sq_norm(self, batch_size: float) -> float:
        r"""Return :math:`E|g_B|^2 = |G|^2 + \mathrm{tr}\,\Sigma/B`.

        Args:
            batch_size: B, in examples.

        Returns:
            The expected squared norm of the gradient of a batch.

        Raises:
            InputError: `batch_size` is not positive.
        """
        batch = _checks.positive("batch_grad_sq_norm", "batch_size", batch_size)
        return self.grad_sq_norm + self.grad_variance / batch

    def for_dataset(self, dataset_size: float) -> "GradientMoments":
        r"""Return the moments where n examples are drawn from without replacement.

        Such batches tell less noise than there is: the estimate of the squared norm is
        then one of :math:`|G|^2 - \mathrm{tr}\,\Sigma/n`, with G the gradient over the
        n examples and :math:`\Sigma` their covariance with divisor n - 1.

        Args:
            dataset_size: n, in examples.

        Returns:
            :math:`|G|^2 + \mathrm{tr}\,\Sigma/n` beside the same variance.

        Raises:
            InputError: `dataset_size` is not positive.

        Example:
            >>> moments = GradientMoments(grad_sq_norm=-0.5, grad_variance=350.0)
            >>> moments.for_dataset(350).grad_sq_norm
            0.5
        """
        size = _checks.positive("for_dataset", "dataset_size", dataset_size)
        return GradientMoments(
            grad_sq_norm=self.grad_sq_norm + self.grad_variance / size,
            grad_variance=self.grad_variance,
        )

    def __add__(self, other: "GradientMoments") -> "GradientMoments":
        """Return the moments of two groups of parameters together: both add."""
        return GradientMoments(
            grad_sq_norm=self.grad_sq_norm + other.grad_sq_norm,
            grad_variance=self.grad_variance + other.grad_variance,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return both moments and what follows; what is not finite is null."""
        scale = self.simple_noise_scale
        known = math.isfinite(scale)
        return {
            "grad_sq_norm": self.grad_sq_norm,
            "grad_variance": self.grad_variance,
            "simple_noise_scale": scale if known else None,
            "diversity_batch_bound": self.diversity_batch_bound if known else None,
        }
