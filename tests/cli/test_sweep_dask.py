"""``sweep --dask``: on processes that Dask starts, and on a scheduler's workers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import LocalCluster
from experiments.example_processes import needs_proc, none_left_of

from rightbatch.experiments import dask_connection, dask_jobs, dask_workers
from rightbatch.experiments.store import RunStore

FILE = Path(__file__).parents[1] / "tiny_workload.py"
TINY = f"{FILE}:tiny"
GRID = ["--batch-sizes", "4,16,64", "--lr", ".1,.5", "--seeds", "2"]


@pytest.fixture
def scheduler():
    """Return the address of a scheduler whose one worker is in this process."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp",
        scheduler_kwargs={"dashboard": False, "dashboard_address": ":0"},
    ) as cluster:
        yield cluster


def stored(path):
    with RunStore(Path(path)) as store:
        return store.runs()


def runs_of(ended):
    assert ended.code == 0, ended.err
    return ended.document["runs"]


@pytest.mark.slow
def test_processes_that_dask_starts_give_the_runs_of_one_process(rightbatch, tmp_path):
    (tmp_path / "mine.py").write_text(
        f"import sys\nsys.path.insert(0, {str(FILE.parent)!r})\n"
        "from tiny_workload import tiny\n"
        "def mine():\n    print('loaded')\n    return tiny()\n"
    )
    words = ["sweep", "mine.py:mine", *GRID, "--json"]
    alone = rightbatch(*words, "--processes", "1", "--store", "a.sqlite")
    # Whatever the workers print, the one document is all there is on stdout.
    spread = subprocess.run(
        [sys.executable, "-W", "error", "-m", "rightbatch", *words]
        + ["--dask", "local", "--processes", "1", "--store", "b.sqlite"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert spread.returncode == 0, spread.stderr
    assert json.loads(spread.stdout)["runs"] == runs_of(alone)
    said = {"running tiny to the target ...", "12 runs are kept in b.sqlite", "loaded"}
    assert set(spread.stderr.splitlines()) == said
    assert len(stored("b.sqlite")) == 12


def test_a_schedulers_workers_give_the_runs_of_one_process(rightbatch, scheduler):
    words = ["sweep", TINY, *GRID, "--json"]
    alone = rightbatch(*words, "--processes", "1", "--store", "a.sqlite")
    address = scheduler.scheduler_address
    spread = rightbatch(*words, "--dask", address, "--store", "b.sqlite")
    assert runs_of(spread) == runs_of(alone)
    again = rightbatch(*words, "--dask", address, "--store", "b.sqlite", "--resume")
    assert runs_of(again) == runs_of(alone)
    assert len(stored("b.sqlite")) == 12


def test_a_scheduler_without_workers_is_told_of_and_given_up(
    rightbatch, scheduler, monkeypatch
):
    monkeypatch.setattr(dask_connection, "PATIENCE_SECONDS", 2.0)
    scheduler.scale(0)
    while scheduler.scheduler.workers:
        time.sleep(0.01)
    ended = rightbatch("sweep", TINY, *GRID, "--dask", scheduler.scheduler_address)
    assert ended.code == 1
    assert "has no workers; waiting 2 s for one ..." in ended.err
    assert "the Dask scheduler had no workers for 2 s" in ended.last_line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dask", "everywhere"], "--dask must be local or a scheduler's address"),
        (["--dask", "tcp://127.0.0.1:1"], "tcp://127.0.0.1:1: ConnectionRefusedError"),
        (["--dask", "tcp://127.0.0.1"], "missing port number in address"),
        (["--dask", "foo://here:1"], "unknown address scheme 'foo'"),
        (
            ["--dask", "tcp://here:1", "--processes", "2"],
            "--processes goes with --dask",
        ),
    ],
)
def test_an_address_where_no_scheduler_answers_is_refused(
    rightbatch, monkeypatch, words, message
):
    monkeypatch.setattr(dask_connection, "CONNECT_SECONDS", 0.5)
    ended = rightbatch("sweep", TINY, *GRID, *words)
    assert ended.code == 2
    assert message in ended.last_line
    assert "Traceback" not in ended.err


def test_without_dask_the_command_says_how_to_get_it(rightbatch, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for module in (dask_jobs, dask_workers, dask_connection):
        monkeypatch.delitem(sys.modules, module.__name__)
    ended = rightbatch("sweep", TINY, *GRID, "--dask", "local")
    assert ended.code == 2
    assert "pip install 'rightbatch[dask]'" in ended.last_line


@pytest.mark.slow
@needs_proc
def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process(rightbatch, tmp_path):
    words = ["sweep", f"{FILE}:slow", *GRID, "--json", "--resume"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rightbatch", *words, "--dask=local", "--processes=1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    store = tmp_path / "runs" / "slow.sqlite"
    while not (store.exists() and stored(store)):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    # As a terminal does: to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "finished runs are kept" in errors.splitlines()[-1]
    assert none_left_of(process)
    assert 0 < len(stored(store)) < 12
    alone = rightbatch(*words[:-1], "--processes", "1", "--store", "alone.sqlite")
    assert runs_of(rightbatch(*words, "--processes", "1")) == runs_of(alone)
