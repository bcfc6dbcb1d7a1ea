"""Two moments of a gradient, and what follows from them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.noise_scale import GradientMoments

positive = st.floats(1e-6, 1e6)


@given(square=positive, variance=positive, batch_size=st.floats(1, 1e6))
def test_at_the_noise_scale_signal_and_noise_of_a_batch_are_equal(
    square, variance, batch_size
):
    moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
    scale = moments.simple_noise_scale
    assert moments.batch_grad_sq_norm(scale) == pytest.approx(2 * square)
    share = moments.grad_sq_norm / moments.batch_grad_sq_norm(batch_size)
    assert share == pytest.approx(batch_size / (scale + batch_size))


@given(
    parts=st.lists(st.tuples(st.floats(-10, 10), st.floats(0, 10)), min_size=2),
)
def test_moments_of_groups_of_parameters_add(parts):
    groups = [GradientMoments(grad_sq_norm=g, grad_variance=t) for g, t in parts]
    total = groups[0]
    for group in groups[1:]:
        total = total + group
    assert total.grad_sq_norm == pytest.approx(sum(g for g, _ in parts), abs=1e-9)
    assert total.grad_variance == pytest.approx(sum(t for _, t in parts), abs=1e-9)


def test_the_diversity_bound_is_that_of_the_examples_themselves():
    gradients = np.random.default_rng(0).normal(0.3, 1, size=(50, 7))
    mean = gradients.mean(axis=0)
    moments = GradientMoments(
        grad_sq_norm=float(mean @ mean),
        grad_variance=float(((gradients - mean) ** 2).sum() / 50),
    )
    bound = 50 * (gradients**2).sum() / (gradients.sum(axis=0) ** 2).sum()
    assert moments.diversity_batch_bound == pytest.approx(bound)


def test_a_gradient_that_noise_hides_has_no_finite_noise_scale():
    moments = GradientMoments(grad_sq_norm=-0.1, grad_variance=2.0)
    assert moments.simple_noise_scale == math.inf
    assert moments.to_dict() == {
        "grad_sq_norm": -0.1,
        "grad_variance": 2.0,
        "simple_noise_scale": None,
        "diversity_batch_bound": None,
    }


def test_known_moments_are_told_to_a_program():
    moments = GradientMoments(grad_sq_norm=2.0, grad_variance=8.0)
    assert moments.to_dict()["simple_noise_scale"] == 4.0
    assert moments.to_dict()["diversity_batch_bound"] == 5.0


@pytest.mark.parametrize("value", [math.nan, math.inf, "much"])
def test_a_moment_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="`grad_sq_norm` must be a finite number"):
        GradientMoments(grad_sq_norm=value, grad_variance=1.0)


@pytest.mark.parametrize(
    ("square", "variance", "scale"),
    [(2.0, 8.0, 4.0), (2.0, 0.0, 0.0), (2.0, -1.0, 0.0), (0.0, 1.0, math.inf)],
)
def test_the_noise_scale_of_one_step_says_which_moment_was_lost(
    square, variance, scale
):
    moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
    assert moments.simple_noise_scale == scale


@pytest.mark.parametrize(("square", "variance"), [(0, 0), (-1, 0), (0, -1), (-1, -1)])
def test_without_either_moment_there_is_no_noise_scale(square, variance):
    moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
    assert math.isnan(moments.simple_noise_scale)
    assert moments.to_dict()["simple_noise_scale"] is None


def test_a_batch_of_nothing_is_refused():
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=1.0)
    with pytest.raises(ValueError, match="batch_grad_sq_norm: `batch_size` must be"):
        moments.batch_grad_sq_norm(0)


def test_a_data_set_of_nothing_is_refused():
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=1.0)
    with pytest.raises(ValueError, match="for_dataset: `dataset_size` must be"):
        moments.for_dataset(0)


@given(square=st.floats(-10, 10), variance=positive, size=st.floats(1, 1e6))
def test_a_data_set_drawn_from_has_the_gradient_of_a_batch_of_its_size(
    square, variance, size
):
    moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
    of_data = moments.for_dataset(size)
    assert of_data.grad_sq_norm == moments.batch_grad_sq_norm(size)
    assert of_data.grad_variance == variance
