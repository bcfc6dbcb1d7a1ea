"""What an update was, under names, in the loggers that are ready."""

import csv
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD
from torch.utils.data import TensorDataset

from rightbatch.controller import BatchSizeController, UpdateRecord
from rightbatch.errors import InputError
from rightbatch.gradients import NoiseMeter
from rightbatch.integrations.logging import (
    CsvLog,
    TensorBoardLog,
    UpdateLog,
    log_record,
    rows_of,
    tee,
)
from rightbatch.policies import GeoDamp
from rightbatch.sampler import MicroBatchStream
from rightbatch.training import Until, train

FULL = UpdateRecord(
    step=3,
    examples=24,
    batch_size=8,
    micro_batch_size=4,
    accumulation_steps=2,
    num_replicas=1,
    lr=0.2,
    loss=2.5,
    reason="because",
    seconds=0.75,
    wish=8.4,
    lr_factor=2.0,
    epoch=0.5,
    tokens=96.0,
    noise_scale=70.0,
    noise_scale_low=50.0,
    noise_scale_high=90.0,
    grad_sq_norm=0.25,
    grad_variance=17.5,
    batch_grad_sq_norm=0.3,
    inner_product_variance=0.1,
    eval_loss=2.25,
)
NAMED = {
    "batch/size": 8,
    "batch/micro_batch_size": 4,
    "batch/accumulation_steps": 2,
    "batch/num_replicas": 1,
    "batch/wish": 8.4,
    "batch/examples": 24,
    "batch/epoch": 0.5,
    "batch/tokens": 96.0,
    "noise/scale": 70.0,
    "noise/scale_low": 50.0,
    "noise/scale_high": 90.0,
    "noise/grad_sq_norm": 0.25,
    "noise/grad_variance": 17.5,
    "cost/seconds": 0.75,
    "loss/batch": 2.5,
    "loss/evaluated": 2.25,
    "optim/lr": 0.2,
    "optim/lr_factor": 2.0,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.csv"


def table(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


# Names ------------------------------------------------------------------------------


def test_every_number_of_a_record_has_its_name():
    assert rows_of(FULL) == NAMED


def test_the_speed_is_that_of_the_last_update():
    before = FULL._replace(step=2, seconds=0.5)
    assert rows_of(FULL, before) == {**NAMED, "cost/examples_per_second": 32.0}


def test_the_speed_of_the_first_update_needs_no_other_and_no_time_gives_none():
    first = FULL._replace(step=1)
    assert rows_of(first)["cost/examples_per_second"] == pytest.approx(8 / 0.75)
    assert "cost/examples_per_second" not in rows_of(FULL, FULL._replace(step=2))


def test_what_is_not_known_or_not_finite_is_left_out():
    record = FULL._replace(
        loss=math.nan, noise_scale_high=math.inf, eval_loss=None, tokens=None
    )
    missing = {"loss/batch", "noise/scale_high", "loss/evaluated", "batch/tokens"}
    assert rows_of(record) == {k: v for k, v in NAMED.items() if k not in missing}


def test_a_record_is_logged_once_with_its_step():
    told = []
    log_record(FULL, lambda numbers, step: told.append((numbers, step)))
    assert told == [(NAMED, 3)]


def test_noise_has_the_names_that_the_meter_gives_it():
    model, told = nn.Linear(3, 1), {}
    torch.manual_seed(0)
    with NoiseMeter(model) as meter:
        for _ in range(50):
            model.zero_grad()
            for _ in range(4):
                with meter.unit(examples=8):
                    loss = (model(torch.randn(8, 3)) - 1).square().mean()
                    (loss / 4).backward()
            meter.update()
        meter.log(lambda numbers, _step: told.update(numbers), 50)
    ours = {name for name in NAMED if name.startswith("noise/")}
    assert ours <= told.keys()


def test_a_training_loop_logs_its_updates():
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    controller = BatchSizeController(
        model,
        SGD(model.parameters(), lr=0.1),
        GeoDamp(initial_batch_size=8, delay=1, factor=2),
        MicroBatchStream(TensorDataset(torch.randn(64, 2)), 8, seed=0),
    )
    told, some = {}, []

    def log(numbers, step):
        told[step] = numbers

    every, fourth = (
        UpdateLog(log),
        UpdateLog(lambda _, step: some.append(step), every=4),
    )

    def see(record):
        every(record)
        fourth(record)

    train(
        controller,
        lambda model, batch: model(batch[0]).square().mean(),
        until=Until(epochs=2),
        on_update=see,
    )
    assert list(told) == list(range(1, 13))
    assert [told[step]["batch/size"] for step in told] == [8] * 8 + [16] * 4
    assert some == [1, 5, 9]
    first, second = controller.records[:2]
    speed = second.batch_size / (second.seconds - first.seconds)
    assert told[2]["cost/examples_per_second"] == speed


def test_updates_are_logged_every_whole_number_of_them():
    with pytest.raises(InputError, match="`every` must be a whole number >= 1, got 0"):
        UpdateLog(print, every=0)


def test_several_loggers_get_the_same_and_cannot_spoil_it_for_each_other():
    told = []
    log = tee(lambda numbers, _: numbers.clear(), lambda *all: told.append(all))
    log({"a": 1.0}, 3)
    assert told == [({"a": 1.0}, 3)]


# CSV --------------------------------------------------------------------------------


def test_a_name_that_appears_later_gets_a_column(path):
    log = CsvLog(path)
    log({"a": 1}, 1)
    log({"b": 0.1}, 2)
    log({"a": 3, "b": 1e-30}, 3)
    assert table(path) == [
        ["step", "a", "b"],
        ["1", "1", ""],
        ["2", "", "0.1"],
        ["3", "3", "1e-30"],
    ]


def test_what_is_logged_of_one_step_is_one_row(path):
    log = CsvLog(path)
    log({"a": 0.123456789}, 1)
    log({"b": 2}, 1)
    log({"a": 0.5}, 1)
    log({"a": 4}, 2)
    assert table(path) == [["step", "a", "b"], ["1", "0.5", "2"], ["2", "4", ""]]


rows = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.dictionaries(
            st.sampled_from(["a", "b,c", 'd"', "e\nf"]),
            st.floats(allow_nan=False) | st.integers(),
        ),
    ),
    max_size=12,
)


@given(rows=rows)
def test_a_log_reads_back_as_a_table_kept_in_memory(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("logs") / "log.csv"
    log, wanted = CsvLog(path), []
    for step, numbers in rows:
        log(numbers, step)
        if wanted and wanted[-1][0] == step:
            wanted[-1][1].update(numbers)
        else:
            wanted.append((step, dict(numbers)))
    header, *found = table(path) or [["step"]]
    assert [
        (int(step), {k: float(v) for k, v in zip(header[1:], cells, strict=True) if v})
        for step, *cells in found
    ] == [(step, {k: float(v) for k, v in row.items()}) for step, row in wanted]


def test_a_log_gone_on_with_drops_the_steps_that_are_made_again(path):
    log = CsvLog(path)
    for step in range(1, 6):
        log({"a": step}, step)
    log.close()
    again = CsvLog(path, resume=True)
    assert len(table(path)) == 6, "nothing is dropped before there is something new"
    again({"a": 30}, 3)
    again({"b": 31}, 3)
    again({"a": 40}, 4)
    assert table(path) == [
        ["step", "a", "b"],
        ["1", "1", ""],
        ["2", "2", ""],
        ["3", "30", "31"],
        ["4", "40", ""],
    ]


def test_a_log_is_begun_anew_unless_it_is_gone_on_with(path):
    CsvLog(path)({"a": 1}, 1)
    CsvLog(path)
    assert path.read_bytes() == b""
    CsvLog(path, resume=True)({"b": 2}, 7)
    assert table(path) == [["step", "b"], ["7", "2"]]


def test_a_row_cut_short_is_dropped_by_who_goes_on(path):
    path.write_text("step,a,b\n1,1,1\n2,2.2")
    CsvLog(path, resume=True)({"a": 3}, 3)
    assert table(path) == [["step", "a", "b"], ["1", "1", "1"], ["3", "3", ""]]


def test_numbers_of_other_libraries_are_written_as_numbers(path):
    numbers = {"a": np.float64(0.5), "b": torch.tensor(2.0), "c": np.int64(3)}
    CsvLog(path)({**numbers, "d": True, "e": math.nan}, np.int64(1))
    assert table(path)[1] == ["1", "0.5", "2.0", "3.0", "1", "nan"]


def test_what_is_no_number_is_refused(path):
    with pytest.raises(InputError, match="`a` must be a number, got 'much'"):
        CsvLog(path)({"a": "much"}, 1)


def test_a_closed_log_is_refused(path):
    log = CsvLog(path)
    log.close()
    with pytest.raises(InputError, match="the log is closed"):
        log({"a": 1}, 1)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step,a\nmany,2\n", "step", "step\n\n"])
def test_a_file_that_is_no_log_is_not_overwritten(path, text):
    path.write_text(text)
    for resume in (False, True):
        with pytest.raises(InputError, match="holds something else than a log"):
            CsvLog(path, resume=resume)
    assert path.read_text() == text


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="CsvLog: there is no folder"):
        CsvLog(tmp_path / "nowhere" / "log.csv")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_a_log_let_go_of_closes_its_file(path):
    before = len(os.listdir("/proc/self/fd"))
    for step in range(20):
        CsvLog(path)({"a": 1, "b": 2}, step)
    assert len(os.listdir("/proc/self/fd")) == before


KILLED = """
import sys
from rightbatch.integrations.logging import CsvLog
log = CsvLog(sys.argv[1])
step = 0
while True:
    step += 1
    log({"a": step, **({"b": step} if step > 50 else {})}, step)
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_killed_run_keeps_every_row_it_logged(path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if int(line) > 100:
            break
    process.send_signal(signal.SIGKILL)
    told = [int(line), *map(int, process.stdout.read().split())][-1]
    process.wait()
    process.stdout.close()
    header, *found = table(path)
    assert header == ["step", "a", "b"]
    assert [row[0] for row in found[:told]] == [str(n) for n in range(1, told + 1)]


# TensorBoard ------------------------------------------------------------------------


class Writer:
    def __init__(self):
        self.scalars, self.closed = [], False

    def add_scalar(self, *scalar):
        self.scalars.append(scalar)

    def close(self):
        self.closed = True


def test_a_writer_gets_a_scalar_per_number_and_stays_open():
    writer = Writer()
    log = TensorBoardLog(writer)
    log({"a": 1.0, "b": 2.0}, 5)
    log.close()
    assert writer.scalars == [("a", 1.0, 5), ("b", 2.0, 5)]
    assert not writer.closed


def test_a_folder_gets_torchs_writer_which_is_closed_with_the_log(
    tmp_path, monkeypatch
):
    made = []

    def summary_writer(folder):
        made.append((folder, Writer()))
        return made[0][1]

    module = SimpleNamespace(SummaryWriter=summary_writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = TensorBoardLog(tmp_path / "board")
    log({"a": 1.0}, 5)
    log.close()
    ((folder, writer),) = made
    assert folder == str(tmp_path / "board")
    assert writer.scalars == [("a", 1.0, 5)]
    assert writer.closed


def test_without_tensorboard_a_folder_is_refused_with_the_way_to_get_it(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="pip install tensorboard"):
        TensorBoardLog(tmp_path)


def test_a_number_that_is_called_step_does_not_move_the_row(tmp_path):
    log = CsvLog(tmp_path / "log.csv")
    log({"step": 99, "loss/batch": 1.0}, 1)
    assert (tmp_path / "log.csv").read_text() == "step,loss/batch\n1,1.0\n"


def test_a_log_that_goes_on_is_closed_for_good_too(tmp_path):
    CsvLog(tmp_path / "log.csv")({"loss/batch": 1.0}, 1)
    log = CsvLog(tmp_path / "log.csv", resume=True)
    log.close()
    with pytest.raises(InputError, match="the log is closed"):
        log({"loss/batch": 1.0}, 2)


def test_a_log_needs_a_path():
    with pytest.raises(InputError, match="`path` must be a path, got None"):
        CsvLog(None)
