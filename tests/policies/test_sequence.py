"""One policy until a point of the run, then another."""

import pytest
from policies.example_runs import clock, sizes

from rightbatch.errors import InputError
from rightbatch.policies import AdaDamp, Constant, InTurn, Observation, needs_now

TWO = (Constant(batch_size=8), AdaDamp(initial_batch_size=16))


@pytest.mark.parametrize(
    ("unit", "until", "column"),
    [
        ("step", 2, {}),
        ("example", 16, {}),
        ("epoch", 1.5, {"epoch": [0.0, 1.0, 2.0, 3.0]}),
        ("token", 150, {"tokens": [0.0, 100.0, 200.0, 300.0]}),
    ],
)
def test_each_has_its_turn_and_a_fresh_memory(unit, until, column):
    policy = InTurn(policies=TWO, until=(until,), unit=unit)
    seen = clock(4, eval_loss=[9.0, 8.0, 4.0, 1.0], **column)
    # AdaDamp's first loss is that of its first turn.
    assert sizes(policy, seen) == [8, 8, 16, 64]


def test_only_the_one_whose_turn_it_is_looks():
    policy = InTurn(policies=TWO, until=(10,), unit="epoch")
    assert policy.needs == {"epoch", "eval_loss"}
    early = Observation(step=5, examples=5, batch_size=1, epoch=1.0)
    late = Observation(step=500, examples=500, batch_size=1, epoch=10.0)
    assert needs_now(policy, policy.init(), early) == {"epoch"}
    assert needs_now(policy, policy.init(), late) == {"epoch", "eval_loss"}


def test_a_turn_that_is_over_is_passed_by_and_an_unknown_position_changes_nothing():
    policies = tuple(Constant(batch_size=size) for size in (1, 2, 3))
    policy = InTurn(policies=policies, until=(5, 10), unit="epoch")
    assert sizes(policy, clock(4, epoch=[None, 0.0, 12.0, None])) == [1, 1, 3, 3]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"until": ()}, "`until` must be one less than `policies`, .* got 0 and 2"),
        ({"policies": TWO[:1], "until": ()}, "of which there are two or more"),
        ({"policies": (*TWO, *TWO), "until": (1, 3, 2)}, "in order, got 3 then 2"),
        ({"until": (-1,)}, "InTurn: `until` must be positive, got -1"),
        ({"unit": "hour"}, "InTurn: `unit` cannot be 'hour'"),
        ({"policies": (TWO[0], 64)}, "InTurn: `policy` must have needs"),
    ],
)
def test_turns_that_are_none_are_refused(settings, rule):
    with pytest.raises(InputError, match=rule):
        InTurn(**{"policies": TWO, "until": (1,), "unit": "step", **settings})
