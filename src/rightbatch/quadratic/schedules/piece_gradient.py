r"""The loss of any optimizer after pieces of constant settings, and its gradient.

Along one direction a piece maps the state z to R z and adds a covariance Q. With the
state before piece k passed forward, mean z and covariance S, and the row r that reads
the loss behind it passed back,

.. math:: L = \tfrac12 \sum w h \left((r R z)^2 s + \frac{p^2 c}{B}
              (r R S R' r' + r Q r')\right) + \text{noise of later pieces}

so the derivative by a setting of one piece needs that piece's R and Q alone, and those
come from central differences: one pass for all pieces, another for all derivatives.
"""

import numpy as np

from rightbatch.quadratic.optimizers import Optimizer, OptimizerName
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.recursions.doubling import IntArray, unit_row
from rightbatch.quadratic.recursions.powers import Backend, carry
from rightbatch.quadratic.recursions.transition import (
    Settings,
    begin_of,
    coefficients,
    layout_of,
)
from rightbatch.quadratic.spectrum import FloatArray

_WIDTH = 1e-5


class PieceGradient:
    """The loss at a point: log(lr / cap) of n pieces, then log(1 - momentum) and so on.

    Args:
        problem: What is minimised.
        name: The optimizer; not SGD, not a tail average.
        batch_size: Examples per step.
        log_top: Of the largest learning rate; None for the optimizer's own edge.
        backend: numpy, numba, or whichever is there.
    """

    def __init__(
        self,
        problem: NoisyQuadratic,
        name: OptimizerName,
        batch_size: float,
        log_top: float | None,
        backend: Backend,
    ) -> None:
        self.problem = problem
        self.name: OptimizerName = name
        self.noise = problem.loss_weights * problem.step_noise / batch_size
        self.bias = problem.loss_weights * problem.start
        self.log_top = log_top
        self.backend: Backend = backend
        self.has_momentum = name.startswith(("momentum", "nesterov"))
        self.has_ema = name.endswith("ema")
        self.layout = layout_of(name)

    @property
    def capped(self) -> bool:
        """Whether there is a largest learning rate."""
        return self.log_top is None or self.log_top < np.inf

    def point(self, optimizer: Optimizer) -> FloatArray:
        """Return the point of one piece with the settings of an optimizer."""
        gaps = [1 - optimizer.momentum] * self.has_momentum
        rest = np.log([*gaps, *([1 - optimizer.ema_decay] * self.has_ema)])
        gap = np.array([1 - optimizer.momentum])
        first = np.log(optimizer.lr) - self._log_caps(gap)
        return np.concatenate([np.minimum(first, 0) if self.capped else first, rest])

    def adopt(self, log_lrs: FloatArray) -> FloatArray:
        """Return the point without momentum and average that has these rates."""
        rest = np.zeros(self.has_momentum + self.has_ema)
        return np.concatenate([log_lrs - self._log_caps(np.ones(1)), rest])

    def settings(
        self, point: FloatArray, num: int
    ) -> tuple[tuple[float, ...], Optimizer]:
        """Return the learning rates at a point, and the optimizer with the largest."""
        lr, gap, ema_gap = self._settings(np.tile(point[num:], (num, 1)), point[:num])
        lrs = tuple(float(value) for value in lr)
        optimizer = Optimizer(
            name=self.name,
            lr=max(lrs),
            momentum=float(1 - gap[0]),
            ema_decay=float(1 - ema_gap[0]),
        )
        return lrs, optimizer

    def expand(self, point: FloatArray, counts: FloatArray) -> tuple[float, FloatArray]:
        """Return the loss above the irreducible one and its gradient at a point.

        Args:
            point: Shape (n + extras,).
            counts: Whole steps of each piece. Shape (n,).

        Returns:
            The loss and the gradient, of the shape of `point`; not finite past what a
            float holds.
        """
        num, steps = counts.size, counts.astype(np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            means, covariances, maps = self._forward(point, steps)
            rows = np.empty((num + 1, *means.shape[1:]))
            rows[num] = unit_row(self.layout, self.problem.rates.size)
            for k in reversed(range(num)):
                rows[k] = np.einsum("jd,jid->id", rows[k + 1], maps[k])
            scale = float(steps.sum()) ** 2 if self.name == "average" else 1.0
            last = num, slice(None)
            loss = self._read(rows[last], means[last], covariances[last]) / scale
            gradient = self._gradient(point, steps, (means, covariances, rows))
        return float(loss), gradient / scale

    def _forward(
        self, point: FloatArray, steps: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return means (n+1, r, d), covariances (n+1, r, r, d), maps (n, r, r, d)."""
        num, size = steps.size, self.problem.rates.size
        parts = 1 + sum(self.layout)
        pairs = [(i, j) for i in range(parts) for j in range(i)]
        eye = np.eye(parts)
        read = np.array([*eye, *(eye[i] + eye[j] for i, j in pairs)])
        # Every piece is read by every row: runs ordered by piece, then by row.
        row = np.repeat(np.tile(read, (num, 1)).T[:, :, None], size, axis=2)
        extras = np.tile(point[num:], (num * len(read), 1))
        settings = self._settings(extras, np.repeat(point[:num], len(read)))
        moved, noise = self._carry(settings, row, np.repeat(steps, len(read)))
        moved = moved.reshape(parts, num, len(read), size)
        noise = noise.reshape(num, len(read), size)
        maps = moved[:, :, :parts].transpose(1, 2, 0, 3)
        added = np.empty((num, parts, parts, size))
        for i in range(parts):
            added[:, i, i] = noise[:, i]
        for place, (i, j) in enumerate(pairs):
            both = noise[:, parts + place] - noise[:, i] - noise[:, j]
            added[:, i, j] = added[:, j, i] = both / 2
        means = np.zeros((num + 1, parts, size))
        covariances = np.zeros((num + 1, parts, parts, size))
        means[0, 0] = 1.0
        if begin_of(self.name):
            means[0, -1] = begin_of(self.name)
        for k in range(num):
            means[k + 1] = np.einsum("ijd,jd->id", maps[k], means[k])
            half = np.einsum("ijd,jkd->ikd", maps[k], covariances[k])
            covariances[k + 1] = np.einsum("ikd,lkd->ild", half, maps[k]) + added[k]
        return means, covariances, maps

    def _gradient(
        self,
        point: FloatArray,
        steps: IntArray,
        passed: tuple[FloatArray, FloatArray, FloatArray],
    ) -> FloatArray:
        means, covariances, rows = passed
        num, extras = steps.size, point.size - steps.size
        # Just below the cap: beyond it a long piece overflows.
        log_lrs = np.minimum(point[:num], -_WIDTH) if self.capped else point[:num]
        rest = np.minimum(point[num:], -_WIDTH)
        sides = _WIDTH * np.array([1.0, -1.0])
        # Runs ordered by setting, then by side, then by piece.
        shape = (1 + extras, 2, num)
        shifted = np.broadcast_to(log_lrs, shape).copy()
        shifted[0] += sides[:, None]
        others = np.broadcast_to(rest, (*shape, extras)).copy()
        for place in range(extras):
            others[1 + place, :, :, place] += sides[:, None]
        settings = self._settings(others.reshape(shifted.size, extras), shifted.ravel())
        runs = 2 * (1 + extras)
        row = np.tile(rows[1:], (runs, 1, 1)).transpose(1, 0, 2)
        moved, noise = self._carry(settings, row, np.tile(steps, runs))
        moved = moved.reshape(row.shape[0], runs, num, -1)
        read = np.einsum("irkd,kid->rkd", moved, means[:-1]) ** 2 @ self.bias
        spread = np.einsum("irkd,kijd,jrkd->rkd", moved, covariances[:-1], moved)
        spread += noise.reshape(spread.shape)
        losses = (read + spread @ self.noise).reshape(1 + extras, 2, num)
        slopes = (losses[:, 0] - losses[:, 1]) / (2 * _WIDTH)
        return np.concatenate([slopes[0], slopes[1:].sum(axis=1)])

    def _read(
        self, row: FloatArray, mean: FloatArray, covariance: FloatArray
    ) -> FloatArray:
        left = np.einsum("id,id->d", row, mean) ** 2
        spread = np.einsum("id,ijd,jd->d", row, covariance, row)
        return left @ self.bias + spread @ self.noise

    def _carry(
        self, settings: Settings, row: FloatArray, steps: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        co = coefficients(self.name, settings)
        found = carry(
            self.layout,
            co,
            self.problem.rates,
            np.ascontiguousarray(row),
            steps,
            backend=self.backend,
        )
        return found.row, found.variance

    def _settings(self, extras: FloatArray, log_shares: FloatArray) -> Settings:
        """Return settings of m runs, `extras` (m, e) and log shares of the cap (m,)."""
        one = np.ones(log_shares.size)
        gap = np.exp(extras[:, 0]) if self.has_momentum else one
        ema_gap = np.exp(extras[:, -1]) if self.has_ema else one
        return Settings(np.exp(log_shares + self._log_caps(gap)), gap, ema_gap)

    def _log_caps(self, gap: FloatArray) -> FloatArray:
        if self.log_top is not None and self.log_top < np.inf:
            return np.full(gap.shape, self.log_top)
        momentum = 1 - gap
        ahead = 2 * momentum * self.name.startswith("nesterov")
        return np.log(2 * (1 + momentum) / (1 + ahead) / self.problem.rates.max())
