"""Closed forms: eqs. 7 to 10."""

import math
from dataclasses import replace

import numpy as np
import pytest
from example_laws import (
    EQUATIONS,
    PERRONE,
    closed_form,
    convergences,
    step_times,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import optimize

from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.step_time import (
    ConstantCommunication,
    Evaluation,
    LinearCommunication,
    NoCommunication,
)
from rightbatch.training_time import (
    ClosedForm,
    TrainingTimeLaw,
    batch_sizes_within,
)


def test_the_reference_point_of_equation_9():
    assert EQUATIONS.optimal_batch_size(4) == pytest.approx(236.64, abs=0.005)
    low, high = EQUATIONS.batch_sizes_within(0.05, 4)
    assert low == pytest.approx(142.2, abs=0.05)
    assert high == pytest.approx(393.7, abs=0.05)


def test_the_example_of_equation_10():
    assert EQUATIONS.branch_point == pytest.approx(35)
    seconds = EQUATIONS.optimal_seconds([1, 4, 88, 1000])
    assert seconds == pytest.approx([720, 313.32, 55.909, 41.4], rel=2e-5)
    assert EQUATIONS.limit_seconds == pytest.approx(40)
    assert EQUATIONS.optimal_seconds(1e9) == pytest.approx(40, rel=1e-6)


def test_one_learner_without_overhead_takes_the_knee():
    assert EQUATIONS.optimal_batch_size(1) == 20
    assert EQUATIONS.optimal_batch_size() == 20


def test_overhead_joins_communication_at_one_learner():
    plan = closed_form(
        ConvergenceLaw(min_steps=100, min_examples=4500),
        seconds_per_example=0.65e-6,
        saturation_batch_size=1,
        overhead_seconds=212e-6,
        communication=NoCommunication(),
    )
    assert plan.optimal_batch_size(1) == pytest.approx(121, abs=0.5)


def test_a_server_charges_its_time_at_the_number_of_replicas_asked():
    plan = closed_form(communication=LinearCommunication(seconds_per_replica=0.005))
    phi, replicas = 700, np.array([2, 8, 32])
    expected = replicas * np.maximum(np.sqrt(phi * 0.005 / 0.001), 20)
    assert plan.optimal_batch_size(replicas) == pytest.approx(expected)


def test_more_replicas_under_a_server_are_slower_in_the_end():
    plan = closed_form(communication=LinearCommunication(seconds_per_replica=0.005))
    seconds = plan.optimal_seconds([2, 8, 64, 512])
    assert seconds[2] < seconds[0]
    assert seconds[3] > seconds[2]


def test_a_constant_time_between_replicas_can_make_two_slower_than_one():
    seconds = closed_form(
        communication=ConstantCommunication(seconds=1)
    ).optimal_seconds
    assert seconds(2) > seconds(1)
    assert np.all(np.diff(seconds([2, 4, 8, 16, 1000])) < 0)


@given(convergence=convergences, model=step_times, replicas=st.integers(1, 300))
def test_closed_forms_are_the_minimum_over_real_batch_sizes(
    convergence, model, replicas
):
    plan = ClosedForm(convergence=convergence, step_time=model)
    law = TrainingTimeLaw(steps=convergence, step_time=model)
    best = plan.optimal_batch_size(replicas)
    least = plan.optimal_seconds(replicas)
    assert law.seconds_to_target(best, replicas) == pytest.approx(least, rel=1e-12)
    # In ln B both pieces are convex, so a search on each side of the knee is enough.
    knee = math.log(model.saturation_batch_size * replicas)
    for bounds in ((knee - 15, knee), (knee, knee + 25)):
        found = optimize.minimize_scalar(
            lambda log: law.seconds_to_target(math.exp(log), replicas),
            bounds=bounds,
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert found.fun >= least * (1 - 1e-9)
    around = best * np.exp(np.linspace(-1e-4, 1e-4, 5))
    assert law.seconds_to_target(around, replicas).min() >= least * (1 - 1e-9)


floors = st.builds(
    ConvergenceLaw,
    min_steps=st.floats(1, 1e4),
    min_examples=st.floats(1, 1e6),
    min_batch_size=st.one_of(st.just(0.0), st.floats(0.1, 1e3)),
)
checks = st.one_of(
    st.none(),
    st.builds(
        Evaluation,
        every=st.integers(1, 1000),
        num_examples=st.integers(1, 10_000),
        seconds_per_example=st.one_of(st.none(), st.floats(1e-6, 1e-2)),
        shared=st.booleans(),
    ),
)


def log_derivative(law, batch, replicas):
    """Of the time by ln B: steps and step apart, so that nothing cancels."""
    above = batch - law.steps.min_batch_size
    examples = law.steps.min_examples / above
    seconds = law.step_time.seconds_per_step(batch, replicas)
    slope = law.step_time.seconds_per_example * batch / replicas
    return (law.steps.min_steps + examples) * slope - examples * batch / above * seconds


@given(convergence=floors, model=step_times, check=checks, replicas=st.integers(1, 300))
def test_with_checks_and_a_floor_the_closed_form_is_the_numerical_optimum(
    convergence, model, check, replicas
):
    model = replace(model, evaluation=check)
    plan = ClosedForm(convergence=convergence, step_time=model)
    law = TrainingTimeLaw(steps=convergence, step_time=model)
    best, least = plan.optimal_batch_size(replicas), plan.optimal_seconds(replicas)
    assert law.seconds_to_target(best, replicas) == pytest.approx(least, rel=1e-9)
    # Past the knee the derivative by ln B changes its sign once: the root is the best.
    knee = model.saturation_batch_size * replicas
    start = max(knee, convergence.min_batch_size * (1 + 1e-9) + 1e-9)
    if log_derivative(law, start, replicas) >= 0:
        assert best == pytest.approx(knee, rel=1e-9)
        return
    end = start
    while log_derivative(law, end, replicas) < 0:
        end *= 2
    root = optimize.brentq(
        lambda batch: log_derivative(law, batch, replicas), start, end, rtol=1e-14
    )
    assert best == pytest.approx(root, rel=1e-9)


def test_the_best_whole_batch_is_next_to_the_closed_form():
    model = replace(
        PERRONE.step_time, evaluation=Evaluation(every=100, num_examples=2000)
    )
    plan = ClosedForm(convergence=PERRONE.steps, step_time=model)
    law = TrainingTimeLaw(steps=PERRONE.steps, step_time=model)
    grid = np.arange(1, 5000) * 4
    seconds = law.seconds_to_target(grid, 4)
    assert abs(grid[seconds.argmin()] - plan.optimal_batch_size(4)) <= 4
    # delta + gamma_CV M_CV / N = .02 + .02 stands where .02 stood.
    assert plan.optimal_batch_size(4) == pytest.approx(236.643 * math.sqrt(2), rel=1e-5)
    assert plan.optimal_batch_size(1) == pytest.approx(math.sqrt(700 * 0.02 / 0.001))


@given(convergence=floors, model=step_times, replicas=st.integers(1, 300))
def test_a_floor_changes_branch_where_it_says(convergence, model, replicas):
    assume(model.communication.kind != "linear" and replicas > 1)
    plan = ClosedForm(convergence=convergence, step_time=model)
    assume(abs(replicas / max(plan.branch_point, 1e-300) - 1) > 1e-6)
    knee = model.saturation_batch_size * replicas
    saturated = plan.optimal_batch_size(replicas) <= knee * (1 + 1e-12)
    assert saturated == (replicas > plan.branch_point)


def test_no_closed_form_where_communication_hides_behind_computing():
    with pytest.raises(
        InputError, match="`overlap_exponent` must be 1, got 2.*plan_batch_size finds"
    ):
        closed_form(overlap_exponent=2)
    alone = closed_form(overlap_exponent=2, communication=NoCommunication())
    assert alone.optimal_batch_size(1) == 20


def test_no_branch_point_where_checks_are_shared():
    check = Evaluation(every=10, num_examples=1000, shared=True)
    plan = closed_form(evaluation=check)
    with pytest.raises(InputError, match="checks shared among replicas"):
        _ = plan.branch_point
    with pytest.raises(InputError, match="checks shared among replicas"):
        _ = plan.limit_seconds


@given(convergence=convergences, model=step_times, replicas=st.integers(1, 300))
def test_equation_10_changes_branch_where_it_says(convergence, model, replicas):
    assume(model.communication.kind != "linear" and replicas > 1)
    plan = ClosedForm(convergence=convergence, step_time=model)
    assume(abs(replicas / max(plan.branch_point, 1e-300) - 1) > 1e-9)
    knee = model.saturation_batch_size * replicas
    saturated = plan.optimal_batch_size(replicas) <= knee * (1 + 1e-12)
    assert saturated == (replicas > plan.branch_point)


@given(
    log_ratio=st.floats(-3, 3),
    replicas=st.integers(2, 64),
    delta=st.floats(1e-3, 1),
    gamma=st.floats(1e-6, 1e-3),
)
def test_regret_on_the_balanced_branch_is_a_hyperbolic_cosine(
    log_ratio, replicas, delta, gamma
):
    plan = closed_form(
        seconds_per_example=gamma,
        saturation_batch_size=1e-6,
        communication=ConstantCommunication(seconds=delta),
    )
    a, b = math.sqrt(delta * 1000), math.sqrt(7e5 * gamma / replicas)
    lost = plan.regret(
        plan.optimal_batch_size(replicas) * math.exp(log_ratio), replicas
    )
    cosine = math.cosh(log_ratio) - 1
    assert lost == pytest.approx(2 * a * b * cosine / (a + b) ** 2, rel=1e-6, abs=1e-12)
    assert lost <= cosine / 2 + 1e-12


def test_a_fifth_off_costs_one_percent_and_a_factor_two_an_eighth_at_most():
    # The worst case is a = b: as much time in fixed costs as in examples.
    plan = closed_form(
        ConvergenceLaw(min_steps=1000, min_examples=1e6),
        saturation_batch_size=1,
        communication=ConstantCommunication(seconds=0.25),
    )
    best = plan.optimal_batch_size(4)
    assert plan.regret(best * math.exp(0.2), 4) == pytest.approx(0.01, abs=2e-4)
    assert plan.regret(best * 2, 4) == pytest.approx(0.125, rel=1e-9)
    assert plan.regret(best / 2, 4) == pytest.approx(0.125, rel=1e-9)


@given(
    convergence=convergences,
    model=step_times,
    replicas=st.integers(1, 300),
    tolerance=st.floats(0.01, 0.5),
)
def test_the_closed_range_ends_where_the_tolerance_or_the_knee_is_met(
    convergence, model, replicas, tolerance
):
    plan = ClosedForm(convergence=convergence, step_time=model)
    low, high = plan.batch_sizes_within(tolerance, replicas)
    best = plan.optimal_batch_size(replicas)
    assert low <= best * (1 + 1e-9)
    assert high >= best * (1 - 1e-9)
    assert plan.regret(high, replicas) == pytest.approx(tolerance, rel=1e-5)
    if low > model.saturation_batch_size * replicas:
        assert plan.regret(low, replicas) == pytest.approx(tolerance, rel=1e-5)


def test_off_the_balanced_branch_regret_is_bounded_by_the_ratio_of_batches():
    for factor in (0.5, 0.9, 1.5, 3.0):
        lost = EQUATIONS.regret(20 * 100 * factor, 100)
        assert 0 <= lost <= max(factor, 1 / factor) - 1


@pytest.mark.parametrize("min_steps", [0.0, -50.0])
def test_no_closed_form_without_a_positive_number_of_least_steps(min_steps):
    with pytest.raises(InputError, match=r"`min_steps` must be positive.*lower bound"):
        closed_form(ConvergenceLaw(min_steps=min_steps, min_examples=7e5))


def test_no_closed_form_with_another_knee_exponent():
    law = ConvergenceLaw(min_steps=1000, min_examples=7e5, knee_exponent=2)
    with pytest.raises(InputError, match="`knee_exponent` must be 1, got 2"):
        closed_form(law)


def test_no_closed_form_where_a_step_never_takes_longer():
    with pytest.raises(InputError, match="`seconds_per_example` must be positive"):
        closed_form(seconds_per_example=0, overhead_seconds=0.01)


def test_no_branch_point_where_communication_grows():
    plan = closed_form(communication=LinearCommunication(seconds_per_replica=0.005))
    with pytest.raises(InputError, match="none or constant for a branch point"):
        _ = plan.branch_point
    with pytest.raises(InputError, match="none or constant for a branch point"):
        _ = plan.limit_seconds


def test_a_range_needs_a_positive_tolerance():
    with pytest.raises(InputError, match="`tolerance` must be positive"):
        EQUATIONS.batch_sizes_within(0)
    with pytest.raises(InputError, match="`tolerance` must be positive"):
        batch_sizes_within(PERRONE, tolerance=-1)
