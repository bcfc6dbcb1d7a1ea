"""One run of a workload under a policy: trained, evaluated on a grid, resumed."""

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from rightbatch.controller import (
    Acting,
    BatchSizeController,
    MeanLoss,
    Sensing,
    UpdateRecord,
)
from rightbatch.errors import InputError
from rightbatch.experiments.randomness import OwnRandomness, derived_seed
from rightbatch.experiments.train_record import DETAILS, Evaluated, TrainingRun
from rightbatch.experiments.train_settings import TrainSettings
from rightbatch.lr_scaling import named_schedule
from rightbatch.policies import Policy
from rightbatch.sampler import Loading, MicroBatchStream
from rightbatch.training import Checkpoint, Until, train
from rightbatch.workload import Workload, failing_as

Seen = Callable[[UpdateRecord, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """A run to be made.

    Args:
        workload: What is trained.
        policy: Decides the batch sizes.
        name: Of the policy.
        seed: Of weights, order and everything else random.
        settings: What else decides it.
    """

    workload: Workload
    policy: Policy[Any]
    name: str
    seed: int
    settings: TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """Where a run under way is kept.

    Args:
        path: The checkpoint; the evaluations lie beside it.
        resume: Go on from it where there is one.
        every_seconds: Between two writings.
    """

    path: Path
    resume: bool = False
    every_seconds: float = 30.0

    @property
    def evaluations(self) -> Path:
        """The file of the evaluations."""
        return self.path.with_suffix(".json")

    @property
    def is_there(self) -> bool:
        """Whether a run can be gone on with: both files are there."""
        return self.path.exists() and self.evaluations.exists()

    def remove(self) -> None:
        """Take the files away: the run is kept elsewhere."""
        self.path.unlink(missing_ok=True)
        self.evaluations.unlink(missing_ok=True)


def run_training(
    job: TrainJob,
    *,
    files: RunFiles | None = None,
    on_update: Seen | None = None,
) -> TrainingRun:
    """Return a run that has ended, by itself or by Ctrl-C.

    On one thread, as step times are measured. It depends on the workload, the policy,
    the settings and the seed alone: begun anew, or killed and gone on with, its
    updates are the same to the last bit.

    Args:
        job: What to run.
        files: Where it is kept meanwhile; nowhere when None.
        on_update: Called with each record and the last evaluated loss.

    Returns:
        The run; its status says how it ended.

    Raises:
        InputError: The policy needs what cannot be measured here, sizes do not go with
            the data set, or a checkpoint is of another run.
        WorkloadFailedError: The workload's own code raised.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> from rightbatch.policies import GeoDamp
        >>> settings = TrainSettings(lr=0.1, initial_batch_size=16, max_batch_size=64,
        ...     micro_batch_size=16, max_examples=4314)
        >>> policy = GeoDamp(initial_batch_size=16, factor=2, delay=1)
        >>> job = TrainJob(workload=mlp(), policy=policy, name="geodamp", seed=0,
        ...     settings=settings)
        >>> run = run_training(job)
        >>> run.status, run.trace.batch_sizes[[0, 100, -1]].tolist()
        ('finished', [16.0, 32.0, 64.0])
    """
    workload, settings = job.workload, job.settings
    if workload.example_count is not None:
        raise InputError(
            f"train: {workload.name} counts {workload.example_unit}s, of which an item "
            "holds several; batches of it are not served yet.",
            "take a workload whose items are its examples",
        )
    file = getattr(getattr(workload.loss, "__code__", None), "co_filename", "")
    what = f"{workload.name} ({job.name}, lr {settings.lr:g}, seed {job.seed})"
    own = OwnRandomness(derived_seed(job.seed, 2))
    with failing_as(what, file), _one_thread(), own.in_use():
        made = _Made(job)
        try:
            return _run(job, made, files, on_update)
        finally:
            made.controller.close()


def _run(
    job: TrainJob, made: "_Made", files: RunFiles | None, on_update: Seen | None
) -> TrainingRun:
    settings, controller = job.settings, made.controller
    course = _Course(made.evaluate, settings, files)
    course.begin()

    def see(record: UpdateRecord) -> None:
        course.see(record.step, record.examples)
        if on_update is not None:
            on_update(record, course.loss)

    end = train(
        controller,
        job.workload.loss,
        until=Until(max_examples=settings.max_examples, max_steps=settings.max_steps),
        on_update=see,
        checkpoint=course.checkpoint,
    )
    course.finish(controller.step, controller.examples)
    records = controller.records
    asked = sum(one.eval_loss is not None for one in records)
    return TrainingRun(
        policy=job.name,
        seed=job.seed,
        settings=settings.to_dict(),
        status=end.status,
        trace=controller.trace(),
        evaluations=course.evaluations,
        seconds_evaluating=course.seconds + end.evaluating_seconds,
        policy_examples=asked * made.policy_loss.num_examples,
        notes=(*end.said, *controller.warnings),
        details={
            name: np.array([getattr(one, name) for one in records], dtype=float)
            for name in DETAILS
        },
    )


class _Made:
    """The parts of a run, made of a job."""

    def __init__(self, job: TrainJob) -> None:
        workload, settings = job.workload, job.settings
        model = workload.model(job.seed).to(settings.device)
        model.train()
        optimizer = workload.optimizer_for(model)(model.parameters(), settings.lr)
        stream = MicroBatchStream(
            workload.train,
            settings.micro_batch_size,
            seed=derived_seed(job.seed, 1),
            collate=workload.collate,
            loading=Loading(device=settings.device),
        )
        data: Any = getattr(workload, settings.policy_data)
        self.evaluate = MeanLoss(
            model, workload.loss, workload.evaluate_on, collate=workload.collate
        )
        self.policy_loss = MeanLoss(
            model,
            workload.loss,
            data,
            fraction=settings.policy_fraction,
            collate=workload.collate,
        )
        self.controller = BatchSizeController(
            model,
            optimizer,
            job.policy,
            stream,
            lr_rule=settings.lr_rule,
            sensing=Sensing(every=settings.measure_every, evaluate=self.policy_loss),
            acting=Acting(
                lr_batch_size=settings.initial_batch_size,
                scheduler=_scheduler(optimizer, settings),
                counts="auto" if settings.schedule is None else "examples",
            ),
        )


class _Course:
    """The losses along a run, on a grid that all runs of the same settings share."""

    def __init__(
        self, evaluate: MeanLoss, settings: TrainSettings, files: RunFiles | None
    ) -> None:
        self._evaluate, self._settings, self._files = evaluate, settings, files
        self._rows: list[tuple[int, int, float, float]] = []
        self._is_fresh = True

    @property
    def evaluations(self) -> tuple[Evaluated, ...]:
        """What was evaluated, in order."""
        return tuple(Evaluated(*row[:3]) for row in self._rows)

    @property
    def seconds(self) -> float:
        """What that took."""
        return sum(row[3] for row in self._rows)

    @property
    def loss(self) -> float:
        """The last loss."""
        return self._rows[-1][2]

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where the rest of the run is written."""
        files = self._files
        if files is None:
            return None
        return Checkpoint(
            path=files.path,
            every_seconds=files.every_seconds,
            resume=not self._is_fresh,
        )

    def begin(self) -> None:
        """Evaluate the start, or read what was evaluated before a break."""
        files = self._files
        if files is not None and files.resume and files.is_there:
            rows = json.loads(files.evaluations.read_text())
            self._rows = [(*row,) for row in rows]
            self._is_fresh = not self._rows
        if not self._rows:
            self._add(0, 0)

    def see(self, step: int, examples: int) -> None:
        """Evaluate after an update where the grid has a place since the last one."""
        # Evaluated after the checkpoint that a broken run goes on from: again, then.
        while self._rows[-1][0] >= step:
            self._rows.pop()
        slot = self._settings.slot
        if slot(examples) > slot(self._rows[-1][1]):
            self._add(step, examples)

    def finish(self, step: int, examples: int) -> None:
        """Evaluate the end."""
        while self._rows[-1][0] > step:
            self._rows.pop()
        if self._rows[-1][0] < step:
            # Not written: off the grid, where a run that goes on is not evaluated.
            self._add(step, examples, write=False)

    def _add(self, step: int, examples: int, *, write: bool = True) -> None:
        begin = perf_counter()
        loss = self._evaluate()
        self._rows.append((step, examples, loss, perf_counter() - begin))
        if write and self._files is not None:
            path = self._files.evaluations
            beside = path.with_name(f".{path.name}.{os.getpid()}")
            beside.write_text(json.dumps(self._rows))
            beside.replace(path)


def _scheduler(optimizer: Optimizer, settings: TrainSettings) -> LambdaLR | None:
    if settings.schedule is None or settings.max_examples is None:
        return None
    schedule = named_schedule(settings.schedule)
    # One step of the scheduler is one update at the initial batch size.
    share = settings.initial_batch_size / settings.max_examples

    def factor(steps: int) -> float:
        progress = np.array([min(1.0, steps * share)])
        return float(schedule.values(progress)[0])

    return LambdaLR(optimizer, factor)


@contextmanager
def _one_thread() -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
