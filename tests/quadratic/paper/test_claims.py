"""Evidence, conditions, and the verdict that follows from them."""

import json
import math

import pytest

from rightbatch.quadratic.paper.claims import Claim, Condition, Evidence, said


def evidence(*values):
    return Evidence(heading="power", columns=("0", "0.5"), rows={"SGD": values})


def condition(holds, *, counts=True, holds_on_grid=None):
    return Condition(
        key=f"made_up_{holds}",
        statement="It is so.",
        evidence=evidence(1.0, math.nan),
        holds=holds,
        counts=counts,
        on_grid=None if holds_on_grid is None else evidence(2.0, 3.0),
        holds_on_grid=holds_on_grid,
    )


def claim(*conditions):
    return Claim(number=1, claim="So it is.", short="so", conditions=conditions)


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ((True, True), "reproduced"),
        ((True, False), "partly"),
        ((False, False), "not reproduced"),
    ],
)
def test_a_verdict_follows_from_the_conditions(held, verdict):
    assert claim(*map(condition, held)).verdict == verdict


def test_a_condition_that_does_not_count_changes_no_verdict():
    aside = condition(False, counts=False)
    assert claim(condition(True), aside).verdict == "reproduced"


def test_the_verdict_on_the_grids_takes_their_word_where_they_have_one():
    told = claim(condition(True, holds_on_grid=False), condition(True))
    assert told.verdict == "reproduced"
    assert told.verdict_on_grid == "partly"


def test_without_grids_there_is_no_verdict_on_them():
    assert claim(condition(True)).verdict_on_grid is None


def test_a_claim_is_json_with_its_evidence_under_the_name_of_each_condition():
    told = claim(condition(True, holds_on_grid=False)).to_dict()
    json.dumps(told, allow_nan=False)
    assert told["verdict"] == "reproduced"
    assert told["evidence"]["made_up_True"]["rows"] == {"SGD": [1.0, None]}
    grid = told["evidence"]["made_up_True_on_published_grid"]
    assert grid["rows"] == {"SGD": [2.0, 3.0]}
    assert told["conditions"][0]["holds_on_published_grid"] is False


def test_a_claim_in_words_says_what_holds_what_fails_and_by_which_numbers():
    text = str(claim(condition(True, holds_on_grid=True), condition(False)))
    assert text.startswith("1. So it is. PARTLY")
    assert "holds: It is so." in text
    assert "fails: It is so." in text
    assert "SGD: 1.000, -" in text
    assert "SGD: 2.000, 3.000 (grid)" in text


def test_values_leave_out_what_is_not_there():
    assert evidence(1.0, math.nan).values.tolist() == [1.0]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (36949.2, "count", "36,949"),
        (7.25, "count", "7.25"),
        (4.352, "times", "4.35x"),
        (0.168, "percent", "17 %"),
        (0.0098, "percent", "0.98 %"),
        (-1e-7, "percent", "0 %"),
        (27999.0, "percent", "28,000x"),
        (-1e-17, "number", "0.000"),
        (math.nan, "times", "-"),
        (math.inf, "count", "-"),
    ],
)
def test_a_value_reads_as_what_it_is(value, kind, text):
    assert said(value, kind) == text
