from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch import scaling
from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.step_time import (
    ConstantCommunication,
    Evaluation,
    LinearCommunication,
    MeasuredStepTime,
    NoCommunication,
    RingCommunication,
    StepTimeLaw,
)
from rightbatch.training_time import BatchLimits, TrainingTimeLaw

POWERS = [1, 2, 4, 8, 16, 32, 64, 128, 256]


def law_of(communication, knee=20, min_steps=1000, min_examples=7e5):
    return TrainingTimeLaw(
        steps=ConvergenceLaw(min_steps=min_steps, min_examples=min_examples),
        step_time=StepTimeLaw(
            seconds_per_example=0.001,
            saturation_batch_size=knee,
            communication=communication,
        ),
    )


def with_step_time(law, **changed):
    return replace(law, step_time=replace(law.step_time, **changed))


ALL_REDUCE = law_of(ConstantCommunication(seconds=0.02))
SERVER = law_of(LinearCommunication(seconds_per_replica=0.005))
communications = st.one_of(
    st.just(NoCommunication()),
    st.builds(ConstantCommunication, seconds=st.floats(1e-4, 0.5)),
    st.builds(LinearCommunication, seconds_per_replica=st.floats(1e-4, 0.05)),
)


def test_strong_scaling_is_flat_past_the_batch_over_the_knee():
    curve = scaling.strong(ALL_REDUCE, 640, POWERS)
    assert np.all(np.diff(curve.seconds[:6]) < 0)
    assert curve.seconds[6:] == pytest.approx(curve.seconds[5])
    assert curve.largest_useful_replicas(0) == 640 // 20


def test_strong_scaling_leaves_replicas_without_an_example_idle():
    curve = scaling.strong(ALL_REDUCE, 24, [8, 24, 100])
    assert curve.replicas_used.tolist() == [8, 24, 24]
    assert curve.idle.tolist() == [0, 0, 76]


def test_weak_scaling_never_needs_fewer_than_the_least_steps():
    curve = scaling.weak(ALL_REDUCE, 20, POWERS)
    assert curve.batch_sizes.tolist() == [20 * count for count in POWERS]
    assert np.all(curve.seconds[1:] > 1000 * 0.04)
    # The second replica brings communication, the others nothing but fewer steps.
    assert np.all(np.diff(curve.seconds[1:]) < 0)


def test_optimal_scaling_is_weak_scaling_at_the_knee_on_many_replicas():
    many = [36, 64, 256, 1024]
    best, weak = (
        scaling.optimal(ALL_REDUCE, many),
        scaling.weak(ALL_REDUCE, 20, many),
    )
    assert best.batch_sizes.tolist() == weak.batch_sizes.tolist()
    assert best.seconds == pytest.approx(weak.seconds)
    assert scaling.optimal(ALL_REDUCE, [16]).batch_sizes[0] > 16 * 20


@settings(max_examples=40)
@given(
    communication=communications,
    knee=st.floats(1, 64),
    min_steps=st.floats(1, 1e4),
    min_examples=st.floats(10, 1e6),
    held=st.integers(1, 500),
    allow_idle=st.booleans(),
)
def test_optimal_scaling_is_never_slower_than_strong_or_weak(
    communication, knee, min_steps, min_examples, held, allow_idle
):
    law = law_of(communication, knee, min_steps, min_examples)
    counts = [count for count in POWERS if count <= held] or [1]
    best = scaling.optimal(law, counts, allow_idle=allow_idle)
    for other in (scaling.strong(law, held, counts), scaling.weak(law, held, counts)):
        assert np.all(best.seconds <= other.seconds * (1 + 1e-9))


def test_optimal_scaling_by_the_closed_form_of_equation_10():
    curve = scaling.optimal(ALL_REDUCE, [1, 4, 88, 1000])
    # Whole shares cost a little on the branch of the square root.
    assert curve.seconds == pytest.approx([720, 313.32, 55.909, 41.4], rel=1e-4)
    assert curve.baseline_seconds == pytest.approx(720)
    assert curve.speedup == pytest.approx(720 / curve.seconds)
    assert curve.efficiency == pytest.approx(curve.speedup / [1, 4, 88, 1000])


def test_more_replicas_are_never_slower_when_some_may_idle():
    for law in (ALL_REDUCE, SERVER, law_of(ConstantCommunication(seconds=1))):
        curve = scaling.optimal(law, POWERS)
        assert np.all(np.diff(curve.seconds) <= 0)


def test_a_server_leaves_replicas_idle_or_is_slower():
    idle = scaling.optimal(SERVER, POWERS)
    busy = scaling.optimal(SERVER, POWERS, allow_idle=False)
    assert idle.idle[-1] > 0
    assert idle.replicas_used[-1] < 256
    assert busy.seconds[-1] > busy.seconds.min()
    assert np.all(busy.idle == 0)
    assert idle.seconds[-1] == busy.seconds.min()


def test_the_largest_useful_number_is_the_fewest_within_the_tolerance():
    curve = scaling.optimal(SERVER, POWERS)
    allowed = 1.05 * curve.seconds.min()
    expected = min(
        count
        for count, seconds in zip(POWERS, curve.seconds, strict=True)
        if seconds <= allowed
    )
    assert curve.largest_useful_replicas() == expected


def test_a_data_set_smaller_than_the_replicas_leaves_the_rest_idle():
    curve = scaling.optimal(ALL_REDUCE, [4, 100], limits=BatchLimits(max_batch_size=30))
    assert curve.replicas_used[1] <= 30
    with pytest.raises(InputError, match="each of 100 replicas"):
        scaling.optimal(
            ALL_REDUCE, [100], limits=BatchLimits(max_batch_size=30), allow_idle=False
        )


def test_speedups_can_share_a_baseline():
    common = {"baseline_seconds": 720.0}
    for curve in (
        scaling.strong(ALL_REDUCE, 64, [2, 4], **common),
        scaling.weak(ALL_REDUCE, 64, [2, 4], **common),
        scaling.optimal(ALL_REDUCE, [2, 4], **common),
    ):
        assert curve.speedup == pytest.approx(720 / curve.seconds)


def test_speedup_is_one_on_one_replica():
    for curve in (
        scaling.strong(ALL_REDUCE, 64, [1]),
        scaling.weak(ALL_REDUCE, 64, [1]),
        scaling.optimal(ALL_REDUCE, [1]),
    ):
        assert curve.speedup.tolist() == [1.0]


def test_optimal_becomes_weak_at_the_branch_point_of_equation_10():
    assert scaling.optimal_becomes_weak_at(ALL_REDUCE) == pytest.approx(35)
    assert scaling.limit_seconds(ALL_REDUCE) == pytest.approx(40)


def test_checks_that_are_not_shared_join_the_fixed_cost_of_equation_10():
    check = Evaluation(every=10, num_examples=100)
    checked = with_step_time(ALL_REDUCE, evaluation=check)
    # A check of .1 s every 10 steps: D = .03.
    assert scaling.limit_seconds(checked) == pytest.approx(1000 * (0.03 + 0.02))
    assert scaling.optimal_becomes_weak_at(checked) == pytest.approx(52.5)
    far = checked.seconds_to_target(20 * 2**30, 2**30)
    assert scaling.limit_seconds(checked) == pytest.approx(far, rel=1e-3)
    shared = with_step_time(
        ALL_REDUCE, evaluation=Evaluation(every=10, num_examples=100, shared=True)
    )
    assert scaling.limit_seconds(shared) is None


def test_a_floor_of_the_law_has_a_limit_and_overlap_has_none():
    floor = ConvergenceLaw(min_steps=1000, min_examples=7e5, min_batch_size=30)
    known = TrainingTimeLaw(steps=floor, step_time=ALL_REDUCE.step_time)
    assert scaling.limit_seconds(known) == pytest.approx(40)
    # (M P - F)^2 = phi (D P / gamma + F): the square root meets the knee.
    meet = scaling.optimal_becomes_weak_at(known)
    assert (20 * meet - 30) ** 2 == pytest.approx(700 * (20 * meet + 30))
    overlapped = with_step_time(ALL_REDUCE, overlap_exponent=2.0)
    assert scaling.limit_seconds(overlapped) is None


@settings(max_examples=25)
@given(
    seconds=st.floats(1e-3, 0.5),
    knee=st.floats(2, 64),
    min_steps=st.floats(10, 1e4),
    min_examples=st.floats(1e3, 1e7),
)
def test_the_search_for_the_branch_point_finds_that_of_the_closed_form(
    seconds, knee, min_steps, min_examples
):
    equations = law_of(
        ConstantCommunication(seconds=seconds), knee, min_steps, min_examples
    )
    exact = scaling.optimal_becomes_weak_at(equations)
    # A ring without latency and volume, and delta in the overhead: the same law.
    searched = TrainingTimeLaw(
        steps=equations.steps,
        step_time=StepTimeLaw(
            seconds_per_example=0.001,
            saturation_batch_size=knee,
            overhead_seconds=seconds,
            communication=RingCommunication(
                latency_seconds=0, bytes_per_second=1e12, num_bytes=1e-9
            ),
        ),
    )
    found = scaling.optimal_becomes_weak_at(searched)
    if exact > 5e5:
        return
    # Past 4,096 the numbers of replicas looked at are .2 % apart.
    assert found is not None
    assert exact * 0.999 - 1 <= found <= max(exact * 1.003 + 2, 2)


def test_a_server_that_grows_too_fast_never_becomes_weak():
    # D(P)/P = .005 stays above gamma M_T^2/phi = .00057.
    assert scaling.optimal_becomes_weak_at(SERVER) is None
    slow = law_of(LinearCommunication(seconds_per_replica=1e-4))
    assert scaling.optimal_becomes_weak_at(slow) == 1
    assert scaling.limit_seconds(SERVER) is None


def test_laws_without_a_knee_or_least_steps_have_no_branch_point():
    measured = TrainingTimeLaw(
        steps=ALL_REDUCE.steps,
        step_time=MeasuredStepTime(batch_sizes=[1, 100], seconds=[0.01, 0.1]),
    )
    assert scaling.optimal_becomes_weak_at(measured) is None
    negative = law_of(ConstantCommunication(seconds=0.02), min_steps=-5)
    assert scaling.optimal_becomes_weak_at(negative) is None
    assert scaling.limit_seconds(negative) is None


@settings(max_examples=25)
@given(
    seconds=st.floats(1e-3, 0.1),
    knee=st.floats(2, 64),
    min_steps=st.floats(100, 1e4),
    min_examples=st.floats(1e4, 1e6),
)
def test_past_the_branch_point_the_useful_replicas_have_a_closed_form(
    seconds, knee, min_steps, min_examples
):
    law = law_of(ConstantCommunication(seconds=seconds), knee, min_steps, min_examples)
    # (S + E/(M P)) / S = 1.05 at P = phi/(.05 M).
    expected = min_examples / min_steps / (0.05 * knee)
    if expected < max(4, 1.1 * scaling.optimal_becomes_weak_at(law)):
        return
    alone = law.seconds_to_target(max(knee, 1), 1)
    if alone < 1.06 * scaling.limit_seconds(law):
        return
    found = scaling.useful_replicas(law)
    assert found == pytest.approx(expected, rel=0.03, abs=1.5)


def test_useful_replicas_end_where_a_server_is_fastest_or_the_data_set_ends():
    busy = scaling.optimal(SERVER, range(1, 65), allow_idle=False)
    found = scaling.useful_replicas(SERVER)
    fewest = np.flatnonzero(busy.seconds <= 1.05 * busy.seconds.min())[0] + 1
    assert found == pytest.approx(fewest, abs=1)
    limits = BatchLimits(max_batch_size=40)
    assert scaling.useful_replicas(ALL_REDUCE, limits=limits) <= 40
    free = law_of(NoCommunication(), min_steps=0)
    assert scaling.useful_replicas(free) is None


def test_two_replicas_can_be_slower_than_one():
    slow = law_of(ConstantCommunication(seconds=1.0))
    busy = scaling.optimal(slow, [1, 2], allow_idle=False)
    assert busy.seconds[1] > busy.seconds[0]
    assert scaling.optimal(slow, [1, 2]).idle.tolist() == [0, 1]


@settings(max_examples=25)
@given(seconds=st.floats(1e-4, 0.5), knee=st.floats(1, 64))
def test_from_two_replicas_on_more_are_never_slower_under_a_constant_delta(
    seconds, knee
):
    # Whole shares are even at powers of two, so each can do what half of it did.
    law = law_of(ConstantCommunication(seconds=seconds), knee)
    curve = scaling.optimal(law, POWERS[1:], allow_idle=False)
    assert np.all(np.diff(curve.seconds) <= 1e-3 * curve.seconds[1:])


def test_under_a_server_time_rises_in_the_end():
    counts = [64, 128, 256, 512, 1024]
    busy = scaling.optimal(SERVER, counts, allow_idle=False)
    assert np.all(np.diff(busy.seconds) > 0)


def test_the_json_form_holds_lists_of_one_length():
    form = scaling.optimal(SERVER, POWERS).to_dict()
    assert form["kind"] == "optimal"
    for name in ("replicas", "replicas_used", "batch_sizes", "seconds", "speedup"):
        assert len(form[name]) == len(POWERS)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: scaling.strong(ALL_REDUCE, 0, [1]), "strong: `batch_size` must be"),
        (lambda: scaling.weak(ALL_REDUCE, 1.5, [1]), "weak: `local_batch_size` must"),
        (lambda: scaling.optimal(ALL_REDUCE, []), "optimal: `replicas` must be a list"),
        (lambda: scaling.weak(ALL_REDUCE, 8, [1.5]), "weak: `replicas` must be whole"),
        (lambda: scaling.strong(ALL_REDUCE, 8, [-1]), "strong: `replicas` must be pos"),
        (
            lambda: scaling.weak(ALL_REDUCE, 8, [1]).largest_useful_replicas(-1),
            "Scaling: `tolerance` must not be negative",
        ),
        (
            lambda: scaling.useful_replicas(ALL_REDUCE, 0),
            "useful_replicas: `tolerance` must be positive",
        ),
    ],
)
def test_impossible_curves_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
