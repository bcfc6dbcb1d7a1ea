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
# Numbers of replicas, of machines of all kinds, that are looked at together.
ROWS = 2**14


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


def shared_seconds(jobs: Sequence[Job], machines: Machine, aim: Aim) -> FloatArray:
    """Return the least objective on each of many machines.

    Past 128 replicas times are interpolated: this is for searches over mixes.

    Args:
        jobs: At least one.
        machines: Of arrays that broadcast.
        aim: ``latest`` or ``weighted``.

    Returns:
        Seconds, in the shape of the machines; infinity where there are more jobs than
        replicas.
    """
    parts: Any = np.broadcast_arrays(
        machines.num_replicas,
        machines.speed,
        machines.bandwidth,
        machines.max_micro_batch_size,
    )
    rows = np.stack([part.ravel() for part in parts], 1).astype(float)
    counts = rows[:, 0].astype(int)
    # Machines that differ in the number of replicas alone have one table.
    kinds, which = np.unique(rows[:, 1:], axis=0, return_inverse=True)
    which = which.ravel()
    most = np.zeros(len(kinds), dtype=int)
    np.maximum.at(most, which, counts)
    known = [_known(count) for count in most]
    found = np.full(len(rows), np.inf)
    # Many kinds at once: a call takes as long as some hundreds of its rows.
    group = np.cumsum([len(each) for each in known]) // ROWS
    for places in (np.flatnonzero(group == one) for one in np.unique(group)):
        lengths = [len(known[place]) for place in places]
        speed, bandwidth, memory = np.repeat(kinds[places], lengths, axis=0).T
        together = Machine(
            num_replicas=np.concatenate([known[place] for place in places]),
            speed=speed,
            bandwidth=bandwidth,
            max_micro_batch_size=memory,
        )
        ends = np.cumsum(lengths)[:-1]
        times = [np.split(job.seconds(together), ends) for job in jobs]
        for place, *own in zip(places, *times, strict=True):
            table = _objectives(jobs, own, known[place], aim)
            at = np.flatnonzero(which == place)
            found[at] = table[counts[at] - 1]
    return found.reshape(parts[0].shape)


def _known(num_replicas: int) -> FloatArray:
    counts = np.arange(1, num_replicas + 1, dtype=float)
    if num_replicas <= EVERY_ONE:
        return counts
    far = np.geomspace(EVERY_ONE, num_replicas, 64)
    return np.unique(np.append(counts[:EVERY_ONE], np.rint(far)))


def _objectives(
    jobs: Sequence[Job], times: Sequence[FloatArray], known: FloatArray, aim: Aim
) -> FloatArray:
    """Return the least objective on 1, 2, 3, ... replicas of one kind."""
    count = int(known[-1])
    counts = np.arange(1, count + 1, dtype=float)
    tables = [_between(counts, known, each) for each in times]
    least = [_running_least(table)[0] for table in tables]
    if aim == "latest":
        return _latest_of_all(least, count)
    return _sums(least, [job.weight for job in jobs], count)[-1][1:]


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


def _for_the_latest(least: Sequence[FloatArray], num_replicas: int) -> list[int]:
    late = [(-float(times[0]), j) for j, times in enumerate(least)]
    heapq.heapify(late)
    given = [1] * len(least)
    kept, latest = list(given), -late[0][0]
    for _ in range(num_replicas - len(least)):
        _, j = late[0]
        given[j] += 1
        heapq.heapreplace(late, (-float(least[j][given[j] - 1]), j))
        # Gifts that changed nothing are taken back: those replicas are idle.
        if -late[0][0] < latest:
            kept, latest = list(given), -late[0][0]
    return kept


def _latest_of_all(least: Sequence[FloatArray], num_replicas: int) -> FloatArray:
    found = np.full(num_replicas, np.inf)
    spare = num_replicas - len(least)
    if spare >= 0:
        # Each gift takes the largest of all times that are left, and none rises.
        together = np.sort(np.concatenate(least))[::-1]
        found[len(least) - 1 :] = together[: spare + 1]
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
