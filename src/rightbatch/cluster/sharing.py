"""Several jobs on one cluster: how many replicas to each."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from rightbatch._checks import one_of, positive_integer
from rightbatch.cluster.job import Job
from rightbatch.cluster.machine import Machine
from rightbatch.errors import NotReachedError
from rightbatch.fitting import FloatArray

Aim = Literal["latest", "weighted"]

# A search over mixes takes every number of replicas up to here, some 6 % apart beyond.
EVERY_ONE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Which job gets how many replicas.

    Args:
        num_replicas: One per job, in their order; what is left over is idle.
        seconds: Seconds to the target of each.
        objective: What was made least: the latest finish, or the weighted sum.
    """

    num_replicas: tuple[int, ...]
    seconds: tuple[float, ...]
    objective: float

    @property
    def latest(self) -> float:
        """Seconds until the last job is done."""
        return max(self.seconds)


def share_replicas(
    jobs: Sequence[Job],
    num_replicas: int,
    *,
    machine: Machine | None = None,
    aim: Aim = "latest",
) -> Sharing:
    r"""Return the best numbers of replicas for jobs that run side by side.

    The latest finish is made least by giving each next replica to the job that finishes
    last: no other gift can bring the latest finish forward. The weighted sum
    :math:`\sum_j w_j T_j(p_j)` is made least by dynamic programming over the jobs.
    Neither needs times to fall evenly, and a job that is faster on fewer replicas than
    it could have leaves the others idle.

    Args:
        jobs: At least one.
        num_replicas: Of the cluster.
        machine: Speed, bandwidth and memory of its replicas.
        aim: ``latest`` or ``weighted``.

    Returns:
        The sharing; each job has a replica at least.

    Raises:
        NotReachedError: There are more jobs than replicas.

    Example:
        >>> from rightbatch.convergence import ConvergenceLaw
        >>> from rightbatch.step_time import StepTimeLaw
        >>> step_time = StepTimeLaw(seconds_per_example=1e-3, saturation_batch_size=8)
        >>> jobs = [
        ...     Job(
        ...         convergence=ConvergenceLaw(min_steps=100, min_examples=examples),
        ...         step_time=step_time,
        ...     )
        ...     for examples in (1e4, 1e5)
        ... ]
        >>> share_replicas(jobs, 8).num_replicas
        (1, 7)
    """
    count = positive_integer("share_replicas", "num_replicas", num_replicas)
    one_of("share_replicas", "aim", aim, ["latest", "weighted"])
    if count < len(jobs):
        raise NotReachedError(
            f"share_replicas: {len(jobs)} jobs need a replica each, got {count}."
        )
    times = _tables(jobs, count, machine or Machine())
    least, used = zip(*(_running_least(table) for table in times), strict=True)
    weights = [job.weight for job in jobs]
    given = (
        _for_the_latest(least, count)
        if aim == "latest"
        else _for_the_sum(least, weights, count)
    )
    replicas = [int(used[j][p - 1]) for j, p in enumerate(given)]
    seconds = [float(least[j][p - 1]) for j, p in enumerate(given)]
    summed = float(np.dot(weights, seconds))
    return Sharing(
        num_replicas=tuple(replicas),
        seconds=tuple(seconds),
        objective=max(seconds) if aim == "latest" else summed,
    )


def shared_seconds(
    jobs: Sequence[Job], num_replicas: int, machine: Machine, aim: Aim
) -> FloatArray:
    """Return the least objective on every number of replicas up to one.

    Past 128 replicas times are interpolated: this is for searches over mixes.

    Args:
        jobs: At least one.
        num_replicas: Largest number.
        machine: Speed, bandwidth and memory, numbers.
        aim: ``latest`` or ``weighted``.

    Returns:
        Shape (num_replicas,); infinity where there are more jobs than replicas.
    """
    counts = np.arange(1, num_replicas + 1, dtype=float)
    known = counts
    if num_replicas > EVERY_ONE:
        far = np.geomspace(EVERY_ONE, num_replicas, 64)
        known = np.unique(np.append(counts[:EVERY_ONE], np.rint(far)))
    each = replace(machine, num_replicas=known)
    tables = [_between(counts, known, job.seconds(each)) for job in jobs]
    least = [_running_least(table)[0] for table in tables]
    if aim == "latest":
        return _latest_of_all(least, num_replicas)
    weights = [job.weight for job in jobs]
    return _sums(least, weights, num_replicas)[-1][1:]


def _between(counts: FloatArray, known: FloatArray, seconds: FloatArray) -> FloatArray:
    if len(known) == len(counts) or not np.all(np.isfinite(seconds)):
        return seconds[np.searchsorted(known, counts, "right") - 1]
    return np.exp(np.interp(np.log(counts), np.log(known), np.log(seconds)))


def _tables(
    jobs: Sequence[Job], num_replicas: int, machine: Machine
) -> list[FloatArray]:
    counts = np.arange(1, num_replicas + 1, dtype=float)
    each = replace(machine, num_replicas=counts)
    return [job.seconds(each) for job in jobs]


def _running_least(times: FloatArray) -> tuple[FloatArray, FloatArray]:
    # The least time with so many replicas or fewer, and how many it uses.
    least = np.minimum.accumulate(times)
    is_new = np.append(True, times[1:] < least[:-1])
    counts = np.arange(1, len(times) + 1)
    return least, np.maximum.accumulate(np.where(is_new, counts, 0))


def _gifts(least: Sequence[FloatArray], num_replicas: int) -> Any:
    """Yield the latest job before each gift of a replica to it."""
    late = [(-float(times[0]), j) for j, times in enumerate(least)]
    heapq.heapify(late)
    given = [1] * len(least)
    for _ in range(num_replicas - len(least)):
        _, j = late[0]
        given[j] += 1
        heapq.heapreplace(late, (-float(least[j][given[j] - 1]), j))
        yield j, -late[0][0]


def _for_the_latest(least: Sequence[FloatArray], num_replicas: int) -> list[int]:
    given = [1] * len(least)
    kept, latest = list(given), max(float(times[0]) for times in least)
    for j, now in _gifts(least, num_replicas):
        given[j] += 1
        # Gifts that changed nothing are taken back: those replicas are idle.
        if now < latest:
            kept, latest = list(given), now
    return kept


def _latest_of_all(least: Sequence[FloatArray], num_replicas: int) -> FloatArray:
    found = np.full(num_replicas, np.inf)
    if num_replicas < len(least):
        return found
    found[len(least) - 1] = max(float(times[0]) for times in least)
    for place, (_, now) in enumerate(_gifts(least, num_replicas)):
        found[len(least) + place] = now
    return found


def _sums(
    least: Sequence[FloatArray], weights: Sequence[float], num_replicas: int
) -> list[FloatArray]:
    """Return the least weighted sum of the first jobs on 0, 1, 2, ... replicas."""
    sums = [np.zeros(num_replicas + 1)]
    for times, weight in zip(least, weights, strict=True):
        before, after = sums[-1], np.full(num_replicas + 1, np.inf)
        for given in range(1, num_replicas + 1):
            with_it = before[: num_replicas + 1 - given] + weight * times[given - 1]
            np.minimum(after[given:], with_it, out=after[given:])
        sums.append(after)
    return sums


def _for_the_sum(
    least: Sequence[FloatArray], weights: Sequence[float], num_replicas: int
) -> list[int]:
    sums = _sums(least, weights, num_replicas)
    given: list[int] = []
    left = num_replicas
    for j in range(len(least) - 1, -1, -1):
        counts = np.arange(1, left + 1)
        totals = sums[j][left - counts] + weights[j] * least[j][counts - 1]
        # Of equal sums the one with the fewest replicas here.
        given.append(int(counts[totals <= totals.min() * (1 + 1e-12)][0]))
        left -= given[-1]
    return given[::-1]
