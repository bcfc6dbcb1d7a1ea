"""Repeats of a row that no noise explains."""

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.step_time import fit_step_time

SIZES = 2.0 ** np.arange(3, 9)


def timed_twice(factors, noise=0.02):
    """Every batch size twice, the second time so many times as long."""
    times = 0.02 + 1e-3 * SIZES
    errors = np.random.default_rng(0).standard_normal((2, len(SIZES)))
    seconds = np.stack([times, times * factors]) * np.exp(noise * errors)
    return np.tile(SIZES, 2), seconds.ravel()


def test_two_machines_in_one_table_are_refused():
    with pytest.raises(
        InputError,
        match=r"repeats of 6 of 6 repeated rows fall into two groups far apart, at "
        r"batch size 8 on 1 replicas .* two machines or workloads .*\(give the rows",
    ):
        fit_step_time(*timed_twice(5.0))


def test_a_row_or_two_far_apart_are_warned_of():
    factors = np.array([1, 3, 1, 1, 1, 1])
    fit = fit_step_time(*timed_twice(factors))
    (said,) = [one for one in fit.warnings if "two groups" in one]
    assert "repeats of 1 of 6 repeated rows" in said
    assert "at batch size 16" in said
    assert said.endswith("time those rows again, or leave the wrong ones out.")


@pytest.mark.parametrize("noise", [0.02, 0.15])
def test_noisy_repeats_are_one_machine(noise):
    fit = fit_step_time(*timed_twice(1.0, noise))
    assert not any("two groups" in one for one in fit.warnings)


def test_a_wide_spread_without_a_gap_is_no_mixture():
    sizes = np.repeat(SIZES, 5)
    spread = np.tile([1, 1.4, 1.9, 2.6, 3.5], len(SIZES))
    fit = fit_step_time(sizes, (0.02 + 1e-3 * sizes) * spread)
    assert not any("two groups" in one for one in fit.warnings)
