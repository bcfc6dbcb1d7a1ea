"""Schedules by step, epoch, example or token, and the texts they are written in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies.example_runs import clock, follow, sizes

from rightbatch.errors import InputError
from rightbatch.policies import (
    UNBOUNDED,
    FullBatch,
    Observation,
    Schedule,
    doubling_schedule,
    linear_ramp,
    parse_schedule,
)


@st.composite
def points(draw):
    places = draw(st.lists(st.integers(1, 10**6), max_size=6, unique=True).map(sorted))
    places = [0, *places]
    sizes_ = draw(
        st.lists(st.floats(1, 1e4), min_size=len(places), max_size=len(places))
    )
    return tuple(zip(places, sizes_, strict=True))


@given(points=points(), place=st.floats(0, 2e6))
def test_the_batch_is_that_of_the_last_point_passed(points, place):
    passed = [size for start, size in points if start <= place]
    found = Schedule(points=points, unit="step").batch_size_at(place)
    assert found == passed[-1]


@given(points=points(), place=st.floats(0, 2e6))
def test_between_points_the_line_is_that_of_numpy(points, place):
    policy = Schedule(points=points, unit="step", between="line")
    assert policy.batch_size_at(place) == pytest.approx(
        np.interp(place, *np.array(points, dtype=float).T)
    )


@pytest.mark.parametrize(
    ("unit", "needs", "column"),
    [
        ("step", set(), {}),
        ("example", set(), {}),
        ("epoch", {"epoch"}, {"epoch": [0.0, 8.0, 16.0, 24.0]}),
        ("token", {"tokens"}, {"tokens": [0.0, 8.0, 16.0, 24.0]}),
    ],
)
def test_positions_are_counted_in_the_unit(unit, needs, column):
    at = {"step": 2, "example": 16}.get(unit, 16)
    policy = Schedule(points=((0, 8), (at, 32)), unit=unit)
    assert policy.needs == needs
    assert sizes(policy, clock(4, **column)) == [8, 8, 32, 32]


def test_where_the_position_is_not_known_the_batch_stays():
    policy = Schedule(points=((0, 8), (10, 32)), unit="token")
    decisions = follow(policy, clock(4, tokens=[None, 12.0, None, 0.0]))
    assert [one.batch_size for one in decisions] == [8, 32, 32, 8]
    assert [one.reason for one in decisions] == [
        "start",
        "token 12",
        "token unknown",
        "token 0",
    ]


def test_the_text_of_megatron_is_read():
    policy = parse_schedule("0:768 1.5K:800 250B:1536 1T:3072")
    assert policy.unit == "token"
    assert policy.points == ((0, 768), (1500, 800), (250e9, 1536), (1e12, 3072))
    assert parse_schedule("0:8 2m:16", unit="example").points[1] == (2e6, 16)


@given(initial=st.floats(1, 100), ratio=st.floats(1, 1e4), every=st.floats(0.1, 1e3))
def test_doublings_are_of_equal_length_and_end_at_the_largest(initial, ratio, every):
    largest = initial * ratio
    policy = doubling_schedule(
        initial_batch_size=initial, max_batch_size=largest, every=every, unit="epoch"
    )
    found = [size for _, size in policy.points]
    assert (found[0], found[-1]) == (initial, largest)
    for j, size in enumerate(found[:-1]):
        assert size == initial * 2**j < largest
        assert policy.points[j][0] == pytest.approx(every * j)


def test_a_ramp_is_a_line_and_then_stays():
    policy = linear_ramp(
        initial_batch_size=10, final_batch_size=50, over=4, unit="step"
    )
    assert sizes(policy, clock(6)) == [10, 20, 30, 40, 50, 50]


def test_the_full_batch_is_the_data_set_or_as_much_as_can_be_served():
    seen = Observation(step=0, examples=0, batch_size=0, dataset_size=1437)
    unknown = Observation(step=0, examples=0, batch_size=0)
    assert FullBatch().update(None, seen)[0].batch_size == 1437
    assert FullBatch().update(None, unknown)[0].batch_size == UNBOUNDED
    assert FullBatch().needs == {"dataset_size"}


@pytest.mark.parametrize(
    ("points", "rule"),
    [
        ((), "Schedule: `points` must be pairs of a position and a batch size"),
        (((0, 8, 1),), "Schedule: `points` must be pairs"),
        (((1, 8),), r"Schedule: `points` must start at 0, got 1. \(say with which"),
        (((0, 8), (5, 9), (4, 10)), "`points` must be in order, got 5 then 4"),
        (((0, 8), (5, 9), (5, 10)), "`points` must be in order, got 5 then 5"),
        (((0, 8), (5, 0)), "Schedule: `points` must be positive, got 0"),
        (((-1, 8), (5, 0)), "Schedule: `points` must not be negative, got -1"),
    ],
)
def test_points_out_of_order_or_range_are_refused(points, rule):
    with pytest.raises(InputError, match=rule):
        Schedule(points=points, unit="step")


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (
            lambda: Schedule(points=((0, 8),), unit="steps"),
            "`unit` cannot be 'steps'.*did",
        ),
        (
            lambda: Schedule(points=((0, 8),), unit="step", between="curve"),
            "`between` cannot be 'curve'",
        ),
        (lambda: parse_schedule("0:768 250X:9"), "'250X:9' is not a position and a ba"),
        (
            lambda: parse_schedule("768"),
            "'768' is not a position and a batch size.*writ",
        ),
        (lambda: parse_schedule(""), "`points` must be pairs"),
        (
            lambda: linear_ramp(
                initial_batch_size=8, final_batch_size=9, over=0, unit="step"
            ),
            "linear_ramp: `over` must be positive",
        ),
        (
            lambda: doubling_schedule(
                initial_batch_size=8, max_batch_size=4, every=1, unit="step"
            ),
            "doubling_schedule: `max_batch_size` must be >= `initial_batch_size`",
        ),
    ],
)
def test_words_and_numbers_that_say_nothing_are_refused(make, rule):
    with pytest.raises(InputError, match=rule):
        make()
