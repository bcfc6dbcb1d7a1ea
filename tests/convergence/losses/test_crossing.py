"""Rows of losses cut down to tuned rows and to crossings of a target."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.convergence.losses.crossing import best_rows, steps_to_loss


def test_the_rate_with_the_least_mean_loss_is_kept_with_its_repeats():
    lrs = [0.1, 0.1, 0.2, 0.2]
    assert best_rows([8] * 4, lrs, [100] * 4, [3, 1, 1.8, 1.9]) == [2, 3]


def test_another_length_may_have_another_best_rate():
    lrs, steps = [0.1, 0.2, 0.1, 0.2], [100, 100, 900, 900]
    assert best_rows([8] * 4, lrs, steps, [3, 2, 1, 1.5]) == [1, 2]


@given(exponent=st.floats(0.1, 2), place=st.floats(0.05, 0.95))
def test_a_power_law_is_crossed_where_it_is_the_target(exponent, place):
    steps = [100, 400, 1600]
    exact = 100 * 16**place
    crossing = steps_to_loss(
        [8] * 3, [None] * 3, steps, [s**-exponent for s in steps], exact**-exponent
    )
    assert crossing[0].steps == pytest.approx(exact, rel=1e-9)


def test_a_curve_that_never_passes_has_no_steps():
    (found,) = steps_to_loss([8, 8], [0.1, 0.1], [100, 400], [4, 3], 2)
    assert math.isnan(found.steps)


def test_a_curve_that_starts_below_is_left_out():
    assert steps_to_loss([8, 8], [0.1, 0.1], [100, 400], [1.5, 1], 2) == []
    (found,) = steps_to_loss([8], [None], [100], [2], 2)
    assert found.steps == 100


def test_repeats_are_averaged_and_rates_kept_apart():
    lrs, steps = [0.1, 0.1, 0.1, 0.2], [100, 400, 400, 100]
    found = steps_to_loss([8] * 4, lrs, steps, [4, 0.5, 1.5, 3], 2)
    assert [crossing.lr for crossing in found] == [0.1, 0.2]
    assert found[0].steps == pytest.approx(200)


def test_each_run_is_a_curve_of_its_own():
    steps, losses = [100, 400] * 2, [4, 1, 8, 0.5]
    names = ["a", "a", "of seed 7", "of seed 7"]
    first, second = steps_to_loss([8] * 4, [0.1] * 4, steps, losses, 2, runs=names)
    assert (first.run, first.steps) == ("a", 200)
    assert (second.run, second.steps) == ("of seed 7", 200)
    assert not first.is_mean
    (mean,) = steps_to_loss([8] * 4, [0.1] * 4, steps, losses, 2)
    assert mean.is_mean


def test_runs_of_one_length_each_are_points_of_one_curve():
    (found,) = steps_to_loss([8] * 2, [0.1] * 2, [100, 400], [4, 1], 2, runs=["a", "b"])
    assert (found.steps, found.run, found.is_mean) == (200, "", False)
