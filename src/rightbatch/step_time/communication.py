"""Seconds per step that replicas spend on each other: Delta(P) of a step-time law."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import nonnegative, positive
from rightbatch.fitting import FloatArray


class Communication(Protocol):
    """Seconds per step that replicas spend on each other, not hidden by computing."""

    kind: ClassVar[str]

    def comm_seconds(self, num_replicas: ArrayLike) -> Any:
        """Return seconds per step: 0 at one replica, arrays broadcast."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, its ``kind`` included."""
        ...


@dataclass(frozen=True, slots=True)
class NoCommunication:
    """Replicas that exchange gradients in no time.

    Example:
        >>> NoCommunication().comm_seconds(8)
        0.0
    """

    kind: ClassVar[str] = "none"

    def comm_seconds(self, num_replicas: ArrayLike) -> Any:
        """Return 0, a float or an array of the shape of `num_replicas`."""
        return _beyond_one(num_replicas, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantCommunication:
    """An all-reduce on a network that scales: the same time on any number of replicas.

    Args:
        seconds: Time per step from two replicas on, Perrone's delta.

    Example:
        >>> ConstantCommunication(seconds=0.02).comm_seconds([1, 2, 64]).tolist()
        [0.0, 0.02, 0.02]
    """

    seconds: float
    kind: ClassVar[str] = "constant"

    def __post_init__(self) -> None:
        nonnegative("ConstantCommunication", "seconds", self.seconds)

    def comm_seconds(self, num_replicas: ArrayLike) -> Any:
        """Return seconds per step; 0 at one replica."""
        return _beyond_one(num_replicas, self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearCommunication:
    """A synchronous parameter server: the time grows with the number of replicas.

    Args:
        seconds_per_replica: Delta(P) = seconds_per_replica x P from two replicas on.

    Example:
        >>> LinearCommunication(seconds_per_replica=0.01).comm_seconds(8)
        0.08
    """

    seconds_per_replica: float
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        nonnegative(
            "LinearCommunication", "seconds_per_replica", self.seconds_per_replica
        )

    def comm_seconds(self, num_replicas: ArrayLike) -> Any:
        """Return seconds per step; 0 at one replica."""
        replicas = np.asarray(num_replicas, dtype=float)
        return _beyond_one(replicas, self.seconds_per_replica * replicas)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RingCommunication:
    r"""A ring all-reduce: 2(P - 1) rounds, each passing on 1/P of the bytes.

    .. math:: \Delta(P) = 2 (P - 1) l + 2 \frac{P - 1}{P} \frac{n}{\text{bandwidth}}

    Args:
        latency_seconds: Time to start one round, l.
        bytes_per_second: Bandwidth of each link.
        num_bytes: Bytes to be summed, n; four for each float32 parameter.

    Example:
        >>> ring = RingCommunication(
        ...     latency_seconds=0.0, bytes_per_second=1e9, num_bytes=1e8
        ... )
        >>> round(ring.comm_seconds(4), 9)
        0.15
    """

    latency_seconds: float
    bytes_per_second: float
    num_bytes: float
    kind: ClassVar[str] = "ring"

    def __post_init__(self) -> None:
        nonnegative("RingCommunication", "latency_seconds", self.latency_seconds)
        positive("RingCommunication", "bytes_per_second", self.bytes_per_second)
        nonnegative("RingCommunication", "num_bytes", self.num_bytes)

    def comm_seconds(self, num_replicas: ArrayLike) -> Any:
        """Return seconds per step; 0 at one replica."""
        replicas = np.asarray(num_replicas, dtype=float)
        rounds = 2 * (replicas - 1)
        transfer = self.num_bytes / self.bytes_per_second
        return _beyond_one(
            replicas, rounds * self.latency_seconds + rounds / replicas * transfer
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, **asdict(self)}


NO_COMMUNICATION = NoCommunication()


def _beyond_one(num_replicas: ArrayLike, seconds: ArrayLike) -> float | FloatArray:
    # One replica has nobody to talk to, whatever the formula gives at P = 1.
    values = np.where(np.asarray(num_replicas) > 1, seconds, 0.0)
    return float(values) if values.ndim == 0 else values
