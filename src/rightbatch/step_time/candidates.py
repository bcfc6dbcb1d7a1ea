"""The communication laws a table of step times is fitted with."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rightbatch.fitting import FloatArray
from rightbatch.step_time.collectives import (
    HalvingDoublingCommunication,
    RingCommunication,
    halving_rounds,
)
from rightbatch.step_time.communication import (
    NO_COMMUNICATION,
    Communication,
    ConstantCommunication,
    LinearCommunication,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """A communication law that is linear in what is fitted of it.

    Args:
        law: Its name; ``volume`` is a ring without latency, else the kind.
        kind: Of the communication it becomes.
        names: Of its coefficients, which are seconds.
        least_numbers: Different numbers of replicas above one that it takes to fit it.
    """

    law: str
    kind: str
    names: tuple[str, ...]
    least_numbers: int

    def columns(self, num_replicas: ArrayLike) -> FloatArray:
        """Return what the coefficients multiply.

        Args:
            num_replicas: P, any shape.

        Returns:
            Shape (..., coefficients), 0 at one replica.
        """
        replicas = np.asarray(num_replicas, dtype=float)
        volume = 2 * (replicas - 1) / replicas
        columns: list[FloatArray] = {
            "none": [],
            "constant": [np.ones_like(replicas)],
            "linear": [replicas],
            "volume": [volume],
            "ring": [2 * (replicas - 1), volume],
            "halving_doubling": [halving_rounds(replicas), volume],
        }[self.law]
        if not columns:
            return np.empty((*replicas.shape, 0))
        return np.where(replicas > 1, np.stack(columns), 0.0).transpose(
            *range(1, replicas.ndim + 1), 0
        )

    def communication(self, coefficients: FloatArray) -> Communication:
        """Return the law with its coefficients.

        Args:
            coefficients: Seconds, one per name.

        Returns:
            The communication. Of a ring the bytes and the bandwidth are not told
            apart: its bytes are the seconds they take, its bandwidth is one.
        """
        found = [float(one) for one in coefficients]
        if self.kind == "constant":
            return ConstantCommunication(seconds=found[0])
        if self.kind == "linear":
            return LinearCommunication(seconds_per_replica=found[0])
        if self.kind == "none":
            return NO_COMMUNICATION
        latency, volume = found if len(found) > 1 else (0.0, found[0])
        collective = {
            "ring": RingCommunication,
            "halving_doubling": HalvingDoublingCommunication,
        }[self.kind]
        return collective(
            latency_seconds=latency, bytes_per_second=1.0, num_bytes=volume
        )

    def grows(self, coefficients: FloatArray) -> bool:
        """Return True where ever more replicas take ever longer.

        Args:
            coefficients: Seconds, one per name.
        """
        bounded = self.law in {"none", "constant", "volume"}
        return not bounded and bool(coefficients[0] > 0)


_BOTH = ("latency_seconds", "volume_seconds")
NO_BASIS = Basis(law="none", kind="none", names=(), least_numbers=0)
# The simplest first: of equals the first is chosen.
BASES = (
    NO_BASIS,
    Basis(law="constant", kind="constant", names=("seconds",), least_numbers=1),
    Basis(law="linear", kind="linear", names=("seconds_per_replica",), least_numbers=2),
    Basis(law="volume", kind="ring", names=("volume_seconds",), least_numbers=3),
    Basis(law="ring", kind="ring", names=_BOTH, least_numbers=3),
    Basis(
        law="halving_doubling", kind="halving_doubling", names=_BOTH, least_numbers=3
    ),
)
