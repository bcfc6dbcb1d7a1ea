"""When a run reached its target, read off the trace of its checks.

Two definitions give two numbers. ``first`` is the first update at which the metric is
at the target or past it, as Perrone et al. count it; noise makes it come early, the
more so the smaller the batch. ``smoothed``, the default, is where the curve smoothed
over +-5 % of its steps crosses the target. A trace is a sequence of (step, value)
with steps increasing; step 0 is the untrained model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from rightbatch._checks import one_of, positive, positive_integer
from rightbatch.errors import InputError

Definition = Literal["smoothed", "first"]
Direction = Literal["min", "max"]
Trace = tuple[tuple[int, float], ...]

# Every step is a grid point up to here; after it the grid grows by the ratio.
DENSE_STEPS = 50
GRID_RATIO = 1.02
POINTS_PER_SIDE = 2
# 1 / 5 %: a whole number, so that "within 5 %" is exact.
WINDOW_DIVISOR = 20


def grid_step(index: int) -> int:
    """Return the step of a grid point: 0, 1, ... 50, then 2 % apart, in whole steps.

    Example:
        >>> [grid_step(index) for index in (0, 1, 50, 51, 52, 85, 434)]
        [0, 1, 50, 51, 52, 100, 100331]
    """
    if index <= DENSE_STEPS:
        return index
    return round(DENSE_STEPS * GRID_RATIO ** (index - DENSE_STEPS))


def grid_index(step: int) -> int | None:
    """Return the index of the grid point at `step`; None when there is none.

    Example:
        >>> grid_index(100), grid_index(101)
        (85, None)
    """
    if step <= DENSE_STEPS:
        return step
    logarithm = math.log(step / DENSE_STEPS) / math.log(GRID_RATIO)
    index = DENSE_STEPS + round(logarithm)
    return index if grid_step(index) == step else None


def window_points(index: int) -> int:
    """Return how many grid points on each side a point's centred mean takes in.

    Two, for five points in all; fewer where the grid is coarser than 5 % of the step.

    Example:
        >>> [window_points(index) for index in (10, 20, 40, 300)]
        [0, 1, 2, 2]
    """
    step = grid_step(index)
    for points in range(min(POINTS_PER_SIDE, index), 0, -1):
        ends = (grid_step(index - points), grid_step(index + points))
        if all(WINDOW_DIVISOR * abs(end - step) <= step for end in ends):
            return points
    return 0


def grid_step_up_to(step: int) -> int:
    """Return the last grid point at `step` or before.

    Example:
        >>> grid_step_up_to(101)
        100
    """
    index = min(step, DENSE_STEPS)
    while grid_step(index + 1) <= step:
        index += 1
    return grid_step(index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    r"""The definition by which a trace is at its target.

    ``smoothed``: on the grid of :func:`grid_step`, the value at :math:`t` is
    :math:`\exp` of the mean of :math:`\ln` loss over the grid points within 5 % of
    :math:`t`, two on each side at most (the plain mean where `direction` is ``"max"``
    or a value is not positive); the crossing is the first grid point at which it is
    at the target or past it. ``first``: the first point of the trace that is.

    Args:
        definition: ``"smoothed"`` or ``"first"``.
        direction: ``"min"`` when lower is better, ``"max"`` when higher is.
        gate: Checks are dense from where the running mini-batch loss, or a value
            checked, is within this factor of the easiest target left, until that is
            crossed; elsewhere one grid point in ten is checked. A heuristic: it saves
            most of the checks, and is recorded because a gate near 1 can make a
            crossing late. None checks everywhere. Above 1, and for losses to be made
            small only.
        every: Updates from check to check for ``first``; the crossing is known no
            better. 1 for ``smoothed``, whose grid is its own.

    Raises:
        InputError: A choice is unknown, the gate is not above 1 or does not go
            with the direction, or `every` does not go with the definition.

    Example:
        >>> trace = tuple((step, 10.0 / (step + 1)) for step in range(30))
        >>> Crossing().steps(trace, 1.0), Crossing(definition="first").steps(trace, 5.0)
        (9, 1)
    """

    definition: Definition = "smoothed"
    direction: Direction = "min"
    gate: float | None = None
    every: int = 1

    def __post_init__(self) -> None:
        one_of("Crossing", "definition", self.definition, ("smoothed", "first"))
        one_of("Crossing", "direction", self.direction, ("min", "max"))
        every = positive_integer("Crossing", "every", self.every)
        if every > 1 and self.definition == "smoothed":
            raise InputError(
                "Crossing: `every` must be 1 for 'smoothed', whose grid is its own, "
                f"got {every}.",
                "ask for definition 'first'",
            )
        if self.gate is None:
            return
        if positive("Crossing", "gate", self.gate) <= 1:
            raise InputError(f"Crossing: `gate` must be above 1, got {self.gate}.")
        if self.direction == "max":
            raise InputError("Crossing: a `gate` needs `direction` 'min'.")

    def meets(self, value: float, target: float) -> bool:
        """Return whether `value` is at `target` or past it; never so for NaN."""
        return value <= target if self.direction == "min" else value >= target

    def hardest(self, targets: Sequence[float]) -> float:
        """Return the target that is reached last."""
        return min(targets) if self.direction == "min" else max(targets)

    def easiest(self, targets: Sequence[float]) -> float:
        """Return the target that is reached first."""
        return max(targets) if self.direction == "min" else min(targets)

    def completed(self, trace: Sequence[tuple[int, float]]) -> Trace:
        """Return the points of the curve that the last point of `trace` completes.

        Args:
            trace: At least one point; only its last five are looked at.

        Returns:
            (step, value) of each: the last point itself for ``first``; for
            ``smoothed`` those whose window ends there, none when a neighbour in
            it was not checked.
        """
        if self.definition == "first":
            return (trace[-1],)
        last = grid_index(trace[-1][0])
        if last is None:
            return ()
        tail = trace[-(2 * POINTS_PER_SIDE + 1) :]
        done: list[tuple[int, float]] = []
        for index in range(max(0, last - POINTS_PER_SIDE), last + 1):
            points = window_points(index)
            window = tail[len(tail) - 2 * points - 1 :]
            # With no gap in between, the window starts 2 * points before its end.
            if index + points == last and window[0][0] == grid_step(index - points):
                value = self._mean([value for _, value in window])
                done.append((grid_step(index), value))
        return tuple(done)

    def curve(self, trace: Sequence[tuple[int, float]]) -> Trace:
        """Return the points that are compared with a target, in order of steps."""
        points: list[tuple[int, float]] = []
        for end in range(1, len(trace) + 1):
            points += self.completed(trace[max(0, end - 5) : end])
        return tuple(points)

    def steps(self, trace: Sequence[tuple[int, float]], target: float) -> int | None:
        """Return the steps at which `trace` crosses `target`; None if it does not."""
        return next((s for s, v in self.curve(trace) if self.meets(v, target)), None)

    def nearest(self, trace: Sequence[tuple[int, float]]) -> float | None:
        """Return the best value checked, smoothed where it can be; None for none."""
        values = [v for _, v in self.curve(trace) or trace if not math.isnan(v)]
        values = values or [v for _, v in trace if not math.isnan(v)]
        if not values:
            return None
        return min(values) if self.direction == "min" else max(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the definition and the grid behind it, ready for JSON."""
        smooth = self.definition == "smoothed"
        return {
            "definition": self.definition,
            "direction": self.direction,
            "gate": self.gate,
            "grid_ratio": GRID_RATIO if smooth else None,
            "every": None if smooth else self.every,
        }

    def _mean(self, values: list[float]) -> float:
        if len(values) == 1:
            return values[0]
        if self.direction == "min" and all(value > 0 for value in values):
            return math.exp(fmean(math.log(value) for value in values))
        return fmean(values)
