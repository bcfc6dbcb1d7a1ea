"""Records become columns and come back, to the last bit and of the same types."""

import io
import math
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.controller import UpdateRecord
from rightbatch.training.columns import RecordColumns, records_from

whole = st.integers(-(2**63), 2**63 - 1)
maybe = st.none() | st.floats() | whole
RECORDS = st.lists(
    st.builds(
        UpdateRecord,
        whole,
        whole,
        whole,
        whole,
        whole,
        whole,
        st.floats(),
        st.floats(),
        st.text(),
        st.floats(),
        maybe,
        epoch=maybe,
        tokens=maybe,
        noise_scale=maybe,
    ),
    max_size=6,
)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def bits(value):
    return struct.pack("<d", value) if isinstance(value, float) else value


def exactly(records):
    return [[(type(v), bits(v)) for v in record] for record in records]


@given(first=RECORDS, more=RECORDS)
def test_records_come_back_as_they_were(first, more):
    columns = RecordColumns()
    columns.follow(first)
    columns.state_dict()
    columns.follow(first + more)
    found = records_from(through_a_file(columns.state_dict()))
    assert exactly(found) == exactly(first + more)


def record(step, **changes):
    row = UpdateRecord(step, 8, 8, 8, 1, 1, 0.1, 2.5, "constant", 0.01, 8.0)
    return row._replace(**changes)


def test_records_of_a_run_that_went_back_are_taken_in_anew():
    columns, kept = RecordColumns(), [record(1), record(2)]
    columns.follow([*kept, record(3), record(4)])
    again = [*kept, record(3, loss=1.0), record(4), record(5)]
    columns.follow(again)
    assert records_from(columns.state_dict()) == again
    columns.follow(kept)
    assert records_from(columns.state_dict()) == kept


def test_a_bit_of_a_number_that_is_none_is_kept():
    loud = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000123))[0]
    assert math.isnan(loud)
    columns = RecordColumns()
    columns.follow([record(1, loss=loud), record(2)])
    assert bits(records_from(columns.state_dict())[0].loss) == bits(loud)


def test_a_column_of_one_value_holds_it_once_and_texts_are_held_once():
    columns = RecordColumns()
    columns.follow([record(step) for step in range(1, 1001)])
    state = columns.state_dict()
    lengths = [len(values) for _, values in state["columns"]]
    assert lengths == [1000, *[1] * (len(UpdateRecord._fields) - 1)]
    assert state["texts"] == '["constant"]'


def test_a_record_of_anything_else_is_refused():
    with pytest.raises(TypeError, match="holds numbers and text, got a list"):
        RecordColumns().follow([record(1, loss=[2.5])])


def test_records_with_other_columns_are_refused():
    columns = RecordColumns()
    columns.follow([record(1)])
    state = {**columns.state_dict(), "fields": ["step"]}
    with pytest.raises(ValueError, match="other columns"):
        records_from(state)
