"""Where the seconds between replicas come from: given, measured here, or assumed."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch import _checks
from rightbatch._checks import did_you_mean
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
Comm = Annotated[
    str | None,
    typer.Option(
        "--comm",
        metavar="LAW",
        help="Communication as a law: none; constant:SECONDS; "
        "server:SECONDS_PER_REPLICA; ring, halving-doubling or sharded with "
        ":latency=5us,bandwidth=10GB/s; two-level:replicas=8,inner-bandwidth=..,"
        "outer-bandwidth=.. and latencies. bytes=.. where not four per parameter.",
    ),
]

# What the fields of a law are called on the command line, and in what unit.
FIELDS = {
    "seconds": ("time", "seconds"),
    "seconds-per-replica": ("time", "seconds_per_replica"),
    "latency": ("time", "latency_seconds"),
    "bandwidth": ("bandwidth", "bytes_per_second"),
    "bytes": ("size", "num_bytes"),
    "replicas": ("count", "replicas_per_node"),
    "inner-latency": ("time", "inner_latency_seconds"),
    "inner-bandwidth": ("bandwidth", "inner_bytes_per_second"),
    "outer-latency": ("time", "outer_latency_seconds"),
    "outer-bandwidth": ("bandwidth", "outer_bytes_per_second"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommunicationChoice:
    """What the options say of the time between replicas.

    Args:
        measure: Time it between processes on this machine.
        bandwidth: Bytes per second; None when not given.
        latency: Seconds per message; None when not given.
        seconds: Seconds per step; None when not given.
        law: A law with its numbers, as :func:`parse_communication` reads it; None when
            not given.

    Raises:
        InputError: Two of them contradict each other, or a number is out of range.
    """

    measure: bool = False
    bandwidth: float | None = None
    latency: float | None = None
    seconds: float | None = None
    law: str | None = None

    def __post_init__(self) -> None:
        given = (self.bandwidth, self.seconds, self.law)
        ways = self.measure + sum(one is not None for one in given)
        if ways > 1:
            raise InputError(
                "communication: give one of --measure-comm, --bandwidth, "
                f"--comm-seconds, --comm, got {ways}."
            )
        if self.law is not None:
            # What is wrong with it is said before anything is measured.
            parse_communication(self.law, num_bytes=1.0)
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
        return any(one is not None for one in (self.bandwidth, self.seconds, self.law))

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

        num_bytes = None if num_parameters is None else FLOAT32_BYTES * num_parameters
        if self.law is not None:
            return parse_communication(self.law, num_bytes), []
        if self.seconds is not None:
            return ConstantCommunication(seconds=self.seconds), []
        if max(replicas) == 1:
            return NoCommunication(), []
        if num_bytes is None:
            if self.bandwidth is not None or self.measure:
                raise InputError(
                    "communication: tables do not tell the size of the model.",
                    "give --comm-seconds, or --parameters",
                )
            return NoCommunication(), [
                "communication assumed to take no time: give --comm-seconds or "
                "--bandwidth, or times of more than one replica"
            ]
        if self.bandwidth is not None:
            ring = RingCommunication(
                latency_seconds=self.latency or 0.0,
                bytes_per_second=self.bandwidth,
                num_bytes=num_bytes,
            )
            return ring, []
        return _measured(out, num_bytes, asked=self.measure)


def parse_communication(text: str, num_bytes: float | None) -> "Communication":
    """Return the communication written as ``name:key=value,...`` or ``name:value``.

    Args:
        text: Such as ``ring:latency=5us,bandwidth=1e10`` or ``server:.002``; numbers
            are in seconds, bytes per second and bytes where no unit stands.
        num_bytes: Bytes exchanged where the text does not say; None where unknown.

    Returns:
        The communication; a latency that is not given is 0.

    Raises:
        InputError: The law or a key is unknown (near names are offered), a value is
            no number or out of range, or the bytes are unknown.

    Example:
        >>> parse_communication("server:2ms", None)
        LinearCommunication(seconds_per_replica=0.002)
    """
    from rightbatch.step_time import communication_from_dict
    from rightbatch.step_time.kinds import communication_fields, communication_kind

    who = "--comm"
    name, _, rest = text.partition(":")
    kind = communication_kind(name, who)
    wanted = communication_fields(kind)
    keys = [key for key, (_, field) in FIELDS.items() if field in wanted]
    given: dict[str, Any] = {
        name: 0.0 for name in wanted if name.endswith("latency_seconds")
    }
    if num_bytes is not None and "num_bytes" in wanted:
        given["num_bytes"] = num_bytes
    if len(keys) == 1 and rest and "=" not in rest:
        rest = f"{keys[0]}={rest}"
    for key, value in _pairs(name, rest, keys):
        unit, field = FIELDS[key]
        given[field] = _read_value(f"{who} {key}", unit, value)
    if "num_bytes" in wanted and "num_bytes" not in given:
        raise InputError(
            "communication: tables do not tell the size of the model.",
            f"add bytes=.. to --comm {kind}, or give --parameters",
        )
    for key in keys:
        if FIELDS[key][1] not in given:
            raise InputError(
                f"{who}: {name} needs {key}=.., got {text!r}.",
                f"it takes {', '.join(keys)}",
            )
    return communication_from_dict({"kind": kind, **given}, who)


def _pairs(name: str, rest: str, keys: list[str]) -> list[tuple[str, str]]:
    pairs: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        key = key.strip().replace("_", "-")
        if key not in keys:
            takes = f"it takes {', '.join(keys)}" if keys else "it takes no numbers"
            raise InputError(
                f"--comm: {name} has no {key!r}.", did_you_mean(key, keys) or takes
            )
        if not equals or key in pairs:
            raise InputError(
                f"--comm: {key} must be given once as {key}=value, got {rest!r}."
            )
        pairs[key] = value.strip()
    return list(pairs.items())


def _read_value(where: str, unit: str, text: str) -> float:
    from rightbatch.cli.quantities import quantity

    try:
        return float(text)
    except ValueError:
        if unit == "count":
            raise InputError(f"{where}: {text!r} is not a number.") from None
        return quantity(where, unit, text)


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
