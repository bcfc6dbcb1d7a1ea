r"""What a meter of gradients would read along a run of the model, exactly.

With second moments m_i of the iterate, :math:`|G|^2 = \sum w h^2 m` and
:math:`\mathrm{tr}\,\Sigma = \sum w c`: their ratio is the simple noise scale. Of a
preconditioned step :math:`-lr\,P g` the loss changes by :math:`-lr\,G'PG +
\tfrac{lr^2}{2} (G'PHPG + \mathrm{tr}(PHP\,\Sigma)/B)`: the ratio of the last two is the
Hessian noise scale, phi for the next step alone (McCandlish et al., 2018, eq. 2.8).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rightbatch import _checks
from rightbatch.quadratic.optimizers import Optimizer, OptimizerName
from rightbatch.quadratic.problem import NoisyQuadratic, refuse_label_noise
from rightbatch.quadratic.recursions.powers import Backend, moments_after
from rightbatch.quadratic.recursions.transition import Settings, settings_of
from rightbatch.quadratic.spectrum import FloatArray

_LOOKS = 400  # at most, along a run; the mean is a trapezoid between them


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScales:
    """Two noise scales at one point, in examples; infinite where there is no gradient.

    Args:
        simple: tr(Sigma)/|G|^2 of plain gradients, as a meter has it.
        hessian: tr(PHP Sigma)/G'PHPG, as the loss after a preconditioned step has it.
    """

    simple: float
    hessian: float

    def to_dict(self) -> dict[str, Any]:
        """Return both, None where infinite."""
        return {
            "simple": self.simple if np.isfinite(self.simple) else None,
            "hessian": self.hessian if np.isfinite(self.hessian) else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalesAlong:
    """Noise scales along one run.

    Args:
        start: Before the first step.
        target: After the last.
        mean: Over all steps. Were every step the best for the next loss, phi would be
            the mean of the Hessian scale (McCandlish et al., 2018, appendix D).
    """

    start: NoiseScales
    target: NoiseScales
    mean: NoiseScales

    def to_dict(self) -> dict[str, Any]:
        """Return all three for a program."""
        return {
            "start": self.start.to_dict(),
            "target": self.target.to_dict(),
            "mean": self.mean.to_dict(),
        }


def noise_scales(
    problem: NoisyQuadratic, second_moments: FloatArray | None = None
) -> NoiseScales:
    """Return the noise scales at a point.

    Args:
        problem: Without label noise.
        second_moments: E x^2 of each direction, shape (n,); of the start by default.

    Returns:
        Both scales.

    Raises:
        InputError: The problem has label noise.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Spectrum
        >>> found = noise_scales(NoisyQuadratic(spectrum=Spectrum.inverse(10_000)))
        >>> round(found.simple, 2), round(found.hessian, 2)
        (5.95, 1.37)
    """
    refuse_label_noise("noise_scales", problem)
    moments = problem.start if second_moments is None else second_moments
    simple, hessian = _scales(problem, moments)
    return NoiseScales(simple=float(simple), hessian=float(hessian))


def scales_along(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: float,
    steps: int,
    *,
    backend: Backend = "auto",
) -> ScalesAlong:
    """Return the noise scales along a run at constant settings.

    Gradients are taken where training takes them, at the iterate, also where the loss
    is read at an average of iterates.

    Args:
        problem: Without label noise.
        optimizer: With its settings.
        batch_size: Examples per step; noise that is left in the iterate adds to its
            gradient.
        steps: How long the run is.
        backend: numpy, numba, or whichever is there.

    Returns:
        At the start, at the end, and the mean over steps.

    Raises:
        InputError: An argument is out of range, or the problem has label noise.
    """
    who = "scales_along"
    refuse_label_noise(who, problem)
    _checks.positive(who, "batch_size", batch_size)
    last = _checks.positive_integer(who, "steps", steps)
    looks = np.unique(np.linspace(1, last, min(last, _LOOKS)).round().astype(np.int64))
    one = settings_of(optimizer)
    settings = Settings(*(np.repeat(part, looks.size) for part in one))
    found = moments_after(
        _iterate_of(optimizer), settings, problem.rates, looks, backend=backend
    )
    moments = found.mean**2 * problem.start
    moments = moments + found.variance * problem.step_noise / batch_size
    simple, hessian = _scales(problem, np.vstack([problem.start, moments]))
    places = np.concatenate([[0], looks])
    return ScalesAlong(
        start=NoiseScales(simple=float(simple[0]), hessian=float(hessian[0])),
        target=NoiseScales(simple=float(simple[-1]), hessian=float(hessian[-1])),
        mean=NoiseScales(
            simple=float(np.trapezoid(simple, places) / last),
            hessian=float(np.trapezoid(hessian, places) / last),
        ),
    )


def _iterate_of(optimizer: Optimizer) -> OptimizerName:
    """Return the optimizer without its average: what moves the iterate."""
    if optimizer.is_nesterov:
        return "nesterov"
    return "momentum" if optimizer.has_momentum else "sgd"


def _scales(
    problem: NoisyQuadratic, moments: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return both scales at points of shape (..., n), each of shape (...)."""
    h, w = problem.curvatures, problem.weights
    curved = w * h * problem.preconditioner**2
    with np.errstate(divide="ignore"):
        simple = (w @ problem.noise_variances) / (moments @ (w * h**2))
        hessian = (curved @ problem.noise_variances) / (moments @ (curved * h**2))
    return simple, hessian
