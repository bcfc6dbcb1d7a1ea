"""Two workloads in one table: found where they are, and not where they are not."""

import math

import numpy as np
import pytest

from rightbatch.convergence.mixture import find_mixture

BATCHES = [4, 16, 64, 256, 1024]


def runs(min_steps, phi, *, noise, seeds, seed=0):
    generator = np.random.default_rng(seed)
    batch = np.repeat(BATCHES, seeds)
    errors = np.exp(noise * generator.standard_normal(len(batch)))
    return batch.tolist(), (min_steps * (1 + phi / batch) * errors).tolist()


def test_two_workloads_three_times_apart_are_found():
    one, other = runs(100, 64, noise=0.1, seeds=3), runs(300, 80, noise=0.1, seeds=3)
    mixed = find_mixture(one[0] + other[0], one[1] + other[1])
    assert mixed is not None
    assert mixed.is_sure
    assert mixed.factor == pytest.approx(3, rel=0.3)
    assert "at 5 of 5 batch sizes the repeats fall into two groups" in str(mixed)


def test_one_run_each_of_two_workloads_is_found_too():
    one, other = runs(100, 64, noise=0.1, seeds=1), runs(400, 64, noise=0.1, seeds=1)
    mixed = find_mixture(one[0] + other[0], one[1] + other[1])
    assert mixed is not None
    assert mixed.is_sure


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.2, 0.35])
@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_the_noise_of_seeds_is_no_second_workload(noise, seeds):
    # 200 tables each: not one is refused, three in a hundred at most is asked about.
    found = [
        find_mixture(*runs(100, 64, noise=noise, seeds=seeds, seed=seed))
        for seed in range(200)
    ]
    assert not any(one.is_sure for one in found if one)
    assert sum(one is not None for one in found) <= 6


def test_quantised_repeats_are_no_second_workload():
    steps = [100 * k for size in BATCHES for k in (4, 4, 5, 5)]
    assert find_mixture(np.repeat(BATCHES, 4).tolist(), steps) is None


def test_learning_rates_are_told_apart_where_they_are_known():
    batch = np.repeat(BATCHES, 2).tolist()
    steps = [count for size in BATCHES for count in (1000 / size, 5000 / size)]
    assert find_mixture(batch, steps) is not None
    assert find_mixture(batch, steps, [0.1, 0.5] * 5) is None


def test_two_batch_sizes_and_missed_runs_are_no_evidence():
    assert find_mixture([8, 8, 64, 64], [100, 900, 50, 450]) is None
    batch = np.repeat(BATCHES, 2).tolist()
    assert find_mixture(batch, [100.0, math.nan] * 5) is None
