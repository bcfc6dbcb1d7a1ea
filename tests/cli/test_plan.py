"""``plan`` and ``sweep`` on a workload of milliseconds, from start to report."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = f"{Path(__file__).parents[1] / 'tiny_workload.py'}:tiny"
QUICK = ["--timing-seconds", ".2"]
GRID = ["--batch-sizes", "4,16,64", "--lr", ".1,.5", "--seeds", "2"]


@pytest.fixture
def workload(tmp_path):
    """Write a workload file of its own, which can be made to misbehave."""

    def write(body):
        path = tmp_path / "mine.py"
        path.write_text(
            "import sys\n"
            f"sys.path.insert(0, {str(Path(TINY).parent)!r})\n"
            "from tiny_workload import *\n"
            "def mine():\n"
            f"    {body}\n"
        )
        return f"{path}:mine"

    return write


def test_a_plan_has_every_stable_key_and_a_report(rightbatch, tmp_path):
    ended = rightbatch(
        "plan", TINY, *GRID, *QUICK, "--target", ".5,.4", "--replicas", "1,2",
        "--comm-seconds", "0.001", "--verify", "--processes", "1", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = ended.document
    assert [entry["num_replicas"] for entry in found["optimal"]] == [1, 2]
    assert [entry["num_replicas"] for entry in found["optimal_measured"]] == [1, 2]
    assert [entry["target"] for entry in found["convergence"]] == [0.5, 0.4]
    assert {"steps", "status", "target", "lr", "seed"} <= found["runs"][0].keys()
    assert len(found["runs"]) == 3 * 2 * 2 * 2
    assert found["step_time"]["overhead_seconds"]["value"] > 0
    check = found["verification"][1]
    assert check["batch_size"] == found["optimal"][0]["batch_size"]
    assert check["num_reached"] == 5
    assert check["measured_steps"] == pytest.approx(check["predicted_steps"], rel=0.6)
    assert check["measured_seconds"] > 0
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "runs" / "tiny.sqlite").exists()


def test_resuming_measures_nothing_again(rightbatch):
    words = [
        "plan",
        TINY,
        *GRID,
        *QUICK,
        "--replicas",
        "1",
        "--processes",
        "1",
        "--json",
    ]
    first = rightbatch(*words).document
    again = rightbatch(*words, "--resume").document
    assert again["runs"] == first["runs"]
    for name in ("min_steps", "min_examples", "critical_batch_size"):
        assert again["convergence"][0][name] == first["convergence"][0][name]
    assert again["step_time"]["points"] == [
        {**point, "memory_bytes": None} for point in first["step_time"]["points"]
    ]
    assert again["optimal"] == first["optimal"]
    stored = rightbatch("runs", "runs/tiny.sqlite", "--json").document["runs"]
    assert len(stored) == len(first["runs"])


def test_sweep_writes_the_table_that_fit_reads(rightbatch):
    swept = rightbatch(
        "sweep", TINY, *GRID, "--processes", "1", "--csv", "s.csv", "--json"
    )
    assert swept.code == 0
    fitted = rightbatch("fit", "s.csv", "--json").document["workloads"][0]
    assert fitted["workload"] == "tiny"
    assert fitted["num_batch_sizes"] == 3


def test_time_writes_the_table_that_plan_reads(rightbatch, tables):
    ended = rightbatch(
        "time", TINY, "--batch-sizes", "4,64,256", "--csv", "t.csv", "--replicas",
        "1,2", "--comm-seconds", ".01", "--budget-seconds", ".2", "--json",
    )  # fmt: skip
    assert ended.code == 0
    rows = ended.document["times"]
    assert {(row["batch_size"], row["num_replicas"]) for row in rows} >= {
        (4, 1),
        (8, 2),
    }
    # Times of so small a model can fall with the batch where the machine is busy.
    words = ["--max-batch-size", "1024", "--json"]
    planned = rightbatch("plan", "--runs", tables[0], "--times", "t.csv", *words)
    assert planned.code == 0


def test_a_target_never_reached_says_what_was_nearest(rightbatch):
    ended = rightbatch(
        "plan", TINY, *GRID, *QUICK, "--target", ".0001", "--max-steps", "60",
        "--replicas", "1", "--processes", "1", "--json",
    )  # fmt: skip
    assert ended.code == 3
    assert "no run reached loss 0.0001; nearest: 0." in ended.last_line
    assert ended.document["error"]["exit_code"] == 3
    assert len(ended.document["runs"]) == 12


def test_a_target_reached_at_one_batch_size_alone_is_no_law(rightbatch, workload):
    only_small = workload(
        "return make(loss=lambda m, b: cross_entropy(m, b) * (len(b[0]) != 64))"
    )
    ended = rightbatch(
        "plan", only_small, "--batch-sizes", "4,64", "--lr", ".1", "--seeds", "1",
        "--max-steps", "2000", "--replicas", "1", "--processes", "1", *QUICK,
    )  # fmt: skip
    assert ended.code == 3
    assert "was reached at batch size 4 alone, and a law needs two" in ended.last_line


def test_a_store_of_another_workload_is_refused(rightbatch, workload):
    other = workload("return make(name='other')")
    rightbatch("sweep", TINY, *GRID, "--processes", "1", "--store", "a.sqlite")
    ended = rightbatch("sweep", other, *GRID, "--store", "a.sqlite")
    assert ended.code == 2
    assert "tiny" in ended.last_line
    assert "other" in ended.last_line
    assert "--store" in ended.last_line


def test_a_file_that_is_no_store_is_refused(rightbatch, tmp_path):
    (tmp_path / "a.sqlite").write_text(
        "not a database, but a text of some length\n" * 9
    )
    ended = rightbatch("sweep", TINY, *GRID, "--store", "a.sqlite")
    assert ended.code == 2
    assert "a.sqlite" in ended.last_line


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('no such thing')", "RuntimeError: no such thing"),
        ("return make(model=lambda seed: 1 / 0)", "ZeroDivisionError: division by"),
        ("return make(loss=lambda m, b: m(b[0]).nope)", "AttributeError"),
        ("return 3", "must return a Workload, got int"),
    ],
)
def test_an_error_of_the_workload_itself_is_shown(rightbatch, workload, body, message):
    ended = rightbatch("plan", workload(body), *GRID, *QUICK, "--processes", "1")
    assert ended.code == (2 if "return 3" in body else 1)
    assert message in ended.last_line
    assert "mine.py" in ended.last_line
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_ctrl_c_keeps_the_finished_runs_and_says_how_to_go_on(tmp_path):
    words = ["plan", TINY, "--batch-sizes", "2,4,8,16,32,64", "--seeds", "40", *QUICK]
    command = [sys.executable, "-m", "rightbatch", *words, "--replicas", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    store = tmp_path / "runs" / "tiny.sqlite"
    deadline = time.monotonic() + 60
    while _num_runs(store) < 5:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "--resume" in said.strip().splitlines()[-1]
    assert _num_runs(store) >= 5


def _num_runs(path):
    from rightbatch.errors import RightbatchError
    from rightbatch.experiments.store import RunStore

    try:
        with RunStore(path) as store:
            return len(store.runs())
    except RightbatchError:
        return 0


def test_batch_normalisation_needs_no_batch_of_one(rightbatch, workload):
    normal = workload(
        "return make(model=lambda seed: nn.Sequential(nn.Linear(4, 8),"
        " nn.BatchNorm1d(8), nn.Linear(8, 2)))"
    )
    ended = rightbatch(
        "plan", normal, *GRID, *QUICK, "--replicas", "1", "--processes", "1", "--json"
    )
    assert ended.code == 0
    assert "batch size 1 cannot be timed" in ended.err
    assert ended.document["step_time"]["points"][0]["batch_size"] == 2


def test_what_a_workload_prints_is_kept_apart_from_the_json(rightbatch, workload):
    noisy = workload("print('hello'); return make()")
    ended = rightbatch("sweep", noisy, *GRID, "--processes", "1", "--json")
    assert len(ended.document["runs"]) == 12
    assert "hello" in ended.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-sizes", "16"], "two batch sizes or more"),
        (["--replicas", "1,500"], "500 replicas cannot each have an example"),
        (["--lr", ""], "--lr: '' is not a number"),
        (["--target", ""], "--target: '' is not a number"),
        (["--batch-sizes", "1:200000:1"], "is 200000 numbers, more than 1000"),
    ],
)
def test_what_cannot_work_is_refused_before_measuring(rightbatch, words, message):
    ended = rightbatch("plan", TINY, *words)
    assert ended.code == 2
    assert message in ended.last_line
    assert "timing" not in ended.err


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return make(model=lambda seed: 'net')",
            "must return a torch module, got str",
        ),
        ("return make(optimizer=lambda p, lr: None)", "must return a torch optimizer"),
    ],
)
def test_a_workload_of_wrong_pieces_is_refused(rightbatch, workload, body, message):
    ended = rightbatch("plan", workload(body), *GRID)
    assert ended.code == 2
    assert message in ended.last_line


def test_ctrl_c_while_timing_is_answered_with_one_line(rightbatch, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("rightbatch.timing.measure_step_times", interrupted)
    ended = rightbatch("plan", TINY, *GRID, "--json")
    assert ended.code == 130
    assert "--resume" in ended.last_line
    assert ended.document["error"]["exit_code"] == 130
