"""Argument checks name who, which argument, the rule and the value."""

import math

import numpy as np
import pytest

from rightbatch import _checks
from rightbatch.errors import InputError, NotReachedError, RightbatchError, StoreError


@pytest.mark.parametrize("value", [math.nan, math.inf, "3", None, True])
def test_what_is_not_a_finite_number_is_refused(value):
    with pytest.raises(InputError, match=r"law: `x` must be a finite number, got"):
        _checks.finite("law", "x", value)


@pytest.mark.parametrize("value", [0, -1.5, math.nan, math.inf])
def test_what_is_not_positive_is_refused(value):
    with pytest.raises(InputError, match=r"law: `x` must be positive, got"):
        _checks.positive("law", "x", value)


def test_zero_is_nonnegative_and_below_is_refused():
    assert _checks.nonnegative("law", "x", 0) == 0
    with pytest.raises(InputError, match=r"law: `x` must not be negative, got -1"):
        _checks.nonnegative("law", "x", -1)


@pytest.mark.parametrize("value", [0, 2.5, -3, math.nan])
def test_what_is_not_a_count_is_refused(value):
    with pytest.raises(InputError, match=r"`x` must be a whole number >= 1, got"):
        _checks.positive_integer("law", "x", value)


def test_a_whole_float_is_a_count():
    assert _checks.positive_integer("law", "x", np.float64(8)) == 8


def test_a_near_choice_is_offered():
    with pytest.raises(InputError, match=r"cannot be 'invers'. \(did you mean inverse"):
        _checks.one_of("fit", "law", "invers", ["inverse", "knee"])


def test_all_choices_are_named_when_none_is_near():
    with pytest.raises(InputError, match=r"\(one of inverse, knee\)"):
        _checks.one_of("fit", "law", "xyz", ["inverse", "knee"])


def test_the_first_bad_value_of_an_array_is_named_with_its_place():
    with pytest.raises(InputError, match=r"`steps` must be positive, got nan at 1\."):
        _checks.positive_array("fit", "steps", [1.0, math.nan, -2.0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "b"], "must be numbers"),
        ([], "must be a list of numbers"),
        ([[1.0]], "must be a list of numbers"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        _checks.positive_array("fit", "steps", values)


def test_exit_codes_follow_the_kind_of_error():
    assert RightbatchError("x").exit_code == 1
    assert StoreError("x").exit_code == 1
    assert InputError("x").exit_code == 2
    assert NotReachedError("x").exit_code == 3
    assert isinstance(InputError("x"), ValueError)


def test_a_folder_is_no_place_for_a_file(tmp_path):
    with pytest.raises(InputError, match="--csv: .* is a folder"):
        _checks.writable_path("--csv", tmp_path)
    with pytest.raises(InputError, match="--csv: there is no folder"):
        _checks.writable_path("--csv", tmp_path / "none" / "report.html")


def test_a_folder_one_may_not_write_to_is_refused(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    # Tests may run as root, whom no folder refuses.
    monkeypatch.setattr(_checks.tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match="cannot be written: Permission denied"):
        _checks.writable_path("--report", tmp_path / "report.html")


def test_checking_a_place_leaves_nothing_there_and_changes_nothing(tmp_path):
    path = tmp_path / "report.html"
    assert _checks.writable_path("--report", str(path)) == path
    assert not path.exists()
    path.write_text("kept")
    assert _checks.writable_path("--report", path).read_text() == "kept"


@pytest.mark.parametrize("value", [0, 1, -0.1, math.nan, True, "0.9"])
def test_what_is_not_a_level_is_refused(value):
    with pytest.raises(InputError, match="`level` must be between 0 and 1, got"):
        _checks.confidence_level("law", value)


def test_a_level_in_per_cent_is_shown_as_a_share():
    with pytest.raises(InputError, match=r"got 90\. \(write 0\.9\)"):
        _checks.confidence_level("law", 90)
