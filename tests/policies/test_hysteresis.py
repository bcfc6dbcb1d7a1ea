"""Dwell, Wait, Relative and OnlyIfSure: when a policy may change its mind."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies.example_runs import at_noise, clock, follow, scale, sizes

from rightbatch.errors import InputError
from rightbatch.policies import (
    AdaDamp,
    Clip,
    Constant,
    Dwell,
    ExchangeRate,
    NoiseFollowing,
    PadaDamp,
    Relative,
    Schedule,
    Wait,
    needs_now,
)
from rightbatch.policies import OnlyIfSure as Sure

counting = PadaDamp(initial_batch_size=8, rate=1)


@given(updates=st.integers(1, 9), steps=st.integers(1, 40))
def test_a_policy_that_dwells_is_asked_at_the_multiples(updates, steps):
    found = sizes(Dwell(counting, updates=updates), clock(steps))
    assert found == [8 + k // updates * updates for k in range(steps)]


@given(wait=st.integers(0, 20), dwell=st.integers(1, 6))
def test_dwelling_outside_and_waiting_inside_is_asked_as_adadamp_asks(wait, dwell):
    found = sizes(Dwell(Wait(counting, updates=wait), updates=dwell), clock(40))
    wanted, k_asked = [], 0
    for k in range(40):
        k_asked = k if k >= wait and k % dwell == 0 else k_asked
        wanted.append(8 + k_asked)
    assert found == wanted


def test_where_updates_are_skipped_it_is_asked_at_the_first_past_a_multiple():
    seen = [replace(clock(1)[0], step=step) for step in (3, 4, 9, 11, 20, 29)]
    found = sizes(Dwell(counting, updates=10), seen)
    assert found == [11, 11, 11, 19, 28, 28]


@pytest.mark.parametrize(
    "policy",
    [
        Dwell(AdaDamp(initial_batch_size=8), updates=3),
        Dwell(Clip(AdaDamp(initial_batch_size=8), high=99), updates=3),
        Clip(Dwell(AdaDamp(initial_batch_size=8), updates=3), high=99),
        Wait(Dwell(AdaDamp(initial_batch_size=8), updates=3), updates=2),
    ],
)
def test_what_is_not_looked_at_may_be_missing(policy):
    state, asked = policy.init(), []
    for seen in clock(9, eval_loss=[2 / (1 + k) for k in range(9)]):
        looks = needs_now(policy, state, seen)
        assert looks <= policy.needs == {"eval_loss"}
        told = seen if looks else replace(seen, eval_loss=None)
        decision, state = policy.update(state, told)
        asked.append((seen.step, decision.batch_size) if looks else None)
    assert [one for one in asked if one] == [(0, 8), (3, 32), (6, 56)]


@given(
    wishes=st.lists(st.floats(1, 1e6), min_size=1, max_size=20),
    change=st.floats(0, 2),
)
def test_a_wish_near_the_present_batch_changes_nothing(wishes, change):
    inner = Schedule(points=tuple(enumerate(wishes)), unit="step")
    found = sizes(Relative(inner, change=change), clock(len(wishes)))
    present = wishes[0]
    for wish, batch in zip(wishes, found, strict=True):
        if wish > present * (1 + change) or present > wish * (1 + change):
            present = wish
        assert batch == pytest.approx(present, rel=1e-12)


def on_intervals(policy, *intervals):
    return follow(policy, clock(len(intervals), noise_scale=list(intervals)))


def test_the_batch_changes_only_where_the_interval_excludes_it():
    found = on_intervals(
        Sure(NoiseFollowing(initial_batch_size=64)),
        None,
        scale(150.0, 50.0, 400.0),
        scale(150.0, 90.0, 400.0),
        scale(120.0, 90.0, 400.0),
        scale(100.0, 80.0, 149.0),
    )
    assert [one.batch_size for one in found] == [64, 64, 150, 150, 100]
    assert found[1].reason == "not sure: noise scale 50 to 400"


def test_a_noise_scale_of_at_least_so_much_takes_the_batch_there():
    policy = Sure(NoiseFollowing(initial_batch_size=64))
    found = on_intervals(
        policy, None, scale(None, 50.0, None), scale(None, 200.0, None)
    )
    assert [one.batch_size for one in found] == [64, 64, 200]
    found = on_intervals(policy, None, scale(None, None, 40.0), scale(None, 10.0, 90.0))
    assert [one.batch_size for one in found] == [64, 40, 40]
    assert found[2].reason == "not sure: noise scale 10 to 90"


def test_without_an_end_nothing_is_sure():
    policy = Sure(NoiseFollowing(initial_batch_size=64))
    found = on_intervals(policy, None, scale(9.0), None)
    assert [one.batch_size for one in found] == [64, 64, 64]
    assert found[1].reason == "noise scale unresolved"


def test_the_interval_is_read_through_the_policy_inside():
    policy = Sure(ExchangeRate(initial_batch_size=64, examples_per_update=16))
    # sqrt(16 phi) is 64 at phi = 256.
    found = on_intervals(policy, None, scale(400.0, 200.0, 900.0))
    assert found[1].batch_size == 64
    found = on_intervals(policy, None, scale(400.0, 300.0, 900.0))
    assert found[1].batch_size == 80


@given(
    truth=st.floats(1, 1e4),
    errors=st.lists(st.floats(-0.4, 0.4), min_size=5, max_size=30),
)
def test_a_noise_scale_that_stays_moves_the_batch_once_at_most(truth, errors):
    intervals = []
    for error in errors:
        value = truth * (1 + error)
        # Covers the truth, and so whatever batch was read off the first.
        intervals.append(scale(value, value / 3, value * 3))
    policy = Sure(NoiseFollowing(initial_batch_size=0.001))
    assert len({one.batch_size for one in on_intervals(policy, *intervals)}) == 1


def test_while_a_dwell_inside_holds_nothing_changes():
    policy = Sure(Dwell(NoiseFollowing(initial_batch_size=64), updates=2))
    # Asked at 0, 2 and 4; at 2 the policy inside moves to 150, and nobody is sure.
    wide = [scale(150.0, 50.0 + k, 400.0) for k in range(3)]
    found = on_intervals(policy, None, *wide, scale(150.0, 90.0, 400.0))
    assert [one.batch_size for one in found] == [64, 64, 64, 64, 150]


def test_a_policy_that_comes_in_later_compares_with_the_batch_it_finds():
    policy = Sure(NoiseFollowing(initial_batch_size=64))
    seen = clock(3, noise_scale=[scale(9.0, 7.0, 12.0)] * 3)[2]
    decision, _ = policy.update(policy.init(), seen)
    assert decision.batch_size == seen.batch_size == 8


def test_only_the_noise_scale_has_an_interval():
    with pytest.raises(
        InputError, match="must follow the noise scale, got AdaDamp.*int"
    ):
        Sure(AdaDamp(initial_batch_size=8))
    assert Sure(NoiseFollowing(initial_batch_size=8)).needs == {"noise_scale"}


def test_known_noise_is_followed_to_the_letter():
    policy = Sure(NoiseFollowing(initial_batch_size=64))
    assert sizes(policy, at_noise(None, 9.0, 10.0)) == [64, 9, 10]


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda one: Dwell(one, updates=0), "Dwell: `updates` must be a whole number"),
        (
            lambda one: Dwell(one, updates=1.5),
            "Dwell: `updates` must be a whole number",
        ),
        (lambda one: Wait(one, updates=-1), "Wait: `updates` must not be negative"),
        (
            lambda one: Relative(one, change=-1),
            "Relative: `change` must not be negativ",
        ),
        (lambda _: Dwell(8, updates=1), "Dwell: `policy` must have needs"),
        (lambda _: Wait(8, updates=1), "Wait: `policy` must have needs"),
        (lambda _: Relative(8), "Relative: `policy` must have needs"),
        (lambda _: Sure(8), "OnlyIfSure: `policy` must have needs"),
    ],
)
def test_values_out_of_range_are_refused(make, rule):
    with pytest.raises(InputError, match=rule):
        make(Constant(batch_size=8))


def test_an_interval_that_is_told_again_is_not_looked_at_twice():
    policy = Sure(NoiseFollowing(initial_batch_size=64))
    state, decisions = policy.init(), []
    for seen in clock(4, noise_scale=[None, *[scale(150.0, 90.0, 400.0)] * 3]):
        decision, state = policy.update(state, seen)
        decisions.append((decision, state))
    assert decisions[1] == decisions[2] == decisions[3]
    assert decisions[1][0].batch_size == 150
