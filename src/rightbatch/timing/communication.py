"""Seconds of a sum over replicas, measured between real processes on this machine."""

import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from multiprocessing import connection, get_context
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from rightbatch._checks import positive, positive_integer
from rightbatch.errors import InputError, RightbatchError
from rightbatch.step_time import RingCommunication

WARM_UP_SUMS = 3
MIN_SUMS = 3
# A transfer this small a share of the time cannot be told from its noise.
MIN_TRANSFER_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class CommTiming:
    """How long one sum over replicas took, of a gradient's size and of one number.

    Args:
        num_replicas: Processes that took part.
        num_bytes: Size of the buffer summed.
        seconds: Median of the buffer's sum.
        spread: Its quartiles.
        tiny_seconds: Median of the sum of one number: the latency's part.
    """

    num_replicas: int
    num_bytes: int
    seconds: float
    spread: tuple[float, float]
    tiny_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def ring_communication(timing: CommTiming) -> RingCommunication:
    r"""Return the ring all-reduce whose two terms give the two measured times.

    .. math:: l = \frac{T_{\text{tiny}}}{2 (P - 1)}, \qquad
        \text{bandwidth} = \frac{2 (P - 1)}{P} \frac{n}{T - T_{\text{tiny}}}

    Where the buffer took no longer than a single number, the transfer is taken as
    1 % of the time: the bandwidth is then a lower bound, too high to be seen.

    Args:
        timing: From :func:`measure_comm`, two replicas or more.

    Raises:
        InputError: There is one replica, which sums nothing.

    Example:
        >>> ring = ring_communication(
        ...     CommTiming(
        ...         num_replicas=4,
        ...         num_bytes=10**8,
        ...         seconds=0.156,
        ...         spread=(0.15, 0.16),
        ...         tiny_seconds=0.006,
        ...     )
        ... )
        >>> round(ring.latency_seconds, 6), round(ring.bytes_per_second / 1e9, 6)
        (0.001, 1.0)
    """
    replicas = timing.num_replicas
    if replicas < 2:
        raise InputError("ring_communication: one replica sums nothing; time two.")
    rounds = 2 * (replicas - 1)
    transfer = max(
        timing.seconds - timing.tiny_seconds, MIN_TRANSFER_SHARE * timing.seconds
    )
    return RingCommunication(
        latency_seconds=min(timing.tiny_seconds, timing.seconds) / rounds,
        bytes_per_second=rounds / replicas * timing.num_bytes / transfer,
        num_bytes=timing.num_bytes,
    )


def measure_comm(
    num_bytes: int,
    num_replicas: int,
    *,
    repeats: int = 50,
    budget_seconds: float = 3.0,
    timeout_seconds: float = 120.0,
    on_progress: Callable[[float], None] | None = None,
) -> CommTiming:
    """Return the seconds of an all-reduce among processes on this machine.

    Starts `num_replicas` processes of one thread each, which sum a float32 buffer and
    a single number in turn over gloo on the loopback interface. All of them are gone
    when this returns or raises, on Ctrl-C too.

    Args:
        num_bytes: Size of the buffer: four bytes for each float32 parameter.
        num_replicas: Processes; one is answered with zero seconds, without any.
        repeats: Sums timed at most, and 3 at least.
        budget_seconds: For the sums, start-up apart.
        timeout_seconds: For everything; past it the processes are ended.
        on_progress: Called with the fraction done, 0 to 1.

    Raises:
        InputError: A number is not positive.
        RightbatchError: A process did not start, died, or the time was up.

    Example:
        >>> measure_comm(4_000, 1).seconds
        0.0
    """
    positive_integer("measure_comm", "num_bytes", num_bytes)
    positive_integer("measure_comm", "num_replicas", num_replicas)
    positive_integer("measure_comm", "repeats", repeats)
    positive("measure_comm", "budget_seconds", budget_seconds)
    positive("measure_comm", "timeout_seconds", timeout_seconds)
    if not dist.is_available() or not dist.is_gloo_available():
        raise RightbatchError(
            "measure_comm: this torch has no gloo.", "give --latency and --bandwidth"
        )
    report: Callable[[float], None] = on_progress or (lambda _: None)
    plan = _Sums(num_bytes, num_replicas, repeats, budget_seconds, timeout_seconds)
    full, tiny = ([0.0], [0.0]) if num_replicas == 1 else _measured(plan, report)
    report(1.0)
    low, _, high = statistics.quantiles(full, n=4) if len(full) > 1 else full * 3
    return CommTiming(
        num_replicas=num_replicas,
        num_bytes=num_bytes,
        seconds=statistics.median(full),
        spread=(low, high),
        tiny_seconds=statistics.median(tiny),
    )


@dataclass(frozen=True)
class _Sums:
    """What the processes are to do."""

    num_bytes: int
    num_replicas: int
    repeats: int
    budget_seconds: float
    timeout_seconds: float


def _measured(
    plan: _Sums, report: Callable[[float], None]
) -> tuple[list[float], list[float]]:
    deadline = monotonic() + plan.timeout_seconds
    with tempfile.TemporaryDirectory() as folder, _processes(plan, folder) as started:
        waiting: dict[Any, int] = {pipe: rank for rank, (_, pipe) in enumerate(started)}
        times: tuple[list[float], list[float]] | None = None
        while waiting:
            ready = connection.wait(list(waiting), max(0.0, deadline - monotonic()))
            if not ready:
                raise RightbatchError(
                    f"measure_comm: {len(waiting)} of {plan.num_replicas} processes "
                    f"had not finished after {plan.timeout_seconds:g} s."
                )
            for pipe in ready:
                rank = waiting.pop(pipe)
                times = _received(pipe, rank, started[rank][0]) or times
                report(1 - len(waiting) / plan.num_replicas)
    if times is None:
        raise RightbatchError("measure_comm: no process sent its times.")
    return times


def _received(pipe: Any, rank: int, process: Any) -> Any:
    try:
        kind, value = pipe.recv()
    except EOFError:
        process.join(timeout=5)
        raise RightbatchError(
            f"measure_comm: process {rank} died (exit code {process.exitcode})."
        ) from None
    if kind == "error":
        raise RightbatchError(f"measure_comm: process {rank} failed: {value}.")
    return value


@contextmanager
def _processes(plan: _Sums, folder: str) -> Generator[Sequence[tuple[Any, Any]]]:
    """Start the processes; end those that still run, whatever happens.

    Yields:
        Each process, and the pipe it answers on.
    """
    # Spawned, not forked: a forked child inherits torch's locked thread pools.
    context = get_context("spawn")
    started: list[tuple[Any, Any]] = []
    try:
        for rank in range(plan.num_replicas):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_work,
                args=(plan, rank, str(Path(folder, "meeting")), sender),
                daemon=True,
            )
            with _interrupts_left_to_the_parent():
                process.start()
            sender.close()
            started.append((process, receiver))
        yield started
    finally:
        for process, _ in started:
            process.terminate()
        for process, pipe in started:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()


@contextmanager
def _interrupts_left_to_the_parent() -> Generator[None]:
    """Hold Ctrl-C back while a child starts; the child inherits the held-back state.

    Otherwise every child prints its own traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(plan: _Sums, rank: int, meeting: str, pipe: Any) -> None:
    """Take part in the sums; rank 0 sends the times, the others an empty answer."""
    try:
        torch.set_num_threads(1)
        # Else gloo resolves the machine's own name, which may not resolve.
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=plan.num_replicas,
            timeout=timedelta(seconds=plan.timeout_seconds),
        )
        times = _timed_sums(plan)
        pipe.send(("times", times if rank == 0 else None))
        # The store's file must outlive the last to leave.
        dist.barrier()
        dist.destroy_process_group()
    except Exception as error:
        with suppress(OSError):
            pipe.send(("error", f"{type(error).__name__}: {error}"))


def _timed_sums(plan: _Sums) -> tuple[list[float], list[float]]:
    full = torch.zeros(max(1, plan.num_bytes // 4))
    tiny = torch.zeros(1)
    seconds = 0.0
    for _ in range(WARM_UP_SUMS):
        seconds = _seconds_of_sum(full)
        _seconds_of_sum(tiny)
    # All must make as many: the first one's clock decides.
    affordable = min(plan.repeats, int(plan.budget_seconds / max(seconds, 1e-9)))
    count = torch.tensor([max(MIN_SUMS, affordable)])
    dist.broadcast(count, 0)
    times = [(_seconds_of_sum(full), _seconds_of_sum(tiny)) for _ in range(int(count))]
    return [pair[0] for pair in times], [pair[1] for pair in times]


def _seconds_of_sum(buffer: Tensor) -> float:
    # Begun together: a late one would be waited for on the others' clocks.
    dist.barrier()
    start = perf_counter()
    dist.all_reduce(buffer)
    return perf_counter() - start
