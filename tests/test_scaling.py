import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch import scaling
from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.step_time import (
    ConstantCommunication,
    LinearCommunication,
    NoCommunication,
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
    ],
)
def test_impossible_curves_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
