"""One training run, to its targets.

The trajectory is the seed's alone: it depends neither on how often the run is checked
nor on what else runs in the process. One seed gives the initialisation, the order of
the data and the draws of dropout, from generators of the run's own.
"""

import math
from collections.abc import Callable, Generator, Iterable, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, cast

import torch
from torch import nn

from rightbatch._checks import finite, positive, positive_integer
from rightbatch.engine import Update, make_update
from rightbatch.errors import InputError
from rightbatch.experiments.crossing import Crossing, grid_step
from rightbatch.experiments.evaluation import Evaluation, HardestFirst
from rightbatch.experiments.gate import Gate
from rightbatch.experiments.optimizers.ema import AveragedWeights
from rightbatch.experiments.randomness import OwnRandomness, derived_seed
from rightbatch.experiments.record import Run, Status, read_crossings
from rightbatch.sampler import ExampleStream
from rightbatch.timing import is_out_of_memory
from rightbatch.workload import Workload, failing_as

# The running loss is a mean over about this share of the steps made so far.
RUNNING_SHARE = 0.1
RUNNING_MIN_STEPS = 20
# Lost: this many times the untrained model's loss, for as long as it took to get there.
DIVERGED_FACTOR = 10.0
DIVERGED_MIN_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What decides a run, beside the workload.

    Args:
        batch_size: Examples per step.
        lr: Learning rate.
        seed: What all that is random derives from; a whole number >= 0.
        targets: Values the metric must get to; at least one.
        crossing: The definition of getting there.
        record_held_out: Record the metric on the workload's held-out set as well, at
            each check.

    Raises:
        InputError: A value is not of its kind.

    Example:
        >>> RunSettings(
        ...     batch_size=8, lr=0.1, seed=0, targets=(0.3, 0.2), crossing=Crossing()
        ... ).targets
        (0.3, 0.2)
    """

    batch_size: int
    lr: float
    seed: int
    targets: tuple[float, ...]
    crossing: Crossing
    record_held_out: bool = False

    def __post_init__(self) -> None:
        positive_integer("run", "batch_size", self.batch_size)
        positive("run", "lr", self.lr)
        if self.seed < 0 or self.seed != int(self.seed):
            raise InputError(
                f"run: `seed` must be a whole number >= 0, got {self.seed!r}."
            )
        if not self.targets:
            raise InputError("run: `targets` must not be empty.")
        for target in self.targets:
            finite("run", "target", target)


def default_crossing(workload: Workload) -> Crossing:
    """Return the workload's definition, gated where a gate means something.

    The gate is a factor of 3 for ``smoothed`` and of 2 for ``first``; there is none
    for another metric than the loss, which the mini-batches do not tell.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> default_crossing(mlp()).gate
        3.0
    """
    target = workload.target
    gate = 3.0 if target.crossing == "smoothed" else 2.0
    gated = target.metric == "loss" and target.direction == "min" and target.value > 0
    return Crossing(
        definition=target.crossing,
        direction=target.direction,
        gate=gate if gated else None,
        every=target.every if target.crossing == "first" else 1,
    )


def default_budget(num_examples: int, batch_size: int) -> int:
    """Return the updates a run is allowed: 10,000, or five epochs if that is more.

    Example:
        >>> default_budget(60_000, 8), default_budget(60_000, 512)
        (37500, 10000)
    """
    return max(10_000, math.ceil(5 * num_examples / batch_size))


def run_to_target(
    workload: Workload,
    *,
    batch_size: int,
    lr: float,
    seed: int,
    targets: Iterable[float] | None = None,
    max_steps: int | None = None,
    crossing: Crossing | None = None,
) -> Run:
    """Return one run, trained until its hardest target, divergence or the budget.

    Args:
        workload: What to train.
        batch_size: Examples per step.
        lr: Learning rate.
        seed: What all that is random derives from.
        targets: The workload's own when None.
        max_steps: Updates allowed; :func:`default_budget` when None.
        crossing: :func:`default_crossing` when None.

    Raises:
        InputError: An argument is not of its kind, the batch is above the data set,
            or a target is met before the first update.
        WorkloadFailedError: The workload's own code raised.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> run = run_to_target(mlp(), batch_size=64, lr=0.5, seed=0, targets=[0.5])
        >>> run.status, 20 < run.steps() < 60
        ('reached', True)
    """
    settings = RunSettings(
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        targets=(workload.target.value,) if targets is None else tuple(targets),
        crossing=crossing or default_crossing(workload),
    )
    if max_steps is None:
        max_steps = default_budget(len(cast(Sized, workload.train)), batch_size)
    positive_integer("run", "max_steps", max_steps)
    live = LiveRun(workload, settings, Evaluation(workload))
    live.advance(max_steps)
    return live.result(max_steps)


class LiveRun:
    """A run that can be taken further piece by piece, with one and the same outcome.

    It ends as ``diverged`` when a training loss is not finite, a check is NaN, or the
    running mini-batch loss has stayed above ten times the untrained model's loss for
    as many steps as it took to get there, and 50 at least; as ``out_of_memory`` when
    the memory does not suffice for its batch size.

    Args:
        workload: What to train.
        settings: What decides the run.
        evaluation: The examples to check on; shared between runs.

    Raises:
        InputError: The batch is above the data set, or a target is met before the
            first update.
        WorkloadFailedError: The workload's own code raised.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> settings = RunSettings(
        ...     batch_size=64, lr=0.5, seed=0, targets=(0.5,), crossing=Crossing()
        ... )
        >>> live = LiveRun(mlp(), settings, Evaluation(mlp()))
        >>> live.advance(10)
        >>> live.status is None, live.step
        (True, 10)
        >>> live.advance(100)
        >>> live.status
        'reached'
    """

    def __init__(
        self, workload: Workload, settings: RunSettings, evaluation: Evaluation
    ) -> None:
        self.settings = settings
        self.status: Status | None = None
        self.step = 0
        self.tier = "plain"
        self._workload = workload
        self._evaluation = evaluation
        self._hardest_first = HardestFirst(evaluation)
        self._randomness = OwnRandomness(derived_seed(settings.seed, 2))
        self._index = 0
        self._trace: list[tuple[int, float]] = []
        self._held_out_trace: list[tuple[int, float]] = []
        self._gate = Gate(settings.crossing, settings.targets)
        # The held-out curve crosses elsewhere, and needs dense checks there.
        self._held_out_gate = Gate(settings.crossing, settings.targets)
        self._running = _RunningLoss()
        self._seconds_training = 0.0
        self._seconds_checking = 0.0
        self._step_seconds: list[float] = []
        with self._guarded():
            self._make()
            self._start()

    def advance(self, budget: int) -> None:
        """Train on until the run ends or the next check would lie past `budget`.

        Raises:
            WorkloadFailedError: The workload's own code raised.
        """
        with self._guarded():
            while (stop := self.stop_within(budget)) is not None:
                self._train(stop)

    def stop_within(self, budget: int) -> int | None:
        """Return the step up to which it trains next, to be judged there.

        Args:
            budget: Updates allowed.

        Returns:
            None where the run has ended or that step lies past the budget.
        """
        if self.status is not None:
            return None
        stop = self._next_stop()
        return stop if stop <= budget else None

    def take(self, losses: torch.Tensor, seconds: float) -> None:
        """Be judged after updates that were made for it, by a stack of runs.

        Args:
            losses: Of the updates since the last judgement, up to the step that
                :meth:`stop_within` names; shape (n,).
            seconds: They took, or this run's share of it.

        Raises:
            WorkloadFailedError: The workload's own code raised.
        """
        with self._guarded():
            self._judge_after(losses, seconds)

    @property
    def update(self) -> Update:
        """Makes its updates; a stack borrows the parameters and gives them back."""
        return self._update

    @property
    def model(self) -> nn.Module:
        """What it trains."""
        return self._model

    @property
    def layout(self) -> Callable[[Any], Any]:
        """Lays out batches as its model takes them fastest."""
        return self._layout

    @property
    def stream(self) -> ExampleStream:
        """The examples it trains on."""
        return self._stream

    def result(self, budget: int) -> Run:
        """Return the run as it stands; one that has not ended was `not_reached`."""
        settings, status = self.settings, self.status or "not_reached"
        trace = tuple(self._trace)
        seconds = self._step_seconds
        return Run(
            batch_size=settings.batch_size,
            lr=settings.lr,
            seed=settings.seed,
            status=status,
            last_step=self.step,
            budget=budget,
            trace=trace,
            crossings=read_crossings(
                settings.crossing, trace, settings.targets, status
            ),
            nearest=settings.crossing.nearest(trace),
            crossing=settings.crossing,
            seconds_training=self._seconds_training,
            seconds_checking=self._seconds_checking,
            median_step_seconds=median(seconds) if seconds else None,
            held_out_trace=tuple(self._held_out_trace),
            tier=self.tier,
        )

    def _make(self) -> None:
        workload, settings = self._workload, self.settings
        self._model = workload.model(settings.seed)
        self._model.train()
        self._update = make_update(
            self._model,
            workload.optimizer_for(self._model),
            workload.loss,
            settings.lr,
        )
        self._average = None
        if workload.ema_decay is not None:
            # After the update, which may have moved the parameters into one buffer.
            self._average = AveragedWeights(self._model, workload.ema_decay)
        self._layout = self._evaluation.layout(self._model)
        self._stream = ExampleStream(
            workload.train,
            derived_seed(settings.seed, 1),
            collate=workload.collate,
            example_count=workload.example_count,
        )

    def _start(self) -> None:
        settings, target = self.settings, self._workload.target
        value = self._check()
        for wanted in settings.targets:
            if settings.crossing.meets(value, wanted):
                raise InputError(
                    f"{self._workload.name}: the target {wanted:g} is met before the "
                    f"first update ({target.metric} {value:g}).",
                    "ask for a harder one",
                )
        self._initial_loss = value
        if target.metric != "loss":
            self._initial_loss = self._evaluation.mean_loss(self._model)

    def _next_stop(self) -> int:
        on_grid = grid_step(self._index + 1)
        crossing = self.settings.crossing
        if crossing.definition == "smoothed":
            return on_grid
        # Closed, it trains to the next grid point, and on to a step it may check at.
        wanted = self.step + 1 if self._gate.is_open else on_grid
        return -(-wanted // crossing.every) * crossing.every

    def _train(self, stop: int) -> None:
        batch_size = self.settings.batch_size
        start = perf_counter()
        losses = [self._next(batch_size) for _ in range(stop - self.step)]
        self._judge_after(torch.stack(losses), perf_counter() - start)

    def _judge_after(self, losses: torch.Tensor, seconds: float) -> None:
        self._seconds_training += seconds
        self._step_seconds.append(seconds / len(losses))
        self.step += len(losses)
        self._running.add(float(losses.mean()), len(losses), self.step)
        before = self._index
        while grid_step(self._index + 1) <= self.step:
            self._index += 1
        self._judge(before)

    def _next(self, batch_size: int) -> torch.Tensor:
        loss = self._update(self._layout(self._stream.next(batch_size)))
        if self._average is not None:
            self._average.update()
        return loss

    def _judge(self, index_before: int) -> None:
        if self._running.diverged(self._initial_loss, self.step):
            self.status = "diverged"
            return
        gate = self._gate
        gate.see(self._running.value)
        gates = (gate, self._held_out_gate) if self._held_out_trace else (gate,)
        if all(one.skips(self._index, index_before) for one in gates):
            return
        if self._index == index_before and not self._passes():
            return
        value = self._check()
        if math.isnan(value):
            self.status = "diverged"
            return
        gate.cross(self._trace)
        if self._held_out_trace:
            self._held_out_gate.cross(self._held_out_trace)
        if gate.is_done:
            self.status = "reached"

    def _check(self) -> float:
        with self._averaged():
            return self._check_model()

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._average is None else self._average.in_use()

    def _check_model(self) -> float:
        start = perf_counter()
        evaluation, crossing = self._evaluation, self.settings.crossing
        if crossing.definition == "first" and not evaluation.of_corpus:
            values = evaluation.values(self._model)
            self._hardest_first.rank(values)
            value = float(values.mean())
        else:
            value = evaluation.value(self._model)
        self._trace.append((self.step, value))
        if self.settings.record_held_out:
            held_out = evaluation.held_out_value(self._model)
            self._held_out_trace.append((self.step, held_out))
        self._seconds_checking += perf_counter() - start
        return value

    def _passes(self) -> bool:
        # Partial sums bound a mean from below only, and no other metric.
        if self.settings.crossing.direction == "max" or self._evaluation.of_corpus:
            return True
        start = perf_counter()
        wanted = self._gate.easiest_left
        with self._averaged():
            passes = self._hardest_first.may_be_within(self._model, wanted)
        self._seconds_checking += perf_counter() - start
        return passes

    @contextmanager
    def _guarded(self) -> Generator[None]:
        settings = self.settings
        what = (
            f"{self._workload.name} (batch size {settings.batch_size}, lr "
            f"{settings.lr:g}, seed {settings.seed})"
        )
        with failing_as(what, loss_file(self._workload)), self._randomness.in_use():
            try:
                yield
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self.status = "out_of_memory"


def loss_file(workload: Workload) -> str:
    """Return the file that a workload's loss is written in; empty where unknown.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> loss_file(mlp()).endswith("classification.py")
        True
    """
    code = getattr(workload.loss, "__code__", None)
    return getattr(code, "co_filename", "")


class _RunningLoss:
    """Mean of the mini-batch losses over about the last tenth of the steps."""

    def __init__(self) -> None:
        self.value = math.inf
        self._exploded_at: int | None = None

    def add(self, mean: float, count: int, step: int) -> None:
        window = min(step, max(RUNNING_MIN_STEPS, RUNNING_SHARE * step))
        weight = min(1.0, count / window)
        # The first has weight 1, where (1 - weight) * inf would be NaN.
        rest = 0.0 if weight == 1 else (1 - weight) * self.value
        self.value = weight * mean + rest

    def diverged(self, initial_loss: float, step: int) -> bool:
        if not math.isfinite(self.value):
            return True
        # A loss that can be negative has no scale to compare with.
        if initial_loss <= 0 or self.value <= DIVERGED_FACTOR * initial_loss:
            self._exploded_at = None
            return False
        if self._exploded_at is None:
            self._exploded_at = step
        return step - self._exploded_at >= max(self._exploded_at, DIVERGED_MIN_STEPS)
