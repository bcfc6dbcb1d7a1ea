"""Work spread over processes of its own that never outlive the one that asked.

Each worker ignores Ctrl-C, which its parent answers for all, and exits at once when
the parent is gone, even if that was killed.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol, TypeVar, runtime_checkable

from rightbatch.errors import RightbatchError
from rightbatch.experiments.freed_memory import keep_freed_memory

Job = TypeVar("Job")
Result = TypeVar("Result")
Work = Callable[[Job], Iterable[Result]]

GRACE_SECONDS = 5.0


@runtime_checkable
class Workers(Protocol):
    """Where jobs are done elsewhere than in processes of our own."""

    def run(
        self,
        prepare: Callable[..., Work[Job, Result]],
        arguments: tuple[Any, ...],
        jobs: Iterable[Job],
    ) -> Generator[Result]:
        """Yield what the jobs yield, as :func:`run_in_processes` does.

        Args:
            prepare: As there; called once on each worker.
            arguments: For `prepare`.
            jobs: Begun in this order.
        """
        ...


@dataclass(slots=True, kw_only=True)
class _Worker:
    process: SpawnProcess
    connection: "Connection[Any, Any]"
    job: Any = None


def run_in_processes(
    prepare: Callable[..., Work[Job, Result]],
    arguments: tuple[Any, ...],
    jobs: Iterable[Job],
    processes: int,
) -> Generator[Result]:
    """Yield what the jobs yield, each result as soon as there is one.

    Args:
        prepare: ``prepare(*arguments)``, called once in each process, returns the
            function that does a job; importable by name.
        arguments: For `prepare`; all that passes is pickled.
        jobs: Begun in this order.
        processes: How many to start, at least 1.

    Yields:
        The results of the jobs in progress, mixed; on Ctrl-C those that had arrived.

    Raises:
        RightbatchError: A worker was killed, or failed; the others are stopped.
        KeyboardInterrupt: Ctrl-C, after the workers were stopped.
    """
    waiting = deque(jobs)
    workers: list[_Worker] = []
    try:
        for _ in range(min(processes, len(waiting))):
            workers.append(_start(prepare, arguments))
        # A large job blocks until its worker is up: all start at the same time first.
        for worker in workers:
            _give(worker, waiting)
        yield from _results(workers, waiting)
    except KeyboardInterrupt:
        _stop(workers)
        yield from _arrived(workers)
        raise
    finally:
        _stop(workers)
        for worker in workers:
            worker.connection.close()
            worker.process.close()


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def interrupts_held() -> Generator[None]:
    """Start processes in this block that Ctrl-C does not reach.

    Yields:
        Nothing; a Ctrl-C meanwhile comes after the block.
    """
    # A process inherits what is blocked, so Ctrl-C cannot hit one while it starts.
    # The tracker, if it had yet to be started, would unblock it in between.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(
    prepare: Callable[..., Work[Job, Result]], arguments: tuple[Any, ...]
) -> _Worker:
    # Spawned, not forked: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, prepare, arguments), daemon=True
    )
    with interrupts_held():
        process.start()
    theirs.close()
    return _Worker(process=process, connection=ours)


def _give(worker: _Worker, waiting: deque[Any]) -> None:
    worker.job = waiting.popleft() if waiting else None
    try:
        worker.connection.send(worker.job)
    except OSError:
        raise _died(worker) from None


def _results(workers: list[_Worker], waiting: deque[Any]) -> Iterator[Any]:
    while busy := {w.connection: w for w in workers if w.job is not None}:
        for connection in wait(list(busy)):
            worker = busy[connection]  # pyright: ignore[reportArgumentType]
            try:
                kind, payload = worker.connection.recv()
            except (EOFError, OSError):
                raise _died(worker) from None
            if kind == "failed":
                raise payload
            if kind == "result":
                yield payload
            else:
                _give(worker, waiting)


def _arrived(workers: list[_Worker]) -> Iterator[Any]:
    for worker in workers:
        try:
            while worker.connection.poll():
                kind, payload = worker.connection.recv()
                if kind == "result":
                    yield payload
        except Exception:
            # Ctrl-C may have cut a message in two: what follows it is then no message.
            continue


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()


def _died(worker: _Worker) -> RightbatchError:
    worker.process.join(GRACE_SECONDS)
    code = worker.process.exitcode or 0
    if code < 0:
        name = signal.Signals(-code).name
        return RightbatchError(
            f"a worker process was killed by {name} in the middle of {worker.job}.",
            "too little memory? try fewer processes, and resume",
        )
    return RightbatchError(
        f"a worker process ended with exit code {code} in the middle of {worker.job}.",
        "a script of your own must call this under if __name__ == '__main__':",
    )


def _serve(
    connection: "Connection[Any, Any]",
    prepare: Callable[..., Work[Any, Any]],
    arguments: tuple[Any, ...],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    # The parent's stdout is for its results; what a workload prints is none.
    os.dup2(2, 1)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        work = prepare(*arguments)
        while (job := connection.recv()) is not None:
            for result in work(job):
                connection.send(("result", result))
            connection.send(("done", None))
    except (EOFError, BrokenPipeError):
        return
    except RightbatchError as error:
        connection.send(("failed", error))
    except Exception:
        failure = RightbatchError(f"a worker process failed.\n{traceback.format_exc()}")
        connection.send(("failed", failure))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    # Nothing is cleaned up on purpose: there is no one left to clean up for.
    os._exit(1)
