"""``plan --law loss``: the steps to a loss by the three-term law of all the losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.convergence.fit import BatchPoint
    from rightbatch.convergence.losses.fit import LossLawFit
    from rightbatch.convergence.losses.law import StepsToLoss
    from rightbatch.convergence.losses.target import LossDraws, LossTarget
    from rightbatch.experiments.tables import TableLoss
    from rightbatch.fitting import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnSteps:
    """Steps to one target by drawn laws of the loss.

    Args:
        laws: The draws.
        target: Loss to reach.
    """

    laws: "LossDraws"
    target: float

    def steps(self, batch_size: ArrayLike) -> "FloatArray":
        """Return the steps of each draw at batch sizes (m,), shape (n, m)."""
        return self.laws.steps(batch_size, self.target)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossSteps:
    """Steps to one loss by a fitted law of the loss, as a plan needs them.

    Args:
        fit: The fit to all losses.
        at_target: What it says of the target.
    """

    fit: "LossLawFit"
    at_target: "LossTarget"

    @property
    def law(self) -> "StepsToLoss":
        """The curve of steps."""
        return self.at_target.law

    @property
    def status(self) -> str:
        """Of the fit."""
        return self.fit.status

    @property
    def advice(self) -> str:
        """Of the fit."""
        return self.fit.advice

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the fit, and of the target."""
        return (*self.fit.warnings, *self.at_target.warnings)

    @property
    def points(self) -> "tuple[BatchPoint, ...]":
        """None: the law is fitted to losses, not to counts of steps."""
        return ()

    @property
    def fitted_range(self) -> tuple[float, float]:
        """Smallest and largest batch size run."""
        return self.fit.fitted_range

    def steps(self, batch_size: ArrayLike) -> Any:
        """Return the steps to the target, shaped like `batch_size`."""
        return self.law.steps(batch_size)

    def draws(self, num: int = 1000) -> DrawnSteps:
        """Return `num` laws that the losses could as well have given."""
        return DrawnSteps(laws=self.fit.draws(num), target=self.law.target)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TunedLoss:
    """A law of the loss where a plan expects one of steps.

    Args:
        fit: Steps to the target.
        warnings: Why it is this law; the fit has its own.
    """

    fit: LossSteps
    warnings: tuple[str, ...] = ()

    def lr_at(self, batch_size: float) -> None:
        """Return None: which rate was best depends on how long a run was."""

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a fit."""
        from rightbatch.cli.fit_losses import loss_entry

        target = self.fit.law.target
        loss_law = self.fit.fit.to_dict(target)
        entry = loss_entry(self.fit.fit, loss_law)
        said = [*self.warnings, *self.fit.warnings]
        return {**entry, "loss_law": loss_law, "warnings": said}


def fit_loss_steps(path: Path, rows: "Sequence[TableLoss]", target: float) -> TunedLoss:
    """Return the steps to a loss by the law of all losses of a table.

    Args:
        path: The table, for errors.
        rows: Losses of one workload.
        target: Loss to reach.

    Returns:
        The law of steps, as a plan needs it.

    Raises:
        InputError: The rows cannot be fitted; the table is named.
    """
    from rightbatch.convergence.losses.crossing import best_rows
    from rightbatch.convergence.losses.fit import fit_loss_law
    from rightbatch.convergence.losses.target import loss_target

    batch = [row.batch_size for row in rows]
    steps, losses = [row.steps for row in rows], [row.loss for row in rows]
    kept = best_rows(batch, [row.lr for row in rows], steps, losses)
    columns = ([column[i] for i in kept] for column in (batch, steps, losses))
    try:
        fit = fit_loss_law(*columns, example_unit=rows[0].example_unit)
        at_target = loss_target(fit, fit.draws(), target)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return TunedLoss(fit=LossSteps(fit=fit, at_target=at_target))
