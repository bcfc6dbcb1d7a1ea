"""The least number of steps at which a height is reached."""

import math

from hypothesis import given
from hypothesis import strategies as st

from rightbatch.quadratic.schedules.fewest import Probe, fewest_steps


@given(
    wanted=st.integers(1, 10**9),
    first=st.integers(1, 10**9),
    power=st.floats(0.2, 3),
    bend=st.floats(0, 2),
    slopes=st.booleans(),
)
def test_the_first_length_that_reaches_is_found(wanted, first, power, bend, slopes):
    def look(steps):
        away = math.log(steps / wanted)
        slope = -power * (1 + bend * abs(away)) if slopes else math.nan
        height = -power * (away + math.copysign(bend * away * away / 2, away))
        return Probe(height if steps != wanted else 0.0, slope)

    assert fewest_steps(look, first) == wanted


def test_few_looks_are_needed_where_the_height_is_a_power():
    seen = []

    def look(steps):
        seen.append(steps)
        return Probe(2 * math.log(54_321.5 / steps))

    assert fewest_steps(look, 1000) == 54_322
    assert len(seen) <= 6


def test_a_height_that_is_infinite_for_short_runs_is_no_trouble():
    def look(steps):
        return Probe(math.inf if steps < 70 else math.log(99.5 / steps))

    assert fewest_steps(look, 3) == 100


def test_what_is_never_reached_is_none():
    assert fewest_steps(lambda _steps: Probe(1.0), 10) is None
    assert fewest_steps(lambda steps: Probe(math.log(11 / steps)), 1, most=10) is None
    assert fewest_steps(lambda steps: Probe(math.log(10 / steps)), 1, most=10) == 10
