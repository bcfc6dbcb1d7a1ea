"""Steps against batch size in the model, and the laws fitted to them."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.convergence import ConvergenceLaw
from rightbatch.convergence.profile import best_law
from rightbatch.convergence.runs import group_runs
from rightbatch.errors import InputError
from rightbatch.quadratic.optimizers import OptimizerName
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.search import Found, search
from rightbatch.quadratic.spectrum import FloatArray

BATCH_SIZES: tuple[float, ...] = tuple(4.0**k for k in range(1, 11))
"""4 to 4^10 by factors of 4: both sides of every corner of the standard problem."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SteppingCurve:
    """The fewest steps to a target at each batch size, everything tuned at each.

    Args:
        name: The optimizer.
        target: The loss that was reached.
        preconditioner_power: Of the problem.
        cells: One answer of the search per batch size.
    """

    name: OptimizerName
    target: float
    preconditioner_power: float
    cells: tuple[Found, ...]

    @property
    def batch_sizes(self) -> FloatArray:
        """Examples per step, shape (b,)."""
        return np.array([cell.batch_size for cell in self.cells])

    @property
    def steps(self) -> FloatArray:
        """Steps to the target, infinite where nothing reaches it. Shape (b,)."""
        return np.array(
            [math.inf if cell.steps is None else cell.steps for cell in self.cells]
        )

    @property
    def examples(self) -> FloatArray:
        """Batch size times steps, shape (b,)."""
        return self.batch_sizes * self.steps

    def to_dict(self) -> dict[str, Any]:
        """Return the curve for a program; steps are None where unreachable."""
        return {
            "optimizer": self.name,
            "power": self.preconditioner_power,
            "target": self.target,
            "cells": [cell.to_dict() for cell in self.cells],
        }

    def __str__(self) -> str:
        head = f"{self.name}, power {self.preconditioner_power:g}, to {self.target:g}"
        lines = [
            f"{cell.batch_size:>11,.10g}{_count(cell.steps):>13}" for cell in self.cells
        ]
        return "\n".join([head, f"{'batch size':>11}{'steps':>13}", *lines])


def steps_curve(
    problem: NoisyQuadratic,
    name: OptimizerName,
    batch_sizes: ArrayLike,
    target: float,
    *,
    num_starts: int = 4,
    backend: Backend = "auto",
) -> SteppingCurve:
    """Return the fewest steps to a target at each batch size, everything tuned.

    Args:
        problem: What is minimised; without label noise.
        name: The optimizer.
        batch_sizes: Examples per step, in any order. Shape (b,); :data:`BATCH_SIZES`
            are those of the tables.
        target: Expected loss to reach.
        num_starts: As for :func:`rightbatch.quadratic.search.search`.
        backend: numpy, numba, or whichever is there.

    Returns:
        The curve, batch sizes increasing, each once.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> print(steps_curve(problem, "sgd", [16, 256, 4096], 0.01))
        sgd, power 0, to 0.01
         batch size        steps
                 16        2,037
                256          169
              4,096           77
    """
    sizes = np.unique(_checks.positive_array("steps_curve", "batch_sizes", batch_sizes))
    found = search(problem, name, sizes, target, num_starts=num_starts, backend=backend)
    return SteppingCurve(
        name=name,
        target=target,
        preconditioner_power=problem.preconditioner_power,
        cells=found,
    )


class Break(NamedTuple):
    """A batch size at which a law is off.

    Args:
        batch_size: In examples.
        error: The law's steps over the model's, less one: .3 is 30 % too many.
    """

    batch_size: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CurveFit:
    """Two laws fitted to a curve of the model, by least squares on log steps.

    Args:
        curve: What was fitted.
        inverse: S_min + E_min/B.
        knee: The same with a free knee exponent, which is above 1 where the corner is
            sharper than the inverse law has it.
    """

    curve: SteppingCurve
    inverse: ConvergenceLaw
    knee: ConvergenceLaw

    @property
    def critical_batch_size(self) -> float | None:
        """E_min/S_min of the inverse law, in examples; None where S_min is not > 0."""
        law = self.inverse
        return law.critical_batch_size if law.min_steps > 0 else None

    @property
    def misfit(self) -> float:
        """The largest relative error of the inverse law, at any batch size."""
        return float(np.nanmax(np.abs(self.errors())))

    @property
    def knee_misfit(self) -> float:
        """The largest relative error of the law with a knee."""
        return float(np.nanmax(np.abs(self.errors(self.knee))))

    def errors(self, law: ConvergenceLaw | None = None) -> FloatArray:
        """Return a law's steps over the model's, less one; nan where unreachable.

        Args:
            law: Any; the inverse law by default.

        Returns:
            Shape (b,).
        """
        steps = self.curve.steps
        law = self.inverse if law is None else law
        predicted = np.asarray(law.steps(self.curve.batch_sizes))
        return np.where(np.isfinite(steps), predicted / steps - 1, np.nan)

    def breaks(self, tolerance: float = 0.1) -> tuple[Break, ...]:
        """Return where the inverse law is off by more than a tolerance.

        Args:
            tolerance: Relative, .1 for 10 %.

        Returns:
            Batch sizes with the error there, smallest batch first.

        Raises:
            InputError: The tolerance is negative.
        """
        _checks.nonnegative("breaks", "tolerance", tolerance)
        pairs = zip(
            self.curve.batch_sizes.tolist(), self.errors().tolist(), strict=True
        )
        return tuple(
            Break(size, error) for size, error in pairs if abs(error) > tolerance
        )

    def to_dict(self) -> dict[str, Any]:
        """Return laws and misfits for a program."""
        errors = self.errors().tolist()
        return {
            **self.curve.to_dict(),
            "inverse": self.inverse.to_dict(),
            "knee": self.knee.to_dict(),
            "critical_batch_size": self.critical_batch_size,
            "misfit": self.misfit,
            "knee_misfit": self.knee_misfit,
            "errors": [None if math.isnan(error) else error for error in errors],
        }

    def __str__(self) -> str:
        phi = self.critical_batch_size
        corner = "no critical batch size" if phi is None else f"phi {phi:,.0f}"
        return (
            f"{self.curve.name}, power {self.curve.preconditioner_power:g}: {corner}, "
            f"inverse law within {100 * self.misfit:.0f} %; knee exponent "
            f"{self.knee.knee_exponent:.2f}, within {100 * self.knee_misfit:.0f} %"
        )


def fit_curve(curve: SteppingCurve) -> CurveFit:
    """Return the inverse law and the law with a knee that fit a curve of the model.

    Every batch size counts the same and there is no noise: what the fits miss is the
    laws' own error. Steps are whole, so where they are few (5 or 6), so is that error.

    Args:
        curve: With at least four batch sizes that reach the target.

    Returns:
        Both laws.

    Raises:
        InputError: Fewer batch sizes reach the target.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> print(fit_curve(steps_curve(problem, "sgd", BATCH_SIZES, 0.01)))
        sgd, power 0: phi 446, inverse law within 10 %; knee exponent 1.19, within 4 %
    """
    reached = np.isfinite(curve.steps)
    if reached.sum() < 4:
        raise InputError(
            f"fit_curve: `curve` must reach the target at four batch sizes or more, "
            f"got {int(reached.sum())}.",
            "take more batch sizes, or a target further from the irreducible loss",
        )
    runs = group_runs(curve.batch_sizes[reached], curve.steps[reached])
    return CurveFit(
        curve=curve,
        inverse=best_law(runs, "inverse")[0],
        knee=best_law(runs, "knee")[0],
    )


def _count(steps: int | None) -> str:
    return "unreachable" if steps is None else f"{steps:,}"
