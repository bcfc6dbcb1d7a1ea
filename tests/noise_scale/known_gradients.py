"""Gradients whose mean and covariance are known, and how far an average is off."""

import math
from dataclasses import dataclass

import numpy as np

from rightbatch.noise_scale import GradientMoments


@dataclass(frozen=True, kw_only=True)
class KnownGradients:
    """A mean plus noise, skewed or normal, with a root of its covariance."""

    mean: np.ndarray  # (d,)
    root: np.ndarray  # (d, d)

    @property
    def covariance(self) -> np.ndarray:
        return self.root @ self.root.T

    @property
    def moments(self) -> GradientMoments:
        return GradientMoments(
            grad_sq_norm=float(self.mean @ self.mean),
            grad_variance=float(np.trace(self.covariance)),
        )

    def examples(
        self, generator: np.random.Generator, *shape: int, is_normal: bool = False
    ) -> np.ndarray:
        """Return gradients of examples, shape (*shape, d)."""
        shape = (*shape, self.mean.size)
        if is_normal:
            noise = generator.standard_normal(shape)
        else:
            noise = generator.standard_exponential(shape) - 1
        return self.mean + noise @ self.root.T


def known_gradients(noise_scale: float, dims: int = 4, seed: int = 0) -> KnownGradients:
    """Return gradients with a given noise scale and unlike noise in every direction."""
    generator = np.random.default_rng(seed)
    mean = generator.standard_normal(dims)
    root = generator.standard_normal((dims, dims)) * np.geomspace(2, 0.3, dims)
    scale = math.sqrt(noise_scale * (mean @ mean) / np.trace(root @ root.T))
    return KnownGradients(mean=mean, root=root * scale)


def unit_means(examples: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Cut examples of shape (n, B, d) into units; return their means, (n, R, d)."""
    starts = np.cumsum([0, *sizes[:-1]])
    sums = np.add.reduceat(examples, starts, axis=1)
    return sums / np.array(sizes)[:, None]


def sq_norm(vectors: np.ndarray) -> np.ndarray:
    return (vectors**2).sum(-1)


def z_score(draws: np.ndarray, truth: float) -> float:
    """Return how many standard errors the mean of independent draws is off."""
    error = draws.std(ddof=1) / math.sqrt(len(draws))
    return float((draws.mean() - truth) / error)


def z_scores(draws: list[GradientMoments], truth: GradientMoments) -> list[float]:
    """Return the same of both moments."""
    return [
        z_score(np.array([getattr(one, name) for one in draws]), getattr(truth, name))
        for name in ("grad_sq_norm", "grad_variance")
    ]
