"""What a fitted loss law says of one target: its batch sizes and its fewest steps."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.convergence.losses.law import StepsToLoss
from rightbatch.fitting import FloatArray, Interval

if TYPE_CHECKING:
    from rightbatch.convergence.losses.fit import LossLawFit


@dataclass(frozen=True, slots=True, kw_only=True)
class LossDraws:
    """Loss laws that the data could as well have given: one bootstrap draw each.

    Args:
        irreducible_loss: Shape (n,).
        batch_coefficient: Shape (n,).
        batch_exponent: Shape (n,).
        steps_coefficient: Shape (n,).
        steps_exponent: Shape (n,).
    """

    irreducible_loss: FloatArray
    batch_coefficient: FloatArray
    batch_exponent: FloatArray
    steps_coefficient: FloatArray
    steps_exponent: FloatArray

    def __len__(self) -> int:
        return len(self.irreducible_loss)

    def min_batch_size(self, target: float) -> FloatArray:
        """Return each draw's least batch size that reaches a target, shape (n,).

        Args:
            target: Loss to reach.

        Returns:
            Examples; infinity where no batch does.
        """
        return self._over_room(self.batch_coefficient, target, 1 / self.batch_exponent)

    def data_optimal_batch_size(self, target: float) -> FloatArray:
        """Return each draw's batch size of the fewest examples, shape (n,).

        Args:
            target: Loss to reach.

        Returns:
            Examples; infinity out of reach.
        """
        gain = 1 + self.batch_exponent / self.steps_exponent
        with np.errstate(over="ignore"):
            return gain ** (1 / self.batch_exponent) * self.min_batch_size(target)

    def min_steps(self, target: float) -> FloatArray:
        """Return each draw's steps without any noise, shape (n,).

        Args:
            target: Loss to reach.

        Returns:
            Steps; infinity out of reach.
        """
        return self._over_room(self.steps_coefficient, target, 1 / self.steps_exponent)

    def steps(self, batch_size: ArrayLike, target: float) -> FloatArray:
        """Return the steps of each draw at each batch size.

        Args:
            batch_size: Shape (m,), examples.
            target: Loss to reach.

        Returns:
            Shape (n, m), steps; infinity out of reach.
        """
        batch = np.atleast_1d(np.asarray(batch_size, dtype=float))
        noise = np.exp(-self.batch_exponent[:, None] * np.log(batch))
        room = (target - self.irreducible_loss)[:, None]
        room = room - self.batch_coefficient[:, None] * noise
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            ratio = self.steps_coefficient[:, None] / np.maximum(room, 0.0)
            steps = ratio ** (1 / self.steps_exponent[:, None])
        return np.where(room > 0, steps, math.inf)

    def _over_room(
        self, coefficient: FloatArray, target: float, exponent: FloatArray
    ) -> FloatArray:
        room = target - self.irreducible_loss
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            power = (coefficient / np.maximum(room, 0.0)) ** exponent
        return np.where(room > 0, power, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossTarget:
    """Steps to one target loss, by a fitted loss law.

    Args:
        law: The curve of steps.
        min_batch_size: B_min, up to which the target is out of reach.
        data_optimal_batch_size: B_opt, with the fewest examples.
        min_steps: S_min, as the batch grows without end.
        least_examples: Examples at B_opt.
        warnings: Whether it can be reached, and whether any run came so low.
        draws: Laws that the data could as well have given.
        batch_sizes: Smallest and largest batch size of the fit.
        level: Of the intervals and of the curve's band.
    """

    law: StepsToLoss
    min_batch_size: Interval
    data_optimal_batch_size: Interval
    min_steps: Interval
    least_examples: Interval
    warnings: tuple[str, ...]
    draws: LossDraws
    batch_sizes: tuple[float, float]
    level: float

    @property
    def is_reachable(self) -> bool:
        """False where no batch size reaches the target by the fitted law."""
        return math.isfinite(self.law.min_batch_size)

    def steps(self, batch_size: ArrayLike) -> Any:
        """Return the law's steps.

        Args:
            batch_size: Examples per step, any shape.

        Returns:
            Steps, shaped like `batch_size`; infinity out of reach.
        """
        return self.law.steps(batch_size)

    def curve(self, num: int = 60) -> dict[str, list[float | None]]:
        """Return law and band on a geometric grid, to a factor 3 beyond the data.

        Args:
            num: Points.

        Returns:
            Lists under `batch_size`, `steps`, `low`, `high`; None where out of reach.
        """
        small, large = self.batch_sizes
        grid = np.geomspace(max(small / 3, 1), large * 3, num)
        low, high = _quantiles(self.draws.steps(grid, self.law.target), self.level)
        return {
            "batch_size": grid.tolist(),
            "steps": [_finite(value) for value in self.law.steps(grid)],
            "low": [_finite(value) for value in low],
            "high": [_finite(value) for value in high],
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the curve."""
        return {
            "target": self.law.target,
            "is_reachable": self.is_reachable,
            "min_batch_size": self.min_batch_size.to_dict(),
            "data_optimal_batch_size": self.data_optimal_batch_size.to_dict(),
            "min_steps": self.min_steps.to_dict(),
            "least_examples": self.least_examples.to_dict(),
            "curve": self.curve(),
            "warnings": list(self.warnings),
        }


def loss_target(fit: "LossLawFit", draws: LossDraws, target: float) -> LossTarget:
    """Return what a fitted loss law says of one target.

    Args:
        fit: The fit.
        draws: Of the fit.
        target: Loss to reach.

    Returns:
        The curve with its intervals and warnings.
    """
    _checks.positive("loss law", "target", target)
    law = fit.law.at_target(target)
    unit = f"{fit.example_unit}s"
    best = draws.data_optimal_batch_size(target)
    # At B_opt the noise leaves b/(b + c) of the room, whatever the target.
    share = 1 + draws.steps_exponent / draws.batch_exponent
    with np.errstate(over="ignore", invalid="ignore"):
        fewest = best * draws.min_steps(target) * share ** (1 / draws.steps_exponent)
    fewest = np.where(np.isnan(fewest), math.inf, fewest)

    def interval(value: float, drawn: FloatArray, unit: str, what: str) -> Interval:
        low, high = _quantiles(drawn, fit.level)
        return Interval(
            value=_finite(value),
            low=_finite(float(low)),
            high=_finite(float(high)),
            level=fit.level,
            unit=unit,
            definition=what,
        )

    return LossTarget(
        law=law,
        min_batch_size=interval(
            law.min_batch_size,
            draws.min_batch_size(target),
            unit,
            "batch size up to which the target is out of reach",
        ),
        data_optimal_batch_size=interval(
            law.data_optimal_batch_size,
            best,
            unit,
            f"batch size that reaches the target with the fewest {unit}",
        ),
        min_steps=interval(
            law.min_steps,
            draws.min_steps(target),
            "steps",
            "steps to the target as the batch size grows without end",
        ),
        least_examples=interval(
            law.least_examples,
            fewest,
            unit,
            f"{unit} to the target at the data-optimal batch size",
        ),
        warnings=tuple(_warnings(fit, target)),
        draws=draws,
        batch_sizes=fit.fitted_range,
        level=fit.level,
    )


def _warnings(fit: "LossLawFit", target: float) -> list[str]:
    floor, warnings = fit.irreducible_loss, list[str]()
    low, high = floor.low or 0.0, floor.high
    spread = (
        f"{floor.value:.4g} ({low:.4g} to {'?' if high is None else f'{high:.4g}'})"
    )
    if target <= low:
        warnings.append(
            f"the target {target:g} lies below the irreducible loss {spread}: by this "
            "law no batch size and no number of steps reaches it"
        )
    elif high is None or target <= high:
        warnings.append(
            f"the target {target:g} lies within the interval of the irreducible loss, "
            f"{spread}: it may be out of reach at any batch size"
        )
    if target < fit.least_loss:
        warnings.append(
            f"the target {target:g} is an extrapolation: no run came below "
            f"{fit.least_loss:.4g}"
        )
    return warnings


def _quantiles(drawn: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    # Order statistics, not interpolated: draws can be infinite.
    tail = (1 - level) / 2
    ends = np.quantile(drawn, [tail, 1 - tail], axis=0, method="nearest")
    return ends[0], ends[1]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
