"""Intervals, profiles and the criterion that chooses between laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rightbatch.fitting import (
    Interval,
    corrected_aic,
    log_scale_profile,
    profile_limits,
    redrawn_scales,
)


def test_an_unbounded_side_is_null_in_json_and_infinite_in_membership():
    interval = Interval(value=3.0, low=2.0, high=None, level=0.9, unit="steps")
    assert interval.to_dict()["high"] is None
    assert 1e9 in interval
    assert 1.0 not in interval
    assert not interval.is_bounded
    assert str(interval) == "3 steps (2 to unbounded, 90 %)"


def test_an_interval_without_value_or_ends_says_so():
    interval = Interval(value=None, low=None, high=None, level=0.9)
    assert str(interval) == "no value (unbounded)"


@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_the_scale_profile_is_what_weighted_least_squares_gives(values, seed):
    generator = np.random.default_rng(seed)
    num = len(values)
    shapes = generator.normal(size=(4, num))
    weights = generator.uniform(0.5, 2, num)
    chi2, scale = log_scale_profile(np.array(values), shapes, weights)
    for row, shape in enumerate(shapes):
        c = np.average(values - shape, weights=weights)
        assert scale[row] == pytest.approx(c, abs=1e-9)
        residual = values - shape - c
        assert chi2[row] == pytest.approx((weights * residual**2).sum(), abs=1e-8)


def test_profile_limits_of_a_parabola_lie_where_it_meets_the_threshold():
    grid = np.linspace(-4, 8, 1001)
    low, high = profile_limits(grid, (grid - 2) ** 2 / 0.25, 1.0)
    assert low == pytest.approx(1.5, abs=1e-3)
    assert high == pytest.approx(2.5, abs=1e-3)


def test_a_profile_that_never_leaves_the_threshold_is_unbounded_on_that_side():
    grid = np.linspace(0, 1, 11)
    assert profile_limits(grid, grid, 0.55) == (None, pytest.approx(0.55))
    assert profile_limits(grid, 1 - grid, 0.55) == (pytest.approx(0.45), None)


def test_the_criterion_is_the_published_formula():
    # n ln(rss/n) + 2p + 2p(p+1)/(n-p-1), p counting the noise: 10 points, 2 + 1.
    expected = 10 * math.log(0.5) + 6 + 2 * 3 * 4 / 6
    assert corrected_aic(5.0, 10, 2) == pytest.approx(expected)


def test_the_criterion_refuses_to_judge_where_points_are_too_few():
    assert corrected_aic(5.0, 5, 3) == math.inf
    assert corrected_aic(5.0, 6, 3) < math.inf


def test_redrawn_scales_follow_the_scaled_inverse_chi_square():
    draws = redrawn_scales(np.random.default_rng(1), 20_000, 0.3, 7)
    # degrees * scale^2 / draw^2 is chi-square; a Kolmogorov-Smirnov p above .001.
    p = stats.kstest(7 * 0.09 / draws**2, "chi2", args=(7,)).pvalue
    assert p > 1e-3
