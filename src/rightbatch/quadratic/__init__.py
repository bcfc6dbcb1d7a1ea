"""The noisy quadratic model: steps to a target for any optimizer, without training."""

from rightbatch.quadratic.optimizers import OPTIMIZERS, Optimizer, OptimizerName
from rightbatch.quadratic.problem import Noise, NoisyQuadratic
from rightbatch.quadratic.spectrum import Spectrum

__all__ = [
    "OPTIMIZERS",
    "Noise",
    "NoisyQuadratic",
    "Optimizer",
    "OptimizerName",
    "Spectrum",
]
