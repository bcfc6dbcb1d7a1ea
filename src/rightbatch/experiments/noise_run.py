"""Gradient noise at initialisation and along one training run, window by window."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Literal

import torch

from rightbatch.errors import InputError
from rightbatch.experiments.evaluation import evaluating
from rightbatch.experiments.noise_record import NoiseMeasurement, run_average
from rightbatch.experiments.noise_settings import FIRST_WINDOW, NoiseSettings
from rightbatch.experiments.noise_trainee import Trainee, is_plain_sgd, stream_of
from rightbatch.experiments.randomness import OwnRandomness, derived_seed
from rightbatch.experiments.run import DIVERGED_FACTOR
from rightbatch.gradients.independence import check_independence
from rightbatch.noise_scale import MomentAverage
from rightbatch.sampler import ExampleStream, chunks
from rightbatch.workload import Workload, failing_as

Status = Literal["reached", "finished", "diverged", "interrupted", "stopped"]
# Precision ends a measurement after so many windows only: before them the noise scale
# is that of a model which has hardly been trained.
_MIN_WINDOWS = 5
# A last window shorter than this share of the one before joins it.
_SHORT = 0.5
# Steps between two looks at the target: a share of those made, and so many at least.
_CHECK_SHARE = 0.1
_CHECK_STEPS = 10
# A held-out loss is looked at once the training loss is within this factor of it:
# reading 12,000 examples takes as long as a hundred updates on 64.
_GATE = 3.0
_CHECK_CHUNK = 128
# The row at initialisation, where time is short: batches at least, share of the time.
_FEW_BATCHES = 5
_START_SHARE = 0.25


class NoiseRun:
    """A measurement at initialisation and along one run; each gradient is exact.

    An update's gradient is the mean over its batch, whatever the units are, and its
    trajectory depends on the seed alone. The row at initialisation is read on a model
    of its own, which nothing updates.

    Args:
        workload: What is trained.
        settings: How.
        device: Where.

    Raises:
        InputError: The batch is above the data set, an example's loss depends on the
            rest of its batch, the target is met at the start, or the model cannot be
            read example by example.
        WorkloadFailedError: The workload's own code raised.

    Example:
        >>> from rightbatch.experiments.noise_settings import unit_sizes, window_ends
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> settings = NoiseSettings(batch_size=64, lr=0.5, unit_sizes=unit_sizes(64),
        ...     max_steps=40, window_ends=window_ends(40))
        >>> run = NoiseRun(mlp(), settings)
        >>> run.advance()
        >>> run.status, [row.step for row in run.measurements]
        ('finished', [0, 20, 40])
    """

    def __init__(
        self,
        workload: Workload,
        settings: NoiseSettings,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings
        self.status: Status | None = None
        self.measurements: list[NoiseMeasurement] = []
        self.step = 0
        self._workload = workload
        self._device = torch.device(device)
        self._randomness = OwnRandomness(derived_seed(settings.seed, 2))
        self._started = perf_counter()
        self._losses: list[float] = []
        self._began = 0
        self._next_check = _CHECK_STEPS
        self._lost = 0
        self._last_losses: list[float] = []
        self._before: dict[str, Any] = {}
        with self._guarded():
            self._check_loss()
            self._trainee = self._made(1)
            self._held_out = self._read_target()

    def advance(self, on_step: Callable[[int], None] | None = None) -> None:
        """Measure on until the run ends.

        Args:
            on_step: Called with the updates made, after each.

        Raises:
            WorkloadFailedError: The workload's own code raised.
        """
        with self._guarded():
            if not self.measurements:
                self._measure_start()
            while self.status is None:
                loss = self._trainee.update(train=True)
                if not math.isfinite(loss):
                    self._end("diverged")
                    return
                self.step += 1
                self._losses.append(loss)
                if on_step is not None:
                    on_step(self.step)
                self._judge()

    def interrupt(self) -> None:
        """Write down the window under way, and end."""
        self._end("interrupted")

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the readings, one sentence each."""
        said = [note for row in self.measurements for note in row.reading.notes]
        return tuple(dict.fromkeys(said))

    # Parts of a measurement -----------------------------------------------------------

    def _measure_start(self) -> None:
        still = self._made(3)
        losses: list[float] = []
        while len(losses) < FIRST_WINDOW and not self._is_late(len(losses)):
            losses.append(still.update(train=False))
        still.meter.close()
        if not all(map(math.isfinite, losses)):
            self._end("diverged")
            return
        self._write(still, 0, losses)

    def _judge(self) -> None:
        settings = self.settings
        if self.step >= self._next_check:
            ahead = max(_CHECK_STEPS, round(_CHECK_SHARE * self.step))
            self._next_check = self.step + ahead
            if self._is_lost():
                self._end("diverged")
            elif self._may_be_met() and self._is_met():
                self._end("reached")
        if self.status is None and self._seconds > (settings.max_seconds or math.inf):
            self._end("stopped")
        if self.status is None and self.step >= settings.max_steps:
            self._end("finished")
        if self.status is None and self.step in settings.window_ends:
            self._close_window()
            if self._is_precise():
                self._end("stopped")

    @property
    def _seconds(self) -> float:
        return perf_counter() - self._started

    def _is_late(self, num_batches: int) -> bool:
        """Return whether the start has had its share of the time, and its few."""
        limit = self.settings.max_seconds or math.inf
        return num_batches >= _FEW_BATCHES and self._seconds > _START_SHARE * limit

    def _is_lost(self) -> bool:
        """Return whether the loss has been far above its start at three looks on."""
        recent = self._losses or self._last_losses
        start = self.measurements[0].loss
        mean = sum(recent) / len(recent)
        self._lost = (
            self._lost + 1 if start > 0 and mean > DIVERGED_FACTOR * start else 0
        )
        return self._lost > 2

    def _may_be_met(self) -> bool:
        target, wanted = self._workload.target, self.settings.target
        if wanted is None or target.metric != "loss" or target.direction == "max":
            return wanted is not None
        recent = (self._losses or self._last_losses)[-_CHECK_STEPS:]
        return wanted <= 0 or sum(recent) / len(recent) <= _GATE * wanted

    def _is_met(self) -> bool:
        if self.settings.target is None:
            return False
        value = self._target_value()
        wanted = self.settings.target
        descending = self._workload.target.direction == "min"
        return value <= wanted if descending else value >= wanted

    def _is_precise(self) -> bool:
        wanted = self.settings.relative_error
        if wanted is None or len(self.measurements) <= _MIN_WINDOWS:
            return False
        average = run_average(self.measurements)
        if average is None or not average.value or average.high is None:
            return False
        width = average.high - (average.low or 0.0)
        return width / 2 / average.value <= wanted

    def _end(self, status: Status) -> None:
        meter = self._trainee.meter
        rows, length = self.measurements, self.step - self._began
        # What diverges is another noise; else a short rest says little by itself.
        joins = status != "diverged" and len(rows) > 1
        if joins and 0 < length < _SHORT * rows[-1].num_steps:
            meter.load_state_dict(_joined(self._before, meter.state_dict()))
            last = rows.pop()
            weighted = [last.loss] * last.num_steps + self._losses
            self._began, self._losses = last.first_step, weighted
        self._close_window()
        self.status = status
        meter.close()

    def _close_window(self) -> None:
        if self._losses:
            self._write(self._trainee, self.step, self._losses)
            self._before = self._trainee.meter.state_dict()
            self._trainee.meter.reset()
        self._began, self._last_losses, self._losses = self.step, self._losses, []

    def _write(self, trainee: Trainee, step: int, losses: Sequence[float]) -> None:
        settings = self.settings
        self.measurements.append(
            NoiseMeasurement(
                first_step=self._began,
                step=step,
                examples=trainee.stream.examples if step else 0,
                loss=sum(losses) / len(losses),
                reading=trainee.meter.noise_scale,
                sgd_lr=settings.lr if is_plain_sgd(trainee.optimizer) else None,
            )
        )

    # The model, the data and the target ----------------------------------------------

    def _made(self, stream: int) -> Trainee:
        return Trainee(self._workload, self.settings, self._device, stream)

    def _check_loss(self) -> None:
        workload, settings = self._workload, self.settings
        model = workload.model(settings.seed).to(self._device)
        size = settings.batch_size
        whole, cut = (self._stream(1) for _ in range(2))
        batch = whole.next(size)
        if workload.example_count is None:
            parts = [cut.next(size // 2), cut.next(size - size // 2)]
        else:
            # Asked for one example it gives one item, with all that it counts for.
            parts = [cut.next(1)]
            while cut.examples < whole.examples:
                parts.append(cut.next(1))
        try:
            check_independence(model, workload.loss, batch, parts)
        except InputError as error:
            raise InputError(f"{workload.name}: {error}") from None

    def _stream(self, stream: int) -> ExampleStream:
        return stream_of(self._workload, self.settings.seed, stream, self._device)

    def _read_target(self) -> tuple[Any, ...]:
        workload, wanted = self._workload, self.settings.target
        if wanted is None:
            return ()
        self._held_out = chunks(
            workload.evaluate_on,
            _CHECK_CHUNK,
            collate=workload.collate,
            device=self._device,
        )
        if self._is_met():
            raise InputError(
                f"{workload.name}: the target {wanted:g} is met before the first "
                "update.",
                "ask for a harder one",
            )
        return self._held_out

    def _target_value(self) -> float:
        workload, model = self._workload, self._trainee.model
        of_corpus = workload.corpus_metrics.get(workload.target.metric)
        if of_corpus is not None:
            with evaluating(model):
                return float(of_corpus(model, workload.evaluate_on))
        metric = workload.metric(workload.target.metric)
        with evaluating(model):
            values = torch.cat([metric(model, chunk) for chunk in self._held_out])
        return float(values.double().mean())

    @contextmanager
    def _guarded(self) -> Generator[None]:
        workload, settings = self._workload, self.settings
        file = getattr(getattr(workload.loss, "__code__", None), "co_filename", "")
        what = f"{workload.name} (batch size {settings.batch_size}, lr {settings.lr:g})"
        with failing_as(what, file), self._randomness.in_use():
            yield


def _joined(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a meter that read two windows as one."""
    earlier, later = before["averages"], after["averages"]
    averages = {
        name: MomentAverage.from_state_dict(state)
        .merge(MomentAverage.from_state_dict(later[name]))
        .state_dict()
        for name, state in earlier.items()
    }
    return {**after, "averages": averages}
