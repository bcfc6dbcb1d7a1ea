"""Inner-product tests and CABS, beside what they promise on drawn gradients."""

import math

import numpy as np
import pytest
from policies.example_runs import clock, follow, sizes

from rightbatch.noise_scale import GradientMoments
from rightbatch.policies import CABS, InnerProductTest, NormTest

START = {"initial_batch_size": 8}


def moments(square, variance=350.0):
    return GradientMoments(grad_sq_norm=square, grad_variance=variance)


def test_the_batch_just_passes_both_inner_product_tests():
    mean = np.array([1.0, 2.0, 0.0])
    covariance = np.diag([9.0, 4.0, 25.0])
    square, along = mean @ mean, mean @ covariance @ mean
    seen = clock(
        1,
        moments=[moments(square, np.trace(covariance))],
        inner_product_variance=[along],
    )
    theta, nu = 0.5, 0.3
    (plain,) = sizes(InnerProductTest(**START, theta=theta), seen)
    (both,) = sizes(InnerProductTest(**START, theta=theta, nu=nu), seen)
    draws = np.random.default_rng(0).multivariate_normal(
        mean, covariance / plain, size=200_000
    )
    # Var of the product with G over theta^2 |G|^4 is one; 1 % is 3 standard errors.
    products = draws @ mean
    assert products.var() / (theta * square) ** 2 == pytest.approx(1, abs=0.01)
    across = np.trace(covariance) - along / square
    assert across / both / square == pytest.approx(nu**2)
    assert both > plain


def test_cabs_weighs_noise_against_what_is_left_to_lose():
    seen = clock(
        4,
        moments=[None, moments(0.5), moments(-1.0), moments(0.5, -3.0)],
        lr=[None, 0.1, 0.2, 0.2],
        batch_loss=[None, 2.0, 2.0, 2.0],
    )
    # It needs no |G|^2, and holds where there is no variance.
    assert sizes(CABS(**START), seen) == [8, 17.5, 35, 35]
    assert sizes(CABS(**START, best_loss=1.0), seen)[1] == 35


@pytest.mark.parametrize("loss", [None, 1.0, 0.5, math.nan, math.inf])
def test_cabs_holds_where_a_batch_s_loss_is_at_the_best_or_none(loss):
    seen = clock(1, moments=[moments(0.5)], lr=[0.1], batch_loss=[loss])
    (decision,) = follow(CABS(**START, best_loss=1.0), seen)
    assert decision.batch_size == 8


@pytest.mark.parametrize("nu", [None, 1.0])
def test_an_unresolved_gradient_leaves_the_batch(nu):
    seen = clock(
        5,
        moments=[None, moments(0.5), moments(-0.5), moments(0.0), moments(0.5)],
        inner_product_variance=[None, 40.0, 40.0, 40.0, math.nan],
    )
    policy = InnerProductTest(**START, nu=nu)
    batches = sizes(policy, seen)
    assert batches[0] == 8
    assert len(set(batches[1:])) == 1
    assert follow(policy, seen)[2].reason == "|G|^2 unresolved"


def test_each_says_what_it_needs():
    assert InnerProductTest(**START).needs == {"moments", "inner_product_variance"}
    assert CABS(**START).needs == {"moments", "lr", "batch_loss"}


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: NormTest(initial_batch_size=0), "NormTest: `initial_batch_size` must"),
        (lambda: InnerProductTest(initial_batch_size=0), "InnerProductTest: `initial"),
        (lambda: InnerProductTest(**START, theta=0), "InnerProductTest: `theta` must"),
        (lambda: InnerProductTest(**START, nu=0), "InnerProductTest: `nu` must be pos"),
        (lambda: CABS(initial_batch_size=0), "CABS: `initial_batch_size` must be pos"),
        (lambda: CABS(**START, best_loss=math.inf), "CABS: `best_loss` must be a fin"),
    ],
)
def test_values_out_of_range_are_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
