"""Two workloads in one table: repeats that fall into two groups, far apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.fitting import FloatArray

# Seeds differ by 10 to 40 %, evaluations quantise to some steps of that size; a factor
# of two between groups at most batch sizes is neither.
SURE_FACTOR = 2.0
LIKELY_FACTOR = 1.5
# Share of the batch sizes with repeats that must split, and how many at least.
MOST, AT_LEAST = 0.75, 3
# Of pairs of runs any two are two groups, so one more must agree to be sure.
PAIRS_AT_LEAST = 4
# By how much the gap must exceed the spread of either group.
CLEAR = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Evidence that a table holds two workloads.

    Args:
        batch_sizes: Where repeats fall into two groups.
        num_repeated: Batch sizes that have repeats.
        factor: Geometric mean of the ratios between the groups.
        is_sure: True where the groups are twice apart or more.
    """

    batch_sizes: tuple[float, ...]
    num_repeated: int
    factor: float
    is_sure: bool

    def __str__(self) -> str:
        return (
            f"at {len(self.batch_sizes)} of {self.num_repeated} batch sizes the "
            f"repeats fall into two groups, about {self.factor:.2g} times apart, as if "
            "two workloads were mixed"
        )


def find_mixture(
    batch_sizes: Sequence[float],
    steps: Sequence[float],
    lrs: Sequence[float | None] | None = None,
) -> Mixture | None:
    """Return the evidence that runs are of two workloads, or None.

    Repeats share batch size and learning rate. Their logarithms are cut at the widest
    gap; a batch size splits where that gap is a factor of 1.5 or more (2 between two
    single runs), and three times the spread of either group.

    Args:
        batch_sizes: One per run, shape (N,).
        steps: Steps to the target, NaN for a run that did not reach it, shape (N,).
        lrs: Learning rate of each run; None where unknown.

    Returns:
        The evidence, where three batch sizes or more split and they are three quarters
        of those with repeats.

    Example:
        >>> two = find_mixture([8, 8, 32, 32, 128, 128], [500, 90, 212, 40, 140, 25])
        >>> two.num_repeated, round(two.factor, 1)
        (3, 5.5)
    """
    cells: dict[float, dict[float | None, list[float]]] = {}
    rates = [None] * len(steps) if lrs is None else lrs
    for size, count, rate in zip(batch_sizes, steps, rates, strict=True):
        if not math.isnan(count):
            cells.setdefault(size, {}).setdefault(rate, []).append(count)
    split: dict[float, float] = {}
    num_repeated, most_repeats = 0, 0
    for size, by_rate in cells.items():
        repeated = [np.log(counts) for counts in by_rate.values() if len(counts) > 1]
        if not repeated:
            continue
        num_repeated += 1
        most_repeats = max(most_repeats, *map(len, repeated))
        gaps = [_gap(logs) for logs in repeated]
        # Any two runs are two groups: they must be far apart to say something.
        least = LIKELY_FACTOR if max(map(len, repeated)) > 2 else SURE_FACTOR
        if min(gaps) > math.log(least):
            split[size] = float(np.median(gaps))
    if len(split) < AT_LEAST or len(split) < MOST * num_repeated:
        return None
    factor = math.exp(float(np.mean(list(split.values()))))
    far = sum(gap >= math.log(SURE_FACTOR) for gap in split.values())
    enough = AT_LEAST if most_repeats > 2 else PAIRS_AT_LEAST
    return Mixture(
        batch_sizes=tuple(sorted(split)),
        num_repeated=num_repeated,
        factor=factor,
        is_sure=far >= max(enough, MOST * num_repeated),
    )


def _gap(logs: FloatArray) -> float:
    """Return the widest gap between repeats; zero where it is not a clear one."""
    logs = np.sort(logs)
    steps = np.diff(logs)
    cut = int(steps.argmax())
    gap = float(steps[cut])
    spread = max(logs[cut] - logs[0], logs[-1] - logs[cut + 1])
    return gap if gap > CLEAR * spread else 0.0
