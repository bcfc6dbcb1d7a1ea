"""What an average says of the noise scale, and when it says that it does not know."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.noise_scale import GradientMoments, MomentAverage


def average_of(rows, horizon=None, examples=64):
    average = MomentAverage(horizon=horizon)
    for square, variance in rows:
        moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
        average = average.add(moments, examples)
    return average


def scattered(num, square=(1.0, 0.2), variance=(100.0, 10.0), seed=0):
    """Return moments of steps: mean and standard deviation of both."""
    generator = np.random.default_rng(seed)
    q = generator.normal(*square, num)
    t = generator.normal(*variance, num)
    # exactly as asked, whatever the draw
    q = square[0] + (q - q.mean()) / q.std(ddof=1) * square[1]
    t = variance[0] + (t - t.mean()) / t.std(ddof=1) * variance[1]
    return list(zip(q, t, strict=True))


def test_a_gradient_told_from_noise_gives_an_interval_with_two_ends():
    found = average_of(scattered(50)).noise_scale()
    assert found.status == "resolved"
    assert not found.is_censored
    assert found.interval.value == pytest.approx(100)
    assert found.interval.low < found.lower_bound < 100 < found.interval.high
    assert found.limited_by == "gradient"
    assert str(found).startswith("noise scale 100 examples (9")
    assert str(found).endswith("95 %) from 50 steps")
    assert found.effective_steps == pytest.approx(50)
    assert (found.num_steps, found.examples) == (50, 3200)
    assert found.interval.definition.startswith("simple noise scale tr(Sigma)/|G|^2")


def test_a_variance_that_scatters_more_is_what_limits():
    rows = scattered(50, square=(1.0, 0.02), variance=(100.0, 30.0))
    assert average_of(rows).noise_scale().limited_by == "noise"
    few = average_of(rows[:2]).noise_scale()
    assert few.limited_by == "steps"


def test_a_gradient_that_noise_hides_gives_a_lower_end_and_no_point_to_a_person():
    found = average_of(scattered(50, square=(0.1, 2.0))).noise_scale()
    assert found.status == "at least"
    assert found.is_censored
    assert found.interval.high is None
    assert 0 < found.interval.low <= found.lower_bound < math.inf
    assert found.relative_error == math.inf
    assert str(found) == (
        f"noise scale at least {found.lower_bound:.3g} examples (95 %, no upper end) "
        "from 50 steps: |G|^2 is not told from zero"
    )


def test_a_gradient_below_zero_has_no_value():
    found = average_of(scattered(50, square=(-0.1, 2.0))).noise_scale()
    assert found.interval.value is None
    assert found.status == "at least"
    assert found.steps_until(0.2) == math.inf
    assert found.limited_by == "gradient"


@pytest.mark.parametrize("variance", [(100.0, 10.0), (1.0, 100.0)])
def test_a_gradient_significantly_below_zero_is_unresolved(variance):
    rows = scattered(50, square=(-1.0, 0.5), variance=variance)
    found = average_of(rows).noise_scale()
    assert found.status == "unresolved"
    interval = found.interval
    assert (interval.value, interval.low, interval.high) == (None, 0, None)
    assert found.lower_bound == 0
    assert str(found) == (
        "noise scale unresolved after 50 steps: |G|^2 comes out below zero"
    )


def test_a_bound_is_finite_though_the_gradient_seems_below_zero_on_one_side():
    # significant at 95 % one-sided, not two-sided
    rows = scattered(50, square=(-0.26, 1.0))
    found = average_of(rows).noise_scale()
    assert found.status == "at least"
    assert found.lower_bound == found.interval.low < math.inf


def test_noise_and_gradient_that_scatter_widely_tell_nothing():
    rows = scattered(20, square=(1.0, 30.0), variance=(1.0, 30.0))
    found = average_of(rows).noise_scale()
    assert found.status == "unresolved"
    assert str(found) == (
        "noise scale unresolved after 20 steps: hidden by the scatter of |G|^2"
    )


@pytest.mark.parametrize("num", [0, 1])
def test_before_the_second_step_nothing_is_known(num):
    found = average_of(scattered(50)[:num]).noise_scale()
    assert found.status == "too few steps"
    assert found.limited_by == "steps"
    assert (found.interval.low, found.interval.high) == (0, None)
    assert (found.moments is None) == (num == 0)
    assert found.lower_bound == 0
    assert found.steps_until(0.2) == math.inf
    assert str(found) == f"noise scale not known yet: too few steps ({num})"
    json.dumps(found.to_dict(), allow_nan=False)


def test_without_any_noise_the_noise_scale_is_zero_and_certain():
    found = average_of([(1.0, 0.0)] * 5).noise_scale()
    assert found.status == "resolved"
    assert (found.interval.low, found.interval.value, found.interval.high) == (0, 0, 0)
    assert found.relative_error == 0


def test_a_drift_is_said_and_limits():
    rows = [(1.0 + 0.05 * (-1) ** i, 50.0 + 3 * i) for i in range(40)]
    found = average_of(rows).noise_scale()
    assert found.limited_by == "drift"
    assert found.drift is not None
    assert "; it grew by 1" in str(found)
    assert "within the window (p = " in str(found)


def test_a_data_set_that_is_drawn_from_has_a_larger_gradient():
    average = average_of(scattered(50))
    found = average.noise_scale(dataset_size=100)
    expected = average.moments.for_dataset(100)
    assert found.moments.grad_sq_norm == pytest.approx(expected.grad_sq_norm)
    assert found.interval.value == pytest.approx(expected.simple_noise_scale)
    apart = average_of([(q + t / 100, t) for q, t in scattered(50)]).noise_scale()
    assert found.interval.low == pytest.approx(apart.interval.low)
    assert found.interval.high == pytest.approx(apart.interval.high)
    assert found.drift.statistic == pytest.approx(apart.drift.statistic)


@given(factor=st.sampled_from([1e-6, 1e3, 1e6, 1e30]))
def test_a_loss_scale_is_of_no_account(factor):
    plain = average_of(scattered(30), horizon=1000).noise_scale()
    rows = [(factor * q, factor * t) for q, t in scattered(30)]
    scaled = average_of(rows, horizon=1000).noise_scale()
    assert scaled.interval.low == pytest.approx(plain.interval.low)
    assert scaled.interval.high == pytest.approx(plain.interval.high)
    assert scaled.lower_bound == pytest.approx(plain.lower_bound)
    assert scaled.drift.p_value == pytest.approx(plain.drift.p_value)
    assert scaled.steps_until(0.05) == pytest.approx(plain.steps_until(0.05))


@pytest.mark.parametrize("wanted", [0.05, 0.1])
def test_after_so_many_more_steps_the_interval_is_as_narrow_as_said(wanted):
    rows = scattered(20, square=(1.0, 0.5))
    more = average_of(rows).noise_scale().steps_until(wanted)
    assert more > 20
    longer = scattered(20 + round(more), square=(1.0, 0.5))
    found = average_of(longer).noise_scale()
    assert found.relative_error == pytest.approx(wanted, rel=0.15)
    assert found.steps_until(2 * wanted) == 0


def test_with_a_memory_so_many_more_steps_narrow_it_too():
    # 64 examples of 6,400: 200 effective steps at most, however many there are
    early = average_of(scattered(30, (1.0, 0.5)), horizon=6400).noise_scale()
    wanted = early.relative_error * 0.6
    more = early.steps_until(wanted)
    assert 30 < more < 100
    rows = scattered(30 + round(more), (1.0, 0.5), seed=3)
    found = average_of(rows, horizon=6400).noise_scale()
    assert found.relative_error == pytest.approx(wanted, rel=0.15)
    assert early.steps_until(early.relative_error * 0.3) == math.inf


def test_a_width_of_nothing_is_refused():
    found = average_of(scattered(5)).noise_scale()
    with pytest.raises(ValueError, match="steps_until: `relative_error` must be posi"):
        found.steps_until(0)


def test_an_estimate_tells_a_program_all_of_it():
    for rows in (scattered(50), scattered(50, square=(-0.1, 2.0))):
        found = average_of(rows).noise_scale(level=0.9, unit="tokens")
        told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert told["interval"] == found.interval.to_dict()
        assert told["interval"]["level"] == 0.9
        assert told["interval"]["unit"] == "tokens"
        assert told["status"] == found.status
        assert told["is_censored"] == found.is_censored
        assert told["num_steps"] == 50
