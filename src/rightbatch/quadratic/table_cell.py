"""One cell of a table of steps, and how its settings are chosen."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.grids import Grid
from rightbatch.quadratic.optimizers import Optimizer, OptimizerName
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.schedules.growth import GrownBatch
from rightbatch.quadratic.schedules.piecewise import PiecewiseSchedule
from rightbatch.quadratic.schedules.schedule_search import ShapedSchedule
from rightbatch.quadratic.schedules.shapes import EqualPieces, Shape

SearchName = Literal["continuous", "grid"]
SEARCHES: tuple[SearchName, ...] = get_args(SearchName)
"""How settings are searched: continuously, or among the published grid's."""
Schedule = ShapedSchedule | PiecewiseSchedule

_CONSTANT = Shape(name="constant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How the settings of a table's cells are chosen.

    Args:
        search: ``continuous``, or ``grid`` for the best point of the published grid.
        schedule: Of the learning rate; pieces cannot serve a tail average.
        given: Settings to try, every combination, in place of any search; an optimizer
            without momentum or moving average takes no notice of theirs.
        tail_fraction: What a tail average takes, in (0, 1].
        max_steps: What needs more counts as unreachable; None for no limit.
        settling: Whether to say also when the loss falls below the target for good.
        grow: Whether to turn a schedule's decay into growth of the batch as well.
        backend: numpy, numba, or whichever is there.

    Raises:
        InputError: A value is out of range, or two choices exclude each other.
    """

    search: SearchName = "continuous"
    schedule: Shape | EqualPieces = _CONSTANT
    given: Grid | None = None
    tail_fraction: float = 0.5
    max_steps: int | None = None
    settling: bool = False
    grow: bool = False
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        _checks.one_of("Tuning", "search", self.search, SEARCHES)
        if not 0 < _checks.finite("Tuning", "tail_fraction", self.tail_fraction) <= 1:
            raise InputError(
                f"Tuning: `tail_fraction` must be in (0, 1], got "
                f"{self.tail_fraction:g}."
            )
        if self.max_steps is not None:
            _checks.positive_integer("Tuning", "max_steps", self.max_steps)
        if self.given is not None and self.search == "grid":
            raise InputError(
                "Tuning: `given` settings leave nothing to the search grid.",
                "leave one of them out",
            )
        if self.grow and not self.is_scheduled:
            raise InputError(
                "Tuning: `grow` needs a schedule that decays.", "such as pieces:10"
            )
        if self.is_scheduled:
            for name in ("given", "settling"):
                if getattr(self, name):
                    self._refuse(name)
            if self.search == "grid":
                self._refuse("search", " grid")

    @property
    def is_scheduled(self) -> bool:
        """Whether the learning rate changes along a run."""
        return self.schedule != _CONSTANT

    def check(self, name: OptimizerName) -> None:
        """Refuse an optimizer that cannot be tuned this way.

        Raises:
            InputError: Pieces or the grid are asked for a tail average.
        """
        if isinstance(self.schedule, EqualPieces) and name == "tail-average":
            raise InputError(
                f"schedule {self.schedule}: cannot serve tail-average.",
                "a shape such as cosine or wsd can; or take average",
            )
        if self.search == "grid" and name == "tail-average":
            raise InputError(
                "search grid: there is none for tail-average.", "search continuously"
            )

    def _refuse(self, name: str, value: str = "") -> None:
        raise InputError(
            f"Tuning: `{name}`{value} is for a constant learning rate, got schedule "
            f"{self.schedule}.",
            "leave one of them out",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCell:
    """The fewest steps of one optimizer at one preconditioner power and batch size.

    Args:
        name: The optimizer.
        power: Preconditioner power.
        batch_size: Examples per step.
        steps: First step with a loss at or below the target, for a schedule the length
            of the shortest run; None where the target is not reached.
        optimizer: With its settings, lr being the peak of a schedule; None where none
            reach the target, unless one alone was given.
        loss: Expected loss at that step.
        max_likelihood_bound: Steps of the maximum-likelihood estimate, a yardstick.
        bayes_bound: Steps below which nothing can reach the target.
        settling_steps: The step from which on the loss stays at or below the target;
            None where it never does, or nobody asked.
        schedule: The schedule, None for a constant learning rate.
        growth: The schedule with a growing batch in place of its decay.
        why: Why the target is not reached; empty where it is.
    """

    name: OptimizerName
    power: float
    batch_size: float
    steps: int | None
    optimizer: Optimizer | None = None
    loss: float | None = None
    max_likelihood_bound: float
    bayes_bound: float
    settling_steps: int | None = None
    schedule: Schedule | None = None
    growth: GrownBatch | None = None
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the cell for a program; settings the optimizer has not are None."""
        best, size = self.optimizer, float(self.batch_size)
        cell: dict[str, Any] = {
            "optimizer": self.name,
            "power": self.power,
            "batch_size": int(size) if size.is_integer() else size,
            "steps": self.steps,
            "lr": best and best.lr,
            "momentum": best.momentum if best and best.has_momentum else None,
            "ema_decay": best.ema_decay if best and best.has_ema else None,
            "max_likelihood_bound": self.max_likelihood_bound,
            "bayes_bound": self.bayes_bound,
            "loss": self.loss,
            "settling_steps": self.settling_steps,
            "why": self.why or None,
        }
        if isinstance(self.schedule, ShapedSchedule):
            cell["schedule"] = str(self.schedule.shape)
        elif self.schedule is not None:
            cell["schedule"] = f"pieces:{len(self.schedule.lrs)}"
            cell["lrs"] = list(self.schedule.lrs)
            cell["lengths"] = list(self.schedule.lengths)
        if self.growth is not None:
            cell["growth"] = self.growth.to_dict()
        return cell
