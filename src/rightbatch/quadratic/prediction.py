"""Steps to a target of a real run, predicted from what was measured on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.label_noise import noise_feedback
from rightbatch.quadratic.levels import with_levels
from rightbatch.quadratic.measured import MeasuredProblem
from rightbatch.quadratic.optimizers import OPTIMIZERS, Optimizer, OptimizerName
from rightbatch.quadratic.passage import first_passage
from rightbatch.quadratic.problem import NoisyQuadratic, check_target
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.search import search
from rightbatch.quadratic.spectrum import FloatArray

SettingsRule = Callable[[float], Optimizer]
"""Batch size -> optimizer with its settings: a rule that scales the lr, say."""

_FEW_STEPS = 20  # below it a whole step is 5 % or more
_FAR_BELOW = 0.01  # of the loss above the irreducible one
_MUCH_FEEDBACK = 0.25  # of the noise in a linear regression; it diverges at 1
_AS_MEASURED = (
    "curvature and noise are taken to stay as measured; in a real run both change"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedSteps:
    """What the model says of one batch size.

    Args:
        batch_size: Examples per step.
        steps: First step at or below the target; None where it is out of reach.
        low: The same with as much less noise as the measurement may be off; None
            likewise, or where no error was given.
        high: The same with as much more noise.
        optimizer: With the settings; None where the search found none.
    """

    batch_size: float
    steps: int | None
    low: int | None = None
    high: int | None = None
    optimizer: Optimizer | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the cell for a program."""
        settings = {} if self.optimizer is None else self.optimizer.to_dict()
        return {
            "batch_size": self.batch_size,
            "steps": self.steps,
            "low": self.low,
            "high": self.high,
            **settings,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predicted steps to a target against batch size, and what to know of them.

    Args:
        target: The loss to reach.
        noise_error: By how much the noise was varied, a fraction; 0 for not at all.
        cells: One per batch size, increasing.
        remarks: In plain words; never empty.
    """

    target: float
    noise_error: float
    cells: tuple[PredictedSteps, ...]
    remarks: tuple[str, ...]

    @property
    def batch_sizes(self) -> FloatArray:
        """Examples per step, shape (b,)."""
        return np.array([cell.batch_size for cell in self.cells])

    @property
    def steps(self) -> FloatArray:
        """Predicted steps, infinite where the target is out of reach. Shape (b,)."""
        steps = [cell.steps for cell in self.cells]
        return np.array([math.inf if one is None else one for one in steps])

    def errors(self, measured_steps: ArrayLike) -> FloatArray:
        """Return predicted over measured steps, less one.

        Args:
            measured_steps: In the order of :attr:`batch_sizes`. Shape (b,).

        Returns:
            Shape (b,); infinite where the target is out of reach in the model only.

        Raises:
            InputError: A number is not positive, or there are not as many.
        """
        measured = _checks.positive_array("errors", "measured_steps", measured_steps)
        if measured.size != len(self.cells):
            raise InputError(
                f"errors: `measured_steps` must be as many as batch sizes, got "
                f"{measured.size} for {len(self.cells)}."
            )
        return self.steps / measured - 1

    def to_dict(self) -> dict[str, Any]:
        """Return cells and remarks for a program."""
        return {
            "target": self.target,
            "noise_error": self.noise_error,
            "cells": [cell.to_dict() for cell in self.cells],
            "remarks": list(self.remarks),
        }

    def __str__(self) -> str:
        banded = self.noise_error > 0
        head = f"{'batch size':>11}{'steps':>13}" + f"{'low':>13}{'high':>13}" * banded
        lines = [
            f"{cell.batch_size:>11,.10g}{_count(cell.steps):>13}"
            + f"{_count(cell.low):>13}{_count(cell.high):>13}" * banded
            for cell in self.cells
        ]
        wrapped = [
            fill(remark, 80, initial_indent="- ", subsequent_indent="  ")
            for remark in self.remarks
        ]
        return "\n".join([head, *lines, *wrapped])


def predict_steps(
    problem: NoisyQuadratic | MeasuredProblem,
    settings: OptimizerName | Optimizer | SettingsRule,
    batch_sizes: ArrayLike,
    target: float,
    *,
    noise_error: float = 0.0,
    backend: Backend = "auto",
) -> Prediction:
    """Return the steps to a target that a measured problem leads one to expect.

    Args:
        problem: From :func:`rightbatch.quadratic.measured.from_measurements`, or any
            without label noise.
        settings: An optimizer's name to tune everything at each batch size, an
            optimizer to keep its settings, or a rule from batch size to optimizer.
        batch_sizes: Examples per step, in any order. Shape (b,).
        target: Loss to reach, below the initial one. At or below the irreducible loss
            it is out of reach at every batch size, which is an answer.
        noise_error: Relative error of the measured noise, below 1, for `low` and
            `high`; 0 to leave them out.
        backend: numpy, numba, or whichever is there.

    Returns:
        The prediction, batch sizes increasing, each once.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> from rightbatch.quadratic.measured import from_measurements
        >>> measured = from_measurements(
        ...     nodes=[2.0, 0.1], weights=[1, 40], noise=[1.0, 0.2], initial_loss=2.3
        ... )
        >>> print(predict_steps(measured, "sgd", [1, 16, 256], 0.5, noise_error=0.2))
         batch size        steps          low         high
                  1           69           56           83
                 16            9            9           10
                256            7            7            7
        - the settings are tuned at each batch size
        - curvature and noise are taken to stay as measured; in a real run both change
        - at batch size 1, 16 the lr would be too bold for a linear regression, whose
          noise grows with the distance from the minimum
        - steps are few: one step more or less is 5 % of them or more
    """
    who = "predict_steps"
    held = problem.problem if isinstance(problem, MeasuredProblem) else problem
    sizes = np.unique(_checks.positive_array(who, "batch_sizes", batch_sizes))
    if _checks.nonnegative(who, "noise_error", noise_error) >= 1:
        raise InputError(f"{who}: `noise_error` must be below 1, got {noise_error:g}.")
    plan = _Plan(settings, sizes.tolist(), target, backend)
    if plan.given is None:
        _checks.one_of(who, "settings", str(settings), OPTIMIZERS)
    if target <= held.irreducible_loss:
        cells = [PredictedSteps(batch_size=size, steps=None) for size in plan.sizes]
    else:
        check_target(who, held, target)
        cells = plan.cells(held)
        if noise_error:
            low = plan.cells(with_levels(held, noise=1 - noise_error))
            high = plan.cells(with_levels(held, noise=1 + noise_error))
            cells = [_banded(*three) for three in zip(cells, low, high, strict=True)]
    return Prediction(
        target=target,
        noise_error=noise_error,
        cells=tuple(cells),
        remarks=tuple(_remarks(problem, held, plan, cells)),
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    settings: OptimizerName | Optimizer | SettingsRule
    sizes: list[float]
    target: float
    backend: Backend

    @property
    def given(self) -> list[Optimizer] | None:
        """The given settings at each batch size; None where they are to be tuned."""
        if isinstance(self.settings, Optimizer):
            return [self.settings] * len(self.sizes)
        if callable(self.settings):
            return [self.settings(size) for size in self.sizes]
        return None

    def cells(self, problem: NoisyQuadratic) -> list[PredictedSteps]:
        """Return the steps at each batch size on one problem."""
        if isinstance(self.settings, Optimizer) or callable(self.settings):
            return [
                PredictedSteps(
                    batch_size=size,
                    steps=first_passage(
                        problem, optimizer, size, self.target, backend=self.backend
                    ),
                    optimizer=optimizer,
                )
                for size, optimizer in zip(self.sizes, self.given or [], strict=True)
            ]
        found = search(
            problem, self.settings, self.sizes, self.target, backend=self.backend
        )
        return [
            PredictedSteps(
                batch_size=one.batch_size, steps=one.steps, optimizer=one.optimizer
            )
            for one in found
        ]


def _banded(
    cell: PredictedSteps, low: PredictedSteps, high: PredictedSteps
) -> PredictedSteps:
    return PredictedSteps(
        batch_size=cell.batch_size,
        steps=cell.steps,
        low=low.steps,
        high=high.steps,
        optimizer=cell.optimizer,
    )


def _remarks(
    given: NoisyQuadratic | MeasuredProblem,
    problem: NoisyQuadratic,
    plan: _Plan,
    cells: Sequence[PredictedSteps],
) -> list[str]:
    tuned = plan.given is None
    how = "tuned at each batch size" if tuned else "as given, tuned nowhere"
    remarks = [f"the settings are {how}", _AS_MEASURED]
    if isinstance(given, MeasuredProblem) and given.left_out.num_nodes:
        remarks.append(str(given.left_out))
    missed = [cell for cell in cells if cell.steps is None]
    above = plan.target - problem.irreducible_loss
    if above <= 0:
        remarks.append(
            f"the target {plan.target:g} is not above the irreducible loss "
            f"{problem.irreducible_loss:g}: out of reach at any batch size"
        )
    elif missed:
        remarks.append(_why_missed(problem, missed))
    start = problem.initial_loss - problem.irreducible_loss
    if problem.irreducible_loss and 0 < above < _FAR_BELOW * start:
        remarks.append(
            f"the target leaves {100 * above / start:.2g} % of the loss above the "
            f"irreducible one, whose error matters as much there"
        )
    bold = [
        cell.batch_size for cell in cells if _feedback(problem, cell) > _MUCH_FEEDBACK
    ]
    if bold:
        remarks.append(
            f"at batch size {_listed(bold)} the lr would be too bold for a linear "
            f"regression, whose noise grows with the distance from the minimum"
        )
    if any(cell.steps is not None and cell.steps < _FEW_STEPS for cell in cells):
        remarks.append("steps are few: one step more or less is 5 % of them or more")
    return remarks


def _why_missed(problem: NoisyQuadratic, missed: Sequence[PredictedSteps]) -> str:
    where = _listed([cell.batch_size for cell in missed])
    top = float(problem.rates.max())
    past = [
        cell
        for cell in missed
        if cell.optimizer and cell.optimizer.lr * top >= cell.optimizer.max_stable_rate
    ]
    if past:
        return f"out of reach at batch size {where}: the lr is past the stability edge"
    return f"out of reach at batch size {where}: noise holds the loss above the target"


def _feedback(problem: NoisyQuadratic, cell: PredictedSteps) -> float:
    """Return how much noise the noise would bring back, had the problem features."""
    if cell.optimizer is None or cell.steps is None:
        return 0.0
    return noise_feedback(
        replace(problem, label_noise=0.0), cell.optimizer, cell.batch_size
    )


def _listed(sizes: Sequence[float]) -> str:
    return ", ".join(f"{size:,.10g}" for size in sizes)


def _count(steps: int | None) -> str:
    return "unreachable" if steps is None else f"{steps:,}"
