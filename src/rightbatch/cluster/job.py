"""A job: what it needs to reach its target, and how soon a machine gets it there."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rightbatch._checks import positive
from rightbatch.cluster.machine import Machine, step_time_on, step_times_on
from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray
from rightbatch.step_time import StepTimeLaw
from rightbatch.training_time import (
    BatchLimits,
    ClosedForm,
    StepsModel,
    TrainingTimeLaw,
    best_batch_size,
)
from rightbatch.training_time.law import NO_LIMITS

# A search over shares without a closed form: points at first, then in each round.
FIRST_SHARES = 33
SHARES = 9
ROUNDS = 9
FARTHEST_SHARE = 2.0**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    r"""A training run to a target.

    .. math:: T_C = \min_B S(B) \, T(B, P)

    Args:
        convergence: Steps to the target against batch size.
        step_time: Seconds per step on the machine that is there: speed and bandwidth 1.
        limits: What batches can be served.
        weight: How much its time counts beside other jobs'.
        name: As the result calls it.

    Raises:
        InputError: `weight` is not positive, or the time falls with ever larger batches
            and nothing limits them.

    Example:
        >>> from rightbatch.step_time import ConstantCommunication
        >>> job = Job(
        ...     convergence=ConvergenceLaw(min_steps=1000, min_examples=7e5),
        ...     step_time=StepTimeLaw(
        ...         seconds_per_example=0.001,
        ...         saturation_batch_size=20,
        ...         communication=ConstantCommunication(seconds=0.02),
        ...     ),
        ... )
        >>> job.seconds(Machine(num_replicas=np.array([1, 88]))).round(3).tolist()
        [720.0, 55.909]
        >>> job.batch_size(Machine(num_replicas=4))
        236
    """

    convergence: StepsModel
    step_time: StepTimeLaw
    limits: BatchLimits = NO_LIMITS
    weight: float = 1.0
    name: str = "job"

    def __post_init__(self) -> None:
        positive(self.name, "weight", self.weight)
        law = self.convergence
        capped = self.limits.max_batch_size or self.limits.candidates
        if isinstance(law, ConvergenceLaw) and law.min_steps <= 0 and not capped:
            raise InputError(
                f"{self.name}: `min_steps` must be positive, got {law.min_steps:g}: "
                "time to the target falls with ever larger batches.",
                "give a largest batch size",
            )

    @property
    def has_closed_form(self) -> bool:
        """True where eqs. 8 and 9 give the best batch of a share of whole examples."""
        law, limits = self.convergence, self.limits
        if not isinstance(law, ConvergenceLaw) or limits.candidates is not None:
            return False
        try:
            ClosedForm(convergence=law, step_time=self.step_time)
        except InputError:
            return False
        return law.name == "inverse" and self.step_time.overlap_exponent == 1

    def seconds(self, machine: Machine) -> FloatArray:
        """Return the least seconds to the target on each of many machines.

        The batch is chosen anew for each: shares are whole examples, so what is found
        is what can be served. In closed form where there is one, else by a search over
        shares.

        Args:
            machine: Of arrays that broadcast.

        Returns:
            Seconds, in the shape of the machine; infinity where nothing can be served.
        """
        parts = (
            machine.num_replicas,
            machine.speed,
            machine.bandwidth,
            machine.max_micro_batch_size,
        )
        replicas, speed, bandwidth, memory = (
            np.asarray(part, dtype=float) for part in np.broadcast_arrays(*parts)
        )
        own = self.limits.max_micro_batch_size or math.inf
        memory = np.minimum(memory, own)
        found = np.full(replicas.shape, np.inf)
        for most in np.unique(memory):
            at = memory == most
            held = None if math.isinf(most) else int(most)
            found[at] = self._seconds(replicas[at], speed[at], bandwidth[at], held)
        return found

    def training_time(self, machine: Machine) -> TrainingTimeLaw:
        """Return steps times seconds per step on one machine, of numbers."""
        return TrainingTimeLaw(
            steps=self.convergence, step_time=step_time_on(self.step_time, machine)
        )

    def limits_on(self, machine: Machine) -> BatchLimits:
        """Return what batches one machine serves."""
        most = machine.max_micro_batch_size
        own = self.limits.max_micro_batch_size
        if math.isinf(most) or (own is not None and own <= most):
            return self.limits
        return replace(self.limits, max_micro_batch_size=int(most))

    def batch_size(self, machine: Machine) -> int:
        """Return the best batch size on one machine, of numbers."""
        return best_batch_size(
            self.training_time(machine),
            int(machine.num_replicas),
            self.limits_on(machine),
        )

    def _seconds(
        self,
        replicas: FloatArray,
        speed: FloatArray,
        bandwidth: FloatArray,
        memory: int | None,
    ) -> FloatArray:
        limits = self.limits
        if memory is not None:
            limits = replace(limits, max_micro_batch_size=memory)
        shape = replicas[:, None]
        law = step_times_on(self.step_time, speed[:, None], bandwidth[:, None])
        shares = _Shares(self.convergence, law, limits, shape)
        if limits.candidates is not None:
            sizes = np.asarray(limits.candidates, dtype=float)
            sizes = sizes[sizes <= (limits.max_batch_size or math.inf)]
            sizes = np.broadcast_to(sizes, (len(replicas), len(sizes)))
            return shares.times(sizes).min(1, initial=np.inf)
        least, best = shares.searched(
            self._best_share(law, shape) if self.has_closed_form else None
        )
        # What is best in one pass is best; accumulation is looked at for the rest.
        rest = best > (memory or math.inf)
        if memory is not None and rest.any():
            law = step_times_on(
                self.step_time, speed[rest][:, None], bandwidth[rest][:, None]
            )
            held = _Shares(self.convergence, law, limits, shape[rest])
            least[rest] = held.accumulated(memory)
        return least

    def _best_share(self, law: Any, replicas: FloatArray) -> FloatArray:
        # Eq. 9 over P; the fixed part of a step is what is left at the knee.
        knee, rate = law.saturation_batch_size, law.seconds_per_example
        step = law.seconds_per_step(knee * replicas, replicas)
        fixed = np.maximum(step - rate * knee, 0.0)
        steps: Any = self.convergence
        balanced = np.sqrt(steps.critical_batch_size * fixed / (rate * replicas))
        return np.maximum(balanced, knee)


@dataclass(frozen=True, slots=True)
class _Shares:
    """Times against the share of a replica, for many machines: one in each row."""

    convergence: StepsModel
    law: Any
    limits: BatchLimits
    replicas: Any  # shape (machines, 1)

    def times(self, batch: FloatArray) -> FloatArray:
        step = self.limits.served_step_seconds(self.law, batch, self.replicas)
        with np.errstate(invalid="ignore"):
            seconds = np.asarray(self.convergence.steps(batch)) * step
        served = (batch >= self.replicas) & (seconds > 0)
        return np.where(served, seconds, np.inf)

    @property
    def largest(self) -> FloatArray:
        limits = self.limits
        most = np.full_like(self.replicas, limits.max_batch_size or math.inf)
        if limits.max_micro_batch_size and limits.max_accumulation_steps:
            held = limits.max_micro_batch_size * limits.max_accumulation_steps
            most = np.minimum(most, held * self.replicas)
        return most

    @property
    def cap(self) -> FloatArray:
        return np.minimum(np.ceil(self.largest / self.replicas), FARTHEST_SHARE)

    def shared(self, share: FloatArray) -> FloatArray:
        within = np.clip(share, 1.0, np.maximum(self.cap, 1.0))
        return self.times(np.minimum(within * self.replicas, self.largest))

    def searched(self, known: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Return the least times and their shares, memory left out of account."""
        limits = replace(
            self.limits, max_micro_batch_size=None, max_accumulation_steps=None
        )
        free = _Shares(self.convergence, self.law, limits, self.replicas)
        cap = self.cap
        if known is None:
            return _closing_in(free.shared, _first(cap))
        # The largest batch may be shared unevenly, and one share less evenly.
        below, above = np.floor(known), np.ceil(known)
        tried = [below, above, np.minimum(cap - 1.0, above)]
        grid: Any = np.minimum(np.concatenate(tried, 1), cap)
        return _least(free.shared(grid), grid)

    def accumulated(self, memory: int) -> FloatArray:
        """Return the least times with accumulation, whose teeth are looked at, too."""
        cap = self.cap
        passes = np.rint(np.geomspace(1, np.maximum(cap.max() / memory, 1), 49))
        tops = np.minimum(passes * memory, cap)
        grid = np.sort(np.concatenate([_first(cap, 97), tops], 1), 1)
        least, best = _closing_in(self.shared, grid)
        near = (np.rint(best[:, None] / memory) + np.arange(-2.0, 3.0)) * memory
        full = np.floor(cap / memory) * memory
        ends = self.shared(np.concatenate([near, full, cap], 1)).min(1)
        return np.minimum(least, ends)


def _first(cap: FloatArray, points: int = FIRST_SHARES) -> FloatArray:
    return np.rint(np.maximum(cap, 1.0) ** np.linspace(0.0, 1.0, points))


def _least(seconds: FloatArray, grid: FloatArray) -> tuple[FloatArray, FloatArray]:
    rows, place = np.arange(len(grid)), seconds.argmin(1)
    return seconds[rows, place], grid[rows, place]


def _closing_in(shared: Any, grid: FloatArray) -> tuple[FloatArray, FloatArray]:
    # Exact where times fall and then rise with the share, as under every law here.
    least = np.full(len(grid), np.inf)
    best = grid[:, 0]
    for _ in range(ROUNDS):
        seconds = shared(grid)
        found, share = _least(seconds, grid)
        best = np.where(found < least, share, best)
        least = np.minimum(least, found)
        rows, place = np.arange(len(grid)), seconds.argmin(1)
        low = grid[rows, np.maximum(place - 1, 0)][:, None]
        high = grid[rows, np.minimum(place + 1, grid.shape[1] - 1)][:, None]
        if np.all(high - low <= 2):
            break
        fine = np.rint(low * (high / low) ** np.linspace(0.0, 1.0, SHARES))
        whole = np.minimum(low + np.arange(SHARES), high)
        grid = np.where(high - low < SHARES, whole, fine)
    return least, best
