"""Replicas start together and end together: a clear end on all, never a hang."""

import ctypes
import os
import re
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from rightbatch._checks import one_of, positive
from rightbatch.collectives.group import is_distributed, num_replicas, rank
from rightbatch.errors import InputError, ReplicaError

BACKENDS = ("gloo", "nccl")
# How long a replica that raised waits for the others to read why.
FAREWELL_SECONDS = 2.0
# Short against a person's patience, long against a message.
_GLANCE_SECONDS = 0.5

# What torch's errors say when a peer is gone or silent. They are bare RuntimeErrors.
PEER_IS_GONE = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "gloo/transport",
    "timed out waiting",
    "wait timeout",
    "socket timeout",
    "timeout caused pair closure",
    "failed to recv",
    "nccl communicator was aborted",
    "nccl error",
    "remote process exited",
    "collective operation timeout",
    "monitoredbarrier",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisReplica:
    """Which replica this process is, and where it computes.

    Args:
        rank: 0, 1, ... over all machines.
        num_replicas: How many there are.
        device: This process's own: its GPU with nccl, else the CPU.
    """

    rank: int = 0
    num_replicas: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this one speaks for all."""
        return self.rank == 0


@contextmanager
def replicas(
    backend: str | None = None,
    *,
    timeout_seconds: float = 300.0,
    init_method: str = "env://",
) -> Generator[ThisReplica]:
    """Return a block in which the processes that ``torchrun`` started are replicas.

    .. code-block:: python

        with replicas() as this:                 # torchrun --nproc-per-node 2 train.py
            model = DistributedDataParallel(net.to(this.device))
            ...

    Without the variables that torchrun sets it is a block like any other, of one
    replica. The process group is taken down at its end. A replica that dies, raises,
    does not start, or is silent for `timeout_seconds` ends all of them: it with its own
    error, the others with a :class:`ReplicaError` that says which it was and why, as
    far as it could still tell. With gloo they notice when its connections close, or
    after the timeout; with nccl PyTorch's watchdog notices, and ends the process.

    Args:
        backend: "gloo" or "nccl"; nccl where there are GPUs when None.
        timeout_seconds: How long a replica may keep the others waiting, in an exchange
            or at the start. Longer than whatever one does alone: an evaluation, say.
        init_method: Where replicas meet, as ``init_process_group`` has it; by default
            where torchrun says.

    Raises:
        InputError: `backend`, the timeout or torchrun's variables cannot be used.
        ReplicaError: Another replica died, raised, or never came.

    Yields:
        Which replica this is.

    Example:
        >>> with replicas() as this:
        ...     this.rank, this.num_replicas
        (0, 1)
    """
    positive("replicas", "timeout_seconds", timeout_seconds)
    if backend is not None:
        one_of("replicas", "backend", backend, BACKENDS)
    if is_distributed():
        yield ThisReplica(rank=rank(), num_replicas=num_replicas(), device=_device())
        return
    place = _place(os.environ)
    if place is None:
        yield ThisReplica(device=_device())
        return
    notes = _start(place, backend or _best_backend(), timeout_seconds, init_method)
    try:
        yield ThisReplica(rank=place[0], num_replicas=place[1], device=_device())
    except BaseException as error:
        told = notes.end_badly(error)
        _leave()
        notes.linger()
        if told is None or told is error:
            raise
        raise told from error
    notes.end_well()
    _leave()


def _place(variables: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Return rank, number of replicas and local rank as torchrun sets them, or None.

    Raises:
        InputError: They are no numbers that go together.
    """
    if "RANK" not in variables and "WORLD_SIZE" not in variables:
        return None
    try:
        own, num = int(variables["RANK"]), int(variables["WORLD_SIZE"])
        local = int(variables.get("LOCAL_RANK", own))
    except (KeyError, ValueError):
        own, num, local = -1, 0, 0
    if not 0 <= own < num:
        raise InputError(
            "replicas: RANK and WORLD_SIZE must be whole numbers, 0 <= RANK < "
            f"WORLD_SIZE, got {variables.get('RANK')} and "
            f"{variables.get('WORLD_SIZE')}.",
            "torchrun sets them; unset both for one process",
        )
    return own, num, local


def _best_backend() -> str:
    return "nccl" if torch.cuda.is_available() else "gloo"


def _device() -> torch.device:
    grouped_without_gpu = is_distributed() and dist.get_backend() != "nccl"
    if grouped_without_gpu or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _start(
    place: tuple[int, int, int], backend: str, seconds: float, init_method: str
) -> "_Notes":
    own, num, local = place
    limit = timedelta(seconds=seconds)
    if backend == "nccl":
        torch.cuda.set_device(local)
    try:
        store, _, _ = next(
            rendezvous(init_method, rank=own, world_size=num, timeout=limit)
        )
        store.set_timeout(limit)
        notes = _Notes(PrefixStore("rightbatch", store), own, num, seconds)
        notes.await_all()
        dist.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=own,
            world_size=num,
            timeout=limit,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ReplicaError(
            f"replicas: replica {own} of {num} could not begin with the others within "
            f"{seconds:g} s: {_said(error)}.",
            "look whether all were started, and can reach each other",
        ) from error
    return notes


def _leave() -> None:
    """Take the process group down; close its connections, unless others hold it.

    What DistributedDataParallel still holds is never freed: it would be under Python's
    lock, wait for gloo's thread, and that thread for the lock, if it was about to drop
    the last exchange. The end of the process closes the connections then.
    """
    group = dist.group.WORLD
    with suppress(Exception):
        dist.destroy_process_group()
    # One for the name here, one for the argument of the question.
    if sys.getrefcount(group) > 2:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))


class _Notes:
    """What replicas leave for each other to read, beside their exchanges."""

    def __init__(self, store: Any, own: int, num: int, seconds: float) -> None:
        self._store = store
        self._own = own
        self._num = num
        self._seconds = seconds

    def await_all(self) -> None:
        """Wait until every replica is here.

        Raises:
            RuntimeError: Some are not, when the time is up; they are named.
        """
        self._store.set(f"here/{self._own}", "")
        try:
            self._store.wait([f"here/{other}" for other in range(self._num)])
        except RuntimeError as error:
            here = self._store.check
            away = [r for r in range(self._num) if not here([f"here/{r}"])]
            names = ", ".join(map(str, away))
            raise RuntimeError(f"replica {names} never came") from error

    def end_well(self) -> None:
        """Tell that this replica has done its work."""
        self._leave_note("done", "")

    def end_badly(self, error: BaseException) -> ReplicaError | None:
        """Return what to raise instead of an error that another replica is behind.

        Args:
            error: What ended this replica.

        Returns:
            None where the error is this one's own; the others are told of it.
        """
        if isinstance(error, SystemExit) and not error.code:
            self.end_well()
            return None
        if _peer_error(error) is None:
            self._leave_note("failed", f"{type(error).__name__}: {_said(error)}")
            return None
        reason = self._reason(error)
        self._leave_note("lost", reason)
        if isinstance(error, ReplicaError):
            return error
        return ReplicaError(
            f"replica {self._own} of {self._num} cannot go on: {reason}.",
            "look at the last output of that replica; a run goes on from its last "
            "checkpoint, with any number of replicas",
        )

    def linger(self) -> None:
        """Give the others time to read, where this process keeps the notes."""
        if self._own or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return
        until = time.monotonic() + FAREWELL_SECONDS
        with suppress(Exception):
            while self._store.add("left", 0) < self._num and time.monotonic() < until:
                time.sleep(0.01)

    def _reason(self, error: BaseException) -> str:
        # Where the notes went down with who kept them, one look is enough to know.
        with suppress(Exception):
            for kind, words in (
                ("failed", "replica {} raised {}"),
                (
                    "done",
                    "replica {} has ended while this one waits for it; all have "
                    "to make as many exchanges",
                ),
                ("lost", "replica {} gave up: {}"),
            ):
                for other in range(self._num):
                    if self._store.check([f"{kind}/{other}"]):
                        said = self._store.get(f"{kind}/{other}").decode()
                        return words.format(other, said)
        line = _said(_peer_error(error) or error)
        if "timed out" in line.lower() or "timeout" in line.lower():
            return f"another was silent for {self._seconds:g} s ({line})"
        return f"another died without a word: killed, or out of memory ({line})"

    def _leave_note(self, kind: str, text: str) -> None:
        with suppress(Exception):
            self._store.set_timeout(timedelta(seconds=_GLANCE_SECONDS))
            self._store.set(f"{kind}/{self._own}", text)
            self._store.add("left", 1)


def _peer_error(error: BaseException) -> BaseException | None:
    """Return the error among an error's causes that another replica is behind."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (dist.DistError, ReplicaError)):
            return cause
        text = str(cause).lower()
        if isinstance(cause, RuntimeError) and any(s in text for s in PEER_IS_GONE):
            return cause
        cause = cause.__cause__
    return None


def _said(error: BaseException) -> str:
    """Return the first line of a message, without torch's own place and advice."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    line = re.sub(r"^\[/\S+\] ", "", lines[0])
    return line.split(". This is typically", maxsplit=1)[0].rstrip(".")
