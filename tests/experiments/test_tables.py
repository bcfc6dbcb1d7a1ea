"""Tables measured elsewhere: what is read, and what is refused with row and column."""

import math

import pytest

from rightbatch.errors import InputError, TableError
from rightbatch.experiments.tables import read_runs, read_times, write_csv


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "table.csv"
        path.write_text(text)
        return path

    return write


def test_steps_come_from_whichever_count_the_table_has(table):
    for text in (
        "batch_size,steps\n8,100\n",
        "batch_size,examples\n8,800\n",
        "batch_size,tokens\n8,800\n",
        "batch_size,steps,examples\n8,100,801\n",
    ):
        assert read_runs(table(text))[0].steps == 100
    epochs = table("batch_size,epochs\n8,2\n")
    assert read_runs(epochs, examples_per_epoch=400)[0].steps == 100


def test_optional_columns_are_read_and_unknown_ones_left(table):
    text = (
        "workload,batch_size,lr,target,steps,notes\na,8,.1,-0.5,100,hello\nb,8,,,50,\n"
    )
    first, second = read_runs(table(text))
    assert (first.workload, first.lr, first.target) == ("a", 0.1, -0.5)
    assert (second.workload, second.lr, second.target) == ("b", None, None)


def test_a_run_that_did_not_reach_needs_no_steps(table):
    text = "batch_size,steps,status\n8,,not_reached\n8,5,diverged\n8,100,reached\n"
    steps = [run.steps for run in read_runs(table(text))]
    assert math.isnan(steps[0])
    assert math.isnan(steps[1])
    assert steps[2] == 100


def test_times_without_replicas_are_of_one(table):
    times = read_times(table("batch_size,seconds\n8,.1\n"))
    assert (times[0].num_replicas, times[0].seconds) == (1, 0.1)


def test_a_table_written_is_the_table_read(tmp_path):
    path = tmp_path / "times.csv"
    write_csv(path, ["batch_size", "num_replicas", "seconds"], [[8, 2, 0.25]])
    assert read_times(path)[0].seconds == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty"),
        ("batch_size,steps\n", r"a header and no rows"),
        ("batch,steps\n8,1\n", r"no column 'batch_size'.*did you mean batch\?"),
        ("batch_size,stps\n8,1\n", r"needs one of the columns steps, examples"),
        ("batch_size,steps,steps\n8,1,1\n", r"column 'steps' stands twice"),
        ("batch_size,steps\n8,abc\n", r"row 2, column steps must be .* got 'abc'"),
        ("batch_size,steps\n8,1\n8,nan\n", r"row 3, column steps .* got 'nan'"),
        ("batch_size,steps\n-8,1\n", r"row 2, column batch_size .* got '-8'"),
        ("batch_size,steps\n0,1\n", r"column batch_size must be a positive number"),
        ("batch_size,steps\n8,inf\n", r"row 2, column steps .* got 'inf'"),
        ("batch_size,steps\n8,\n", r"row 2, column steps .* got ''"),
        ("batch_size,steps\n8\n", r"row 2 has 1 values for 2 columns"),
        ("batch_size,steps,lr\n8,1,x\n", r"row 2, column lr .* got 'x'"),
        ("batch_size,steps,target\n8,1,x\n", r"column target must be a number"),
        ("batch_size,epochs\n8,1\n", r"counts epochs.*--examples-per-epoch"),
        ("batch_size;steps\n8;1\n", r"separate the columns with commas"),
        ("batch_size,steps,status\n8,1,maybe\n", r"column status cannot be 'maybe'"),
        ("batch_size,steps,examples\n8,100,80\n", r"but batch_size x steps is 800"),
        ("batch_size,steps\n8,1e200\n", r"must be within 1e-15 and 1e15, got '1e200'"),
    ],
)
def test_what_cannot_be_used_is_named_with_row_and_column(table, text, message):
    with pytest.raises(TableError, match=message):
        read_runs(table(text))


def test_a_part_of_a_replica_is_refused(table):
    with pytest.raises(TableError, match=r"row 2, column num_replicas .* got 1\.5"):
        read_times(table("batch_size,num_replicas,seconds\n8,1.5,2\n"))


def test_files_that_cannot_be_read_or_written_are_named(tmp_path):
    with pytest.raises(TableError, match="missing.csv: cannot be read: No such file"):
        read_runs(tmp_path / "missing.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(TableError, match="binary.csv: cannot be read"):
        read_runs(binary)
    with pytest.raises(TableError, match="cannot be written: No such file"):
        write_csv(tmp_path / "no" / "x.csv", ["a"], [])


def test_an_epoch_of_no_examples_is_refused(table):
    for size in (-1, float("nan")):
        with pytest.raises(InputError, match="`examples_per_epoch` must be positive"):
            read_runs(table("batch_size,epochs\n8,2\n"), examples_per_epoch=size)
