"""Curvature of a loss at a model, and gradients' noise seen through it.

Products with the Hessian and the Gauss-Newton matrix, their traces and spectra, the
Hessian noise scale, optimizers' preconditioners, and progress along any update rule.
Everything leaves the model as it was.
"""

from rightbatch.curvature.alignment import (
    AlignmentCurve,
    alignment_curve,
    update_of,
)
from rightbatch.curvature.hessian_noise import (
    HessianNoiseScale,
    measure_hessian_noise_scale,
    pair_curvature,
)
from rightbatch.curvature.inner_products import (
    group_products,
    variance_along_gradient,
    variance_of_dots,
)
from rightbatch.curvature.lanczos import Ritz, lanczos
from rightbatch.curvature.loss_surface import OutputLoss, gradient
from rightbatch.curvature.preconditioner import preconditioner_diagonal
from rightbatch.curvature.products import (
    Product,
    gauss_newton,
    gauss_newton_vector_product,
    hessian,
    hessian_vector_product,
)
from rightbatch.curvature.sign_noise import SignNoiseScale, sign_noise_scale
from rightbatch.curvature.spectrum import CurvatureSpectrum, lanczos_spectrum
from rightbatch.curvature.trace import TraceEstimate, hutchinson_trace
from rightbatch.curvature.unit_gradients import (
    UnitGradients,
    in_units,
    unit_gradients,
)

__all__ = [
    "AlignmentCurve",
    "CurvatureSpectrum",
    "HessianNoiseScale",
    "OutputLoss",
    "Product",
    "Ritz",
    "SignNoiseScale",
    "TraceEstimate",
    "UnitGradients",
    "alignment_curve",
    "gauss_newton",
    "gauss_newton_vector_product",
    "gradient",
    "group_products",
    "hessian",
    "hessian_vector_product",
    "hutchinson_trace",
    "in_units",
    "variance_along_gradient",
    "variance_of_dots",
    "lanczos",
    "lanczos_spectrum",
    "measure_hessian_noise_scale",
    "pair_curvature",
    "preconditioner_diagonal",
    "sign_noise_scale",
    "unit_gradients",
    "update_of",
]
