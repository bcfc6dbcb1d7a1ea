"""Memory and identity of every policy survive JSON."""

import json
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies.example_runs import WRAPPED, every_policy, odd_runs

from rightbatch.errors import InputError
from rightbatch.policies import (
    OBSERVABLE,
    AdaDamp,
    Constant,
    Decision,
    Dwell,
    NoiseFollowing,
    ask,
    check_policy,
    needs_now,
    pack_state,
    policy_name,
    policy_signature,
    unpack_state,
)

POLICIES = every_policy()
each_policy = pytest.mark.parametrize(
    "policy", POLICIES, ids=[f"{k}-{policy_name(p)}" for k, p in enumerate(POLICIES)]
)


def through_json(packed):
    return json.loads(json.dumps(packed, allow_nan=False))


@each_policy
@settings(max_examples=30, deadline=None)
@given(run=odd_runs, stop=st.integers(0, 14))
def test_a_run_that_was_saved_goes_on_as_if_it_had_not_been(policy, run, stop):
    """What is seen may be unknown, odd or missing: every answer is usable as well."""
    state, restored = policy.init(), None
    for seen in run:
        assert needs_now(policy, state, seen) <= check_policy("test", policy)
        if seen.step == stop:
            packed = through_json(pack_state(state))
            restored = unpack_state(policy, packed)
            assert restored == state
        decision, state = ask(policy, state, seen)
        if restored is not None:
            same, restored = ask(policy, restored, seen)
            assert same == decision
    assert through_json(pack_state(state)) == pack_state(state)


FREE = {"epoch", "tokens", "seconds", "dataset_size"}


@each_policy
@settings(max_examples=30)
@given(run=odd_runs)
def test_what_a_policy_says_it_will_not_look_at_makes_no_difference(policy, run):
    state = policy.init()
    for seen in run:
        clock_only = without(seen, OBSERVABLE - FREE)
        looks = needs_now(policy, state, clock_only)
        decision, after = policy.update(state, seen)
        assert policy.update(state, without(seen, OBSERVABLE - looks)) == (
            decision,
            after,
        )
        state = after


def without(seen, names):
    return replace(seen, **dict.fromkeys(names))


def test_signatures_survive_json_and_no_two_are_the_same():
    signatures = [policy_signature(policy) for policy in POLICIES]
    texts = [json.dumps(one, sort_keys=True) for one in signatures]
    assert [json.loads(text) for text in texts] == signatures
    assert len(set(texts)) == len(texts)


def test_a_signature_names_the_policies_inside():
    found = policy_signature(WRAPPED[7])
    assert found["class"] == "Dwell"
    assert found["policy"]["policy"]["class"] == "OnlyIfSure"
    inside = found["policy"]["policy"]["policy"]
    assert inside == {"class": "NoiseFollowing", "initial_batch_size": 8, "factor": 1.0}


def test_equal_policies_have_equal_signatures_and_other_settings_others():
    one = policy_signature(NoiseFollowing(initial_batch_size=8))
    assert one == policy_signature(NoiseFollowing(initial_batch_size=np.int64(8)))
    assert one != policy_signature(NoiseFollowing(initial_batch_size=8, factor=2))


class Tally(NamedTuple):
    count: int
    pair: tuple[float, float]


@dataclass(frozen=True)
class Tallies:
    """A user's policy, whose memory is a named tuple."""

    sizes: object = (1, {"a": np.array([1.0, 2.0])})
    needs: frozenset[str] = frozenset({"lr"})

    def init(self):
        return Tally(0, (1.0, 2.0))

    def update(self, state, seen):
        return Decision(8), state._replace(count=state.count + 1)


class Bare:
    """A policy that is no dataclass."""

    needs = frozenset()

    def init(self):
        return None

    def update(self, state, seen):
        return Decision(8), state


def test_named_tuples_of_users_come_back_as_such():
    state = Tally(np.int64(3), (0.1, np.float32(0.5)))
    packed = json.loads(json.dumps(pack_state(state)))
    assert packed == [3, [0.1, 0.5]]
    restored = unpack_state(Tallies(), packed)
    assert isinstance(restored, Tally)
    assert restored == Tally(3, (0.1, 0.5))


def test_policies_of_users_are_described_as_far_as_they_tell():
    assert policy_signature(Bare()) == {"class": "Bare"}
    assert policy_signature(Tallies()) == {
        "class": "Tallies",
        "sizes": [1, {"a": [1.0, 2.0]}],
        "needs": ["lr"],
    }
    assert policy_signature(Tallies(sizes=np.sum))["sizes"] == "sum"


@pytest.mark.parametrize("state", [{"a": 1}, (1, object()), [{1}]])
def test_a_memory_that_json_does_not_have_is_refused(state):
    with pytest.raises(InputError, match="a policy's memory must be numbers, strings"):
        pack_state(state)


def test_a_state_at_the_start_is_that_of_init():
    for policy in (
        Constant(batch_size=8),
        Dwell(AdaDamp(initial_batch_size=8), updates=2),
    ):
        state = policy.init()
        assert unpack_state(policy, pack_state(state)) == state


INF = float("inf")


def test_an_interval_without_an_upper_end_survives_strict_json():
    state = (INF, (-INF, "inf", 1e308), np.float32(INF), [2, INF])
    packed = through_json(pack_state(state))
    assert unpack_state(Bare(), packed) == (INF, (-INF, "inf", 1e308), INF, (2, INF))


def test_what_is_not_a_number_stays_so_in_strict_json():
    packed = through_json(pack_state((1.0, float("nan"))))
    first, second = unpack_state(Bare(), packed)
    assert first == 1.0
    assert np.isnan(second)


def test_a_setting_without_an_end_has_a_signature_in_strict_json():
    found = policy_signature(Tallies(sizes=(INF, -INF)))
    assert through_json(found) == found
    assert found != policy_signature(Tallies(sizes=(INF, INF)))
