"""Policies in the loop: what they see, what is served, when it ends."""

import json
import math

import numpy as np
import pytest
from example_policies import Growing, Listed, Watching
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.policies import OBSERVABLE, Constant
from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
from rightbatch.simulation import Conditions, simulate
from rightbatch.simulation.walk import MEASURED
from rightbatch.step_time import StepTimeLaw

SGD = Optimizer(name="sgd", lr=0.5)
LOW = 1  # a seed whose draw of one direction starts below a loss of .45


@pytest.fixture(scope="module")
def problem():
    return NoisyQuadratic(spectrum=Spectrum.inverse(10), preconditioner_power=0.25)


# What is seen ------------------------------------------------------------------------


def test_a_policy_sees_the_expectations_at_the_point_before_the_last_update(problem):
    policy = Watching(5, OBSERVABLE)
    conditions = Conditions(
        dataset_size=50,
        tokens_per_example=12,
        step_time=StepTimeLaw(seconds_per_example=0.01, saturation_batch_size=1),
        num_replicas=1,
    )
    run = simulate(problem, SGD, policy, max_steps=3, conditions=conditions)
    seen = policy.seen[2]
    assert (seen.step, seen.examples, seen.batch_size) == (2, 10, 5)
    assert (seen.epoch, seen.dataset_size, seen.tokens) == (0.2, 50, 120)
    assert seen.seconds == pytest.approx(2 * 0.05)
    assert (seen.lr, seen.eval_loss) == (0.5, run.trace.losses[1])
    assert seen.batch_loss == run.trace.losses[0]
    x = 0.5 * problem.rates
    second = (1 - x) ** 2 * problem.start + 0.25 * problem.step_noise / 5
    h, c = problem.curvatures, problem.noise_variances
    square, variance = float((h**2 * second).sum()), float(c.sum())
    assert seen.moments.grad_sq_norm == pytest.approx(square)
    assert seen.moments.grad_variance == pytest.approx(variance)
    assert seen.batch_grad_sq_norm == pytest.approx(square + variance / 5)
    assert seen.inner_product_variance == pytest.approx((c * h**2 * second).sum())
    scale = seen.noise_scale
    assert scale.low == scale.value == scale.high == pytest.approx(variance / square)


def test_before_the_first_update_no_batch_has_told_anything(problem):
    policy = Watching(5, OBSERVABLE - {"seconds", "tokens", "epoch", "dataset_size"})
    simulate(problem, SGD, policy, max_steps=1)
    (seen,) = policy.seen
    assert (seen.step, seen.examples, seen.batch_size) == (0, 0, 0)
    assert seen.eval_loss == problem.initial_loss
    assert seen.lr is None
    assert all(getattr(seen, name) is None for name in MEASURED)


@settings(max_examples=20, deadline=None)
@given(needs=st.frozensets(st.sampled_from(sorted(MEASURED | {"eval_loss", "lr"}))))
@pytest.mark.parametrize("seed", [None, 0])
def test_only_what_a_policy_needs_is_measured(seed, needs):
    policy = Watching(5, needs)
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(3))
    simulate(problem, SGD, policy, max_steps=2, conditions=Conditions(seed=seed))
    seen = policy.seen[1]
    known = {name for name in OBSERVABLE if getattr(seen, name) is not None}
    assert known == needs


def test_counts_are_whole_numbers_unless_real_batches_are_asked_for(problem):
    for whole, batch in ((True, 6), (False, 5.5)):
        policy = Watching(5.5, frozenset())
        conditions = Conditions(whole_batches=whole)
        simulate(problem, SGD, policy, max_steps=3, conditions=conditions)
        seen = policy.seen[2]
        assert (seen.examples, seen.batch_size) == (2 * batch, batch)
        assert isinstance(seen.examples, int) is whole


def test_at_the_minimum_without_gradient_the_noise_scale_has_no_value():
    spectrum = Spectrum.inverse(2)
    problem = NoisyQuadratic(spectrum=spectrum, initial_second_moments=0.0)
    policy = Watching(4, frozenset({"noise_scale"}))
    simulate(problem, SGD, policy, max_steps=2)
    scale = policy.seen[1].noise_scale
    assert (scale.value, scale.low, scale.high) == (None, 0.0, None)


# What is served ----------------------------------------------------------------------


@given(
    wish=st.floats(1e-9, 1e300),
    size=st.none() | st.integers(1, 10**6),
    whole=st.booleans(),
)
def test_what_is_served_is_the_least_that_holds_the_wish(wish, size, whole):
    served = Conditions(whole_batches=whole, dataset_size=size).served(wish)
    assert 1 <= served <= (size or math.inf)
    if whole:
        assert isinstance(served, int)
        assert served - wish <= 1
    assert served >= min(wish * (1 - 1e-9), size or math.inf)


@pytest.mark.parametrize("size", [1, 7, 10**12, 10**15])
def test_a_whole_wish_is_served_as_it_is(size):
    assert Conditions().served(float(size)) == size


def test_the_last_digit_of_a_quotient_costs_no_example():
    assert Conditions().served(3 * (0.1 + 0.2) / 0.3) == 3


def test_updates_times_the_batch_size_are_the_examples(problem):
    run = simulate(problem, SGD, Constant(batch_size=17), max_steps=40)
    assert run.examples == 40 * 17
    assert run.trace.examples.tolist() == [17 * k for k in range(1, 41)]


def test_a_small_batch_after_a_huge_one_is_counted_as_floats_can(problem):
    run = simulate(problem, SGD, Listed((1e20, 1)), max_steps=2)
    assert run.trace.batch_sizes.tolist() == [1e20, 1]
    assert run.examples == 1e20


def test_rule_schedule_and_the_policys_factor_multiply(problem):
    conditions = Conditions(lr_rule=math.sqrt, lr_schedule=lambda step: 1 / (1 + step))
    policy = Listed((4, 16), lr_factors=(1.0, 0.5, 3.0))
    run = simulate(problem, SGD, policy, max_steps=3, conditions=conditions)
    assert run.trace.lrs == pytest.approx(
        [0.5, 0.5 * 2 * 0.5 / 2, 0.5 * 1 * 3 / 3], rel=1e-15
    )


def test_a_batch_is_never_larger_than_the_data(problem):
    conditions = Conditions(dataset_size=100)
    run = simulate(problem, SGD, Growing(50), max_steps=30, conditions=conditions)
    assert run.trace.batch_sizes.max() == 100
    assert run.trace.measurements["epoch"][-1] == run.examples / 100


def test_a_trace_keeps_the_reasons_and_the_recorded_measurements(problem):
    conditions = Conditions(record=frozenset({"moments"}), tokens_per_example=2)
    run = simulate(problem, SGD, Listed((4, 16)), max_steps=2, conditions=conditions)
    assert run.trace.reasons == ("number 0", "number 1")
    assert sorted(run.trace.measurements) == ["grad_sq_norm", "grad_variance", "tokens"]


def test_seconds_follow_the_batch_sizes_and_the_replicas(problem):
    law = StepTimeLaw(seconds_per_example=0.001, saturation_batch_size=4)
    conditions = Conditions(step_time=law, num_replicas=2)
    run = simulate(problem, SGD, Listed((4, 64)), max_steps=3, conditions=conditions)
    each = [float(law.seconds_per_step(b, 2)) for b in (4, 64, 4)]
    assert run.trace.measurements["seconds"] == pytest.approx(np.cumsum(each))
    assert run.seconds == pytest.approx(sum(each))


# When it ends ------------------------------------------------------------------------


def test_it_stops_at_the_first_loss_at_or_below_the_target(problem):
    long = simulate(problem, SGD, Constant(batch_size=64), max_steps=400)
    run = simulate(problem, SGD, Constant(batch_size=64), target=0.3)
    passage = long.trace.first_passage(0.3)
    assert run.reached
    assert (run.steps, run.examples) == (passage.steps, passage.examples)
    assert run.trace.losses[-1] <= 0.3 < run.trace.losses[-2]


def test_a_target_out_of_reach_is_no_error(problem):
    run = simulate(problem, SGD, Constant(batch_size=1), target=1e-6, max_steps=50)
    assert not run.reached
    assert (run.stopped_by, run.steps) == ("max_steps", 50)


def test_it_stops_with_the_update_that_uses_up_the_examples(problem):
    run = simulate(problem, SGD, Constant(batch_size=7), max_examples=100)
    assert (run.stopped_by, run.examples) == ("max_examples", 105)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("lr", [3.0, 1e3, 1e200])
def test_a_learning_rate_past_the_edge_diverges_and_says_so(problem, lr, seed):
    optimizer = Optimizer(name="momentum", lr=lr, momentum=0.3)
    conditions = Conditions(seed=seed)
    policy = Constant(batch_size=8)
    run = simulate(problem, optimizer, policy, target=0.1, conditions=conditions)
    assert run.stopped_by == "divergence"
    assert run.steps < 500
    json.dumps(run.to_dict(), allow_nan=False)


def test_a_draw_that_starts_below_the_target_makes_no_update():
    spectrum = Spectrum.inverse(1)
    problem = NoisyQuadratic(spectrum=spectrum)
    conditions = Conditions(seed=LOW)
    run = simulate(
        problem, SGD, Constant(batch_size=1), conditions=conditions, target=0.45
    )
    assert run.initial_loss < 0.45
    assert (run.steps, run.examples, run.reached) == (0, 0, True)
    assert run.loss == run.initial_loss
    assert run.to_dict()["trace"] == []


def test_a_run_without_updates_took_no_time():
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(1))
    law = StepTimeLaw(seconds_per_example=1.0, saturation_batch_size=1)
    conditions = Conditions(seed=LOW, step_time=law)
    run = simulate(
        problem, SGD, Constant(batch_size=1), conditions=conditions, target=0.45
    )
    assert run.seconds == 0.0


# What it says ------------------------------------------------------------------------


def test_a_program_gets_the_trace_and_the_summary(problem):
    law = StepTimeLaw(seconds_per_example=0.001, saturation_batch_size=1)
    run = simulate(
        problem,
        SGD,
        Growing(4),
        target=0.5,
        conditions=Conditions(step_time=law),
    )
    told = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    row = told["trace"][0]
    keys = ["step", "examples", "batch_size", "lr", "loss", "reason", "seconds"]
    assert list(row) == keys
    assert (row["step"], row["examples"], row["batch_size"]) == (1, 4, 4)
    assert told["summary"]["steps"] == len(told["trace"]) == run.steps
    assert told["summary"]["examples"] == told["trace"][-1]["examples"]
    assert told["summary"]["seconds"] == run.seconds
    assert told["summary"]["loss"] == run.loss
    assert (told["policy"], told["optimizer"], told["target"]) == (
        "Growing",
        "sgd",
        0.5,
    )


def test_a_person_reads_one_line(problem):
    law = StepTimeLaw(seconds_per_example=0.001, saturation_batch_size=1)
    conditions = Conditions(seed=1, step_time=law)
    run = simulate(
        problem, SGD, Constant(batch_size=10), max_steps=4, conditions=conditions
    )
    assert str(run).startswith("Constant: loss of one draw ")
    assert str(run).endswith("4 updates, 40 examples, 0.04 s (stopped by max steps)")


# What is refused ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_a_policy_that_asks_for_no_batch_size_is_named(problem, value):
    with pytest.raises(InputError, match="^Listed: `batch_size` must be positive and"):
        simulate(problem, SGD, Listed((4, value)), max_steps=5)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_a_policy_that_asks_for_no_learning_rate_is_named(problem, value):
    with pytest.raises(InputError, match=r"Listed: `lr_factor` .* at step 1\."):
        simulate(problem, SGD, Listed((4,), (1.0, value)), max_steps=5)


@pytest.mark.parametrize("name", ["lr_rule", "lr_schedule"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_rule_that_gives_no_factor_is_named(problem, name, value):
    conditions = Conditions(**{name: lambda _: value})
    with pytest.raises(InputError, match=f"`{name}` must give factors that are not ne"):
        simulate(problem, SGD, Constant(batch_size=4), conditions=conditions)


def test_a_schedule_may_end_at_zero(problem):
    conditions = Conditions(lr_schedule=lambda step: max(0.0, 1 - step / 5))
    policy = Constant(batch_size=4)
    run = simulate(problem, SGD, policy, max_steps=9, conditions=conditions)
    assert run.trace.losses[4] == run.trace.losses[-1]


@pytest.mark.parametrize(
    ("need", "source"),
    [
        ("epoch", "dataset_size"),
        ("dataset_size", "dataset_size"),
        ("tokens", "tokens_per_example"),
        ("seconds", "step_time"),
    ],
)
def test_a_policy_that_needs_what_is_not_known_is_told_what_to_give(
    problem, need, source
):
    policy = Watching(4, frozenset({need}))
    rule = f"Watching needs `{need}`, which is not known here.*Conditions its {source}"
    with pytest.raises(InputError, match=rule):
        simulate(problem, SGD, policy)


def test_label_noise_is_refused():
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=0.5)
    with pytest.raises(InputError, match="must not have label noise, got 0.5"):
        simulate(problem, SGD, Constant(batch_size=4))


@pytest.mark.parametrize(
    ("argument", "value", "rule"),
    [
        ("max_steps", 0, "`max_steps` must be a whole number"),
        ("max_examples", -1, "`max_examples` must be positive"),
        ("target", 0.0, "`target` must be above the irreducible loss"),
        ("target", 99.0, "`target` must be below the loss at the start"),
    ],
)
def test_a_limit_out_of_range_is_refused(problem, argument, value, rule):
    with pytest.raises(InputError, match=f"simulate: {rule}"):
        simulate(problem, SGD, Constant(batch_size=4), **{argument: value})


@pytest.mark.parametrize(
    ("argument", "value", "rule"),
    [
        ("seed", -1, "`seed` must be a whole number, not negative"),
        ("seed", 0.5, "`seed` must be a whole number, not negative"),
        ("seed", True, "`seed` must be a whole number, not negative"),
        ("dataset_size", 0, "`dataset_size` must be a whole number"),
        ("num_replicas", 1.5, "`num_replicas` must be a whole number"),
        ("num_units", 1, "`num_units` must be at least 2"),
        ("tokens_per_example", 0, "`tokens_per_example` must be positive"),
        ("record", frozenset({"moment"}), "`record` cannot be 'moment'"),
    ],
)
def test_a_condition_out_of_range_is_refused(argument, value, rule):
    with pytest.raises(InputError, match=f"Conditions: {rule}"):
        Conditions(**{argument: value})
