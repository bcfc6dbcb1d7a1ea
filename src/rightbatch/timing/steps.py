"""Seconds per step at each batch size, measured on a workload.

What is timed is a sweep's inner loop itself (the next batch, one update), so that
steps times seconds is the time a run takes, checks aside.
"""

from collections.abc import Callable, Generator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

from rightbatch._checks import positive, positive_integer
from rightbatch.engine import Update, make_update
from rightbatch.errors import InputError, NotReachedError
from rightbatch.sampler import ExampleStream, whole
from rightbatch.workload import Workload, failing_as

MIN_ROUNDS = 3
# The first steps allocate, choose kernels and fill caches.
WARM_UP_STEPS = 2
# Share of the budget that finding out how long a step takes may use.
WARM_UP_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTiming:
    """How long a step took at one batch size.

    Args:
        batch_size: Examples per step.
        num_replicas: Always 1 here: one process.
        seconds: Median over the rounds of the mean seconds per step.
        spread: Quartiles over the rounds.
        num_steps: Steps timed in all.
        memory_bytes: Peak of the memory allocated on a CUDA device; None on the CPU,
            where a process's peak is not that of the step.
    """

    batch_size: int
    num_replicas: int = 1
    seconds: float
    spread: tuple[float, float]
    num_steps: int
    memory_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, the quartiles as `low` and `high`."""
        values = asdict(self)
        low, high = values.pop("spread")
        return {**values, "low": low, "high": high}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimings:
    """Measured step times, smallest batch first, and why no larger ones are there.

    Args:
        timings: One for each batch size that could be timed.
        stopped: Why larger batch sizes are missing; empty when none is.
        device: Where it was measured.
        num_threads: Threads the CPU's part ran on.

    Example:
        >>> timing = StepTiming(
        ...     batch_size=8, seconds=1e-3, spread=(9e-4, 2e-3), num_steps=60
        ... )
        >>> StepTimings(timings=(timing,), device="cpu", num_threads=1).seconds
        (0.001,)
    """

    timings: tuple[StepTiming, ...]
    stopped: str = ""
    device: str
    num_threads: int

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes that were timed, ascending."""
        return tuple(timing.batch_size for timing in self.timings)

    @property
    def seconds(self) -> tuple[float, ...]:
        """Median seconds per step, in the same order."""
        return tuple(timing.seconds for timing in self.timings)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "times": [timing.to_dict() for timing in self.timings],
            "stopped": self.stopped,
            "device": self.device,
            "num_threads": self.num_threads,
        }

    def __str__(self) -> str:
        rows = [
            f"{t.batch_size:>10}  {t.seconds * 1e3:10.4g} ms  "
            f"({t.spread[0] * 1e3:.4g} to {t.spread[1] * 1e3:.4g})"
            for t in self.timings
        ]
        return "\n".join([*rows, self.stopped] if self.stopped else rows)


def measure_step_times(
    workload: Workload,
    batch_sizes: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    repeats: int = 20,
    budget_seconds: float = 10.0,
    num_threads: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> StepTimings:
    """Return the seconds per step at each batch size.

    Each round visits every batch size once, in an order drawn anew, so that a slow
    spell of the machine falls on all of them. A batch size that does not fit in memory
    ends the list there; the smaller ones are kept.

    Args:
        workload: What is trained; a model of its own is, and thrown away.
        batch_sizes: Whole numbers, at most the data set's size; any order.
        device: Where to train.
        repeats: Rounds at most, and 3 at least.
        budget_seconds: For all of them together. Three rounds of one step each are
            made even where that takes longer.
        num_threads: Threads for the CPU's part; put back afterwards.
        on_progress: Called with the fraction done, 0 to 1.

    Raises:
        InputError: A batch size, `repeats`, the budget, the device or the number of
            threads cannot be used.
        NotReachedError: Not even the smallest batch fits in memory.
        WorkloadFailedError: The workload's own code raised.

    Returns:
        Medians with quartiles, and why it stopped.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> times = measure_step_times(mlp(), [256, 8], budget_seconds=0.1)
        >>> times.batch_sizes, all(seconds > 0 for seconds in times.seconds)
        ((8, 256), True)
    """
    sizes = _servable(workload, batch_sizes)
    positive_integer("timing", "repeats", repeats)
    positive("timing", "budget_seconds", budget_seconds)
    positive_integer("timing", "num_threads", num_threads)
    place = _usable(device)
    report: Callable[[float], None] = on_progress or (lambda _: None)
    with _threads(num_threads), failing_as(f"{workload.name}: a training step"):
        clock = _Clock(max(repeats, MIN_ROUNDS), budget_seconds, report)
        loops, stopped = clock.warm_up(workload, sizes, place)
        stopped = clock.time_rounds(loops) or stopped
    return StepTimings(
        timings=tuple(loop.timing() for loop, _ in loops),
        stopped=stopped,
        device=str(place),
        num_threads=num_threads,
    )


class _Loop:
    """The inner loop at one batch size, with its clock."""

    def __init__(
        self, update: Update, stream: ExampleStream, batch_size: int, device: Any
    ) -> None:
        self.batch_size = batch_size
        self.samples: list[float] = []
        self.num_steps = 0
        self.memory_bytes: int | None = None
        self._update = update
        self._stream = stream
        self._cuda = device if device.type == "cuda" else None

    def run(self, num_steps: int) -> float:
        """Return the mean seconds per step over some steps."""
        if self._cuda is None:
            start = perf_counter()
            self._steps(num_steps)
            return (perf_counter() - start) / num_steps
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self._cuda)
        begin.record(torch.cuda.current_stream(self._cuda))
        self._steps(num_steps)
        end.record(torch.cuda.current_stream(self._cuda))
        torch.cuda.synchronize(self._cuda)
        return begin.elapsed_time(end) / 1e3 / num_steps

    def warm_up(self, seconds: float) -> float:
        """Return about how long a step takes, once it has settled."""
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
        start, fastest, step = perf_counter(), float("inf"), 0
        while step < WARM_UP_STEPS or perf_counter() - start < seconds:
            fastest = min(fastest, self.run(1))
            step += 1
        if self._cuda is not None:
            self.memory_bytes = torch.cuda.max_memory_allocated(self._cuda)
        return fastest

    def sample(self, num_steps: int) -> None:
        self.samples.append(self.run(num_steps))
        self.num_steps += num_steps

    def timing(self) -> StepTiming:
        low, middle, high = np.quantile(self.samples, [0.25, 0.5, 0.75])
        return StepTiming(
            batch_size=self.batch_size,
            seconds=float(middle),
            spread=(float(low), float(high)),
            num_steps=self.num_steps,
            memory_bytes=self.memory_bytes,
        )

    def _steps(self, num_steps: int) -> None:
        update, stream, batch_size = self._update, self._stream, self.batch_size
        for _ in range(num_steps):
            update(stream.next(batch_size))


class _Clock:
    """Shares the budget out over warm-up and rounds."""

    def __init__(
        self, rounds: int, budget_seconds: float, report: Callable[[float], None]
    ) -> None:
        self._rounds = rounds
        self._budget = budget_seconds
        self._report = report
        self._start = perf_counter()

    def warm_up(
        self, workload: Workload, sizes: Sequence[int], device: torch.device
    ) -> tuple[list[tuple[_Loop, int]], str]:
        """Return the loops that fit in memory, with their steps per round.

        Raises:
            NotReachedError: Not even the smallest batch fits.
        """
        model = workload.model(0).to(device)
        model.train()
        # The smallest rate: a run that diverges can be slower or faster than one that
        # does not.
        lr = min(workload.lrs)
        update = make_update(model, workload.optimizer_for(model), workload.loss, lr)
        data = _on_device(workload, device)
        loops: list[tuple[_Loop, int]] = []
        for size in sizes:
            stream = ExampleStream(
                data,
                0,
                collate=workload.collate,
                device=device,
                example_count=workload.example_count,
            )
            loop = _Loop(update, stream, size, device)
            try:
                settled = loop.warm_up(WARM_UP_SHARE * self._budget / len(sizes))
            except (RuntimeError, MemoryError) as error:
                stopped = _out_of_memory(error, size)
                if not loops:
                    raise NotReachedError(f"{workload.name}: {stopped}.") from None
                return loops, stopped
            turn = (1 - WARM_UP_SHARE) * self._budget / self._rounds / len(sizes)
            loops.append((loop, max(1, int(turn / settled))))
            self._report(WARM_UP_SHARE * len(loops) / len(sizes))
        return loops, ""

    def time_rounds(self, loops: list[tuple[_Loop, int]]) -> str:
        """Sample every loop once a round; drop what no longer fits in memory.

        Returns:
            Why batch sizes were dropped; empty when none was.

        Raises:
            NotReachedError: Nothing is left.
        """
        order = np.random.default_rng(0)
        stopped = ""
        for done in range(self._rounds):
            round_start = perf_counter()
            for place in order.permutation(len(loops)):
                if place >= len(loops):
                    continue
                loop, num_steps = loops[place]
                try:
                    loop.sample(num_steps)
                except (RuntimeError, MemoryError) as error:
                    stopped = _out_of_memory(error, loop.batch_size)
                    del loops[place:]
                    if not loops:
                        raise NotReachedError(f"{stopped}.") from None
            fraction = (done + 1) / self._rounds
            self._report(WARM_UP_SHARE + (1 - WARM_UP_SHARE) * fraction)
            now = perf_counter()
            after_one_more = now - self._start + (now - round_start)
            if done + 1 >= MIN_ROUNDS and after_one_more > self._budget:
                break
        self._report(1.0)
        return stopped


def _out_of_memory(error: Exception, batch_size: int) -> str:
    """Return the reason to stop; any other error goes on its way."""
    if not is_out_of_memory(error):
        raise error
    text = str(error)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    reason = text.strip().split("\n", maxsplit=1)[0] or type(error).__name__
    return f"batch size {batch_size} does not fit in memory: {reason.rstrip('.')}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out.

    Args:
        error: Anything that was raised.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes"))
        (True, False)
    """
    # The CPU's allocator, and CUDA outside of torch's own, raise a bare RuntimeError.
    said = (
        "allocate memory",
        "not enough memory",
        "out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
    )
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in said)
    )


def _servable(workload: Workload, batch_sizes: Sequence[int]) -> list[int]:
    who = f"timing {workload.name}"
    sizes = sorted({positive_integer(who, "batch_sizes", size) for size in batch_sizes})
    if not sizes:
        raise InputError(f"{who}: `batch_sizes` must not be empty.")
    with failing_as(f"{workload.name}: `train`"):
        length = len(cast(Sized, workload.train))
    if workload.example_count is None and sizes[-1] > length:
        raise InputError(
            f"{who}: `batch_sizes` must be at most the data set's {length} examples, "
            f"got {sizes[-1]}."
        )
    return sizes


def _usable(device: torch.device | str) -> torch.device:
    try:
        place = torch.device(device)
    except RuntimeError:
        raise InputError(
            f"timing: there is no device {device!r}.", "cpu or cuda"
        ) from None
    if place.type not in ("cpu", "cuda"):
        raise InputError(f"timing: `device` cannot be {str(place)!r}.", "cpu or cuda")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError("timing: this torch finds no CUDA device.", "use cpu")
    return place


def _on_device(workload: Workload, device: torch.device) -> Dataset[Any]:
    # Moved once: the streams of all batch sizes share it.
    bare = workload.collate is None and workload.example_count is None
    if device.type == "cpu" or not bare or not hasattr(workload.train, "tensors"):
        return workload.train
    return TensorDataset(*whole(workload.train, device=device))


@contextmanager
def _threads(count: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
