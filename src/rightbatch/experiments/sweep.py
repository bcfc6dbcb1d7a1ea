"""Steps to a target over batch sizes, learning rates and seeds.

The unit of work is a batch size and a seed: its learning rates race each other
(:mod:`rightbatch.experiments.race`). Units are spread over processes with one thread
each; the outcome does not depend on how many there are.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch

from rightbatch._checks import positive_array, positive_integer
from rightbatch.errors import InputError, WorkloadError
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.evaluation import Evaluation
from rightbatch.experiments.identity import identify
from rightbatch.experiments.optimizers.named import with_optimizer
from rightbatch.experiments.race import MIN_CAP_FACTOR, Resumed, race
from rightbatch.experiments.record import Run
from rightbatch.experiments.run import (
    LiveRun,
    RunSettings,
    default_budget,
    default_crossing,
)
from rightbatch.experiments.store import RunStore, StoreIdentity
from rightbatch.experiments.workers import Workers, num_cores, run_in_processes
from rightbatch.workload import Workload, load_workload

CAP_FACTOR = 2.5
Progress = Callable[[int, int, Run], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """What a sweep runs.

    Args:
        batch_sizes: Examples per step; each at most the data set's size.
        lrs: Learning rates, all tried at every batch size; the workload's when None.
        seeds: One run each; whole numbers >= 0.
        targets: Read off the same runs, which go on to the hardest; the workload's
            when None.
        crossing: Definition of reaching a target; the workload's when None.
        max_steps: Updates allowed per run; when None 10,000, or five epochs if that
            is more.
        cap_factor: Updates allowed, as a multiple of those of the first learning rate
            to arrive at the same batch size and seed; at least 2.
        record_held_out: Record the metric on the workload's held-out set as well.
        optimizer: In place of that of a workload given by name, as for
            :func:`rightbatch.experiments.optimizers.named.named_optimizer`.
        ema_decay: Of the averaged weights that such a workload is checked on; None
            for its own.

    Raises:
        InputError: A value is not of its kind, or a list is empty.

    Example:
        >>> SweepSettings(batch_sizes=(8, 64, 8), seeds=(0,)).batch_sizes
        (8, 64)
    """

    batch_sizes: tuple[int, ...]
    lrs: tuple[float, ...] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    targets: tuple[float, ...] | None = None
    crossing: Crossing | None = None
    max_steps: int | None = None
    cap_factor: float = CAP_FACTOR
    record_held_out: bool = False
    optimizer: str | None = None
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        positive_array("sweep", "batch_sizes", self.batch_sizes)
        for batch_size in self.batch_sizes:
            positive_integer("sweep", "batch_sizes", batch_size)
        if not self.seeds:
            raise InputError("sweep: `seeds` must not be empty.")
        if self.max_steps is not None:
            positive_integer("sweep", "max_steps", self.max_steps)
        if not self.cap_factor >= MIN_CAP_FACTOR:
            raise InputError(
                f"sweep: `cap_factor` must be at least {MIN_CAP_FACTOR:g}, "
                f"got {self.cap_factor}."
            )
        _set(self, batch_sizes=sorted(set(self.batch_sizes)))
        _set(self, seeds=sorted(set(self.seeds)))
        if self.lrs is not None:
            positive_array("sweep", "lrs", self.lrs)
            _set(self, lrs=sorted(set(self.lrs)))
        if self.targets is not None:
            if not self.targets:
                raise InputError("sweep: `targets` must not be empty.")
            _set(self, targets=dict.fromkeys(self.targets))

    def load(self, spec: str, data_dir: Path | None) -> Workload:
        """Return the workload of a name, with the optimizer and averages asked for.

        Args:
            spec: As for :func:`rightbatch.workload.load_workload`.
            data_dir: Likewise.

        Raises:
            InputError: The optimizer or the decay is none.
            WorkloadError: There is no such workload.
        """
        workload = load_workload(spec, data_dir)
        return with_optimizer(workload, self.optimizer, self.ema_decay)

    def resolved(self, workload: Workload) -> "SweepSettings":
        """Return the settings with the workload's own where none were given.

        Raises:
            InputError: A batch size is above the data set's size, or there is no
                held-out set to record.
        """
        if self.record_held_out and workload.held_out is None:
            raise InputError(
                f"sweep: {workload.name} has no held-out set to record.",
                "leave --record-held-out away",
            )
        largest, size = self.batch_sizes[-1], _num_examples(workload)
        if largest > size and workload.example_count is None:
            raise InputError(
                f"sweep: batch size {largest} is above the {size} examples of "
                f"{workload.name}.",
                f"ask for at most {size}",
            )
        return replace(
            self,
            lrs=self.lrs or workload.lrs,
            targets=self.targets or (workload.target.value,),
            crossing=self.crossing or default_crossing(workload),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A batch size and a seed, with the runs already there, by learning rate."""

    batch_size: int
    seed: int
    stored: Mapping[float, tuple[Run, ...]]

    def __str__(self) -> str:
        return f"batch size {self.batch_size}, seed {self.seed}"


def sweep(
    workload: Workload | str,
    settings: SweepSettings,
    *,
    processes: int | Workers | None = None,
    data_dir: Path | None = None,
    store: RunStore | None = None,
    resume: bool = False,
    on_progress: Progress | None = None,
) -> tuple[Run, ...]:
    """Return the runs to the target, over the whole grid.

    Args:
        workload: A name that :func:`rightbatch.workload.load_workload` knows, or a
            workload itself, which is run in this process.
        settings: The grid, targets and budgets.
        processes: How many, with one thread each; as many as there are cores when
            None. With 1, all is done in this process. Or workers that are elsewhere:
            :class:`rightbatch.experiments.dask_workers.DaskWorkers`.
        data_dir: Where a workload given by name looks for its data.
        store: Takes each run as it ends; begins a session if none was.
        resume: Take runs that the store has, and go on with its latest session.
        on_progress: Called with the runs done, their total number, and the latest.

    Returns:
        One run per batch size, learning rate and seed, sorted so.

    Raises:
        InputError: A setting is out of range, or a workload that has no name would
            have to be found by workers elsewhere.
        WorkloadFailedError: The workload's own code raised.
        StoreError: The store cannot be written.
        RightbatchError: A worker process was killed.

    Example:
        >>> settings = SweepSettings(
        ...     batch_sizes=(32, 128), lrs=(0.5,), seeds=(0,), targets=(0.5,)
        ... )
        >>> runs = sweep("digits-mlp", settings, processes=1)
        >>> [run.status for run in runs], runs[0].steps() > runs[1].steps()
        (['reached', 'reached'], True)
    """
    spec = workload if isinstance(workload, str) else None
    if isinstance(workload, str):
        workload = settings.load(workload, data_dir)
    settings = settings.resolved(workload)
    if store is not None and store.session is None:
        store.begin(resume=resume)
    chains = _chains(settings, store if resume else None)
    outcomes = _outcomes(workload, spec, data_dir, settings, chains, processes)
    total = len(chains) * len(settings.lrs or ())
    runs: list[Run] = []
    # Closed at once on an error or Ctrl-C here, and with it the workers.
    with closing(outcomes):
        for run, measured in outcomes:
            if store is not None and measured:
                store.add_run(run)
            runs.append(run)
            if on_progress is not None:
                on_progress(len(runs), total, run)
    return tuple(sorted(runs, key=lambda run: (run.batch_size, run.lr, run.seed)))


def auto_batch_sizes(num_examples: int) -> tuple[int, ...]:
    """Return the batch sizes to sweep when none are given: 4 to 512, by doubling.

    Below 4 a run costs more than it tells: one at 2 takes as long as all those from 16
    on. Of data sets with fewer than 32 examples the sizes from 1 on are taken.

    Example:
        >>> auto_batch_sizes(1438)
        (4, 8, 16, 32, 64, 128, 256, 512)
        >>> auto_batch_sizes(20)
        (1, 2, 4, 8, 16)
    """
    positive_integer("auto_batch_sizes", "num_examples", num_examples)
    smallest = 4 if num_examples >= 32 else 1
    powers = (2**power for power in range(10))
    return tuple(size for size in powers if smallest <= size <= num_examples)


def _outcomes(
    workload: Workload,
    spec: str | None,
    data_dir: Path | None,
    settings: SweepSettings,
    chains: list[Chain],
    processes: int | Workers | None,
) -> Generator[tuple[Run, bool]]:
    if isinstance(processes, Workers):
        if spec is None:
            raise InputError(
                "sweep: `workload` must be a name where other workers look it up, got "
                f"a Workload, {workload.name}.",
                "write module:function or path/file.py:function",
            )
        arguments = (*_anywhere(spec, data_dir), settings, identify(workload))
        return processes.run(_prepare_elsewhere, arguments, chains)
    wanted = num_cores() if processes is None else processes
    wanted = min(positive_integer("sweep", "processes", wanted), len(chains))
    if spec is None or wanted == 1:
        return _in_this_process(workload, settings, chains)
    return run_in_processes(_prepare, (spec, data_dir, settings), chains, wanted)


def _anywhere(spec: str, data_dir: Path | None) -> tuple[str, Path | None]:
    """Return the names of a workload and of its data for who is in another folder."""
    place, colon, attribute = spec.rpartition(":")
    if colon and Path(place).is_file():
        spec = f"{Path(place).absolute()}:{attribute}"
    return spec, None if data_dir is None else data_dir.absolute()


def _chains(settings: SweepSettings, store: RunStore | None) -> list[Chain]:
    stored: dict[tuple[int, int], dict[float, tuple[Run, ...]]] = {}
    for run in store.runs() if store is not None else ():
        if run.crossing == settings.crossing and (
            run.held_out_trace or not settings.record_held_out
        ):
            by_lr = stored.setdefault((run.batch_size, run.seed), {})
            by_lr[run.lr] = (*by_lr.get(run.lr, ()), run)
    chains = [
        Chain(batch_size=size, seed=seed, stored=stored.get((size, seed), {}))
        for size in settings.batch_sizes
        for seed in settings.seeds
    ]
    # The longest first, so that no process is left with one at the end.
    return sorted(chains, key=_expected_cost, reverse=True)


def _expected_cost(chain: Chain) -> float:
    # The inverse law at phi = 50 times an overhead worth 300 examples: a small net's.
    # It decides the order alone, so a guess will do.
    return (1 + 50 / chain.batch_size) * (300 + chain.batch_size)


def _prepare(
    spec: str, data_dir: Path | None, settings: SweepSettings
) -> Callable[[Chain], Iterator[tuple[Run, bool]]]:
    torch.set_num_threads(1)
    workload = settings.load(spec, data_dir)
    return partial(_run_chain, workload, Evaluation(workload), settings)


def _prepare_elsewhere(
    spec: str, data_dir: Path | None, settings: SweepSettings, identity: StoreIdentity
) -> Callable[[Chain], Iterator[tuple[Run, bool]]]:
    workload = settings.load(spec, data_dir)
    # Another file of that name, or other data, would give runs of something else.
    found = identify(workload)
    if differences := found.differences(identity, "where the sweep began"):
        raise WorkloadError(f"workload {spec!r} is another one: {differences}.")
    with _one_thread():
        evaluation = Evaluation(workload)

    def run(chain: Chain) -> Iterator[tuple[Run, bool]]:
        # The thread that a chain is given need not be the one that made this.
        return _in_this_process(workload, settings, [chain], evaluation)

    return run


def _in_this_process(
    workload: Workload,
    settings: SweepSettings,
    chains: Iterable[Chain],
    evaluation: Evaluation | None = None,
) -> Generator[tuple[Run, bool]]:
    # The order of floating-point sums, hence the answer, depends on the threads.
    with _one_thread():
        if evaluation is None:
            evaluation = Evaluation(workload)
        for chain in chains:
            yield from _run_chain(workload, evaluation, settings, chain)


def _run_chain(
    workload: Workload, evaluation: Evaluation, settings: SweepSettings, chain: Chain
) -> Iterator[tuple[Run, bool]]:
    targets, crossing = settings.targets or (), settings.crossing or Crossing()
    contenders: list[Resumed] = []
    for lr in settings.lrs or ():
        one = RunSettings(
            batch_size=chain.batch_size,
            lr=lr,
            seed=chain.seed,
            targets=targets,
            crossing=crossing,
            record_held_out=settings.record_held_out,
        )
        start = partial(LiveRun, workload, one, evaluation)
        contenders.append(Resumed(chain.stored.get(lr, ()), targets, start))
    max_steps = settings.max_steps
    if max_steps is None:
        max_steps = default_budget(_num_examples(workload), chain.batch_size)
    for contender, run in race(
        contenders, max_steps=max_steps, cap_factor=settings.cap_factor
    ):
        yield run, contender.measured


@contextmanager
def _one_thread() -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _num_examples(workload: Workload) -> int:
    return len(cast(Sized, workload.train))


def _set(settings: SweepSettings, **values: Iterable[float]) -> None:
    # The one way to normalise a field of a frozen dataclass.
    for name, value in values.items():
        object.__setattr__(settings, name, tuple(value))
