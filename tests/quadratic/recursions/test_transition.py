"""One step as a small matrix: that of torch, near the edge too."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quadratic.example_settings import edge
from quadratic.oracles_dynamics import one_step

from rightbatch.quadratic import Optimizer
from rightbatch.quadratic.recursions.transition import (
    Settings,
    begin_of,
    change,
    coefficients,
    layout_of,
    settings_of,
    turn,
    turn_back,
)

BUFFERED = st.sampled_from(["momentum", "nesterov"])
gaps = st.floats(-3, 0).map(lambda x: 10**x)
shares = st.floats(0.001, 1)  # of the stability edge


def step_and_kick(name, lr, gap, rate):
    settings = (lr, 1 - gap, 0.0)
    columns = [one_step(name, x, d, 0, rate * x, settings)[:2] for x, d in np.eye(2)]
    return np.array(columns).T, np.array(one_step(name, 0, 0, 0, 1.0, settings)[:2])


@given(BUFFERED, shares, gaps, gaps)
def test_a_step_is_that_of_torch_in_its_own_coordinates(name, share, gap, rate):
    lr = edge(name, gap) * share / rate
    step, kick = step_and_kick(name, lr, gap, rate)
    xx, xd, dx, dd, *kicks, shift, turned = change(lr, gap, name == "nesterov", rate)
    own = np.array([[1 + xx, xd], [dx, 1 + dd]])
    to_own = np.array([[1, 0], [shift, lr]]) if turned else np.eye(2)
    theirs = to_own @ step @ np.linalg.inv(to_own) * (-1 if turned else 1)
    np.testing.assert_allclose(own, theirs, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(kicks, to_own @ kick, rtol=1e-9, atol=1e-9)
    assert shift == (to_own @ [1, 0])[1]


@given(BUFFERED, shares, gaps, gaps, st.floats(-9, 9), st.floats(-9, 9))
def test_a_turned_row_reads_the_same(name, share, gap, rate, x, d):
    lr = edge(name, gap) * share / rate
    *_, shift, turned = change(lr, gap, name == "nesterov", rate)
    own = turn(x, d, lr, shift, turned)
    state = np.array([1.7, -0.3])
    to_own = np.array([[1, 0], [shift, lr]]) if turned else np.eye(2)
    assert own @ (to_own @ state) == pytest.approx([x, d] @ state, abs=1e-9)
    assert turn_back(*own, lr, shift, turned) == pytest.approx((x, d), abs=1e-12)


@given(BUFFERED, st.floats(-6, 0).map(lambda x: 10**x), st.integers(0, 40))
def test_the_distance_to_the_edge_has_all_its_digits(name, gap, ulps):
    nesterov = float(name == "nesterov")
    lr = edge(name, gap)
    for _ in range(ulps):
        lr = np.nextafter(lr, 0)
    xx, *_, turned = change(lr, gap, nesterov, 1.0)
    assert turned
    exact_gap, x = Fraction(gap), Fraction(lr)
    nu = 3 - 2 * exact_gap if nesterov else 1
    pull = 2 - exact_gap if nesterov else 1
    exact = -pull / nu * (2 * (2 - exact_gap) - nu * x)
    # What is left of rounding: 2 gap (1 - x), for Nesterov's momentum.
    assert float(xx) == pytest.approx(float(exact), rel=1e-15, abs=2e-16 * gap + 1e-300)


@pytest.mark.parametrize(
    ("name", "layout", "begin"),
    [
        ("sgd", (False, False), 0),
        ("momentum", (True, False), 0),
        ("nesterov", (True, False), 0),
        ("ema", (False, True), 1),
        ("momentum+ema", (True, True), 1),
        ("nesterov+ema", (True, True), 1),
        ("average", (False, True), 0),
        ("tail-average", (False, True), 0),
    ],
)
def test_a_state_has_a_buffer_and_what_is_read_apart(name, layout, begin):
    assert layout_of(name) == layout
    assert begin_of(name) == begin


def test_coefficients_take_into_a_moving_average_what_it_forgets():
    settings = Settings(*np.array([[0.1, 0.2], [0.5, 0.4], [0.01, 0.02]]))
    co = coefficients("nesterov+ema", settings)
    assert co.take.tolist() == co.forget.tolist() == [0.01, 0.02]
    assert co.nesterov.tolist() == [1, 1]
    total = coefficients("average", settings)
    assert (total.take.tolist(), total.forget.tolist()) == ([1, 1], [0, 0])
    assert coefficients("momentum+ema", settings).nesterov.tolist() == [0, 0]


def test_settings_are_those_of_the_optimizer():
    optimizer = Optimizer(name="momentum+ema", lr=0.1, momentum=0.75, ema_decay=0.5)
    assert [part.tolist() for part in settings_of(optimizer)] == [[0.1], [0.25], [0.5]]
