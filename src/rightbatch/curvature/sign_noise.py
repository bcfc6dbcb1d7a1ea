r"""The noise scale in the geometry of sign descent, as a bracket."""

from dataclasses import dataclass
from typing import Any

import torch

from rightbatch.curvature.unit_gradients import UnitGradients, need_units


@dataclass(frozen=True, slots=True, kw_only=True)
class SignNoiseScale:
    """Two estimates, with biases of opposite sign, of the sign noise scale.

    Args:
        low: Biased downwards, in examples; None without any gradient.
        high: Biased upwards; None where its signal is not above zero.

    Example:
        >>> print(SignNoiseScale(low=120.0, high=None))
        sign noise scale 120 to unbounded examples (bias, without chance)
    """

    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return both ends; null where there is none."""
        return {"low": self.low, "high": self.high}

    def __str__(self) -> str:
        low, high = (
            "unbounded" if end is None else f"{end:.3g}"
            for end in (self.low, self.high)
        )
        return f"sign noise scale {low} to {high} examples (bias, without chance)"


def sign_noise_scale(units: UnitGradients) -> SignNoiseScale:
    r"""Return a bracket of the noise scale in the geometry of sign descent.

    .. math:: \left( \sum_i \sigma_i / \sum_i |G_i| \right)^2

    with :math:`\sigma_i` the standard deviation of one example's gradient. The mean of
    all units has :math:`E|\bar g|_1 \ge |G|_1`, since noise adds to absolute values;
    the signs of one half of them against the other half have
    :math:`E \langle \mathrm{sign}\, g_S, g_T \rangle \le |G|_1`, since some signs
    are wrong. The first gives the lower end and the second the upper one.

    Args:
        units: Four at least, of equal size.

    Returns:
        The bracket: of the bias, not of chance, which comes on top of it.

    Raises:
        InputError: There are fewer than four units.

    Example:
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 2.0], [1.0, 2.0], [3.0, 2.0]])
        >>> found = sign_noise_scale(UnitGradients(rows=rows, unit_size=3))
        >>> round(found.low, 4), round(found.high, 4)
        (0.25, 0.25)
    """
    need_units("sign_noise_scale", len(units), 4)
    half = len(units) // 2
    noise = units.unit_size**0.5 * float(units.rows.std(0, unbiased=True).sum())
    plug_in = float(units.mean.abs().sum())
    means = units.rows[:half].mean(0), units.rows[half : 2 * half].mean(0)
    crossed = sum(float(torch.sign(s).dot(t)) for s, t in (means, means[::-1])) / 2
    return SignNoiseScale(
        low=(noise / plug_in) ** 2 if plug_in else None,
        high=(noise / crossed) ** 2 if crossed > 0 else None,
    )
