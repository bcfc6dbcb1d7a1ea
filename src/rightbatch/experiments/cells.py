"""Stored runs gathered by batch size and learning rate, with the mean steps of each."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from rightbatch.convergence.tuning import best_learning_rates
from rightbatch.errors import InputError
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.record import Run, Status, TargetCrossing
from rightbatch.fitting import Interval, half_width


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The runs to one target at one batch size and learning rate.

    Args:
        batch_size: Examples per step.
        lr: Learning rate.
        steps: Steps of each seed, NaN for a run that did not reach the target.
        statuses: How many runs ended how.
        rounding: Variance of ln steps that is due to the checks being apart: no spread
            among seeds is known better.

    Example:
        >>> cell = Cell(batch_size=8, lr=0.1, steps=(90.0, 100.0, 110.0),
        ...     statuses={"reached": 3}, rounding=0.0)
        >>> print(cell.mean(0.9))
        99.7 steps (84.1 to 118, 90 %)
    """

    batch_size: int
    lr: float
    steps: tuple[float, ...]
    statuses: Mapping[str, int]
    rounding: float

    @property
    def all_reached(self) -> bool:
        """True when no run missed the target: only then are its steps a mean."""
        return not any(map(math.isnan, self.steps))

    @property
    def log_mean(self) -> float:
        """Mean of ln steps; NaN where a run missed."""
        return sum(map(_log, self.steps)) / len(self.steps)

    @property
    def log_variance(self) -> float | None:
        """Variance of ln steps from seed to seed; None of fewer than two."""
        if len(self.steps) < 2 or not self.all_reached:
            return None
        squares = sum((_log(count) - self.log_mean) ** 2 for count in self.steps)
        return max(squares / (len(self.steps) - 1), self.rounding)

    def mean(self, level: float) -> Interval | None:
        """Return the geometric mean of the steps; None where a run missed.

        Args:
            level: Of the interval, by Student's t on ln steps; without ends for one
                run.
        """
        if not self.all_reached:
            return None
        low = high = None
        if self.log_variance is not None:
            num = len(self.steps)
            half = half_width(num - 1, level) * math.sqrt(self.log_variance / num)
            low, high = math.exp(self.log_mean - half), math.exp(self.log_mean + half)
        return Interval(
            value=math.exp(self.log_mean),
            low=low,
            high=high,
            level=level,
            unit="steps",
            definition="geometric mean over seeds",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """What a store knows of one batch size and target.

    Args:
        target: The value asked for.
        crossing: How it was read off, as :func:`crossing_name` says it.
        best: The runs at the best learning rate; None where no run reached it.
        batch_size: Examples per step.
        at_edge: True when the best rate is the least or the largest of several.
        num_lrs: Learning rates tried.
        statuses: How many runs ended how, at all rates.
        level: Of the interval.
    """

    target: float
    crossing: str
    batch_size: int
    best: Cell | None
    at_edge: bool
    num_lrs: int
    statuses: Mapping[str, int]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields; `spread` is the standard deviation of ln steps."""
        best = self.best
        mean = best and best.mean(self.level)
        variance = best and best.log_variance
        return {
            "target": self.target,
            "crossing": self.crossing,
            "batch_size": self.batch_size,
            "lr": best and best.lr,
            "at_edge": self.at_edge,
            "num_lrs": self.num_lrs,
            "num_runs": len(best.steps) if best else 0,
            "steps": mean and mean.to_dict(),
            "spread": None if variance is None else math.sqrt(variance),
            "statuses": {
                status: self.statuses[status]
                for status in get_args(Status)
                if status in self.statuses
            },
        }


def crossing_name(crossing: Crossing) -> str:
    """Return how a crossing was read off: steps of two names are two quantities.

    The gate saves checks and says nothing here.

    Args:
        crossing: The definition in use.

    Example:
        >>> crossing_name(Crossing()), crossing_name(Crossing(definition="first"))
        ('smoothed', 'first')
        >>> crossing_name(Crossing(definition="first", every=50))
        'first of every 50'
    """
    every = "" if crossing.every == 1 else f" of every {crossing.every}"
    return crossing.definition + every


def unique_crossings(runs: Iterable[Run]) -> list[tuple[Run, TargetCrossing]]:
    """Return one run per batch size, lr, seed, target and crossing: the most telling.

    A run that was capped, and then run on, is in a store twice; so is one that another
    session did again. As repeats they would feign a failure, or certainty.

    Args:
        runs: The latest first, as a store gives equal ones.

    Returns:
        Runs with where they crossed: of each one that reached the target, else the one
        with the largest budget; of equals the latest.

    Example:
        >>> from dataclasses import replace
        >>> short = Run(batch_size=8, lr=0.1, seed=0, status="not_reached", last_step=9,
        ...     budget=9, trace=(), nearest=None, crossing=Crossing(),
        ...     crossings=(TargetCrossing(target=0.5, status="not_reached"),),
        ...     seconds_training=1.0, seconds_checking=0.1, median_step_seconds=0.1)
        >>> found = unique_crossings([short, replace(short, budget=20)])
        >>> [run.budget for run, _ in found]
        [20]
    """
    chosen: dict[tuple[Any, ...], tuple[Run, TargetCrossing]] = {}
    for run in runs:
        for crossed in run.crossings:
            name = crossing_name(run.crossing)
            key = (run.batch_size, run.lr, run.seed, crossed.target, name)
            if key not in chosen or _told(run, crossed) > _told(*chosen[key]):
                chosen[key] = (run, crossed)
    return list(chosen.values())


def gather(runs: Sequence[Run], target: float) -> tuple[Cell, ...]:
    """Return the runs that were asked for a target, by batch size and learning rate.

    Args:
        runs: The latest first; those of other targets are left out.
        target: The value.

    Returns:
        Sorted by batch size and rate.

    Raises:
        InputError: None was asked for it, or their crossings were read off in several
            ways.
    """
    names = crossings_of(runs, target)
    if len(names) > 1:
        raise InputError(
            f"runs: the crossings of `target` {target:g} were read off in several "
            f"ways, {' and '.join(names)}.",
            "gather the runs of one at a time",
        )
    cells: dict[tuple[int, float], list[TargetCrossing]] = {}
    for run, crossed in unique_crossings(runs):
        if crossed.target == target:
            cells.setdefault((run.batch_size, run.lr), []).append(crossed)
    if not cells:
        known = ", ".join(f"{value:g}" for value in targets_of(runs)) or "none"
        raise InputError(
            f"runs: `target` {target:g} was not asked for; the targets are {known}."
        )
    return tuple(
        Cell(
            batch_size=size,
            lr=lr,
            steps=tuple(_steps(crossed) for crossed in cells[size, lr]),
            statuses=Counter(crossed.status for crossed in cells[size, lr]),
            rounding=sum(map(_rounding, cells[size, lr])) / len(cells[size, lr]),
        )
        for size, lr in sorted(cells)
    )


def best_cells(cells: Sequence[Cell]) -> dict[int, Cell]:
    """Return the cell of the best learning rate of each batch size.

    Args:
        cells: From :func:`gather`.

    Returns:
        By batch size; one that no run reached the target at is left out.
    """
    rows = [(cell.batch_size, cell.lr, count) for cell in cells for count in cell.steps]
    sizes, lrs, steps = zip(*rows, strict=True)
    best = best_learning_rates(sizes, lrs, steps)
    return {
        cell.batch_size: cell for cell in cells if best.get(cell.batch_size) == cell.lr
    }


def summarize(
    runs: Sequence[Run], target: float, *, level: float = 0.9
) -> tuple[BatchSummary, ...]:
    """Return per batch size the best rate, its steps and how the runs ended.

    Runs whose crossings were read off in several ways are summed up apart.

    Args:
        runs: The latest first.
        target: The value.
        level: Of the intervals.

    Returns:
        Sorted by how crossings were read off, in the order of the runs, and by batch
        size.

    Raises:
        InputError: No run was asked for the target.
    """
    names = crossings_of(runs, target)
    if names[1:]:
        return tuple(
            one
            for name in names
            for one in summarize(read_off(runs, name), target, level=level)
        )
    cells = gather(runs, target)
    best = best_cells(cells)
    found: list[BatchSummary] = []
    for size in sorted({cell.batch_size for cell in cells}):
        here = [cell for cell in cells if cell.batch_size == size]
        lrs = [cell.lr for cell in here]
        one = best.get(size)
        at_edge = one is not None and len(lrs) > 1 and one.lr in (lrs[0], lrs[-1])
        statuses = sum((Counter(cell.statuses) for cell in here), Counter[str]())
        found.append(
            BatchSummary(
                target=target,
                crossing=names[0],
                batch_size=size,
                best=one,
                at_edge=at_edge,
                num_lrs=len(lrs),
                statuses=statuses,
                level=level,
            )
        )
    return tuple(found)


def targets_of(runs: Sequence[Run]) -> tuple[float, ...]:
    """Return all targets that runs were asked for, the hardest first.

    Args:
        runs: Any.

    Returns:
        Each once.
    """
    maximized = bool(runs) and runs[0].crossing.direction == "max"
    return tuple(sorted({t for run in runs for t in run.targets}, reverse=maximized))


def crossings_of(runs: Iterable[Run], target: float) -> tuple[str, ...]:
    """Return how the crossings of a target were read off, by :func:`crossing_name`.

    Args:
        runs: Any.
        target: The value.

    Returns:
        Each once, in the order of the runs.
    """
    names = (crossing_name(run.crossing) for run in runs if target in run.targets)
    return tuple(dict.fromkeys(names))


def read_off(runs: Iterable[Run], name: str) -> tuple[Run, ...]:
    """Return the runs whose crossings were read off in one way.

    Args:
        runs: Any.
        name: As :func:`crossing_name` says it.

    Returns:
        In the same order.
    """
    return tuple(run for run in runs if crossing_name(run.crossing) == name)


def _told(run: Run, crossed: TargetCrossing) -> tuple[bool, int]:
    reached = crossed.steps is not None
    return reached, 0 if reached else run.budget


def _steps(crossed: TargetCrossing) -> float:
    return math.nan if crossed.steps is None else float(crossed.steps)


def _log(steps: float) -> float:
    # A run may be at an easy target before its first step.
    return math.log(max(steps, 1.0))


def _rounding(crossed: TargetCrossing) -> float:
    # Anywhere between two checks is as likely: the variance of a uniform distribution.
    if not crossed.steps or not crossed.grid_spacing:
        return 0.0
    return (crossed.grid_spacing / crossed.steps) ** 2 / 12
