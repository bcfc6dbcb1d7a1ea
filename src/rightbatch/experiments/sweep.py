"""Steps to a target over batch sizes, learning rates and seeds.

The unit of work is a batch size and a seed: its learning rates race each other
(:mod:`rightbatch.experiments.race`). Where that is faster several seeds are one unit,
whose runs are trained together (:mod:`rightbatch.experiments.tiers`). Units are spread
over processes with one thread each; the outcome does not depend on how many there are.
Batches larger than one that did not fit into memory are not tried.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from rightbatch._checks import positive_integer
from rightbatch.errors import InputError, WorkloadError
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.evaluation import Evaluation
from rightbatch.experiments.graphs import CompiledGraphs
from rightbatch.experiments.identity import identify
from rightbatch.experiments.lockstep import Lockstep
from rightbatch.experiments.memory_limit import MemoryLimit, untried
from rightbatch.experiments.race import Resumed, one_by_one, race_together
from rightbatch.experiments.record import Run
from rightbatch.experiments.run import LiveRun, RunSettings, default_budget
from rightbatch.experiments.store import RunStore, StoreIdentity
from rightbatch.experiments.sweep_settings import SweepSettings, num_examples
from rightbatch.experiments.tiers import TIERS, TierChoice, choose_tier, seed_groups
from rightbatch.experiments.workers import Workers, num_cores, run_in_processes
from rightbatch.workload import Workload

Progress = Callable[[int, int, Run], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A batch size and seeds, with the runs already there, by learning rate and seed.

    Args:
        batch_size: Examples per step.
        seeds: One, or those trained together.
        stored: The runs already there.
        tier: ``"plain"``, ``"stacked"`` or ``"compiled"``.
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
            if tier.tier != "plain":
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


def _is_as_wanted(crossing: Crossing, wanted: Crossing) -> bool:
    """Return whether steps are one quantity; a gate does where one is asked for."""
    without = wanted.gate is None and crossing.gate is not None
    return not without and replace(crossing, gate=None) == replace(wanted, gate=None)


def _stored(
    settings: SweepSettings, store: RunStore | None
) -> dict[int, dict[tuple[float, int], tuple[Run, ...]]]:
    stored: dict[int, dict[tuple[float, int], tuple[Run, ...]]] = {}
    wanted = settings.crossing or Crossing()
    for run in store.runs() if store is not None else ():
        if _is_as_wanted(run.crossing, wanted) and (
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
        tier = TIERS.get(there[0].tier, "plain")
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
    return default_budget(num_examples(workload), batch_size)


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
    return partial(_run_chain, _Process(workload, settings), settings)


def _prepare_elsewhere(
    spec: str, data_dir: Path | None, settings: SweepSettings, identity: StoreIdentity
) -> Callable[[Chain], Iterator[tuple[Run, bool]]]:
    workload = settings.load(spec, data_dir)
    # Another file of that name, or other data, would give runs of something else.
    found = identify(workload)
    if differences := found.differences(identity, "where the sweep began"):
        raise WorkloadError(f"workload {spec!r} is another one: {differences}.")
    with _one_thread():
        process = _Process(workload, settings)

    def run(chain: Chain) -> Iterator[tuple[Run, bool]]:
        # The thread that a chain is given need not be the one that made this.
        with _one_thread():
            yield from _run_chain(process, settings, chain)

    return run


def _in_this_process(
    workload: Workload, settings: SweepSettings, chains: Iterable[Chain]
) -> Generator[tuple[Run, bool]]:
    # The order of floating-point sums, hence the answer, depends on the threads.
    with _one_thread():
        process = _Process(workload, settings)
        for chain in chains:
            yield from _run_chain(process, settings, chain)


class _Process:
    """What the chains of one process have in common."""

    def __init__(self, workload: Workload, settings: SweepSettings) -> None:
        self.workload = workload
        self.evaluation = Evaluation(workload)
        self.limit = MemoryLimit()
        self.graphs = CompiledGraphs(workload, required=settings.tier == "compiled")


def _run_chain(
    process: _Process, settings: SweepSettings, chain: Chain
) -> Iterator[tuple[Run, bool]]:
    workload, limit = process.workload, process.limit
    max_steps = _max_steps(workload, settings, chain.batch_size)
    if chain.is_too_large or limit.exceeded_by(chain.batch_size):
        for one in _run_settings(settings, chain):
            yield untried(one, max_steps), True
        return
    advance = one_by_one
    if chain.tier != "plain":
        advance = Lockstep(
            workload,
            chain.batch_size,
            required=settings.tier == chain.tier,
            graphs=process.graphs if chain.tier == "compiled" else None,
        ).advance
    for contender, run in race_together(
        _heats(workload, process.evaluation, settings, chain),
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
