import os
import signal
import threading
import time
from functools import partial

import pytest

from rightbatch.errors import RightbatchError, StoreError
from rightbatch.experiments.workers import run_in_processes


def prepare(offset):
    def work(job):
        yield os.getpid(), job + offset
        yield os.getpid(), job + offset + 0.5

    return work


def prepare_failing(error):
    def work(job):
        yield job
        raise error

    return work


def prepare_deadly(how):
    def work(job):
        yield os.getpid()
        if job == 1:
            how()
        time.sleep(60)

    return work


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_result_of_every_job_arrives_from_processes_of_their_own():
    found = list(run_in_processes(prepare, (100,), range(5), 2))
    values = sorted(value for _, value in found)
    assert values == sorted(
        [100.0 + job for job in range(5)] + [100.5 + j for j in range(5)]
    )
    assert os.getpid() not in {pid for pid, _ in found}
    assert not any(is_running(pid) for pid, _ in found)


def test_no_jobs_need_no_processes():
    assert list(run_in_processes(prepare, (0,), [], 3)) == []


def test_an_error_of_ours_arrives_as_it_is():
    results = run_in_processes(
        prepare_failing, (StoreError("as told", "wait"),), [7], 1
    )
    assert next(results) == 7
    with pytest.raises(StoreError, match=r"as told \(wait\)"):
        next(results)


def test_any_other_error_arrives_with_its_traceback():
    results = run_in_processes(prepare_failing, (KeyError("lost"),), [7], 1)
    assert next(results) == 7
    with pytest.raises(RightbatchError, match=r"a worker process failed(?s:.*)'lost'"):
        next(results)


def test_a_killed_worker_is_an_error_that_stops_the_others():
    results = run_in_processes(prepare_deadly, (killed,), [1, 2], 2)
    pids = []
    with pytest.raises(
        RightbatchError, match=r"killed by SIGKILL in the middle of 1\."
    ):
        pids.extend(results)
    assert not any(is_running(pid) for pid in pids)


def test_a_worker_that_ends_by_itself_is_an_error_with_its_exit_code():
    results = run_in_processes(prepare_deadly, (partial(os._exit, 3),), [1], 1)
    with pytest.raises(RightbatchError, match=r"ended with exit code 3.*__main__"):
        list(results)


def test_closing_the_results_stops_the_workers():
    results = run_in_processes(prepare_deadly, (killed,), [2, 3], 2)
    pid = next(results)
    assert is_running(pid)
    results.close()
    assert not is_running(pid)


def test_ctrl_c_hands_over_what_had_arrived_and_stops_the_workers():
    results = run_in_processes(prepare_deadly, (killed,), [2, 3], 2)
    pids = [next(results), next(results)]
    # While it waits for the next result, which never comes.
    threading.Timer(0.5, partial(os.kill, os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert not any(is_running(pid) for pid in pids)
