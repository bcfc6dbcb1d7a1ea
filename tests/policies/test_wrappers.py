"""Clip, RoundTo, SpillToLr and OnlyGrow: what is done to a wish."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies.example_runs import clock, follow, sizes

from rightbatch.errors import InputError
from rightbatch.policies import (
    UNBOUNDED,
    AdaDamp,
    Clip,
    Constant,
    GeoDampLR,
    OnlyGrow,
    PadaDamp,
    RoundTo,
    Schedule,
    SpillToLr,
    needs_now,
)

wishes = st.floats(1e-3, 1e7)


def wishing(*values):
    """Return a policy that wishes for these, one update after the other."""
    return Schedule(points=tuple(enumerate(values)), unit="step")


@given(wish=wishes, ends=st.tuples(wishes, wishes).map(sorted))
def test_a_clipped_wish_lies_between_the_ends_and_is_itself_where_it_can_be(wish, ends):
    low, high = ends
    (batch,) = sizes(Clip(Constant(batch_size=wish), low=low, high=high), clock(1))
    assert batch == min(max(wish, low), high)


def test_a_clip_says_that_it_clips():
    found = follow(Clip(wishing(1, 10, 99), low=2, high=50), clock(3))
    assert [one.reason for one in found] == [
        "step 0, at least 2",
        "step 1",
        "step 2, at most 50",
    ]


@given(wish=wishes, multiple=st.integers(1, 100))
def test_rounded_wishes_are_the_multiples_about_them(wish, multiple):
    policy = Constant(batch_size=wish)
    found = {
        how: sizes(RoundTo(policy, multiple=multiple, how=how), clock(1))[0]
        for how in ("down", "nearest", "up")
    }
    assert all(type(one) is int and one % multiple == 0 for one in found.values())
    assert multiple <= found["down"] <= found["nearest"] <= found["up"]
    assert found["up"] >= wish * (1 - 1e-9)
    assert found["up"] - found["down"] in {0, multiple}
    if wish >= multiple:
        assert found["down"] <= wish * (1 + 1e-9)
        assert abs(found["nearest"] - wish) <= multiple / 2 * (1 + 1e-9)


@given(wish=wishes, multiple=st.integers(1, 100))
def test_rounded_to_powers_of_two_the_ratio_is_at_most_two_and_its_root(wish, multiple):
    policy = Constant(batch_size=wish)
    found = {
        how: sizes(
            RoundTo(policy, multiple=multiple, powers_of_two=True, how=how), clock(1)
        )[0]
        for how in ("down", "nearest", "up")
    }
    for one in found.values():
        assert math.log2(one / multiple).is_integer()
    if wish >= multiple:
        assert 1 - 1e-9 <= wish / found["down"] < 2 * (1 + 1e-9)
        assert 1 - 1e-9 <= found["up"] / wish < 2 * (1 + 1e-9)
        ratio = found["nearest"] / wish
        assert 2**-0.5 - 1e-9 <= ratio <= 2**0.5 + 1e-9


@given(whole=st.integers(1, 10**6), multiple=st.integers(1, 999))
def test_the_last_digits_of_a_whole_wish_do_not_take_it_one_up(whole, multiple):
    wish = whole * multiple
    for off in (-1e-14, 0, 1e-14):
        for how in ("up", "down"):
            policy = RoundTo(Constant(batch_size=1), multiple=multiple, how=how)
            assert policy.rounded(wish * (1 + off)) == wish


@given(wish=wishes, cap=wishes)
def test_batch_and_rate_past_the_cap_have_the_ratio_of_the_wish(wish, cap):
    (found,) = follow(SpillToLr(Constant(batch_size=wish), cap=cap), clock(1))
    assert found.batch_size == min(wish, cap)
    assert found.lr_factor <= 1
    if wish >= cap:
        assert found.lr_factor / found.batch_size == pytest.approx(1 / wish)
    else:
        assert found.lr_factor == 1


def test_what_spilled_is_undone_when_the_cap_releases():
    found = follow(SpillToLr(wishing(8, 64, 16, 8), cap=16), clock(4))
    assert [one[:2] for one in found] == [(8, 1), (16, 0.25), (16, 1), (8, 1)]
    assert found[1].reason == "step 1, cap 16"


def test_an_unbounded_wish_leaves_the_rate_as_it_was():
    policy = SpillToLr(AdaDamp(initial_batch_size=8, best_loss=1.0), cap=16)
    found = follow(policy, clock(5, eval_loss=[2.0, 1.125, 0.5, 1.5, 1.0]))
    assert [one[:2] for one in found] == [
        (8, 1),
        (16, 0.25),
        (16, 0.25),
        (16, 1),
        (16, 1),
    ]
    at_once = follow(SpillToLr(Constant(batch_size=UNBOUNDED), cap=16), clock(1))
    assert at_once[0][:2] == (16, 1)


def test_a_spill_multiplies_the_policy_s_own_factor():
    policy = SpillToLr(GeoDampLR(initial_batch_size=32, delay=1), cap=16)
    found = follow(policy, clock(2, epoch=[0.0, 1.0]))
    assert [one.lr_factor for one in found] == [0.5, 0.25]


@given(values=st.lists(wishes, min_size=1, max_size=20))
def test_what_only_grows_is_the_largest_so_far(values):
    found = sizes(OnlyGrow(wishing(*values)), clock(len(values)))
    assert found == [max(values[: k + 1]) for k in range(len(values))]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda policy: Clip(policy, high=9),
        lambda policy: RoundTo(policy, multiple=2),
        lambda policy: SpillToLr(policy, cap=9),
        OnlyGrow,
    ],
)
def test_wrappers_need_what_the_policy_inside_needs(wrap):
    policy = wrap(AdaDamp(initial_batch_size=8))
    assert policy.needs == {"eval_loss"}
    assert needs_now(policy, policy.init(), clock(1)[0]) == {"eval_loss"}


def test_wrappers_nest():
    policy = RoundTo(
        Clip(OnlyGrow(PadaDamp(initial_batch_size=8, rate=9)), high=40), multiple=16
    )
    assert sizes(policy, clock(5)) == [16, 16, 32, 32, 48]


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (
            lambda one: Clip(one, low=9, high=8),
            "Clip: `low` must be <= `high`, got 9 an",
        ),
        (lambda one: Clip(one, high=0), "Clip: `high` must be positive"),
        (lambda one: Clip(one, low=math.nan), "Clip: `low` must be positive"),
        (lambda one: RoundTo(one, multiple=0), "RoundTo: `multiple` must be a whole"),
        (lambda one: RoundTo(one, multiple=2.5), "RoundTo: `multiple` must be a whole"),
        (lambda one: RoundTo(one, how="off"), "RoundTo: `how` cannot be 'off'"),
        (lambda one: SpillToLr(one, cap=-1), "SpillToLr: `cap` must be positive"),
    ],
)
def test_values_out_of_range_are_refused(make, rule):
    with pytest.raises(InputError, match=rule):
        make(Constant(batch_size=8))


@pytest.mark.parametrize(
    "make", [Clip, RoundTo, OnlyGrow, lambda one: SpillToLr(one, cap=1)]
)
def test_what_is_no_policy_is_not_wrapped(make):
    with pytest.raises(InputError, match="`policy` must have needs, init and update"):
        make(64)


def test_settings_are_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        Clip(Constant(batch_size=8), 2, 9)
    with pytest.raises(TypeError, match="hihg"):
        Clip(Constant(batch_size=8), hihg=9)
