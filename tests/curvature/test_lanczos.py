"""Ritz values against eigenvalues, and quadrature against quadratic forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.curvature import Product, lanczos
from rightbatch.errors import InputError


def symmetric(size, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    square = torch.randn(size, size, generator=drawn, dtype=torch.float64)
    return square + square.T


def product_of(matrix):
    return Product(name="H", apply=matrix.mv, like=matrix[0])


@given(size=st.integers(1, 12), steps=st.integers(1, 12), seed=st.integers(0, 50))
def test_quadrature_is_exact_up_to_degree_two_m_minus_one(size, steps, seed):
    matrix = symmetric(size, seed) / 4
    start = symmetric(size, seed + 1)[0]
    found = lanczos(product_of(matrix), start, steps)
    powered = start.clone()
    scale = float(torch.linalg.matrix_norm(matrix, 2))
    for degree in range(2 * min(steps, size)):
        exact = float(start @ powered)
        by_nodes = float(start @ start * (found.shares @ found.nodes**degree))
        bound = 1e-9 * float(start @ start) * max(1.0, scale**degree)
        assert by_nodes == pytest.approx(exact, abs=bound)
        powered = matrix @ powered


def test_all_eigenvalues_come_out_after_as_many_steps():
    matrix = symmetric(30)
    found = lanczos(product_of(matrix), torch.ones(30), 100)
    assert torch.allclose(found.nodes, torch.linalg.eigvalsh(matrix), atol=1e-10)
    gram = found.vectors @ found.vectors.T
    assert torch.allclose(gram, torch.eye(30, dtype=torch.float64), atol=1e-12)
    moved = found.vectors @ matrix
    assert torch.allclose(moved, found.nodes[:, None] * found.vectors, atol=1e-9)


def test_residuals_are_the_norms_they_are_said_to_be():
    matrix = symmetric(40)
    found = lanczos(product_of(matrix), torch.ones(40), 15)
    missed = found.vectors @ matrix - found.nodes[:, None] * found.vectors
    assert torch.allclose(found.residuals, missed.norm(dim=1), atol=1e-10)


def test_many_steps_keep_the_basis_orthogonal_past_convergence():
    # without reorthogonalisation the converged 1000 comes back as ghosts
    curvatures = torch.cat([torch.tensor([1000.0]), torch.linspace(0, 1, 199)])
    found = lanczos(product_of(torch.diag(curvatures.double())), torch.ones(200), 80)
    assert int((found.nodes > 500).sum()) == 1
    gram = found.vectors @ found.vectors.T
    assert torch.allclose(gram, torch.eye(80, dtype=torch.float64), atol=1e-12)


def test_the_run_ends_where_directions_are_exhausted():
    matrix = torch.diag(torch.tensor([3.0, 1, 1, 1, 0, 0], dtype=torch.float64))
    found = lanczos(product_of(matrix), torch.ones(6), 6)
    assert found.nodes.tolist() == pytest.approx([0, 1, 3], abs=1e-12)
    assert found.shares.tolist() == pytest.approx([2 / 6, 3 / 6, 1 / 6])
    zero = lanczos(product_of(torch.zeros(3, 3)), torch.ones(3), 3)
    assert zero.nodes.tolist() == [0.0]


def test_a_run_apart_from_some_directions_sees_the_projected_matrix():
    matrix = symmetric(8)
    values, vectors = torch.linalg.eigh(matrix)
    found = lanczos(product_of(matrix), torch.ones(8), 20, apart_from=vectors.T[[0, 7]])
    assert torch.allclose(found.nodes, values[1:7], atol=1e-10)
    assert float((found.vectors @ vectors[:, [0, 7]]).abs().max()) < 1e-12


@pytest.mark.parametrize("start", [torch.zeros(3), torch.tensor([1.0, 0.0, 0.0])])
def test_a_start_that_leads_nowhere_is_refused(start):
    product = product_of(torch.eye(3))
    with pytest.raises(InputError, match="lanczos: `start` must not be zero, nor"):
        lanczos(product, start, 3, apart_from=torch.tensor([[1.0, 0.0, 0.0]]))


def test_no_steps_and_other_shapes_are_refused():
    product = product_of(torch.eye(3))
    with pytest.raises(InputError, match="`num_steps` must be a whole number >= 1"):
        lanczos(product, torch.ones(3), 0)
    with pytest.raises(InputError, match="lanczos: `start` must be flat with 3"):
        lanczos(product, torch.ones(2), 1)
