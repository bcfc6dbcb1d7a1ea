"""The cells of a table of steps, filled: each way of choosing settings in one place."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rightbatch.quadratic.dynamics import loss_after
from rightbatch.quadratic.grids import NO_SETTING, Grid, GridPoint, search_grid
from rightbatch.quadratic.optimizers import Optimizer, OptimizerName
from rightbatch.quadratic.passage import first_passage, settling
from rightbatch.quadratic.pieces import Piece
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.schedules.growth import grow_batch
from rightbatch.quadratic.schedules.piecewise import PiecewiseSchedule, search_pieces
from rightbatch.quadratic.schedules.schedule_search import search_shape
from rightbatch.quadratic.schedules.shapes import EqualPieces, Shape
from rightbatch.quadratic.search import search
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.steady_state import steady_state_risk
from rightbatch.quadratic.table_cell import Schedule, TableCell, Tuning

GROWN_PIECES = 100
"""How many pieces stand for a shape whose batch is grown."""
_TOO_LONG = "no settings reach the target within 2^36 steps"
_NOT_FOUND = "no schedule was found within the steps that are searched"


@dataclass(frozen=True, slots=True)
class Group:
    """Cells of one optimizer at one power.

    Args:
        problem: At that power.
        name: The optimizer.
        target: Expected loss to reach.
        tuning: How settings are chosen.
    """

    problem: NoisyQuadratic
    name: OptimizerName
    target: float
    tuning: Tuning

    def cells(
        self, sizes: FloatArray, examples: tuple[float, float]
    ) -> tuple[TableCell, ...]:
        """Return the cells of some batch sizes; `examples` are those of the bounds."""
        likelihood, bayes = examples
        blanks = [
            TableCell(
                name=self.name,
                power=self.problem.preconditioner_power,
                batch_size=size,
                steps=None,
                max_likelihood_bound=likelihood / size,
                bayes_bound=bayes / size,
            )
            for size in sizes.tolist()
        ]
        return tuple(self._finish(cell) for cell in self._fill(blanks))

    def _fill(self, blanks: list[TableCell]) -> Iterator[TableCell]:
        """Yield each cell with its steps and settings."""
        tuning = self.tuning
        if tuning.is_scheduled:
            yield from (self._scheduled(blank, tuning.schedule) for blank in blanks)
        elif tuning.given is not None:
            yield from (self._given(blank, tuning.given) for blank in blanks)
        elif tuning.search == "grid":
            yield from (self._best_of(blank) for blank in blanks)
        else:
            yield from self._searched(blanks)

    def _searched(self, blanks: list[TableCell]) -> Iterator[TableCell]:
        found = search(
            self.problem,
            self.name,
            [blank.batch_size for blank in blanks],
            self.target,
            tail_fraction=self.tuning.tail_fraction,
            backend=self.tuning.backend,
        )
        for blank, one in zip(blanks, found, strict=True):
            yield replace(
                blank,
                steps=one.steps,
                optimizer=one.optimizer,
                loss=one.loss,
                why="" if one.steps else _TOO_LONG,
            )

    def _scheduled(self, blank: TableCell, schedule: Shape | EqualPieces) -> TableCell:
        sizes, backend = [blank.batch_size], self.tuning.backend
        if isinstance(schedule, EqualPieces):
            (one,) = search_pieces(
                self.problem,
                self.name,
                sizes,
                self.target,
                schedule.num_pieces,
                backend=backend,
            )
        else:
            (one,) = search_shape(
                self.problem, self.name, schedule, sizes, self.target, backend=backend
            )
        if one.steps is None:
            return replace(blank, why=_NOT_FOUND)
        cell = replace(
            blank, steps=one.steps, optimizer=one.optimizer, loss=one.loss, schedule=one
        )
        if not self.tuning.grow:
            return cell
        growth = grow_batch(self.problem, _pieces_of(one), optimizer=one.optimizer)
        return replace(cell, growth=growth)

    def _best_of(self, blank: TableCell) -> TableCell:
        """Return the cell with the best point of the published grid."""
        point = search_grid(
            self.problem,
            self.name,
            blank.batch_size,
            self.target,
            backend=self.tuning.backend,
        )
        if point.steps is None:
            return replace(blank, why="no point of the grid reaches the target")
        return self._reached(blank, point)

    def _given(self, blank: TableCell, given: Grid) -> TableCell:
        """Return the cell with the best of given settings."""
        grid = Grid(
            lrs=given.lrs,
            momenta=given.momenta if _has_momentum(self.name) else NO_SETTING,
            ema_decays=given.ema_decays if self.name.endswith("ema") else NO_SETTING,
        )
        choices = self._choices(grid)
        cell = self._reached(blank, self._first(choices, blank.batch_size))
        if cell.steps is not None:
            return cell
        if len(choices) == 1:
            cell = replace(cell, optimizer=choices[0])
        return replace(cell, why=self._why(choices, blank.batch_size))

    def _choices(self, grid: Grid) -> list[Optimizer]:
        """Return the optimizers of a grid's points."""
        return [
            Optimizer(
                name=self.name,
                lr=lr,
                momentum=momentum,
                ema_decay=decay,
                tail_fraction=self.tuning.tail_fraction,
            )
            for lr in grid.lrs.tolist()
            for momentum in grid.momenta.tolist()
            for decay in grid.ema_decays.tolist()
        ]

    def _first(self, choices: list[Optimizer], size: float) -> GridPoint:
        """Return the choice that reaches the target first."""
        best = GridPoint(optimizer=None, steps=None)
        for choice in choices:
            if self._edge(choice) <= choice.lr:
                continue
            steps = first_passage(
                self.problem, choice, size, self.target, backend=self.tuning.backend
            )
            if steps is not None and (best.steps is None or steps < best.steps):
                best = GridPoint(optimizer=choice, steps=steps)
        return best

    def _reached(self, blank: TableCell, point: GridPoint) -> TableCell:
        """Return the cell of a point, and the loss there."""
        if point.steps is None or point.optimizer is None:
            return blank
        loss = loss_after(
            self.problem,
            point.optimizer,
            blank.batch_size,
            point.steps,
            backend=self.tuning.backend,
        )
        return replace(
            blank, steps=point.steps, optimizer=point.optimizer, loss=float(loss)
        )

    def _edge(self, optimizer: Optimizer) -> float:
        """Return the learning rate at which an optimizer becomes unstable."""
        return optimizer.max_stable_rate / float(self.problem.rates.max())

    def _why(self, choices: list[Optimizer], size: float) -> str:
        """Return why none of the choices reaches the target."""
        wild = [choice for choice in choices if choice.lr >= self._edge(choice)]
        if len(wild) == len(choices):
            near = min(wild, key=lambda choice: choice.lr / self._edge(choice))
            return (
                f"lr {near.lr:.4g} is not below the stability edge, "
                f"{self._edge(near):.4g}"
            )
        if len(choices) == 1:
            settled = steady_state_risk(self.problem, choices[0], size)
            if settled > self.target:
                return f"the loss settles at {settled:.4g}, above the target"
        return "no given setting reaches the target"

    def _finish(self, cell: TableCell) -> TableCell:
        """Return the cell held to the limit of steps, and settled where asked."""
        most = self.tuning.max_steps
        if cell.steps is None:
            return cell
        if most is not None and cell.steps > most:
            return replace(
                cell,
                steps=None,
                optimizer=None,
                loss=None,
                schedule=None,
                why=f"needs {cell.steps:,} steps, more than {most:,}",
            )
        if not self.tuning.settling or cell.optimizer is None:
            return cell
        settled = settling(
            self.problem,
            cell.optimizer,
            cell.batch_size,
            self.target,
            backend=self.tuning.backend,
        )
        return replace(cell, settling_steps=settled)


def _pieces_of(schedule: Schedule) -> tuple[Piece, ...]:
    """Return a schedule as pieces; a shape is cut, each piece at its mean rate."""
    if isinstance(schedule, PiecewiseSchedule):
        return schedule.pieces
    cuts = [part for part in np.array_split(schedule.lrs(), GROWN_PIECES) if part.size]
    return tuple(
        Piece(steps=cut.size, lr=float(cut.mean()), batch_size=schedule.batch_size)
        for cut in cuts
    )


def _has_momentum(name: OptimizerName) -> bool:
    return name.startswith(("momentum", "nesterov"))
