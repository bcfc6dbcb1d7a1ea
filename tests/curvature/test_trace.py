"""Hutchinson's trace against the trace."""

import math

import pytest
import torch
from curvature.example_models import (
    CROSS_ENTROPY,
    explicit_gauss_newton,
    explicit_hessian,
    labelled,
    network,
)

from rightbatch.curvature import Product, gauss_newton, hessian, hutchinson_trace
from rightbatch.errors import InputError


@pytest.mark.parametrize(
    ("make", "explicit"),
    [(hessian, explicit_hessian), (gauss_newton, explicit_gauss_newton)],
)
def test_the_trace_lies_within_its_error(make, explicit):
    model, batch = network(), labelled(7)
    product = make(model, CROSS_ENTROPY, [batch], **keeping(make))
    found = hutchinson_trace(product, num_probes=400)
    matrix = explicit(model, CROSS_ENTROPY, batch)
    assert abs(found.trace - float(matrix.trace())) < 4 * found.standard_error
    off_diagonal = matrix - torch.diag(matrix.diagonal())
    spread = math.sqrt(2 * float(off_diagonal.square().sum()) / 400)
    # the spread of 400 values is known to about 1/sqrt(800) and heavier tails
    assert found.standard_error == pytest.approx(spread, rel=0.2)


def keeping(make):
    return {"keep_graphs": True} if make is hessian else {}


def test_a_diagonal_matrix_is_told_by_one_probe():
    diagonal = torch.tensor([1.0, -2.0, 4.0])
    product = Product(name="H", apply=diagonal.mul, like=diagonal)
    found = hutchinson_trace(product, num_probes=1)
    assert (found.trace, found.standard_error) == (3.0, math.inf)
    assert found.to_dict()["standard_error"] is None
    assert str(found) == "trace 3 +- inf (1 probe)"


def test_the_global_random_numbers_are_not_touched():
    before = torch.random.get_rng_state()
    hutchinson_trace(Product(name="H", apply=lambda v: v, like=torch.ones(3)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_no_probes_are_refused():
    product = Product(name="H", apply=lambda v: v, like=torch.ones(3))
    with pytest.raises(InputError, match="`num_probes` must be a whole number >= 1"):
        hutchinson_trace(product, num_probes=0)
