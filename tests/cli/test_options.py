"""Lists and paths of the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.cli.options import (
    check_device,
    parse_counts,
    parse_numbers,
    parse_positive,
)
from rightbatch.errors import InputError


def test_the_three_ways_to_write_a_list():
    assert parse_numbers("--x", "1, 2,4") == (1, 2, 4)
    assert parse_numbers("--x", "4:1048576:x4") == tuple(4.0**i for i in range(1, 11))
    assert parse_numbers("--x", "0:1:.25") == (0, 0.25, 0.5, 0.75, 1)
    assert parse_numbers("--x", "1,8:32:x2") == (1, 8, 16, 32)


@given(st.integers(1, 100), st.integers(2, 5), st.integers(0, 8))
def test_a_geometric_list_holds_both_its_ends(first, factor, num):
    last = first * factor**num
    listed = parse_numbers("--x", f"{first}:{last}:x{factor}")
    assert len(listed) == num + 1
    assert listed[0] == first
    assert listed[-1] == pytest.approx(last)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'' is not a number"),
        ("1,b", r"--x: 'b' is not a number"),
        ("1,nan", r"'nan' is not a number"),
        ("1:2", r"cannot read '1:2'"),
        ("1:4:x1", r"never ends"),
        ("0:4:x2", r"never ends"),
        ("4:1:x2", r"never ends"),
        ("4:1:1", r"never ends"),
        ("1:4:0", r"never ends"),
        ("1,2,1", r"1 stands twice"),
    ],
)
def test_what_is_no_list_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_numbers("--x", text)


def test_counts_are_sorted_whole_and_at_least_one():
    assert parse_counts("--x", "64,8") == (8, 64)
    for text in ("0", "-4", "1.5"):
        with pytest.raises(InputError, match="must be whole and >= 1"):
            parse_counts("--x", text)


def test_positive_numbers_are_above_zero():
    with pytest.raises(InputError, match=r"--lr: must be positive, got -0\.1"):
        parse_positive("--lr", "0.1,-0.1")


def test_devices_that_are_not_here_are_refused():
    assert check_device("cpu") == "cpu"
    with pytest.raises(InputError, match="did you mean cuda"):
        check_device("cudda")
    with pytest.raises(InputError, match="cuda:99 is not here"):
        check_device("cuda:99")
