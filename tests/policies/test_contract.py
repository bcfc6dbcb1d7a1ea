"""What a policy is, and what happens to one that is not."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.policies import (
    CLOCK,
    OBSERVABLE,
    Constant,
    Decision,
    Observation,
    ask,
    check_policy,
    needs_now,
    policy_name,
)

START = Observation(step=0, examples=0, batch_size=0)


@dataclass(frozen=True)
class Says:
    """A policy that answers with whatever it was given."""

    answer: object
    needs: object = frozenset()

    def init(self):
        return 0

    def update(self, state, seen):
        return self.answer


def test_clock_and_observables_are_all_fields_of_an_observation():
    names = {one.name for one in dataclasses.fields(Observation)}
    assert names == OBSERVABLE | set(CLOCK)
    assert not OBSERVABLE & set(CLOCK)


def test_all_but_the_clock_may_be_unknown():
    assert all(getattr(START, name) is None for name in OBSERVABLE)
    assert START.num_replicas == 1


def test_a_decision_leaves_the_learning_rate_alone_unless_told():
    assert Decision(64) == (64, 1.0, "")


def test_a_policy_may_remember_anything():
    @dataclass(frozen=True)
    class Counts:
        needs: frozenset[str] = frozenset()

        def init(self):
            return ()

        def update(self, state, seen):
            return Decision(1 + len(state)), (*state, seen.step)

    policy = Counts()
    state = policy.init()
    for step in range(3):
        seen = Observation(step=step, examples=step, batch_size=1)
        decision, state = ask(policy, state, seen)
    assert decision.batch_size == 3
    assert state == (0, 1, 2)


def test_numbers_of_numpy_become_plain_ones():
    answer = (Decision(np.int64(8), np.float32(0.5)), 1)
    decision, state = ask(Says(answer), 0, START)
    assert (type(decision.batch_size), type(decision.lr_factor)) == (int, float)
    assert state == 1


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, 0, -3.0, None, "64", True, np.float64("nan")]
)
@pytest.mark.parametrize("name", ["batch_size", "lr_factor"])
def test_a_number_that_cannot_be_used_names_the_policy_and_the_step(name, value):
    decision = Decision(8)._replace(**{name: value})
    seen = Observation(step=7, examples=56, batch_size=8)
    rule = rf"^Says: `{name}` must be positive and finite, got .* at step 7\.$"
    with pytest.raises(InputError, match=rule):
        ask(Says((decision, 0)), 0, seen)


@pytest.mark.parametrize("answer", [64, Decision(64), (64, 0), (64, 1.0, ""), None])
def test_an_answer_that_is_no_decision_with_a_state_is_refused(answer):
    with pytest.raises(InputError, match="Says: `update` must return a Decision and"):
        ask(Says(answer), 0, START)


def test_what_a_policy_needs_is_told_without_the_clock():
    policy = Says(None, needs=frozenset({"step", "eval_loss"}))
    assert check_policy("simulate", policy) == {"eval_loss"}


def test_a_need_that_nobody_observes_is_refused_with_the_near_name():
    policy = Says(None, needs=frozenset({"eval_los"}))
    with pytest.raises(InputError, match="`needs of Says` cannot be 'eval_los'.*eval_"):
        check_policy("simulate", policy)


@pytest.mark.parametrize("needs", ["eval_loss", ["eval_loss"], None])
def test_needs_that_are_no_set_are_refused(needs):
    with pytest.raises(InputError, match="`needs` of Says must be a frozenset"):
        check_policy("simulate", Says(None, needs=needs))


def test_a_class_in_place_of_a_policy_is_refused():
    with pytest.raises(InputError, match="simulate: `policy` must be a policy, got th"):
        check_policy("simulate", Constant)


def test_a_number_in_place_of_a_policy_is_refused():
    with pytest.raises(InputError, match="got 64 without needs and init and update"):
        check_policy("simulate", 64)


def test_a_policy_is_called_by_its_class():
    assert policy_name(Constant(batch_size=2)) == "Constant"


def test_what_a_policy_looks_at_next_is_all_it_needs_unless_it_says_less():
    policy = Says(None, needs={"step", "eval_loss"})
    assert needs_now(policy, 0, START) == {"eval_loss"}

    @dataclass(frozen=True)
    class Sparse(Says):
        def needs_now(self, state, seen):
            return frozenset({"eval_loss"} if seen.step % 2 else ())

    sparse = Sparse(None, needs=frozenset({"eval_loss"}))
    later = dataclasses.replace(START, step=1)
    assert needs_now(sparse, 0, START) == frozenset()
    assert needs_now(sparse, 0, later) == {"eval_loss"}
