r"""Seconds of sums over replicas by algorithm: ring, halving-doubling, sharded, nodes.

With P replicas, l seconds to start a message, n bytes and b seconds per byte:

=====================  ===============================================================
ring                   :math:`2 (P - 1) l + 2 \frac{P - 1}{P} n b`
halving-doubling       :math:`2 \lceil \log_2 P \rceil l + 2 \frac{P - 1}{P} n b`
sharded                :math:`3 (P - 1) l + 3 \frac{P - 1}{P} n b`
two levels, N x g      ring of g inside a node, then ring of N with n/g bytes each
=====================  ===============================================================
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import nonnegative, positive, positive_integer
from rightbatch.fitting import FloatArray
from rightbatch.step_time.communication import beyond_one


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
        _check_link(
            "RingCommunication",
            self.latency_seconds,
            self.bytes_per_second,
            self.num_bytes,
        )

    def comm_seconds(self, num_replicas: ArrayLike) -> Any:
        """Return seconds per step; 0 at one replica."""
        replicas = np.asarray(num_replicas, dtype=float)
        transfer = self.num_bytes / self.bytes_per_second
        return beyond_one(replicas, _ring(replicas, self.latency_seconds, transfer))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HalvingDoublingCommunication:
    r"""An all-reduce by recursive halving and doubling: few rounds, the same bytes.

    .. math:: \Delta(P) = 2 \lceil \log_2 P \rceil\, l
        + 2 \frac{P - 1}{P} \frac{n}{\text{bandwidth}}

    Exact where P is a power of two. Between them the number of rounds is rounded up;
    implementations that first fold the surplus replicas into their neighbours send up
    to 2 n more bytes than this.

    Args:
        latency_seconds: Time to start one round, l.
        bytes_per_second: Bandwidth of each link.
        num_bytes: Bytes to be summed, n.

    Example:
        >>> pairs = HalvingDoublingCommunication(
        ...     latency_seconds=1e-3, bytes_per_second=1e9, num_bytes=0.0
        ... )
        >>> pairs.comm_seconds([2, 8, 9]).round(6).tolist()
        [0.002, 0.006, 0.008]
    """

    latency_seconds: float
    bytes_per_second: float
    num_bytes: float
    kind: ClassVar[str] = "halving_doubling"

    def __post_init__(self) -> None:
        _check_link(
            "HalvingDoublingCommunication",
            self.latency_seconds,
            self.bytes_per_second,
            self.num_bytes,
        )

    def comm_seconds(self, num_replicas: ArrayLike) -> Any:
        """Return seconds per step; 0 at one replica."""
        replicas = np.asarray(num_replicas, dtype=float)
        rounds = halving_rounds(replicas)
        transfer = self.num_bytes / self.bytes_per_second
        volume = 2 * (replicas - 1) / replicas * transfer
        return beyond_one(replicas, rounds * self.latency_seconds + volume)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedCommunication:
    r"""Parameters cut over the replicas (ZeRO-3, FSDP): one and a half rings.

    .. math:: \Delta(P) = 3 (P - 1) l + 3 \frac{P - 1}{P} \frac{n}{\text{bandwidth}}

    Parameters are gathered for the forward pass and again for the backward pass, then
    gradients are summed and scattered: three half rings where an all-reduce has two.
    One message each is assumed; a model wrapped layer by layer pays the latency for
    every layer.

    Args:
        latency_seconds: Time to start one round, l.
        bytes_per_second: Bandwidth of each link.
        num_bytes: Bytes of all parameters, n.

    Example:
        >>> link = {"latency_seconds": 0.0, "bytes_per_second": 1e9, "num_bytes": 1e8}
        >>> sharded, ring = ShardedCommunication(**link), RingCommunication(**link)
        >>> round(sharded.comm_seconds(4) / ring.comm_seconds(4), 9)
        1.5
    """

    latency_seconds: float
    bytes_per_second: float
    num_bytes: float
    kind: ClassVar[str] = "sharded"

    def __post_init__(self) -> None:
        _check_link(
            "ShardedCommunication",
            self.latency_seconds,
            self.bytes_per_second,
            self.num_bytes,
        )

    def comm_seconds(self, num_replicas: ArrayLike) -> Any:
        """Return seconds per step; 0 at one replica."""
        replicas = np.asarray(num_replicas, dtype=float)
        transfer = self.num_bytes / self.bytes_per_second
        all_reduce = _ring(replicas, self.latency_seconds, transfer)
        return beyond_one(replicas, 1.5 * all_reduce)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLevelCommunication:
    r"""Rings inside nodes of g replicas, then between the N nodes.

    .. math:: \Delta(P) = 2 (g - 1) l_i + 2 \frac{g - 1}{g} n b_i
        + 2 (N - 1) l_o + 2 \frac{N - 1}{N} \frac{n}{g} b_o

    Up to g replicas it is the inner ring alone. Past that N = P/g, rounded up: a node
    that is partly filled is waited for as a full one.

    Args:
        replicas_per_node: g.
        inner_latency_seconds: Time to start a round inside a node.
        inner_bytes_per_second: Bandwidth of each replica inside a node.
        outer_latency_seconds: Time to start a round between nodes.
        outer_bytes_per_second: Bandwidth between nodes for each replica: the network
            card's over g where g replicas share it.
        num_bytes: Bytes to be summed, n.

    Example:
        >>> nodes = TwoLevelCommunication(
        ...     replicas_per_node=8,
        ...     inner_latency_seconds=0.0,
        ...     inner_bytes_per_second=1e11,
        ...     outer_latency_seconds=0.0,
        ...     outer_bytes_per_second=1e9,
        ...     num_bytes=8e8,
        ... )
        >>> nodes.comm_seconds([8, 16]).round(6).tolist()
        [0.014, 0.114]
    """

    replicas_per_node: int
    inner_latency_seconds: float
    inner_bytes_per_second: float
    outer_latency_seconds: float
    outer_bytes_per_second: float
    num_bytes: float
    kind: ClassVar[str] = "two_level"

    def __post_init__(self) -> None:
        who = "TwoLevelCommunication"
        positive_integer(who, "replicas_per_node", self.replicas_per_node)
        nonnegative(who, "inner_latency_seconds", self.inner_latency_seconds)
        positive(who, "inner_bytes_per_second", self.inner_bytes_per_second)
        nonnegative(who, "outer_latency_seconds", self.outer_latency_seconds)
        positive(who, "outer_bytes_per_second", self.outer_bytes_per_second)
        nonnegative(who, "num_bytes", self.num_bytes)

    def comm_seconds(self, num_replicas: ArrayLike) -> Any:
        """Return seconds per step; 0 at one replica."""
        replicas = np.asarray(num_replicas, dtype=float)
        inside = np.minimum(replicas, self.replicas_per_node)
        nodes = np.ceil(replicas / self.replicas_per_node)
        inner = self.num_bytes / self.inner_bytes_per_second
        outer = self.num_bytes / self.replicas_per_node / self.outer_bytes_per_second
        seconds = _ring(inside, self.inner_latency_seconds, inner)
        seconds = seconds + _ring(nodes, self.outer_latency_seconds, outer)
        return beyond_one(replicas, seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, **asdict(self)}


def halving_rounds(num_replicas: FloatArray) -> FloatArray:
    """Return the rounds of an all-reduce by halving and doubling, 2 log2 P rounded up.

    Args:
        num_replicas: P, any shape; fractions are allowed.

    Returns:
        Rounds, 0 at one replica.
    """
    # The margin keeps 2**29 from rounding up to 30 halvings.
    return 2 * np.ceil(np.log2(num_replicas) - 1e-9)


def _ring(replicas: FloatArray, latency: float, transfer: float) -> FloatArray:
    rounds = 2 * (replicas - 1)
    return np.asarray(rounds * latency + rounds / replicas * transfer)


def _check_link(who: str, latency: float, bandwidth: float, num_bytes: float) -> None:
    nonnegative(who, "latency_seconds", latency)
    positive(who, "bytes_per_second", bandwidth)
    nonnegative(who, "num_bytes", num_bytes)
