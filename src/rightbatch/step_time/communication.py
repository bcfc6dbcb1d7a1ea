"""Seconds per step that replicas spend on each other: Delta(P) of a step-time law."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import nonnegative
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
        return beyond_one(num_replicas, 0.0)

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
        return beyond_one(num_replicas, self.seconds)

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
        return beyond_one(replicas, self.seconds_per_replica * replicas)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, **asdict(self)}


NO_COMMUNICATION = NoCommunication()


def beyond_one(num_replicas: ArrayLike, seconds: ArrayLike) -> float | FloatArray:
    """Return seconds, 0 at one replica: it has nobody to talk to.

    Args:
        num_replicas: P, any shape.
        seconds: What the formula gives, P = 1 included.

    Returns:
        A float for a number, else an array.
    """
    values = np.where(np.asarray(num_replicas) > 1, seconds, 0.0)
    return float(values) if values.ndim == 0 else values
