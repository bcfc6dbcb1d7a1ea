"""Tables measured elsewhere: what is read, and what is refused with row and column."""

import math
import resource
from pathlib import Path

import pytest

from rightbatch.errors import InputError, RightbatchError, TableError
from rightbatch.experiments.tables import (
    read_columns,
    read_losses,
    read_runs,
    read_times,
    write_csv,
)


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


def test_a_disk_that_is_full_keeps_the_older_table_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "runs.csv"
    write_csv(path, ["a"], [[1]])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(RightbatchError, match=r"File too large. \(free some space"):
            write_csv(path, ["a"], [[number] for number in range(10_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_text().split() == ["a", "1"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_that_takes_nothing_is_no_bad_input_and_stays_a_device():
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("no such device here")
    with pytest.raises(RightbatchError, match="No space left") as caught:
        write_csv(device, ["a"], [])
    assert caught.value.exit_code == 1
    assert device.is_char_device()


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
        (
            "batch_size,steps,tokens\n8,100,819200\n",
            r"column tokens is 819200, but batch_size x steps is 800.*"
            r"--tokens-per-example 1024",
        ),
        (
            "batch_size,examples,tokens\n8,800,1600\n",
            r"column tokens is 1600, but column examples is 800",
        ),
        (
            "batch_size,unit,steps\n8,token,9\n16,sample,9\n32,samples,9\n",
            r"row 2 counts tokens, and rows 3, 4 count samples",
        ),
        (
            "batch_size,unit,tokens\n8,sequence,900\n",
            r"row 2 has a batch size in sequences and a length in tokens",
        ),
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


# Units -------------------------------------------------------------------------------


def test_the_unit_is_the_table_s_or_the_one_said(table):
    plain, named = table("batch_size,steps\n8,100\n"), "batch_size,steps,unit\n8,9,"
    assert read_runs(plain)[0].example_unit == "example"
    assert read_runs(plain, example_unit="Tokens")[0].example_unit == "token"
    assert read_runs(table(named + "samples\n"))[0].example_unit == "sample"
    tokens = table("batch_size,tokens\n8,800\n")
    assert read_runs(tokens)[0].example_unit == "token"


def test_sequences_become_tokens_and_the_steps_stay(table):
    for text in (
        "batch_size,tokens\n8,819200\n",
        "batch_size,steps\n8,100\n",
        "batch_size,steps,tokens\n8,100,819200\n",
        "batch_size,examples,unit\n8,800,sequences\n",
    ):
        (run,) = read_runs(table(text), tokens_per_example=1024)
        assert (run.batch_size, run.steps) == (8192, 100)
        assert run.example_unit == "token"


def test_two_workloads_may_count_in_two_units(table):
    text = "workload,batch_size,steps,unit\na,8,100,token\nb,8,100,image\n"
    assert [run.example_unit for run in read_runs(table(text))] == ["token", "image"]


def test_a_unit_that_contradicts_the_table_is_refused(table):
    text = "batch_size,steps,unit\n8,100,token\n"
    with pytest.raises(TableError, match="row 2 counts tokens, and --unit says sample"):
        read_runs(table(text), example_unit="sample")
    with pytest.raises(InputError, match="--tokens-per-example makes the unit token"):
        read_runs(table(text), example_unit="sample", tokens_per_example=2)
    with pytest.raises(InputError, match="`tokens_per_example` must be positive"):
        read_runs(table(text), tokens_per_example=0)


def test_epochs_that_contradict_the_steps_are_refused(table):
    text = "batch_size,steps,epochs\n8,100,2\n"
    assert read_runs(table(text), examples_per_epoch=400)[0].steps == 100
    with pytest.raises(TableError, match="column epochs is 2, but batch_size x steps"):
        read_runs(table(text), examples_per_epoch=500)


def test_an_epoch_unlike_the_others_is_refused(table):
    rows = ["8,100,2", "8,150,3", "16,60,2", "32,70,20"]
    with pytest.raises(TableError, match="row 5 has 2240 examples in 20 epochs, 112"):
        read_runs(table("\n".join(["batch_size,steps,epochs", *rows])))
    assert len(read_runs(table("\n".join(["batch_size,steps,epochs", *rows[:3]])))) == 3


def test_notes_are_left_alone(table):
    text = "batch_size,steps,examples,notes\n8,100,800,lr=0.1;opt=lamb;unit=samples\n"
    assert read_runs(table(text))[0].example_unit == "example"


# Losses ------------------------------------------------------------------------------


def test_runs_that_missed_the_target_count_by_their_loss(table):
    text = (
        "batch_size,steps,loss,lr,status\n8,100,2.5,.1,reached\n"
        "8,200,2.2,,not_reached\n8,300,nan,,diverged\n"
    )
    first, second = read_losses(table(text))
    assert (first.steps, first.loss, first.lr) == (100, 2.5, 0.1)
    assert (second.steps, second.loss, second.lr) == (200, 2.2, None)


def test_the_name_of_a_run_is_any_text(table):
    text = 'batch_size,steps,loss,run\n8,100,2.5,"seed 1, warm"\n8,100,2.4,2\n'
    names = ["seed 1, warm", "2"]
    assert [row.run for row in read_losses(table(text))] == names
    assert [row.run for row in read_runs(table(text))] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size,steps\n8,9\n", "has no column 'loss'"),
        ("batch_size,steps,loss\n8,9,-1\n", "row 2, column loss .* losses above 0"),
        ("batch_size,steps,loss\n8,9,\n", "row 2, column loss must be"),
        ("batch_size,steps,loss,status\n8,,2,not_reached\n", "row 2, column steps"),
        ("batch_size,steps,loss,status\n8,9,2,diverged\n", "all its runs diverged"),
    ],
)
def test_losses_that_cannot_be_used_are_named(table, text, message):
    with pytest.raises(TableError, match=message):
        read_losses(table(text))


def test_a_loss_column_is_not_read_with_the_runs(table):
    assert read_runs(table("batch_size,steps,loss\n8,100,-3\n"))[0].steps == 100


def test_the_columns_of_a_table_are_listed(table):
    assert read_columns(table("batch_size,steps\n")) == ("batch_size", "steps")
    with pytest.raises(TableError, match="is empty"):
        read_columns(table(""))
