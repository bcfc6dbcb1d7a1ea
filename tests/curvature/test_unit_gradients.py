"""Gradients of units against autograd one by one, and unbiased moments of them."""

import math

import pytest
import torch
from curvature.example_models import (
    CROSS_ENTROPY,
    Regression,
    example_gradients,
    labelled,
    network,
)
from torch import nn

from rightbatch.curvature import UnitGradients, in_units, unit_gradients
from rightbatch.errors import InputError
from rightbatch.noise_scale import unit_moments


def z_score(values, truth):
    values = torch.as_tensor(values, dtype=torch.float64)
    return float((values.mean() - truth) / (values.std() / math.sqrt(len(values))))


def test_units_of_one_example_have_the_examples_gradients():
    model, batch = network(), labelled(6)
    units = unit_gradients(model, CROSS_ENTROPY, in_units(batch))
    expected = example_gradients(model, CROSS_ENTROPY, batch)
    assert torch.allclose(units.rows, expected, atol=1e-14)
    assert (len(units), units.unit_size) == (6, 1)
    assert torch.allclose(units.mean, expected.mean(0))


def test_the_moments_are_those_of_the_noise_scale_module():
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    found = UnitGradients(rows=rows.double(), unit_size=3).moments()
    norms = rows.double().square().sum(1).tolist()
    expected = unit_moments(norms, float(rows.double().mean(0).square().sum()), 3)
    assert found.grad_sq_norm == pytest.approx(expected.grad_sq_norm)
    assert found.grad_variance == pytest.approx(expected.grad_variance)


def drawn_rows(problem, num_draws, num_units, unit_size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_draws, num_units, unit_size)
    places = torch.randint(len(problem.rows), shape, generator=generator)
    return problem.rows[places].mean(2)


def test_preconditioned_moments_are_unbiased():
    problem = Regression()
    diagonal = torch.linspace(0.2, 2, 6, dtype=torch.float64)
    found = [
        UnitGradients(rows=rows, unit_size=4).scaled(diagonal).moments()
        for rows in drawn_rows(problem, 4000, 3, 4)
    ]
    variance = float((diagonal**2 * problem.covariance.diagonal()).sum())
    square = float((diagonal * problem.gradient).square().sum())
    assert abs(z_score([m.grad_variance for m in found], variance)) < 4
    assert abs(z_score([m.grad_sq_norm for m in found], square)) < 4


def test_a_preconditioner_that_has_seen_the_gradients_is_biased():
    problem = Regression()
    draws = drawn_rows(problem, 1000, 3, 4)
    others = drawn_rows(problem, 1000, 3, 4, seed=1)
    scales = []
    for looked_at in (others, draws):
        moments = [
            UnitGradients(rows=rows, unit_size=4)
            .scaled(1 / (seen.square().mean(0).sqrt() + 1e-3))
            .moments()
            for rows, seen in zip(draws, looked_at, strict=True)
        ]
        variance = sum(m.grad_variance for m in moments)
        scales.append(variance / sum(m.grad_sq_norm for m in moments))
    assert scales[1] > 1.3 * scales[0]


def test_noise_and_gradient_along_directions_are_unbiased():
    problem = Regression()
    basis = torch.linalg.eigh(problem.hessian)[1].T
    found = [
        torch.stack(UnitGradients(rows=rows, unit_size=4).along(basis))
        for rows in drawn_rows(problem, 3000, 3, 4)
    ]
    noise, squares = torch.stack(found).unbind(1)
    for k in range(6):
        assert abs(z_score(noise[:, k], basis[k] @ problem.covariance @ basis[k])) < 4
        assert abs(z_score(squares[:, k], (basis[k] @ problem.gradient) ** 2)) < 4


def test_a_batch_is_cut_whatever_holds_its_tensors():
    nested = {"x": torch.arange(7), "rest": [torch.ones(7, 2), (torch.zeros(7),)]}
    units = in_units(nested, unit_size=3)
    assert len(units) == 2
    assert units[1]["x"].tolist() == [3, 4, 5]
    assert isinstance(units[1]["rest"], list)
    assert isinstance(units[1]["rest"][1], tuple)
    assert units[1]["rest"][1][0].shape == (3,)


def test_blocks_are_of_equal_length_and_a_rest_is_left_out():
    units = UnitGradients(rows=torch.arange(7.0)[:, None], unit_size=2)
    assert [b.rows[:, 0].tolist() for b in units.blocks(3)] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False).eval()]
)
def test_normalisation_over_the_batch_is_refused(norm):
    model = nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 3)).double()
    with pytest.raises(InputError, match=r"got 1 \(BatchNorm1d\).*call model.eval\(\)"):
        unit_gradients(model, CROSS_ENTROPY, [labelled(4)])


def test_normalisation_by_running_statistics_is_taken():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    batch = labelled(4)
    units = unit_gradients(model.eval(), CROSS_ENTROPY, in_units(batch))
    whole = unit_gradients(model, CROSS_ENTROPY, [batch])
    assert torch.allclose(units.mean, whole.rows[0], atol=1e-14)


def test_units_of_unlike_size_are_refused():
    with pytest.raises(InputError, match="same number of examples each, got 2 to 3"):
        unit_gradients(network(), CROSS_ENTROPY, [labelled(2), labelled(3)])


def test_a_single_unit_tells_no_variance():
    units = UnitGradients(rows=torch.ones(1, 2), unit_size=1)
    with pytest.raises(InputError, match="moments: `units` must be at least 2, got 1"):
        units.moments()
    with pytest.raises(InputError, match="along: `units` must be at least 2, got 1"):
        units.along(torch.eye(2))
    with pytest.raises(InputError, match="blocks: `units` must be at least 2, got 1"):
        list(units.blocks(2))


def test_rows_that_are_no_gradients_are_refused():
    with pytest.raises(InputError, match="`rows` must be one gradient per unit"):
        UnitGradients(rows=torch.ones(3), unit_size=1)
    with pytest.raises(InputError, match="`rows` must be finite, got 1 of 3"):
        UnitGradients(rows=torch.tensor([[1.0, 2.0, torch.nan]]), unit_size=1)
    with pytest.raises(InputError, match="`unit_size` must be a whole number"):
        UnitGradients(rows=torch.ones(3, 1), unit_size=0)
    units = UnitGradients(rows=torch.ones(3, 2), unit_size=1)
    with pytest.raises(InputError, match="scaled: `diagonal` must be flat with 2"):
        units.scaled(torch.ones(3))


@pytest.mark.parametrize(
    ("batch", "size", "words"),
    [
        ((torch.ones(3), torch.ones(2)), 1, r"one length, at least 1, got .*\[2, 3\]"),
        (torch.ones(3), 4, r"at least 4, got lengths \[3\]"),
        (torch.tensor(1.0), 1, r"got lengths \[0\]"),
        ((torch.ones(3), "name"), 1, "must hold tensors only, got str"),
    ],
)
def test_what_cannot_be_cut_is_refused(batch, size, words):
    with pytest.raises(InputError, match=words):
        in_units(batch, size)
