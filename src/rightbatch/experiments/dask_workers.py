"""Work spread over the workers of a Dask cluster, which may come and go meanwhile.

What :func:`rightbatch.experiments.workers.run_in_processes` does on one machine: jobs
are begun in order, their results arrive here as each job ends, and only here is
anything written. A job whose worker dies is done again by another one.
"""

import logging
import os
import pickle
import sys
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from rightbatch._checks import positive_integer
from rightbatch.errors import InputError, InterruptedRunError, RightbatchError
from rightbatch.experiments.workers import Result, Work, interrupts_held, num_cores

try:
    from distributed import Client, LocalCluster, WorkerPlugin, get_worker
    from distributed.comm.addressing import get_address_host_port
except ImportError as error:
    raise InputError(
        "Dask is not installed.", "pip install 'rightbatch[dask]'"
    ) from error

PATIENCE_SECONDS = 60.0
CONNECT_SECONDS = 5.0
TELL_SECONDS = 5.0
LOOK_SECONDS = 1.0
# One under way and one that waits: an adaptive cluster sees that there is more to do,
# and a worker that dies is held against two jobs, not against all that is left.
JOBS_PER_WORKER = 2

Told = Callable[[str], Any]


class DaskWorkers:
    """The workers that a Dask client has, for :func:`rightbatch.experiments.sweep`.

    .. code-block:: python

        with Client("tcp://10.0.0.1:8786") as client:
            sweep("digits-mlp", settings, processes=DaskWorkers(client), store=store)

    Each does one job at a time, however many threads it has. rightbatch must be
    installed on the scheduler and the workers, torch and it in the versions of here.

    Args:
        client: Connected, and not of an asynchronous program.
        patience_seconds: How long to wait where there is no worker.
        on_wait: Told when it comes to that, in a sentence.

    Raises:
        InputError: The client is closed or asynchronous.
    """

    def __init__(
        self,
        client: Any,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        on_wait: Told | None = None,
    ) -> None:
        self._client, self._patience = client, patience_seconds
        self._on_wait: Told = on_wait or _say_nothing
        self._check_open()

    def run(
        self,
        prepare: Callable[..., Work[Any, Result]],
        arguments: tuple[Any, ...],
        jobs: Iterable[Any],
    ) -> Generator[Result]:
        """Yield what the jobs yield, of each job when all of it is done.

        Args:
            prepare: ``prepare(*arguments)``, called once on each worker, returns the
                function that does a job; importable by name there.
            arguments: For `prepare`; all that passes is pickled.
            jobs: Begun in this order.

        Yields:
            The results of the jobs; on Ctrl-C those of the jobs that were done.

        Raises:
            InputError: The client is closed, or versions differ on a worker.
            RightbatchError: A job failed, its workers died again and again, or there
                are no workers any more; what was under way is called off.
            KeyboardInterrupt: Ctrl-C, after that.
        """
        self._check_open()
        with _sent(self._client, _Doing(prepare, arguments)) as name:
            going = _Going(self._client, name, jobs)
            try:
                yield from self._results(going)
            except KeyboardInterrupt:
                yield from going.arrived()
                raise
            finally:
                going.cancel()

    def _results(self, going: "_Going") -> Iterator[Any]:
        seen, told = time.monotonic(), False
        going.top_up(self._count())
        while going.jobs:
            done = going.next(LOOK_SECONDS)
            if done is not None:
                yield from done
            workers = self._count()
            going.top_up(workers)
            if workers:
                seen, told = time.monotonic(), False
                continue
            alone = time.monotonic() - seen
            if not told and alone > min(TELL_SECONDS, self._patience / 2):
                told = True
                self._on_wait(
                    "the Dask scheduler has no workers; waiting "
                    f"{self._patience:g} s for one ..."
                )
            if alone > self._patience:
                raise RightbatchError(
                    f"the Dask scheduler had no workers for {self._patience:g} s.",
                    "start some: dask worker ADDRESS; what is finished is kept",
                )

    def _count(self) -> int:
        try:
            found = self._client.scheduler_info()
        except (OSError, RuntimeError) as error:
            raise _gone() from error
        # What a client that has lost its scheduler knows is nothing, or old.
        if self._client.status != "running" or "workers" not in found:
            raise _gone()
        return len(found["workers"])

    def _check_open(self) -> None:
        if getattr(self._client, "asynchronous", False):
            raise InputError(
                "DaskWorkers: `client` must not be asynchronous.",
                "make it with asynchronous=False, outside of a coroutine",
            )
        status = getattr(self._client, "status", None)
        if status != "running":
            raise InputError(
                "DaskWorkers: `client` must be a connected Dask client, got one that "
                f"is {status or type(self._client).__name__}.",
                "make another one",
            )


@contextmanager
def dask_workers(
    place: str,
    *,
    processes: int | None = None,
    on_wait: Told | None = None,
) -> Generator[DaskWorkers]:
    """Connect to a Dask cluster for the length of a block, Dask's own log kept still.

    Args:
        place: ``local`` for a cluster of processes on this machine, which ends with
            the block; or a scheduler's address, ``tcp://host:port``.
        processes: Of a local cluster, one thread each; one per core when None.
        on_wait: As :class:`DaskWorkers` has it.

    Yields:
        The workers.

    Raises:
        InputError: No scheduler answers there, or it is no address.
    """
    if place != "local" and "://" not in place:
        raise InputError(
            f"--dask must be local or a scheduler's address, got {place!r}.",
            "write tcp://host:port",
        )
    if place != "local" and processes is not None:
        raise InputError(
            "--processes goes with --dask local: a scheduler's workers are as many as "
            "there are.",
            "leave it out",
        )
    with _quiet_dask():
        connected = _local(processes) if place == "local" else _connected(place)
        with connected as client:
            yield DaskWorkers(
                client, patience_seconds=PATIENCE_SECONDS, on_wait=on_wait
            )


@contextmanager
def _local(processes: int | None) -> Generator[Any]:
    number = num_cores() if processes is None else processes
    positive_integer("sweep", "processes", number)
    make: Any = LocalCluster
    # Its processes inherit that Ctrl-C is blocked: this process answers it for all.
    with interrupts_held():
        cluster = make(
            n_workers=number,
            threads_per_worker=1,
            processes=True,
            # Its server is there without the page too: on a port that is free.
            scheduler_kwargs={"dashboard": False, "dashboard_address": ":0"},
            # As without Dask, memory is the system's affair.
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@contextmanager
def _connected(address: str) -> Generator[Any]:
    try:
        # A client that fails on a wrong address leaves half of itself behind.
        get_address_host_port(address, strict=True)
        with warnings.catch_warnings():
            # What must agree is compared by us, and named.
            warnings.simplefilter("ignore")
            client: Any = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        # "Timed out" has a cause that says more, behind the name of an object.
        reason = str(error.__cause__ or error).rpartition(">: ")[2]
        raise InputError(
            f"no Dask scheduler answers at {address}: {reason}",
            "is it running? start one: dask scheduler",
        ) from error
    with client:
        yield client


def _say_nothing(_sentence: str) -> None:
    """Stand for nobody to tell."""


@contextmanager
def _quiet_dask() -> Generator[None]:
    """Keep Dask's log still in this process: what matters is said by our errors."""
    handlers = logging.getLogger("distributed").handlers
    before = [(handler, handler.level) for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in before:
            handler.setLevel(level)


# Here -------------------------------------------------------------------------------


class _Going:
    """The jobs of a run: those that wait, those handed out, those done."""

    def __init__(self, client: Any, name: str, jobs: Iterable[Any]) -> None:
        self._client, self._name = client, name
        self._waiting = list(enumerate(jobs))[::-1]
        self._futures: dict[str, Any] = {}
        self._done: SimpleQueue[Any] = SimpleQueue()
        self.jobs = {f"{name}-{place}": job for place, job in self._waiting}

    def top_up(self, workers: int) -> None:
        """Hand out what that many workers can have before them."""
        most = JOBS_PER_WORKER * max(1, workers)
        while self._waiting and len(self._futures) < most:
            place, job = self._waiting.pop()
            key = f"{self._name}-{place}"
            # Pickled here: the scheduler need not know what it passes on.
            future = self._client.submit(
                _do,
                self._name,
                pickle.dumps(job),
                key=key,
                priority=-place,
            )
            self._futures[key] = future
            future.add_done_callback(self._done.put)

    def next(self, seconds: float) -> Iterator[Any] | None:
        """Return the results of a job that is done; None where none was for a time."""
        try:
            future = self._done.get(timeout=seconds)
        except Empty:
            return None
        return self._results_of(future)

    def arrived(self) -> Iterator[Any]:
        """Yield the results that are there, without waiting for any.

        Yields:
            Those of the jobs that are done and were not told of.
        """
        for future in list(self._futures.values()):
            if future.status == "finished":
                # Nothing is to be told of now but what was asked for: to stop.
                with suppress(Exception):
                    yield from future.result(timeout=CONNECT_SECONDS).results

    def cancel(self) -> None:
        """Call off what is not done."""
        with suppress(Exception):
            self._client.cancel(list(self._futures.values()))
        self._futures.clear()

    def _results_of(self, future: Any) -> Iterator[Any]:
        job = self.jobs[future.key]
        try:
            outcome = future.result()
        except CancelledError:
            raise _gone() from None
        except Exception as error:
            _explain(error, job)
        del self.jobs[future.key], self._futures[future.key]
        yield from outcome.results
        if outcome.error is not None:
            raise outcome.error


@contextmanager
def _sent(client: Any, doing: "_Doing") -> Generator[str]:
    """Have what does the jobs on every worker, those that come later included.

    Yields:
        The name it goes by there.

    Raises:
        RightbatchError: A worker cannot have it.
    """
    name = f"rightbatch-{uuid.uuid4().hex}"
    try:
        try:
            client.register_plugin(doing, name=name)
        except RightbatchError:
            raise
        except Exception as error:
            _explain(error, "getting ready")
        yield name
    finally:
        with suppress(Exception):
            client.unregister_worker_plugin(name)


def _gone() -> RightbatchError:
    return RightbatchError(
        "the Dask scheduler is gone, or has forgotten this client.",
        "what is finished is kept; resume on another one",
    )


def _explain(error: Exception, job: Any) -> NoReturn:
    """Raise what an error of Dask's own means.

    Raises:
        RightbatchError: In our words.
        InputError: If it is one that can be set right.
    """
    if type(error).__name__ == "KilledWorker":
        raise RightbatchError(
            f"Dask workers were killed again and again in the middle of {job}.",
            "too little memory? try fewer workers on a machine, and resume",
        ) from None
    # Dask may hand over an error as itself, as a cause or as a text.
    cause = error.__cause__ or error
    if isinstance(cause, ImportError) or "ModuleNotFoundError" in str(cause):
        raise InputError(
            f"the Dask cluster cannot run it: {cause}.",
            "install the rightbatch of here on the scheduler and on every worker",
        ) from error
    raise RightbatchError(
        f"Dask failed in the middle of {job}: {type(error).__name__}: {error}"
    ) from error


# On a worker ------------------------------------------------------------------------

_alone = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a job came to: an error is a value here, as Dask would log a raised one."""

    results: list[Any]
    error: RightbatchError | None = None


class _Doing(WorkerPlugin):
    """What a worker needs to do the jobs of one run."""

    def __init__(
        self, prepare: Callable[..., Work[Any, Any]], arguments: tuple[Any, ...]
    ) -> None:
        # Unpickled by the first job, not in the worker's event loop: it loads torch.
        self._made_of = pickle.dumps((prepare, arguments))
        self._versions, self._home = _compared_versions(), os.getpid()
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

    def do(self, payload: bytes) -> _Outcome:
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
            return _Outcome(results, error)
        except Exception:
            said = f"the Dask worker {self._address} failed.\n{traceback.format_exc()}"
            return _Outcome(results, RightbatchError(said))
        return _Outcome(results)

    def _check_versions(self) -> None:
        found = _compared_versions()
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


def _do(name: str, payload: bytes) -> _Outcome:
    plugins: Any = get_worker().plugins
    doing = plugins.get(name)
    # Taken away while this came: nobody waits for what it would be.
    return _Outcome([]) if doing is None else doing.do(payload)


def _compared_versions() -> dict[str, str]:
    from rightbatch.experiments.store import versions

    found = versions()
    # A repair release of Python changes no run.
    found["python"] = ".".join(found["python"].split(".")[:2])
    return found
