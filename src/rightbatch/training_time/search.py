"""The best batch size over the integers that can be served, for any two models."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rightbatch._checks import positive, positive_integer
from rightbatch.errors import InputError, NotReachedError
from rightbatch.fitting import FloatArray
from rightbatch.training_time.law import NO_LIMITS, BatchLimits, TrainingTimeLaw

LimitedBy = Literal["balance", "saturation", "memory", "dataset"]

# Every batch size this far from the smallest is looked at, whatever the curves do.
DENSE = 2**15
# Past that, cells of this ratio, searched where their bound allows a better batch.
CELL_RATIO = 1.001
CELL_PARTS = 16
# Without a largest batch size; no time to a target goes on falling as far as this.
FARTHEST = 2**40
MOST_CELLS = 2**17
SAME_TIME = 1e-9
ROUNDING = 1e-12


def served_range(num_replicas: int, limits: BatchLimits) -> tuple[int, int]:
    """Return the smallest and largest batch size that can be served.

    Args:
        num_replicas: Each gets one example at least.
        limits: What can be served.

    Returns:
        Both ends; the upper one is 2^40 where nothing limits it.

    Raises:
        InputError: There is none.
    """
    count = positive_integer("BatchLimits", "num_replicas", num_replicas)
    low = max(count, limits.min_batch_size or 1)
    high = min(_caps(count, limits))
    if limits.candidates is not None:
        served = [size for size in limits.candidates if low <= size <= high]
        low, high = (served[0], served[-1]) if served else (low, low - 1)
    if high < low:
        if count <= high and limits.min_batch_size:
            raise InputError(
                f"BatchLimits: no batch size of {low} or more can be served on "
                f"{num_replicas} replicas.",
                "allow larger batch sizes",
            )
        raise InputError(
            f"BatchLimits: no batch size within the limits gives each of "
            f"{num_replicas} replicas an example.",
            "ask for fewer replicas, or allow other batch sizes",
        )
    return low, high


def best_batch_size(
    training_time: TrainingTimeLaw,
    num_replicas: int = 1,
    limits: BatchLimits = NO_LIMITS,
) -> int:
    """Return the batch size with the least time to the target.

    The first 2^15 batch sizes are all looked at. Past them, cells a thousandth wide
    are bounded from below by the least steps and the least step time at their ends,
    which holds for models that rise or fall throughout a cell, and only cells that
    could hold a better batch are looked into: the optimum over all integers, in
    milliseconds (to 1e-5 of the time, where a curve is flat over millions of them).

    Args:
        training_time: Steps and step times. Batches without a positive, finite time
            are passed over.
        num_replicas: P; the largest of P shares sets the pace.
        limits: What can be served.

    Returns:
        The batch size; the smallest of those equal to 1e-12.

    Raises:
        InputError: Nothing can be served, or the time goes on falling and there is no
            `max_batch_size`.
        NotReachedError: No batch size has a finite time.
    """
    low, high = served_range(num_replicas, limits)
    search = _Search(training_time, num_replicas, limits)
    knots = batch_grid(low, high, num_replicas, limits)
    times, steps, seconds = search.evaluate(knots)
    best, least = _least(knots, times, high + 1, np.inf)
    if not np.isfinite(least):
        raise NotReachedError(
            f"plan: no batch size from {low} to {high} has a finite time to the target "
            f"on {num_replicas} replicas."
        )
    if high == FARTHEST and times[-1] <= least * (1 + 1e-6):
        raise InputError(
            "plan: time to the target falls with ever larger batches.",
            "give BatchLimits a `max_batch_size`",
        )
    if limits.candidates is not None:
        return best
    bounds = _lower_bounds(steps, seconds)
    left, right = knots[:-1], knots[1:]
    while True:
        wanted = (right - left > 1) & (bounds < least * (1 - ROUNDING))
        if not 0 < wanted.sum() <= MOST_CELLS:
            return best
        inner = _split(left[wanted], right[wanted])
        times, steps, seconds = search.evaluate(inner)
        best, least = _least(inner.ravel(), times.ravel(), best, least)
        bounds = _lower_bounds(steps, seconds).ravel()
        left, right = inner[:, :-1].ravel(), inner[:, 1:].ravel()


def batch_sizes_within(
    training_time: TrainingTimeLaw,
    num_replicas: int = 1,
    limits: BatchLimits = NO_LIMITS,
    tolerance: float = 0.05,
) -> tuple[int, int]:
    """Return the range of batch sizes around the best that lose at most `tolerance`.

    The range is without gaps over batches that the replicas share evenly (and the best
    one, and the largest one), or over the candidates.

    Args:
        training_time: Steps and step times.
        num_replicas: P.
        limits: What can be served.
        tolerance: Share of the least time.

    Returns:
        Smallest and largest of the range.

    Raises:
        InputError: `tolerance` is not positive, or as `best_batch_size`.
    """
    positive("batch_sizes_within", "tolerance", tolerance)
    best = best_batch_size(training_time, num_replicas, limits)
    return range_around(training_time, num_replicas, limits, best, tolerance)


def range_around(
    training_time: TrainingTimeLaw,
    num_replicas: int,
    limits: BatchLimits,
    best: int,
    tolerance: float,
) -> tuple[int, int]:
    """Return the range for a best batch size that is known.

    Args:
        training_time: Steps and step times.
        num_replicas: P.
        limits: What can be served.
        best: Result of `best_batch_size`.
        tolerance: Share of the least time.

    Returns:
        Smallest and largest batch size of the range.
    """
    search = _Search(training_time, num_replicas, limits)
    allowed = (1 + tolerance) * float(search.times(np.array(float(best))))
    low, high = served_range(num_replicas, limits)
    sizes = np.asarray(limits.candidates or (), dtype=float)
    sizes = sizes[(low <= sizes) & (sizes <= high)]

    def batch(place: FloatArray) -> FloatArray:
        if len(sizes):
            return sizes[place.astype(int)]
        # The best batch stands in for its own share, even or not.
        shared = np.clip(place * num_replicas, low, high)
        return np.where(place == start, best, shared)

    def inside(place: FloatArray) -> NDArray[np.bool_]:
        return search.times(batch(place)) <= allowed

    if len(sizes):
        start, first, last = int(np.searchsorted(sizes, best)), 0, len(sizes) - 1
    else:
        start, first, last = -(-best // num_replicas), 1, -(-high // num_replicas)
    ends = [_edge(inside, start, stop) for stop in (first, last)]
    smallest, largest = (int(batch(np.array(float(end)))) for end in ends)
    return min(smallest, best), max(largest, best)


def regret(
    training_time: TrainingTimeLaw,
    batch_size: ArrayLike,
    num_replicas: int = 1,
    limits: BatchLimits = NO_LIMITS,
) -> Any:
    """Return the share of time that batch sizes lose against the best one.

    Args:
        training_time: Steps and step times.
        batch_size: Whole batch sizes, any shape.
        num_replicas: P.
        limits: What can be served.

    Returns:
        Fractions, 0 at the best: a float for a number, else an array.
    """
    best = best_batch_size(training_time, num_replicas, limits)
    least = training_time.seconds_as_served(best, num_replicas, limits)
    return training_time.seconds_as_served(batch_size, num_replicas, limits) / least - 1


def limited_by(
    training_time: TrainingTimeLaw, num_replicas: int, limits: BatchLimits, best: int
) -> LimitedBy:
    """Return what keeps the best batch size from being larger.

    Args:
        training_time: Steps and step times.
        num_replicas: P.
        limits: What can be served.
        best: Result of `best_batch_size`.

    Returns:
        ``dataset`` where the largest batch served (`max_batch_size` or the largest
        candidate) is best and the next larger would be better. ``memory`` where that
        batch is set by memory without accumulation, or where one more example per
        replica would need one more pass and, without that, a larger batch would be
        best. ``saturation`` where a step takes no less time with a share just smaller
        (or just smaller than one example less: a knee between two whole shares), or a
        share is one example. ``balance`` otherwise: longer steps just offset fewer
        steps.
    """
    search = _Search(training_time, num_replicas, limits)
    _, high = served_range(num_replicas, limits)
    beyond = float(num_replicas * (high // num_replicas + 1))
    at_end = best == high or (limits.candidates is None and best > high - num_replicas)
    time = float(search.times(np.array(float(best))))
    if at_end and search.times(np.array(beyond)) < time:
        return "memory" if _memory_is_the_end(num_replicas, limits, high) else "dataset"
    if limits.max_micro_batch_size is not None:
        _, passes = limits.shares(np.array([best, best + num_replicas]), num_replicas)
        free = replace(limits, max_micro_batch_size=None, max_accumulation_steps=None)
        more = passes[1] > passes[0]
        if more and best_batch_size(training_time, num_replicas, free) > best:
            return "memory"
    return "saturation" if search.is_flat_below(best) else "balance"


def batch_grid(
    low: int, high: int, num_replicas: int, limits: BatchLimits
) -> FloatArray:
    """Return the batch sizes a search starts from: all small ones, then cells.

    Args:
        low: Smallest served.
        high: Largest served.
        num_replicas: P; ends of cells are shared evenly, where sawteeth are lowest.
        limits: Candidates replace the grid.

    Returns:
        Increasing whole numbers, from `low` to `high`.
    """
    if limits.candidates is not None:
        sizes = np.asarray(limits.candidates, dtype=float)
        return sizes[(low <= sizes) & (sizes <= high)]
    dense = np.arange(low, min(low + DENSE, high) + 1, dtype=float)
    start = dense[-1]
    if start == high:
        return dense
    count = int(np.log(high / start) / np.log(CELL_RATIO)) + 2
    sparse = np.geomspace(start, high, count) // num_replicas * num_replicas
    inside = sparse[(start < sparse) & (sparse < high)]
    return np.concatenate([dense, np.unique(inside), [float(high)]])


class _Search:
    """Times to the target on one number of replicas, infinite where there is none."""

    def __init__(
        self, training_time: TrainingTimeLaw, num_replicas: int, limits: BatchLimits
    ) -> None:
        self.training_time = training_time
        self.num_replicas = num_replicas
        self.limits = limits

    def evaluate(self, batch: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        steps = np.asarray(self.training_time.steps.steps(batch), dtype=float)
        seconds = np.asarray(
            self.limits.served_step_seconds(
                self.training_time.step_time, batch, self.num_replicas
            ),
            dtype=float,
        )
        times = steps * seconds
        # A law with a negative S_min has no steps left far outside its data.
        return np.where(times > 0, times, np.inf), steps, seconds

    def times(self, batch: FloatArray) -> FloatArray:
        return self.evaluate(batch)[0]

    def is_flat_below(self, best: int) -> bool:
        share, _ = self.limits.split(best, self.num_replicas)
        if share == 1:
            return True
        model = self.training_time.step_time
        shares = np.array([share, share - 1]) * np.array([[1.0], [1 - 1e-3]])
        at, below = model.seconds_per_step(
            shares * self.num_replicas, self.num_replicas
        )
        return bool(np.any(below >= at * (1 - SAME_TIME)))


def _caps(num_replicas: int, limits: BatchLimits) -> tuple[int, int]:
    # Largest batch size by what may be asked for, and by memory.
    by_memory = FARTHEST
    if limits.max_micro_batch_size and limits.max_accumulation_steps:
        most = limits.max_micro_batch_size * limits.max_accumulation_steps
        by_memory = num_replicas * most
    return limits.max_batch_size or FARTHEST, by_memory


def _memory_is_the_end(num_replicas: int, limits: BatchLimits, high: int) -> bool:
    by_example, by_memory = _caps(num_replicas, limits)
    if limits.candidates is None:
        return by_memory < by_example
    return any(high < size <= by_example for size in limits.candidates)


def _least(
    batch: FloatArray, times: FloatArray, best: int, least: float
) -> tuple[int, float]:
    # Times that differ by rounding alone are equal, and of those the first counts.
    place = int((times <= times.min() * (1 + ROUNDING)).argmax())
    found, size = float(times[place]), int(batch[place])
    smaller = size < best and found <= least * (1 + ROUNDING)
    if found < least * (1 - ROUNDING) or smaller:
        return size, min(found, least)
    return best, least


def _lower_bounds(steps: FloatArray, seconds: FloatArray) -> FloatArray:
    # NaN compares as no bound at all only if it is made one.
    fewest = np.fmin(steps[..., :-1], steps[..., 1:])
    shortest = np.fmin(seconds[..., :-1], seconds[..., 1:])
    none = ~((steps[..., :-1] > 0) | (steps[..., 1:] > 0))
    return np.where(none, np.inf, np.maximum(fewest, 0.0) * shortest)


def _split(left: FloatArray, right: FloatArray) -> FloatArray:
    share = np.linspace(0, 1, CELL_PARTS + 1)
    return np.rint(left[:, None] + (right - left)[:, None] * share)


def _edge(
    inside: Callable[[FloatArray], NDArray[np.bool_]], start: int, stop: int
) -> int:
    # The last place from `start` towards `stop` before the first one not inside.
    good, bad = start, stop
    while True:
        span = bad - good
        count = min(abs(span), 2**11)
        places = good + np.rint(np.sign(span) * _outward(abs(span), count))
        # The first of them is known to be inside.
        outside = np.flatnonzero(~inside(places[1:]))
        if not outside.size:
            return bad
        first = int(outside[0])
        good, bad = int(places[first]), int(places[first + 1])
        if abs(bad - good) == 1:
            return good


def _outward(span: int, count: int) -> FloatArray:
    # 0 to span, all whole numbers where there are few, else ever wider steps.
    if count == span:
        return np.arange(span + 1, dtype=float)
    return np.unique(np.rint(np.append(0, np.geomspace(1, span, count))))
