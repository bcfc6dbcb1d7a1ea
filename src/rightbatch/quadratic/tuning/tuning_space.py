"""An optimizer's settings as coordinates, and where a search over them stands."""

from dataclasses import dataclass

import numpy as np

from rightbatch.quadratic.dynamics import loss_parts
from rightbatch.quadratic.optimizers import Optimizer, OptimizerName
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.recursions.doubling import IntArray
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.recursions.transition import Settings
from rightbatch.quadratic.spectrum import FloatArray

_NEAREST = 1 - 1e-15  # to the stability edge, in shares of it
_HIGH_START = 1e10
_FARTHEST = 34.0  # past it a float can tell no difference


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Where the search stands, for m starts.

    Args:
        places: Which batch size each belongs to. Shape (m,).
        sizes: The batch sizes. Shape (m,).
        points: Coordinates of the settings. Shape (m, d).
        steps: A number of steps after which the target is reached. Shape (m,).
    """

    places: IntArray
    sizes: FloatArray
    points: FloatArray
    steps: IntArray

    def pick(self, rows: IntArray) -> "Cells":
        """Return some of them."""
        return Cells(
            self.places[rows], self.sizes[rows], self.points[rows], self.steps[rows]
        )

    def join(self, other: "Cells") -> "Cells":
        """Return these cells and others after them."""
        return Cells(
            np.concatenate([self.places, other.places]),
            np.concatenate([self.sizes, other.sizes]),
            np.concatenate([self.points, other.points]),
            np.concatenate([self.steps, other.steps]),
        )

    def put(self, rows: IntArray, cells: "Cells") -> "Cells":
        """Return these cells with some of them replaced."""
        points, steps = self.points.copy(), self.steps.copy()
        points[rows], steps[rows] = cells.points, cells.steps
        return Cells(self.places, self.sizes, points, steps)


class Space:
    """The settings of one optimizer as coordinates without bounds but zero.

    Args:
        problem: What is minimised.
        name: The optimizer.
        target: The loss to reach.
        tail_fraction: What a tail average takes.
        backend: numpy, numba, or whichever is there.
    """

    def __init__(
        self,
        problem: NoisyQuadratic,
        name: OptimizerName,
        target: float,
        tail_fraction: float,
        backend: Backend,
    ) -> None:
        self.problem = problem
        self.name: OptimizerName = name
        self.goal = target - problem.irreducible_loss
        self.tail_fraction = tail_fraction
        self.backend: Backend = backend
        momentum = name.startswith(("momentum", "nesterov"))
        self.tuned = ("lr", "momentum", "ema_decay")[: 1 + momentum] + (
            ("ema_decay",) if name.endswith("ema") else ()
        )
        # What has decayed keeps its digits where it would show in the loss.
        self.exact = problem.initial_loss > _HIGH_START * self.goal
        self._top = float(problem.rates.max())

    @property
    def num_dims(self) -> int:
        """How many settings are searched."""
        return len(self.tuned)

    @property
    def limits(self) -> FloatArray:
        """The largest value of each coordinate: momentum and EMA decay of zero."""
        return np.array([_FARTHEST, *([0.0] * (self.num_dims - 1))])

    def tunes(self, setting: str) -> bool:
        """Return whether a setting is searched."""
        return setting in self.tuned

    def edge(self, gap: FloatArray | float) -> FloatArray | float:
        """Return the lr at which an optimizer with 1 - momentum = `gap` is unstable."""
        ahead = 2 * (1 - gap) if self.name.startswith("nesterov") else 0.0
        return 2 * (2 - gap) / (1 + ahead) / self._top

    def settings(self, points: FloatArray) -> Settings:
        """Return the settings at points of shape (m, d)."""
        gap = self._gap(points, "momentum")
        shift = points[:, 0] + np.log(gap)
        lr = self.edge(gap) / (1 + np.exp(-shift))
        return Settings(lr, gap, self._gap(points, "ema_decay"))

    def locate(self, settings: Settings) -> FloatArray:
        """Return the points of settings, shape (m, d)."""
        share = settings.lr / self.edge(settings.inertia_gap)
        share = np.minimum(share, _NEAREST)
        first = np.log(share / (1 - share)) - np.log(settings.inertia_gap)
        columns = {
            "lr": first,
            "momentum": np.log(settings.inertia_gap),
            "ema_decay": np.log(settings.ema_gap),
        }
        return np.stack([columns[setting] for setting in self.tuned], axis=1)

    def optimizer(self, points: FloatArray) -> Optimizer:
        """Return the optimizer at the first point."""
        lr, gap, ema_gap = (float(part[0]) for part in self.settings(points))
        return Optimizer(
            name=self.name,
            lr=lr,
            momentum=1 - gap,
            ema_decay=1 - ema_gap,
            tail_fraction=self.tail_fraction,
        )

    def height(
        self, points: FloatArray, steps: IntArray, sizes: FloatArray
    ) -> FloatArray:
        """Return log(loss / target), both above the irreducible loss. Shape (m,)."""
        parts = loss_parts(
            self.problem,
            self.name,
            self.settings(points),
            steps,
            tail_fraction=self.tail_fraction,
            exact=self.exact,
            backend=self.backend,
        )
        with np.errstate(divide="ignore", over="ignore"):
            return np.log(parts.at(sizes) / self.goal)

    def heights(
        self, points: FloatArray, rungs: IntArray, sizes: FloatArray
    ) -> FloatArray:
        """Return the heights at several numbers of steps each, shape (m, r)."""
        count = rungs.shape[1]
        flat = self.height(
            np.repeat(points, count, axis=0), rungs.ravel(), np.repeat(sizes, count)
        )
        return flat.reshape(rungs.shape)

    def heights_at(
        self, trials: FloatArray, steps: IntArray, sizes: FloatArray
    ) -> FloatArray:
        """Return the heights of several trials each, (m, r, d), shape (m, r)."""
        m, count, d = trials.shape
        flat = self.height(
            trials.reshape(-1, d), np.repeat(steps, count), np.repeat(sizes, count)
        )
        return flat.reshape(m, count)

    def _gap(self, points: FloatArray, setting: str) -> FloatArray:
        if setting not in self.tuned:
            return np.ones(len(points))
        return np.exp(points[:, self.tuned.index(setting)])
