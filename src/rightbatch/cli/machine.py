"""What the options say of a step besides its batch: overlap, and checks in between."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from rightbatch.experiments.tables import TableTime
    from rightbatch.step_time import (
        Communication,
        Evaluation,
        MeasuredStepTime,
        StepTimeFit,
    )

Overlap = Annotated[
    str | None,
    typer.Option(
        "--overlap",
        metavar="Q",
        help="How far communication hides behind computing: 1, they add up; inf, the "
        "longer hides the other. Fitted where a table can tell; else 1.",
    ),
]
EvaluateEvery = Annotated[
    int | None,
    typer.Option(min=1, help="Steps between checks, which then count as time."),
]
EvaluateExamples = Annotated[
    int | None, typer.Option(min=1, help="Examples of a check, with --evaluate-every.")
]


def check_replicas(
    path: "Path", times: "Sequence[TableTime]", lines: Sequence[int]
) -> None:
    """Check that no row of a table has more replicas than examples.

    Args:
        path: The table.
        times: Its rows.
        lines: Where each stands in the file, counted from 1.

    Raises:
        InputError: One has; its line is named.
    """
    for time, line in zip(times, lines, strict=True):
        if time.num_replicas > time.batch_size:
            raise InputError(
                f"{path}: row {line}, column num_replicas must not be above batch_size "
                f"{time.batch_size:g}, got {time.num_replicas:g}.",
                "batch sizes are global, of all replicas together: multiply a local "
                f"one by its replicas ({time.batch_size * time.num_replicas:g} here), "
                "or leave the row out",
            )


def row_lines(path: "Path") -> tuple[int, ...]:
    """Return the lines at which the rows of a table stand, counted as a person does.

    Args:
        path: A CSV file with a header.

    Returns:
        One number per row; empty lines count, but are no rows.
    """
    import csv

    with path.open(newline="", encoding="utf-8-sig") as lines:
        places = [
            place
            for place, cells in enumerate(csv.reader(lines), start=1)
            if any(cell.strip() for cell in cells)
        ]
    return tuple(places[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineChoice:
    """What the options say of overlap and of checks between steps.

    Args:
        overlap: A number from 1, or ``inf``; None when not given.
        every: Steps between checks; None when not given.
        num_examples: Examples of a check; None when not given.

    Raises:
        InputError: The overlap is no such number, or half of a check is given.
    """

    overlap: str | None = None
    every: int | None = None
    num_examples: int | None = None

    def __post_init__(self) -> None:
        if (self.every is None) != (self.num_examples is None):
            raise InputError(
                "--evaluate-every and --evaluate-examples go together, got one of them."
            )
        exponent = self.overlap_exponent
        if exponent is not None and not exponent >= 1:
            raise InputError(
                f"--overlap: must be a number from 1, or inf, got {self.overlap!r}.",
                "1 adds communication to computing, inf hides the shorter",
            )

    @property
    def overlap_exponent(self) -> float | None:
        """The exponent; None to fit it where a table can tell, NaN for no number."""
        if self.overlap is None:
            return None
        try:
            return float(self.overlap)
        except ValueError:
            return math.nan

    @property
    def evaluation(self) -> "Evaluation | None":
        """The checks between steps; None for none."""
        from rightbatch.step_time import Evaluation

        if self.every is None or self.num_examples is None:
            return None
        return Evaluation(every=self.every, num_examples=self.num_examples)

    def inputs(self) -> dict[str, Any]:
        """Return the settings as the JSON document gives them."""
        return {
            "overlap": self.overlap,
            "evaluate_every": self.every,
            "evaluate_examples": self.num_examples,
        }

    def fit(
        self,
        batch_sizes: Sequence[float],
        seconds: Sequence[float],
        num_replicas: Sequence[int] | None = None,
        communication: "Communication | None" = None,
    ) -> "StepTimeFit":
        """Return the law of step times, overlap and checks as chosen.

        Args:
            batch_sizes: Of each row.
            seconds: Per step.
            num_replicas: Of each row; None for one throughout.
            communication: Known beforehand; None to fit it.

        Returns:
            The fit.
        """
        from rightbatch.step_time import NoCommunication, fit_step_time

        fit = fit_step_time(
            batch_sizes,
            seconds,
            num_replicas,
            communication=communication or NoCommunication(),
            overlap_exponent=self.overlap_exponent,
        )
        return fit.with_evaluation(self.evaluation)

    def measured(
        self,
        batch_sizes: Sequence[float],
        seconds: Sequence[float],
        fit: "StepTimeFit",
    ) -> "MeasuredStepTime":
        """Return the times of one replica joined by lines, the rest as fitted.

        Args:
            batch_sizes: Local batch sizes.
            seconds: Per step on one replica.
            fit: Tells communication, overlap and the fixed cost.

        Returns:
            The model.
        """
        from rightbatch.step_time import MeasuredStepTime

        return MeasuredStepTime(
            batch_sizes=batch_sizes,
            seconds=seconds,
            communication=fit.law.communication,
            overlap_exponent=fit.law.overlap_exponent,
            overhead_seconds=fit.law.overhead_seconds,
            evaluation=fit.law.evaluation,
        )
