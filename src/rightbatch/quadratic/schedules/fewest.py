"""The least number of steps at which tuned settings reach a target."""

import math
from collections.abc import Callable
from typing import NamedTuple

MOST_STEPS = 2**36
"""Runs up to this length are looked at; what needs more counts as unreachable."""
_FARTHEST = 3.0  # in the logarithm of the steps, that one look may lead to another
_PATIENCE = 12  # looks, after which the bracket is halved


class Probe(NamedTuple):
    """What the best settings do at one length of the run.

    Args:
        height: log(loss / target), both above the irreducible loss.
        slope: Of the height by the logarithm of the steps; not a number where unknown.
    """

    height: float
    slope: float = math.nan


def fewest_steps(
    look: Callable[[int], Probe], first: int, most: int = MOST_STEPS
) -> int | None:
    """Return a T at which the height is 0 or less, and above 0 at T - 1.

    Newton's method in log T, inside a bracket; at slopes that are not given, secants.
    There is one such T where the height falls with T.

    Args:
        look: The height at a number of steps, with the settings tuned to it.
        first: Where to look first, at least 1.
        most: The largest T of interest.

    Returns:
        The number of steps, or None where even `most` are too few.

    Example:
        >>> fewest_steps(lambda steps: Probe(math.log(1000.5 / steps)), first=7)
        1001
    """
    low, high, steps = 0, most + 1, min(first, most)
    before: tuple[float, float] | None = None
    slope = -1.0
    for looks in range(10_000):
        height, given = look(steps)
        place = math.log(steps)
        if math.isfinite(given) and given < 0:
            slope = given
        elif before is not None and math.isfinite(height) and place != before[0]:
            secant = (height - before[1]) / (place - before[0])
            slope = secant if secant < 0 else slope
        before = (place, height) if math.isfinite(height) else before
        if height <= 0:
            high = steps
        else:
            low = steps
        if high - low <= 1:
            break
        steps = _next(low, high, place, height / slope, looks > _PATIENCE)
    return high if high <= most else None


def _next(low: int, high: int, place: float, excess: float, patient: bool) -> int:
    """Return where to look next, strictly between low and high."""
    if patient and low:
        return min(max(math.isqrt(low * high), low + 1), high - 1)
    if not math.isfinite(excess):
        excess = -_FARTHEST
    wished = place - max(-_FARTHEST, min(_FARTHEST, excess))
    # Rounded up: the crossing itself still reaches the target.
    return min(max(math.ceil(math.exp(wished) - 1e-6), low + 1), high - 1)
