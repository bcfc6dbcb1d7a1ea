"""What a sweep runs: its grid, targets and budgets."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from rightbatch._checks import one_of, positive_array, positive_integer
from rightbatch.errors import InputError
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.optimizers.named import with_optimizer
from rightbatch.experiments.race import MIN_CAP_FACTOR
from rightbatch.experiments.run import default_crossing
from rightbatch.experiments.tiers import ASKED
from rightbatch.workload import Workload, load_workload

CAP_FACTOR = 2.5


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
            learning rates and seeds together; ``"compiled"``, these with their steps
            compiled; ``"auto"``, the fastest where finding out is worth its while.
            All are the same to rounding. Bit by bit a sweep can be repeated with
            ``"plain"``, however it was interrupted, and with ``"stacked"`` in one go.

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
        largest, size = self.batch_sizes[-1], num_examples(workload)
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


def num_examples(workload: Workload) -> int:
    """Return how many examples there are to train on.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> num_examples(mlp())
        1438
    """
    return len(cast(Sized, workload.train))


def _set(settings: SweepSettings, **values: Iterable[float]) -> None:
    # The one way to normalise a field of a frozen dataclass.
    for name, value in values.items():
        object.__setattr__(settings, name, tuple(value))
