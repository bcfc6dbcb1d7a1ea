"""A noisy quadratic from a real run's measurements."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.quadratic import Noise
from rightbatch.quadratic.measured import from_measurements

GIVEN = {
    "nodes": [-0.1, 2.0, 1e-9, 0.5],
    "weights": [10, 1, 100, 40],
    "noise": [0.1, 1.0, 0.3, 0.2],
    "initial_second_moments": [4.0, 1.0, 3.0, 2.0],
}


def measured(**settings):
    return from_measurements(**{**GIVEN, **settings})


def test_each_node_keeps_its_weight_noise_and_start_whatever_the_order():
    problem = measured(drop_below=1e-6).problem
    assert problem.curvatures.tolist() == [2.0, 0.5]
    assert problem.weights.tolist() == [1.0, 40.0]
    assert problem.noise_variances.tolist() == [1.0, 0.2]
    assert problem.start.tolist() == [1.0, 2.0]


@given(st.permutations(range(4)))
def test_the_order_of_the_nodes_does_not_matter(order):
    shuffled = {name: np.asarray(GIVEN[name])[list(order)] for name in GIVEN}
    first = measured(drop_below=0).problem
    second = from_measurements(**shuffled, drop_below=0).problem
    assert first.curvatures.tolist() == second.curvatures.tolist()
    assert first.noise_variances.tolist() == second.noise_variances.tolist()
    assert first.start.tolist() == second.start.tolist()


def test_what_was_left_out_is_told():
    left_out = measured(drop_below=1e-6).left_out
    assert left_out.num_nodes == 2
    assert left_out.weight == 110
    assert left_out.negative_trace == pytest.approx(-1.0)
    assert left_out.small_trace == pytest.approx(1e-7)
    assert left_out.trace_share == pytest.approx(1 / 23, rel=1e-6)
    assert "2 nodes left out, 110 directions with 4.3 %" in str(left_out)
    assert measured(drop_below=0).left_out.num_nodes == 1
    whole = from_measurements(nodes=[1.0], weights=[2.0], noise=Noise())
    assert str(whole.left_out) == "nothing left out"


@given(st.floats(0.11, 100))
def test_the_start_is_scaled_to_the_measured_loss(initial_loss):
    scaled = measured(initial_loss=initial_loss, irreducible_loss=0.1, drop_below=0)
    assert scaled.problem.initial_loss == pytest.approx(initial_loss, rel=1e-12)
    expected = np.array([1.0, 2.0, 3.0]) * scaled.start_scale
    np.testing.assert_allclose(scaled.problem.start, expected)


def test_moments_that_are_given_alone_are_left_as_they_are():
    assert measured(drop_below=0).start_scale == 1.0


def test_noise_may_be_a_rule_and_one_start_may_serve_all():
    problem = from_measurements(
        nodes=[0.5, 2.0], weights=[1, 1], noise=Noise(isotropic=1.0)
    ).problem
    assert problem.noise_variances.tolist() == [3.0, 1.5]
    assert problem.start.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"`nodes` must be positive, got -0.1 at 0. \(`drop_below=0` leaves"),
        ({"nodes": [-1.0, -1, -1, -2]}, "`nodes` must hold a positive one, got -1"),
        ({"nodes": "text"}, "`nodes` must be numbers"),
        ({"nodes": []}, "`nodes` must be a list of numbers"),
        ({"nodes": [1.0, np.nan, 1, 1]}, "`nodes` must be finite, got nan at 1"),
        ({"nodes": [[1.0]]}, r"`nodes` must be a list of numbers, got shape \(1, 1\)"),
        ({"weights": [1, 2]}, "`weights` must be as many as `nodes`, got 2 and 4"),
        ({"weights": [1, 1, -1, 1]}, "`weights` must not be negative, got -1 at 2"),
        ({"noise": [1, -1, 1, 1]}, "`noise` must not be negative, got -1 at 1"),
        ({"noise": [1, 1]}, r"`noise` must be 4 numbers, got shape \(2,\)"),
        ({"initial_second_moments": [1, 1, 1]}, "must be 4 numbers"),
        ({"drop_below": -1.0}, "`drop_below` must not be negative"),
        ({"drop_below": 1.0}, "`drop_below` must be a share below 1"),
        (
            {"drop_below": 0, "initial_loss": 0.1, "irreducible_loss": 0.1},
            "`initial_loss` must be above the irreducible loss 0.1, got 0.1",
        ),
        ({"drop_below": 0, "initial_loss": np.inf}, "`initial_loss` must be a finite"),
        (
            {"drop_below": 0, "initial_loss": 1.0, "initial_second_moments": 0.0},
            "must not all be 0, got a start at the minimum",
        ),
    ],
)
def test_measurements_that_make_no_problem_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        measured(**settings)
