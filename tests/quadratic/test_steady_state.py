"""Where the loss settles and how fast it gets there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quadratic import oracles_problem as oracles

from rightbatch.errors import InputError
from rightbatch.quadratic import OPTIMIZERS, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.quadratic.steady_state import (
    convergence_rate,
    convergence_rates,
    steady_state_moments,
    steady_state_risk,
)

LINEAR = [name for name in OPTIMIZERS if not name.endswith("average")]
# Down to 1e-3 below one: the oracle's dense solve has no more digits beyond.
momenta = st.one_of(st.floats(0, 0.9), st.floats(1e-3, 0.1).map(lambda gap: 1 - gap))
# Down to 1e-4 of the stability edge, and up to as close below it.
shares = st.one_of(st.floats(1e-4, 0.99), st.floats(1e-4, 1).map(lambda gap: 1 - gap))


def optimizer_of(name, share, momentum, ema_decay, rate=1.0):
    """Return an optimizer at a share of the stability edge of one rate."""
    settings = {}
    if name.startswith(("momentum", "nesterov")):
        settings["momentum"] = momentum
    if name.endswith("ema"):
        settings["ema_decay"] = ema_decay
    edge = Optimizer(name=name, lr=1.0, **settings).max_stable_rate
    return Optimizer(name=name, lr=share * edge / rate, **settings)


def problem_of(curvature=1.0, noise=1.0, **settings):
    return NoisyQuadratic(
        spectrum=Spectrum(curvatures=[curvature]), noise=np.array([noise]), **settings
    )


@given(
    st.sampled_from(LINEAR),
    shares.filter(lambda share: share > 0),
    momenta,
    momenta,
    st.floats(0.1, 10),
)
def test_the_steady_state_solves_the_lyapunov_equation(
    name, share, momentum, ema_decay, curvature
):
    from scipy.linalg import solve_discrete_lyapunov

    problem = problem_of(curvature, noise=0.7, preconditioner_power=0.5)
    rate, preconditioner = problem.rates[0], problem.preconditioner[0]
    optimizer = optimizer_of(name, share, momentum, ema_decay, rate)
    matrix, kick = (
        part.astype(float) for part in oracles.one_step(optimizer, rate, preconditioner)
    )
    keep = slice(0, 3)  # without the sum of all iterates, which has no steady state
    covariance = solve_discrete_lyapunov(
        matrix[keep, keep], np.outer(kick, kick)[keep, keep] * 0.7 / 4
    )
    read = oracles.Y if optimizer.has_ema else oracles.X
    found = steady_state_moments(problem, optimizer, batch_size=4)[0]
    assert found == pytest.approx(covariance[read, read], rel=1e-6)


@given(st.sampled_from(LINEAR), st.floats(0.1, 0.9), st.floats(0, 0.8))
def test_the_loss_of_many_steps_is_the_steady_one(name, share, momentum):
    problem = NoisyQuadratic(
        spectrum=Spectrum(curvatures=[1.0, 0.5], weights=[1.0, 3.0]),
        irreducible_loss=0.1,
    )
    optimizer = optimizer_of(name, share, momentum, 0.7)
    losses = oracles.losses_along(problem, optimizer, 2.0, 400)
    expected = steady_state_risk(problem, optimizer, 2.0)
    assert losses[-1] == pytest.approx(expected, rel=1e-6)


@given(st.sampled_from(LINEAR), shares.filter(lambda s: s > 0), momenta, momenta)
def test_the_rate_is_the_spectral_radius(name, share, momentum, ema_decay):
    optimizer = optimizer_of(name, share, momentum, ema_decay)
    matrix, _ = oracles.one_step(optimizer, 1.0, 1.0)
    used = matrix[:3, :3].astype(float)
    if not optimizer.has_ema:
        used = used[:2, :2]
    expected = np.abs(np.linalg.eigvals(used)).max()
    # Eigenvalues of a nearly defective matrix have half the digits.
    assert convergence_rate(problem_of(), optimizer) == pytest.approx(
        expected, abs=3e-7
    )


def test_momentum_is_fastest_where_its_two_roots_meet():
    x, best = 0.0005, (1 - np.sqrt(0.0005)) ** 2
    rates = [
        convergence_rate(problem_of(), Optimizer(name="momentum", lr=x, momentum=m))
        for m in (best - 0.01, best, best + 0.01)
    ]
    assert rates[1] == pytest.approx(np.sqrt(best), rel=1e-8)
    assert rates[1] < min(rates[0], rates[2])


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99, 0.999])
def test_the_papers_second_figure_has_more_risk_the_more_momentum(momentum):
    x = 0.0005  # lr h of the figure, at batch size 1
    optimizer = Optimizer(name="momentum", lr=x, momentum=momentum)
    expected = 0.5 * x * (1 + momentum) / ((2 * momentum + 2 - x) * (1 - momentum))
    assert steady_state_risk(problem_of(), optimizer, 1) == pytest.approx(expected)


def test_an_average_lowers_the_steady_risk_and_never_the_rate():
    plain = Optimizer(name="sgd", lr=0.5)
    averaged = Optimizer(name="ema", lr=0.5, ema_decay=0.9)
    problem = problem_of()
    assert steady_state_risk(problem, averaged, 1) < steady_state_risk(
        problem, plain, 1
    )
    assert convergence_rate(problem, averaged) == 0.9
    assert convergence_rate(problem, plain) == 0.5


@given(st.sampled_from(LINEAR), st.floats(0.01, 0.99), momenta, momenta)
def test_the_steady_risk_falls_as_one_over_the_batch(name, share, momentum, decay):
    optimizer = optimizer_of(name, share, momentum, decay)
    once, twice = (steady_state_risk(problem_of(), optimizer, b) for b in (8, 16))
    assert once == pytest.approx(2 * twice, rel=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("share", [1.0, 1.5])
def test_at_and_beyond_the_edge_the_risk_is_infinite(name, share):
    optimizer = optimizer_of(name, share, 0.5, 0.5)
    assert steady_state_risk(problem_of(), optimizer, 1) == np.inf
    assert steady_state_risk(problem_of(noise=0.0), optimizer, 1) == np.inf
    assert convergence_rate(problem_of(), optimizer) >= 1 - 1e-15


def test_a_direction_with_nothing_in_it_stays_there_whatever_the_lr():
    problem = problem_of(noise=0.0, initial_second_moments=0.0)
    assert steady_state_risk(problem, Optimizer(name="sgd", lr=5.0), 1) == 0.0


@pytest.mark.parametrize("name", ["average", "tail-average"])
def test_a_uniform_average_forgets_all_noise_and_has_no_rate(name):
    problem = problem_of(irreducible_loss=0.3)
    optimizer = Optimizer(name=name, lr=0.5)
    assert steady_state_risk(problem, optimizer, 1) == 0.3
    assert convergence_rate(problem, optimizer) == 1.0


def test_the_slowest_direction_sets_the_rate():
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
    optimizer = Optimizer(name="sgd", lr=1.0)
    assert convergence_rates(problem, optimizer).argmax() == 99
    assert convergence_rate(problem, optimizer) == 0.99


def test_no_digits_are_lost_where_everything_is_slow():
    # x = 1e-9, 1 - momentum = 1 - ema_decay = 2^-20: the limit of slow dynamics.
    x, gap = 1e-9, 2.0**-20
    optimizer = Optimizer(
        name="momentum+ema", lr=x, momentum=1 - gap, ema_decay=1 - gap
    )
    from fractions import Fraction as F

    mu, g, x = F(1 - gap), F(1 - gap), F(x)
    t = 1 - x + mu
    first = (1 + mu) / ((1 - mu) * ((1 + mu) ** 2 - t**2))
    second = first * t / (1 + mu)
    exact = first * (1 - t * g - mu * g**2) + 2 * g * second
    exact *= (1 - g) / (1 + g) / (1 - t * g + mu * g**2)
    found = steady_state_moments(problem_of(), optimizer, 1)[0] / optimizer.lr**2
    assert found == pytest.approx(float(exact), rel=1e-13)


def test_bad_input_is_refused():
    optimizer = Optimizer(name="sgd", lr=0.5)
    with pytest.raises(InputError, match="`batch_size` must be positive, got 0"):
        steady_state_risk(problem_of(), optimizer, 0)
    with pytest.raises(InputError, match="must have no label noise"):
        steady_state_risk(problem_of(label_noise=1.0), optimizer, 1)
