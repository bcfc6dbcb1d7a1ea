"""Runs grouped by batch size."""

import numpy as np
import pytest

from rightbatch.convergence.runs import group_runs, runs_far_from_their_batch
from rightbatch.errors import InputError


def test_means_and_variances_are_those_of_numpy():
    steps = {8: [100, 120, 95], 32: [50, 54], 128: [30]}
    batch = [b for b, runs in steps.items() for _ in runs]
    runs = group_runs(batch, [s for group in steps.values() for s in group])
    assert runs.batch_sizes == pytest.approx([8, 32, 128])
    assert runs.mean_steps == pytest.approx([np.mean(g) for g in steps.values()])
    observed = [np.var(g, ddof=1) / np.mean(g) ** 2 for g in ([100, 120, 95], [50, 54])]
    assert runs.observed_variance == pytest.approx([*observed, 0])
    assert runs.noise_degrees == 3


def test_variances_shrink_towards_the_pooled_one():
    runs = group_runs([8, 8, 8, 32, 32, 32, 64], [90, 100, 110, 50, 50, 50, 40])
    pooled = runs.observed_variance[:2].mean()
    assert runs.observed_variance[0] > runs.relative_variance[0] > pooled
    assert runs.observed_variance[1] < runs.relative_variance[1] < pooled
    assert runs.relative_variance[2] == pytest.approx(pooled)


def test_repeats_that_agree_exactly_keep_the_floor():
    runs = group_runs([8, 8, 32, 32], [100, 100, 50, 50])
    assert runs.mean_variance == pytest.approx([0.02**2] * 2)


def test_lengths_that_differ_are_refused():
    with pytest.raises(InputError, match="must pair up, got 2 and 1"):
        group_runs([8, 16], [3])


def test_a_run_with_a_digit_too_many_is_found_among_its_repeats():
    batch = np.array([8.0] * 5 + [32.0] * 3)
    steps = np.array([100, 110, 1050, 90, 95, 40, 44, 42.0])
    assert runs_far_from_their_batch(batch, steps).tolist() == [2]


def test_scattered_repeats_are_no_typing_errors():
    batch = np.full(3, 8.0)
    assert runs_far_from_their_batch(batch, np.array([10.0, 100, 1000])).size == 0
    assert runs_far_from_their_batch(batch[:2], np.array([10.0, 1000])).size == 0
