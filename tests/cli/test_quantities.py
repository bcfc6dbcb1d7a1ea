"""Times, sizes and bandwidths as a person writes them."""

import re

import pytest

from rightbatch.cli.quantities import quantity
from rightbatch.errors import InputError


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("time", "2 h", 7200.0),
        ("time", "30 min", 1800.0),
        ("time", "50 us", 5e-5),
        ("time", "50 µs", 5e-5),
        ("time", "1.5d", 129600.0),
        ("time", 12, 12.0),
        ("size", "10 GB", 1e10),
        ("size", "4 GiB", 2.0**32),
        ("bandwidth", "100 Gbit/s", 1.25e10),
        ("bandwidth", "900 GB/s", 9e11),
        ("bandwidth", "1_000 MB/s", 1e9),
        ("size", "1,234,567.5 B", 1234567.5),
        ("time", "-0 s", 0.0),
        ("time", "1,000e-3 s", 1.0),
        ("time", ".5 h", 1800.0),
    ],
)
def test_a_quantity_is_a_number_and_its_unit(kind, value, expected):
    assert quantity("it", kind, value) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("time", "100 Gbit/s", "must be a time, got '100 Gbit/s', a bandwidth"),
        ("bandwidth", "10 GB", "must be a bandwidth, got '10 GB', a size"),
        ("time", "2 hrs", "unknown unit, 'hrs'"),
        ("size", "2 gb", "unknown unit, 'gb'"),
        ("time", "soon", "must be a number and a unit, got 'soon'"),
        ("time", "1.2.3 s", "must be a number and a unit"),
        ("time", "1,5 h", "a number and a unit, got '1,5 h'. (write \"1.5 h\")"),
        ("time", "2,25", 'write "2.25"'),
        ("time", "0,125 s", 'write "0.125 s"'),
        ("time", "1,50,000 s", "must be a number and a unit"),
        ("time", "1_5 s", "must be a number and a unit"),
        ("time", "1,000,00 s", "must be a number and a unit"),
        ("time", "_ s", "must be a number and a unit"),
        ("time", "-2 h", "must not be negative, got '-2 h'"),
        ("time", float("nan"), "must not be negative"),
        ("time", True, "must be a time, got True"),
        ("time", [1], "must be a time"),
    ],
)
def test_what_is_no_such_quantity_is_refused(kind, value, message):
    with pytest.raises(InputError, match=re.escape(message)):
        quantity("it", kind, value)
