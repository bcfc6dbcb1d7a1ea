import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.experiments.crossing import (
    Crossing,
    grid_index,
    grid_step,
    grid_step_up_to,
    window_points,
)

STEPS = [grid_step(index) for index in range(500)]


def smoothed_by_the_definition(trace):
    """The curve, written out from the definition with no regard to speed."""
    values = dict(trace)
    curve = []
    for place, step in enumerate(STEPS[:-2]):
        window = [step]
        for left, right in zip(
            reversed(STEPS[max(0, place - 2) : place]), STEPS[place + 1 :], strict=False
        ):
            if step - left > 0.05 * step or right - step > 0.05 * step:
                break
            window += [left, right]
        if all(neighbour in values for neighbour in window):
            logs = [math.log(values[neighbour]) for neighbour in window]
            curve.append((step, math.exp(sum(logs) / len(logs))))
    return curve


def test_the_grid_holds_each_step_to_50_and_then_grows_by_2_percent():
    assert STEPS[:51] == list(range(51))
    for before, after in zip(STEPS[50:], STEPS[51:], strict=False):
        assert before < after
        assert abs(after - 1.02 * before) <= 1.02


def test_434_grid_points_reach_a_hundred_thousand_steps():
    assert STEPS[433] < 100_000 < STEPS[434]


@settings(deadline=None)
@given(st.integers(0, 600))
def test_the_index_of_a_grid_step_is_found_back(index):
    assert grid_index(grid_step(index)) == index


@settings(deadline=None)
@given(st.integers(0, 30_000))
def test_a_step_between_grid_points_has_no_index(step):
    assert (grid_index(step) is None) == (step not in STEPS)


@settings(deadline=None)
@given(st.integers(0, 30_000))
def test_the_last_grid_step_is_at_most_the_step_and_the_next_one_beyond(step):
    last = grid_step_up_to(step)
    assert last <= step < grid_step(grid_index(last) + 1)


def test_a_window_lies_within_5_percent_and_holds_at_most_five_points():
    for index in range(1, 500):
        points = window_points(index)
        assert points <= 2
        for end in (STEPS[index - points], grid_step(index + points)):
            assert abs(end - STEPS[index]) <= 0.05 * STEPS[index] + 1e-9


def test_windows_are_of_five_points_beyond_a_hundred_steps():
    assert {window_points(index) for index in range(86, 500)} == {2}


def test_windows_end_in_the_order_of_their_centres():
    ends = [index + window_points(index) for index in range(500)]
    assert ends == sorted(ends)


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 100), min_size=20, max_size=150),
    st.integers(0, 60),
)
def test_the_smoothed_curve_is_what_the_definition_says(values, start):
    trace = [(STEPS[start + place], value) for place, value in enumerate(values)]
    curve = Crossing().curve(trace)
    wanted = smoothed_by_the_definition(trace)
    assert [step for step, _ in curve] == [step for step, _ in wanted]
    assert [v for _, v in curve] == pytest.approx([v for _, v in wanted])


def test_the_crossing_is_the_first_smoothed_point_at_the_target():
    trace = [(step, 100.0 / (step + 1)) for step in STEPS[:200]]
    wanted = next(s for s, v in smoothed_by_the_definition(trace) if v <= 0.5)
    assert Crossing().steps(trace, 0.5) == wanted


def test_one_lucky_check_is_a_first_crossing_and_not_a_smoothed_one():
    values = [1.0] * 100
    values[80] = 0.4
    trace = [(STEPS[place], value) for place, value in enumerate(values)]
    assert Crossing(definition="first").steps(trace, 0.5) == STEPS[80]
    assert Crossing().steps(trace, 0.5) is None


def test_a_metric_to_be_maximised_is_smoothed_by_the_plain_mean():
    values = [0.0, 0.0, 1.0, 1.0, 1.0]
    trace = [(STEPS[300 + place], value) for place, value in enumerate(values)]
    curve = Crossing(direction="max").curve(trace)
    assert curve == ((STEPS[302], pytest.approx(0.6)),)


def test_values_that_are_not_positive_are_smoothed_by_the_plain_mean():
    values = [-1.0, 0.0, 1.0, 2.0, 3.0]
    trace = [(STEPS[300 + place], value) for place, value in enumerate(values)]
    assert Crossing().curve(trace) == ((STEPS[302], pytest.approx(1.0)),)


def test_a_gap_in_the_checks_leaves_the_windows_across_it_out():
    places = [*range(100, 106), *range(107, 120)]
    trace = [(STEPS[place], 1.0) for place in places]
    centres = [grid_index(step) for step, _ in Crossing().curve(trace)]
    assert centres == [102, 103, *range(109, 118)]


def test_checks_off_the_grid_have_no_smoothed_value():
    assert Crossing().curve([(101, 1.0), (103, 1.0)]) == ()


def test_nan_crosses_no_target():
    trace = [(step, math.nan) for step in range(10)]
    assert Crossing().steps(trace, 0.5) is None
    assert Crossing(definition="first").steps(trace, 0.5) is None
    assert Crossing().nearest(trace) is None


def test_the_nearest_value_is_the_best_of_the_smoothed_ones():
    trace = [(step, value) for step, value in enumerate([3.0, 1.0, 2.0])]
    assert Crossing().nearest(trace) == 1.0
    assert Crossing(direction="max").nearest(trace) == 3.0


def test_the_nearest_value_is_an_unsmoothed_one_where_no_window_is_complete():
    assert Crossing().nearest([(STEPS[100], 2.0), (STEPS[110], 1.0)]) == 1.0


def test_the_hardest_target_is_the_lowest_loss_and_the_highest_accuracy():
    assert Crossing().hardest((0.3, 0.1)) == 0.1
    assert Crossing().easiest((0.3, 0.1)) == 0.3
    assert Crossing(direction="max").hardest((0.3, 0.1)) == 0.3
    assert Crossing(direction="max").easiest((0.3, 0.1)) == 0.1


def test_the_record_of_a_definition_names_its_grid():
    assert Crossing(gate=3.0).to_dict() == {
        "definition": "smoothed",
        "direction": "min",
        "gate": 3.0,
        "grid_ratio": 1.02,
        "every": None,
    }
    first = Crossing(definition="first", every=100).to_dict()
    assert (first["grid_ratio"], first["every"]) == (None, 100)


def test_a_recording_interval_is_of_first_passage_alone():
    with pytest.raises(InputError, match="`every` must be 1 for 'smoothed'"):
        Crossing(every=100)


def test_an_unknown_definition_is_refused():
    with pytest.raises(InputError, match="`definition` cannot be 'last'"):
        Crossing(definition="last")


def test_a_gate_that_does_not_widen_the_target_is_refused():
    with pytest.raises(InputError, match=r"`gate` must be above 1, got 1\.0"):
        Crossing(gate=1.0)


def test_a_gate_on_a_metric_to_be_maximised_is_refused():
    with pytest.raises(InputError, match="`gate` needs `direction` 'min'"):
        Crossing(direction="max", gate=3.0)
