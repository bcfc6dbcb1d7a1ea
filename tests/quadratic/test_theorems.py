"""The paper's two theorems beside the exact risk."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratic import oracles_problem as oracles

from rightbatch.errors import InputError
from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
from rightbatch.quadratic.steady_state import steady_state_risk
from rightbatch.quadratic.theorems import risk_bound

below_one = st.one_of(
    st.just(0.0), st.floats(0, 0.95), st.floats(1e-4, 0.1).map(lambda gap: 1 - gap)
)
shares = st.one_of(st.floats(1e-5, 0.999), st.just(0.5), st.just(0.25))


def optimizer_of(name, share, second, rate=1.0):
    given_settings = {}
    if name != "sgd":
        given_settings = {"momentum" if name == "momentum" else "ema_decay": second}
    edge = Optimizer(name=name, lr=1.0, **given_settings).max_stable_rate
    return Optimizer(name=name, lr=share * edge / rate, **given_settings)


def problem_of(*curvatures, **given_settings):
    return NoisyQuadratic(
        spectrum=Spectrum(curvatures=curvatures or [1.0]), **given_settings
    )


def quotient(first, second, product, steps):
    """Return the theorem's bracket by its recursion, in long double."""
    total, product = np.longdouble(first) + second, np.longdouble(product)
    before, now = np.longdouble(1), total
    for _ in range(steps - 1):
        before, now = now, total * now - product * before
    return now - product * before


@settings(max_examples=100)
@given(
    st.sampled_from(["sgd", "momentum", "ema"]),
    shares,
    below_one,
    st.floats(0, 1),
    st.integers(1, 3000),
)
def test_the_exact_loss_never_exceeds_the_bound(name, share, second, power, steps):
    problem = problem_of(4.0, 1.0, 0.01, preconditioner_power=power)
    optimizer = optimizer_of(name, share, second, problem.rates[0])
    found = risk_bound(problem, optimizer, 2.0, steps)
    assert found.exact <= found.bound * (1 + 1e-9)


@pytest.mark.parametrize("name", ["sgd", "momentum", "ema"])
@given(share=shares, second=below_one, steps=st.integers(1, 200))
def test_the_start_enters_the_bound_exactly(name, share, second, steps):
    problem = problem_of(noise=np.array([0.0]), irreducible_loss=0.1)
    optimizer = optimizer_of(name, share, second)
    losses = oracles.losses_along(problem, optimizer, 1.0, steps)
    found = risk_bound(problem, optimizer, 1.0, steps)
    assert found.steady_state == 0.0
    assert found.bound == pytest.approx(losses[-1], rel=1e-9)


@given(share=shares, momentum=below_one, steps=st.integers(1, 300))
def test_the_first_theorem_as_printed(share, momentum, steps):
    h, c, s, batch = 2.0, 0.3, 0.7, 4.0
    problem = problem_of(h, noise=np.array([c]), initial_second_moments=s)
    optimizer = optimizer_of("momentum", share, momentum, h)
    lr, mu = optimizer.lr, momentum
    # The sum of the roots is all that the recursion needs, so no root is taken.
    bracket = quotient(1 - np.longdouble(lr) * h + mu, 0, mu, steps)
    noise = (1 + mu) * lr * c / (2 * batch * (2 * mu + 2 - lr * h) * (1 - mu))
    printed = float(bracket**2 * 0.5 * h * s) + noise
    assert risk_bound(problem, optimizer, batch, steps).bound == pytest.approx(
        printed, rel=1e-9
    )


@given(share=shares, decay=below_one, steps=st.integers(1, 300))
def test_the_second_theorem_as_printed(share, decay, steps):
    h, c, s, batch = 2.0, 0.3, 0.7, 4.0
    problem = problem_of(h, noise=np.array([c]), initial_second_moments=s)
    optimizer = optimizer_of("ema", share, decay, h)
    lr, g = optimizer.lr, decay
    left = 1 - np.longdouble(lr) * h
    bracket = quotient(left, g, left * g, steps)
    noise = lr * c / (2 * batch * (2 - lr * h))
    noise *= (1 - g) * (1 + left * g) / ((1 + g) * (1 - left * g))
    printed = float(bracket**2 * 0.5 * h * s + noise)
    assert risk_bound(problem, optimizer, batch, steps).bound == pytest.approx(
        printed, rel=1e-9
    )


@pytest.mark.parametrize("name", ["momentum", "ema"])
@pytest.mark.parametrize("shift", [0.0, 1e-15, -1e-15, 1e-12, 1e-9, -1e-9, 1e-6])
@pytest.mark.parametrize("steps", [1, 10, 300])
def test_where_the_roots_meet_the_limit_is_taken(name, shift, steps):
    second = 0.81
    meet = (1 - np.sqrt(second)) ** 2 if name == "momentum" else 1 - second
    optimizer = Optimizer(
        name=name,
        lr=meet * (1 + shift),
        **{"momentum" if name == "momentum" else "ema_decay": second},
    )
    problem = problem_of(noise=np.array([0.0]))
    losses = oracles.losses_along(problem, optimizer, 1.0, steps)
    assert risk_bound(problem, optimizer, 1.0, steps).bound == pytest.approx(
        losses[-1], rel=1e-9
    )


def test_a_step_of_the_whole_way_leaves_nothing_of_the_start():
    found = risk_bound(problem_of(), Optimizer(name="sgd", lr=1.0), 1, 1)
    assert found.transient == 0.0
    assert found.bound == found.exact == 0.5


@pytest.mark.parametrize("name", ["sgd", "momentum", "ema"])
def test_after_many_steps_bound_and_loss_are_the_steady_state(name):
    problem = problem_of(1.0, 0.5, irreducible_loss=0.2)
    optimizer = optimizer_of(name, 0.3, 0.5)
    found = risk_bound(problem, optimizer, 8, 10_000)
    expected = steady_state_risk(problem, optimizer, 8)
    assert found.bound == pytest.approx(expected, rel=1e-12)
    assert found.exact == pytest.approx(expected, rel=1e-9)
    assert "exactly" in str(found)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (Optimizer(name="nesterov", lr=0.1, momentum=0.9), "the theorems cover sgd"),
        (Optimizer(name="average", lr=0.1), "the theorems cover sgd"),
        (Optimizer(name="sgd", lr=2.0), "below the stability edge 2, got 2"),
        (Optimizer(name="momentum", lr=3.5, momentum=0.5), "stability edge 3, got 3.5"),
    ],
)
def test_what_no_theorem_covers_is_refused(optimizer, message):
    with pytest.raises(InputError, match=message):
        risk_bound(problem_of(), optimizer, 1, 10)


def test_bad_numbers_are_refused():
    sgd = Optimizer(name="sgd", lr=0.1)
    with pytest.raises(InputError, match="`steps` must be a whole number >= 1, got 0"):
        risk_bound(problem_of(), sgd, 1, 0)
    with pytest.raises(InputError, match="`batch_size` must be positive, got -1"):
        risk_bound(problem_of(), sgd, -1, 5)
    with pytest.raises(InputError, match="must have no label noise"):
        risk_bound(problem_of(label_noise=0.0), sgd, 1, 5)
