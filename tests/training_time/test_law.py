"""Seconds as served: the largest share, accumulation, overlap, checks."""

import math

import numpy as np
import pytest
from example_laws import step_time, step_times
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.step_time import ConstantCommunication, Evaluation, fit_step_time
from rightbatch.training_time import BatchLimits


def served(model, batch, replicas, most=None):
    limits = BatchLimits(max_micro_batch_size=most)
    return limits.served_step_seconds(model, np.array([float(batch)]), replicas)[..., 0]


@pytest.mark.parametrize("q", [1.0, 2.0, math.inf])
def test_accumulation_hides_communication_behind_its_last_pass_alone(q):
    model = step_time(overhead_seconds=0.005, overlap_exponent=q)
    # Four passes of 100 examples on each of 2: 3 T_micro + (T_micro^q + T_comm^q)^1/q.
    micro, comm = 0.1, 0.02
    last = {1.0: micro + comm, 2.0: math.hypot(micro, comm), math.inf: micro}[q]
    expected = 3 * micro + last + 4 * 0.005
    assert served(model, 800, 2, most=100) == pytest.approx(expected)


def test_checks_are_counted_once_a_step_and_not_once_a_pass():
    check = Evaluation(every=10, num_examples=500)
    plain, with_it = step_time(), step_time(evaluation=check)
    for most in (None, 100, 7):
        added = served(with_it, 800, 2, most) - served(plain, 800, 2, most)
        assert added == pytest.approx(0.001 * 500 / 10)


def test_drawn_laws_are_served_as_each_law_of_theirs():
    sizes = [1, 8, 64, 512, 128, 1024]
    replicas = [1, 1, 1, 1, 2, 2]
    truth = step_time(communication=ConstantCommunication(seconds=0.02))
    fit = fit_step_time(sizes, truth.seconds_per_step(sizes, replicas), replicas)
    fit = fit.with_evaluation(Evaluation(every=3, num_examples=60))
    drawn = served(fit.draws(300), 800, 2, most=100)
    assert drawn.shape == (300,)
    assert np.median(drawn) == pytest.approx(served(fit.law, 800, 2, most=100), rel=0.1)


class StepAlone:
    """A model that knows a step and no pass."""

    def seconds_per_step(self, batch_size, num_replicas=1):
        return 0.001 * np.asarray(batch_size) / num_replicas + 0.5 * (num_replicas > 1)


def test_a_model_that_knows_no_pass_is_asked_for_a_step_of_one_replica():
    assert served(StepAlone(), 800, 2, most=100) == pytest.approx(0.4 + 0.5)


@given(
    model=step_times,
    batch=st.integers(1, 5000),
    replicas=st.integers(1, 50),
    most=st.integers(1, 300),
)
def test_memory_and_uneven_shares_never_make_a_step_faster(
    model, batch, replicas, most
):
    batch = max(batch, replicas)
    even = model.seconds_per_step(batch, replicas)
    whole = served(model, batch, replicas)
    assert whole >= even * (1 - 1e-12)
    assert served(model, batch, replicas, most) >= whole * (1 - 1e-12)
    # The largest share sets the pace.
    up = math.ceil(batch / replicas) * replicas
    assert whole == pytest.approx(model.seconds_per_step(up, replicas))
