"""Steps to a target over batch sizes, learning rates and seeds.

The unit of work is a batch size and a seed: its learning rates race each other
(:mod:`rightbatch.experiments.race`). Where that is faster several seeds are one unit,
whose runs are trained together (:mod:`rightbatch.experiments.tiers`). Units are spread
over processes with one thread each; the outcome does not depend on how many there are.
Batches larger than one that did not fit into memory are not tried.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch

from rightbatch._checks import one_of, positive_array, positive_integer
from rightbatch.errors import InputError, WorkloadError
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.evaluation import Evaluation
from rightbatch.experiments.identity import identify
from rightbatch.experiments.lockstep import Lockstep
from rightbatch.experiments.memory_limit import MemoryLimit, untried
from rightbatch.experiments.optimizers.named import with_optimizer
from rightbatch.experiments.race import (
    MIN_CAP_FACTOR,
    Resumed,
    one_by_one,
    race_together,
)
from rightbatch.experiments.record import Run
from rightbatch.experiments.run import (
    LiveRun,
    RunSettings,
    default_budget,
    default_crossing,
)
from rightbatch.experiments.store import RunStore, StoreIdentity
from rightbatch.experiments.tiers import (
    ASKED,
    TierChoice,
    choose_tier,
    seed_groups,
)
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
        tier: How updates are made: ``"plain"``, each run by itself; ``"stacked"``,
            learning rates and seeds together; ``"auto"``, the faster of the two
            where timing them is worth its while. All are the same to rounding. Bit
            by bit a sweep can be repeated with ``"plain"``, however it was
            interrupted, and with ``"stacked"`` in one go.

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
    tier: str = "auto"

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
        one_of("sweep", "tier", self.tier, ASKED)
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
    """A batch size and seeds, with the runs already there, by learning rate and seed.

    Args:
        batch_size: Examples per step.
        seeds: One, or those trained together.
        stored: The runs already there.
        tier: ``"plain"`` or ``"stacked"``.
        is_too_large: A smaller batch is known not to fit into memory.
    """

    batch_size: int
    seeds: tuple[int, ...]
    stored: Mapping[tuple[float, int], tuple[Run, ...]]
    tier: str = "plain"
    is_too_large: bool = False

    def __str__(self) -> str:
        several = "seeds" if len(self.seeds) > 1 else "seed"
        seeds = ", ".join(map(str, self.seeds))
        return f"batch size {self.batch_size}, {several} {seeds}"


def sweep(
    workload: Workload | str | tuple[str, Workload],
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
        workload: A name that :func:`rightbatch.workload.load_workload` knows; a
            workload itself, which is run in this process; or both, where `settings`
            have loaded it already: then this process does not do so again.
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
    if isinstance(workload, tuple):
        spec, workload = workload
    elif isinstance(workload, str):
        workload = settings.load(workload, data_dir)
    settings = settings.resolved(workload)
    if store is not None and store.session is None:
        store.begin(resume=resume)
    chains = _chains(workload, settings, store if resume else None)
    outcomes = _outcomes(workload, spec, data_dir, settings, chains, processes)
    total = sum(len(chain.seeds) for chain in chains) * len(settings.lrs or ())
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


def _chains(
    workload: Workload, settings: SweepSettings, store: RunStore | None
) -> list[Chain]:
    stored = _stored(settings, store)
    limit = MemoryLimit()
    for same in (runs for by_key in stored.values() for runs in by_key.values()):
        limit.note(same[0])
    chains: list[Chain] = []
    tier, before = None, 0
    with _one_thread():
        for size in settings.batch_sizes:
            runs = stored.get(size, {})
            at_half = tier if size <= 2 * before else None
            tier, before = _tier(workload, settings, size, runs, at_half), size
            groups = [(seed,) for seed in settings.seeds]
            if tier.tier == "stacked":
                groups = seed_groups(settings.seeds, len(settings.lrs or ()))
            chains += [
                Chain(
                    batch_size=size,
                    seeds=group,
                    stored={key: runs[key] for key in runs if key[1] in group},
                    tier=tier.tier,
                    is_too_large=limit.exceeded_by(size),
                )
                for group in groups
            ]
    # The longest first, so that no process is left with one at the end.
    return sorted(chains, key=_expected_cost, reverse=True)


def _stored(
    settings: SweepSettings, store: RunStore | None
) -> dict[int, dict[tuple[float, int], tuple[Run, ...]]]:
    stored: dict[int, dict[tuple[float, int], tuple[Run, ...]]] = {}
    for run in store.runs() if store is not None else ():
        if run.crossing == settings.crossing and (
            run.held_out_trace or not settings.record_held_out
        ):
            runs = stored.setdefault(run.batch_size, {})
            key = (run.lr, run.seed)
            runs[key] = (*runs.get(key, ()), run)
    return stored


def _tier(
    workload: Workload,
    settings: SweepSettings,
    batch_size: int,
    stored: Mapping[tuple[float, int], tuple[Run, ...]],
    at_half: TierChoice | None,
) -> TierChoice:
    lrs, seeds = settings.lrs or (), settings.seeds
    asked = [(lr, seed) for lr in lrs for seed in seeds]
    there = [run for key in asked for run in stored.get(key, ())]
    if there and settings.tier == "auto":
        # What was begun one way goes on that way.
        tier = "stacked" if there[0].tier == "stacked" else "plain"
        return TierChoice(tier=tier, reason="as the runs that are there")
    most = _max_steps(workload, settings, batch_size)
    together = seed_groups(seeds, len(lrs))[0]
    return choose_tier(
        workload,
        batch_size,
        [(lr, seed) for lr in lrs for seed in together],
        asked=settings.tier,
        expected_updates=len(asked) * min(most, _expected_steps(batch_size)),
        at_half=at_half,
    )


def _max_steps(workload: Workload, settings: SweepSettings, batch_size: int) -> int:
    if settings.max_steps is not None:
        return settings.max_steps
    return default_budget(_num_examples(workload), batch_size)


def _expected_cost(chain: Chain) -> float:
    # Steps times an overhead worth 300 examples: a small net's. It decides the order
    # alone, so a guess will do.
    each = _expected_steps(chain.batch_size) * (300 + chain.batch_size)
    return each * len(chain.seeds)


def _expected_steps(batch_size: int) -> float:
    """Return a guess: the inverse law with 300 steps at least, phi = 50."""
    return 300 * (1 + 50 / batch_size)


def _prepare(
    spec: str, data_dir: Path | None, settings: SweepSettings
) -> Callable[[Chain], Iterator[tuple[Run, bool]]]:
    torch.set_num_threads(1)
    workload = settings.load(spec, data_dir)
    return partial(_run_chain, workload, Evaluation(workload), settings, MemoryLimit())


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
    limit = MemoryLimit()

    def run(chain: Chain) -> Iterator[tuple[Run, bool]]:
        # The thread that a chain is given need not be the one that made this.
        with _one_thread():
            yield from _run_chain(workload, evaluation, settings, limit, chain)

    return run


def _in_this_process(
    workload: Workload, settings: SweepSettings, chains: Iterable[Chain]
) -> Generator[tuple[Run, bool]]:
    # The order of floating-point sums, hence the answer, depends on the threads.
    with _one_thread():
        evaluation, limit = Evaluation(workload), MemoryLimit()
        for chain in chains:
            yield from _run_chain(workload, evaluation, settings, limit, chain)


def _run_chain(
    workload: Workload,
    evaluation: Evaluation,
    settings: SweepSettings,
    limit: MemoryLimit,
    chain: Chain,
) -> Iterator[tuple[Run, bool]]:
    max_steps = _max_steps(workload, settings, chain.batch_size)
    if chain.is_too_large or limit.exceeded_by(chain.batch_size):
        for one in _run_settings(settings, chain):
            yield untried(one, max_steps), True
        return
    advance = one_by_one
    if chain.tier == "stacked":
        required = settings.tier == "stacked"
        advance = Lockstep(workload, chain.batch_size, required=required).advance
    for contender, run in race_together(
        _heats(workload, evaluation, settings, chain),
        advance,
        max_steps=max_steps,
        cap_factor=settings.cap_factor,
    ):
        limit.note(run)
        yield run, contender.measured


def _heats(
    workload: Workload, evaluation: Evaluation, settings: SweepSettings, chain: Chain
) -> list[list[Resumed]]:
    heats: dict[int, list[Resumed]] = {seed: [] for seed in chain.seeds}
    for one in _run_settings(settings, chain):
        start = partial(LiveRun, workload, one, evaluation)
        stored = chain.stored.get((one.lr, one.seed), ())
        heats[one.seed].append(Resumed(stored, one.targets, start))
    return list(heats.values())


def _run_settings(settings: SweepSettings, chain: Chain) -> Iterator[RunSettings]:
    for seed in chain.seeds:
        for lr in settings.lrs or ():
            yield RunSettings(
                batch_size=chain.batch_size,
                lr=lr,
                seed=seed,
                targets=settings.targets or (),
                crossing=settings.crossing or Crossing(),
                record_held_out=settings.record_held_out,
            )


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
