"""A noise scale that moves within its window: the test's size, its power, its slope."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rightbatch.noise_scale import DriftTest, GradientMoments, MomentAverage, drift_test


def average_of(t, q, examples, horizon=None):
    average = MomentAverage(horizon=horizon)
    for variance, square, size in zip(t, q, examples, strict=True):
        moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
        average = average.add(moments, size)
    return average


@given(seed=st.integers(0, 2**32 - 1), num=st.integers(4, 40))
def test_with_equal_batches_it_is_the_textbook_regression(seed, num):
    generator = np.random.default_rng(seed)
    t, q = generator.normal(100, 20, num), generator.normal(2, 0.3, num)
    found = average_of(t, q, [16] * num).drift()
    d = t - t.mean() / q.mean() * q
    usual = stats.linregress(16 * np.arange(num), d)
    assert found is not None
    assert found.degrees == pytest.approx(num - 2)
    assert found.statistic == pytest.approx(usual.slope / usual.stderr)
    assert found.p_value == pytest.approx(usual.pvalue)
    assert found.slope == pytest.approx(usual.slope / q.mean())


def draw_window(generator, phi, examples, horizon=None):
    """Return the average of a window of noisy steps; phi is of each step."""
    examples = np.asarray(examples, dtype=float)
    t = phi * (1 + generator.standard_normal(examples.size) * 4 / np.sqrt(examples))
    noise = 0.1 + phi / examples
    q = 1 + noise * generator.standard_normal(examples.size)
    return average_of(t, q, examples, horizon)


WINDOWS = {
    "equal batches": ([64] * 40, None),
    "growing batches": ([32] * 30 + [64] * 20 + [128] * 10, None),
    "forgetting": ([64] * 120, 1280),
    "forgetting while growing": ([32] * 60 + [128] * 40, 2560),
}


@pytest.mark.parametrize(("examples", "horizon"), WINDOWS.values(), ids=WINDOWS.keys())
def test_a_noise_scale_that_stays_is_rarely_called_a_drift(examples, horizon):
    generator = np.random.default_rng(0)
    steady = np.full(len(examples), 100.0)
    found = [
        draw_window(generator, steady, examples, horizon).drift() for _ in range(1000)
    ]
    p_values = np.array([one.p_value for one in found if one is not None])
    assert p_values.size > 950
    # 5 % of 1,000 is known to .007; the variance of a step varies with its batch
    assert 0.025 < np.mean(p_values < 0.05) < 0.085
    assert np.mean(p_values < 0.01) < 0.03


def test_moments_that_shrink_together_are_no_drift():
    generator = np.random.default_rng(1)
    shrink = np.linspace(2, 0.5, 60)
    held = 0
    for _ in range(500):
        t = shrink * 100 * (1 + 0.2 * generator.standard_normal(60))
        q = shrink * (1 + 0.2 * generator.standard_normal(60))
        found = average_of(t, q, [64] * 60).drift()
        assert found is not None
        held += found.p_value < 0.05
    assert held / 500 < 0.09


@pytest.mark.parametrize(("growth", "power"), [(1.5, 0.3), (3.0, 0.95)])
def test_a_noise_scale_that_grows_is_found_with_its_size(growth, power):
    generator = np.random.default_rng(2)
    phi = 100 * np.linspace(1, growth, 60)
    found = [draw_window(generator, phi, [2048] * 60).drift() for _ in range(300)]
    assert np.mean([one is not None and one.p_value < 0.05 for one in found]) > power
    change = np.median([one.change for one in found if one is not None])
    assert change == pytest.approx((growth - 1) / (growth + 1) * 2, rel=0.1)
    slope = np.median([one.slope for one in found if one is not None])
    assert slope == pytest.approx(100 * (growth - 1) / (59 * 2048), rel=0.1)


def test_what_has_no_say_is_no_test():
    assert MomentAverage().drift() is None
    assert average_of([1.0, 2.0], [1.0, 1.0], [8, 8]).drift() is None
    assert average_of([1.0, 2.0, 3.0], [-1.0] * 3, [8] * 3).drift() is None
    assert average_of([-1.0] * 3, [1.0, 2.0, 3.0], [8] * 3).drift() is None


def test_a_line_without_scatter_is_certain_and_a_constant_no_drift():
    line = average_of([1.0, 2.0, 3.0, 4.0], [1.0] * 4, [8] * 4).drift()
    assert line is not None
    assert line.p_value < 1e-6
    assert line.is_significant()
    constant = average_of([2.0] * 4, [1.0] * 4, [8] * 4).drift()
    assert constant is not None
    assert (constant.statistic, constant.p_value) == (0, 1)
    assert not constant.is_significant()


def test_a_test_tells_a_person_and_a_program():
    fell = DriftTest(
        slope=-0.5, change=-0.4, statistic=-math.inf, degrees=9.0, p_value=0.0
    )
    assert str(fell) == "fell by 40 % within the window (p = 0)"
    assert fell.to_dict()["statistic"] is None
    assert fell.to_dict()["change"] == -0.4
    with pytest.raises(ValueError, match="is_significant: `level` must be between"):
        fell.is_significant(99)
    assert drift_test(MomentAverage().scatter) is None
