"""How often the 95 % interval of a noise scale, and its lower bound, hold the truth.

    python benchmarks/noise_coverage.py [--tables 4000] [--processes 2]

Each setting simulates windows of updates of gradients whose mean and covariance are
known: normal but in the last five, an equal share of the noise in each of some
directions and the gradient in general position to them. It prints the share of windows
whose two-sided interval, one-sided lower bound and, for comparison, delta-method
interval hold the true noise scale, and the share with no upper end, which counts as
holding. The exit status is 1 when a two-sided share is outside .92 to .975.
"""

import argparse
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from rightbatch.noise_scale import (
    GradientMoments,
    MomentAverage,
    NoiseScaleEstimate,
    UnitSums,
)

LOW, HIGH = 0.92, 0.975


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A window: noise scale 100, so that batch sizes read as percent of it."""

    name: str
    batch_sizes: tuple[int, ...]  # one for each update
    num_units: int
    dims: int = 20
    horizon: float | None = None
    noise: Literal["normal", "skewed", "student", "outliers"] = "normal"


PHI = 100.0
SETTINGS = [
    Setting(name="small batches", batch_sizes=(16,) * 30, num_units=8),
    Setting(name="few units", batch_sizes=(64,) * 30, num_units=2),
    Setting(name="usual", batch_sizes=(64,) * 30, num_units=8),
    Setting(name="single examples", batch_sizes=(64,) * 30, num_units=64),
    Setting(name="large batches", batch_sizes=(512,) * 30, num_units=8),
    Setting(name="few directions", batch_sizes=(64,) * 30, num_units=8, dims=3),
    Setting(name="many directions", batch_sizes=(64,) * 30, num_units=8, dims=200),
    Setting(name="five steps", batch_sizes=(64,) * 5, num_units=8),
    Setting(name="ten steps, low signal", batch_sizes=(8,) * 10, num_units=8),
    Setting(name="low signal", batch_sizes=(8,) * 30, num_units=4),
    Setting(name="lower signal", batch_sizes=(4,) * 30, num_units=4, dims=50),
    Setting(name="many steps", batch_sizes=(16,) * 200, num_units=4),
    Setting(name="forgetting", batch_sizes=(64,) * 100, num_units=8, horizon=1280),
    Setting(
        name="growing batches",
        batch_sizes=(16,) * 20 + (32,) * 10 + (64,) * 5,
        num_units=8,
    ),
    Setting(
        name="growing fast",
        batch_sizes=(16,) * 20 + (128,) * 10 + (1024,) * 5,
        num_units=8,
    ),
    Setting(
        name="growing, forgetting",
        batch_sizes=(16,) * 20 + (64,) * 20 + (256,) * 20,
        num_units=8,
        horizon=2560,
    ),
    Setting(
        name="skewed examples", batch_sizes=(64,) * 30, num_units=64, noise="skewed"
    ),
    Setting(
        name="skewed, low signal", batch_sizes=(8,) * 30, num_units=8, noise="skewed"
    ),
    Setting(name="heavy tails", batch_sizes=(64,) * 30, num_units=8, noise="student"),
    Setting(name="outliers", batch_sizes=(64,) * 30, num_units=8, noise="outliers"),
    Setting(
        name="outliers, single", batch_sizes=(64,) * 30, num_units=64, noise="outliers"
    ),
]


def draw_units(
    setting: Setting, batch_size: int, num: int, generator: np.random.Generator
) -> np.ndarray:
    """Return gradients of units, shape (num, R, dims); tr Sigma is 100, |G|^2 is 1."""
    size = batch_size // setting.num_units
    shape = (num, setting.num_units, setting.dims)
    match setting.noise:
        case "normal":
            noise = generator.standard_normal(shape) / math.sqrt(size)
        case "skewed":  # a sum of exponentials is a gamma
            noise = (generator.gamma(size, size=shape) - size) / size
        case "student":  # three degrees of freedom: no fourth moment
            draws = generator.standard_t(3, size=(size, *shape)) / math.sqrt(3)
            noise = draws.mean(0)
        case (
            "outliers"
        ):  # norms of examples lognormal, one in 44 over e times the median
            lengths = np.exp(generator.standard_normal((size, *shape[:2], 1)) - 1)
            draws = lengths * generator.standard_normal((size, *shape))
            noise = draws.mean(0)
    mean = np.full(setting.dims, 1 / math.sqrt(setting.dims))
    return mean + noise * math.sqrt(PHI / setting.dims)


def windows(
    setting: Setting, tables: int, seed: int = 0
) -> list[tuple[NoiseScaleEstimate, float]]:
    """Return every window's estimate and its half-width by the delta method."""
    generator = np.random.default_rng([seed, setting.dims, *setting.batch_sizes])
    averages = [MomentAverage(horizon=setting.horizon)] * tables
    for batch_size in setting.batch_sizes:
        units = draw_units(setting, batch_size, tables, generator)
        contributions = (units**2).sum(-1) / setting.num_units**2
        totals = (units.mean(1) ** 2).sum(-1)
        size = batch_size / setting.num_units
        averages = [
            average.add(UnitSums.of(norms, size).moments(total), batch_size)
            for average, norms, total in zip(
                averages, contributions, totals, strict=True
            )
        ]
    found = [average.noise_scale() for average in averages]
    return [(estimate, delta_half_width(estimate)) for estimate in found]


def delta_half_width(estimate: NoiseScaleEstimate) -> float:
    """Return what the usual linearised error of a ratio would be."""
    moments, covariance = estimate.moments, estimate.covariance
    assert isinstance(moments, GradientMoments)
    assert covariance is not None
    t, q = moments.grad_variance, moments.grad_sq_norm
    phi = t / q
    variance = covariance.tt - 2 * phi * covariance.tq + phi**2 * covariance.qq
    quantile = float(stdtrit(estimate.effective_steps - 1, 0.975))
    return quantile * math.sqrt(max(0.0, variance)) / abs(q)


def shares(job: tuple[Setting, int]) -> tuple[float, float, float, float]:
    """Return coverage of set, bound and delta method, and the share without end."""
    found = windows(*job)
    two_sided = [PHI in estimate.interval for estimate, _ in found]
    bound = [estimate.lower_bound <= PHI for estimate, _ in found]
    delta = [
        abs(estimate.moments.grad_variance / estimate.moments.grad_sq_norm - PHI)
        <= half
        for estimate, half in found
        if estimate.moments is not None
    ]
    open_ = [estimate.interval.high is None for estimate, _ in found]
    return tuple(float(np.mean(one)) for one in (two_sided, bound, delta, open_))


def main() -> int:
    parser = argparse.ArgumentParser(description="Coverage of 95 % noise scales.")
    parser.add_argument("--tables", type=int, default=4000)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    head = "two-sided  bound  delta  no end"
    print(f"{'':22} steps      B    R dims  {head}")
    missed = 0
    jobs = [(setting, args.tables) for setting in SETTINGS]
    with ProcessPoolExecutor(args.processes) as pool:
        for one, found in zip(SETTINGS, pool.map(shares, jobs), strict=True):
            sizes = sorted(set(one.batch_sizes))
            batch = "-".join(map(str, [sizes[0], *sizes[1:][-1:]]))
            both, bound, delta, open_ = found
            print(
                f"{one.name:22} {len(one.batch_sizes):5} {batch:>6} {one.num_units:4} "
                f"{one.dims:4} {both:10.3f} {bound:6.3f} {delta:6.3f} {open_:7.3f}",
                flush=True,
            )
            missed += not LOW <= both <= HIGH
    print(f"{missed} of {len(SETTINGS)} two-sided shares outside {LOW} to {HIGH}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
