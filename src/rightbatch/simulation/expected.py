r"""A walk of expectations: second moments pushed through every update, exactly.

Directions do not mix, so all there is to know of one are the second moments of its
iterate x, its momentum buffer u and the average y that the loss is read at. With the
gradient ``G = p (h x + n)``, one update is

.. math::
    u' = m u + G, \quad x' = x - lr\,d, \quad y' = g y + (1 - g) x'

where d is u' (heavy ball), G + m u' (Nesterov) or G; the moments of the left sides are
those of the right ones, G's noise being new. The mean of all iterates is a moving
average whose decay is 1 - 1/k at update k. A tail average also needs the products of
each iterate in its window with the newest.
"""

import numpy as np

from rightbatch.errors import InputError
from rightbatch.noise_scale import GradientMoments
from rightbatch.quadratic import NoisyQuadratic, Optimizer
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.simulation.walk import Measured, exact_noise_scale

# Numbers a tail average may keep of its window, three per iterate and direction.
_WINDOW_NUMBERS = 20_000_000


class ExpectedWalk:
    """The expected loss of a run on a noisy quadratic, update by update.

    Args:
        problem: What is minimised, without label noise.
        optimizer: With its settings; its lr is given at each step instead.
    """

    def __init__(self, problem: NoisyQuadratic, optimizer: Optimizer) -> None:
        self._problem = problem
        self._optimizer = optimizer
        self._rates = problem.rates
        self._step_noise = problem.step_noise
        self._sq_weights = problem.weights * problem.curvatures**2
        self._grad_variance = float(problem.weights @ problem.noise_variances)
        start, none = problem.start, np.zeros_like(problem.start)
        self._xx, self._xu, self._uu = start, none, none
        self._xy, self._uy, self._yy = start, none, start
        self._num_steps = 0
        self._tail = Tail(optimizer) if optimizer.name == "tail-average" else None

    @property
    def loss(self) -> float:
        """The expected loss now, at the average where there is one."""
        return self._problem.loss(self._yy)

    def step(self, lr: float, batch_size: float, wanted: frozenset[str]) -> Measured:
        """Take one update.

        Args:
            lr: Its learning rate.
            batch_size: Its examples.
            wanted: Fields of :class:`Measured` to fill.

        Returns:
            Expectations at the point before the update.
        """
        measured = self._measure(batch_size, wanted) if wanted else Measured()
        self._num_steps += 1
        noise = self._step_noise / batch_size
        if self._optimizer.has_momentum:
            self._move_with_momentum(lr, noise)
        else:
            keep = 1 - lr * self._rates
            self._xx = keep * keep * self._xx + lr * lr * noise
            self._xy = keep * self._xy
            if self._tail is not None:
                self._yy = self._tail.after(keep, self._xx)
        if self._optimizer.has_ema or self._optimizer.name == "average":
            self._average()
        elif self._tail is None:
            self._yy = self._xx
        return measured

    def _move_with_momentum(self, lr: float, noise: FloatArray) -> None:
        # E of products: `xg` is E x G, `gg` is E G G, `xb` is E x u', and so on.
        m, nesterov = self._optimizer.momentum, self._optimizer.is_nesterov
        xg, ug = self._rates * self._xx, self._rates * self._xu
        gg = self._rates * xg + noise
        xb, bb = m * self._xu + xg, m * (m * self._uu + 2 * ug) + gg
        xd, bd, dd = xb, bb, bb
        if nesterov:
            gb = m * ug + gg
            xd, bd, dd = xg + m * xb, gb + m * bb, gg + m * (2 * gb + m * bb)
        self._xx = self._xx - lr * (2 * xd - lr * dd)
        self._xu, self._uu = xb - lr * bd, bb
        if self._optimizer.has_ema:
            gy = self._rates * self._xy
            by = m * self._uy + gy
            self._xy = self._xy - lr * (gy + m * by if nesterov else by)
            self._uy = by

    def _average(self) -> None:
        averages = self._optimizer.name == "average"
        new = 1 / self._num_steps if averages else 1 - self._optimizer.ema_decay
        old = 1 - new
        self._yy = old * (old * self._yy + 2 * new * self._xy) + new * new * self._xx
        self._xy = old * self._xy + new * self._xx
        if self._optimizer.has_momentum:
            self._uy = old * self._uy + new * self._xu

    def _measure(self, batch_size: float, wanted: frozenset[str]) -> Measured:
        problem = self._problem
        moments = GradientMoments(
            grad_sq_norm=float(self._sq_weights @ self._xx),
            grad_variance=self._grad_variance,
        )
        spread = None
        if "inner_product_variance" in wanted:
            spread = float((self._sq_weights * problem.noise_variances) @ self._xx)
        return Measured(
            problem.loss(self._xx) if "batch_loss" in wanted else None,
            moments.batch_grad_sq_norm(batch_size)
            if "batch_grad_sq_norm" in wanted
            else None,
            moments if "moments" in wanted else None,
            exact_noise_scale(moments) if "noise_scale" in wanted else None,
            spread,
        )


class Tail:
    """Second moment of the mean of the last iterates of SGD, however many those are.

    For every iterate x_j of the window it keeps E x_j^2, E x_j x_k with the newest, and
    the sum of E x_j x_i over the later ones, itself included.

    Args:
        optimizer: Whose `tail_fraction` of the k iterates, rounded, is the window.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._fraction = optimizer.tail_fraction
        self._num_steps = self._first = self._end = 0
        self._kept: FloatArray = np.empty((3, 0, 0))

    def after(self, keep: FloatArray, square: FloatArray) -> FloatArray:
        """Return the average's second moment after one more update.

        Args:
            keep: What the update leaves of an iterate, 1 - lr p h. Shape (n,).
            square: E x^2 after it. Shape (n,).

        Returns:
            E y^2, shape (n,).
        """
        self._num_steps += 1
        if self._end == self._kept.shape[1]:
            self._make_room(square.size)
        self._kept[:, self._end] = square
        _, newest, sums = self._kept[:, self._first : self._end]
        newest *= keep
        sums += newest
        self._end += 1
        length = max(1, round(self._fraction * self._num_steps))
        self._first = self._end - length
        window = self._kept[:, self._first : self._end]
        return (2 * window[2] - window[0]).sum(axis=0) / length**2

    def _make_room(self, num_dims: int) -> None:
        window = self._kept[:, self._first : self._end]
        length = self._end - self._first
        room = max(64, 2 * length)
        if 3 * room * num_dims > _WINDOW_NUMBERS:
            raise InputError(
                f"simulate: a tail average of {length} iterates in {num_dims} "
                "directions does not fit in memory.",
                "bin the spectrum, or take fewer steps or a smaller tail_fraction",
            )
        kept = np.empty((3, room, num_dims))
        if length:
            kept[:, :length] = window
        self._kept, self._first, self._end = kept, 0, length
