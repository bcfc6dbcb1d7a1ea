import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.reporting import formats

UNITS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


@given(st.floats(1e-3, 1e9))
def test_a_number_read_back_is_right_to_half_a_third_digit(value):
    read = float(formats.number(value).replace(",", ""))
    # Three digits: at worst 100.5 is said as 100 or 101.
    assert read == pytest.approx(value, rel=0.5 / 100 * 1.0001)


@given(st.floats(1e-6, 1e7))
def test_a_duration_read_back_is_right_and_in_a_unit_that_suits_it(value):
    text, unit = formats.seconds(value).split(" ")
    assert float(text.replace(",", "")) * UNITS[unit] == pytest.approx(value, rel=0.01)
    assert float(text.replace(",", "")) >= 0.99


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9996, "1 s"),
        (59.97, "1 min"),
        (3599.0, "1 h"),
        (7.2e6, "2,000 h"),
        (3.2e-9, "0.0032 µs"),
        (0, "0 s"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_a_duration_changes_its_unit_where_rounding_does(value, text):
    assert formats.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.05, "0.05"), (1e-5, "1e-5"), (1.234e12, "1.23e12"), (-3.5, "-3.5"), (0, "0")],
)
def test_very_small_and_very_large_numbers_have_exponents(value, text):
    assert formats.number(value) == text


def test_an_open_side_is_said_not_invented():
    at_least = {"value": None, "low": 96, "high": None}
    assert formats.estimate(at_least) == "≥ 96"
    assert formats.estimate({**at_least, "value": 120}) == "120 (≥ 96)"
    assert formats.estimate({"value": None, "low": None, "high": None}) == "unbounded"
    assert formats.ends(None) == "–"


def test_true_is_no_number():
    assert not formats.is_number(True)
    assert formats.label(True) == "yes"


def test_a_broken_path_ends_in_nothing():
    assert formats.field({"a": [1]}, "a", "b") is None
    assert formats.entries({"a": None}, "a") == []


def test_settings_inside_settings_become_one_line():
    assert formats.label({"torch": "2.13", "lrs": (0.1, 1)}) == "torch 2.13, lrs 0.1, 1"
