"""How many workers share a batch, and the cluster that grows and shrinks with it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Literal

from distributed import Client

from rightbatch import _checks
from rightbatch.errors import InputError

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
        maximum: Workers at most; None for as many as the batch asks for.
        follow: "auto": a cluster that can be scaled is: where ``cluster.adapt`` is on
            its bounds are moved, else ``cluster.scale`` is called; "none": the cluster
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
        self._listed = (-math.inf, ())
        check_client(client)

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
        """Let the cluster shrink to the least it is allowed."""
        asked, self._asked = self._asked, 0
        if asked > self._workers.minimum and self._client.status == "running":
            self._ask_for(self._workers.minimum)

    def _wait(self, wanted: int, seconds: float) -> bool:
        end = monotonic() + seconds
        while len(self.addresses(anew=True)) < wanted:
            if monotonic() >= end:
                return False
            sleep(_PAUSE_SECONDS)
        return True

    def _ask_for(self, wanted: int) -> None:
        cluster = self._client.cluster
        if self._workers.follow == "none" or not hasattr(cluster, "scale"):
            return
        adaptive: Any = getattr(cluster, "_adaptive", None)
        if adaptive is None or adaptive.state not in ("starting", "running"):
            cluster.scale(wanted)
        elif (adaptive.minimum, adaptive.maximum) != (wanted, wanted):
            # Its own measure, seconds of work that wait, would never see a batch grow.
            cluster.adapt(minimum=wanted, maximum=wanted)


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


def reason_lost(client: Any, tries: int, reason: str) -> str:
    """Return why a run cannot go on.

    Args:
        client: Its client.
        tries: How often an update was tried.
        reason: What went wrong with the last try.
    """
    if client.status != "running":
        return (
            f"{WHO}: the scheduler is gone ({reason}); what was trained is in the "
            "module. (go on with a new client)"
        )
    return (
        f"{WHO}: workers died {tries} times in one update ({reason}). (have they "
        "enough memory? their logs say)"
    )
