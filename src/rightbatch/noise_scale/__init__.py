r"""Gradient noise: what the units of an update tell of a batch size, and how surely.

===============  =====================================================
``moments``      :class:`GradientMoments`: the two numbers, and what follows
``units``        both without bias from examples, micro-batches or replicas
``tokens``       the same where the loss is a mean over tokens
``scatter``      weighted means and spreads over updates
``average``      :class:`MomentAverage`, with a memory counted in examples
``fieller``      limits of a ratio, unbounded where they are
``drift``        does the noise scale move within its window?
``planning``     how many updates it takes
``estimate``     :class:`NoiseScaleEstimate`, the ratio and what is known of it
``plug_in``      the usual short cuts, and why they read "at least"
``norm_tests``   the norm test and the inner-product tests
``suggestions``  the batch size by each published definition
===============  =====================================================
"""

from rightbatch.noise_scale.average import MomentAverage
from rightbatch.noise_scale.drift import DriftTest, drift_test
from rightbatch.noise_scale.estimate import NoiseScaleEstimate
from rightbatch.noise_scale.fieller import (
    RatioLimits,
    fieller_interval,
    fieller_lower_bound,
)
from rightbatch.noise_scale.moments import GradientMoments
from rightbatch.noise_scale.norm_tests import (
    augmented_test_batch,
    inner_product_test_batch,
    inner_product_variance,
    norm_test_batch,
)
from rightbatch.noise_scale.planning import RelativeSds, relative_sds, steps_for
from rightbatch.noise_scale.plug_in import (
    PlugInNoiseScale,
    naive_diversity_bound,
    plug_in_noise_scale,
)
from rightbatch.noise_scale.scatter import Covariance, Scatter
from rightbatch.noise_scale.suggestions import (
    Suggestion,
    cabs_batch,
    gain,
    half_batch_similarity,
    similarity_batch,
    suggested_batch_sizes,
)
from rightbatch.noise_scale.tokens import token_mean_moments, token_residual_moments
from rightbatch.noise_scale.units import UnitSums, unit_moments

__all__ = [
    "Covariance",
    "DriftTest",
    "GradientMoments",
    "MomentAverage",
    "NoiseScaleEstimate",
    "PlugInNoiseScale",
    "RatioLimits",
    "RelativeSds",
    "Scatter",
    "Suggestion",
    "UnitSums",
    "augmented_test_batch",
    "cabs_batch",
    "drift_test",
    "fieller_interval",
    "fieller_lower_bound",
    "gain",
    "half_batch_similarity",
    "inner_product_test_batch",
    "inner_product_variance",
    "naive_diversity_bound",
    "norm_test_batch",
    "plug_in_noise_scale",
    "relative_sds",
    "similarity_batch",
    "steps_for",
    "suggested_batch_sizes",
    "token_mean_moments",
    "token_residual_moments",
    "unit_moments",
]
