"""Noise that falls with the loss: linear regression on Gaussian features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quadratic import oracles_problem as oracles

from rightbatch.errors import InputError
from rightbatch.quadratic import (
    OPTIMIZERS,
    Noise,
    NoisyQuadratic,
    Optimizer,
    Spectrum,
    label_noise,
)

CURVATURES = np.array([1.0, 0.6, 0.3, 0.3])
SPECTRUM = Spectrum(curvatures=[1.0, 0.6, 0.3], weights=[1, 1, 2])
CURVED = [name for name in OPTIMIZERS if name != "tail-average"]


def problem_of(sigma_squared=0.5, curvature=0.0, **settings):
    return NoisyQuadratic(
        spectrum=settings.pop("spectrum", SPECTRUM),
        noise=Noise(curvature=curvature),
        label_noise=sigma_squared,
        **settings,
    )


def optimizer_of(name, lr, momentum=0.6, ema_decay=0.8):
    settings = {}
    if name.startswith(("momentum", "nesterov")):
        settings["momentum"] = momentum
    if name.endswith("ema"):
        settings["ema_decay"] = ema_decay
    return Optimizer(name=name, lr=lr, **settings)


def regression_losses(optimizer, power, batch_size, steps, runs):
    """Return the loss of each of many real linear regressions at its last step."""
    generator = np.random.default_rng(1)
    h, sigma = CURVATURES, np.sqrt(0.5)
    x = generator.choice([-1.0, 1.0], (runs, h.size))
    buffer, average, total = np.zeros_like(x), x.copy(), np.zeros_like(x)
    first = steps - max(1, round(optimizer.tail_fraction * steps))
    for step in range(steps):
        shape = (runs, batch_size, h.size)
        features = generator.normal(size=shape) * np.sqrt(h)
        errors = (features * x[:, None, :]).sum(2)
        errors -= sigma * generator.normal(size=errors.shape)
        gradient = h**-power * (features * errors[:, :, None]).mean(1)
        buffer = optimizer.momentum * buffer + gradient
        ahead = gradient + optimizer.momentum * buffer
        x = x - optimizer.lr * (ahead if optimizer.is_nesterov else buffer)
        average = optimizer.ema_decay * average + (1 - optimizer.ema_decay) * x
        if optimizer.name == "average" or step >= first:
            total += x
    read = average if optimizer.has_ema else x
    if optimizer.name == "average":
        read = total / steps
    if optimizer.name == "tail-average":
        read = total / (steps - first)
    return 0.5 * (h * read**2).sum(1)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_real_regressions_have_the_expected_loss(name, power):
    optimizer = optimizer_of(name, lr=0.15)
    losses = regression_losses(optimizer, power, batch_size=3, steps=12, runs=20_000)
    expected = label_noise.loss_after(
        problem_of(preconditioner_power=power), optimizer, 3, 12
    )
    error = losses.std() / np.sqrt(losses.size)
    assert abs(losses.mean() - expected) < 4.5 * error
    assert error < 0.03 * expected


@pytest.mark.parametrize("name", CURVED)
@given(lr=st.floats(0.01, 0.4), power=st.floats(0, 1), extra=st.floats(0, 2))
def test_every_step_is_that_of_the_slow_recursion(name, lr, power, extra):
    problem = problem_of(
        curvature=extra, preconditioner_power=power, irreducible_loss=0.25
    )
    optimizer = optimizer_of(name, lr)
    expected = oracles.losses_along(problem, optimizer, 4.0, 8)
    found = label_noise.loss_curve(problem, optimizer, 4.0, 8)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    for steps in (0, 1, 8):
        last = label_noise.loss_after(problem, optimizer, 4.0, steps)
        assert last == pytest.approx(expected[steps], rel=1e-11)


@pytest.mark.parametrize("name", CURVED)
def test_squaring_the_map_is_as_good_as_stepping(name):
    problem, optimizer = problem_of(), optimizer_of(name, 0.02)
    curve = label_noise.loss_curve(problem, optimizer, 2.0, 3001)
    for steps in (499, 501, 1024, 3001):
        found = label_noise.loss_after(problem, optimizer, 2.0, steps)
        assert found == pytest.approx(curve[steps], rel=1e-10)


def test_a_tail_that_takes_everything_is_the_uniform_average():
    problem = problem_of()
    whole = Optimizer(name="tail-average", lr=0.1, tail_fraction=1.0)
    last = Optimizer(name="tail-average", lr=0.1, tail_fraction=1e-9)
    pairs = [(whole, optimizer_of("average", 0.1)), (last, optimizer_of("sgd", 0.1))]
    for steps in (1, 7, 2000):
        for tail, same in pairs:
            found = label_noise.loss_after(problem, tail, 2.0, steps)
            expected = label_noise.loss_after(problem, same, 2.0, steps)
            assert found == pytest.approx(expected, rel=1e-10)


def test_a_weight_is_so_many_directions_of_one_curvature():
    repeated = problem_of(spectrum=Spectrum(curvatures=CURVATURES))
    optimizer = optimizer_of("momentum+ema", 0.1)
    assert label_noise.loss_after(problem_of(), optimizer, 2, 50) == pytest.approx(
        label_noise.loss_after(repeated, optimizer, 2, 50), rel=1e-12
    )


def test_without_features_to_fluctuate_it_is_ordinary_noise():
    # The feature noise falls as 1/B and the label noise as sigma^2/B: a large sigma
    # at a large batch leaves the second alone.
    problem = problem_of(sigma_squared=1e12, initial_second_moments=0.0)
    plain = NoisyQuadratic(spectrum=SPECTRUM, initial_second_moments=0.0)
    optimizer = optimizer_of("nesterov", 0.1)
    found = label_noise.loss_after(problem, optimizer, 1e12, 40)
    path = oracles.losses_along(plain, optimizer, 1.0, 40)
    assert found == pytest.approx(path[-1], rel=1e-9)


# Stability and steady state ---------------------------------------------------------


def growth(problem, optimizer, batch_size):
    """Return the factor per step after many steps, label noise aside."""
    early, late = (
        label_noise.loss_after(problem, optimizer, batch_size, steps)
        for steps in (20_000, 40_000)
    )
    return late / early


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "momentum+ema"])
@pytest.mark.parametrize("batch_size", [1.0, 4.0])
def test_it_diverges_exactly_where_noise_feeds_itself(name, batch_size):
    problem = problem_of(sigma_squared=0.0)
    low, high = 1e-6, optimizer_of(name, 1.0).max_stable_rate
    for _ in range(60):
        lr = (low + high) / 2
        optimizer = optimizer_of(name, lr)
        fed = label_noise.noise_feedback(problem, optimizer, batch_size)
        low, high = (lr, high) if fed < 1 else (low, lr)
    assert growth(problem, optimizer_of(name, low * 0.999), batch_size) < 1
    assert growth(problem, optimizer_of(name, low * 1.001), batch_size) > 1


def test_the_edge_of_sgd_is_the_known_one():
    # sum of w x / (B (2 - x) - x) = 1 for SGD without preconditioning.
    optimizer = optimizer_of("sgd", 0.7)
    x = 0.7 * CURVATURES
    expected = (x / (3 * (2 - x) - x)).sum()
    found = label_noise.noise_feedback(problem_of(), optimizer, 3)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", CURVED)
def test_many_steps_end_at_the_steady_state(name):
    problem = problem_of(curvature=0.3, irreducible_loss=0.1)
    optimizer = optimizer_of(name, 0.2)
    steady = label_noise.steady_state_risk(problem, optimizer, 4)
    last = label_noise.loss_after(problem, optimizer, 4, 1 << 20)
    # A uniform average is still on its way, as 1/k.
    assert last == pytest.approx(steady, rel=1e-9, abs=1e-5 * (name == "average"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_diverges_has_an_infinite_loss(name):
    problem = problem_of()
    for lr in (1.9, 50.0):
        optimizer = optimizer_of(name, lr)
        assert label_noise.noise_feedback(problem, optimizer, 1) >= 1
        assert label_noise.steady_state_risk(problem, optimizer, 1) == np.inf
        assert label_noise.loss_after(problem, optimizer, 1, 100_000) == np.inf


def test_a_curve_that_overflows_ends_in_infinity():
    curve = label_noise.loss_curve(problem_of(), optimizer_of("sgd", 50.0), 1, 300)
    assert curve[-1] == np.inf
    assert not np.isnan(curve).any()


def test_without_noise_and_start_nothing_ever_happens():
    problem = problem_of(
        sigma_squared=0.0, initial_second_moments=0.0, irreducible_loss=0.5
    )
    assert label_noise.loss_after(problem, optimizer_of("sgd", 50.0), 1, 10**6) == 0.5


# Bad input --------------------------------------------------------------------------


def test_a_problem_without_label_noise_is_refused():
    problem, sgd = NoisyQuadratic(spectrum=SPECTRUM), optimizer_of("sgd", 0.1)
    for call in (label_noise.loss_after, label_noise.loss_curve):
        with pytest.raises(InputError, match="must have label noise, got None"):
            call(problem, sgd, 1, 5)
    for call in (label_noise.noise_feedback, label_noise.steady_state_risk):
        with pytest.raises(InputError, match="must have label noise, got None"):
            call(problem, sgd, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, o: label_noise.loss_after(p, o, 0, 5), "`batch_size` must be pos"),
        (lambda p, o: label_noise.loss_after(p, o, 1, -5), "`steps` must not be neg"),
        (lambda p, o: label_noise.loss_after(p, o, 1, 2.5), "`steps` must be a whole"),
        (lambda p, o: label_noise.loss_curve(p, o, 1, 0), "`num_steps` must be a who"),
    ],
)
def test_numbers_out_of_range_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(problem_of(), optimizer_of("sgd", 0.1))


def test_a_tail_average_has_no_curve():
    with pytest.raises(InputError, match=r"tail average. \(take loss_after at"):
        label_noise.loss_curve(problem_of(), optimizer_of("tail-average", 0.1), 1, 5)
