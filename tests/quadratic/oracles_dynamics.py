"""Slow and obvious dynamics: every step taken, in long double, as torch takes it."""

import mpmath
import numpy as np

LONG = np.longdouble


def one_step(name, x, d, y, gradient, settings):
    """Return (x, d, y) after one step of any optimizer; y of an average is a sum.

    `settings` are lr, momentum and ema_decay.
    """
    lr, momentum, decay = settings
    if name.startswith(("momentum", "nesterov")):
        d = momentum * d + gradient
        ahead = gradient + momentum * d if name.startswith("nesterov") else d
        x = x - lr * ahead
    else:
        x = x - lr * gradient
    if name.endswith("ema"):
        y = decay * y + (1 - decay) * x
    elif name.endswith("average"):
        y = y + x
    else:
        y = x
    return x, d, y


def moments_by_responses(name, lr, momentum, decay, rates, checkpoints):
    """Return mean and variance at numbers of steps, where nothing changes on the way.

    The variance is the sum over all steps of the square of what a noise of one there
    has become; that depends on how long ago it was, so one such response is stepped.
    All of `lr`, `momentum`, `decay`, `rates` of one shape; `rates` long double.
    """
    lr, momentum, decay, rates = (
        np.asarray(a, LONG) for a in (lr, momentum, decay, rates)
    )
    settings = (lr, momentum, decay)
    one, zero = np.ones_like(rates), np.zeros_like(rates)
    mean = (one, zero, one if name.endswith("ema") else zero)
    noise = one_step(name, zero, zero, zero, one, settings)
    variance = np.zeros_like(rates)
    found = {}
    for k in range(1, max(checkpoints) + 1):
        mean = one_step(name, *mean, rates * mean[0], settings)
        variance = variance + noise[2] ** 2
        noise = one_step(name, *noise, rates * noise[0], settings)
        if k in checkpoints:
            count = LONG(k if name == "average" else 1)
            found[k] = mean[2] / count, variance / count**2
    return found


def moments_of_all_by_responses(names, lr, momentum, decay, rates, checkpoints):
    """Return what :func:`moments_by_responses` does, all optimizers in one array.

    Row i is of optimizer `names[i]`; shapes (m, 1), rates (m, n). In place, for many
    steps: the mean and the response are stepped side by side.
    """
    nesterov = np.array([[name.startswith("nesterov")] for name in names], LONG)
    sums = np.array([[name == "average"] for name in names])
    ema = np.array([[name.endswith("ema")] for name in names])
    stay = np.where(sums, LONG(1), np.where(ema, decay, LONG(0)))
    take = np.where(sums, LONG(1), 1 - stay)
    ahead = np.where(nesterov > 0, momentum, LONG(1))
    x, d, y, y_new = (np.zeros((2, *rates.shape), LONG) for _ in range(4))
    x[0], y[0] = 1, np.where(ema, 1, 0)
    gradient, variance = rates * x, np.zeros_like(rates)
    gradient[1] = 1  # the response starts with a noise of one, at rest
    found = {}
    for k in range(1, max(checkpoints) + 1):
        d *= momentum
        d += gradient
        gradient *= nesterov
        gradient += ahead * d
        gradient *= lr
        x -= gradient
        y *= stay
        np.multiply(x, take, out=y_new)
        y += y_new
        variance += y[1] * y[1]
        np.multiply(x, rates, out=gradient)
        if k in checkpoints:
            count = np.where(sums, LONG(k), LONG(1))
            found[k] = y[0] / count, variance / count**2
    return found


def moments_by_stepping(optimizer, lrs, rates, noises, start, begin=0):
    """Return E y^2 after schedules: the matrix of second moments, step by step.

    `lrs` has shape (T,), `noises` (T, n): the variance of every step's preconditioned
    gradient. An average is that of the steps after the first `begin`.
    """
    name = optimizer.name
    momentum, decay = LONG(optimizer.momentum), LONG(optimizer.ema_decay)
    rates, noises = np.asarray(rates, LONG), np.asarray(noises, LONG)
    starts = [np.array([1, 0, 1], LONG), np.zeros(3, LONG)]
    starts[0][2] = 0 if name.endswith("average") else 1
    moments = np.einsum("a,b,n->nab", starts[0], starts[0], np.asarray(start, LONG))
    unit = np.eye(3, dtype=LONG)
    for k, lr in enumerate(np.asarray(lrs, LONG)):
        settings = (lr, momentum, decay)
        columns = [
            [one_step(name, *unit[a], rate * unit[a][0], settings) for a in range(3)]
            for rate in rates
        ]
        step = np.array(columns, LONG).swapaxes(1, 2)
        kick = np.array(one_step(name, *np.zeros(3, LONG), LONG(1), settings), LONG)
        if name.endswith("average") and k < begin:
            step[:, 2], kick[2] = 0, 0
        moments = step @ moments @ step.swapaxes(1, 2)
        moments = moments + noises[k][:, None, None] * np.outer(kick, kick)
    count = LONG(len(lrs) - begin if name.endswith("average") else 1)
    return moments[:, 2, 2] / count**2


def moments_in_sixty_digits(name, lr, inertia_gap, ema_gap, x, steps, tail=None):
    """Return mean and variance by powers of a step's matrix, with digits to spare.

    For what long double cannot tell: at the stability edge with a momentum of 1 - 1e-6,
    a million long-double steps are wrong by 1e-8. All numbers are taken as the doubles
    they are, x = lr p h too. `tail` is how many steps are averaged.
    """
    with mpmath.workdps(60):
        lr, rate = mpmath.mpf(lr), mpmath.mpf(x) / mpmath.mpf(lr)
        settings = (lr, 1 - mpmath.mpf(inertia_gap), 1 - mpmath.mpf(ema_gap))
        start = 0 if name.endswith("average") else 1
        state = mpmath.matrix([1, 0, start]), mpmath.zeros(3)
        last = steps if tail is None else tail
        if last < steps:
            mean, variance = _many("sgd", settings, rate, steps - last, state)
            mean[2] = 0
            variance[2, :], variance[:, 2] = mpmath.zeros(1, 3), mpmath.zeros(3, 1)
            state = mean, variance
        mean, variance = _many(name, settings, rate, last, state)
        count = last if name.endswith("average") else 1
        return float(mean[2] / count), float(variance[2, 2] / count**2)


def _many(name, settings, rate, steps, state):
    """Return mean and covariance after some steps, by their binary digits."""
    columns = [
        one_step(name, *unit, rate * unit[0], settings)
        for unit in np.eye(3, dtype=int).tolist()
    ]
    step = mpmath.matrix(columns).T
    kick = mpmath.matrix(one_step(name, 0, 0, 0, mpmath.mpf(1), settings))
    noise = kick * kick.T
    mean, variance = state
    while steps:
        if steps & 1:
            mean, variance = step * mean, step * variance * step.T + noise
        noise = noise + step * noise * step.T
        step, steps = step * step, steps >> 1
    return mean, variance
