"""Limits of a ratio: the set itself, its branches, and what it refuses."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from rightbatch.noise_scale import Covariance, fieller_interval, fieller_lower_bound

averages = st.floats(-10, 10).filter(lambda value: abs(value) > 1e-3)
sds = st.floats(1e-3, 10)
correlations = st.floats(-0.95, 0.95)
degrees = st.floats(1, 200)


def covariance_of(t, q, r):
    return Covariance(tt=t * t, tq=r * t * q, qq=q * q)


def statistic(phi, t, q, v):
    return (t - phi * q) / np.sqrt(v.tt - 2 * phi * v.tq + phi**2 * v.qq)


@given(t=averages, q=averages, st_=sds, sq=sds, r=correlations, dof=degrees)
def test_a_ratio_is_in_the_set_where_its_t_statistic_is_small(t, q, st_, sq, r, dof):
    v = covariance_of(st_, sq, r)
    found = fieller_interval(t, q, v, dof)
    grid = np.geomspace(1e-6, 1e6, 400)
    inside = np.abs(statistic(grid, t, q, v)) <= stats.t.ppf(0.975, dof)
    held = (found.low <= grid) & (grid <= found.high) & (not found.is_empty)
    # at a grid point that is nearly an end rounding decides
    near = np.isclose(grid, found.low, rtol=1e-6) | np.isclose(grid, found.high, 1e-6)
    assert np.all(held[inside & ~near])
    if found.low > 0 or math.isfinite(found.high):
        assert not np.any((held & ~inside)[~near])


@given(t=averages, q=averages, st_=sds, sq=sds, r=correlations, dof=degrees)
def test_the_bound_is_the_lower_end_of_the_set_at_twice_the_doubt(
    t, q, st_, sq, r, dof
):
    v = covariance_of(st_, sq, r)
    bound = fieller_lower_bound(t, q, v, dof, level=0.95)
    low, _, is_empty = fieller_interval(t, q, v, dof, level=0.9)
    if t <= 0:
        assert bound == 0
    elif is_empty:
        assert bound == math.inf
    else:
        assert bound == pytest.approx(low, rel=1e-9)


@given(
    t=st.floats(0.1, 10),
    q=st.floats(0.1, 10),
    st_=sds,
    sq=sds,
    r=correlations,
    factor=st.floats(1e-9, 1e9),
)
def test_units_of_either_average_only_scale_the_limits(t, q, st_, sq, r, factor):
    plain = fieller_interval(t, q, covariance_of(st_, sq, r), 20)
    scaled = fieller_interval(factor * t, q, covariance_of(factor * st_, sq, r), 20)
    assert scaled.low == pytest.approx(factor * plain.low, rel=1e-5)
    assert scaled.high == pytest.approx(factor * plain.high, rel=1e-5)
    assert scaled.is_empty == plain.is_empty


@given(t=st.floats(1, 10), q=st.floats(1, 10), st_=sds, sq=sds, r=correlations)
def test_the_limits_of_the_inverse_are_the_inverse_limits(t, q, st_, sq, r):
    found = fieller_interval(t, q, covariance_of(st_, sq, r), 20)
    turned = fieller_interval(q, t, covariance_of(sq, st_, r), 20)
    assume(found.low > 1e-9 and turned.low > 1e-9)
    assert turned.low == pytest.approx(1 / found.high, rel=1e-6)
    assert turned.high == pytest.approx(1 / found.low, rel=1e-6)


def test_norms_near_the_end_of_what_a_float_holds_do_not_overflow():
    small = fieller_interval(4.0, 2.0, Covariance(0.01, 0.001, 0.01), 20)
    large = fieller_interval(4e150, 2e150, Covariance(1e298, 1e297, 1e298), 20)
    assert large.low == pytest.approx(small.low)
    assert large.high == pytest.approx(small.high)


def test_a_denominator_that_is_known_leaves_student_s_interval():
    low, high, _ = fieller_interval(10.0, 2.0, Covariance(1.0, 0.0, 0.0), 12)
    half = stats.t.ppf(0.975, 12) / 2
    assert (low, high) == pytest.approx((5 - half, 5 + half))
    assert fieller_interval(10.0, 2.0, Covariance(0.0, 0.0, 0.0), 12) == (5, 5, False)


def test_without_doubt_about_the_noise_the_quantile_is_the_normal_s():
    low, _, _ = fieller_interval(10.0, 2.0, Covariance(1.0, 0.0, 0.0), math.inf)
    assert low == pytest.approx(5 - stats.norm.ppf(0.975) / 2)


NOISE = Covariance(tt=1.0, tq=0.0, qq=1.0)
BRANCHES = {
    "both told from zero": (10, 10, (0.7248, 1.3797), False),
    "cut at zero": (1, 10, (0, 0.33498), False),
    "no upper end": (10, 1, (2.9852, math.inf), False),
    "nothing told": (1, 1, (0, math.inf), False),
    "nothing told, below": (-1, -1, (0, math.inf), False),
    "signal below zero": (10, -10, (0, math.inf), True),
    "noise below zero": (-10, 10, (0, math.inf), True),
    "signal near zero": (10, -1, (8.0299, math.inf), False),
}


@pytest.mark.parametrize(
    ("t", "q", "limits", "is_empty"), BRANCHES.values(), ids=BRANCHES.keys()
)
def test_each_branch_of_the_set(t, q, limits, is_empty):
    found = fieller_interval(t, q, NOISE, 10)
    assert found.is_empty == is_empty
    assert (found.low, found.high) == pytest.approx(limits, rel=1e-3)


def test_a_denominator_at_the_very_limit_leaves_half_a_line():
    # a = 0: the quadratic is a line
    quantile = stats.t.ppf(0.975, 10)
    v = Covariance(1.0, 0.0, 1.0)
    for q, is_empty in ((quantile, False), (-quantile, True)):
        found = fieller_interval(10.0, q, v, 10)
        assert found.high == math.inf or found.high > 1e6
        assert found.is_empty == is_empty


def test_what_is_no_average_is_refused():
    who, v = "fieller_interval", NOISE
    with pytest.raises(ValueError, match=f"{who}: `numerator` must be a finite number"):
        fieller_interval(math.nan, 1.0, v, 10)
    with pytest.raises(ValueError, match="`denominator` must be a finite number"):
        fieller_lower_bound(1.0, math.inf, v, 10)
    with pytest.raises(ValueError, match="`covariance.tt` must not be negative"):
        fieller_interval(1.0, 1.0, Covariance(-1.0, 0.0, 1.0), 10)
    with pytest.raises(ValueError, match="`covariance.qq` must not be negative"):
        fieller_interval(1.0, 1.0, Covariance(1.0, 0.0, -1.0), 10)
    with pytest.raises(ValueError, match="`covariance.tq` must be between -1 and 1"):
        fieller_interval(1.0, 1.0, Covariance(1.0, 2.0, 1.0), 10)
    with pytest.raises(ValueError, match="`degrees` must be positive, got 0"):
        fieller_interval(1.0, 1.0, v, 0)
    with pytest.raises(ValueError, match="`level` must be between 0 and 1, got 95"):
        fieller_interval(1.0, 1.0, v, 10, level=95)
    with pytest.raises(ValueError, match="fieller_lower_bound: `level` must be"):
        fieller_lower_bound(1.0, 1.0, v, 10, level=0)
