"""Which choices matter at which batch sizes: optimizers and powers in one table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.curves import (
    CurveFit,
    SteppingCurve,
    fit_curve,
    steps_curve,
)
from rightbatch.quadratic.optimizers import OPTIMIZERS, OptimizerName
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.recursions.powers import Backend

POWERS: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
"""Of the preconditioner, as in the paper."""
_LEGEND = (
    "within: largest error of the inverse law; knee: the exponent that fits best;\n"
    "sgd/ and p0/: times fewer steps than plain SGD and than at the first power"
)
CHOICES: tuple[OptimizerName, ...] = ("sgd", "momentum", "ema", "momentum+ema")
"""What Zhang et al. (2019) compare, and the last two together."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """One optimizer under one preconditioner, at the smallest and the largest batch.

    Args:
        fit: Its curve with the laws fitted to it.
        gain: How many times fewer steps than plain SGD under the same preconditioner,
            at the smallest and at the largest batch; nan where a side is unreachable.
        preconditioning_gain: How many times fewer than the same optimizer at the first
            power, likewise.
    """

    fit: CurveFit
    gain: tuple[float, float]
    preconditioning_gain: tuple[float, float]

    @property
    def steps(self) -> tuple[float, float]:
        """Steps at the smallest and at the largest batch."""
        return _ends(self.fit.curve)

    def to_dict(self) -> dict[str, Any]:
        """Return the fit and what was gained, as small and large batch."""
        return {
            **self.fit.to_dict(),
            "gain": [_known(x) for x in self.gain],
            "preconditioning_gain": [_known(x) for x in self.preconditioning_gain],
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choices:
    """The message of Zhang et al. (2019) as a table.

    Args:
        target: The loss reached.
        rows: By optimizer, then power.
    """

    target: float
    rows: tuple[Choice, ...]

    def row(self, name: OptimizerName, power: float) -> Choice:
        """Return the row of an optimizer and a power.

        Args:
            name: The optimizer.
            power: The preconditioner's.

        Returns:
            The row.

        Raises:
            InputError: There is none.
        """
        for row in self.rows:
            curve = row.fit.curve
            if (curve.name, curve.preconditioner_power) == (name, power):
                return row
        raise InputError(f"Choices: there is no row of {name} at power {power:g}.")

    def to_dict(self) -> dict[str, Any]:
        """Return all rows for a program."""
        return {"target": self.target, "rows": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        sizes = self.rows[0].fit.curve.batch_sizes
        first = f"p{self.rows[0].fit.curve.preconditioner_power:g}/"
        head = f"{'optimizer':13}{'power':>6}{'phi':>9}{'within':>7}{'knee':>6}"
        ends = "".join(f"{f'B = {sizes[end]:,.10g}':>23}" for end in (0, -1))
        columns = f"{'steps':>11}{'sgd/':>6}{first:>6}"
        lines = [" " * len(head) + ends, head + 2 * columns]
        return "\n".join([*lines, *(_line(row) for row in self.rows), _LEGEND])


def compare_choices(
    problem: NoisyQuadratic,
    names: Sequence[OptimizerName],
    powers: Sequence[float],
    batch_sizes: ArrayLike,
    target: float,
    *,
    backend: Backend = "auto",
) -> Choices:
    """Return phi and the steps of each optimizer and power, and what each choice saves.

    Args:
        problem: What is minimised; its own power is replaced.
        names: Optimizers; :data:`CHOICES` are the paper's and both together.
        powers: Of the preconditioner; gains are against the first.
        batch_sizes: Examples per step, from far below to far above every corner. Shape
            (b,), four or more.
        target: Expected loss to reach.
        backend: numpy, numba, or whichever is there.

    Returns:
        The table.

    Raises:
        InputError: An argument is out of range, or a curve reaches the target at fewer
            than four batch sizes.
    """
    if not names or not powers:
        raise InputError("compare_choices: `names` and `powers` must not be empty.")
    for name in names:
        _checks.one_of("compare_choices", "names", name, OPTIMIZERS)
    wanted: list[OptimizerName] = ["sgd", *names]
    curves = {
        (name, power): steps_curve(
            problem.with_power(power), name, batch_sizes, target, backend=backend
        )
        for name in dict.fromkeys(wanted)
        for power in powers
    }
    rows = [
        Choice(
            fit=fit_curve(curves[name, power]),
            gain=_gain(curves["sgd", power], curves[name, power]),
            preconditioning_gain=_gain(curves[name, powers[0]], curves[name, power]),
        )
        for name in dict.fromkeys(names)
        for power in powers
    ]
    return Choices(target=target, rows=tuple(rows))


def _ends(curve: SteppingCurve) -> tuple[float, float]:
    return float(curve.steps[0]), float(curve.steps[-1])


def _gain(before: SteppingCurve, after: SteppingCurve) -> tuple[float, float]:
    small, large = (
        one / other if math.isfinite(one) and math.isfinite(other) else math.nan
        for one, other in zip(_ends(before), _ends(after), strict=True)
    )
    return small, large


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _line(row: Choice) -> str:
    fit, curve = row.fit, row.fit.curve
    phi = fit.critical_batch_size
    text = (
        f"{curve.name:13}{curve.preconditioner_power:>6g}"
        f"{'-' if phi is None else _short(phi, 3):>9}"
        f"{f'{100 * fit.misfit:.0f} %':>7}{fit.knee.knee_exponent:>6.2f}"
    )
    for steps, gain, by_power in zip(
        row.steps, row.gain, row.preconditioning_gain, strict=True
    ):
        text += f"{_short(steps, 4):>11}{gain:>6.3g}{by_power:>6.3g}"
    return text


def _short(value: float, digits: int) -> str:
    return f"{float(f'{value:.{digits}g}'):,.0f}"
