"""A machine: how many replicas, how fast each, how wide the network between them."""

import copy
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from rightbatch.fitting import FloatArray
from rightbatch.step_time import Communication, StepTimeLaw

_RATES = ("bytes_per_second", "outer_bytes_per_second")
_TIMES = ("seconds", "seconds_per_replica")
_Form = TypeVar("_Form")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a job runs on, against the machine its laws were measured on.

    Each value is a number, or an array for many machines at once.

    Args:
        num_replicas: P.
        speed: What the compute time of one replica is divided by.
        bandwidth: What the part of communication that is volume is divided by;
            latency stays.
        max_micro_batch_size: Largest forward pass of one replica; infinity where the
            job's own limit is all there is.
    """

    num_replicas: Any = 1
    speed: Any = 1.0
    bandwidth: Any = 1.0
    max_micro_batch_size: Any = np.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCommunication:
    """Communication whose volume is divided by bandwidths, an array of them.

    Every kind is a latency and a volume over the bandwidth, so two bandwidths tell
    both parts.

    Args:
        original: At bandwidth 1.
        bandwidth: Factors, any shape.
    """

    original: Communication
    bandwidth: Any
    kind: ClassVar[str] = "split"

    def comm_seconds(self, num_replicas: ArrayLike) -> Any:
        """Return seconds per step; `num_replicas` broadcasts with the bandwidths."""
        at_one = np.asarray(self.original.comm_seconds(num_replicas), dtype=float)
        at_two = np.asarray(
            faster(self.original, 2.0).comm_seconds(num_replicas), dtype=float
        )
        volume = 2 * (at_one - at_two)
        return np.maximum(at_one - volume, 0.0) + volume / self.bandwidth

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of the original."""
        return self.original.to_dict()


def faster(communication: Communication, bandwidth: float) -> Communication:
    """Return the communication on a network of so many times the bandwidth.

    Latencies stay. Of two levels the outer one is sped up, the network between nodes.

    Args:
        communication: Any kind.
        bandwidth: The factor.

    Returns:
        The same kind.

    Example:
        >>> from rightbatch.step_time import ConstantCommunication
        >>> faster(ConstantCommunication(seconds=0.02), 4.0)
        ConstantCommunication(seconds=0.005)
    """
    known: Any = communication
    changes: dict[str, float] = {}
    for one in fields(known):
        if one.name in _RATES:
            changes[one.name] = getattr(known, one.name) * bandwidth
        elif one.name in _TIMES:
            changes[one.name] = getattr(known, one.name) / bandwidth
    return replace(known, **changes)


def step_time_on(law: StepTimeLaw, machine: Machine) -> StepTimeLaw:
    """Return the law of step times on one machine.

    Overhead (launches, data, the optimizer) and latency are not bought away.

    Args:
        law: At speed and bandwidth 1.
        machine: Of numbers.

    Returns:
        A law like any other.

    Example:
        >>> law = StepTimeLaw(seconds_per_example=0.001, saturation_batch_size=20)
        >>> step_time_on(law, Machine(speed=4.0)).seconds_per_example
        0.00025
    """
    changes: dict[str, Any] = {
        "seconds_per_example": law.seconds_per_example / machine.speed,
        "communication": faster(law.communication, machine.bandwidth),
    }
    check = law.evaluation
    if check is not None and check.seconds_per_example is not None:
        rate = check.seconds_per_example / machine.speed
        changes["evaluation"] = replace(check, seconds_per_example=rate)
    return replace(law, **changes)


def step_times_on(law: StepTimeLaw, speed: FloatArray, bandwidth: FloatArray) -> Any:
    """Return one law whose parameters are arrays, for many machines at once.

    Args:
        law: At speed and bandwidth 1.
        speed: Factors, any shape.
        bandwidth: Factors of the same shape.

    Returns:
        A law whose arguments broadcast with the shape.
    """
    changes: dict[str, Any] = {
        "seconds_per_example": law.seconds_per_example / speed,
        "communication": SplitCommunication(
            original=law.communication, bandwidth=bandwidth
        ),
    }
    check = law.evaluation
    if check is not None and check.seconds_per_example is not None:
        rate = check.seconds_per_example / speed
        changes["evaluation"] = _with_arrays(check, seconds_per_example=rate)
    return _with_arrays(law, **changes)


def _with_arrays(form: _Form, **values: Any) -> _Form:
    # The formula serves arrays as it stands; only the checks are for numbers.
    twin = copy.copy(form)
    for name, value in values.items():
        object.__setattr__(twin, name, value)
    return twin
