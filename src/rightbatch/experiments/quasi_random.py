"""Tuning by quasi-random search, with a check that the optimum lies inside.

Zhang et al. (2019), after Shallue et al. (2018), tune every optimizer at every batch
size so, and repeat where the best trial lies at an edge of the space searched: steps to
the target then say what the optimizer needs, not where the search ended.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from scipy.stats import qmc

from rightbatch._checks import finite, one_of, positive, positive_integer
from rightbatch.errors import InputError

Point = Mapping[str, float]
Objective = Callable[[Point], float]
Side = Literal["below", "above"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One setting's range.

    Args:
        low: Where it begins.
        high: Where it ends.
        scale: ``"log"`` or ``"linear"``; evenly searched on that scale.
        least: Below it there is nothing to try: an edge there is not counted as one.
        most: The same above.

    Raises:
        InputError: The ends are out of order, or not positive on a log scale.

    Example:
        >>> Axis(low=0.01, high=1.0).at(0.5)
        0.1
    """

    low: float
    high: float
    scale: Literal["log", "linear"] = "log"
    least: float = -math.inf
    most: float = math.inf

    def __post_init__(self) -> None:
        one_of("Axis", "scale", self.scale, ("log", "linear"))
        check = positive if self.scale == "log" else finite
        check("Axis", "low", self.low)
        check("Axis", "high", self.high)
        if not self.least <= self.low < self.high <= self.most:
            raise InputError(
                "Axis: `low` must be below `high`, both within `least` and `most`, got "
                f"{self.low:g} and {self.high:g} in {self.least:g} to {self.most:g}."
            )

    def at(self, share: float) -> float:
        """Return the value at a share of the range, 0 to 1.

        Args:
            share: Of the way from `low` to `high`; may lie outside 0 to 1.
        """
        if self.scale == "linear":
            return self.low + share * (self.high - self.low)
        # exp(log()) would not give the ends back.
        return self.low * (self.high / self.low) ** share

    def moved(self, side: Side) -> "Axis":
        """Return the range moved by half its length, as far as there is room.

        Args:
            side: Where to.
        """
        by = -0.5 if side == "below" else 0.5
        low, high = self.at(by), self.at(1 + by)
        return replace(self, low=max(low, self.least), high=min(high, self.most))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point tried.

    Args:
        point: The settings.
        value: What the objective gave; infinite where it did not get there.
    """

    point: Point
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found.

    Args:
        trials: In the order tried.
        edges: Of the best trial: ``{"lr": "above"}`` where no larger lr was tried and
            there would have been room for one; empty when it is interior.
        num_moves: How often the space was moved after an edge.
    """

    trials: tuple[Trial, ...]
    edges: Mapping[str, Side]
    num_moves: int

    @property
    def best(self) -> Trial:
        """The trial with the smallest value; the earliest of several."""
        return min(self.trials, key=lambda trial: trial.value)

    @property
    def is_interior(self) -> bool:
        """Whether the best lies inside of what was tried, and got there at all."""
        return math.isfinite(self.best.value) and not self.edges

    def __str__(self) -> str:
        best = self.best
        if not math.isfinite(best.value):
            return f"none of {len(self.trials)} trials got there"
        said = ", ".join(f"{name} {value:.3g}" for name, value in best.point.items())
        where = "interior"
        if self.edges:
            sides = [f"{name} {side}" for name, side in self.edges.items()]
            where = f"at an edge: try {', '.join(sides)}"
        return f"{best.value:g} at {said} of {len(self.trials)} trials, {where}"


def quasi_random_points(
    space: Mapping[str, Axis], num_points: int, seed: int = 0
) -> tuple[dict[str, float], ...]:
    """Return points that fill a space evenly: a scrambled Halton sequence.

    Args:
        space: The axes by name.
        num_points: How many.
        seed: Of the scrambling.

    Returns:
        The points; the first are the same whatever their number.

    Raises:
        InputError: There is no axis, or no point.

    Example:
        >>> points = quasi_random_points({"lr": Axis(low=0.01, high=1.0)}, 4)
        >>> sorted(round(point["lr"], 3) for point in points)
        [0.026, 0.082, 0.26, 0.821]
    """
    positive_integer("quasi_random_points", "num_points", num_points)
    if not space:
        raise InputError("quasi_random_points: `space` must have an axis.")
    shares = qmc.Halton(len(space), rng=seed).random(num_points)
    return tuple(
        {
            name: axis.at(float(u))
            for (name, axis), u in zip(space.items(), row, strict=True)
        }
        for row in shares
    )


def quasi_random_search(
    objective: Objective,
    space: Mapping[str, Axis],
    *,
    num_trials: int = 8,
    seed: int = 0,
    max_moves: int = 0,
) -> SearchResult:
    """Return the best of quasi-random trials, and whether it is interior.

    The best is interior when, along every axis, smaller and larger values were tried.
    Where it is not, the space is moved by half its length to that side, and half as
    many trials are made there, up to `max_moves` times.

    Args:
        objective: Of a point; the smaller the better, infinite or NaN for failure.
        space: The axes by name.
        num_trials: In the space as given.
        seed: Of the sequence.
        max_moves: How often it may be moved.

    Returns:
        All trials, the best, and the edges it lies at.

    Raises:
        InputError: There is no axis or no trial.

    Example:
        >>> def bowl(point):
        ...     return math.log(point["lr"] / 0.9) ** 2
        >>> axis = Axis(low=0.01, high=1.0)
        >>> quasi_random_search(bowl, {"lr": axis}).edges
        {'lr': 'above'}
        >>> quasi_random_search(bowl, {"lr": axis}, max_moves=2).is_interior
        True
    """
    found = _tried(objective, space, num_trials, seed)
    edges, moves = _edges(found, space), 0
    while edges and moves < max_moves:
        moves += 1
        space = {
            name: axis.moved(edges[name]) if name in edges else axis
            for name, axis in space.items()
        }
        found += _tried(objective, space, math.ceil(num_trials / 2), seed + moves)
        edges = _edges(found, space)
    return SearchResult(trials=found, edges=edges, num_moves=moves)


def _tried(
    objective: Objective, space: Mapping[str, Axis], num_trials: int, seed: int
) -> tuple[Trial, ...]:
    trials: list[Trial] = []
    for point in quasi_random_points(space, num_trials, seed):
        value = objective(point)
        trials.append(
            Trial(point=point, value=math.inf if math.isnan(value) else value)
        )
    return tuple(trials)


def _edges(trials: tuple[Trial, ...], space: Mapping[str, Axis]) -> dict[str, Side]:
    best = min(trials, key=lambda trial: trial.value)
    edges: dict[str, Side] = {}
    if not math.isfinite(best.value):
        return edges
    for name, axis in space.items():
        values = [trial.point[name] for trial in trials]
        if best.point[name] <= min(values) and axis.low > axis.least:
            edges[name] = "below"
        elif best.point[name] >= max(values) and axis.high < axis.most:
            edges[name] = "above"
    return edges
