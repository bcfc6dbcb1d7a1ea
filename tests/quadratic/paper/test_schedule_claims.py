"""Claims 5 to 7 against known answers."""

from dataclasses import replace

import numpy as np
import pytest
from example_paper import claim, condition, paper, rows

from rightbatch.quadratic.paper.results import ScheduleKey
from rightbatch.quadratic.paper.schedule_claims import judge_schedules, lr_slopes

PROPORTIONAL = pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", ["sgd", "momentum", "ema"])
@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_the_best_rate_is_proportional_to_the_batch_and_then_constant(name, power):
    results = paper().results
    below, above = lr_slopes(results.tuned, results.setting, name, power)
    assert below == PROPORTIONAL
    assert above == pytest.approx(0, abs=0.05)


def test_there_is_no_slope_through_a_single_batch_size():
    results = paper().results
    _, above = lr_slopes(results.tuned, results.setting, "momentum", 0.75)
    assert np.isnan(above)


def test_the_best_rate_is_reproduced_as_linear():
    assert claim(5).verdict == "reproduced"


@pytest.mark.parametrize(("num", "steps"), [(10, 17390), (50, 16515)])
def test_pieces_at_batch_64_need_at_most_the_known_steps(num, steps):
    found = paper().results.scheduled_steps(ScheduleKey(0.0, num, True))
    assert found[2] <= steps + 1


def test_schedules_close_most_of_the_gap_to_the_bound_at_small_batch():
    found = np.array(list(rows(6, "gap_closed").values()))
    assert found.min() > 0.65
    assert found.max() < 1


def test_schedules_do_little_at_large_batch_only_under_the_cap():
    assert condition(6, "saved_under_cap").holds
    assert not condition(6, "saved_without_cap").holds
    assert claim(6).verdict == "partly"


def test_without_the_cap_power_a_half_takes_a_fifth_of_the_steps():
    assert rows(6, "saved_without_cap")["10 pieces"][2] > 0.8


@pytest.mark.parametrize(
    ("power", "size", "saving", "rise"),
    [
        (0.0, 4.0, 5.17, 0.0099),
        (0.5, 64.0, 4.55, 0.0010),
        (0.75, 64.0, 4.36, 0.0001),
    ],
)
def test_growing_the_batch_saves_the_known_updates(power, size, saving, rise):
    grown = paper().results.growth[power, size]
    # Rounding to whole steps moves the schedule that is found, and so both numbers.
    assert grown.saving == pytest.approx(saving, rel=0.005)
    assert grown.loss_increase == pytest.approx(rise, abs=0.0005)


def test_growing_the_batch_fails_at_the_stability_edge():
    assert condition(7, "rise_at_batch_4").holds
    edge = condition(7, "rise_at_batch_64")
    assert not edge.holds
    assert edge.evidence.rows["B = 64"][0] > 1
    assert max(edge.evidence.rows["B = 64"][1:]) < 0.05
    assert paper().results.growth[0.0, 64.0].guarded
    assert claim(7).verdict == "partly"
    assert "power 0, B = 64 the largest rate is 100 % of" in claim(7).note


def test_growth_that_fails_nowhere_is_reproduced():
    results = paper().results
    calm = {key: one for key, one in results.growth.items() if not one.guarded}
    found = judge_schedules(replace(results, growth=calm))[-1]
    assert found.verdict == "reproduced"
    assert found.note == ""


def test_schedules_as_short_without_a_cap_as_with_one_reproduce_the_claim():
    results = paper().results
    capped = {
        key: results.schedules[key._replace(is_capped=True)]
        for key in results.schedules
    }
    found = judge_schedules(replace(results, schedules=capped))[1]
    assert found.verdict == "reproduced"
