"""Policies that follow the noise scale, each by its formula, and unresolved noise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies.example_runs import at_noise, clock, follow, scale, sizes

from rightbatch.convergence import ConvergenceLaw
from rightbatch.noise_scale import GradientMoments, half_batch_similarity
from rightbatch.policies import (
    Diversity,
    DoublingWarmup,
    EfficiencyFloor,
    ExchangeRate,
    NoiseFollowing,
    NormTest,
    Observation,
    Planned,
    Similarity,
)
from rightbatch.step_time import StepTimeLaw

phis = st.floats(1e-2, 1e6)
START = {"initial_batch_size": 8}
STEP_TIME = StepTimeLaw(
    seconds_per_example=1e-3, saturation_batch_size=4, overhead_seconds=0.02
)
FOLLOWERS = [
    NoiseFollowing(**START, factor=2),
    ExchangeRate(**START, examples_per_update=64),
    EfficiencyFloor(**START, efficiency=0.8),
    EfficiencyFloor(**START, efficiency=0.8, from_initial=True),
    Diversity(**START),
    Similarity(**START),
    NormTest(**START),
    Planned(**START, step_time=STEP_TIME),
]
each_follower = pytest.mark.parametrize("policy", FOLLOWERS, ids=str)


def wish(policy, phi, **others):
    seen = Observation(
        step=9, examples=72, batch_size=8, noise_scale=scale(phi, phi, phi), **others
    )
    return policy.update(policy.init(), seen)[0].batch_size


@given(phi=phis, factor=st.floats(0.01, 100))
def test_following_is_proportional(phi, factor):
    assert wish(NoiseFollowing(**START, factor=factor), phi) == factor * phi


@given(phi=phis, rate=st.floats(0.1, 1e4))
def test_at_the_exchange_rate_no_other_batch_is_cheaper(phi, rate):
    best = wish(ExchangeRate(**START, examples_per_update=rate), phi)
    law = ConvergenceLaw(min_steps=1.0, min_examples=phi)
    nearby = best * np.geomspace(0.1, 10, 301)
    cost = law.steps(nearby) * (nearby + rate)
    assert law.steps(best) * (best + rate) <= cost.min() * (1 + 1e-9)


@given(phi=phis, efficiency=st.floats(0.05, 0.95), initial=st.floats(0.1, 100))
def test_the_efficiency_at_the_floor_is_the_one_asked_for(phi, efficiency, initial):
    law = ConvergenceLaw(min_steps=1.0, min_examples=phi)
    for from_initial, reference in ((False, 1e-9), (True, initial)):
        policy = EfficiencyFloor(
            initial_batch_size=initial,
            efficiency=efficiency,
            from_initial=from_initial,
        )
        batch = wish(policy, phi)
        # Examples in the reference batch over those at the floor.
        examples = law.steps(reference) * reference, law.steps(batch) * batch
        assert examples[0] / examples[1] == pytest.approx(efficiency, rel=1e-6)


@given(phi=phis, similarity=st.floats(0.05, 0.95))
def test_halves_of_the_batch_agree_as_asked(phi, similarity):
    batch = wish(Similarity(**START, similarity=similarity), phi)
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=phi)
    assert half_batch_similarity(moments, batch) == pytest.approx(similarity)


@given(gradients=st.lists(st.floats(1, 10), min_size=2, max_size=20))
def test_diversity_is_that_of_the_gradients_themselves(gradients):
    g = np.array(gradients)
    phi = g.var() / g.mean() ** 2
    by_hand = g.size * (g**2).sum() / g.sum() ** 2
    assert wish(Diversity(**START, share=0.5), phi) == pytest.approx(0.5 * by_hand)


@given(phi=phis, theta=st.floats(0.1, 3))
def test_the_batch_just_passes_the_norm_test(phi, theta):
    batch = wish(NormTest(**START, theta=theta), phi)
    # E|g_B - G|^2 = tr Sigma/B, beside theta^2 |G|^2 with |G|^2 = 1.
    assert phi / batch == pytest.approx(theta**2)


@given(phi=phis, theta=st.floats(0.1, 0.9))
def test_a_plug_in_norm_test_stops_short_by_the_share_of_noise_it_takes_for_signal(
    phi, theta
):
    # Its own fixed point: B = phi_B/theta^2 with |g_B|^2 = 1 + phi/B for |G|^2.
    batch = wish(NormTest(**START, theta=theta), phi)
    short = phi * (1 - theta**2) / theta**2
    assert phi / (1 + phi / short) / theta**2 == pytest.approx(short)
    assert short == pytest.approx(batch * (1 - theta**2))


@each_follower
def test_noise_that_is_not_resolved_leaves_the_batch(policy):
    first = follow(policy, at_noise(None, 100.0, None, None))
    known = first[1].batch_size
    assert [one.batch_size for one in first] == [8, known, known, known]
    assert known != 8
    assert [one.reason for one in first[::2]] == ["start", "noise scale unresolved"]


@each_follower
@pytest.mark.parametrize("value", [None, -5.0, math.nan, math.inf])
def test_an_estimate_that_is_none_is_not_followed(policy, value):
    seen = clock(2, noise_scale=[None, scale(value, 3.0, None)])
    assert sizes(policy, seen) == [8, 8]


@each_follower
def test_a_policy_that_comes_in_later_leaves_the_batch_it_finds(policy):
    seen = Observation(step=50, examples=2000, batch_size=40)
    assert policy.update(policy.init(), seen)[0].batch_size == 40


@each_follower
def test_without_noise_a_batch_can_still_be_asked_for(policy):
    assert wish(policy, 0.0) > 0


@each_follower
def test_only_the_noise_scale_is_looked_at(policy):
    assert policy.needs == {"noise_scale"}


def test_the_reason_is_the_number_that_decided():
    policy = NoiseFollowing(**START)
    assert follow(policy, at_noise(118.4))[0].reason == "noise scale 118"


def test_doubling_waits_until_the_interval_lies_above_twice_the_batch():
    lows = [None, 15.0, 16.0, 17.0, 40.0, 5.0, 1000.0]
    seen = clock(7, noise_scale=[one and scale(None, one, None) for one in lows])
    decisions = follow(DoublingWarmup(**START), seen)
    assert [one.batch_size for one in decisions] == [8, 8, 8, 16, 32, 32, 64]
    assert decisions[5].reason == "noise scale may be 5"


@pytest.mark.parametrize(
    ("kind", "settings", "rule"),
    [
        (NoiseFollowing, {"factor": 0}, "NoiseFollowing: `factor` must be positive"),
        (
            ExchangeRate,
            {"examples_per_update": -1},
            "ExchangeRate: `examples_per_update` must be positive",
        ),
        (EfficiencyFloor, {"efficiency": 1}, "`efficiency` must be between 0 and 1, g"),
        (Diversity, {"share": 0}, "Diversity: `share` must be positive"),
        (Similarity, {"similarity": 1}, "Similarity: `similarity` must be between 0 a"),
        (NormTest, {"theta": 0}, "NormTest: `theta` must be positive"),
    ],
)
def test_values_out_of_range_are_refused(kind, settings, rule):
    with pytest.raises(ValueError, match=rule):
        kind(**START, **settings)


@pytest.mark.parametrize(
    "kind", [NoiseFollowing, EfficiencyFloor, Diversity, Similarity, DoublingWarmup]
)
def test_an_initial_batch_of_none_is_refused(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}: `initial_batch_size` must"):
        kind(initial_batch_size=0)
