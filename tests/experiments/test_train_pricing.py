"""Seconds and money of a run of changing batch sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.experiments.train_pricing import batch_sizes_to_time, price_run
from rightbatch.step_time import ConstantCommunication, StepTimeLaw

LAW = StepTimeLaw(
    seconds_per_example=1e-3,
    saturation_batch_size=4,
    overhead_seconds=0.01,
    communication=ConstantCommunication(seconds=0.05),
)
batches = st.lists(st.integers(1, 4096), min_size=1, max_size=40)


@given(sizes=batches, replicas=st.integers(1, 64))
def test_a_clock_is_the_sum_of_the_updates_one_by_one(sizes, replicas):
    clock, expected = 0.0, []
    for size in sizes:
        clock += LAW.seconds_per_step(size, min(replicas, size))
        expected.append(clock)
    priced = price_run(sizes, LAW, replicas)
    np.testing.assert_allclose(priced.clock, expected, rtol=1e-12)
    assert priced.seconds == pytest.approx(expected[-1])


@given(size=st.integers(8, 512), num=st.integers(1, 30), replicas=st.integers(1, 8))
def test_a_constant_batch_costs_steps_times_seconds_per_step(size, num, replicas):
    priced = price_run([size] * num, LAW, replicas, price_per_hour=7.2)
    seconds = num * LAW.seconds_per_step(size, replicas)
    assert priced.seconds == pytest.approx(seconds)
    assert priced.replica_seconds == pytest.approx(replicas * seconds)
    assert priced.cost == pytest.approx(replicas * seconds * 0.002)


def test_replicas_beyond_the_batch_stand_by_and_are_paid_for():
    two, many = (price_run([2], LAW, replicas) for replicas in (2, 16))
    assert many.seconds == two.seconds
    assert many.replica_seconds == pytest.approx(8 * two.replica_seconds)


def test_the_same_examples_in_larger_batches_take_less_time_on_many_replicas():
    small, large = (price_run([b] * (4096 // b), LAW, 8) for b in (16, 512))
    assert large.seconds < small.seconds / 5


def test_no_updates_take_no_time():
    priced = price_run([], LAW, 4)
    assert (priced.seconds, priced.cost) == (0.0, None)


def test_what_cannot_be_priced_is_refused():
    with pytest.raises(InputError, match=r"`num_replicas` must be a whole number"):
        price_run([4], LAW, 0)
    with pytest.raises(InputError, match=r"`price_per_hour` must not be negative"):
        price_run([4], LAW, price_per_hour=-1)
    with pytest.raises(InputError, match=r"`batch_sizes` must be positive, got 0"):
        price_run([4, 0], LAW)
    with pytest.raises(InputError, match=r"`visited` must be a list of numbers"):
        batch_sizes_to_time([], [1])


@given(visited=batches, replicas=st.lists(st.integers(1, 64), min_size=1, max_size=3))
def test_timed_batch_sizes_hold_every_local_batch_between_their_ends(visited, replicas):
    sizes = batch_sizes_to_time(visited, replicas)
    assert 2 <= len(sizes) <= 6
    assert list(sizes) == sorted(set(sizes))
    assert sizes[0] == max(1, min(visited) // max(replicas))
    assert sizes[-1] == max(*visited, sizes[0] + 1)
