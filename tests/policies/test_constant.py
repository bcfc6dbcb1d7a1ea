"""The constant policy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.policies import Constant, Observation


@given(
    batch_size=st.floats(0.5, 1e9), step=st.integers(0, 10**9), loss=st.floats(0, 1e9)
)
def test_the_same_batch_size_whatever_is_seen(batch_size, step, loss):
    policy = Constant(batch_size=batch_size)
    seen = Observation(step=step, examples=step, batch_size=1, eval_loss=loss)
    decision, state = policy.update(policy.init(), seen)
    assert (decision.batch_size, decision.lr_factor) == (batch_size, 1.0)
    assert state is None


def test_it_needs_no_measurement():
    assert Constant(batch_size=1).needs == frozenset()


@pytest.mark.parametrize("value", [0, -4, math.nan, math.inf, "64", True])
def test_a_batch_size_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="Constant: `batch_size` must be positive"):
        Constant(batch_size=value)
