"""The gradient's variance along the gradient, against known ones and brute force."""

import itertools

import pytest
import torch
from curvature.example_models import Regression
from curvature.test_unit_gradients import drawn_rows, z_score
from torch import nn

from rightbatch.curvature import (
    UnitGradients,
    group_products,
    unit_gradients,
    variance_along_gradient,
    variance_of_dots,
)
from rightbatch.errors import InputError
from rightbatch.noise_scale import inner_product_variance


def test_it_is_the_mean_over_all_units_that_differ():
    rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    dots = rows @ rows.T
    terms = [
        (dots[i, k] - dots[j, k]) * (dots[i, m] - dots[j, m]) / 2
        for i, j, k, m in itertools.permutations(range(6), 4)
    ]
    expected = 5 * float(sum(terms)) / len(terms)
    found = variance_along_gradient(UnitGradients(rows=rows, unit_size=5))
    assert found == pytest.approx(expected)


def test_it_is_unbiased_where_the_plug_in_is_far_off():
    problem = Regression()
    truth = float(problem.gradient @ problem.covariance @ problem.gradient)
    size, count = 2, 8
    found, three_groups, plug_in = [], [], []
    for rows in drawn_rows(problem, 4000, count, size):
        found.append(variance_along_gradient(UnitGradients(rows=rows, unit_size=size)))
        own, u, v = rows[:4], rows[4:6].mean(0), rows[6:].mean(0)
        both = torch.stack([own @ u, own @ v])
        three_groups.append(size * float(torch.cov(both)[0, 1]))
        plug_in.append(size * float((rows @ rows.mean(0)).var()))
    assert abs(z_score(found, truth)) < 4
    assert abs(z_score(three_groups, truth)) < 4
    assert z_score(plug_in, truth) > 10
    # 16 examples in all; what is left is of the order of 1/16^2
    apart = problem.rows - problem.gradient
    skew = 2 * float(((apart @ problem.gradient) * apart.square().sum(1)).mean())
    square = float((problem.covariance @ problem.covariance).trace())
    bias = float(torch.tensor(plug_in).mean()) - truth
    assert bias == pytest.approx((square + skew) / 16, rel=0.3)
    assert skew > 2 * square
    spread, wider = (torch.tensor(v).std() for v in (found, three_groups))
    assert spread < wider


def test_products_with_two_groups_are_those_of_the_units_gradients():
    problem = Regression()
    batches = problem.batches(11, 3)
    found = group_products(problem.model, problem.loss, batches)
    rows = unit_gradients(problem.model, problem.loss, batches).rows
    assert found[0] == pytest.approx((rows[:7] @ rows[7:9].mean(0)).numpy())
    assert found[1] == pytest.approx((rows[:7] @ rows[9:].mean(0)).numpy())


def test_products_give_an_unbiased_variance():
    problem = Regression()
    truth = float(problem.gradient @ problem.covariance @ problem.gradient)
    found = [
        inner_product_variance(
            *group_products(problem.model, problem.loss, problem.batches(8, 8, seed=s)),
            examples_per_unit=8,
        )
        for s in range(300)
    ]
    assert abs(z_score(found, truth)) < 4


def test_batches_that_make_no_groups_are_refused():
    problem = Regression()
    with pytest.raises(InputError, match="group_products: `units` must be at least 4"):
        group_products(problem.model, problem.loss, problem.batches(3, 2))
    uneven = problem.batches(4, 2) + problem.batches(1, 3)
    with pytest.raises(InputError, match="same number of examples each, got 2 to 3"):
        group_products(problem.model, problem.loss, uneven)
    norm = nn.Sequential(nn.Linear(6, 1), nn.BatchNorm1d(1)).double()
    with pytest.raises(InputError, match="must not normalise over the batch"):
        group_products(norm, problem.loss, problem.batches(4, 2))


@pytest.mark.parametrize("shape", [(3, 3), (4, 5), (4,)])
def test_dots_that_are_not_of_four_units_are_refused(shape):
    with pytest.raises(InputError, match="`dots` must be square, of 4 units at least"):
        variance_of_dots(torch.ones(shape).numpy(), 1)


def test_a_unit_without_examples_is_refused():
    with pytest.raises(InputError, match="`unit_size` must be a whole number"):
        variance_of_dots(torch.eye(4).numpy(), 0)
