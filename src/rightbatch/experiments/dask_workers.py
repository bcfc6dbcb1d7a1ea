"""Work spread over the workers of a Dask cluster, which may come and go meanwhile.

What :func:`rightbatch.experiments.workers.run_in_processes` does on one machine: jobs
are begun in order, their results arrive here as each job ends, and only here is
anything written. A job whose worker dies is done again by another one.
"""

import pickle
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from rightbatch.errors import InputError, RightbatchError
from rightbatch.experiments.dask_jobs import Doing, do_job
from rightbatch.experiments.workers import Result, Work

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
        with _sent(self._client, Doing(prepare, arguments)) as name:
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


def _say_nothing(_sentence: str) -> None:
    """Stand for nobody to tell."""


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
                do_job,
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
def _sent(client: Any, doing: "Doing") -> Generator[str]:
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
