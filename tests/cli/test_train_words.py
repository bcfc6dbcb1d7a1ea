"""Whether it pays, in words, on made-up comparisons; and documents of made-up runs."""

import json
import math

import numpy as np
import pytest
from experiments.example_trainings import evaluated, run_of

from rightbatch.cli.output import to_plain
from rightbatch.cli.train_policies import (
    make_policies,
    refuse_unmeasured,
    split_policies,
    with_dwell,
)
from rightbatch.cli.train_results import course_of, thinned, train_results
from rightbatch.cli.train_words import payoff_sentence, train_warnings
from rightbatch.errors import InputError
from rightbatch.experiments.train_payoff import Payoff, Spread
from rightbatch.policies import PolicyContext
from rightbatch.simulation import read_trace
from rightbatch.step_time import StepTimeLaw

LAW = StepTimeLaw(
    seconds_per_example=1e-3, saturation_batch_size=1, overhead_seconds=0.01
)


def payoff(one=1.2, eight=0.4, **changes):
    def spread(value):
        return value if isinstance(value, Spread) else Spread(value, value, value)

    settings = {
        "policy": "adadamp",
        "against": "constant",
        "loss": 0.31,
        "basis": "lowest",
        "target": None,
        "reached": (0, 0),
        "num_seeds": 1,
        "steps": spread(0.2),
        "examples": spread(1.1),
        "seconds": {1: spread(one), 8: spread(eight)},
    }
    return Payoff(**(settings | changes))


def said(*payoffs):
    return payoff_sentence(payoffs, (1, 8))


# The sentence -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((0.8, 0.4), "adadamp pays on 1 and 8 replicas: "),
        ((1.2, 0.4), "adadamp pays on 8 replicas, not on 1: "),
        ((0.8, 1.4), "adadamp pays on 1 replica, not on 8: "),
        ((1.2, 1.4), "adadamp does not pay on 1 or 8 replicas: "),
        ((1.0, 0.99), "adadamp does not pay on 1 or 8 replicas: "),
        (
            (Spread(1.0, 0.8, 1.3), 0.4),
            "adadamp pays on 8 replicas, seeds disagree on 1 replica: ",
        ),
        (
            (1.3, Spread(1.0, 0.8, 1.3)),
            "adadamp does not pay on 1 replica, seeds disagree on 8 replicas: ",
        ),
        (
            (Spread(1.0, 0.8, 1.3), Spread(1.0, 0.8, 1.3)),
            "Whether adadamp pays on 1 and 8 replicas is unclear, seeds disagree: ",
        ),
    ],
)
def test_the_answer_comes_first_whichever_it_is(ratios, verdict):
    assert said(payoff(*ratios)).startswith(verdict)


def test_steps_examples_and_seconds_are_all_told():
    assert (
        "to the loss 0.31, the lowest that both reach, it takes 0.2× the updates, "
        "1.1× the examples, 1.2× the seconds on 1 replica and 0.4× on 8 of constant. "
        "One seed does not tell this from chance."
    ) in said(payoff())


def test_seeds_have_their_range():
    several = payoff(1.2, Spread(0.4, 0.35, 0.5), num_seeds=3)
    assert "0.4× (0.35–0.5) on 8 of constant. Medians of 3 seeds." in said(several)


def test_a_target_is_named_where_it_was_reached_and_where_it_was_not():
    at_target = payoff(basis="target", loss=0.15, target=0.15, reached=(1, 1))
    assert ": to the target 0.15 it takes" in said(at_target)
    neither = said(payoff(target=0.15))
    assert "The target 0.15 was not reached by either." in neither
    missed = said(payoff(target=0.15, reached=(0, 1)))
    assert missed.startswith(
        "adadamp does not reach the target 0.15 on these examples, constant does: "
    )
    some = said(payoff(0.5, 0.4, target=0.15, reached=(2, 1), num_seeds=3))
    assert "was reached by 2 of 3 runs of adadamp and by 1 of constant" in some


def test_what_cannot_be_compared_is_said():
    none = payoff(loss=None, steps=None, examples=None, seconds={})
    assert said(none) == (
        "adadamp and constant cannot be compared: there is no loss below the first "
        "that both reach."
    )
    assert said() == ""


def test_of_several_policies_the_best_for_each_number_of_replicas_is_named():
    three = [
        payoff(1.2, 0.4),
        payoff(1.1, 0.3, policy="geodamp"),
        payoff(1.5, 1.2, policy="planned"),
    ]
    assert said(*three) == (
        "Of 3 policies beside constant, none pays on 1 replica, geodamp gains most on "
        "8 replicas (0.3× the seconds to the loss 0.31). One seed does not tell this "
        "from chance."
    )
    missed = payoff(0.5, 0.1, policy="padadamp", target=0.15, reached=(0, 1))
    assert "geodamp gains most" in said(*three, missed)
    assert "1 misses the target 0.15, which constant reaches." in said(*three, missed)
    assert "none pays on 1 or 8 replicas" in said(three[2], three[2])
    both = said(payoff(0.5, 0.4), three[2])
    assert "adadamp gains most on 1 and 8 replicas (0.5× and 0.4× the seconds" in both


def test_warnings_name_the_run_they_are_of():
    sizes = [8] * 4 + [64] * 4
    grown = run_of(sizes, policy="geodamp", notes=("the rule does not hold.",))
    cut = run_of([8], policy="adadamp", status="interrupted", policy_examples=64)
    warnings = train_warnings([grown, cut], 64)
    assert "geodamp, seed 0: the rule does not hold" in warnings
    assert "adadamp, seed 0: interrupted after 1 updates" in warnings
    assert any("more than half of the examples at the largest" in w for w in warnings)
    assert any("evaluates a loss of its own" in w for w in warnings)
    assert train_warnings([run_of(sizes)], 512) == []


# The document -------------------------------------------------------------------------


def results_of(*runs, **more):
    settings = {"baseline": "constant", "max_batch_size": 512, **more}
    return to_plain(train_results(runs, LAW, (1, 8), **settings))


def falling(sizes, rate=1e-3):
    return [2.0 * math.exp(-rate * e) for e in np.concatenate([[0], np.cumsum(sizes)])]


def test_the_document_holds_trace_summary_prices_and_comparison():
    grown, small = [8] * 32 + [64] * 28, [8] * 256
    document = results_of(
        run_of(grown, falling(grown), policy="geodamp"),
        run_of(small, falling(small)),
        price_per_hour=2.0,
    )
    assert [row["step"] for row in document["trace"]] == list(range(1, 61))
    assert document["summary"]["policy"] == "geodamp"
    assert document["summary"]["steps"] == 60
    mine, other = document["trained"]
    assert (mine["baseline"], other["baseline"]) == (False, True)
    by_hand = 60 * 0.01 + 2048e-3 / 8
    assert mine["prices"][1]["seconds"] == pytest.approx(by_hand)
    assert mine["prices"][1]["cost"] == pytest.approx(8 * by_hand / 1800)
    assert mine["evaluations"][-1]["seconds"][1] == pytest.approx(by_hand)
    (one,) = document["comparison"]
    assert [p["pays"] for p in one["seconds"]] == ["yes", "yes"]
    assert document["sentence"].startswith("geodamp pays on 1 and 8 replicas")
    assert json.dumps(document, allow_nan=False)


def test_the_trace_is_one_that_replay_reads():
    sizes = [8, 8, 16]
    rows = results_of(run_of(sizes, falling(sizes)))["trace"]
    trace = read_trace(rows)
    assert trace.batch_sizes.tolist() == sizes
    assert "seconds" in trace.measurements


def test_a_baseline_alone_is_told_as_it_is():
    document = results_of(run_of([8, 8], [2.0, 1.5, 1.0]))
    assert document["comparison"] == []
    assert document["sentence"].startswith("constant came to a loss of 1 in 2 updates")
    assert results_of()["sentence"] == "No run has begun."


def test_an_interrupted_run_is_shown_and_not_compared():
    cut = run_of([8, 64], [2.0, 1.5, 1.2], policy="geodamp", status="interrupted")
    document = results_of(cut, run_of([8] * 9))
    assert document["comparison"] == []
    assert document["trained"][0]["status"] == "interrupted"


def test_a_run_before_its_first_update_is_a_document_too():
    nothing = run_of([], [2.0], evaluations=evaluated((0, 0, math.nan)))
    document = results_of(nothing)
    assert document["trace"] == document["course"] == []
    assert document["summary"]["loss"] is None


def test_a_long_curve_is_thinned_and_keeps_its_jumps():
    sizes = [8] * 5000 + [16] * 5000
    places = thinned(len(sizes), sizes)
    assert {0, 4999, 5000, 9999} <= places
    assert len(places) <= 302


def test_the_course_ends_where_the_run_does():
    run = run_of([8] * 40)
    course = course_of(run)
    assert len(course) == 9
    assert course[-1]["step"] == 40
    assert course[-1]["loss"] == run.loss


# Policies by name ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("constant adadamp", ("constant", "adadamp")),
        ("constant,adadamp", ("constant", "adadamp")),
        ("constant; adadamp;", ("constant", "adadamp")),
        ("geodamp:factor=2,delay=5,adadamp", ("geodamp:factor=2,delay=5", "adadamp")),
        ("geodamp:factor=2;delay=5", ("geodamp:factor=2,delay=5",)),
        ("geodamp factor=2", ("geodamp:factor=2",)),
        ("padadamp:.05 adadamp", ("padadamp:.05", "adadamp")),
        (
            "schedule:0:16 400:32,unit=example cabs",
            ("schedule:0:16 400:32,unit=example", "cabs"),
        ),
    ],
)
def test_a_list_of_policies_is_parted_whatever_stands_between(text, found):
    assert split_policies("--compare", text) == found


def test_a_list_that_is_none_is_refused():
    with pytest.raises(InputError, match="'delay=5' comes before any policy"):
        split_policies("--compare", "delay=5 geodamp")
    with pytest.raises(InputError, match="no policy in ' , '"):
        split_policies("--compare", " , ")
    with pytest.raises(InputError, match="cabs stands twice"):
        split_policies("--compare", "cabs cabs")


def test_a_dwell_is_given_to_policies_without_one():
    assert with_dwell("cabs", 5) == "cabs:dwell=5"
    assert with_dwell("cabs", None) == "cabs"
    assert with_dwell("constant", 5) == "constant"
    assert with_dwell("cabs:dwell=2", 5) == "cabs:dwell=2"


def test_a_policy_that_is_none_says_which_option_it_came_from():
    with pytest.raises(
        InputError, match=r"--policy geodap: there.*did you mean geodamp"
    ):
        make_policies("--policy", ["geodap"], (8, 64), PolicyContext())


def test_a_policy_that_needs_what_is_not_measured_is_refused():
    names = ["inner-product-test", "schedule:0:16 4000:64"]
    made = make_policies("--policy", names, (8, 64), PolicyContext())
    with pytest.raises(InputError, match="needs `inner_product_variance`, which train"):
        refuse_unmeasured("--policy", names[0], made[names[0]])
    with pytest.raises(InputError, match=r"needs `tokens`.*unit=example"):
        refuse_unmeasured("--policy", names[1], made[names[1]])
