"""A trace: rows that grow, columns that belong together, the first passage."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.simulation import Passage, Trace, read_trace

COLUMNS = {
    "steps": [1, 2, 5],
    "examples": [8, 24, 100],
    "batch_sizes": [8, 16, 32],
    "lrs": [0.1, np.nan, 0.2],
    "losses": [2.0, 1.0, np.nan],
    "reasons": ["", "doubled", ""],
}


def made(**changes):
    return Trace(**{**COLUMNS, **changes})


def test_rows_hold_what_is_known_and_null_elsewhere():
    trace = made(measurements={"seconds": [1, 2, 3.5]})
    rows = trace.rows()
    assert rows[1] == {
        "step": 2,
        "examples": 24,
        "batch_size": 16,
        "lr": None,
        "loss": 1.0,
        "reason": "doubled",
        "seconds": 2.0,
    }
    assert rows[2]["loss"] is None
    assert isinstance(rows[0]["step"], int)
    assert isinstance(rows[0]["loss"], float)
    json.dumps(rows, allow_nan=False)


@given(
    losses=st.lists(st.floats(0, 10), min_size=1, max_size=20),
    target=st.floats(0, 10),
)
def test_the_first_passage_is_the_first_row_at_or_below_the_target(losses, target):
    steps = np.arange(1.0, len(losses) + 1)
    trace = Trace(
        steps=steps,
        examples=3 * steps,
        batch_sizes=np.full(len(losses), 3.0),
        lrs=np.ones(len(losses)),
        losses=np.array(losses),
        reasons=[""] * len(losses),
        measurements={"seconds": steps / 2},
    )
    truth = None
    for k, loss in enumerate(losses, start=1):
        if loss <= target and truth is None:
            truth = Passage(k, 3 * k, k / 2)
    assert trace.first_passage(target) == truth


def test_a_run_that_starts_below_the_target_passed_it_at_once():
    assert made(initial_loss=0.5).first_passage(0.6) == Passage(0, 0.0, None)
    clocked = made(initial_loss=0.5, measurements={"seconds": [1, 2, 3]})
    assert clocked.first_passage(0.6) == Passage(0, 0.0, 0.0)


def test_columns_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        made().losses[0] = 3


def test_rows_go_through_a_file_and_come_back():
    trace = made(measurements={"seconds": [1, 2, 3], "batch_loss": [2, np.nan, 1]})
    again = read_trace(trace.rows())
    for name in COLUMNS:
        one, other = getattr(trace, name), getattr(again, name)
        assert np.array_equal(one, other, equal_nan=name != "reasons")
    for name, column in trace.measurements.items():
        assert np.array_equal(column, again.measurements[name], equal_nan=True)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"losses": [1.0]}, "`losses` must be as many as `steps`, got 1 and 3"),
        ({"reasons": [""]}, "`reasons` must be as many as `steps`"),
        ({"measurements": {"seconds": [1]}}, "`seconds` must be as many as `steps`"),
        ({"measurements": {"second": [1, 2, 3]}}, "`measurements` cannot have second"),
        ({"steps": [1, 3, 3]}, "`steps` must grow from row to row, got 3 then 3"),
        ({"steps": [0, 1, 2]}, "`steps` must grow from row to row, got 0 then 0"),
        ({"examples": [8, np.nan, 9]}, "`examples` must grow from row to row"),
        ({"losses": ["a", 1, 2]}, "`losses` must be numbers"),
        ({"losses": [[1.0]]}, r"`losses` must have one axis, got shape \(1, 1\)"),
    ],
)
def test_columns_that_do_not_belong_together_are_refused(changes, rule):
    with pytest.raises(InputError, match=f"Trace: {rule}"):
        made(**changes)
