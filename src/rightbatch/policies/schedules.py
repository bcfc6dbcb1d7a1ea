"""Batch sizes laid down before the run: by step, epoch, example or token."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.policies.contract import (
    UNBOUNDED,
    Decision,
    Observation,
    nothing_remembered,
)
from rightbatch.policies.noise_reading import LastWish, hold

Unit = Literal["step", "epoch", "example", "token"]
UNITS: tuple[str, ...] = get_args(Unit)
_FIELDS = {"epoch": frozenset({"epoch"}), "token": frozenset({"tokens"})}
_SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def position(seen: Observation, unit: Unit) -> float | None:
    """Return where a run stands, in a unit; None where that is not known.

    Args:
        seen: With `epoch` or `tokens` for these.
        unit: ``step``, ``epoch``, ``example`` or ``token``.

    Returns:
        Done so far.

    Example:
        >>> position(Observation(step=3, examples=24, batch_size=8), "example")
        24
    """
    if unit == "step":
        return seen.step
    if unit == "example":
        return seen.examples
    return seen.epoch if unit == "epoch" else seen.tokens


def fields_of(unit: Unit) -> frozenset[str]:
    """Return the observed fields that :func:`position` reads for a unit."""
    return _FIELDS.get(unit, frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class FullBatch:
    """All examples of the data set at every update: full gradient descent.

    Where the size of the data set is not known the wish is
    :data:`~rightbatch.policies.UNBOUNDED`, as many as can be served.

    Example:
        >>> seen = Observation(step=0, examples=0, batch_size=0, dataset_size=1437)
        >>> FullBatch().update(None, seen)[0].batch_size
        1437
    """

    needs = frozenset({"dataset_size"})
    init = nothing_remembered

    def update(self, state: None, seen: Observation) -> tuple[Decision, None]:
        """Return the size of the data set."""
        return Decision(seen.dataset_size or UNBOUNDED, reason="all examples"), state


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Batch sizes from given points of the run on.

    Args:
        points: Pairs of a position and the batch size from there on, in examples; the
            first at 0, positions increasing. Past the last its batch size stays.
        unit: What positions count: ``step`` (updates done), ``epoch``, ``example`` or
            ``token``. Where it is not known the batch stays as it is.
        between: ``jump`` from point to point, or follow the ``line`` between them.

    Raises:
        InputError: Points are missing, out of order or not positive, or a word is
            unknown.

    Example:
        >>> points = ((0, 64), (1000, 128))
        >>> policy = Schedule(points=points, unit="step", between="line")
        >>> seen = Observation(step=250, examples=16000, batch_size=64)
        >>> policy.update(policy.init(), seen)[0]
        Decision(batch_size=80.0, lr_factor=1.0, reason='step 250')
    """

    points: tuple[tuple[float, float], ...]
    unit: Unit
    between: Literal["jump", "line"] = "jump"

    init = nothing_remembered

    def __post_init__(self) -> None:
        _checks.one_of("Schedule", "unit", self.unit, UNITS)
        _checks.one_of("Schedule", "between", self.between, ("jump", "line"))
        object.__setattr__(self, "points", _checked_points(self.points))

    @property
    def needs(self) -> frozenset[str]:
        """The epoch or the tokens, where positions count these."""
        return fields_of(self.unit)

    def update(self, state: LastWish, seen: Observation) -> tuple[Decision, LastWish]:
        """Return the batch size for where the run stands, and remember it."""
        place = position(seen, self.unit)
        if place is None:
            why = f"{self.unit} unknown"
            return hold(state, seen, self.points[0][1], why)
        size = self.batch_size_at(place)
        return Decision(size, reason=f"{self.unit} {place:.6g}"), size

    def batch_size_at(self, place: float) -> float:
        """Return the batch size at a position of the run.

        Args:
            place: In the schedule's unit.

        Returns:
            Examples, not rounded.
        """
        after = bisect_right(self.points, place, key=lambda point: point[0])
        start, size = self.points[max(0, after - 1)]
        if self.between == "jump" or after in (0, len(self.points)):
            return size
        end, next_size = self.points[after]
        return size + (next_size - size) * (place - start) / (end - start)


def parse_schedule(text: str, unit: Unit = "token") -> Schedule:
    """Return the schedule that a text such as ``0:768 250B:1536`` lays down.

    The form of Megatron-LM's ``--step-batch-size-schedule``: positions and batch sizes,
    with a space between; positions may end in K, M, B or T, for 1e3 to 1e12.

    Args:
        text: ``position:batch_size position:batch_size ...``, the first position 0.
        unit: What positions count; there it is tokens.

    Returns:
        The schedule.

    Raises:
        InputError: A part cannot be read, or the points are out of order.

    Example:
        >>> parse_schedule("0:768 250B:1536").points
        ((0.0, 768.0), (250000000000.0, 1536.0))
    """
    points: list[tuple[float, float]] = []
    for part in text.split():
        place, _, size = part.partition(":")
        try:
            points.append((read_count(place), float(size)))
        except ValueError:
            raise InputError(
                f"schedule: {part!r} is not a position and a batch size.",
                "write 0:768 250B:1536",
            ) from None
    return Schedule(points=tuple(points), unit=unit)


def read_count(text: str) -> float:
    """Return the number of a text that may end in K, M, B or T, for 1e3 to 1e12.

    Args:
        text: Such as ``250B``.

    Returns:
        The number.

    Raises:
        ValueError: It is none.

    Example:
        >>> read_count("250B"), read_count(".5")
        (250000000000.0, 0.5)
    """
    last = text[-1:].upper()
    if last in _SUFFIXES:
        return float(text[:-1]) * _SUFFIXES[last]
    return float(text)


def linear_ramp(
    *, initial_batch_size: float, final_batch_size: float, over: float, unit: Unit
) -> Schedule:
    """Return a schedule that grows along a line and then stays.

    Args:
        initial_batch_size: At 0, in examples.
        final_batch_size: From `over` on.
        over: Length of the ramp, in the unit.
        unit: ``step``, ``epoch``, ``example`` or ``token``.

    Returns:
        The schedule, as GPT-3's (Brown et al. 2020, over tokens).

    Raises:
        InputError: A value is not positive, or the unit unknown.

    Example:
        >>> ramp = linear_ramp(
        ...     initial_batch_size=32, final_batch_size=96, over=4e9, unit="token")
        >>> ramp.batch_size_at(1e9), ramp.batch_size_at(5e9)
        (48.0, 96.0)
    """
    _checks.positive("linear_ramp", "over", over)
    points = ((0, initial_batch_size), (over, final_batch_size))
    return Schedule(points=points, unit=unit, between="line")


def doubling_schedule(
    *, initial_batch_size: float, max_batch_size: float, every: float, unit: Unit
) -> Schedule:
    """Return a schedule that doubles at equal distances, up to a largest size.

    Args:
        initial_batch_size: At 0, in examples.
        max_batch_size: The last doubling stops there, short of twice the size before.
        every: Distance between doublings, in the unit.
        unit: ``step``, ``epoch``, ``example`` or ``token``.

    Returns:
        The schedule, as in Smith et al. (2018).

    Raises:
        InputError: A value is not positive, the unit unknown, or the largest size below
            the first.

    Example:
        >>> doubling_schedule(
        ...     initial_batch_size=16, max_batch_size=50, every=5, unit="epoch").points
        ((0.0, 16.0), (5.0, 32.0), (10.0, 50.0))
    """
    who = "doubling_schedule"
    first = _checks.positive(who, "initial_batch_size", initial_batch_size)
    last = _checks.positive(who, "max_batch_size", max_batch_size)
    step = _checks.positive(who, "every", every)
    if last < first:
        raise InputError(
            f"{who}: `max_batch_size` must be >= `initial_batch_size`, got {last:g} "
            f"and {first:g}."
        )
    times = math.ceil(math.log2(last / first))
    sizes = [min(first * 2**j, last) for j in range(times + 1)]
    points = tuple((step * j, size) for j, size in enumerate(sizes))
    return Schedule(points=points, unit=unit)


def _checked_points(
    points: Sequence[Sequence[float]],
) -> tuple[tuple[float, float], ...]:
    who = "Schedule"
    listed = list(points)
    if not listed or any(len(point) != 2 for point in listed):
        raise InputError(
            f"{who}: `points` must be pairs of a position and a batch size, "
            f"got {points!r}.",
            "write ((0, 64), (1000, 128))",
        )
    for place, size in listed:
        _checks.nonnegative(who, "points", place)
        _checks.positive(who, "points", size)
    places = [float(place) for place, _ in listed]
    if places[0] != 0:
        raise InputError(
            f"{who}: `points` must start at 0, got {places[0]:g}.",
            "say with which batch size the run starts",
        )
    for before, after in zip(places, places[1:], strict=False):
        if after <= before:
            raise InputError(
                f"{who}: `points` must be in order, got {before:g} then {after:g}."
            )
    return tuple((float(place), float(size)) for place, size in listed)
