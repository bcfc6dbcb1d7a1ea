r"""The spectrum of a matrix known by its products, and the gradients' noise along it.

Stochastic Lanczos quadrature (Ubaru, Chen and Saad, 2017; for networks Ghorbani,
Krishnan and Xiao, 2019), with what a first run finds to a small residual taken out:
such eigenvalues count once each, exactly, and random probes tell of the rest only.
Without that, the weight of the largest curvature is a squared normal number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rightbatch import _checks
from rightbatch.curvature.lanczos import Ritz, lanczos
from rightbatch.curvature.products import Product
from rightbatch.curvature.trace import TraceEstimate, mean_and_error
from rightbatch.curvature.unit_gradients import UnitGradients
from rightbatch.errors import InputError

FloatArray = NDArray[np.float64]

# Of the largest curvature: what a Ritz value may be off by to be taken for exact. The
# error itself is of the order of its square over the gap to the next.
CONVERGED = 1e-4
# A share of the directions that rounding alone can give.
NEGLIGIBLE = 1e-14


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CurvatureSpectrum:
    r"""Curvatures, how many directions each stands for, and the noise along them.

    Nodes of all probes stand side by side, not merged: each probe's have weights that
    sum to the number of directions not found exactly, over the number of probes.

    Args:
        nodes: Curvatures, falling. Shape (m,).
        weights: How many directions each stands for; they sum to `num_directions`.
            Shape (m,).
        noise: Variance of one example's gradient along each Ritz vector,
            :math:`y_k^\top \Sigma y_k`, unbiased over units; None without units. Where
            a node stands for one direction (weight 1 and found exactly), that is the
            noise of this direction. Else the Ritz vector mixes directions of
            neighbouring curvature with signs that are random with the probe, and the
            expectation is a mean of the noise of these. Shape (m,).
        grad_sq: Squared gradient along each Ritz vector, unbiased and so possibly
            below zero; None without units. Shape (m,).
        num_exact: Nodes found to a residual of 1e-4 of the largest curvature.
        num_probes: Probes for the rest.
        trace: Sum of weights times nodes, with the standard error that comes from
            the probes.
        noise_share: Sum of weights times noise over the variance of all of the
            gradient; far from 1, the probes were too few. None without units.
    """

    nodes: FloatArray
    weights: FloatArray
    noise: FloatArray | None
    grad_sq: FloatArray | None
    num_exact: int
    num_probes: int
    trace: TraceEstimate
    noise_share: float | None

    @property
    def num_directions(self) -> float:
        """Sum of the weights, the size of the matrix."""
        return float(self.weights.sum())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain numbers and lists."""
        return {
            "nodes": self.nodes.tolist(),
            "weights": self.weights.tolist(),
            "noise": None if self.noise is None else self.noise.tolist(),
            "grad_sq": None if self.grad_sq is None else self.grad_sq.tolist(),
            "num_exact": self.num_exact,
            "num_probes": self.num_probes,
            "trace": self.trace.to_dict(),
            "noise_share": self.noise_share,
        }

    def __str__(self) -> str:
        text = (
            f"{self.num_directions:,.0f} directions, curvature {self.nodes[-1]:.3g} to "
            f"{self.nodes[0]:.3g}, trace {self.trace.trace:.3g} +- "
            f"{self.trace.standard_error:.2g}; {self.num_exact} found exactly"
        )
        if self.noise_share is not None:
            text += f"; {100 * self.noise_share:.0f} % of the noise along them"
        return text


@dataclass(frozen=True, slots=True)
class _Group:
    """Some nodes with the directions they stand for.

    Args:
        nodes: Curvatures.
        weights: Directions.
        noise: Along the Ritz vectors; empty without units.
        grad_sq: Along the Ritz vectors; empty without units.
    """

    nodes: FloatArray
    weights: FloatArray
    noise: FloatArray
    grad_sq: FloatArray


def lanczos_spectrum(
    product: Product,
    *,
    num_steps: int = 40,
    num_probes: int = 4,
    units: UnitGradients | None = None,
    seed: int = 0,
) -> CurvatureSpectrum:
    """Return curvatures with weights and noise, as a noisy quadratic takes them.

    Goes into ``from_measurements(nodes=..., weights=..., noise=..., drop_below=0)`` of
    :mod:`rightbatch.quadratic.measured`.

    Args:
        product: The matrix.
        num_steps: Products per run, nodes of one probe; that many vectors are held.
        num_probes: Random starts, beside the one that finds the extreme curvatures.
        units: Gradients of units for the noise, best of examples that the matrix has
            not seen; of a preconditioned matrix, scaled by the root of its diagonal.
        seed: Of the starts; the global random numbers are not touched.

    Returns:
        The spectrum; ``num_steps * (1 + num_probes)`` products are made at most.

    Raises:
        InputError: A count is not whole, units are fewer than two or of other
            parameters, or a product is not finite.

    Example:
        >>> curvatures = torch.tensor([4.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
        >>> product = Product(name="H", apply=curvatures.mul, like=curvatures)
        >>> found = lanczos_spectrum(product)
        >>> round(found.trace.trace, 6), found.num_exact
        (8.0, 2)
        >>> [round(float(found.weights[found.nodes > low].sum()), 6) for low in (3, 0)]
        [1.0, 5.0]
    """
    who = "lanczos_spectrum"
    count = _checks.positive_integer(who, "num_probes", num_probes)
    _check_units(who, units, product)
    generator = torch.Generator().manual_seed(seed)
    found = lanczos(product, _probe(product, generator), num_steps)
    size = float(found.nodes.abs().max())
    is_exact = found.residuals <= CONVERGED * size
    exact = found.vectors[is_exact.to(found.vectors.device)]
    groups = [_group(found.nodes[is_exact], torch.ones(len(exact)), exact, units)]
    rest = product.size - len(exact)
    traces: list[float] = []
    for _ in range(count if rest else 0):
        start = _probe(product, generator)
        ritz = lanczos(product, start, num_steps, apart_from=exact)
        traces.append(rest * float(ritz.shares @ ritz.nodes))
        groups.append(_probe_group(ritz, rest / count, units))
    return _joined(groups, traces, len(exact), units)


def _check_units(who: str, units: UnitGradients | None, product: Product) -> None:
    if units is not None and units.rows.shape[1] != product.size:
        raise InputError(
            f"{who}: `units` must hold gradients of {product.size} numbers, as the "
            f"matrix has rows, got {units.rows.shape[1]}."
        )


def _probe(product: Product, generator: torch.Generator) -> Tensor:
    # A normal start has no preferred direction, so that in the eigenvectors' frame all
    # signs are alike whatever the frame is; random signs have that in their own only.
    start = torch.randn(product.size, generator=generator, dtype=torch.float64)
    return start.to(product.like)


def _probe_group(ritz: Ritz, weight: float, units: UnitGradients | None) -> _Group:
    keep = ritz.shares > NEGLIGIBLE
    shares = ritz.shares[keep] / ritz.shares[keep].sum()
    vectors = ritz.vectors[keep.to(ritz.vectors.device)]
    return _group(ritz.nodes[keep], weight * shares, vectors, units)


def _group(
    nodes: Tensor, weights: Tensor, vectors: Tensor, units: UnitGradients | None
) -> _Group:
    empty = np.zeros(0)
    if units is None:
        return _Group(_numbers(nodes), _numbers(weights), empty, empty)
    noise, grad_sq = units.along(vectors)
    return _Group(*map(_numbers, (nodes, weights, noise, grad_sq)))


def _numbers(values: Tensor) -> FloatArray:
    return values.detach().to("cpu", torch.float64).numpy()


def _joined(
    groups: Sequence[_Group],
    traces: list[float],
    num_exact: int,
    units: UnitGradients | None,
) -> CurvatureSpectrum:
    nodes = np.concatenate([group.nodes for group in groups])
    weights = np.concatenate([group.weights for group in groups])
    noise = np.concatenate([group.noise for group in groups])
    grad_sq = np.concatenate([group.grad_sq for group in groups])
    order = np.argsort(-nodes, kind="stable")
    known = units is not None
    rest, error = mean_and_error(traces) if traces else (0.0, 0.0)
    variance = units.moments().grad_variance if known else 0.0
    return CurvatureSpectrum(
        nodes=nodes[order],
        weights=weights[order],
        noise=noise[order] if known else None,
        grad_sq=grad_sq[order] if known else None,
        num_exact=num_exact,
        num_probes=len(traces),
        trace=TraceEstimate(
            trace=float(groups[0].nodes.sum()) + rest,
            standard_error=error,
            num_probes=len(traces),
        ),
        noise_share=float(weights @ noise) / variance if variance > 0 else None,
    )
