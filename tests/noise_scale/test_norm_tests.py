"""Batch sizes that pass a test on gradients: they pass it with equality."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_scale.known_gradients import known_gradients, sq_norm

from rightbatch.convergence import ConvergenceLaw, definitions
from rightbatch.noise_scale import (
    GradientMoments,
    augmented_test_batch,
    inner_product_test_batch,
    inner_product_variance,
    norm_test_batch,
)

HIDDEN = GradientMoments(grad_sq_norm=-0.1, grad_variance=2.0)


def draw_means(batch_size, num=20_000):
    """Return means of batches of normal gradients, (n, d), and what they are of."""
    known = known_gradients(200.0, dims=5)
    draws = known.examples(np.random.default_rng(0), num, is_normal=True)
    return known.mean + (draws - known.mean) / math.sqrt(batch_size), known


def test_at_the_batch_of_the_norm_test_noise_is_theta_times_the_signal():
    known = known_gradients(200.0, dims=5)
    batch_size = norm_test_batch(known.moments, theta=0.5)
    means, _ = draw_means(batch_size)
    noise, signal = sq_norm(means - known.mean).mean(), sq_norm(known.mean)
    assert noise / signal == pytest.approx(0.25, rel=0.03)


def test_at_the_batch_of_the_inner_product_test_the_product_scatters_by_theta():
    known = known_gradients(200.0, dims=5)
    along = known.mean @ known.covariance @ known.mean
    batch_size = inner_product_test_batch(known.moments, along, theta=0.7)
    means, _ = draw_means(batch_size)
    products = means @ known.mean / sq_norm(known.mean)
    assert products.std() == pytest.approx(0.7, rel=0.03)


@pytest.mark.parametrize(("theta", "nu"), [(0.7, 100.0), (100.0, 0.7)])
def test_at_the_batch_of_the_augmented_test_the_stricter_part_holds(theta, nu):
    known = known_gradients(200.0, dims=5)
    along = known.mean @ known.covariance @ known.mean
    batch_size = augmented_test_batch(known.moments, along, theta, nu)
    means, _ = draw_means(batch_size)
    products = means @ known.mean / sq_norm(known.mean)
    across = means - products[:, None] * known.mean
    found = (
        products.var() / theta**2,
        sq_norm(across).mean() / (nu**2 * sq_norm(known.mean)),
    )
    assert max(found) == pytest.approx(1, rel=0.05)
    assert min(found) < 0.1


@given(phi=st.floats(1, 1e5), theta=st.floats(0.1, 10))
def test_the_norm_test_is_that_of_a_law_whose_phi_is_the_noise_scale(phi, theta):
    law = ConvergenceLaw(min_steps=100, min_examples=100 * phi)
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=phi)
    of_law = definitions.norm_test(law, theta=theta).value
    assert norm_test_batch(moments, theta) == pytest.approx(of_law)


@given(seed=st.integers(0, 2**32 - 1), num=st.integers(2, 20), b=st.floats(1, 100))
def test_with_one_and_the_same_group_it_is_the_plug_in(seed, num, b):
    products = np.random.default_rng(seed).normal(size=num)
    found = inner_product_variance(products, products, b)
    assert found == pytest.approx(b * products.var(ddof=1))
    turned = inner_product_variance(products, -products, b)
    assert turned == pytest.approx(-found)


def test_where_noise_hides_the_gradient_no_batch_passes():
    assert norm_test_batch(HIDDEN, 0.5) is None
    assert inner_product_test_batch(HIDDEN, 1.0, 0.5) is None
    assert augmented_test_batch(HIDDEN, 1.0, 0.5, 2.0) is None


tiny_to_huge = st.floats(-320, 300).map(lambda power: 10.0**power)


@given(square=tiny_to_huge, along=tiny_to_huge, theta=st.floats(0.1, 10))
def test_a_gradient_near_nothing_asks_for_what_exact_numbers_say_or_for_no_end(
    square, along, theta
):
    moments = GradientMoments(grad_sq_norm=square, grad_variance=0.0)
    exact = Fraction(along) / Fraction(theta * square) ** 2
    largest = Fraction(sys.float_info.max)
    wanted = float(exact) if exact < largest else math.inf
    found = inner_product_test_batch(moments, along, theta)
    assert found == pytest.approx(wanted, rel=1e-12, abs=1e-300)


def test_a_squared_norm_whose_square_floats_do_not_have_is_no_error():
    moments = GradientMoments(grad_sq_norm=1e-308, grad_variance=350.0)
    assert inner_product_test_batch(moments, 4.0, theta=0.5) == math.inf
    assert augmented_test_batch(moments, 4.0, theta=0.5, nu=2.0) == math.inf
    assert inner_product_test_batch(moments, 0.0, theta=0.5) == 0
    least = GradientMoments(grad_sq_norm=5e-324, grad_variance=350.0)
    assert inner_product_test_batch(least, 4.0, theta=0.1) is None
    assert augmented_test_batch(least, 4.0, theta=0.1, nu=0.1) is None


def test_a_known_answer():
    moments = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
    assert augmented_test_batch(moments, 4.0, theta=0.5, nu=2.0) == (350 - 8) / 2
    assert augmented_test_batch(moments, 4.0, theta=0.1, nu=2.0) == pytest.approx(1600)


def test_a_variance_that_came_out_below_zero_asks_for_no_examples():
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=10.0)
    assert inner_product_test_batch(moments, -1.0, 0.5) == 0


def test_tests_that_make_no_sense_are_refused():
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=10.0)
    with pytest.raises(ValueError, match="norm_test_batch: `theta` must be positive"):
        norm_test_batch(moments, 0)
    with pytest.raises(ValueError, match="inner_product_test_batch: `theta` must be"):
        inner_product_test_batch(moments, 1.0, 0)
    with pytest.raises(ValueError, match="`inner_product_variance` must be a finite"):
        inner_product_test_batch(moments, math.nan, 0.5)
    with pytest.raises(ValueError, match="augmented_test_batch: `nu` must be positive"):
        augmented_test_batch(moments, 1.0, 0.5, 0)
    who = "inner_product_variance"
    for first, second in (([1.0], [1.0]), ([1.0, 2.0], [1.0]), (1.0, 1.0)):
        with pytest.raises(ValueError, match=f"{who}: products must be two lists"):
            inner_product_variance(first, second, 1)
    with pytest.raises(ValueError, match="a product is not finite. .skip the update"):
        inner_product_variance([1.0, math.inf], [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="`examples_per_unit` must be positive"):
        inner_product_variance([1.0, 2.0], [1.0, 2.0], 0)
