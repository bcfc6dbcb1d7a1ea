r"""The exact loss where the noise comes from data: linear regression with label noise.

Features are Gaussian with covariance H, labels linear in them plus noise of variance
sigma^2. One example's gradient along direction i then has the variance

.. math:: c_i + h_i^2 s_i + h_i \sum_j w_j h_j s_j + \sigma^2 h_i

with s the second moments where the gradient is taken: it falls with the loss, and
couples the directions through one sum. The first term is the problem's own `noise`;
give ``Noise(curvature=0)`` for the regression alone. Second moments of all directions
follow one linear map, which is exact: stepped, or squared for many steps at once.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.optimizers import Optimizer
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.spectrum import FloatArray
from rightbatch.quadratic.steady_state import characteristic, steady_state_moments

LARGEST_MATRIX = 1500  # squaring one takes as long as thousands of plain steps
FEW_STEPS = 500


def loss_after(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: float, steps: int
) -> float:
    """Return the expected loss after some steps, exactly.

    Many steps of few directions are taken by squaring the map (milliseconds to a second
    for 84 nodes), of many directions one by one: bin such a problem first.

    Args:
        problem: With label noise.
        optimizer: Any, with its settings.
        batch_size: Examples per step.
        steps: How many, 0 or more.

    Returns:
        The loss, the irreducible one included; infinity where it overflows.

    Raises:
        InputError: The problem has no label noise or an argument is out of range.

    Example:
        >>> from rightbatch.quadratic.problem import Noise
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(
        ...     spectrum=Spectrum.inverse(100),
        ...     noise=Noise(curvature=0),
        ...     label_noise=0.1,
        ... )
        >>> sgd = Optimizer(name="sgd", lr=0.1)
        >>> round(loss_after(problem, sgd, batch_size=8, steps=1000), 4)
        0.0278
    """
    who = "label_noise.loss_after"
    batch = _checked(who, problem, batch_size)
    if _checks.nonnegative(who, "steps", steps) == 0:
        return problem.initial_loss
    num = _checks.positive_integer(who, "steps", steps)
    if not (problem.start.any() or _constant_noise(problem).any()):
        return problem.initial_loss  # a map that overflows would turn this into nan
    last = num
    if optimizer.name == "tail-average":
        last = max(1, round(optimizer.tail_fraction * num))
    moments = _first_moments(problem, optimizer)
    with np.errstate(over="ignore", invalid="ignore"):
        if last < num:
            moments = _map(problem, optimizer, batch, sums=False).power(
                moments, num - last
            )
        moments = _map(problem, optimizer, batch).power(moments, last)
    return _loss(problem, optimizer, moments, last)


def loss_curve(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: float, num_steps: int
) -> FloatArray:
    """Return the expected losses before the first step and after each one.

    Args:
        problem: With label noise.
        optimizer: Any but ``tail-average``, whose tail starts anew at every step.
        batch_size: Examples per step.
        num_steps: How many steps.

    Returns:
        Losses, shape (num_steps + 1,); infinity where one overflows.

    Raises:
        InputError: The problem has no label noise, the optimizer is a tail average, or
            an argument is out of range.
    """
    who = "label_noise.loss_curve"
    batch = _checked(who, problem, batch_size)
    num = _checks.positive_integer(who, "num_steps", num_steps)
    if optimizer.name == "tail-average":
        raise InputError(
            f"{who}: `optimizer` must not be a tail average.",
            "take loss_after at the steps wanted",
        )
    one_step = _map(problem, optimizer, batch)
    moments = _first_moments(problem, optimizer)
    losses = [problem.initial_loss]
    with np.errstate(over="ignore", invalid="ignore"):
        for done in range(1, num + 1):
            moments = one_step.step(moments)
            losses.append(_loss(problem, optimizer, moments, done))
    return np.array(losses)


def noise_feedback(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: float
) -> float:
    r"""Return how much noise the steady noise brings back: stable only below 1.

    .. math:: \rho = \sum_i w_i \frac{q_i}{1 - q_i},\quad q_i = h_i^2 V_i / B

    with V the steady second moment of the iterates for noise of variance 1, for SGD
    lr^2 p^2 / (x (2 - x)). Positive maps with a coupling of rank one diverge exactly
    from rho = 1 on. So lr has an edge that falls with the batch size, far below that of
    the curvatures at small ones. An average of the iterates does not move it.

    Args:
        problem: With label noise.
        optimizer: With its settings.
        batch_size: Examples per step.

    Returns:
        rho; infinity where a direction diverges by itself.

    Raises:
        InputError: The problem has no label noise or the batch size is not positive.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(1), label_noise=0.0)
        >>> round(noise_feedback(problem, Optimizer(name="sgd", lr=1.0), 4), 3)
        0.333
    """
    batch = _checked("noise_feedback", problem, batch_size)
    own = _own_feedback(problem, optimizer, batch)
    if own.max() >= 1:
        return float("inf")
    return float(problem.weights @ (own / (1 - own)))


def steady_state_risk(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: float
) -> float:
    r"""Return the expected loss after infinitely many steps at constant settings.

    With T = sum w h s of the iterates, V as in :func:`noise_feedback` and
    u = c + sigma^2 h, the steady state solves

    .. math:: T = \sum_i \frac{w_i h_i V_i u_i / B}{1 - q_i} + \rho T

    Args:
        problem: With label noise.
        optimizer: With its settings.
        batch_size: Examples per step.

    Returns:
        The loss, the irreducible one included: that one alone for a uniform or tail
        average, and infinity where the iterates diverge.

    Raises:
        InputError: The problem has no label noise or the batch size is not positive.
    """
    batch = _checked("label_noise.steady_state_risk", problem, batch_size)
    feedback = noise_feedback(problem, optimizer, batch)
    if feedback >= 1:
        return float("inf")
    own = _own_feedback(problem, optimizer, batch)
    constant = _constant_noise(problem)
    h = problem.curvatures
    total = float(problem.weights @ (own * constant / h / (1 - own))) / (1 - feedback)
    # Noise variance at the iterates, h^2 s solved for; then any average reads it.
    noise = (constant + h * total) / (1 - own)
    steady = replace(problem, noise=noise, label_noise=None)
    return steady.loss(steady_state_moments(steady, optimizer, batch))


@dataclass(frozen=True, slots=True)
class _Map:
    """One step of the moments v, shape (n, m); the first of each is s.

    Args:
        local: What each direction does by itself, shape (n, m, m).
        push: What one unit of noise variance adds, shape (n, m).
        constant: Noise variance that stays, shape (n,).
        curvatures: h: the noise variance has h times sum w h s. Shape (n,).
        pull: w h, shape (n,).
    """

    local: FloatArray
    push: FloatArray
    constant: FloatArray
    curvatures: FloatArray
    pull: FloatArray

    def step(self, moments: FloatArray) -> FloatArray:
        noise = self.constant + self.curvatures * (self.pull @ moments[:, 0])
        stepped = np.einsum("nij,nj->ni", self.local, moments)
        return stepped + self.push * noise[:, None]

    def power(self, moments: FloatArray, steps: int) -> FloatArray:
        """Return the moments after many steps."""
        if steps <= FEW_STEPS or moments.size > LARGEST_MATRIX:
            for _ in range(steps):
                moments = self.step(moments)
            return moments
        whole = self._matrix()
        state = np.append(moments, 1.0)
        while steps:
            if steps & 1:
                state = whole @ state
            steps >>= 1
            if steps:
                whole = whole @ whole
        return state[:-1].reshape(moments.shape)

    def _matrix(self) -> FloatArray:
        """Return the map on all moments and a 1, shape (n m + 1, n m + 1)."""
        num, size = self.push.shape
        blocks = np.zeros((num, size, num, size))
        shared = self.push * self.curvatures[:, None]
        blocks[:, :, :, 0] = shared[:, :, None] * self.pull
        rows = np.arange(num)
        blocks[rows, :, rows, :] += self.local
        whole = np.zeros((num * size + 1, num * size + 1))
        whole[:-1, :-1] = blocks.reshape(num * size, num * size)
        whole[:-1, -1] = (self.push * self.constant[:, None]).ravel()
        whole[-1, -1] = 1.0
        return whole


def _map(
    problem: NoisyQuadratic, optimizer: Optimizer, batch: float, sums: bool = True
) -> _Map:
    """Return a step's map; without `sums`, an average's sum stays at zero."""
    matrix, kick = _transition(problem, optimizer, sums)
    first, second = _pairs(matrix.shape[1])
    # Moment (a, b) after the step takes M_ac M_be of moment (c, e), both ways round.
    direct = matrix[:, first][:, :, first] * matrix[:, second][:, :, second]
    crossed = matrix[:, first][:, :, second] * matrix[:, second][:, :, first]
    local = direct + np.where(first == second, 0.0, crossed)
    push = kick[:, first] * kick[:, second] / batch
    local[:, :, 0] += push * problem.curvatures[:, None] ** 2
    return _Map(
        local=local,
        push=push,
        constant=_constant_noise(problem),
        curvatures=problem.curvatures,
        pull=problem.weights * problem.curvatures,
    )


def _transition(
    problem: NoisyQuadratic, optimizer: Optimizer, sums: bool
) -> tuple[FloatArray, FloatArray]:
    """Return z' = M z + b n per direction, z = (x, buffer, y) or what there is of it.

    The buffer is preconditioned and multiplied by lr, as that is what x moves by.
    """
    x, mu = optimizer.lr * problem.rates, optimizer.momentum
    size = 1 + optimizer.has_momentum + _reads_apart(optimizer)
    matrix, kick = np.zeros((x.size, size, size)), np.zeros((x.size, size))
    ahead = mu if optimizer.is_nesterov else 0.0
    noise = optimizer.lr * problem.preconditioner
    matrix[:, 0, 0] = 1 - (1 + ahead) * x
    kick[:, 0] = -(1 + ahead) * noise
    if optimizer.has_momentum:
        matrix[:, 0, 1] = -mu * (ahead if optimizer.is_nesterov else 1.0)
        matrix[:, 1, 0], matrix[:, 1, 1] = x, mu
        kick[:, 1] = noise
    if _reads_apart(optimizer):
        keep, take = optimizer.ema_decay, 1 - optimizer.ema_decay
        if optimizer.averages:
            keep = take = float(sums)
        matrix[:, -1] = take * matrix[:, 0]
        matrix[:, -1, -1] += keep
        kick[:, -1] = take * kick[:, 0]
    return matrix, kick


def _pairs(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which two states each moment is of: (x, x) first, (y, y) last."""
    return np.triu_indices(size)


def _first_moments(problem: NoisyQuadratic, optimizer: Optimizer) -> FloatArray:
    """Return those before the first step: y starts at x, a sum and a buffer at 0."""
    start = [1.0] + [0.0] * optimizer.has_momentum
    if _reads_apart(optimizer):
        start.append(float(optimizer.has_ema))
    first, second = _pairs(len(start))
    start = np.array(start)
    return problem.start[:, None] * (start[first] * start[second])


def _loss(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    moments: FloatArray,
    num_summed: int,
) -> float:
    """Return the loss at what the optimizer reads; infinity for an overflow."""
    read = moments[:, -1 if _reads_apart(optimizer) else 0]
    if optimizer.averages:
        read = read / float(num_summed) ** 2
    loss = problem.loss(read)
    return loss if np.isfinite(loss) else float("inf")


def _reads_apart(optimizer: Optimizer) -> bool:
    return optimizer.has_ema or optimizer.averages


def _constant_noise(problem: NoisyQuadratic) -> FloatArray:
    assert problem.label_noise is not None
    return problem.noise_variances + problem.label_noise * problem.curvatures


def _own_feedback(
    problem: NoisyQuadratic, optimizer: Optimizer, batch: float
) -> FloatArray:
    """Return q = h^2 V / B of the iterates, infinite beyond the stability edge."""
    name = optimizer.name.removesuffix("+ema")
    iterates = replace(
        optimizer,
        name="sgd" if name == "ema" or optimizer.averages else name,
        ema_decay=0.0,
    )
    unit = replace(problem, noise=np.ones_like(problem.curvatures), label_noise=None)
    own = problem.curvatures**2 * steady_state_moments(unit, iterates, batch)
    beyond = characteristic(unit, iterates).at_minus_one <= 0
    return np.where(beyond, np.inf, own)


def _checked(who: str, problem: NoisyQuadratic, batch_size: float) -> float:
    """Return the batch size of a problem that has label noise.

    Raises:
        InputError: It has none, or the batch size is not positive.
    """
    if problem.label_noise is None:
        raise InputError(
            f"{who}: `problem` must have label noise, got None.",
            "give `label_noise`, 0 for none but that of the features",
        )
    return _checks.positive(who, "batch_size", batch_size)
