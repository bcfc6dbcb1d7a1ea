"""What a batch that grows as the loss falls promises, exact on a strongly convex loss.

Sievert and Shah; Bottou, Curtis and Nocedal, section 5: to a loss of eps, the updates
of SGD grow as 1/eps, those of gradient descent as log(1/eps). Batches of
B0 (F_0 - F*)/(F_k - F*) have the updates of the one and the examples of the other.
"""

import math

import numpy as np
import pytest
from example_policies import Growing

from rightbatch.policies import Constant
from rightbatch.quadratic import Noise, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.simulation import Conditions, simulate

# By the first of these the flattest direction rules.
DECADES = np.array([1e-6, 1e-7, 1e-8, 1e-9])
PROBLEM = NoisyQuadratic(
    spectrum=Spectrum(curvatures=np.linspace(0.2, 1.0, 9)),
    noise=Noise(curvature=0.0, isotropic=1.0),
    irreducible_loss=0.7,
)
SGD = Optimizer(name="sgd", lr=0.2)
REAL = Conditions(whole_batches=False)


def passages(policy, decades=DECADES, conditions=REAL, max_steps=400_000):
    best = PROBLEM.irreducible_loss
    run = simulate(
        PROBLEM,
        SGD,
        policy,
        target=best + decades[-1],
        max_steps=max_steps,
        conditions=conditions,
    )
    found = [run.trace.first_passage(best + one) for one in decades]
    return np.array([one[:2] for one in found], dtype=float).T


@pytest.fixture(scope="module")
def growing():
    return passages(Growing(64, best_loss=PROBLEM.irreducible_loss))


def test_a_batch_that_grows_as_the_loss_falls_takes_updates_as_log_of_one_over_eps(
    growing,
):
    steps, _ = growing
    each_decade = np.diff(steps)
    # Equal numbers for every tenfold, up to the one update they are rounded to.
    assert np.ptp(each_decade) <= 1
    # Those of gradient descent, and a fifth more at most.
    full, _ = passages(Constant(batch_size=1e12))
    assert full[-1] <= steps[-1] <= 1.2 * full[-1]


def test_and_examples_as_one_over_eps(growing):
    _, examples = growing
    slope = np.diff(np.log(examples)) / math.log(10)
    assert slope == pytest.approx(1, abs=0.03)


def test_a_batch_that_does_not_grow_takes_updates_as_one_over_eps():
    # lr / (1 + k / k0), k0 past 1 / (2 lr h) of the worst direction.
    conditions = Conditions(lr_schedule=lambda step: 1 / (1 + 0.02 * step))
    steps, examples = passages(Constant(batch_size=64), 100 * DECADES[:2], conditions)
    assert (examples == 64 * steps).all()
    slope = np.diff(np.log(steps)) / math.log(10)
    assert slope[-1] == pytest.approx(1, abs=0.1)


def test_at_a_constant_rate_a_batch_that_does_not_grow_never_arrives():
    policy = Constant(batch_size=64)
    run = simulate(
        PROBLEM, SGD, policy, target=PROBLEM.irreducible_loss + 1e-3, max_steps=3000
    )
    assert not run.reached
    # It stands at its noise floor, lr c / (2 B (2 - lr h)) summed over directions.
    floor = (0.2 / 128 / (2 - 0.2 * PROBLEM.curvatures)).sum()
    assert run.loss - PROBLEM.irreducible_loss == pytest.approx(floor, rel=1e-6)
