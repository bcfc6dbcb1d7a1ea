"""Traces read from rows and files, and files that are none."""

import json
import math

import pytest

from rightbatch.errors import InputError, TableError
from rightbatch.policies import Constant
from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
from rightbatch.simulation import read_trace, simulate

ROW = {"step": 1, "examples": 8, "batch_size": 8, "loss": 2.0}


def test_a_table_is_read_with_its_start_and_its_empty_cells(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(
        "step,examples,batch_size,lr,loss,reason,comment,grad_variance\n"
        "0,0,,,2.5,,,\n"
        "1,8,8,0.1,2,start,hello,\n"
        "11,100,16, ,,,,3\n",
        encoding="utf-8",
    )
    trace = read_trace(path)
    assert trace.initial_loss == 2.5
    assert trace.steps.tolist() == [1, 11]
    assert math.isnan(trace.lrs[1])
    assert math.isnan(trace.losses[1])
    assert trace.reasons == ("start", "")
    assert list(trace.measurements) == ["grad_variance"]
    assert trace.measurements["grad_variance"][1] == 3


def test_a_simulation_written_as_json_is_read_as_it_was(tmp_path):
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(4))
    optimizer = Optimizer(name="sgd", lr=0.1)
    run = simulate(problem, optimizer, Constant(batch_size=4), max_steps=5)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run.to_dict()), encoding="utf-8")
    trace = read_trace(str(path))
    assert trace.losses.tolist() == run.trace.losses.tolist()
    assert trace.initial_loss == run.initial_loss
    path.write_text(json.dumps(run.to_dict()["trace"]), encoding="utf-8")
    assert read_trace(path).initial_loss is None


def test_a_start_without_a_loss_leaves_it_unknown():
    start = {"step": 0, "examples": 0, "batch_size": None, "loss": None}
    assert read_trace([start, ROW]).initial_loss is None


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"loss": "two"}, "`loss` must be a number, got 'two' in row 1"),
        ({"batch_size": ""}, "`batch_size` must be positive, got nan in row 1"),
        ({"batch_size": -8}, "`batch_size` must be positive, got -8 in row 1"),
        ({"examples": None}, "`examples` must be positive, got nan in row 1"),
        ({"seconds": []}, r"`seconds` must be a number, got \[\] in row 1"),
    ],
)
def test_a_cell_that_is_no_number_is_named(change, rule):
    with pytest.raises(TableError, match=f"read_trace: {rule}"):
        read_trace([{**ROW, **change}])


def test_a_missing_key_is_named():
    row = {"step": 1, "loss": 2.0}
    with pytest.raises(TableError, match=r"row 1 has no examples, batch_size\. \(it h"):
        read_trace([row])


def test_rows_that_do_not_grow_are_refused():
    with pytest.raises(InputError, match="`steps` must grow from row to row"):
        read_trace([ROW, ROW])


def test_no_rows_are_no_trace():
    with pytest.raises(TableError, match="there are no rows"):
        read_trace([])


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match="must end in .csv or .json, got '.txt'"):
        read_trace(tmp_path / "trace.txt")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="missing.csv cannot be read"):
        read_trace(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("[", "is not JSON"),
        ("3", "must hold rows, or a document with `trace`"),
        ('{"runs": []}', "must hold rows, or a document with `trace`"),
        ("[1, 2]", "must hold rows, or a document with `trace`"),
    ],
)
def test_json_of_another_shape_is_refused(tmp_path, text, rule):
    path = tmp_path / "trace.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rule):
        read_trace(path)
