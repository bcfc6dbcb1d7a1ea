r"""Both moments from the units of one update: examples, micro-batches, replicas.

Unit j has :math:`b_j` examples with mean gradient :math:`g_j`, and weight :math:`w_j`
in the update, :math:`\sum w_j = 1`. What it adds into the gradient is :math:`c_j = w_j
g_j`, and :math:`M = |\sum c_j|^2`. With :math:`A = \sum w_j |g_j|^2`, :math:`k_1 = \sum
w_j/b_j` and :math:`k_2 = \sum w_j^2/b_j`,

.. math:: E A = |G|^2 + k_1 \mathrm{tr}\,\Sigma,\quad
          E M = |G|^2 + k_2 \mathrm{tr}\,\Sigma

whatever the sizes and the weights, as long as units are independent and a unit's size
says nothing of its examples. Two equations, two unknowns: both moments without bias.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray
from rightbatch.noise_scale.moments import GradientMoments

# A difference this small beside what it is the difference of is rounding, not noise.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSums:
    r"""What the units of one update add up to.

    Sums over units add over micro-batches, over replicas (one all-reduce of six
    numbers) and over ways to read them, as long as every :math:`c_j` is scaled as it
    enters the one gradient whose norm is given to :meth:`moments`. `UnitSums()` is
    the sum over no unit.

    Args:
        num_units: R, the units.
        examples: :math:`\sum b_j`.
        weight: :math:`\sum u_j`, with :math:`w_j = u_j/\sum u`.
        norms: :math:`\sum |c_j|^2/u_j`; not finite where a gradient overflowed.
        inverse: :math:`\sum u_j/b_j`.
        square: :math:`\sum u_j^2/b_j`.

    Raises:
        InputError: A sum is below zero.

    Example:
        >>> sums = UnitSums.of([4.0, 1.0], 8) + UnitSums.of([3.0, 2.0], 8)
        >>> sums.num_units, sums.examples
        (4, 32.0)
        >>> sums.moments(total_sq_norm=16.0)
        GradientMoments(grad_sq_norm=8.0, grad_variance=256.0)
    """

    reduces: ClassVar[Mapping[str, str]] = MappingProxyType(
        dict.fromkeys(
            ("num_units", "examples", "weight", "norms", "inverse", "square"), "sum"
        )
    )
    """How each field adds up over replicas."""

    num_units: int = 0
    examples: float = 0.0
    weight: float = 0.0
    norms: float = 0.0
    inverse: float = 0.0
    square: float = 0.0

    def __post_init__(self) -> None:
        for name in ("num_units", "examples", "weight", "inverse", "square"):
            _checks.nonnegative("UnitSums", name, getattr(self, name))
        if self.norms < 0:
            raise InputError(
                f"UnitSums: `norms` must not be negative, got {self.norms!r}."
            )

    @classmethod
    def of(
        cls,
        contribution_sq_norms: ArrayLike,
        examples: ArrayLike,
        weights: ArrayLike | None = None,
    ) -> "UnitSums":
        """Return the sums over some units.

        Args:
            contribution_sq_norms: Squared norm of what each unit added into the
                gradient, shape (R,) or one number for one unit.
            examples: Examples of each, shape (R,), or one number for all.
            weights: Weight of each in the update, up to a common factor: shape (R,),
                or one number for all; its examples by default.

        Returns:
            Their sums.

        Raises:
            InputError: There is no unit, a shape differs, a norm is below zero, or
                examples or weights are not positive.
        """
        return _sums(*_units("UnitSums.of", contribution_sq_norms, examples, weights))

    @property
    def is_finite(self) -> bool:
        """False where a gradient overflowed: such an update is to be skipped."""
        return math.isfinite(self.norms)

    def __add__(self, other: "UnitSums") -> "UnitSums":
        """Return the sums over the units of both."""
        return UnitSums(
            num_units=self.num_units + other.num_units,
            examples=self.examples + other.examples,
            weight=self.weight + other.weight,
            norms=self.norms + other.norms,
            inverse=self.inverse + other.inverse,
            square=self.square + other.square,
        )

    def scaled(self, factor: float) -> "UnitSums":
        """Return the sums had every contribution been multiplied by a number.

        For contributions read before something divides them: one over the number of
        replicas where their gradients are averaged later, one over the loss scale.

        Args:
            factor: On the gradients; positive.

        Returns:
            The sums with the norms times its square.

        Raises:
            InputError: `factor` is not positive.

        Example:
            >>> UnitSums.of([4.0, 16.0], 8).scaled(0.5).norms
            0.625
        """
        _checks.positive("UnitSums.scaled", "factor", factor)
        return UnitSums(
            num_units=self.num_units,
            examples=self.examples,
            weight=self.weight,
            norms=self.norms * factor**2,
            inverse=self.inverse,
            square=self.square,
        )

    def extended_to(self, num_units: int) -> "UnitSums":
        """Return the sums as though units not read were as those read are on average.

        For norms read of only m of B examples: the mean over the m, drawn without
        looking, estimates the mean over all B without bias, and sizes and weights are
        known. All units have to be alike. The variance of a single step may then come
        out below zero; it is to be averaged like that.

        Args:
            num_units: All units of the update, read or not.

        Returns:
            The sums over all of them.

        Raises:
            InputError: `num_units` is no whole number, or below the number read, or
                none was read.

        Example:
            >>> UnitSums.of([4.0, 1.0], 1).extended_to(8)
            UnitSums(num_units=8, examples=8.0, weight=8.0, norms=20.0, inverse=8.0, \
square=8.0)
        """
        who = "UnitSums.extended_to"
        whole = _checks.positive_integer(who, "num_units", num_units)
        if not 1 <= self.num_units <= whole:
            raise InputError(
                f"{who}: of {whole} units between 1 and all must have been read, "
                f"got {self.num_units}."
            )
        ratio = whole / self.num_units
        return UnitSums(
            num_units=whole,
            examples=self.examples * ratio,
            weight=self.weight * ratio,
            norms=self.norms * ratio,
            inverse=self.inverse * ratio,
            square=self.square * ratio,
        )

    def moments(self, total_sq_norm: float) -> GradientMoments:
        r"""Return both moments, without bias.

        .. math:: \mathrm{tr}\,\Sigma = (A - M)/(k_1 - k_2),\quad
                  |G|^2 = M - k_2 \mathrm{tr}\,\Sigma

        Args:
            total_sq_norm: M, the squared norm of the gradient all units added up to,
                before clipping.

        Returns:
            The moments of one step; the squared norm may be below zero.

        Raises:
            InputError: There is only one unit, or a norm is not finite.
        """
        who = "UnitSums.moments"
        _checks.nonnegative(who, "total_sq_norm", total_sq_norm)
        if not self.is_finite:
            raise InputError(
                f"{who}: `norms` is not finite, got {self.norms!r}.",
                "skip the update: MomentAverage.skip()",
            )
        if self.num_units < 2:
            raise InputError(
                f"{who}: one unit alone tells no noise, got num_units={self.num_units} "
                f"with {self.examples:g} examples.",
                "read per-example gradient norms, accumulate at least two "
                "micro-batches, or use several replicas",
            )
        mean = self.weight * self.norms
        k1, k2 = self.inverse / self.weight, self.square / self.weight**2
        if k1 - k2 <= _ROUNDING * k1:
            raise InputError(
                f"{who}: one of {self.num_units} units has all the weight.",
                "leave out units without weight",
            )
        excess = mean - total_sq_norm
        if abs(excess) <= _ROUNDING * mean:
            excess = 0.0
        variance = excess / (k1 - k2)
        return GradientMoments(
            grad_sq_norm=total_sq_norm - k2 * variance, grad_variance=variance
        )

    def to_vector(self) -> list[float]:
        """Return the fields as floats in their order, to be summed over replicas."""
        return [float(getattr(self, field.name)) for field in fields(self)]

    @classmethod
    def from_vector(cls, values: Sequence[float]) -> "UnitSums":
        """Return the sums from what :meth:`to_vector` returned, or a sum of such.

        Raises:
            InputError: There are more or fewer than six numbers.
        """
        names = [field.name for field in fields(cls)]
        if len(values) != len(names):
            raise InputError(
                f"UnitSums.from_vector: `values` must be {len(names)} numbers, "
                f"got {len(values)}."
            )
        units, *rest = values
        return cls(
            num_units=round(units),
            **dict(zip(names[1:], map(float, rest), strict=True)),
        )


def unit_moments(
    sq_norms: ArrayLike,
    total_sq_norm: float,
    examples: ArrayLike,
    weights: ArrayLike | None = None,
) -> GradientMoments:
    """Return both moments from the gradients of the units themselves.

    Args:
        sq_norms: Squared norm of each unit's own mean gradient, shape (R,).
        total_sq_norm: Squared norm of their weighted mean.
        examples: Examples of each unit, shape (R,), or one number for all.
        weights: Of the weighted mean, up to a common factor; examples by default.

    Returns:
        The moments, without bias.

    Raises:
        InputError: There is only one unit, or an argument is out of range.

    Example:
        >>> unit_moments([64.0, 16.0, 48.0, 32.0], 16.0, 8)
        GradientMoments(grad_sq_norm=8.0, grad_variance=256.0)
    """
    norms, sizes, shares = _units("unit_moments", sq_norms, examples, weights)
    contributions = norms * (shares / shares.sum()) ** 2
    return _sums(contributions, sizes, shares).moments(total_sq_norm)


def _sums(norms: FloatArray, sizes: FloatArray, shares: FloatArray) -> UnitSums:
    relative = shares / sizes
    return UnitSums(
        num_units=norms.size,
        examples=float(sizes.sum()),
        weight=float(shares.sum()),
        norms=float((norms / shares).sum()),
        inverse=float(relative.sum()),
        square=float(shares @ relative),
    )


def _units(
    who: str, sq_norms: ArrayLike, examples: ArrayLike, weights: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    # Norms, examples and weights, each of shape (R,). What overflowed is let through:
    # one replica that raises would leave the others waiting, so the sums tell them all.
    norms = np.asarray(sq_norms, dtype=float)
    norms = norms.reshape(1) if norms.ndim == 0 else norms
    if norms.ndim != 1 or norms.size == 0:
        raise InputError(f"{who}: squared norms must be a list, got {sq_norms!r}.")
    if (norms < 0).any():
        raise InputError(
            f"{who}: squared norms must not be negative, got {norms.min():g}."
        )
    sizes = _per_unit(who, "examples", examples, norms.size)
    if weights is None:
        return norms, sizes, sizes
    return norms, sizes, _per_unit(who, "weights", weights, norms.size)


def _per_unit(who: str, name: str, values: ArrayLike, num_units: int) -> FloatArray:
    if np.ndim(values) == 0:
        one = _checks.positive_array(who, name, np.atleast_1d(values))
        return np.full(num_units, one[0])
    array = _checks.positive_array(who, name, values)
    if array.size not in (1, num_units):
        raise InputError(
            f"{who}: `{name}` must be one number or one for each of {num_units} "
            f"units, got {array.size}."
        )
    return array if array.size == num_units else np.full(num_units, array[0])
