"""The noisy quadratic: what is minimised, from where, and through how much noise."""

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.spectrum import FloatArray, Spectrum, frozen_array


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Variance of one example's gradient along a direction: c = a h + d.

    Args:
        curvature: a, the part that follows the curvature h. Zhang et al. (2019) take 1,
            as if the noise covariance were the Hessian.
        isotropic: d, the same in every direction.

    Raises:
        InputError: A part is negative.

    Example:
        >>> Noise(curvature=1, isotropic=0.5).variances(np.array([2.0, 1.0])).tolist()
        [2.5, 1.5]
    """

    curvature: float = 1.0
    isotropic: float = 0.0

    def __post_init__(self) -> None:
        _checks.nonnegative("Noise", "curvature", self.curvature)
        _checks.nonnegative("Noise", "isotropic", self.isotropic)

    def variances(self, curvatures: FloatArray) -> FloatArray:
        """Return the variance along each direction, the shape of `curvatures`."""
        return self.curvature * curvatures + self.isotropic


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NoisyQuadratic:
    r"""A quadratic loss whose gradients come with noise (Zhang et al., 2019).

    .. math:: L(x) = L_\infty + \tfrac12 \sum_i w_i h_i x_i^2, \qquad
              g_i = h_i x_i + n_i, \quad \mathrm{Var}\, n_i = c_i / B

    Directions do not mix, so the second moment of each is all there is to know. The
    preconditioner h^-power multiplies gradient and noise alike; an optimizer sees the
    curvatures h^(1-power) and the noise h^(-2 power) c.

    Args:
        spectrum: Curvatures h and weights w. Shape (n,).
        noise: Variance c of one example's gradient: a rule, or given values of shape
            (n,) in the spectrum's order (decreasing curvature).
        initial_second_moments: E x_i^2 at the start; one value for all or shape (n,).
        preconditioner_power: Between 0 (none) and 1 (Newton).
        irreducible_loss: The loss at the minimum.
        label_noise: Variance of the labels of a linear regression with Gaussian
            features, for noise that changes along the way; on top of `noise`, None for
            no such noise. Only some functions can follow it; the others refuse.

    Raises:
        InputError: A value is out of range or a shape differs.

    Example:
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(10_000))
        >>> round(problem.initial_loss, 3)
        4.894
    """

    spectrum: Spectrum
    noise: Noise | FloatArray = field(default_factory=Noise)
    initial_second_moments: float | FloatArray = 1.0
    preconditioner_power: float = 0.0
    irreducible_loss: float = 0.0
    label_noise: float | None = None
    noise_variances: FloatArray = field(init=False)
    start: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        who, h = "NoisyQuadratic", self.spectrum.curvatures
        power = _checks.nonnegative(
            who, "preconditioner_power", self.preconditioner_power
        )
        if power > 1:
            raise InputError(
                f"{who}: `preconditioner_power` must be between 0 and 1, got {power:g}."
            )
        _checks.finite(who, "irreducible_loss", self.irreducible_loss)
        if self.label_noise is not None:
            _checks.nonnegative(who, "label_noise", self.label_noise)
        given = self.noise.variances(h) if isinstance(self.noise, Noise) else self.noise
        variances = _per_direction("noise", given, h)
        start = _per_direction("initial_second_moments", self.initial_second_moments, h)
        object.__setattr__(self, "noise_variances", variances)
        object.__setattr__(self, "start", start)

    @property
    def curvatures(self) -> FloatArray:
        """h, shape (n,), decreasing."""
        return self.spectrum.curvatures

    @property
    def weights(self) -> FloatArray:
        """How many directions each curvature stands for, shape (n,)."""
        return self.spectrum.weights

    @property
    def preconditioner(self) -> FloatArray:
        """The factor p = h^-power, shape (n,)."""
        return self.curvatures**-self.preconditioner_power

    @property
    def rates(self) -> FloatArray:
        """Curvatures p h that an optimizer sees, shape (n,); lr times it is x."""
        return self.curvatures ** (1 - self.preconditioner_power)

    @property
    def step_noise(self) -> FloatArray:
        """p^2 c, variance of a preconditioned gradient of one example, shape (n,)."""
        return self.preconditioner**2 * self.noise_variances

    @property
    def loss_weights(self) -> FloatArray:
        """Factors w h / 2: the loss is their sum over second moments. Shape (n,)."""
        return 0.5 * self.weights * self.curvatures

    @property
    def initial_loss(self) -> float:
        """The expected loss before the first step."""
        return self.loss(self.start)

    def loss(self, second_moments: FloatArray) -> float:
        """Return the expected loss at given second moments, shape (n,)."""
        return self.irreducible_loss + float(self.loss_weights @ second_moments)

    def with_power(self, preconditioner_power: float) -> Self:
        """Return the same problem under another preconditioner."""
        return replace(self, preconditioner_power=preconditioner_power)


def check_target(who: str, problem: NoisyQuadratic, target: float) -> float:
    """Return the target if it lies between the irreducible and the initial loss.

    Raises:
        InputError: It does not.
    """
    _checks.finite(who, "target", target)
    if target <= problem.irreducible_loss:
        raise InputError(
            f"{who}: `target` must be above the irreducible loss "
            f"{problem.irreducible_loss:g}, got {target:g}."
        )
    if target >= problem.initial_loss:
        raise InputError(
            f"{who}: `target` must be below the loss at the start, "
            f"{problem.initial_loss:g}, got {target:g}.",
            "nothing has to be done to reach it",
        )
    return target


def refuse_label_noise(who: str, problem: NoisyQuadratic) -> None:
    """Refuse a problem with label noise where noise must not change along the way.

    Raises:
        InputError: The problem has label noise.
    """
    if problem.label_noise is not None:
        raise InputError(
            f"{who}: `problem` must have no label noise, got variance "
            f"{problem.label_noise:g}.",
            "only rightbatch.quadratic.label_noise follows it; leave `label_noise` out "
            "for noise that stays as it is",
        )


def _per_direction(
    name: str, values: float | FloatArray, curvatures: FloatArray
) -> FloatArray:
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(
            f"NoisyQuadratic: `{name}` must be numbers, got {values!r}."
        ) from None
    if array.shape not in ((), curvatures.shape):
        raise InputError(
            f"NoisyQuadratic: `{name}` must be one value or {curvatures.size} of them, "
            f"got shape {array.shape}."
        )
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        place = int(bad[0])
        raise InputError(
            f"NoisyQuadratic: `{name}` must not be negative, got "
            f"{array.ravel()[place]:g} at {place}."
        )
    return frozen_array(np.broadcast_to(array, curvatures.shape))
