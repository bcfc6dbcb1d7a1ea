"""A walk of one draw: the noisy iteration itself, and what its meters would read."""

from collections import deque

import numpy as np

from rightbatch.errors import InputError
from rightbatch.noise_scale import GradientMoments
from rightbatch.quadratic import NoisyQuadratic, Optimizer
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.simulation.walk import Measured, exact_noise_scale

MAX_DIRECTIONS = 1_000_000


class SampledWalk:
    """One run on a noisy quadratic, drawn from a seed.

    Every direction a curvature stands for is drawn for itself, a part of one as a
    direction of that weight. An example's loss is ``L(x) + n . x`` with n its gradient
    noise, so that gradients and losses of a batch tell of the same noise.

    Args:
        problem: What is minimised, without label noise; the start is normal with the
            given second moments.
        optimizer: With its settings; its lr is given at each step instead.
        seed: Of all draws.
        num_units: Equal parts of a batch that the moments are estimated from, at most
            one per example.
    """

    def __init__(
        self, problem: NoisyQuadratic, optimizer: Optimizer, seed: int, num_units: int
    ) -> None:
        place, self._weights = single_directions(problem.weights)
        # Apart from each other, so that measuring does not change the run.
        run, meter = np.random.SeedSequence(seed).spawn(2)
        self._draw = np.random.default_rng(run)
        self._draw_units = np.random.default_rng(meter)
        self._optimizer = optimizer
        self._num_units = num_units
        self._floor = problem.irreducible_loss
        self._curvatures = problem.curvatures[place]
        self._variances = problem.noise_variances[place]
        self._deviations = np.sqrt(self._variances)
        self._preconditioner = problem.preconditioner[place]
        self._loss_weights = 0.5 * self._weights * self._curvatures
        deviations = np.sqrt(problem.start[place])
        self._x = deviations * self._draw.standard_normal(len(place))
        self._u = np.zeros_like(self._x)
        self._y = self._x
        self._num_steps = 0
        self._window: deque[FloatArray] = deque()
        self._window_sum = np.zeros_like(self._x)

    @property
    def loss(self) -> float:
        """The loss of this draw now, at the average where there is one."""
        return self._loss_at(self._y)

    def step(self, lr: float, batch_size: float, wanted: frozenset[str]) -> Measured:
        """Take one update.

        Args:
            lr: Its learning rate.
            batch_size: Its examples.
            wanted: Fields of :class:`Measured` to fill.

        Returns:
            What a meter reads off the batch; the noise scale and the inner-product
            variance are those of the point itself, as a perfect meter would show.
        """
        noise = self._deviations * self._draw.standard_normal(self._x.size)
        noise /= batch_size**0.5
        slope = self._curvatures * self._x
        gradient = slope + noise
        measured = Measured()
        if wanted:
            measured = self._measure(slope, noise, batch_size, wanted)
        self._num_steps += 1
        move = self._preconditioner * gradient
        if self._optimizer.has_momentum:
            m = self._optimizer.momentum
            self._u = m * self._u + move
            move = move + m * self._u if self._optimizer.is_nesterov else self._u
        self._x = self._x - lr * move
        self._read()
        return measured

    def _read(self) -> None:
        name = self._optimizer.name
        if self._optimizer.has_ema:
            self._y = self._y + (1 - self._optimizer.ema_decay) * (self._x - self._y)
        elif name == "average":
            self._y = self._y + (self._x - self._y) / self._num_steps
        elif name == "tail-average":
            self._window.append(self._x)
            self._window_sum = self._window_sum + self._x
            length = max(1, round(self._optimizer.tail_fraction * self._num_steps))
            while len(self._window) > length:
                self._window_sum = self._window_sum - self._window.popleft()
            self._y = self._window_sum / length
        else:
            self._y = self._x

    def _loss_at(self, point: FloatArray) -> float:
        return self._floor + float(self._loss_weights @ (point * point))

    def _measure(
        self,
        slope: FloatArray,
        noise: FloatArray,
        batch_size: float,
        wanted: frozenset[str],
    ) -> Measured:
        weights = self._weights
        sq_norm = float(weights @ (slope + noise) ** 2)
        batch_loss = self._loss_at(self._x) + float(weights @ (noise * self._x))
        spread = float(weights @ (self._variances * slope**2))
        here = GradientMoments(
            grad_sq_norm=float(weights @ slope**2),
            grad_variance=float(weights @ self._variances),
        )
        return Measured(
            batch_loss if "batch_loss" in wanted else None,
            sq_norm if "batch_grad_sq_norm" in wanted else None,
            self._estimate(sq_norm, batch_size) if "moments" in wanted else None,
            exact_noise_scale(here) if "noise_scale" in wanted else None,
            spread if "inner_product_variance" in wanted else None,
        )

    def _estimate(self, sq_norm: float, batch_size: float) -> GradientMoments | None:
        # R equal units: T is a sum of chi-squares with R - 1 degrees of freedom, and
        # independent of the batch's mean gradient, since the noise is normal.
        freedom = min(self._num_units, int(batch_size)) - 1
        if freedom < 1:
            return None
        squares = self._draw_units.chisquare(freedom, self._x.size) / freedom
        variance = float(self._weights @ (self._variances * squares))
        return GradientMoments(
            grad_sq_norm=sq_norm - variance / batch_size, grad_variance=variance
        )


def single_directions(weights: FloatArray) -> tuple[np.ndarray, FloatArray]:
    """Return each direction for itself: where it comes from and its weight.

    Args:
        weights: How many directions each place stands for, shape (n,).

    Returns:
        Places, shape (d,), and weights of one, or what is left over, shape (d,).

    Raises:
        InputError: There are more than a million of them.

    Example:
        >>> place, weight = single_directions(np.array([2.5, 1.0]))
        >>> place.tolist(), weight.tolist()
        ([0, 0, 0, 1], [1.0, 1.0, 0.5, 1.0])
    """
    counts = np.ceil(weights)
    if counts.sum() > MAX_DIRECTIONS:
        raise InputError(
            f"simulate: a draw follows at most {MAX_DIRECTIONS:,} directions, got "
            f"{counts.sum():,.0f}.",
            "leave `seed` out: the expected loss needs each curvature only once",
        )
    counts = counts.astype(int)
    place = np.repeat(np.arange(weights.size), counts)
    single = np.ones(place.size)
    single[np.cumsum(counts) - 1] = weights - counts + 1
    return place, single
