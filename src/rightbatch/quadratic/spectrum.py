"""The curvatures of a quadratic, and how many directions share each."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rightbatch import _checks
from rightbatch.errors import InputError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spectrum:
    """Curvatures in decreasing order, each standing for a number of directions.

    Args:
        curvatures: Eigenvalues of the Hessian, all positive. Shape (n,); they are
            kept in decreasing order.
        weights: How many directions each stands for, not necessarily whole: a Lanczos
            run returns weights times the number of parameters. Shape (n,); one each by
            default.

    Raises:
        InputError: A curvature or a weight is not positive, or shapes differ.

    Example:
        >>> Spectrum.inverse(4).curvatures.round(3).tolist()
        [1.0, 0.5, 0.333, 0.25]
    """

    curvatures: FloatArray
    weights: FloatArray = field(default_factory=lambda: np.ones(0))

    def __post_init__(self) -> None:
        curvatures = np.asarray(self.curvatures)
        if curvatures.ndim == 1 and np.issubdtype(curvatures.dtype, np.number):
            _refuse_flat(curvatures)
        h = _checks.positive_array("Spectrum", "curvatures", self.curvatures)
        given = np.asarray(self.weights)
        weights = np.ones_like(h) if given.size == 0 else self.weights
        weights = _checks.positive_array("Spectrum", "weights", weights)
        if weights.shape != h.shape:
            raise InputError(
                f"Spectrum: `weights` must be as many as `curvatures`, got "
                f"{weights.size} and {h.size}."
            )
        if (h[1:] > h[:-1]).any():  # a million in order need no sorting
            order = np.argsort(-h, kind="stable")
            h, weights = h[order], weights[order]
        object.__setattr__(self, "curvatures", frozen_array(h))
        object.__setattr__(self, "weights", frozen_array(weights))

    @classmethod
    def power_law(cls, num_dims: int, exponent: float = 1.0) -> Self:
        """Return curvatures i^-exponent for i = 1 to `num_dims`.

        Args:
            num_dims: How many directions.
            exponent: How fast they fall, positive.

        Returns:
            The spectrum.

        Raises:
            InputError: An argument is out of range.
        """
        num = _checks.positive_integer("power_law", "num_dims", num_dims)
        _checks.positive("power_law", "exponent", exponent)
        return cls(curvatures=np.arange(1.0, num + 1) ** -exponent)

    @classmethod
    def inverse(cls, num_dims: int = 10_000) -> Self:
        """Return curvatures 1/i: the standard problem of Zhang et al. (2019).

        Args:
            num_dims: How many directions.

        Returns:
            The spectrum.

        Raises:
            InputError: `num_dims` is not a whole number of at least one.
        """
        num = _checks.positive_integer("inverse", "num_dims", num_dims)
        return cls(curvatures=1.0 / np.arange(1.0, num + 1))

    @property
    def num_dims(self) -> float:
        """The number of directions, the sum of the weights."""
        return float(self.weights.sum())

    @property
    def trace(self) -> float:
        """The sum of the curvatures over all directions."""
        return float(self.weights @ self.curvatures)


def frozen_array(values: ArrayLike) -> FloatArray:
    """Return a copy of the values that cannot be written to."""
    array = np.array(values, dtype=float)
    array.flags.writeable = False
    return array


def _refuse_flat(curvatures: NDArray[np.generic]) -> None:
    below = np.flatnonzero(curvatures <= 0)  # pyright: ignore[reportOperatorIssue]
    if below.size:
        place = int(below[0])
        raise InputError(
            f"Spectrum: `curvatures` must be positive, got {curvatures[place]:g} "  # pyright: ignore
            f"at {place}.",
            "leave directions of zero curvature out: they add nothing to the loss; "
            "a negative one has no minimum to reach",
        )
