"""The trace of a matrix known by its products (Hutchinson, 1990)."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from rightbatch import _checks
from rightbatch.curvature.products import Product


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEstimate:
    """An unbiased estimate of a trace.

    Args:
        trace: The estimate, the mean over probes.
        standard_error: Its standard deviation over draws of the probes, as estimated
            from their spread; infinite with one probe.
        num_probes: Products taken.

    Example:
        >>> print(TraceEstimate(trace=12.34, standard_error=0.5, num_probes=30))
        trace 12.3 +- 0.5 (30 probes)
    """

    trace: float
    standard_error: float
    num_probes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields; an infinite error is null."""
        known = math.isfinite(self.standard_error)
        return {
            "trace": self.trace,
            "standard_error": self.standard_error if known else None,
            "num_probes": self.num_probes,
        }

    def __str__(self) -> str:
        probes = "1 probe" if self.num_probes == 1 else f"{self.num_probes} probes"
        return f"trace {self.trace:.3g} +- {self.standard_error:.2g} ({probes})"


def hutchinson_trace(
    product: Product, *, num_probes: int = 30, seed: int = 0
) -> TraceEstimate:
    r"""Return the trace as the mean of :math:`z^\top H z` over random signs z.

    Its variance is :math:`2 \sum_{i \ne j} H_{ij}^2` per probe: none for a diagonal
    matrix.

    Args:
        product: The matrix.
        num_probes: How many z.
        seed: Of the signs; the global random numbers are not touched.

    Returns:
        The trace with its standard error.

    Raises:
        InputError: `num_probes` is not a whole number, or a product is not finite.

    Example:
        >>> from rightbatch.curvature.products import Product
        >>> diagonal = torch.tensor([1.0, 2.0, 4.0])
        >>> product = Product(name="H", apply=diagonal.mul, like=diagonal)
        >>> hutchinson_trace(product, num_probes=2).trace
        7.0
    """
    count = _checks.positive_integer("hutchinson_trace", "num_probes", num_probes)
    generator = torch.Generator().manual_seed(seed)
    values: list[float] = []
    for _ in range(count):
        signs = torch.randint(0, 2, (product.size,), generator=generator) * 2 - 1
        probe = signs.to(product.like)
        values.append(float(probe.dot(product(probe))))
    mean, error = mean_and_error(values)
    return TraceEstimate(trace=mean, standard_error=error, num_probes=count)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Return the mean and its standard error, infinite for one value.

    Example:
        >>> mean_and_error([1.0, 3.0])
        (2.0, 1.0)
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.inf
    spread = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return mean, math.sqrt(spread / len(values))
