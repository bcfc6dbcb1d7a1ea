"""Where the seconds between replicas come from: given, measured here, or assumed."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from rightbatch import _checks
from rightbatch.cli.output import Output
from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.step_time import Communication

FLOAT32_BYTES = 4

MeasureComm = Annotated[
    bool,
    typer.Option(
        "--measure-comm", help="Time sums of gradients between processes here."
    ),
]
Bandwidth = Annotated[
    float | None, typer.Option(help="Bytes per second between replicas.")
]
Latency = Annotated[
    float | None, typer.Option(help="Seconds per message, with --bandwidth.")
]
CommSeconds = Annotated[
    float | None,
    typer.Option(help="Seconds per step that replicas spend on each other."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommunicationChoice:
    """What the options say of the time between replicas.

    Args:
        measure: Time it between processes on this machine.
        bandwidth: Bytes per second; None when not given.
        latency: Seconds per message; None when not given.
        seconds: Seconds per step; None when not given.

    Raises:
        InputError: Two of them contradict each other, or a number is out of range.
    """

    measure: bool = False
    bandwidth: float | None = None
    latency: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        ways = [self.measure, self.bandwidth is not None, self.seconds is not None]
        if sum(ways) > 1:
            raise InputError(
                "communication: give one of --measure-comm, --bandwidth, "
                f"--comm-seconds, got {sum(ways)}."
            )
        if self.latency is not None and self.bandwidth is None:
            raise InputError("--latency: needs --bandwidth.")
        if self.bandwidth is not None:
            _checks.positive("plan", "--bandwidth", self.bandwidth)
        for name, value in (("latency", self.latency), ("comm-seconds", self.seconds)):
            if value is not None:
                _checks.nonnegative("plan", f"--{name}", value)

    @property
    def is_given(self) -> bool:
        """True when the time follows from the options alone."""
        return self.bandwidth is not None or self.seconds is not None

    def resolve(
        self, out: Output, num_parameters: int | None, replicas: tuple[int, ...]
    ) -> "tuple[Communication, list[str]]":
        """Return the communication model, measured on this machine if need be.

        Args:
            out: Told what is being measured.
            num_parameters: Of the model; None where unknown (a table).
            replicas: Numbers of replicas planned for.

        Returns:
            The model, and warnings about what it rests on.

        Raises:
            InputError: The model's size is needed and unknown.
        """
        from rightbatch.step_time import (
            ConstantCommunication,
            NoCommunication,
            RingCommunication,
        )

        if self.seconds is not None:
            return ConstantCommunication(seconds=self.seconds), []
        if max(replicas) == 1:
            return NoCommunication(), []
        if num_parameters is None:
            if self.bandwidth is not None or self.measure:
                raise InputError(
                    "communication: tables do not tell the size of the model.",
                    "give --comm-seconds, or --parameters",
                )
            return NoCommunication(), [
                "communication assumed to take no time: give --comm-seconds or "
                "--bandwidth, or times of more than one replica"
            ]
        num_bytes = FLOAT32_BYTES * num_parameters
        if self.bandwidth is not None:
            ring = RingCommunication(
                latency_seconds=self.latency or 0.0,
                bytes_per_second=self.bandwidth,
                num_bytes=num_bytes,
            )
            return ring, []
        return _measured(out, num_bytes, asked=self.measure)


def _measured(
    out: Output, num_bytes: int, *, asked: bool
) -> "tuple[Communication, list[str]]":
    """Time two processes: more than there are cores would time the waiting."""
    from rightbatch.timing import measure_comm, ring_communication

    with out.bar("timing sums between 2 processes", 100) as show:
        timing = measure_comm(
            num_bytes, 2, on_progress=lambda share: show(round(100 * share))
        )
    ring = ring_communication(timing)
    why = "" if asked else "no communication time was given, so "
    warning = (
        f"{why}sums were timed between 2 processes on this machine "
        f"({os.cpu_count()} cores): {timing.seconds * 1e6:.0f} us for {num_bytes:,} "
        "bytes; other numbers of replicas follow from the ring law"
    )
    return ring, [warning]
