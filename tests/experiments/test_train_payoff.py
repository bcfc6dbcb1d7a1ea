"""Whether a growing batch paid, on made-up runs of which it is known."""

import math

import numpy as np
import pytest
from experiments.example_trainings import evaluated, run_of
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.experiments.train_payoff import Spread, compare, reach
from rightbatch.experiments.train_pricing import price_run
from rightbatch.step_time import StepTimeLaw

# On one replica the time is that of the examples; the fixed cost counts on many.
LAW = StepTimeLaw(
    seconds_per_example=1e-3, saturation_batch_size=1, overhead_seconds=0.01
)
REPLICAS = (1, 8)


def falling(examples, rate=1e-3, floor=0.0):
    """Return a loss that depends on the examples alone."""
    return [floor + 2.0 * math.exp(-rate * e) for e in examples]


def run_to(policy, batches, seed=0, rate=1e-3):
    places = np.concatenate([[0], np.cumsum(batches)])
    return run_of(batches, falling(places, rate), policy=policy, seed=seed)


SMALL = [8] * 256  # 2,048 examples
GROWN = [8] * 32 + [64] * 28


def test_fewer_updates_on_the_same_examples_pay_on_many_replicas_and_little_on_one():
    payoff = compare(
        [run_to("grown", GROWN)], [run_to("constant", SMALL)], LAW, REPLICAS
    )
    assert payoff.steps.value == pytest.approx(60 / 256)
    assert payoff.examples.value == pytest.approx(1)
    # By hand: overhead .01 per update, 1 ms per example, divided by 8 on 8 replicas.
    for replicas in REPLICAS:
        mine = 60 * 0.01 + 2048e-3 / replicas
        other = 256 * 0.01 + 2048e-3 / replicas
        assert payoff.seconds[replicas].value == pytest.approx(mine / other)
        assert payoff.pays(replicas) == "yes"
    assert payoff.basis == "lowest"


def test_more_examples_to_the_same_loss_do_not_pay_on_one_replica():
    slow = run_to("grown", [8] * 32 + [64] * 100, rate=3e-4)
    payoff = compare([slow], [run_to("constant", SMALL, rate=2e-3)], LAW, REPLICAS)
    assert payoff.examples.value == pytest.approx(2e-3 / 3e-4, rel=0.02)
    assert payoff.pays(1) == "no"


def test_a_policy_compared_with_itself_neither_wins_nor_pays():
    one = run_to("constant", SMALL)
    payoff = compare([one], [one], LAW, REPLICAS)
    assert payoff.steps == payoff.seconds[8] == Spread(1.0, 1.0, 1.0)
    assert payoff.pays(1) == payoff.pays(8) == "no"


def test_seeds_that_disagree_leave_it_unclear():
    mine = [run_to("grown", GROWN, seed=s, rate=r) for s, r in ((0, 1e-3), (1, 2.5e-4))]
    others = [run_to("constant", SMALL, seed=s) for s in (0, 1)]
    payoff = compare(mine, others, LAW, REPLICAS)
    assert payoff.num_seeds == 2
    assert payoff.seconds[8].low < 1 < payoff.seconds[8].high
    assert payoff.pays(8) == "unclear"


def test_the_target_is_where_they_are_compared_once_all_reached_it():
    runs = [run_to("grown", GROWN)], [run_to("constant", SMALL)]
    at_target = compare(*runs, LAW, REPLICAS, target=0.5)
    assert (at_target.loss, at_target.basis) == (0.5, "target")
    assert at_target.reached == (1, 1)
    expected = math.log(2.0 / 0.5) / 1e-3
    assert at_target.taken.examples == pytest.approx(expected, rel=0.02)
    missed = compare(*runs, LAW, REPLICAS, target=0.01)
    assert (missed.basis, missed.reached) == ("lowest", (0, 0))
    assert missed.loss == pytest.approx(2.0 * math.exp(-2.048))


def test_a_target_that_one_alone_reached_is_said():
    slow = run_to("grown", GROWN, rate=3e-4)
    payoff = compare([slow], [run_to("constant", SMALL)], LAW, REPLICAS, target=0.5)
    assert payoff.reached == (0, 1)
    assert (payoff.basis, payoff.loss) == ("lowest", slow.best_loss)
    assert payoff.misses_target
    assert payoff.pays(8) == "not_reached"
    turned = compare([run_to("constant", SMALL)], [slow], LAW, REPLICAS, target=0.5)
    assert not turned.misses_target
    assert turned.pays(8) in ("yes", "no")


def test_a_run_that_never_improved_is_compared_with_nothing():
    lost = run_of([8, 8], [2.0, 3.0, math.nan], policy="lost")
    payoff = compare([lost], [run_to("constant", SMALL)], LAW, REPLICAS)
    assert payoff.loss is None
    assert payoff.pays(1) == "not_reached"
    assert payoff.to_dict()["seconds"] == []
    nothing = run_of([8], [math.nan, math.nan], policy="lost")
    assert compare([nothing], [nothing], LAW, REPLICAS).loss is None


def test_only_seeds_that_both_have_are_compared():
    mine = [run_to("grown", GROWN, seed=s) for s in (0, 1, 2)]
    payoff = compare(mine, [run_to("constant", SMALL, seed=1)], LAW, REPLICAS)
    assert payoff.num_seeds == 1


def test_a_crossing_lies_on_the_line_between_two_evaluations():
    run = run_of(
        [8] * 10, [2.0] * 11, evaluations=evaluated((0, 0, 2.0), (10, 80, 1.0))
    )
    prices = [price_run(run.trace.batch_sizes, LAW, p) for p in REPLICAS]
    found = reach(run, 1.75, prices)
    assert (found.steps, found.examples) == (2.5, 20)
    assert found.seconds[1] == pytest.approx(2.5 * 0.018)
    assert found.measured_seconds == pytest.approx(0.0025)
    assert reach(run, 0.9) is None
    assert reach(run, 2.5).examples == 0


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=9))
def test_a_spread_holds_its_median_and_every_value(values):
    spread = Spread.of(values)
    assert spread.low == min(values) <= spread.value <= spread.high == max(values)
    assert spread.verdict in ("yes", "no", "unclear")


def test_the_json_form_names_every_number_of_replicas():
    payoff = compare(
        [run_to("grown", GROWN)], [run_to("constant", SMALL)], LAW, REPLICAS
    ).to_dict()
    assert [one["num_replicas"] for one in payoff["seconds"]] == [1, 8]
    assert {"value", "low", "high", "pays", "taken"} <= payoff["seconds"][0].keys()
    assert payoff["taken"]["steps"] == pytest.approx(60)
