r"""How low and how high the loss can be between two numbers of steps.

What noise leaves is a sum of squares that only grows with the steps (for an average,
before it is divided by their number), and the mean of a direction that does not
oscillate only falls. The mean of one that does lies between 0 and an envelope: with
roots of modulus at most rho,

.. math:: |a_k| \le |a_1|\, \bar b_{k-1} + |m|\, \bar b_{k-2}, \qquad
          \bar b_k = \min\left((k+1)\rho^k, \frac{2\rho^{k+1}}{|R - r|}\right)

so that the loss needs no look at every step where these bounds already decide.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rightbatch.quadratic.optimizers import Optimizer, OptimizerName
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.recursions.doubling import IntArray
from rightbatch.quadratic.recursions.powers import Backend, moments_after, num_averaged
from rightbatch.quadratic.recursions.transition import Settings, settings_of
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.steady_state import Characteristic, characteristic


class Points(NamedTuple):
    """Moments at m numbers of steps.

    Args:
        steps: Increasing, at least 2. Shape (m,).
        squares: Squared means of what the loss is read at. Shape (m, n).
        noise: Variances of the same, with noise of variance one. Shape (m, n).
        fresh: Of an average, the variance of its sum with the noise of its own steps;
            else the same as `noise`.
        averaged: How many steps are averaged; else one. Shape (m,).
    """

    steps: IntArray
    squares: FloatArray
    noise: FloatArray
    fresh: FloatArray
    averaged: IntArray

    def cut(self, part: slice) -> "Points":
        """Return some of the points."""
        return Points(
            self.steps[part],
            self.squares[part],
            self.noise[part],
            self.fresh[part],
            self.averaged[part],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Envelope:
    """Bounds of the loss of one optimizer at one batch size.

    Args:
        problem: What is minimised; without label noise.
        optimizer: With its settings.
        batch_size: Examples per step.
        backend: numpy, numba, or whichever is there.
    """

    problem: NoisyQuadratic
    optimizer: Optimizer
    batch_size: float
    backend: Backend = "auto"
    poly: Characteristic = field(init=False)
    calm: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        poly = characteristic(self.problem, self.optimizer)
        object.__setattr__(self, "poly", poly)
        object.__setattr__(self, "calm", _calm(poly, self.optimizer))

    def points(self, steps: IntArray) -> Points:
        """Return the moments at numbers of steps, shape (m,)."""
        mean, noise = self._moments(self.optimizer.name, steps)
        count, fresh = np.ones_like(steps), noise
        if self.optimizer.averages:
            count = num_averaged(self._share, steps)
            alone = self._moments("average", count)[1]
            fresh = alone * count[:, None].astype(float) ** 2
        return Points(steps, mean**2, noise, fresh, count)

    def losses(self, at: Points) -> FloatArray:
        """Return the losses themselves, shape (m,)."""
        return self._loss(at.squares, at.noise)

    def lowest(self, at: Points) -> FloatArray:
        """Return bounds from below between one point and the next, shape (m - 1,)."""
        first, last = at.cut(slice(None, -1)), at.cut(slice(1, None))
        squares = np.where(self.calm, np.minimum(first.squares, last.squares), 0)
        return self._loss(squares, first.fresh / _column(last.averaged) ** 2)

    def highest(self, at: Points) -> FloatArray:
        """Return bounds from above between one point and the next, shape (m - 1,)."""
        first, last = at.cut(slice(None, -1)), at.cut(slice(1, None))
        noise = last.noise
        if self.optimizer.averages:
            total = last.fresh + self._before()
            noise = np.minimum(total / _column(first.averaged) ** 2, self._settled())
        squares = np.maximum(first.squares, last.squares)
        return self._loss(self._most(squares, first), noise)

    def highest_ever(self, at: Points, settled: FloatArray) -> FloatArray:
        """Return bounds from above at each point and at all that follow it.

        Args:
            at: The points.
            settled: Second moments that noise keeps up, shape (n,); not of an average.
        """
        squares = self._most(at.squares, at)
        if not self.optimizer.averages:
            risk = squares * self.problem.start + settled
            return self.problem.irreducible_loss + risk @ self.problem.loss_weights
        count = _column(at.averaged)
        fresh = (self.optimizer.lr * self._swing / self.poly.at_one) ** 2 / count
        noise = np.minimum(fresh + self._before() / count**2, self._settled())
        return self._loss(squares, noise)

    @property
    def _share(self) -> float:
        whole = self.optimizer.name == "average"
        return 1.0 if whole else self.optimizer.tail_fraction

    @property
    def _swing(self) -> FloatArray:
        """The most that 1 - (1 - x)^n can be."""
        return 1 + np.maximum(self.poly.at_one - 1, 0)

    def _settled(self) -> FloatArray:
        """Return the variance SGD settles at; that of a mean of iterates is less."""
        return self.optimizer.lr**2 / (self.poly.at_one * self.poly.at_minus_one)

    def _before(self) -> FloatArray:
        """Return the most that noise from before an average adds to its sum."""
        if self.optimizer.name == "average":
            return np.zeros_like(self.poly.at_one)
        keep = np.abs(1 - self.poly.at_one)
        return (keep * self._swing / self.poly.at_one) ** 2 * self._settled()

    def _most(self, squares: FloatArray, at: Points) -> FloatArray:
        """Return squared means where they only fall, and their envelope elsewhere."""
        calm = self.calm
        if calm.all():
            return squares
        bound = self._mean_bound(_column(at.steps), _column(at.averaged))
        return np.where(calm, squares, bound**2)

    def _mean_bound(self, k: FloatArray, count: FloatArray) -> FloatArray:
        optimizer, poly = self.optimizer, self.poly
        if not optimizer.has_momentum:
            keep = np.abs(1 - poly.at_one)
            if optimizer.has_ema:
                return np.maximum(keep, optimizer.ema_decay) ** k
            return keep ** (k - count + 1) * self._swing / (poly.at_one * count)
        if not optimizer.has_ema:
            return _iterate_bound(poly, optimizer, k)
        # The moving average of what is below a bound: the first half of the steps is
        # forgotten as far as the decay goes, the second is below its first.
        most = np.maximum(1, _iterate_bound(poly, optimizer, np.full_like(k, 2)))
        g = optimizer.ema_decay
        half = np.maximum(np.floor(k / 2), 2)
        late = _iterate_bound(poly, optimizer, half)
        return g**k + g ** (k - half) * most + late

    def _moments(
        self, name: OptimizerName, steps: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        one = settings_of(self.optimizer)
        settings = Settings(*(np.repeat(part, steps.size) for part in one))
        found = moments_after(
            name,
            settings,
            self.problem.rates,
            steps,
            tail_fraction=self.optimizer.tail_fraction,
            backend=self.backend,
        )
        return found.mean, found.variance

    def _loss(self, squares: FloatArray, noise: FloatArray) -> FloatArray:
        scale = self.problem.step_noise / self.batch_size
        with np.errstate(over="ignore", invalid="ignore"):
            risk = squares * self.problem.start + noise * scale
            losses = self.problem.irreducible_loss + risk @ self.problem.loss_weights
        return np.where(np.isnan(losses), np.inf, losses)


def _calm(poly: Characteristic, optimizer: Optimizer) -> NDArray[np.bool_]:
    """Return where the mean never changes sign nor grows.

    With real roots 0 <= r <= R < 1 and R >= m the buffer only pushes towards the
    minimum, and not past it: (R - r) a_k = (a_1 - r) R^k + (R - a_1) r^k, both terms
    positive as a_1 = R + r - m.
    """
    if optimizer.name == "sgd":
        return np.ones(poly.at_one.shape, dtype=bool)
    calm = poly.at_one <= 1
    if optimizer.has_momentum:
        calm &= (poly.discriminant >= 0) & (poly.radius >= optimizer.momentum)
        calm &= poly.at_minus_one >= poly.at_one  # the sum of the roots is positive
    return calm


def _iterate_bound(
    poly: Characteristic, optimizer: Optimizer, k: FloatArray
) -> FloatArray:
    """Return the most that the mean of the iterates can be from step k >= 2 on."""
    first = 1 - poly.at_one * (1 + optimizer.momentum * optimizer.is_nesterov)
    apart = np.sqrt(np.abs(poly.discriminant))
    now = _response_bound(poly.radius, apart, k - 1)
    before = _response_bound(poly.radius, apart, k - 2)
    return np.abs(first) * now + np.abs(poly.product) * before


def _response_bound(radius: FloatArray, apart: FloatArray, k: FloatArray) -> FloatArray:
    """Return the most that b_j can be from j = k on."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        log = np.log(radius)
        top = np.maximum(k, -1 / log - 1)  # where (j + 1) radius^j is largest
        together = (top + 1) * np.exp(top * log)
        bound = np.minimum(together, 2 * np.exp((k + 1) * log) / apart)
    return np.where(radius < 1, bound, np.inf)


def _column(values: IntArray) -> FloatArray:
    return values[:, None].astype(float)
