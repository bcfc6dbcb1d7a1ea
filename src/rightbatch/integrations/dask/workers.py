"""How many workers share a batch, and the cluster that grows and shrinks with it."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic, sleep
from typing import Any, Literal

from distributed import Client, LocalCluster

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.training.interrupt import is_interrupt_pending

WHO = "DaskGradients"
_FOLLOW = ("auto", "none")
# A list of workers is a question to the scheduler: not one at each update.
_LIST_SECONDS = 0.5
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How many workers share a batch: ``clip(ceil(B / grads_per_worker), min, max)``.

    Args:
        grads_per_worker: Examples of one worker's part, about. An update costs some
            20 ms of talk whatever it is, so a part is best worth several times that.
        minimum: Workers at least.
        maximum: Workers at most; when None, on a cluster that adapts its own maximum,
            on one of this machine its cores (or the workers it has, where these are
            more), and elsewhere as many as the batch asks for.
        follow: "auto": a cluster that can be scaled is: where ``cluster.adapt`` is on
            its bounds are moved, within those it had, else ``cluster.scale`` is
            called; what was there before is put back at the end. "none": the cluster
            is left alone, and its workers share what there is.
        wait_seconds: For the workers that were asked for, before an update goes on with
            those that are there; 0 to go on at once.
        patience_seconds: For a cluster without a single worker, before that is an
            error.
        direct: Whether this process talks to workers itself; False where only the
            scheduler can be reached.
        device: Where workers compute, such as "cuda".

    Raises:
        InputError: A number is out of its range.

    Example:
        >>> workers = Workers(grads_per_worker=32, maximum=4)
        >>> [workers.for_batch(size) for size in (16, 32, 33, 500)]
        [1, 1, 2, 4]
    """

    grads_per_worker: int = 64
    minimum: int = 1
    maximum: int | None = None
    follow: Literal["auto", "none"] = "auto"
    wait_seconds: float = 0.0
    patience_seconds: float = 30.0
    direct: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("grads_per_worker", "minimum"):
            _checks.positive_integer("Workers", name, getattr(self, name))
        if self.maximum is not None:
            _checks.positive_integer("Workers", "maximum", self.maximum)
            if self.maximum < self.minimum:
                raise InputError(
                    f"Workers: `maximum` must be at least `minimum`, {self.minimum}, "
                    f"got {self.maximum}."
                )
        _checks.one_of("Workers", "follow", self.follow, _FOLLOW)
        for name in ("wait_seconds", "patience_seconds"):
            _checks.nonnegative("Workers", name, getattr(self, name))

    def for_batch(self, batch_size: float) -> int:
        """Return how many workers share a batch.

        Args:
            batch_size: Examples.
        """
        wanted = max(self.minimum, math.ceil(batch_size / self.grads_per_worker))
        return wanted if self.maximum is None else min(wanted, self.maximum)


class Crew:
    """The workers of a client's cluster, as many as the batch asks for.

    Args:
        client: Connected; not an asynchronous one.
        workers: How many.

    Raises:
        InputError: The client is no client, asynchronous, or closed, or there is no
            worker.
    """

    def __init__(self, client: Client, workers: Workers) -> None:
        self._client: Any = client
        self._workers = workers
        self._asked = 0
        self._listed: tuple[float, tuple[str, ...]] = (-math.inf, ())
        check_client(client)
        self._before = len(self._client.nthreads())
        self._bounds = _bounds_of(self._client.cluster)

    def is_connected(self) -> bool:
        """Return whether the scheduler is there, once a client that lost it has tried.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed meanwhile.
        """
        end = monotonic() + self._workers.patience_seconds
        while self._client.status == "connecting" and monotonic() < end:
            _pause()
        return self._client.status == "running"

    def follow(self, batch_size: float) -> int:
        """Let the cluster follow the batch, and return how many workers share it.

        Args:
            batch_size: Examples of the update that begins.

        Returns:
            The number by the formula, whatever is there.
        """
        wanted = self._workers.for_batch(batch_size)
        if wanted != self._asked:
            self._asked = wanted
            self._ask_for(wanted)
            self._wait(wanted, self._workers.wait_seconds)
        return wanted

    def addresses(self, *, anew: bool = False) -> Sequence[str]:
        """Return the workers that are there, in one order.

        Args:
            anew: Ask the scheduler, however short ago it was asked.
        """
        then, found = self._listed
        if anew or monotonic() - then > _LIST_SECONDS:
            found = tuple(sorted(self._client.nthreads()))
            self._listed = (monotonic(), found)
            if len(found) < self._asked:
                # A cluster gives up a worker that does not come back soon.
                self._ask_for(self._asked)
        return found

    def wait_for_one(self) -> None:
        """Wait until there is a worker.

        Raises:
            InputError: There is none in all that time.
        """
        if not self._asked:
            self.follow(1)
        patience = self._workers.patience_seconds
        if not self._wait(1, patience):
            raise InputError(
                f"{WHO}: the cluster must have a worker, got none in {patience:g} s.",
                "start one, cluster.scale(1) or `dask worker ADDRESS`, or be more "
                "patient: Workers(patience_seconds=...)",
            )

    def release(self) -> None:
        """Leave the cluster as it was found."""
        asked, self._asked = self._asked, 0
        cluster = self._scaled()
        if not asked or cluster is None or self._client.status != "running":
            return
        if self._bounds is not None:
            cluster.adapt(minimum=self._bounds[0], maximum=self._bounds[1])
        elif asked != self._before:
            cluster.scale(self._before)

    def _wait(self, wanted: int, seconds: float) -> bool:
        end = monotonic() + seconds
        while len(self.addresses(anew=True)) < wanted:
            if monotonic() >= end:
                return False
            _pause()
        return True

    def _scaled(self) -> Any:
        """Return the cluster, where it may be scaled and can."""
        cluster = self._client.cluster
        wants = self._workers.follow == "auto"
        return cluster if wants and hasattr(cluster, "scale") else None

    def _ask_for(self, wanted: int) -> None:
        cluster = self._scaled()
        if cluster is None:
            return
        if self._bounds is None:
            cluster.scale(wanted)
            return
        low, high = self._bounds
        held = int(min(max(wanted, low), high))
        if _bounds_of(cluster) != (held, held):
            # Its own measure, seconds of work that wait, would never see a batch grow.
            cluster.adapt(minimum=held, maximum=held)


def bounded(client: Any, workers: Workers) -> Workers:
    """Return the workers with a maximum, where the cluster tells one.

    Args:
        client: Of the cluster.
        workers: As they were given.
    """
    check_client(client)
    if workers.maximum is not None:
        return workers
    bounds = _bounds_of(client.cluster)
    if bounds is not None and math.isfinite(bounds[1]):
        return replace(workers, maximum=max(workers.minimum, int(bounds[1])))
    if not isinstance(client.cluster, LocalCluster):
        return workers
    there = max(os.cpu_count() or 1, len(client.nthreads()))
    return replace(workers, maximum=max(workers.minimum, there))


def _bounds_of(cluster: Any) -> tuple[float, float] | None:
    """Return the bounds of a cluster that adapts; None of another."""
    adaptive = getattr(cluster, "_adaptive", None)
    if adaptive is None or adaptive.state not in ("starting", "running"):
        return None
    return adaptive.minimum, adaptive.maximum


def _pause() -> None:
    """Wait a moment, unless the user waits for an end.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed: who would answer may be dead of it too.
    """
    if is_interrupt_pending():
        raise KeyboardInterrupt
    sleep(_PAUSE_SECONDS)


def check_client(client: Any) -> None:
    """Check that a client can be worked with.

    Args:
        client: Any object.

    Raises:
        InputError: It is no client, an asynchronous one, or closed.
    """
    if not isinstance(client, Client):
        raise InputError(
            f"{WHO}: `client` must be a distributed.Client, got {client!r}.",
            'distributed.Client("tcp://HOST:8786")',
        )
    one: Any = client
    if one.asynchronous:
        raise InputError(
            f"{WHO}: `client` must not be asynchronous.", "Client(asynchronous=False)"
        )
    if one.status != "running":
        raise InputError(
            f"{WHO}: `client` must be connected, got one that is {one.status}.",
            "make another, while the scheduler runs",
        )


def reason_lost(client: Any, tries: int, reason: str) -> tuple[str, str]:
    """Return why a run cannot go on, and the way out.

    Args:
        client: Its client.
        tries: How often an update was tried.
        reason: What went wrong with the last try.
    """
    if client.status != "running":
        said = (
            f"{WHO}: the scheduler is gone ({reason}); the module is as it was trained."
        )
        return said, "go on with a new client"
    return (
        f"{WHO}: workers died {tries} times in one update ({reason}).",
        "have they enough memory? their logs say",
    )
