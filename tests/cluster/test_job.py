"""How soon a machine reaches a job's target."""

import numpy as np
import oracles
import pytest
from example_designs import STEP_TIME, job
from example_laws import convergences, step_times
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.cluster import Machine
from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.step_time import StepTimeLaw
from rightbatch.training_time import BatchLimits


@settings(max_examples=60)
@given(
    convergence=convergences,
    model=step_times,
    replicas=st.integers(1, 12),
    extra=st.integers(0, 300),
)
def test_the_time_is_that_of_the_best_of_all_batch_sizes(
    convergence, model, replicas, extra
):
    largest = replicas + extra
    one = job(
        convergence=convergence,
        step_time=model,
        limits=BatchLimits(max_batch_size=largest),
    )
    _, least, _ = oracles.plan(
        convergence.steps, model.seconds_per_step, replicas, largest, None
    )
    machine = Machine(num_replicas=replicas)
    assert float(one.seconds(machine)) == pytest.approx(least, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    law=st.builds(
        ConvergenceLaw,
        min_steps=st.floats(1, 1e4),
        min_examples=st.floats(1e2, 1e6),
        knee_exponent=st.sampled_from([1.0, 2.0]),
    ),
    overlap=st.sampled_from([1.0, 3.0, np.inf]),
    replicas=st.integers(1, 64),
    speed=st.floats(1, 8),
    width=st.floats(1, 8),
)
def test_without_a_closed_form_the_batch_is_the_one_a_plan_finds(
    law, overlap, replicas, speed, width
):
    step_time = StepTimeLaw(
        seconds_per_example=0.001,
        saturation_batch_size=20,
        communication=STEP_TIME.communication,
        overlap_exponent=overlap,
    )
    one = job(
        convergence=law,
        step_time=step_time,
        limits=BatchLimits(max_batch_size=200_000),
    )
    machine = Machine(num_replicas=replicas, speed=speed, bandwidth=width)
    best = one.batch_size(machine)
    expected = one.training_time(machine).seconds_as_served(best, replicas)
    # The search is over some 80 shares in all; the least is flat.
    assert float(one.seconds(machine)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("memory", [3, 16, 100])
def test_memory_is_a_largest_forward_pass_and_the_rest_is_accumulated(memory):
    one = job(
        step_time=StepTimeLaw(
            seconds_per_example=0.001,
            saturation_batch_size=4,
            overhead_seconds=0.01,
            communication=STEP_TIME.communication,
        )
    )
    machine = Machine(num_replicas=4, max_micro_batch_size=memory)
    best = one.batch_size(machine)
    limits = one.limits_on(machine)
    expected = one.training_time(machine).seconds_as_served(best, 4, limits)
    assert limits.split(best, 4)[0] <= memory
    # Teeth of accumulation are sampled, not all looked at.
    assert float(one.seconds(machine)) == pytest.approx(expected, rel=2e-3)
    assert float(one.seconds(machine)) >= float(one.seconds(Machine(num_replicas=4)))


@given(
    replicas=st.integers(1, 40),
    speeds=st.tuples(st.floats(1, 9), st.floats(1, 9)),
    widths=st.tuples(st.floats(1, 9), st.floats(1, 9)),
)
def test_a_faster_machine_with_a_wider_network_is_never_slower(
    replicas, speeds, widths
):
    slow, fast = (
        Machine(num_replicas=replicas, speed=speed, bandwidth=width)
        for speed, width in zip(sorted(speeds), sorted(widths), strict=True)
    )
    assert float(job().seconds(fast)) <= float(job().seconds(slow)) * (1 + 1e-12)


def test_candidates_are_the_only_batches_there_are():
    one = job(limits=BatchLimits(candidates=[64, 512]))
    times = one.training_time(Machine(num_replicas=4)).seconds_as_served([64, 512], 4)
    assert float(one.seconds(Machine(num_replicas=4))) == min(times)


def test_more_replicas_than_the_largest_batch_has_examples_serve_nothing():
    one = job(limits=BatchLimits(max_batch_size=8))
    found = one.seconds(Machine(num_replicas=np.array([8, 9])))
    assert np.isfinite(found).tolist() == [True, False]


def test_a_law_that_wants_ever_larger_batches_needs_a_largest_one():
    law = ConvergenceLaw(min_steps=-3, min_examples=1e5)
    with pytest.raises(InputError, match="ever larger batches"):
        job(convergence=law)
    one = job(convergence=law, limits=BatchLimits(max_batch_size=1000))
    assert one.batch_size(Machine(num_replicas=2)) == 1000


def test_no_candidate_within_the_largest_batch_cannot_be_served():
    limits = BatchLimits(candidates=[256, 512], max_batch_size=128)
    assert float(job(limits=limits).seconds(Machine(num_replicas=4))) == np.inf
