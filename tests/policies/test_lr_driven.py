"""Decay exchanged for growth, followed by the examples read."""

import math

import pytest
from policies.example_runs import clock, follow

from rightbatch.lr_scaling import named_schedule
from rightbatch.policies import ConvexRamp, Observation, Seesaw

START = {"initial_batch_size": 64, "total_steps": 1000}
EXAMPLES = 64_000


def at(policy, examples):
    seen = Observation(step=1, examples=examples, batch_size=64)
    return policy.update(None, seen)[0]


def run(policy):
    """Return steps, examples and the sum of rates of a run to the last example."""
    steps = examples = rates = 0.0
    while examples < EXAMPLES - 1e-6:
        decision = at(policy, examples)
        step = min(1.0, (EXAMPLES - examples) / decision.batch_size)
        steps, rates = steps + step, rates + step * decision.lr_factor
        examples += step * decision.batch_size
    return steps, rates


@pytest.mark.parametrize(
    ("normalised", "power"), [(True, 0.5), (False, 0.0)], ids=["seesaw", "smith"]
)
def test_a_cut_of_the_rate_by_four_is_a_batch_of_four_times(normalised, power):
    cut = named_schedule("step:factor=4,num=2")
    policy = Seesaw(schedule=cut, normalised=normalised, **START)
    for stage, examples in enumerate((0.0, 0.5 * EXAMPLES, 0.9 * EXAMPLES)):
        decision = at(policy, examples)
        assert decision.batch_size == pytest.approx(64 * 4**stage)
        assert decision.lr_factor == pytest.approx(4 ** (-stage * power))


def test_past_the_largest_batch_the_rate_decays_instead():
    cut = named_schedule("step:factor=4,num=1")
    policy = Seesaw(schedule=cut, normalised=False, max_batch_size=128, **START)
    late = at(policy, 0.9 * EXAMPLES)
    assert late.batch_size == pytest.approx(128)
    assert late.lr_factor == pytest.approx(0.5)


def test_the_run_takes_the_steps_that_the_exchange_promises():
    policy = Seesaw(schedule=named_schedule("cosine"), max_batch_size=1024, **START)
    steps, _ = run(policy)
    assert steps == pytest.approx(policy.growth.steps, rel=0.02)
    assert steps < 800


def test_the_batch_of_linear_decay_on_a_convex_loss_is_constant():
    policy = ConvexRamp(schedule=named_schedule("linear"), **START)
    for share in (0.0, 0.3, 0.6, 0.9):
        decision = at(policy, share * EXAMPLES)
        assert decision.batch_size == pytest.approx(64, rel=0.01)
        assert decision.lr_factor == 1


def test_the_batch_of_a_constant_rate_rises_as_one_over_the_root_of_what_is_left():
    policy = ConvexRamp(
        schedule=named_schedule("constant"), max_batch_size=1000, **START
    )
    # B ~ 1/sqrt(1 - t), of which shares 1 - sqrt(1 - t) are read at t.
    for t in (0.2, 0.5, 0.8, 0.95):
        decision = at(policy, (1 - math.sqrt(1 - t)) * EXAMPLES)
        wanted = 64 / math.sqrt(1 - t)
        assert decision.batch_size == pytest.approx(wanted, rel=0.07)


def test_neither_needs_a_measurement_or_a_memory():
    for policy in (
        Seesaw(schedule=named_schedule("cosine"), **START),
        ConvexRamp(schedule=named_schedule("cosine"), **START),
    ):
        assert policy.needs == frozenset()
        assert policy.init() is None
        assert all(one.lr_factor > 0 for one in follow(policy, clock(5)))


@pytest.mark.parametrize("kind", [Seesaw, ConvexRamp])
def test_values_out_of_range_are_refused(kind):
    schedule = named_schedule("cosine")
    with pytest.raises(ValueError, match=f"{kind.__name__}: `initial_batch_size` must"):
        kind(initial_batch_size=0, schedule=schedule, total_steps=10)
    with pytest.raises(ValueError, match="grow: `total_steps` must be positive"):
        kind(initial_batch_size=8, schedule=schedule, total_steps=0)
    with pytest.raises(ValueError, match="grow: `max_batch_size` must be >= `batch_s"):
        kind(initial_batch_size=8, schedule=schedule, total_steps=10, max_batch_size=4)
