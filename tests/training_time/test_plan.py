"""Plans, their intervals, and the product they rest on."""

import numpy as np
import pytest
from example_laws import EQUATIONS, PERRONE, STEPS, law_of, step_time
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.convergence import ConvergenceDraws
from rightbatch.errors import InputError
from rightbatch.step_time import (
    ConstantCommunication,
    LinearCommunication,
    RingCommunication,
    fit_step_time,
)
from rightbatch.training_time import (
    BatchLimits,
    PlanDraws,
    TrainingTimeLaw,
    best_batch_size,
    plan_batch_size,
    plan_batch_sizes,
)
from rightbatch.training_time.plan import duration


def test_speedup_is_against_the_best_batch_on_one_replica():
    plan = plan_batch_sizes(PERRONE, [1, 4])
    alone, four = plan.entries
    assert alone.speedup == 1
    assert alone.seconds == pytest.approx(720)
    assert four.speedup == pytest.approx(720 / four.seconds)


def test_an_entry_says_its_lr_and_whether_it_is_extrapolated():
    near = plan_batch_size(
        PERRONE, 4, lr_for=lambda b: b / 1000, fitted_range=(32, 512)
    )
    assert near.lr == 0.236
    assert not near.extrapolated
    far = plan_batch_size(PERRONE, 4, fitted_range=(8, 64))
    assert far.lr is None
    assert far.extrapolated
    assert any("outside 8 to 64" in said for said in far.warnings)


def test_replicas_that_slow_the_plan_down_are_to_be_left_idle():
    law = law_of(communication=LinearCommunication(seconds_per_replica=0.005))
    plan = plan_batch_sizes(law, [2, 8, 64])
    assert [entry.idle_replicas for entry in plan.entries] == [0, 0, 56]
    assert any("8 of 64 replicas" in said for said in plan.warnings)
    few, best, many = plan.entries
    assert few.batch_size_with_idle is few.seconds_with_idle is None
    # The entry itself is for all 64 at work.
    assert many.seconds > best.seconds
    told = many.to_dict()
    assert told["batch_size_with_idle"] == best.batch_size
    assert told["seconds_with_idle"] == best.seconds
    slow_law = law_of(communication=ConstantCommunication(seconds=1))
    slow = plan_batch_sizes(slow_law, [2])
    assert slow.entries[0].idle_replicas == 1
    assert slow.entries[0].batch_size_with_idle == best_batch_size(slow_law)


def test_a_plan_prints_one_row_per_number_of_replicas_and_its_warnings():
    plan = plan_batch_sizes(PERRONE, [1, 4], limits=BatchLimits(max_batch_size=150))
    header, first, second, *said = str(plan).splitlines()
    assert header.split()[:2] == ["replicas", "batch"]
    assert first.split()[:2] == ["1", "20"]
    assert second.endswith("dataset")
    assert len(header) == len(first) == len(second)
    assert tuple(said) == plan.warnings


def test_the_json_form_has_the_keys_of_the_contract():
    form = plan_batch_sizes(PERRONE, [4]).to_dict()
    (entry,) = form["optimal"]
    assert {
        "num_replicas",
        "batch_size",
        "lr",
        "micro_batch_size",
        "accumulation_steps",
        "steps",
        "seconds",
        "speedup",
        "limited_by",
        "within_5_percent",
    } <= entry.keys()
    assert isinstance(entry["batch_size"], int)
    assert entry["within_5_percent"] == [144, 392]
    assert entry["batch_size_interval"] is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0294, "0.0294 s"), (90, "90 s"), (313.3, "5.2 min"), (1e4, "2.8 h")],
)
def test_durations_are_said_in_the_unit_a_person_would_use(seconds, said):
    assert duration(seconds) == said


def drawn_steps(num=800, spread=0.1, seed=0):
    logs = spread * np.random.default_rng(seed).standard_normal((2, num))
    return ConvergenceDraws(
        min_steps=1000 * np.exp(logs[0]),
        min_examples=7e5 * np.exp(logs[1]),
        knee_exponent=np.ones(num),
    )


def test_intervals_of_a_plan_are_quantiles_of_the_closed_form_of_each_draw():
    steps = drawn_steps()
    draws = PlanDraws(steps=steps, step_time=step_time())
    entry = plan_batch_size(PERRONE, 4, draws=draws)
    phi = steps.min_examples / steps.min_steps
    best = np.maximum(np.sqrt(phi * 0.02 * 4 / 0.001), 80)
    expected = np.quantile(best, [0.05, 0.95])
    size = entry.intervals.batch_size
    # Each draw is solved on evenly shared batches, 2 % apart.
    assert (size.low, size.high) == pytest.approx(tuple(expected), rel=0.03)
    here = entry.batch_size
    seconds = (steps.min_steps + steps.min_examples / here) * (0.02 + 0.001 * here / 4)
    interval = entry.intervals.seconds
    assert (interval.low, interval.high) == pytest.approx(
        tuple(np.quantile(seconds, [0.05, 0.95]))
    )
    assert entry.intervals.regret.low >= 0
    assert entry.intervals.regret.high < 0.01
    assert size.value == here
    assert "to" in str(plan_batch_sizes(PERRONE, [4], draws=draws))


def test_speed_ups_are_drawn_from_both_fits_together():
    steps = drawn_steps()
    draws = PlanDraws(steps=steps, step_time=step_time())
    one, four = plan_batch_sizes(PERRONE, [1, 4], draws=draws).entries
    assert (one.intervals.speedup.low, one.intervals.speedup.high) == (1, 1)
    alone = (steps.min_steps + steps.min_examples / 20) * 0.02
    here = four.batch_size
    both = (steps.min_steps + steps.min_examples / here) * (0.02 + 0.001 * here / 4)
    expected = np.quantile(alone / both, [0.05, 0.95])
    found = four.intervals.speedup
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.low < four.speedup < found.high
    form = four.to_dict()
    assert form["speedup_interval"]["value"] == four.speedup
    assert form["probability_within_5_percent"]["value"] == 1


def test_step_times_that_are_uncertain_widen_the_plan():
    sizes = 2.0 ** np.arange(11)
    generator = np.random.default_rng(0)
    times = step_time().seconds_per_step(sizes)
    noisy = times * np.exp(0.15 * generator.standard_normal(len(sizes)))
    fit = fit_step_time(sizes, noisy, communication=ConstantCommunication(seconds=0.02))
    law = TrainingTimeLaw(steps=STEPS, step_time=fit.law)
    exact = PlanDraws(steps=drawn_steps(), step_time=fit.law)
    both = PlanDraws(steps=drawn_steps(), step_time=fit.draws(800))
    narrow = plan_batch_size(law, 4, draws=exact).intervals.seconds
    wide = plan_batch_size(law, 4, draws=both).intervals.seconds
    assert wide.high - wide.low > narrow.high - narrow.low


def test_draws_without_least_steps_leave_the_batch_size_unbounded_above():
    steps = drawn_steps()
    negative = np.where(np.arange(800) % 10 == 0, -10.0, steps.min_steps)
    some = ConvergenceDraws(
        min_steps=negative,
        min_examples=steps.min_examples,
        knee_exponent=steps.knee_exponent,
    )
    draws = PlanDraws(steps=some, step_time=step_time())
    for limits in (BatchLimits(max_batch_size=5000), BatchLimits()):
        known = plan_batch_size(PERRONE, 4, limits=limits, draws=draws).intervals
        assert known.batch_size.high is None
        assert known.batch_size.low == pytest.approx(200, rel=0.15)
        assert known.steps.low >= 1


def test_draws_are_limited_to_candidates_too():
    limits = BatchLimits(candidates=[128, 256, 512, 1024])
    draws = PlanDraws(steps=drawn_steps(), step_time=step_time())
    size = plan_batch_size(PERRONE, 4, limits=limits, draws=draws).intervals.batch_size
    assert {size.low, size.high} <= {128.0, 256.0, 512.0}


def test_draws_must_be_equally_many():
    fit = fit_step_time([1, 2, 4, 8], [1, 2, 4, 8])
    draws = PlanDraws(steps=drawn_steps(), step_time=fit.draws(10))
    with pytest.raises(InputError, match="drawn equally often, got 800 and 10"):
        plan_batch_size(PERRONE, 1, draws=draws)


@pytest.mark.parametrize("level", [0, 1, 90])
def test_a_level_is_a_probability(level):
    with pytest.raises(InputError, match="`level` must be between 0 and 1"):
        PlanDraws(steps=drawn_steps(), step_time=step_time(), level=level)


@given(batch=st.floats(1, 1e5), replicas=st.integers(1, 256))
def test_time_is_steps_times_seconds_per_step(batch, replicas):
    ring = RingCommunication(latency_seconds=1e-4, bytes_per_second=1e9, num_bytes=4e7)
    law = law_of(communication=ring)
    expected = (1000 + 7e5 / batch) * (
        0.001 * max(batch / replicas, 20) + ring.comm_seconds(replicas)
    )
    assert law.seconds_to_target(batch, replicas) == pytest.approx(expected)


def test_floats_give_floats_and_arrays_arrays():
    assert isinstance(PERRONE.seconds_to_target(64, 2), float)
    assert isinstance(PERRONE.seconds_as_served(64, 2), float)
    assert isinstance(EQUATIONS.regret(64, 2), float)
    assert isinstance(EQUATIONS.optimal_seconds(2), float)
    assert isinstance(EQUATIONS.optimal_batch_size(2), float)
    assert PERRONE.seconds_to_target(np.ones((3, 1)), [1, 2]).shape == (3, 2)


def test_a_plan_tells_who_computes_how_many_examples():
    entry = plan_batch_size(PERRONE, 3, limits=BatchLimits(candidates=[100]))
    cut = entry.to_dict()["factorisation"]
    assert cut["shares"] == [
        {"replicas": 1, "examples": 34},
        {"replicas": 2, "examples": 33},
    ]
    assert cut["waste"] == pytest.approx(2 / 102)
