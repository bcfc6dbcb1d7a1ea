"""What a meter of gradients would read along a run of the model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratic.oracles_problem import X, covariances_along

from rightbatch.errors import InputError
from rightbatch.quadratic import Noise, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.quadratic.dynamics import loss_after
from rightbatch.quadratic.noise_scales import (
    NoiseScales,
    noise_scales,
    scales_along,
)

OPTIMIZERS = [
    Optimizer(name="sgd", lr=0.2),
    Optimizer(name="momentum", lr=0.1, momentum=0.8),
    Optimizer(name="nesterov", lr=0.1, momentum=0.8),
    Optimizer(name="ema", lr=0.2, ema_decay=0.9),
    Optimizer(name="momentum+ema", lr=0.1, momentum=0.5, ema_decay=0.9),
    Optimizer(name="average", lr=0.2),
]


def made_up(power=0.25):
    return NoisyQuadratic(
        spectrum=Spectrum(curvatures=[2.0, 0.7, 0.1], weights=[1, 3, 5]),
        noise=Noise(curvature=0.5, isotropic=0.3),
        initial_second_moments=np.array([1.0, 2.0, 0.5]),
        preconditioner_power=power,
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(1, 1e4), st.floats(0, 1))
def test_the_best_rate_of_one_step_knows_the_hessian_noise_scale(batch_size, power):
    # The loss after one step is a parabola in lr; its minimum lies at
    # lr_max / (1 + phi / B) (McCandlish et al., 2018, eq. 2.6).
    problem = made_up(power)
    lr = 1e-3
    start, one, two = (
        problem.initial_loss,
        *(
            float(loss_after(problem, Optimizer(name="sgd", lr=k * lr), batch_size, 1))
            for k in (1, 2)
        ),
    )
    best = lr * (0.5 * (4 * one - two - 3 * start)) / (2 * one - two - start)
    h, p, w = problem.curvatures, problem.preconditioner, problem.weights
    full = (w * p * h**2 * problem.start).sum()
    full /= (w * p**2 * h**3 * problem.start).sum()
    expected = full / (1 + noise_scales(problem).hessian / batch_size)
    assert best == pytest.approx(expected, rel=1e-6)


def test_the_simple_scale_is_of_plain_gradients_and_knows_no_preconditioner():
    problem = made_up()
    h, w = problem.curvatures, problem.weights
    expected = (w * problem.noise_variances).sum() / (w * h**2 * problem.start).sum()
    assert noise_scales(problem).simple == pytest.approx(expected)
    assert noise_scales(problem.with_power(1)).simple == noise_scales(problem).simple


def test_the_standard_problem_starts_at_a_noise_scale_of_six():
    found = noise_scales(NoisyQuadratic(spectrum=Spectrum.inverse(10_000)))
    harmonic = (1 / np.arange(1, 10_001)).sum()
    assert found.simple == pytest.approx(harmonic / (np.pi**2 / 6), rel=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.name)
def test_scales_along_a_run_are_those_of_stepping_through_it(optimizer):
    problem, steps = made_up(), 25
    h, w, p = problem.curvatures, problem.weights, problem.preconditioner
    simple = []
    hessian = []
    for covariance in covariances_along(problem, optimizer, 8, steps):
        x = covariance[:, X, X].astype(float)
        noise = problem.noise_variances
        simple.append((w * noise).sum() / (w * h**2 * x).sum())
        hessian.append((w * p**2 * h * noise).sum() / (w * p**2 * h**3 * x).sum())
    found = scales_along(problem, optimizer, 8, steps)
    assert found.start.simple == pytest.approx(simple[0], rel=1e-9)
    assert found.target.simple == pytest.approx(simple[-1], rel=1e-9)
    assert found.target.hessian == pytest.approx(hessian[-1], rel=1e-9)
    inner = sum(simple[1:-1]) + (simple[0] + simple[-1]) / 2
    assert found.mean.simple == pytest.approx(inner / steps, rel=1e-9)


def test_the_mean_over_a_long_run_is_that_over_every_step():
    problem, optimizer = made_up(), Optimizer(name="sgd", lr=0.02)
    found = scales_along(problem, optimizer, 64, 3000)
    moments, every = problem.start, []
    for step in range(3001):
        if step:
            moments = (1 - 0.02 * problem.rates) ** 2 * moments
            moments = moments + 0.02**2 * problem.step_noise / 64
        every.append(noise_scales(problem, moments).simple)
    assert found.mean.simple == pytest.approx(np.mean(every), rel=1e-3)


def test_a_point_without_gradient_has_an_infinite_scale_which_is_null():
    found = noise_scales(made_up(), np.zeros(3))
    assert found == NoiseScales(simple=np.inf, hessian=np.inf)
    assert found.to_dict() == {"simple": None, "hessian": None}


def test_scales_as_a_dictionary_name_where_they_were_taken():
    found = scales_along(made_up(), OPTIMIZERS[0], 8, 5).to_dict()
    assert set(found) == {"start", "target", "mean"}
    assert found["start"]["simple"] > 0


def test_label_noise_is_refused():
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0)
    with pytest.raises(InputError, match="label"):
        noise_scales(problem)
    with pytest.raises(InputError, match="label"):
        scales_along(problem, OPTIMIZERS[0], 8, 5)


@pytest.mark.parametrize(
    ("batch_size", "steps", "message"),
    [
        (0, 5, "scales_along: `batch_size` must be positive"),
        (8, 0, "scales_along: `steps` must be a whole number"),
    ],
)
def test_a_run_without_examples_or_steps_is_refused(batch_size, steps, message):
    with pytest.raises(InputError, match=message):
        scales_along(made_up(), OPTIMIZERS[0], batch_size, steps)
