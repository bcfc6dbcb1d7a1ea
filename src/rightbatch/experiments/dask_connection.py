"""A Dask cluster for the length of a block: one made here, or one that runs."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rightbatch._checks import positive_integer
from rightbatch.errors import InputError
from rightbatch.experiments.dask_workers import PATIENCE_SECONDS, DaskWorkers, Told
from rightbatch.experiments.workers import interrupts_held, num_cores

CONNECT_SECONDS = 5.0


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
    from distributed import Client, LocalCluster

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
    from distributed import Client
    from distributed.comm.addressing import get_address_host_port

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
