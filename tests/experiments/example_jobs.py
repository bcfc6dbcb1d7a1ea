"""Work for workers, importable there by name."""

import os
import signal
import sys
import time


def prepare(*facts):
    def work(job):
        yield job, os.getpid(), *facts
        yield -job, os.getpid(), *facts

    return work


def prepare_failing(error):
    def work(job):
        yield job
        raise error

    return work


def prepare_deadly():
    def work(job):
        yield job
        os.kill(os.getpid(), signal.SIGKILL)

    return work


def prepare_waiting(folder):
    """Each job leaves a file with its process and waits for the file `go`."""

    def work(job):
        (folder / f"job-{job}-{time.monotonic_ns()}").write_text(str(os.getpid()))
        while not (folder / "go").exists():
            time.sleep(0.01)
        yield job

    return work


def prepare_printing():
    def work(job):
        print("printed")
        yield job

    return work


def forget_rightbatch():
    """Make this process one where rightbatch is not installed."""
    for name in [name for name in sys.modules if name.startswith("rightbatch")]:
        del sys.modules[name]
    sys.modules["rightbatch"] = None
