r"""Lanczos' tridiagonal form of a symmetric matrix, with full reorthogonalisation.

After m products :math:`Q^\top H Q = T` with the start as first column of Q. The
eigenvalues of T (Ritz values) with the squares of its eigenvectors' first components
are the nodes and weights of Gauss quadrature for :math:`q^\top f(H)\, q`, exact for
polynomials up to degree 2m - 1 (Golub and Meurant, 2010).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rightbatch import _checks
from rightbatch.curvature.products import Product, checked_vector
from rightbatch.errors import InputError

# Below so many roundings of the largest number a new direction is not curvature.
ROUNDINGS = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ritz:
    """What a Lanczos run found.

    Args:
        nodes: Ritz values, ascending. Shape (m,).
        shares: Squared components of the start along the Ritz vectors; they sum to 1.
            Shape (m,).
        residuals: Norms of H y - node y: each node is within its residual of an
            eigenvalue. Shape (m,).
        vectors: Ritz vectors y as rows, orthonormal. Shape (m, n).
    """

    nodes: Tensor
    shares: Tensor
    residuals: Tensor
    vectors: Tensor


def lanczos(
    product: Product, start: Tensor, num_steps: int, *, apart_from: Tensor | None = None
) -> Ritz:
    """Return the Ritz values and vectors of a start.

    Args:
        product: The matrix.
        start: Any vector but zero, shape (n,).
        num_steps: Products at most; fewer where the directions are exhausted.
        apart_from: Orthonormal rows to stay orthogonal to, shape (k, n): the matrix is
            projected on what is orthogonal to them.

    Returns:
        At most `num_steps` nodes with shares, residuals and vectors.

    Raises:
        InputError: The start is zero or of another shape, or `num_steps` is not a whole
            number.

    Example:
        >>> diagonal = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
        >>> product = Product(name="H", apply=diagonal.mul, like=diagonal)
        >>> found = lanczos(product, torch.ones(3), 5)
        >>> found.nodes.round(decimals=9).tolist()
        [1.0, 2.0, 4.0]
        >>> found.shares.round(decimals=4).tolist()
        [0.3333, 0.3333, 0.3333]
    """
    checked_vector("lanczos", "start", start, product.size)
    steps = _checks.positive_integer("lanczos", "num_steps", num_steps)
    fixed = product.like.new_empty(0, product.size)
    if apart_from is not None:
        fixed = apart_from.to(product.like)
    steps = min(steps, product.size - len(fixed))
    basis = torch.empty(steps, product.size, dtype=fixed.dtype, device=fixed.device)
    first = _apart(start.to(product.like), fixed)
    if steps < 1 or float(first.norm()) <= 0:
        raise InputError(
            "lanczos: `start` must not be zero, nor within what it is to be apart from."
        )
    basis[0] = first / first.norm()
    diagonal: list[float] = []
    links: list[float] = []
    for k in range(steps):
        moved = product(basis[k])
        diagonal.append(float(moved.dot(basis[k])))
        rest = _apart(moved, fixed, basis[: k + 1])
        links.append(float(rest.norm()))
        size = max(map(abs, (*diagonal, *links)))
        if k + 1 == steps or links[-1] <= ROUNDINGS * _rounding(product) * size:
            break
        basis[k + 1] = rest / links[-1]
    return _ritz(diagonal, links, basis[: len(diagonal)])


def _apart(vector: Tensor, *rows: Tensor) -> Tensor:
    # Twice is enough (Parlett, The Symmetric Eigenvalue Problem, section 6.9).
    for _ in range(2):
        for block in rows:
            vector = vector - (block @ vector) @ block
    return vector


def _rounding(product: Product) -> float:
    return torch.finfo(product.like.dtype).eps


def _ritz(diagonal: list[float], links: list[float], basis: Tensor) -> Ritz:
    """Return the eigenvalues of the tridiagonal form, and what follows."""
    size = len(diagonal)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    between = torch.tensor(links[: size - 1], dtype=torch.float64)
    tridiagonal += torch.diag(between, 1) + torch.diag(between, -1)
    nodes, mixes = torch.linalg.eigh(tridiagonal)
    return Ritz(
        nodes=nodes,
        shares=mixes[0].square(),
        residuals=links[-1] * mixes[-1].abs(),
        vectors=mixes.T.to(basis) @ basis,
    )
