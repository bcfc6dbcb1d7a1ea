"""How often the interval holds the truth; the table is in docs/results."""

import math

import numpy as np
import pytest
from scipy.special import stdtrit

from rightbatch.noise_scale import MomentAverage, unit_moments

PHI = 100.0
TABLES = 400

# batch sizes of the steps, units, directions of the noise, memory in examples
SETTINGS = {
    "usual": ([64] * 30, 8, 20, None),
    "small batches": ([16] * 30, 8, 20, None),
    "two units": ([64] * 30, 2, 20, None),
    "single examples": ([32] * 20, 32, 20, None),
    "large batches": ([512] * 20, 8, 20, None),
    "few directions": ([64] * 30, 8, 3, None),
    "many directions": ([64] * 20, 8, 100, None),
    "five steps": ([64] * 5, 8, 20, None),
    "low signal": ([8] * 30, 4, 20, None),
    "low signal, ten steps": ([8] * 10, 8, 20, None),
    "forgetting": ([64] * 60, 4, 20, 1280),
    "growing": ([16] * 20 + [64] * 10 + [256] * 5, 8, 20, None),
    "growing, forgetting": ([16] * 20 + [64] * 20 + [256] * 20, 4, 20, 2560),
}


def draw_estimates(batch_sizes, num_units, dims, horizon, *, is_skewed=False):
    """Return estimates of windows whose noise scale is 100."""
    generator = np.random.default_rng([len(batch_sizes), num_units, dims])
    mean = np.full(dims, 1 / math.sqrt(dims))
    averages = [MomentAverage(horizon=horizon)] * TABLES
    for batch_size in batch_sizes:
        size = batch_size / num_units
        shape = (TABLES, num_units, dims)
        if is_skewed:
            noise = (generator.gamma(size, size=shape) - size) / size
        else:
            noise = generator.standard_normal(shape) / math.sqrt(size)
        units = mean + noise * math.sqrt(PHI / dims)
        norms, totals = (units**2).sum(-1), (units.mean(1) ** 2).sum(-1)
        averages = [
            average.add(unit_moments(one, total, size), batch_size)
            for average, one, total in zip(averages, norms, totals, strict=True)
        ]
    return [average.noise_scale() for average in averages]


def delta_method_holds(estimate):
    """Return whether the usual linearised interval of a ratio holds the truth."""
    t, q = estimate.moments.grad_variance, estimate.moments.grad_sq_norm
    phi, v = t / q, estimate.covariance
    error = math.sqrt(max(0.0, v.tt - 2 * phi * v.tq + phi**2 * v.qq)) / abs(q)
    return abs(phi - PHI) <= stdtrit(estimate.effective_steps - 1, 0.975) * error


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_the_interval_and_the_bound_hold_the_truth_as_often_as_they_say(setting):
    found = draw_estimates(*setting)
    # a share of 400 is known to .011
    assert 0.92 <= np.mean([PHI in one.interval for one in found]) <= 0.98
    assert 0.91 <= np.mean([one.lower_bound <= PHI for one in found]) <= 0.98
    assert all(math.isfinite(one.lower_bound) for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("is_skewed", [False, True])
def test_at_low_signal_the_delta_method_fails_and_the_set_says_at_least(is_skewed):
    found = draw_estimates([8] * 15, 8, 20, None, is_skewed=is_skewed)
    assert 0.92 <= np.mean([PHI in one.interval for one in found]) <= 0.975
    assert np.mean([delta_method_holds(one) for one in found]) < 0.88
    assert np.mean([one.status == "at least" for one in found]) > 0.8
    assert np.mean([one.status == "resolved" for one in found]) < 0.2
