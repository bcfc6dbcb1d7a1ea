"""What a run leaves behind: one row per update, whoever ran it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray
from rightbatch.simulation.walk import Measured

COLUMNS = ("step", "examples", "batch_size", "lr", "loss", "reason")
"""Keys of every row, in order."""

MEASUREMENTS = (
    "batch_loss",
    "batch_grad_sq_norm",
    "grad_sq_norm",
    "grad_variance",
    "noise_scale",
    "noise_scale_low",
    "noise_scale_high",
    "inner_product_variance",
    "seconds",
    "epoch",
    "tokens",
)
"""Keys a row may have beside them."""


class Passage(NamedTuple):
    """The first time the loss was at or below a target.

    Args:
        steps: Updates done.
        examples: Examples taken.
        seconds: Since the first update began; None where no clock ran.
    """

    steps: int
    examples: float
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Updates of one run in order: what each took, and the loss it led to.

    Args:
        steps: Updates done, this one included, increasing; a run that records every
            tenth has gaps. Shape (k,).
        examples: Examples taken so far, those of this update included. Shape (k,).
        batch_sizes: Examples of the update. Shape (k,).
        lrs: Its learning rate, nan where not recorded. Shape (k,).
        losses: The loss after it, nan where not measured. Shape (k,).
        reasons: Why that batch size. k of them.
        initial_loss: Before the first update; None where nobody measured it.
        measurements: More columns of shape (k,), named as in :data:`MEASUREMENTS`, nan
            where a row has none: what the update's batch told (from the point before
            it), and the clocks after it.

    Raises:
        InputError: Columns differ in length, a name is unknown, or steps and examples
            do not grow.

    Example:
        >>> trace = Trace(
        ...     steps=np.array([1, 2]),
        ...     examples=np.array([8, 24]),
        ...     batch_sizes=np.array([8, 16]),
        ...     lrs=np.array([0.1, 0.1]),
        ...     losses=np.array([1.0, 0.5]),
        ...     reasons=["", "doubled"],
        ...     initial_loss=2.0,
        ... )
        >>> trace.first_passage(0.7)
        Passage(steps=2, examples=24.0, seconds=None)
    """

    steps: FloatArray
    examples: FloatArray
    batch_sizes: FloatArray
    lrs: FloatArray
    losses: FloatArray
    reasons: Sequence[str]
    initial_loss: float | None = None
    measurements: Mapping[str, FloatArray] = field(
        default_factory=dict[str, FloatArray]
    )

    def __post_init__(self) -> None:
        names = ("steps", "examples", "batch_sizes", "lrs", "losses")
        for name in names:
            object.__setattr__(self, name, _frozen(name, getattr(self, name)))
        object.__setattr__(self, "reasons", tuple(self.reasons))
        measurements = {k: _frozen(k, v) for k, v in self.measurements.items()}
        unknown = sorted(measurements.keys() - set(MEASUREMENTS))
        if unknown:
            raise InputError(
                f"Trace: `measurements` cannot have {', '.join(unknown)}.",
                f"one of {', '.join(MEASUREMENTS)}",
            )
        object.__setattr__(self, "measurements", measurements)
        columns = {name: getattr(self, name) for name in (*names, "reasons")}
        for name, values in {**columns, **measurements}.items():
            if len(values) != len(self):
                raise InputError(
                    f"Trace: `{name}` must be as many as `steps`, got {len(values)} "
                    f"and {len(self)}."
                )
        # Past 2^53 examples a small batch may not move a float.
        for name, least in (("steps", 1e-9), ("examples", 0.0)):
            values = np.concatenate([[0.0], getattr(self, name)])
            bad = np.flatnonzero(~(np.diff(values) >= least))
            if bad.size:
                raise InputError(
                    f"Trace: `{name}` must grow from row to row, got "
                    f"{values[bad[0]]:g} then {values[bad[0] + 1]:g}."
                )

    def __len__(self) -> int:
        return len(self.steps)

    def first_passage(self, target: float) -> Passage | None:
        """Return when the loss was first at or below a target; None if it never was.

        Args:
            target: A loss.

        Returns:
            Steps, examples and seconds, of recorded rows.
        """
        if self.initial_loss is not None and self.initial_loss <= target:
            return Passage(0, 0.0, 0.0 if "seconds" in self.measurements else None)
        below = np.flatnonzero(self.losses <= target)
        if not below.size:
            return None
        row = int(below[0])
        clock = self.measurements.get("seconds")
        seconds = None if clock is None else float(clock[row])
        return Passage(int(self.steps[row]), float(self.examples[row]), seconds)

    def rows(self) -> list[dict[str, Any]]:
        """Return one mapping per update, for a program; null where nothing is known."""
        columns: dict[str, list[Any]] = {
            "step": [as_count(value) for value in self.steps],
            "examples": [as_count(value) for value in self.examples],
            "batch_size": [as_count(value) for value in self.batch_sizes],
            "lr": [_known(value) for value in self.lrs],
            "loss": [_known(value) for value in self.losses],
            "reason": list(self.reasons),
        }
        for name, values in self.measurements.items():
            columns[name] = [_known(value) for value in values]
        return [
            dict(zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=True)
        ]


def measurement_columns(rows: Sequence[Measured]) -> dict[str, FloatArray]:
    """Return what batches told as columns; what no row has is left out.

    Args:
        rows: One per update.

    Returns:
        Columns named as in :data:`MEASUREMENTS`.
    """
    flat = [
        (
            one.batch_loss,
            one.batch_grad_sq_norm,
            one.moments and one.moments.grad_sq_norm,
            one.moments and one.moments.grad_variance,
            one.noise_scale and one.noise_scale.value,
            one.noise_scale and one.noise_scale.low,
            one.noise_scale and one.noise_scale.high,
            one.inner_product_variance,
        )
        for one in rows
    ]
    columns = zip(MEASUREMENTS, zip(*flat, strict=True), strict=False)
    return {
        name: np.array(values, dtype=float)
        for name, values in columns
        if any(value is not None for value in values)
    }


def as_count(value: float) -> float | int | None:
    """Return a whole number as an int, and what is not a number as None.

    Example:
        >>> as_count(64.0), as_count(64.5), as_count(float("nan"))
        (64, 64.5, None)
    """
    value = float(value)
    return int(value) if value.is_integer() else _known(value)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _frozen(name: str, values: ArrayLike) -> FloatArray:
    try:
        array = np.array(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"Trace: `{name}` must be numbers, got {values!r}.") from None
    if array.ndim != 1:
        raise InputError(
            f"Trace: `{name}` must have one axis, got shape {array.shape}."
        )
    array.flags.writeable = False
    return array
