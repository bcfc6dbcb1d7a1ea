"""A sweep on Dask's workers, real processes among them, is the sweep of one process."""

import importlib
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest
import tiny_workload
from distributed import Client, LocalCluster
from example_replicas import forks_with_torch
from experiments import example_jobs

from rightbatch.errors import InputError, RightbatchError, WorkloadError
from rightbatch.experiments import dask_jobs, dask_workers
from rightbatch.experiments.dask_workers import DaskWorkers
from rightbatch.experiments.identity import open_store
from rightbatch.experiments.store import RunStore
from rightbatch.experiments.sweep import SweepSettings, sweep

FILE = Path(tiny_workload.__file__)
SETTINGS = SweepSettings(batch_sizes=(8, 32, 128), seeds=(0, 1), max_steps=2000)


def outcomes(runs):
    return [run.outcome() for run in runs]


@contextmanager
def cluster_of(workers, *, processes, threads=1, **scheduler):
    """Make a quiet cluster; yield it and its client."""
    # On a port that is free, or there is a warning beside other clusters.
    scheduler |= {"dashboard": False, "dashboard_address": ":0"}
    forks_with_torch()
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=processes,
            scheduler_kwargs=scheduler,
            memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield cluster, client


@pytest.fixture(scope="module")
def two_processes():
    with cluster_of(2, processes=True) as (_, client):
        yield client


@pytest.fixture
def threads():
    """Return a client of two workers that are two threads each, all in this process."""
    with cluster_of(2, threads=2, processes=False) as (_, client):
        yield client


@pytest.fixture(scope="module")
def alone():
    return sweep(f"{FILE}:dropout", SETTINGS, processes=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite"


def pids_of(client):
    return list(client.run(os.getpid).values())


def begun_in(folder):
    """Return the processes of the jobs that were begun."""
    return [int(text) for one in folder.glob("job-*") if (text := one.read_text())]


def wait_until(condition, seconds=60):
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.02)


# The same sweep ---------------------------------------------------------------------


@pytest.mark.slow
def test_two_worker_processes_give_the_runs_of_one_process(two_processes, alone, path):
    told = []
    with open_store(path, tiny_workload.dropout()) as store:
        runs = sweep(
            f"{FILE}:dropout",
            SETTINGS,
            processes=DaskWorkers(two_processes),
            store=store,
            on_progress=lambda *news: told.append(news),
        )
        assert outcomes(store.runs()) == outcomes(alone)
    assert outcomes(runs) == outcomes(alone)
    assert [done for done, _, _ in told] == list(range(1, 25))
    assert {total for _, total, _ in told} == {24}


def test_workers_of_several_threads_in_one_process_give_the_runs_of_one_process(
    threads, alone
):
    runs = sweep(f"{FILE}:dropout", SETTINGS, processes=DaskWorkers(threads))
    assert outcomes(runs) == outcomes(alone)


def test_a_sweep_that_is_resumed_takes_its_runs_from_the_store(threads, alone, path):
    workload = tiny_workload.dropout()
    with open_store(path, workload) as store:
        first = SweepSettings(batch_sizes=(8, 32), seeds=(0, 1), max_steps=2000)
        sweep(workload, first, store=store)
    with open_store(path, workload) as store:
        runs = sweep(
            f"{FILE}:dropout",
            SETTINGS,
            processes=DaskWorkers(threads),
            store=store,
            resume=True,
        )
        assert outcomes(runs) == outcomes(alone)
        assert outcomes(store.runs()) == outcomes(alone), "some were made again"


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(two_processes, alone, path):
    pids = pids_of(two_processes)

    def kill_one(done, *_):
        if done == 4:
            os.kill(pids[0], signal.SIGKILL)

    with open_store(path, tiny_workload.dropout()) as store:
        runs = sweep(
            f"{FILE}:dropout",
            SETTINGS,
            processes=DaskWorkers(two_processes),
            store=store,
            on_progress=kill_one,
        )
        assert outcomes(store.runs()) == outcomes(alone)
    assert outcomes(runs) == outcomes(alone)


def test_runs_are_in_the_store_when_progress_is_told_of_them(threads, path):
    seen = []
    with open_store(path, tiny_workload.dropout()) as store:
        sweep(
            f"{FILE}:dropout",
            SETTINGS,
            processes=DaskWorkers(threads),
            store=store,
            on_progress=lambda done, *_: seen.append(len(store.runs()) == done),
        )
    assert seen == [True] * 24


def test_an_error_of_the_workload_keeps_the_runs_before_it(threads, path):
    workload = tiny_workload.failing()
    settings = SweepSettings(batch_sizes=(2, 8), seeds=(0,), max_steps=2000)
    told = pytest.raises(RightbatchError, match="batch size 8.*ZeroDivisionError: as")
    with open_store(path, workload) as store, told:
        sweep(
            f"{FILE}:failing",
            settings,
            processes=DaskWorkers(threads),
            store=store,
        )
    with RunStore(path) as store:
        assert {run.batch_size for run in store.runs()} <= {2}


# Workers come and go ----------------------------------------------------------------


def test_each_worker_has_one_job_at_a_time_and_all_have_some(two_processes, tmp_path):
    workers = DaskWorkers(two_processes)
    results = workers.run(example_jobs.prepare_waiting, (tmp_path,), range(6))
    # All may go when two are under way, which takes two workers.
    watcher = _later(
        lambda: (
            wait_until(lambda: len(begun_in(tmp_path)) == 2),
            (tmp_path / "go").touch(),
        )
    )
    found = list(results)
    watcher.join()
    assert sorted(found) == list(range(6))
    assert set(begun_in(tmp_path)) == set(pids_of(two_processes))


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_is_done_again_and_told_of_once(
    two_processes, tmp_path
):
    workers = DaskWorkers(two_processes)
    results = workers.run(example_jobs.prepare_waiting, (tmp_path,), range(3))

    def kill_one():
        wait_until(lambda: len(begun_in(tmp_path)) == 2)
        os.kill(begun_in(tmp_path)[0], signal.SIGKILL)
        (tmp_path / "go").touch()

    watcher = _later(kill_one)
    assert sorted(results) == [0, 1, 2]
    watcher.join()
    assert len(begun_in(tmp_path)) == 4


def test_a_worker_that_comes_later_takes_its_part():
    with cluster_of(0, processes=False) as (cluster, client):
        told = []

        def on_wait(sentence):
            told.append(sentence)
            cluster.scale(1)

        workers = DaskWorkers(client, patience_seconds=4, on_wait=on_wait)
        found = list(workers.run(example_jobs.prepare, (), range(1, 4)))
    assert sorted(job for job, _ in found) == [-3, -2, -1, 1, 2, 3]
    assert told == ["the Dask scheduler has no workers; waiting 4 s for one ..."]


def test_a_scheduler_without_workers_is_an_error_and_not_a_wait():
    with cluster_of(0, processes=False) as (_, client):
        workers = DaskWorkers(client, patience_seconds=0.5)
        with pytest.raises(
            RightbatchError, match=r"no workers for 0\.5 s.*dask worker"
        ):
            list(workers.run(example_jobs.prepare, (), [1]))


def test_a_scheduler_that_goes_is_an_error_and_not_a_wait():
    with cluster_of(1, processes=False) as (cluster, client):
        results = DaskWorkers(client).run(example_jobs.prepare, (), range(1, 50))
        next(results)
        cluster.close()
        with pytest.raises(RightbatchError, match="the Dask scheduler is gone"):
            list(results)


@pytest.mark.slow
def test_a_job_that_kills_its_workers_is_an_error_in_the_end():
    killed = pytest.raises(RightbatchError, match="killed again and again.* of 7")
    with cluster_of(1, processes=True, allowed_failures=0) as (_, client), killed:
        list(DaskWorkers(client).run(example_jobs.prepare_deadly, (), [7]))


def test_what_is_not_wanted_any_more_is_called_off(threads, tmp_path):
    prepare = example_jobs.prepare_waiting
    results = DaskWorkers(threads).run(prepare, (tmp_path,), range(9))
    (tmp_path / "go").touch()
    next(results)
    (tmp_path / "go").unlink()
    results.close()
    assert not threads.futures
    # The scheduler has come to all that was sent before this: what was on its way to a
    # worker has begun.
    assert threads.submit(int, 2).result() == 2
    begun = len(list(tmp_path.glob("job-*")))
    (tmp_path / "go").touch()
    assert threads.submit(int, 3).result() == 3
    assert len(list(tmp_path.glob("job-*"))) == begun < 9


def test_a_job_that_nobody_waits_for_ends_with_its_next_result(tmp_path):
    doing = dask_jobs.Doing(_prepare_endless, (tmp_path,))
    done = []
    thread = _later(lambda: done.append(doing.do(b"\x80\x04N.")))
    wait_until((tmp_path / "begun").exists)
    doing.teardown(None)
    thread.join(20)
    assert "nobody waits for this run" in str(done[0].error)


def _prepare_endless(folder):
    def work(_job):
        while True:
            (folder / "begun").touch()
            yield None

    return work


def _later(call):
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_hands_over_what_was_done_and_calls_off_the_rest(threads, tmp_path):
    prepare = example_jobs.prepare_waiting
    results = DaskWorkers(threads).run(prepare, (tmp_path,), range(5))
    (tmp_path / "go").touch()
    found = [next(results)]
    (tmp_path / "go").unlink()
    _later(lambda: (time.sleep(0.5), os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        found.extend(results)
    (tmp_path / "go").touch()
    assert 1 <= len(found) < 5
    assert len(found) == len(set(found))


# Bad input --------------------------------------------------------------------------


def test_a_workload_without_a_name_is_refused(threads):
    with pytest.raises(InputError, match="`workload` must be a name where other work"):
        sweep(tiny_workload.tiny(), SETTINGS, processes=DaskWorkers(threads))


def test_a_closed_client_is_refused(threads):
    workers = DaskWorkers(threads)
    threads.close()
    for call in (lambda: DaskWorkers(threads), lambda: list(workers.run(None, (), []))):
        with pytest.raises(
            InputError, match="a connected Dask client, got one that is "
        ):
            call()


def test_what_is_no_client_is_refused():
    with pytest.raises(InputError, match="got one that is str"):
        DaskWorkers("tcp://127.0.0.1:8786")


def test_an_asynchronous_client_is_refused():
    class Asynchronous:
        asynchronous, status = True, "running"

    with pytest.raises(InputError, match="`client` must not be asynchronous"):
        DaskWorkers(Asynchronous())


def test_a_module_that_the_workers_cannot_import_is_named_with_the_worker(
    two_processes, tmp_path, monkeypatch
):
    (tmp_path / "only_here.py").write_text("from tiny_workload import tiny\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        WorkloadError, match=r"on the Dask worker tcp://.*'only_here' was not found"
    ):
        sweep("only_here:tiny", SETTINGS, processes=DaskWorkers(two_processes))


def test_a_workload_that_is_another_one_on_the_workers_is_refused(
    two_processes, tmp_path
):
    (tmp_path / "mine.py").write_text(
        "import multiprocessing\n"
        "from tiny_workload import make, points\n"
        "def mine():\n"
        "    apart = multiprocessing.parent_process() is not None\n"
        "    return make(train=points(256, int(apart)))\n"
    )
    with pytest.raises(
        WorkloadError, match=r"mine' is another one: train '256.*where the sweep began"
    ):
        sweep(
            f"{tmp_path / 'mine.py'}:mine",
            SETTINGS,
            processes=DaskWorkers(two_processes),
        )


def test_a_file_named_from_the_current_folder_is_found_by_workers_elsewhere(
    threads, tmp_path, monkeypatch
):
    monkeypatch.chdir(FILE.parent)
    spec, folder = f"{FILE.name}:tiny", Path("..")
    workers = DaskWorkers(threads)
    run, arguments = workers.run, []

    def run_elsewhere(prepare, facts, jobs):
        arguments.extend(facts)
        monkeypatch.chdir(tmp_path)
        return run(prepare, facts, jobs)

    monkeypatch.setattr(workers, "run", run_elsewhere)
    settings = SweepSettings(batch_sizes=(128,), seeds=(0,), max_steps=200)
    assert len(sweep(spec, settings, processes=workers, data_dir=folder)) == 4
    assert arguments[:2] == [f"{FILE}:tiny", FILE.parent / ".."]


def test_other_versions_on_a_worker_are_named(threads, monkeypatch):
    ours = dask_jobs.compared_versions()
    answers = iter([{**ours, "torch": "1.0"}])
    monkeypatch.setattr(dask_jobs, "compared_versions", lambda: next(answers, ours))
    with pytest.raises(
        InputError, match=rf"other versions.*torch {ours['torch'][:4]}.*, here 1\.0"
    ):
        list(DaskWorkers(threads).run(example_jobs.prepare, (), [1]))


@pytest.mark.slow
def test_a_worker_without_rightbatch_is_an_error_that_says_so():
    with cluster_of(1, processes=True) as (_, client):
        client.run(example_jobs.forget_rightbatch)
        with pytest.raises(InputError, match="cannot run it.*rightbatch.*install"):
            list(DaskWorkers(client).run(example_jobs.prepare, (), [1]))


def test_any_other_error_of_a_job_arrives_with_its_traceback(threads):
    error = KeyError("lost")
    results = DaskWorkers(threads).run(example_jobs.prepare_failing, (error,), [7])
    assert next(results) == 7
    with pytest.raises(RightbatchError, match=r"worker inproc.* failed(?s:.*)'lost'"):
        next(results)


def test_any_other_error_of_dask_is_told_with_its_name():
    with pytest.raises(RightbatchError, match="in the middle of 7: OSError: no route"):
        dask_workers._explain(OSError("no route"), 7)


def test_without_dask_the_module_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for module in (dask_jobs, dask_workers):
        monkeypatch.delitem(sys.modules, module.__name__)
    with pytest.raises(InputError, match=r"pip install 'rightbatch\[dask\]'"):
        importlib.import_module(dask_workers.__name__)


def test_what_a_job_prints_does_not_mix_with_results_of_other_processes(
    two_processes, threads, capfd
):
    for client in (two_processes, threads):
        list(DaskWorkers(client).run(example_jobs.prepare_printing, (), [1]))
    said = capfd.readouterr()
    # In the user's own process, what is printed is the user's affair.
    assert said.out.count("printed") == 1
