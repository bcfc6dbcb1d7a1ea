"""What a Dask worker does with a job that it is handed, for `dask_workers`."""

import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import Any

from rightbatch.errors import InputError, InterruptedRunError, RightbatchError
from rightbatch.experiments.workers import Work

try:
    from distributed import WorkerPlugin, get_worker
except ImportError as error:
    raise InputError(
        "Dask is not installed.", "pip install 'rightbatch[dask]'"
    ) from error

# Workers may be threads of one process, which has one state of torch.

_alone = threading.Lock()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job came to: an error is a value here, as Dask would log a raised one."""

    results: list[Any]
    error: RightbatchError | None = None


class Doing(WorkerPlugin):
    """What a worker needs to do the jobs of one run."""

    def __init__(
        self, prepare: Callable[..., Work[Any, Any]], arguments: tuple[Any, ...]
    ) -> None:
        # Unpickled by the first job, not in the worker's event loop: it loads torch.
        self._made_of = pickle.dumps((prepare, arguments))
        self._versions, self._home = compared_versions(), os.getpid()
        self._address = ""
        self._work: Work[Any, Any] | None = None
        self.is_over = False

    def setup(self, worker: Any) -> None:
        """Take note of where this is.

        Raises:
            InputError: Versions differ from those of who sent this.
        """
        self._address = worker.address
        self._check_versions()

    def teardown(self, worker: Any) -> None:
        """Let a job that is under way end with its next result."""
        self.is_over = True

    def do(self, payload: bytes) -> Outcome:
        """Return what a job came to."""
        results: list[Any] = []
        # In a process of its own; where the client's is this one, stdout is the user's.
        apart = os.getpid() != self._home
        try:
            # Workers with several threads, or in one process: torch's generators and
            # its number of threads are the process's.
            with _alone, redirect_stdout(sys.stderr) if apart else nullcontext():
                self._check_wanted()
                work = self._prepared()
                for result in work(pickle.loads(payload)):
                    results.append(result)
                    self._check_wanted()
        except RightbatchError as error:
            return Outcome(results, error)
        except Exception:
            said = f"the Dask worker {self._address} failed.\n{traceback.format_exc()}"
            return Outcome(results, RightbatchError(said))
        return Outcome(results)

    def _check_versions(self) -> None:
        found = compared_versions()
        differences = [
            f"{name} {found[name]}, here {wanted}"
            for name, wanted in self._versions.items()
            if found[name] != wanted
        ]
        if differences:
            raise InputError(
                f"the Dask worker {self._address} has other versions than this "
                f"process: {'; '.join(differences)}.",
                "install the same ones",
            )

    def _check_wanted(self) -> None:
        if self.is_over:
            raise InterruptedRunError("nobody waits for this run any more.")

    def _prepared(self) -> Work[Any, Any]:
        if self._work is None:
            self._work = self._made()
        return self._work

    def _made(self) -> Work[Any, Any]:
        # Of a worker that came later nobody has asked for them.
        self._check_versions()
        prepare, arguments = pickle.loads(self._made_of)
        try:
            return prepare(*arguments)
        except RightbatchError as error:
            told = type(error)(f"on the Dask worker {self._address}: {error}")
            raise told from error


def do_job(name: str, payload: bytes) -> Outcome:
    """Return what a job came to: the task that a worker is handed.

    Args:
        name: What the worker's :class:`Doing` goes by.
        payload: The job, pickled.
    """
    plugins: Any = get_worker().plugins
    doing = plugins.get(name)
    # Taken away while this came: nobody waits for what it would be.
    return Outcome([]) if doing is None else doing.do(payload)


def compared_versions() -> dict[str, str]:
    """Return the versions that must agree, by name."""
    from rightbatch.experiments.store import versions

    found = versions()
    # A repair release of Python changes no run.
    found["python"] = ".".join(found["python"].split(".")[:2])
    return found
