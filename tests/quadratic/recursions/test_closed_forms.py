"""Closed forms against doubling, over decades and where they degenerate."""

import numpy as np
import pytest
from quadratic.example_settings import RATES, degenerate, drawn, edge
from quadratic.oracles_dynamics import moments_in_sixty_digits

from rightbatch.quadratic.recursions.closed_forms import (
    average_moments,
    ema_moments,
    momentum_moments,
    sgd_moments,
)
from rightbatch.quadratic.recursions.powers import moments_after, num_averaged
from rightbatch.quadratic.recursions.transition import Settings

CLOSED = {
    "sgd": lambda settings, steps: sgd_moments(settings.lr, RATES, steps),
    "momentum": lambda settings, steps: momentum_moments(settings, RATES, steps),
    "ema": lambda settings, steps: ema_moments(settings, RATES, steps),
    "average": lambda settings, steps: average_moments(settings.lr, RATES, steps),
    "tail-average": lambda settings, steps: average_moments(
        settings.lr, RATES, steps, num_averaged(0.5, steps)
    ),
}


def stable(name, settings):
    """Settings short of the edge, where the formulas divide by what is left."""
    return settings._replace(
        lr=np.minimum(settings.lr, edge(name, settings.inertia_gap) * (1 - 1e-6))
    )


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_form_is_what_doubling_gives(name):
    parts = drawn(name, 400, seed=1), degenerate(name)
    settings = stable(name, Settings(*map(np.concatenate, zip(*parts, strict=True))))
    rng = np.random.default_rng(2)
    steps = np.round(10 ** rng.uniform(0, 6, settings.lr.size)).astype(np.int64)
    found = CLOSED[name](settings, steps)
    truth = moments_after(name, settings, RATES, steps)
    np.testing.assert_allclose(found.variance, truth.variance, rtol=1e-9)
    # A mean that oscillates is close to zero at times; it is right to its amplitude.
    np.testing.assert_allclose(found.mean, truth.mean, rtol=1e-7, atol=1e-12)
    loss, true_loss = (
        m.mean**2 @ RATES + m.variance @ RATES**2 / 1e3 for m in (found, truth)
    )
    np.testing.assert_allclose(loss, true_loss, rtol=1e-9)


def test_a_sum_far_shorter_than_the_memory_has_its_digits():
    # 5 steps of a memory of a million: the bracket alone would be all rounding.
    settings = Settings(np.array([1e-9]), np.array([1e-6]), np.array([1e-6]))
    for name, closed in (("momentum", momentum_moments), ("ema", ema_moments)):
        given = settings._replace(
            **{"ema_gap" if name == "momentum" else "inertia_gap": np.ones(1)}
        )
        found = closed(given, RATES[:1], np.array([5]))
        run = [float(part[0]) for part in given]
        truth = moments_in_sixty_digits(name, *run, run[0], 5)
        assert found.mean[0, 0] == pytest.approx(truth[0], rel=1e-14)
        assert found.variance[0, 0] == pytest.approx(truth[1], rel=1e-12)


def test_sgd_at_the_edge_adds_up_its_noise():
    found = sgd_moments(np.array([2.0]), np.array([1.0]), np.array([7]))
    assert (found.mean[0, 0], found.variance[0, 0]) == (-1, 28)


def test_sgd_takes_no_steps_and_no_learning_rate():
    lr, rates = np.array([1.0, 0.0]), np.array([1.0, 0.5])
    none = sgd_moments(lr, rates, np.array([0, 9]))
    assert none.mean.tolist() == [[1, 1], [1, 1]]
    assert none.variance.tolist() == [[0, 0], [0, 0]]
    at_once = sgd_moments(lr[:1], rates[:1], np.array([3]))
    assert (at_once.mean[0, 0], at_once.variance[0, 0]) == (0, 1)


def test_sgd_past_the_edge_is_infinite():
    found = sgd_moments(np.array([9.0]), np.array([1.0]), np.array([10_001]))
    assert (found.mean[0, 0], found.variance[0, 0]) == (-np.inf, np.inf)
