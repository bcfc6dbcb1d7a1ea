"""Two sets of runs compared: steps per batch size, and critical batch sizes.

One optimizer against another, with averaging and without, before a change and after it.
Steps are compared as ratios, by Welch's test on ln steps; of all the ratios of a table
those differ beyond noise that do so by Holm's procedure.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightbatch._checks import confidence_level
from rightbatch.convergence.tuning import TunedFit, fit_tuned
from rightbatch.errors import InputError
from rightbatch.experiments.cells import Cell, best_cells, gather
from rightbatch.experiments.record import Run
from rightbatch.fitting import Interval, half_width

DRAWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The steps of two cells of one batch size, the second over the first.

    Args:
        first: A cell of the first store.
        second: Of the second.
        ratio: Of their geometric means; None where a run of either missed the target,
            without ends where one has a single run.
        p_value: Of no difference, by Welch's test on ln steps; None where untested.
        adjusted_p: The same for all contrasts of the table together, by Holm.
        differs: Whether that is below 1 - level; None where untested.
    """

    first: Cell
    second: Cell
    ratio: Interval | None
    p_value: float | None
    adjusted_p: float | None
    differs: bool | None

    def to_dict(self, level: float) -> dict[str, Any]:
        """Return the fields.

        Args:
            level: Of the intervals of the means.
        """
        return {
            "batch_size": self.first.batch_size,
            "first": _cell_dict(self.first, level),
            "second": _cell_dict(self.second, level),
            "ratio": self.ratio and self.ratio.to_dict(),
            "p_value": self.p_value,
            "adjusted_p": self.adjusted_p,
            "differs": self.differs,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sets of runs, compared at every batch size that both have.

    Args:
        targets: Of the first and of the second.
        level: Of the intervals; 1 - level is the risk of the tests.
        at_best_lr: One contrast per batch size, each set at its own best rate.
        at_same_lr: One contrast per batch size and rate that both have.
        critical_batch_sizes: phi of the first and the second, each tuned; None where
            there is no fit.
        critical_ratio: The second's over the first's; None without both.
        notes: What to know.
    """

    targets: tuple[float, float]
    level: float
    at_best_lr: tuple[Contrast, ...]
    at_same_lr: tuple[Contrast, ...]
    critical_batch_sizes: tuple[Interval | None, Interval | None]
    critical_ratio: Interval | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields; pairs under `first` and `second`."""
        one, other = self.critical_batch_sizes
        return {
            "targets": {"first": self.targets[0], "second": self.targets[1]},
            "level": self.level,
            "at_best_lr": [each.to_dict(self.level) for each in self.at_best_lr],
            "at_same_lr": [each.to_dict(self.level) for each in self.at_same_lr],
            "critical_batch_size": {
                "first": one and one.to_dict(),
                "second": other and other.to_dict(),
                "ratio": self.critical_ratio and self.critical_ratio.to_dict(),
            },
        }


def compare_runs(
    first: Sequence[Run],
    second: Sequence[Run],
    *,
    targets: tuple[float, float],
    level: float = 0.9,
    example_unit: str = "example",
) -> Comparison:
    """Return how two sets of runs compare, batch size by batch size.

    Args:
        first: The latest first.
        second: The same of another store; ratios are over the first.
        targets: Of the first and of the second.
        level: Of the intervals.
        example_unit: What batch sizes count in both.

    Returns:
        The comparison.

    Raises:
        InputError: No run was asked for a target, the two have no batch size in common,
            or the level is none.
    """
    confidence_level("runs", level)
    one, other = gather(first, targets[0]), gather(second, targets[1])
    best, other_best = best_cells(one), best_cells(other)
    theirs = {(cell.batch_size, cell.lr): cell for cell in other}
    same = [
        (cell, theirs[cell.batch_size, cell.lr])
        for cell in one
        if (cell.batch_size, cell.lr) in theirs
    ]
    if not {cell.batch_size for cell in one} & {cell.batch_size for cell in other}:
        raise InputError(
            f"runs: the stores have no batch size in common; the first has "
            f"{_sizes(one)}, the second {_sizes(other)}."
        )
    fits = [_fit(cells, level, example_unit) for cells in (one, other)]
    unfitted = [
        f"the {which} store gives no critical batch size: {fit}"
        for which, fit in zip(("first", "second"), fits, strict=True)
        if isinstance(fit, str)
    ]
    fitted = [None if isinstance(fit, str) else fit for fit in fits]
    phis = [None if fit is None else fit.fit.critical_batch_size for fit in fitted]
    return Comparison(
        targets=targets,
        level=level,
        at_best_lr=_contrasts(
            [(best[size], other_best[size]) for size in best if size in other_best],
            level,
        ),
        at_same_lr=_contrasts(same, level),
        critical_batch_sizes=(phis[0], phis[1]),
        critical_ratio=_critical_ratio(fitted[0], fitted[1], level),
        notes=(*unfitted, *_edge_notes((one, other), (best, other_best))),
    )


def welch_test(
    first: Cell, second: Cell, level: float
) -> tuple[Interval, float | None]:
    """Return the ratio of two cells' steps, second over first, and its p-value.

    Args:
        first: All its runs reached the target.
        second: The same.
        level: Of the interval.

    Returns:
        The ratio of geometric means with Welch's interval, and the probability of one
        as far from 1 by chance; no ends and None where a cell has a single run.

    Example:
        >>> slow = Cell(batch_size=8, lr=0.1, steps=(200.0, 210.0, 190.0),
        ...     statuses={"reached": 3}, rounding=0.0)
        >>> fast = Cell(batch_size=8, lr=0.1, steps=(100.0, 105.0, 95.0),
        ...     statuses={"reached": 3}, rounding=0.0)
        >>> ratio, p = welch_test(slow, fast, 0.9)
        >>> round(ratio.value, 2), p < 0.001
        (0.5, True)
    """
    from scipy.special import stdtr

    difference = second.log_mean - first.log_mean
    variances = (first.log_variance, second.log_variance)
    low = high = p_value = None
    if variances[0] is not None and variances[1] is not None:
        counts = (len(first.steps), len(second.steps))
        a, b = variances[0] / counts[0], variances[1] / counts[1]
        # Every run in as many steps, and the checks at each: nothing is left to chance.
        if a + b == 0:
            return _ratio(difference, difference, difference, level), float(
                difference == 0
            )
        degrees = (a + b) ** 2 / (a**2 / (counts[0] - 1) + b**2 / (counts[1] - 1))
        error = math.sqrt(a + b)
        half = half_width(degrees, level) * error
        low, high = difference - half, difference + half
        p_value = float(2 * stdtr(degrees, -abs(difference) / error))
    return _ratio(difference, low, high, level), p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down procedure.

    Holm (1979): those below a risk are all true differences but with that risk, however
    the tests depend on each other.

    Args:
        p_values: One per test.

    Returns:
        In the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _contrasts(
    pairs: Sequence[tuple[Cell, Cell]], level: float
) -> tuple[Contrast, ...]:
    tested = [
        welch_test(first, second, level)
        if first.all_reached and second.all_reached
        else (None, None)
        for first, second in pairs
    ]
    known = [i for i, (_, p) in enumerate(tested) if p is not None]
    values = [p for _, p in tested if p is not None]
    adjusted = dict(zip(known, holm(values), strict=True))
    return tuple(
        Contrast(
            first=first,
            second=second,
            ratio=tested[i][0],
            p_value=tested[i][1],
            adjusted_p=adjusted.get(i),
            differs=adjusted[i] < 1 - level if i in adjusted else None,
        )
        for i, (first, second) in enumerate(pairs)
    )


def _fit(cells: Sequence[Cell], level: float, unit: str) -> TunedFit | str:
    rows = [(cell.batch_size, count, cell.lr) for cell in cells for count in cell.steps]
    sizes, steps, lrs = zip(*rows, strict=True)
    try:
        return fit_tuned(sizes, steps, lrs, level=level, example_unit=unit)
    except InputError as error:
        return str(error)


def _critical_ratio(
    first: TunedFit | None, second: TunedFit | None, level: float
) -> Interval | None:
    if first is None or second is None:
        return None
    values = [one.fit.critical_batch_size.value for one in (first, second)]
    draws = [
        one.fit.draws(DRAWS, seed=seed) for seed, one in enumerate((first, second))
    ]
    if draws[0] is None or draws[1] is None or not values[0] or not values[1]:
        return None
    # A draw without floor or slope has no phi: it bounds the ratio on neither side.
    with np.errstate(divide="ignore", invalid="ignore"):
        phis = [np.log(one.min_examples / one.min_steps) for one in draws if one]
        logs = phis[1] - phis[0]
    low = np.quantile(
        np.where(np.isnan(logs), -math.inf, logs), (1 - level) / 2, method="nearest"
    )
    high = np.quantile(
        np.where(np.isnan(logs), math.inf, logs), (1 + level) / 2, method="nearest"
    )
    return _ratio(
        math.log(values[1] / values[0]),
        float(low) if math.isfinite(low) else None,
        float(high) if math.isfinite(high) else None,
        level,
    )


def _ratio(
    value: float, low: float | None, high: float | None, level: float
) -> Interval:
    return Interval(
        value=math.exp(value),
        low=None if low is None else math.exp(low),
        high=None if high is None else math.exp(high),
        level=level,
        definition="second over first",
    )


def _edge_notes(
    cells: tuple[Sequence[Cell], Sequence[Cell]],
    best: tuple[Mapping[int, Cell], Mapping[int, Cell]],
) -> list[str]:
    # A store whose best rate lies outside what it tried is compared at its worse.
    notes: list[str] = []
    for which, tried, found in zip(("first", "second"), cells, best, strict=True):
        edges: list[int] = []
        for size, cell in found.items():
            lrs = [one.lr for one in tried if one.batch_size == size]
            if len(lrs) > 1 and cell.lr in (lrs[0], lrs[-1]):
                edges.append(size)
        if edges:
            sizes = ", ".join(map(str, edges))
            notes.append(
                f"the {which} store's best lr is the least or largest tried at batch "
                f"size {sizes}: a better one may lie beyond"
            )
    return notes


def _cell_dict(cell: Cell, level: float) -> dict[str, Any]:
    mean = cell.mean(level)
    return {
        "lr": cell.lr,
        "num_runs": len(cell.steps),
        "num_reached": sum(not math.isnan(count) for count in cell.steps),
        "steps": mean and mean.to_dict(),
    }


def _sizes(cells: Sequence[Cell]) -> str:
    return ", ".join(str(size) for size in sorted({cell.batch_size for cell in cells}))
