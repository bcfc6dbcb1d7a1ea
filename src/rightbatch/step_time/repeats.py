"""Repeats of a row that no noise explains: mixed units, machines or workloads."""

import math

import numpy as np

from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray

# Repeats of one row further apart than this are in different units.
UNITS_APART = 100.0
# Times of one row on one machine differ by percents, at times by a half.
GROUPS_APART = 2.0
# By how much the gap between two groups exceeds the spread of either.
CLEAR = 3.0
# Share of the repeated rows that must split, and how many, to be sure of a mixture.
MOST, AT_LEAST = 0.75, 3


def check_repeats(
    sizes: FloatArray, replicas: FloatArray, seconds: FloatArray
) -> tuple[str, ...]:
    """Return what to know of repeats that are far apart.

    Args:
        sizes: Global batch sizes.
        replicas: Replicas.
        seconds: Seconds per step.

    Returns:
        One sentence where repeats of some rows are twice apart or more, else none.

    Raises:
        InputError: Repeats of a row differ by a factor of a hundred, or those of three
            rows or more, and of most, fall into two groups twice apart.

    Example:
        >>> check_repeats(np.array([8.0, 8]), np.ones(2), np.array([0.1, 0.11]))
        ()
    """
    gaps: list[tuple[float, float, float, float]] = []
    num_repeated = 0
    for size, count in sorted(set(zip(sizes.tolist(), replicas.tolist(), strict=True))):
        same = np.sort(seconds[(sizes == size) & (replicas == count)])
        if len(same) < 2:
            continue
        num_repeated += 1
        if same[-1] >= UNITS_APART * same[0]:
            raise InputError(
                f"fit_step_time: `seconds` at batch size {size:g} on {count:g} "
                f"replicas are both {same[0]:g} and {same[-1]:g}.",
                "give all of them in seconds, of one machine",
            )
        gap = _gap(np.log(same))
        if gap >= math.log(GROUPS_APART):
            gaps.append((size, count, float(same[0]), float(same[-1])))
    if not gaps:
        return ()
    size, count, low, high = gaps[0]
    said = (
        f"repeats of {len(gaps)} of {num_repeated} repeated rows fall into two groups "
        f"far apart, at batch size {size:g} on {count:g} replicas {low:.3g} and "
        f"{high:.3g} s, as if two machines or workloads were mixed, or first steps "
        "were timed with the rest"
    )
    if len(gaps) >= max(AT_LEAST, MOST * num_repeated):
        raise InputError(
            f"fit_step_time: `seconds`: {said}.", "give the rows of one of them"
        )
    return (
        f"In `seconds` {said}: time those rows again, or leave the wrong ones out.",
    )


def _gap(logs: FloatArray) -> float:
    # The widest gap between sorted repeats; zero where it is not a clear one.
    steps = np.diff(logs)
    cut = int(steps.argmax())
    spread = max(logs[cut] - logs[0], logs[-1] - logs[cut + 1])
    return float(steps[cut]) if steps[cut] > CLEAR * spread else 0.0
