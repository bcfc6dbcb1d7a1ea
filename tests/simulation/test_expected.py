"""The expected loss of a run, exact for any optimizer under any batch sizes."""

import numpy as np
import pytest
from example_policies import Growing, Listed, expected_losses
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.policies import Constant
from rightbatch.quadratic import Noise, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.quadratic.dynamics import loss_after
from rightbatch.simulation import Conditions, expected, simulate

OPTIMIZERS = [
    Optimizer(name="sgd", lr=0.4),
    Optimizer(name="momentum", lr=0.4, momentum=0.9),
    Optimizer(name="nesterov", lr=0.3, momentum=0.9),
    Optimizer(name="ema", lr=0.4, ema_decay=0.8),
    Optimizer(name="momentum+ema", lr=0.4, momentum=0.7, ema_decay=0.9),
    Optimizer(name="nesterov+ema", lr=0.4, momentum=0.7, ema_decay=0.9),
    Optimizer(name="average", lr=0.4),
    Optimizer(name="tail-average", lr=0.4, tail_fraction=0.3),
    Optimizer(name="tail-average", lr=0.4, tail_fraction=1.0),
    Optimizer(name="nesterov", lr=0.4, momentum=0.0),
]


@pytest.fixture(scope="module")
def problem():
    return NoisyQuadratic(
        spectrum=Spectrum(
            curvatures=np.array([1.7, 0.4, 0.02]), weights=np.array([1.0, 2.5, 0.3])
        ),
        noise=Noise(curvature=1.0, isotropic=0.3),
        initial_second_moments=np.array([0.5, 1.0, 7.0]),
        preconditioner_power=0.3,
        irreducible_loss=0.1,
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_losses_are_those_of_torch_stepping_every_source_of_chance(problem, optimizer):
    policy = Listed((1, 7, 3, 50, 2), lr_factors=(1.0, 0.3, 1.4, 0.9))
    steps = 90
    run = simulate(problem, optimizer, policy, max_steps=steps)
    batches = [policy.batch_sizes[k % 5] for k in range(steps)]
    lrs = [optimizer.lr * policy.lr_factors[k % 4] for k in range(steps)]
    assert run.trace.batch_sizes.tolist() == batches
    assert run.trace.lrs == pytest.approx(lrs)
    truth = expected_losses(problem, optimizer, batches, lrs)
    assert run.trace.losses == pytest.approx(truth, rel=1e-11)


def test_constant_sgd_is_the_recursion_of_the_second_moment(problem):
    optimizer = Optimizer(name="sgd", lr=0.3)
    run = simulate(problem, optimizer, Constant(batch_size=5), max_steps=500)
    second = problem.start.copy()
    for k in range(500):
        second = (1 - 0.3 * problem.rates) ** 2 * second + 0.09 * problem.step_noise / 5
        assert run.trace.losses[k] == pytest.approx(problem.loss(second), rel=1e-12)


def test_constant_sgd_is_its_closed_form_after_many_steps():
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(50))
    optimizer = Optimizer(name="sgd", lr=0.1)
    run = simulate(problem, optimizer, Constant(batch_size=4), max_steps=20_000)
    x = 0.1 * problem.rates
    a = np.exp(2 * 20_000 * np.log1p(-x))
    noise = 0.01 * problem.step_noise / 4 * (1 - a) / (x * (2 - x))
    assert run.loss == pytest.approx(problem.loss(a * problem.start + noise), rel=1e-11)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_stepping_and_repeated_squaring_agree(problem, optimizer):
    run = simulate(problem, optimizer, Constant(batch_size=5), max_steps=1000)
    steps = np.array([1, 2, 3, 10, 77, 400, 1000])
    found = loss_after(problem, optimizer, 5, steps, backend="numpy")
    assert run.trace.losses[steps - 1] == pytest.approx(found, rel=1e-10)


@settings(max_examples=15, deadline=None)
@given(
    batch_size=st.integers(1, 300),
    momentum=st.floats(0, 0.99),
    ema_decay=st.floats(0, 0.99),
    lr=st.floats(0.01, 1.0),
)
def test_a_policy_that_always_says_one_size_is_the_constant_one(
    batch_size, momentum, ema_decay, lr
):
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(5))
    optimizer = Optimizer(
        name="momentum+ema", lr=lr, momentum=momentum, ema_decay=ema_decay
    )
    one, other = (
        simulate(problem, optimizer, policy, max_steps=20).trace.losses
        for policy in (Constant(batch_size=batch_size), Listed((batch_size,)))
    )
    assert (one == other).all()


@settings(max_examples=15, deadline=None)
@given(
    first=st.integers(1, 15), second=st.integers(1, 15), batch_size=st.integers(1, 99)
)
def test_a_run_of_sgd_may_be_cut_and_taken_up_from_its_second_moments(
    first, second, batch_size
):
    spectrum, optimizer = Spectrum.inverse(1), Optimizer(name="sgd", lr=0.3)
    policy = Constant(batch_size=batch_size)
    start = NoisyQuadratic(spectrum=spectrum)
    whole = simulate(start, optimizer, policy, max_steps=first + second)
    half = simulate(start, optimizer, policy, max_steps=first)
    cut = NoisyQuadratic(spectrum=spectrum, initial_second_moments=2 * half.loss)
    rest = simulate(cut, optimizer, policy, max_steps=second)
    assert rest.loss == pytest.approx(whole.loss, rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(batch_size=st.integers(1, 50), factor=st.integers(1, 20))
def test_noise_is_a_matter_of_the_batch_size_alone(batch_size, factor):
    # Examples that are `factor` times noisier, in batches `factor` times larger.
    spectrum = Spectrum.inverse(4)
    optimizer = Optimizer(name="nesterov", lr=0.2, momentum=0.5)
    losses = [
        simulate(
            NoisyQuadratic(spectrum=spectrum, noise=Noise(curvature=noise)),
            optimizer,
            Constant(batch_size=batch_size * noise),
            max_steps=30,
        ).trace.losses
        for noise in (1, factor)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_directions_of_one_curvature_may_be_counted_or_listed():
    listed = Spectrum(curvatures=np.array([1.0, 0.5, 0.5, 0.5]))
    counted = Spectrum(curvatures=np.array([1.0, 0.5]), weights=np.array([1.0, 3.0]))
    needs = frozenset({"moments", "batch_loss", "inner_product_variance"})
    runs = [
        simulate(
            NoisyQuadratic(spectrum=spectrum),
            Optimizer(name="sgd", lr=0.3),
            Growing(4),
            max_steps=25,
            conditions=Conditions(record=needs),
        ).trace
        for spectrum in (listed, counted)
    ]
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=1e-12)
    assert runs[0].batch_sizes.tolist() == runs[1].batch_sizes.tolist()
    for name, column in runs[0].measurements.items():
        assert column == pytest.approx(runs[1].measurements[name], rel=1e-12)


def test_a_window_too_long_for_memory_is_refused(monkeypatch):
    monkeypatch.setattr(expected, "_WINDOW_NUMBERS", 3 * 200 * 5)
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(5))
    optimizer = Optimizer(name="tail-average", lr=0.1, tail_fraction=1.0)
    with pytest.raises(InputError, match="tail average of 128 iterates in 5 direction"):
        simulate(problem, optimizer, Constant(batch_size=1), max_steps=300)


def test_a_short_window_needs_no_more_room_as_the_run_goes_on(monkeypatch):
    monkeypatch.setattr(expected, "_WINDOW_NUMBERS", 3 * 200 * 5)
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(5))
    optimizer = Optimizer(name="tail-average", lr=0.1, tail_fraction=0.01)
    run = simulate(problem, optimizer, Constant(batch_size=1), max_steps=2000)
    assert run.steps == 2000
