"""Slow and obvious: covariance of an optimizer's state, one step after the other.

Written from what the optimizers do, not from the library: buf' = momentum buf + p g and
x' = x - lr buf' (heavy ball) or x' = x - lr (p g + momentum buf') (Nesterov), then
y' = ema_decay y + (1 - ema_decay) x' and total' = total + x'.
"""

import numpy as np

X, BUFFER, Y, TOTAL = range(4)


def one_step(optimizer, rate, preconditioner):
    """Return M and b of z' = M z + b n along one direction, long doubles."""
    lr, momentum, decay = optimizer.lr, optimizer.momentum, optimizer.ema_decay
    state = np.eye(4, dtype=np.longdouble)
    noise = np.zeros(4, dtype=np.longdouble)
    gradient, kick = rate * state[X], noise.copy()
    # A row of the state's matrix, and beside it what the noise adds to it.
    buffer, buffer_kick = (
        momentum * state[BUFFER] + gradient,
        np.longdouble(preconditioner),
    )
    if optimizer.name.startswith("nesterov"):
        moved = state[X] - lr * (gradient + momentum * buffer)
        moved_kick = -lr * (preconditioner + momentum * buffer_kick)
    else:
        moved = state[X] - lr * buffer
        moved_kick = -lr * buffer_kick
    average = decay * state[Y] + (1 - np.longdouble(decay)) * moved
    matrix = np.stack([moved, buffer, average, state[TOTAL] + moved])
    kick[:] = [
        moved_kick,
        buffer_kick,
        (1 - np.longdouble(decay)) * moved_kick,
        moved_kick,
    ]
    return matrix, kick


def covariances_along(problem, optimizer, batch_size, steps):
    """Yield the covariance (n, 4, 4) of every direction's state after each step."""
    start = np.array([1, 0, 1, 0], dtype=np.longdouble)
    covariance = problem.start[:, None, None] * np.outer(start, start)
    maps = [
        one_step(optimizer, rate, p)
        for rate, p in zip(problem.rates, problem.preconditioner, strict=True)
    ]
    yield covariance
    for _ in range(steps):
        noise = noise_at(problem, covariance[:, X, X]) / batch_size
        covariance = np.stack(
            [
                m @ c @ m.T + size * np.outer(b, b)
                for (m, b), c, size in zip(maps, covariance, noise, strict=True)
            ]
        )
        yield covariance


def noise_at(problem, second_moments):
    """Return the variance of one example's gradient, label noise and all."""
    h = problem.curvatures
    noise = problem.noise_variances.astype(np.longdouble)
    if problem.label_noise is None:
        return noise
    total = (problem.weights * h * second_moments).sum()
    own = h**2 * second_moments
    return noise + own + h * total + problem.label_noise * h


def losses_along(problem, optimizer, batch_size, steps):
    """Return the losses before and after each of some steps, at what is read."""
    losses = []
    path = covariances_along(problem, optimizer, batch_size, steps)
    for done, covariance in enumerate(path):
        if optimizer.name == "average" and done:
            moments = covariance[:, TOTAL, TOTAL] / done**2
        else:
            at = Y if optimizer.has_ema else X
            moments = covariance[:, at, at]
        weights = problem.weights * problem.curvatures / 2
        losses.append(float(problem.irreducible_loss + (weights * moments).sum()))
    return losses
