"""Slow and obvious: SGD one step at a time, and gradients by differences."""

import numpy as np


def sgd_loss(problem, lrs, batch_sizes):
    """Return the loss after one step of SGD at each learning rate and batch size."""
    moments = problem.start.copy()
    sizes = np.broadcast_to(batch_sizes, np.shape(lrs))
    for lr, size in zip(lrs, sizes, strict=True):
        x = lr * problem.rates
        moments = (1 - x) ** 2 * moments + lr**2 * problem.step_noise / size
    return problem.loss(moments)


def expanded(lrs, lengths):
    """Return the learning rate of every step of a run in pieces."""
    return np.repeat(lrs, np.asarray(lengths, dtype=int))


def gradient(function, point, width=1e-5):
    """Return central differences of a number or an array."""
    return np.array(
        [
            (function(point + shift) - function(point - shift)) / (2 * width)
            for shift in width * np.eye(point.size)
        ]
    )
