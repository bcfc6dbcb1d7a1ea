"""Derivatives of SGD's loss through pieces, against differences; both backends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratic.oracles_schedules import expanded, gradient, sgd_loss

from rightbatch.quadratic import Noise, NoisyQuadratic, Spectrum
from rightbatch.quadratic.schedules.adjoint import (
    directions,
    expand,
    loss_of,
    schedule_kernels,
)
from rightbatch.quadratic.schedules.folding import loss_of_steps

PROBLEM = NoisyQuadratic(
    spectrum=Spectrum.power_law(12, 1.3),
    noise=Noise(curvature=0.5, isotropic=0.1),
    preconditioner_power=0.25,
    irreducible_loss=0.5,
)
KERNELS = [None, schedule_kernels()]
rates = st.lists(st.floats(-9, 0.6931), min_size=1, max_size=5).map(np.array)


@given(log_lrs=rates, seed=st.integers(0, 99))
def test_pieces_lose_what_their_steps_lose(log_lrs, seed):
    counts = np.random.default_rng(seed).integers(0, 40, log_lrs.size)
    lrs = expanded(np.exp(log_lrs), counts)
    along = directions(PROBLEM, 3.0)
    wanted = sgd_loss(PROBLEM, lrs, 3.0) - PROBLEM.irreducible_loss
    assert loss_of(along, log_lrs, counts) == pytest.approx(wanted, rel=1e-10)
    for kernels in KERNELS:
        at = expand(along, log_lrs, counts.astype(float), kernels)
        assert at.loss == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("kernels", KERNELS)
@settings(max_examples=25)
@given(log_lrs=rates, seed=st.integers(0, 99))
def test_derivatives_are_those_of_differences(kernels, log_lrs, seed):
    counts = np.random.default_rng(seed).uniform(1, 60, log_lrs.size)
    along = directions(PROBLEM, 3.0)

    def loss(point):
        return float(loss_of(along, point, counts))

    def slope(point):
        return expand(along, point, counts, kernels).gradient

    at = expand(along, log_lrs, counts, kernels)
    scale = max(np.abs(at.gradient).max(), 1e-3 * at.loss)
    assert at.gradient == pytest.approx(gradient(loss, log_lrs), abs=1e-6 * scale)
    scale = max(np.abs(at.hessian).max(), at.loss)
    assert at.hessian == pytest.approx(gradient(slope, log_lrs), abs=1e-6 * scale)
    longer = [float(loss_of(along, log_lrs, counts * c)) for c in (1.00001, 0.99999)]
    wanted = (longer[0] - longer[1]) / 2e-5
    assert at.by_length == pytest.approx(wanted, abs=1e-6 * at.loss)


def test_degenerate_rates_have_finite_derivatives():
    # x = 2 and x = 1 exactly, and rates so small that nothing happens.
    problem = NoisyQuadratic(spectrum=Spectrum(curvatures=np.array([2.0, 1, 1e-9])))
    along = directions(problem, 1.0)
    counts = np.array([7.0, 7.0, 1.0, 0.0])
    point = np.log([1.0, 1e-6, 0.5, 1.0])
    values = [expand(along, point, counts, kernels) for kernels in KERNELS]
    for at in values:
        wanted = gradient(lambda u: float(loss_of(along, u, counts)), point)
        assert at.gradient == pytest.approx(wanted, abs=1e-7)
        assert np.isfinite(at.hessian).all()
        assert at.loss == pytest.approx(values[0].loss, rel=1e-13)
        assert at.hessian == pytest.approx(values[0].hessian, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 1024, 1500])
def test_steps_folded_two_by_two_lose_what_they_lose_one_by_one(kernels, num_steps):
    lrs = np.random.default_rng(num_steps).uniform(0, 1.5, (2, num_steps))
    lrs[:, -1] = 0
    along = directions(PROBLEM, 3.0)
    wanted = [sgd_loss(PROBLEM, row, 3.0) - PROBLEM.irreducible_loss for row in lrs]
    assert loss_of_steps(along, lrs, kernels) == pytest.approx(wanted, rel=1e-11)


def test_what_overflows_is_infinite():
    along = directions(PROBLEM, 3.0)
    assert loss_of(along, np.log([9.0]), np.array([10**6])) == np.inf
    assert loss_of_steps(along, np.full((1, 5000), 9.0))[0] == np.inf
