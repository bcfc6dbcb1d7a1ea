"""The regret of any batch size, and which of two is faster."""

import math

import numpy as np
import pytest
from example_laws import EQUATIONS, PERRONE, STEPS, step_time
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.convergence import ConvergenceDraws
from rightbatch.errors import InputError
from rightbatch.step_time import fit_step_time
from rightbatch.training_time import (
    BatchLimits,
    PlanDraws,
    Probability,
    TrainingTimeLaw,
    compare_batch_sizes,
    plan_batch_size,
    probability_faster,
    regret_curve,
    regret_interval,
)

FREE = BatchLimits()


def drawn(num=800, spread=0.1, seed=0, min_steps=1000.0):
    logs = spread * np.random.default_rng(seed).standard_normal((2, num))
    return ConvergenceDraws(
        min_steps=min_steps * np.exp(logs[0]),
        min_examples=7e5 * np.exp(logs[1]),
        knee_exponent=np.ones(num),
    )


def of_one_law(law=STEPS, num=3):
    one = np.ones(num)
    steps = ConvergenceDraws(
        min_steps=law.min_steps * one,
        min_examples=law.min_examples * one,
        knee_exponent=one,
    )
    return PlanDraws(steps=steps, step_time=step_time())


@given(batch=st.integers(20, 1000).map(lambda share: 4 * share))
def test_without_doubt_the_regret_is_that_of_the_closed_form(batch):
    (found,) = regret_interval(of_one_law(), 4, FREE, [batch])
    # The best batch is sought on shares 2 % apart: its time is off by .01 % at most.
    expected = EQUATIONS.regret(batch, 4)
    assert (found.low, found.value, found.high) == pytest.approx(
        [expected] * 3, abs=3e-4
    )


@pytest.mark.parametrize("factor", [1.2, 2.0])
def test_regret_by_a_factor_follows_the_hyperbolic_cosine(factor):
    best = EQUATIONS.optimal_batch_size(4)
    a, b = math.sqrt(0.02 * 1000), math.sqrt(7e5 * 0.001 / 4)
    (found,) = regret_interval(of_one_law(), 4, FREE, [round(best * factor / 4) * 4])
    u = math.log(round(best * factor / 4) * 4 / best)
    lost = 2 * a * b * (math.cosh(u) - 1) / (a + b) ** 2
    assert found.value == pytest.approx(lost, abs=3e-4)
    assert found.value <= (math.cosh(u) - 1) / 2 + 3e-4


def test_regret_intervals_are_quantiles_over_the_draws():
    steps = drawn()
    draws = PlanDraws(steps=steps, step_time=step_time())
    (found,) = regret_interval(draws, 4, FREE, [400])
    shares = np.arange(1, 2000)
    times = steps.steps(4 * shares) * step_time().seconds_per_step(4 * shares, 4)
    lost = times[:, 99] / times.min(1) - 1
    expected = np.quantile(lost, [0.05, 0.95])
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=5e-4)
    assert found.definition == "time lost against the best batch"


@given(one=st.integers(4, 5000), other=st.integers(4, 5000))
@settings(max_examples=40)
def test_one_batch_is_faster_or_the_other_is(one, other):
    draws = PlanDraws(steps=drawn(200), step_time=step_time())
    found = probability_faster(draws, one, other, 4)
    back = probability_faster(draws, other, one, 4)
    assert found.value + back.value == pytest.approx(1)
    assert 0 <= found.value <= 1


def test_a_batch_is_as_fast_as_itself_and_its_error_is_that_of_a_coin():
    draws = PlanDraws(steps=drawn(400), step_time=step_time())
    even = probability_faster(draws, 236, 236, 4)
    assert even.value == 0.5
    assert even.standard_error == pytest.approx(0.5 / math.sqrt(400), rel=0.01)


def test_a_certainty_keeps_an_error():
    sure = Probability(value=1.0, num_draws=1000)
    assert 0 < sure.standard_error < 0.002
    assert sure.to_dict().keys() == {"value", "standard_error", "num_draws"}


def test_the_probability_is_the_share_of_draws_counted_one_by_one():
    steps = drawn(300, spread=0.4)
    draws = PlanDraws(steps=steps, step_time=step_time())
    found = probability_faster(draws, 128, 256, 4)
    times = steps.steps([128, 256]) * step_time().seconds_per_step(
        np.array([128.0, 256.0]), 4
    )
    assert found.value == np.mean(times[:, 0] < times[:, 1])
    assert found.num_draws == 300


def test_a_comparison_holds_times_regret_and_probabilities():
    draws = PlanDraws(steps=drawn(), step_time=step_time())
    near, far = compare_batch_sizes(PERRONE, [240, 2000], 236, 4, draws=draws)
    assert near.seconds == pytest.approx(PERRONE.seconds_as_served(240, 4))
    assert near.steps == STEPS.steps(240)
    assert near.probability_within_5_percent.value == 1
    assert far.probability_faster.value == 0
    assert far.regret.low > near.regret.high
    assert far.to_dict()["regret"]["definition"]
    (bare,) = compare_batch_sizes(PERRONE, [240], 236, 4)
    assert bare.regret is None
    assert bare.to_dict()["probability_faster"] is None


def test_candidates_bind_the_best_batch_not_the_one_compared():
    limits = BatchLimits(candidates=[128, 512])
    draws = of_one_law()
    (found,) = regret_interval(draws, 4, limits, [240])
    # 240 is better than both candidates, and then nothing is lost.
    assert found.value == 0


def test_step_times_that_are_drawn_too_join_the_regret():
    sizes = 2.0 ** np.arange(11)
    noisy = step_time().seconds_per_step(sizes) * np.exp(
        0.1 * np.random.default_rng(0).standard_normal(len(sizes))
    )
    fit = fit_step_time(sizes, noisy)
    law = TrainingTimeLaw(steps=STEPS, step_time=fit.law)
    exact = PlanDraws(steps=drawn(), step_time=fit.law)
    both = PlanDraws(steps=drawn(), step_time=fit.draws(800))
    size = plan_batch_size(law, 1).batch_size * 3
    (narrow,) = regret_interval(exact, 1, FREE, [size])
    (wide,) = regret_interval(both, 1, FREE, [size])
    assert wide.high - wide.low > narrow.high - narrow.low


def test_a_regret_without_a_best_batch_is_open_above():
    steps = drawn()
    negative = ConvergenceDraws(
        min_steps=np.where(np.arange(800) % 10 == 0, -10.0, steps.min_steps),
        min_examples=steps.min_examples,
        knee_exponent=steps.knee_exponent,
    )
    draws = PlanDraws(steps=negative, step_time=step_time())
    (found,) = regret_interval(draws, 4, FREE, [236])
    assert found.high is None
    (capped,) = regret_interval(draws, 4, BatchLimits(max_batch_size=4000), [236])
    assert capped.high is not None


def test_a_batch_below_the_floor_of_some_draws_has_no_upper_regret():
    steps = drawn()
    floored = ConvergenceDraws(
        min_steps=steps.min_steps,
        min_examples=steps.min_examples,
        knee_exponent=steps.knee_exponent,
        min_batch_size=np.where(np.arange(800) % 5 == 0, 150.0, 50.0),
    )
    draws = PlanDraws(steps=floored, step_time=step_time())
    low, high = regret_interval(draws, 4, FREE, [100, 400])
    assert low.high is None
    assert high.high is not None


def test_the_curve_of_regrets_is_least_about_the_best_batch():
    draws = PlanDraws(steps=drawn(), step_time=step_time())
    found = regret_curve(draws, 4, FREE, np.geomspace(40, 2000, 50))
    assert found.keys() == {"batch_size", "value", "low", "high"}
    assert all(size % 4 == 0 for size in found["batch_size"])
    least = found["batch_size"][int(np.argmin(found["value"]))]
    assert least == pytest.approx(236.64, rel=0.15)
    nothing = regret_curve(draws, 4, BatchLimits(max_batch_size=8), np.array([100.0]))
    assert nothing["batch_size"] == []


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([], "must hold at least one"),
        ([2], "4 replicas need an example each"),
        ([5000], "at most 4000"),
        ([1.5], "`batch_sizes` must be a whole number"),
    ],
)
def test_batches_that_cannot_be_served_are_not_compared(sizes, words):
    limits = BatchLimits(max_batch_size=4000)
    with pytest.raises(InputError, match=words):
        compare_batch_sizes(PERRONE, sizes, 236, 4, limits=limits)
