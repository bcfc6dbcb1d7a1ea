"""The batch of the most progress per second, beside a search over all of them."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies.example_runs import at_noise, follow

from rightbatch.errors import InputError
from rightbatch.policies import Planned
from rightbatch.step_time import ConstantCommunication, StepTimeLaw

START = {"initial_batch_size": 8}


@dataclass(frozen=True)
class Kinked:
    """Step times of no known law: a fixed part and a slow half past 100 examples."""

    def seconds_per_step(self, batch_size, num_replicas=1):
        local = np.asarray(batch_size, dtype=float) / num_replicas
        return 0.05 + 1e-3 * local + 2e-3 * np.maximum(local - 100, 0)


def goodput(step_time, phi, batch, replicas, initial=8):
    """Return throughput times statistical efficiency (Pollux)."""
    seconds = step_time.seconds_per_step(batch, replicas)
    return batch / seconds * (phi + initial) / (phi + batch)


@given(
    phi=st.floats(1, 1e4),
    delta=st.floats(1e-3, 1),
    gamma=st.floats(1e-5, 1e-2),
    knee=st.floats(1, 100),
    replicas=st.integers(2, 64),
)
def test_the_formula_of_perrone_and_the_most_goodput_are_one(
    phi, delta, gamma, knee, replicas
):
    law = StepTimeLaw(
        seconds_per_example=gamma,
        saturation_batch_size=knee,
        communication=ConstantCommunication(seconds=delta),
    )
    found = Planned(**START, step_time=law).batch_size_for(phi, replicas)
    by_hand = max(math.sqrt(phi * delta * replicas / gamma), knee * replicas)
    assert found == pytest.approx(by_hand)
    others = found * np.geomspace(0.05, 20, 201)
    best = goodput(law, phi, found, replicas)
    assert best >= goodput(law, phi, others, replicas).max() * (1 - 1e-9)


@settings(max_examples=20)
@given(phi=st.floats(1, 1e4), replicas=st.integers(1, 4))
def test_for_any_step_times_no_whole_batch_has_more_goodput(phi, replicas):
    policy = Planned(**START, step_time=Kinked(), max_batch_size=2000)
    found = policy.batch_size_for(phi, replicas)
    # What is served: the largest share sets the pace.
    every = np.arange(replicas, 2001)
    shares = np.ceil(every / replicas) * replicas
    seconds = Kinked().seconds_per_step(shares, replicas)
    best = every[np.argmax(every / seconds / (phi + every))]
    assert found == best


def test_a_plan_is_kept_while_noise_and_replicas_stay():
    asked = []

    class Counting(Kinked):
        def seconds_per_step(self, batch_size, num_replicas=1):
            asked.append(1)
            return super().seconds_per_step(batch_size, num_replicas)

    policy = Planned(**START, step_time=Counting(), max_batch_size=2000)
    decisions = follow(policy, at_noise(None, 100.0, 100.0, None, 100.0))
    once = len(asked)
    assert once > 0
    assert len({one.batch_size for one in decisions[1:]}) == 1
    policy.batch_size_for(100.0)
    assert len(asked) == 2 * once


def test_the_factor_turns_a_noise_scale_into_a_critical_batch_size():
    plain = Planned(**START, step_time=Kinked(), max_batch_size=2000)
    scaled = Planned(**START, step_time=Kinked(), max_batch_size=2000, factor=3)
    assert scaled.batch_size_for(100) == plain.batch_size_for(300)


def test_without_noise_the_knee_is_left():
    law = StepTimeLaw(seconds_per_example=1e-3, saturation_batch_size=20)
    assert Planned(**START, step_time=law).batch_size_for(0.0, 2) == 40


@pytest.mark.parametrize(
    "step_time",
    [
        Kinked(),
        StepTimeLaw(
            seconds_per_example=0, saturation_batch_size=1, overhead_seconds=0.1
        ),
        StepTimeLaw(
            seconds_per_example=1e-3,
            saturation_batch_size=1,
            overlap_exponent=2,
            communication=ConstantCommunication(seconds=0.1),
        ),
    ],
)
def test_step_times_without_a_formula_need_a_largest_batch(step_time):
    with pytest.raises(
        InputError, match="`max_batch_size` must be given for such step"
    ):
        Planned(**START, step_time=step_time)
    policy = Planned(**START, step_time=step_time, max_batch_size=500)
    assert 1 <= policy.batch_size_for(50.0, 2) <= 500


@pytest.mark.parametrize(
    ("settings_", "rule"),
    [
        ({"initial_batch_size": 0}, "Planned: `initial_batch_size` must be positive"),
        ({"factor": 0}, "Planned: `factor` must be positive"),
        ({"max_batch_size": 0}, "Planned: `max_batch_size` must be a whole number"),
    ],
)
def test_values_out_of_range_are_refused(settings_, rule):
    with pytest.raises(ValueError, match=rule):
        Planned(**{**START, "step_time": Kinked(), **settings_})
