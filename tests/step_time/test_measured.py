"""What rows of several replicas tell of a step of one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.step_time import ConstantCommunication, StepTimeLaw, local_seconds

ROWS = [(b, p) for p in (1, 2, 4, 8) for b in (64, 256, 1024)]


def law_of(exponent, seconds=0.02):
    return StepTimeLaw(
        seconds_per_example=1e-3,
        saturation_batch_size=16,
        overhead_seconds=4e-3,
        communication=ConstantCommunication(seconds=seconds),
        overlap_exponent=exponent,
    )


@given(
    exponent=st.one_of(st.floats(1, 8), st.just(math.inf)),
    seconds=st.floats(0, 0.2),
)
def test_what_is_left_is_the_law_of_one_replica(exponent, seconds):
    law = law_of(exponent, seconds)
    batch, replicas = np.array(ROWS).T
    times = law.seconds_per_step(batch, replicas)
    local, alone = local_seconds(batch, times, replicas, law)
    assert alone == pytest.approx(law.seconds_per_step(local), rel=1e-6)
    # One replica spends nothing on others, so its rows always count.
    assert set(local) >= {64, 256, 1024}


def test_rows_of_little_but_communication_are_left_out():
    law = law_of(1, seconds=1.0)
    batch, replicas = np.array(ROWS).T
    times = law.seconds_per_step(batch, replicas)
    local, _ = local_seconds(batch, times, replicas, law)
    # Computing is a third of the time from half a second on.
    assert sorted(local) == [64, 256, 512, 1024]


def test_two_local_batches_at_least_are_kept():
    law = law_of(1, seconds=1.0)
    local, alone = local_seconds([8, 16], [1.02, 0.99], [2, 2], law)
    assert local.tolist() == [4, 8]
    assert alone == pytest.approx([0.02, 0.0099])
