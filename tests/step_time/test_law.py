"""The law of step times, measured times, overlap and checks."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.step_time import (
    ConstantCommunication,
    Evaluation,
    HalvingDoublingCommunication,
    LinearCommunication,
    MeasuredStepTime,
    NoCommunication,
    RingCommunication,
    ShardedCommunication,
    StepTimeLaw,
    TwoLevelCommunication,
)
from rightbatch.step_time.law import overlapped

SIZES = 2.0 ** np.arange(11)
KNEE_LAW = StepTimeLaw(
    seconds_per_example=1e-3, saturation_batch_size=20, overhead_seconds=5e-3
)
KINDS = [
    NoCommunication(),
    ConstantCommunication(seconds=0.02),
    LinearCommunication(seconds_per_replica=0.005),
    RingCommunication(latency_seconds=1e-4, bytes_per_second=1e9, num_bytes=4e7),
    HalvingDoublingCommunication(
        latency_seconds=1e-4, bytes_per_second=1e9, num_bytes=4e7
    ),
    ShardedCommunication(latency_seconds=1e-4, bytes_per_second=1e9, num_bytes=4e7),
    TwoLevelCommunication(
        replicas_per_node=4,
        inner_latency_seconds=1e-5,
        inner_bytes_per_second=1e10,
        outer_latency_seconds=1e-4,
        outer_bytes_per_second=1e9,
        num_bytes=4e7,
    ),
]
seconds = st.floats(1e-6, 10)


@given(
    per_example=seconds,
    knee=st.floats(1, 1e3),
    overhead=seconds,
    share=st.floats(1, 1e4),
)
def test_a_step_is_flat_below_the_knee_and_straight_above(
    per_example, knee, overhead, share
):
    law = StepTimeLaw(
        seconds_per_example=per_example,
        saturation_batch_size=knee,
        overhead_seconds=overhead,
    )
    compute = law.seconds_per_step(share) - overhead
    expected = per_example * (share if share > knee else knee)
    assert compute == pytest.approx(expected, rel=1e-9, abs=1e-9 * overhead)


@given(batch=st.floats(1, 1e5), replicas=st.integers(1, 512))
@pytest.mark.parametrize("communication", KINDS, ids=lambda one: one.kind)
def test_replicas_share_the_batch_and_add_communication(communication, batch, replicas):
    law = StepTimeLaw(
        seconds_per_example=1e-3, saturation_batch_size=3, communication=communication
    )
    alone = law.seconds_per_step(batch / replicas)
    together = law.seconds_per_step(batch, replicas)
    assert together == pytest.approx(alone + communication.comm_seconds(replicas))


def test_floats_give_floats_and_arrays_broadcast():
    measured = MeasuredStepTime(batch_sizes=[8, 16], seconds=[0.2, 0.3])
    for model in (KNEE_LAW, measured):
        assert isinstance(model.seconds_per_step(4), float)
        grid = model.seconds_per_step(np.ones((5, 1)), [1, 2, 4])
        assert grid.shape == (5, 3)


def test_measured_times_are_met_exactly_held_below_and_extended_above():
    model = MeasuredStepTime(batch_sizes=[32, 8, 16], seconds=[0.5, 0.2, 0.3])
    assert model.measured_range == (8, 32)
    found = model.seconds_per_step([1, 8, 12, 16, 32, 48])
    assert found == pytest.approx([0.2, 0.2, 0.25, 0.3, 0.5, 0.7])


def test_measured_times_never_fall_past_the_last_point():
    model = MeasuredStepTime(batch_sizes=[8, 16], seconds=[0.3, 0.2])
    assert model.seconds_per_step([16, 1000]) == pytest.approx([0.2, 0.2])


def test_repeats_of_a_batch_size_are_replaced_by_their_median():
    model = MeasuredStepTime(batch_sizes=[8, 8, 8, 16], seconds=[0.1, 0.2, 9.0, 0.4])
    assert model.seconds_per_step(8) == 0.2


def test_measured_times_are_of_the_share_of_one_replica():
    model = MeasuredStepTime(
        batch_sizes=[8, 16], seconds=[0.2, 0.3], communication=KINDS[1]
    )
    assert model.seconds_per_step(64, 8) == pytest.approx(0.22)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: StepTimeLaw(seconds_per_example=-1, saturation_batch_size=1),
            "StepTimeLaw: `seconds_per_example`",
        ),
        (
            lambda: StepTimeLaw(seconds_per_example=1, saturation_batch_size=0),
            "StepTimeLaw: `saturation_batch_size`",
        ),
        (
            lambda: StepTimeLaw(
                seconds_per_example=1, saturation_batch_size=1, overhead_seconds=-1
            ),
            "StepTimeLaw: `overhead_seconds`",
        ),
        (
            lambda: StepTimeLaw(seconds_per_example=0, saturation_batch_size=1),
            "must be positive, got 0 for both: a step takes time",
        ),
        (
            lambda: StepTimeLaw(
                seconds_per_example=1, saturation_batch_size=1, overlap_exponent=0.5
            ),
            "StepTimeLaw: `overlap_exponent` must be at least 1, got 0.5",
        ),
        (
            lambda: MeasuredStepTime(
                batch_sizes=[1, 2], seconds=[1, 2], overlap_exponent=math.nan
            ),
            "MeasuredStepTime: `overlap_exponent` must be positive, got nan",
        ),
        (lambda: Evaluation(every=0, num_examples=9), "Evaluation: `every`"),
        (lambda: Evaluation(every=1, num_examples=0), "Evaluation: `num_examples`"),
        (
            lambda: Evaluation(every=1, num_examples=1, seconds_per_example=0),
            "Evaluation: `seconds_per_example`",
        ),
    ],
)
def test_a_law_of_impossible_times_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


# --- overlap ---


@given(compute=seconds, comm=seconds, low=st.floats(1, 30), more=st.floats(1, 10))
def test_more_overlap_is_never_slower(compute, comm, low, more):
    looser, tighter = (float(overlapped(compute, comm, q)) for q in (low, low * more))
    assert tighter <= looser * (1 + 1e-12)
    assert max(compute, comm) * (1 - 1e-12) <= tighter
    assert looser <= (compute + comm) * (1 + 1e-12)


def test_without_overlap_times_add_and_with_all_of_it_the_longer_counts():
    for q, expected in (
        (1, 0.045),
        (2, 0.005 + math.hypot(0.02, 0.02)),
        (math.inf, 0.025),
    ):
        law = replace(KNEE_LAW, communication=KINDS[1], overlap_exponent=q)
        assert law.seconds_per_step(80, 4) == pytest.approx(expected)
        # One replica has nothing to hide.
        assert law.seconds_per_step(80) == pytest.approx(0.085)


@pytest.mark.parametrize("exponent", [1, 2.5, math.inf])
def test_measured_times_overlap_as_the_law_they_were_taken_from(exponent):
    law = replace(KNEE_LAW, communication=KINDS[1], overlap_exponent=exponent)
    sizes = [1.0, 20, 400]
    measured = MeasuredStepTime(
        batch_sizes=sizes,
        seconds=law.seconds_per_step(sizes),
        communication=KINDS[1],
        overlap_exponent=exponent,
        overhead_seconds=law.overhead_seconds,
    )
    grid = np.array([4.0, 40, 300, 900])
    expected = law.seconds_per_step(grid, 4)
    assert measured.seconds_per_step(grid, 4) == pytest.approx(expected)


# --- checks between steps ---


def test_equation_6_over_n_steps_is_n_steps_and_one_check():
    check = Evaluation(every=50, num_examples=2000, seconds_per_example=2e-4)
    law = replace(KNEE_LAW, evaluation=check)
    for batch in (4, 64):
        together = 50 * law.seconds_per_step(batch)
        apart = 50 * KNEE_LAW.seconds_per_step(batch) + 2e-4 * 2000
        assert together == pytest.approx(apart)


def test_a_check_is_never_faster_than_the_knee_and_shared_it_is_divided():
    def per_step(replicas, **changed):
        check = Evaluation(every=10, num_examples=160, **changed)
        law = replace(KNEE_LAW, evaluation=check)
        return law.evaluation_seconds(replicas)

    # gamma 1e-3 where no other is given, the knee at 20 examples.
    assert per_step([1, 4, 100]) == pytest.approx([0.016, 0.016, 0.016])
    assert per_step([1, 4, 100], shared=True) == pytest.approx([0.016, 0.004, 0.002])
    assert KNEE_LAW.evaluation_seconds([1, 4]).tolist() == [0, 0]


@given(every=st.integers(1, 1000), examples=st.integers(1, 10_000))
def test_checks_cost_more_the_more_often_and_the_larger_they_are(every, examples):
    def cost(every, examples):
        check = Evaluation(every=every, num_examples=examples)
        return replace(KNEE_LAW, evaluation=check).seconds_per_step(32)

    assert cost(every + 1, examples) < cost(every, examples)
    assert cost(every, examples + 1) >= cost(every, examples)


def test_a_check_by_measured_times_takes_a_step_less_its_overhead():
    check = Evaluation(every=4, num_examples=16)
    model = MeasuredStepTime(
        batch_sizes=[8, 16],
        seconds=[0.2, 0.3],
        overhead_seconds=0.1,
        evaluation=check,
    )
    assert model.seconds_per_step(8) == pytest.approx(0.2 + (0.3 - 0.1) / 4)
    given_rate = replace(check, seconds_per_example=0.01)
    model = replace(model, evaluation=given_rate)
    assert model.seconds_per_step(8) == pytest.approx(0.2 + 0.16 / 4)


# --- passes without a sum ---


def test_a_pass_neither_communicates_nor_checks():
    check = Evaluation(every=4, num_examples=16)
    law = replace(KNEE_LAW, communication=KINDS[1], evaluation=check)
    assert law.pass_seconds([10, 40]) == pytest.approx([0.025, 0.045])
    assert isinstance(law.pass_seconds(10), float)


# --- what a reader would expect of any law ---


laws = st.builds(
    StepTimeLaw,
    seconds_per_example=st.floats(1e-6, 1e-2),
    saturation_batch_size=st.floats(1, 100),
    overhead_seconds=st.floats(0, 0.1),
    communication=st.sampled_from(KINDS),
    overlap_exponent=st.one_of(st.floats(1, 20), st.just(math.inf)),
    evaluation=st.one_of(
        st.none(),
        st.builds(Evaluation, every=st.integers(1, 9), num_examples=st.just(99)),
    ),
)


@given(
    law=laws,
    batch=st.floats(1, 1e5),
    more=st.floats(1, 100),
    replicas=st.integers(1, 99),
)
def test_a_step_takes_no_less_time_with_a_larger_batch(law, batch, more, replicas):
    small = law.seconds_per_step(batch, replicas)
    assert law.seconds_per_step(batch * more, replicas) >= small * (1 - 1e-12)


@given(law=laws, batch=st.floats(1, 1e5), replicas=st.integers(1, 99))
def test_without_communication_more_replicas_are_never_slower(law, batch, replicas):
    free = replace(law, communication=NoCommunication())
    fewer = free.seconds_per_step(batch, replicas)
    assert free.seconds_per_step(batch, replicas + 1) <= fewer * (1 + 1e-12)


@given(law=laws, batch=st.floats(1, 1e5), replicas=st.integers(1, 99))
def test_communication_never_makes_a_step_shorter(law, batch, replicas):
    free = replace(law, communication=NoCommunication())
    alone = free.seconds_per_step(batch, replicas)
    assert law.seconds_per_step(batch, replicas) >= alone * (1 - 1e-12)
