"""Learning-rate schedules as functions of the share of the run that is done."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rightbatch import _checks
from rightbatch.errors import InputError

FloatArray = NDArray[np.float64]
Factor = Callable[[FloatArray], FloatArray]

_CELLS = 1024
_BISECTIONS = 40
# Steeper than this within a cell is a jump, or near enough to be worth a closer look.
_JUMP = 0.02


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """A learning rate against progress, both as shares: of its peak, of the run.

    Args:
        name: For messages.
        factor: Takes progress in [0, 1], any shape; returns the learning rate over any
            constant, of the same shape; 0 or above.
        knots: Progress where it jumps or bends, as far as known; jumps are found
            besides.

    Example:
        >>> mine = Schedule(name="mine", factor=lambda t: 3e-4 * (1 - t))
        >>> round(mine.mean(), 9)
        0.5
    """

    name: str
    factor: Factor
    knots: tuple[float, ...] = ()

    def values(self, progress: FloatArray) -> FloatArray:
        """Return the schedule, not yet over its peak, at each progress.

        Args:
            progress: In [0, 1], any shape.

        Returns:
            The same shape.

        Raises:
            InputError: A value is negative or not finite.
        """
        found = np.asarray(self.factor(progress), dtype=float)
        found = np.broadcast_to(found, progress.shape)
        bad = ~(np.isfinite(found) & (found >= -1e-12))
        if bad.any():
            place = progress[bad].flat[0]
            raise InputError(
                f"schedule {self.name}: must be finite and not negative, got "
                f"{found[bad].flat[0]:g} at progress {place:g}."
            )
        return np.maximum(found, 0.0)

    def edges(self) -> FloatArray:
        """Return progress cut into cells in which the schedule is smooth.

        Returns:
            Increasing, from 0 to 1, shape (n + 1,).
        """
        inner = [knot for knot in self.knots if 0 < knot < 1]
        edges = np.union1d(np.linspace(0, 1, _CELLS + 1), inner)
        peak = self.values(edges).max()
        for _ in range(_BISECTIONS):
            jump = np.abs(np.diff(self.values(edges))) > _JUMP * peak
            # Known knots are edges already, and a jump cannot be cut for ever.
            wide = np.diff(edges) > 1e-10
            middle = (0.5 * (edges[:-1] + edges[1:]))[jump & wide]
            if not middle.size:
                break
            edges = np.union1d(edges, middle)
        return edges

    def mean(self) -> float:
        """Return its mean over its peak, the integral of the factor over the run."""
        edges, values, weights = self.sampled()
        return float(np.diff(edges) @ (values @ weights))

    def sampled(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return cells, the factor inside each, and the weights of its mean there.

        Returns:
            Edges (n + 1,), the factor over its peak at the Gauss points of each cell
            (n, 5), weights (5,) that sum to 1.

        Raises:
            InputError: The schedule is 0 everywhere.
        """
        edges = self.edges()
        points, weights = np.polynomial.legendre.leggauss(5)
        middle, half = 0.5 * (edges[:-1] + edges[1:]), 0.5 * np.diff(edges)
        values = self.values(middle[:, None] + half[:, None] * points)
        peak = max(float(values.max()), float(self.values(edges).max()))
        if peak <= 0:
            raise InputError(f"schedule {self.name}: is 0 everywhere.")
        return edges, values / peak, weights / 2


def sampled_schedule(values: Sequence[float], name: str = "sampled") -> Schedule:
    """Return the schedule through learning rates at equal distances, joined by lines.

    Args:
        values: At least two, the first at the start and the last at the end of the run.
        name: For messages.

    Returns:
        The schedule.

    Raises:
        InputError: There are fewer than two values.

    Example:
        >>> sampled_schedule([1e-3, 1e-3, 0]).mean()
        0.75
    """
    heights = np.asarray(values, dtype=float)
    if heights.ndim != 1 or heights.size < 2:
        raise InputError("sampled_schedule: `values` must be two numbers or more.")
    places = np.linspace(0, 1, heights.size)
    return Schedule(
        name=name,
        factor=lambda progress: np.interp(progress, places, heights),
        knots=tuple(places[1:-1]),
    )


def named_schedule(text: str) -> Schedule:
    r"""Return a schedule by its name and parameters.

    With t the share of the run done and `final` the last factor, 0 unless given:

    =================================  ============================================
    ``constant``                       1
    ``linear:final=0``                 1 - t
    ``cosine:final=0``                 (1 + cos(pi t))/2, the half-cosine
    ``quarter_cosine:final=0``         cos(pi t/2)
    ``wsd:tail=0.1,final=0``           1, then linear over the last `tail`
    ``step:factor=10,num=2``           divided by `factor` at `num` equal distances
    ``inverse_time:final=0.1``         1/(1 + c t), c from `final`
    =================================  ============================================

    Args:
        text: ``name``, ``name:key=value,key=value``, or ``name:value`` for its first
            parameter.

    Returns:
        The schedule.

    Raises:
        InputError: The name or a parameter is unknown, or a value is out of its range.

    Example:
        >>> named_schedule("wsd:tail=0.1").mean()
        0.95
    """
    name, _, rest = text.partition(":")
    name = name.replace("-", "_")
    _checks.one_of("schedule", "schedule", name, list(_DEFAULTS))
    given = _parameters(name, rest)
    if "final" in given and not 0 <= given["final"] <= 1:
        raise InputError(
            f"schedule: `final` must be in [0, 1], got {given['final']:g}."
        )
    if name == "wsd":
        return _wsd(text, given["tail"], given["final"])
    if name == "step":
        return _step(text, given["factor"], given["num"])
    if name == "inverse_time":
        last = _checks.positive("schedule", "final", given["final"])
        return Schedule(name=text, factor=lambda t: 1 / (1 + (1 / last - 1) * t))
    shape, final = _SHAPES[name], given.get("final", 0.0)
    return Schedule(name=text, factor=lambda t: final + (1 - final) * shape(t))


_SHAPES: Mapping[str, Factor] = {
    "constant": np.ones_like,
    "linear": lambda t: 1 - t,
    "cosine": lambda t: 0.5 * (1 + np.cos(math.pi * t)),
    "quarter_cosine": lambda t: np.cos(0.5 * math.pi * t),
}
_DEFAULTS: Mapping[str, dict[str, float]] = {
    "constant": {},
    "linear": {"final": 0.0},
    "cosine": {"final": 0.0},
    "quarter_cosine": {"final": 0.0},
    "wsd": {"tail": 0.1, "final": 0.0},
    "step": {"factor": 10.0, "num": 2},
    "inverse_time": {"final": 0.1},
}


def _wsd(name: str, tail: float, final: float) -> Schedule:
    if not 0 < tail <= 1:
        raise InputError(f"schedule: `tail` must be in (0, 1], got {tail:g}.")
    return Schedule(
        name=name,
        factor=lambda t: 1 - (1 - final) * np.maximum(t - (1 - tail), 0) / tail,
        knots=(1 - tail,),
    )


def _step(name: str, factor: float, num: float) -> Schedule:
    num = _checks.positive_integer("schedule", "num", num)
    if _checks.finite("schedule", "factor", factor) <= 1:
        raise InputError(f"schedule: `factor` must be above 1, got {factor:g}.")
    cuts = np.arange(1, num + 1) / (num + 1)
    return Schedule(
        name=name,
        factor=lambda t: factor ** -np.searchsorted(cuts, t, "right").astype(float),
        knots=tuple(cuts),
    )


def _parameters(name: str, text: str) -> dict[str, float]:
    known = _DEFAULTS[name]
    given: dict[str, float] = dict(known)
    for part in text.split(",") if text else []:
        key, equals, value = part.rpartition("=")
        key = key.strip() if equals else next(iter(known), "")
        if key not in known:
            has = ", ".join(known) or "no parameter"
            raise InputError(
                f"schedule: {name} has no parameter {part.strip()!r}.", f"it has {has}"
            )
        try:
            given[key] = float(value)
        except ValueError:
            raise InputError(f"schedule: {part.strip()!r} is not a number.") from None
        _checks.finite("schedule", key, given[key])
    return given
