r"""Gradient noise: what the units of an update tell of a batch size, and how surely.

=============  ==============================================================
``moments``    :class:`GradientMoments`: :math:`|G|^2` and :math:`\mathrm{tr}\,\Sigma`
``units``      both without bias from examples, micro-batches or replicas
``tokens``     the same where the loss is a mean over tokens
``scatter``    weighted means and spreads over updates
``average``    :class:`MomentAverage`, with a memory counted in examples
``fieller``    limits of a ratio, unbounded where they are
``drift``      does the noise scale move within its window?
``estimate``   :class:`NoiseScaleEstimate`, the ratio with all that is known of it
=============  ==============================================================
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
from rightbatch.noise_scale.scatter import Covariance, Scatter
from rightbatch.noise_scale.tokens import token_mean_moments, token_residual_moments
from rightbatch.noise_scale.units import UnitSums, unit_moments

__all__ = [
    "Covariance",
    "DriftTest",
    "GradientMoments",
    "MomentAverage",
    "NoiseScaleEstimate",
    "RatioLimits",
    "Scatter",
    "UnitSums",
    "drift_test",
    "fieller_interval",
    "fieller_lower_bound",
    "token_mean_moments",
    "token_residual_moments",
    "unit_moments",
]
