"""Everything that the figures and claims of the paper are read from, computed once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from rightbatch.errors import InputError
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.bounds import bayes_examples, max_likelihood_examples
from rightbatch.quadratic.curves import (
    BATCH_SIZES,
    CurveFit,
    SteppingCurve,
    fit_curve,
    steps_curve,
)
from rightbatch.quadratic.grids import search_grid
from rightbatch.quadratic.optimizers import OptimizerName
from rightbatch.quadratic.problem import Noise, NoisyQuadratic
from rightbatch.quadratic.recursions.powers import Backend
from rightbatch.quadratic.schedules.growth import GrownBatch, grow_batch
from rightbatch.quadratic.schedules.piecewise import PiecewiseSchedule, search_pieces
from rightbatch.quadratic.search import Found
from rightbatch.quadratic.spectrum import FloatArray, Spectrum

Key = tuple[OptimizerName, float]
OnProgress = Callable[[float], None]

WORDS: Mapping[OptimizerName, str] = {
    "sgd": "SGD",
    "momentum": "momentum",
    "nesterov": "Nesterov",
    "ema": "EMA",
    "momentum+ema": "momentum+EMA",
    "nesterov+ema": "Nesterov+EMA",
    "average": "uniform average",
    "tail-average": "tail average",
}
"""How optimizers are called in words."""
COMPARED: tuple[OptimizerName, ...] = ("sgd", "momentum", "ema")
"""What the paper tunes on its grids."""
BEYOND: tuple[OptimizerName, ...] = ("momentum+ema", "average")
"""What it could not look at."""
UNDER_ISOTROPIC_NOISE: tuple[OptimizerName, ...] = ("sgd", "ema")
"""What is tuned under isotropic noise as well."""
_SHARE_OF_GRIDS = 5.0  # how much longer a grid takes than a continuous search


def _published_spectrum() -> Spectrum:
    return published_bins(Spectrum.inverse(10_000))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaperSetting:
    """The problem of the paper, and how much of it is computed.

    Args:
        spectrum: Curvatures; 1/i for i to 10 000 on the published bins by default.
        powers: Of the preconditioner, increasing, two or more, the first one least.
        batch_sizes: Increasing, four or more.
        target: Expected loss to reach.
        targets: Others, for the effect of the target; decreasing.
        num_pieces: Of the optimised schedules, from coarse to fine.
        spectrum_options: What asks the command ``simulate`` for that spectrum.
        with_grids: Whether the published grids are searched as well, which takes
            longer than all the rest.

    Raises:
        InputError: A list is too short or not in order.

    Example:
        >>> PaperSetting().options("sgd", (0.0, 0.5))
        'simulate --optimizer sgd --power 0,0.5 --bins notebook:100'
    """

    spectrum: Spectrum = field(default_factory=_published_spectrum)
    powers: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    batch_sizes: tuple[float, ...] = BATCH_SIZES
    target: float = 0.01
    targets: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003, 0.001)
    num_pieces: tuple[int, ...] = (10, 50)
    spectrum_options: str = "--bins notebook:100"
    with_grids: bool = True

    def __post_init__(self) -> None:
        falling = tuple(-target for target in self.targets)
        for name, values, least, order in (
            ("powers", self.powers, 2, "increasing"),
            ("batch_sizes", self.batch_sizes, 4, "increasing"),
            ("targets", falling, 2, "decreasing"),
            ("num_pieces", self.num_pieces, 1, "increasing"),
        ):
            if len(values) < least or any(a >= b for a, b in pairwise(values)):
                raise InputError(
                    f"PaperSetting: `{name}` must be {order} and at least {least}, "
                    f"got {getattr(self, name)!r}."
                )

    @property
    def isotropic_noise(self) -> Noise:
        """The same noise in every direction, of the total variance of c = h."""
        share = self.spectrum.trace / self.spectrum.num_dims
        return Noise(curvature=0, isotropic=share)

    def problem(self, power: float, noise: Noise | None = None) -> NoisyQuadratic:
        """Return the problem under a preconditioner, with c = h unless noise is given.

        Args:
            power: Of the preconditioner.
            noise: Of one example's gradient.

        Returns:
            The problem.
        """
        return NoisyQuadratic(
            spectrum=self.spectrum,
            noise=Noise() if noise is None else noise,
            preconditioner_power=power,
        )

    @property
    def growth_sizes(self) -> tuple[float, ...]:
        """Batch sizes at which the batch grows instead: the first and the third."""
        return self.batch_sizes[:3:2]

    def options(
        self, optimizers: str, powers: tuple[float, ...], more: str = ""
    ) -> str:
        """Return arguments of the command that computes some cells.

        Args:
            optimizers: Their names, with commas.
            powers: Of the preconditioner.
            more: Further options.

        Returns:
            Arguments, those left out that are as by default.
        """
        parts = [f"simulate --optimizer {optimizers}", more]
        parts.append(f"--power {','.join(f'{power:g}' for power in powers)}")
        if self.batch_sizes != BATCH_SIZES:
            sizes = ",".join(f"{size:.10g}" for size in self.batch_sizes)
            parts.append(f"--batch-sizes {sizes}")
        parts.append(self.spectrum_options)
        parts.append("" if self.target == 0.01 else f"--target {self.target:g}")
        return " ".join(part for part in parts if part)

    def some_powers(self) -> tuple[float, ...]:
        """Return the first power and the one after the middle: 0 and .5."""
        return self.powers[0], self.powers[len(self.powers) // 2]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedTable:
    """Fewest steps of optimizers and powers, found in one way.

    Args:
        fits: Curves over batch sizes with their laws, by optimizer and power.
    """

    fits: Mapping[Key, CurveFit]

    def steps(self, name: OptimizerName, power: float) -> FloatArray:
        """Return the steps at each batch size, infinite where unreachable."""
        return self.fits[name, power].curve.steps

    def critical(self, name: OptimizerName, power: float) -> float:
        """Return E_min/S_min of the fitted inverse law; nan where there is none."""
        found = self.fits[name, power].critical_batch_size
        return np.nan if found is None else found

    def rates(self, name: OptimizerName, power: float) -> FloatArray:
        """Return lr / (1 - momentum), which small batches feel; nan if unreachable."""
        best = [cell.optimizer for cell in self.fits[name, power].curve.cells]
        return np.array(
            [np.nan if one is None else one.lr / (1 - one.momentum) for one in best]
        )


class ScheduleKey(NamedTuple):
    """Which schedules were searched.

    Args:
        power: Of the preconditioner.
        num_pieces: How many pieces.
        is_capped: Whether rates had to stay at or below the stability edge.
    """

    power: float
    num_pieces: int
    is_capped: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaperResults:
    """What was computed; figures and claims are read off it.

    Args:
        setting: What was asked for.
        tuned: By continuous search.
        grid: By the published grids; None where they were left out.
        isotropic: With noise that is the same in every direction.
        by_target: At other targets, by target.
        schedules: One schedule per batch size, by power, pieces and cap.
        growth: The coarse schedule with the batch grown instead, by power and size.
        max_likelihood: Examples of the maximum-likelihood estimate, no bound.
        bayes: Examples below which nothing can reach the target.
    """

    setting: PaperSetting
    tuned: FittedTable
    grid: FittedTable | None
    isotropic: FittedTable
    by_target: Mapping[float, FittedTable]
    schedules: Mapping[ScheduleKey, tuple[PiecewiseSchedule, ...]]
    growth: Mapping[tuple[float, float], GrownBatch]
    max_likelihood: float
    bayes: float

    def scheduled_steps(self, key: ScheduleKey) -> FloatArray:
        """Return the steps of the schedules at each batch size."""
        return np.array(
            [np.inf if s.steps is None else s.steps for s in self.schedules[key]]
        )


def compute_results(
    setting: PaperSetting,
    *,
    backend: Backend = "auto",
    on_progress: OnProgress | None = None,
) -> PaperResults:
    """Return all that the figures and claims need, nothing computed twice.

    Args:
        setting: What to compute.
        backend: numpy, numba, or whichever is there.
        on_progress: Told the share that is done, up to 1.

    Returns:
        The results.

    Raises:
        InputError: A target is out of reach of the problem's losses.
    """
    work = _Work(setting, backend)
    jobs = list(work.jobs())
    total, done = sum(job.weight for job in jobs), 0.0
    for job in jobs:
        job.run()
        done += job.weight
        if on_progress is not None:
            on_progress(done / total)
    return work.results()


class _Job(NamedTuple):
    weight: float
    run: Callable[[], None]


class _Work:
    """The tables while they fill."""

    def __init__(self, setting: PaperSetting, backend: Backend) -> None:
        self.setting = setting
        self.backend: Backend = backend
        self.tuned: dict[Key, CurveFit] = {}
        self.grid: dict[Key, CurveFit] = {}
        self.isotropic: dict[Key, CurveFit] = {}
        self.by_target: dict[float, dict[Key, CurveFit]] = {}
        self.schedules: dict[ScheduleKey, tuple[PiecewiseSchedule, ...]] = {}
        self.growth: dict[tuple[float, float], GrownBatch] = {}

    def jobs(self) -> Iterator[_Job]:
        """Yield what there is to do, and about how long each takes."""
        for power in self.setting.powers:
            yield from self._at_power(power)
        for target in self.setting.targets:
            yield from self._at_target(target)
        if self.setting.with_grids:
            for power in self.setting.powers:
                for name in COMPARED:
                    yield self._search_grid((name, power))

    def _at_power(self, power: float) -> Iterator[_Job]:
        setting = self.setting
        for name in (*COMPARED, *BEYOND):
            yield self._tune(self.tuned, (name, power))
        for name in UNDER_ISOTROPIC_NOISE:
            noise = setting.isotropic_noise
            yield self._tune(self.isotropic, (name, power), noise=noise)
        for num in setting.num_pieces:
            yield self._schedule(ScheduleKey(power, num, True))
        yield self._schedule(ScheduleKey(power, setting.num_pieces[0], False))
        yield self._grow(power)

    def _at_target(self, target: float) -> Iterator[_Job]:
        found = self.by_target[target] = {}
        for power in self.setting.some_powers():
            for name in COMPARED:
                if target != self.setting.target:
                    yield self._tune(found, (name, power), target=target)

    def results(self) -> PaperResults:
        """Return the full tables."""
        setting = self.setting
        problem = setting.problem(setting.powers[0])
        shared: dict[Key, CurveFit] = {
            (name, power): self.tuned[name, power]
            for name in COMPARED
            for power in setting.some_powers()
        }
        return PaperResults(
            setting=setting,
            tuned=FittedTable(fits=self.tuned),
            grid=FittedTable(fits=self.grid) if self.grid else None,
            isotropic=FittedTable(fits=self.isotropic),
            by_target={
                target: FittedTable(fits=found or shared)
                for target, found in self.by_target.items()
            },
            schedules=self.schedules,
            growth=self.growth,
            max_likelihood=max_likelihood_examples(problem, setting.target),
            bayes=bayes_examples(problem, setting.target),
        )

    def _tune(
        self,
        into: dict[Key, CurveFit],
        key: Key,
        *,
        noise: Noise | None = None,
        target: float | None = None,
    ) -> _Job:
        name, power = key
        goal = self.setting.target if target is None else target

        def run() -> None:
            problem = self.setting.problem(power, noise)
            sizes = self.setting.batch_sizes
            curve = steps_curve(problem, name, sizes, goal, backend=self.backend)
            into[key] = fit_curve(curve)

        return _Job(1.0, run)

    def _search_grid(self, key: Key) -> _Job:
        name, power = key

        def run() -> None:
            problem, target = self.setting.problem(power), self.setting.target
            cells: list[Found] = []
            for size in self.setting.batch_sizes:
                best = search_grid(problem, name, size, target, backend=self.backend)
                cells.append(
                    Found(
                        name=name,
                        batch_size=size,
                        steps=best.steps,
                        optimizer=best.optimizer,
                    )
                )
            curve = SteppingCurve(
                name=name,
                target=target,
                preconditioner_power=power,
                cells=tuple(cells),
            )
            self.grid[key] = fit_curve(curve)

        return _Job(1.0 if name == "sgd" else _SHARE_OF_GRIDS, run)

    def _schedule(self, key: ScheduleKey) -> _Job:
        def run() -> None:
            found = search_pieces(
                self.setting.problem(key.power),
                "sgd",
                self.setting.batch_sizes,
                self.setting.target,
                key.num_pieces,
                max_lr=None if key.is_capped else np.inf,
                backend=self.backend,
            )
            self.schedules[key] = _handed_on(found)

        return _Job(1.0, run)

    def _grow(self, power: float) -> _Job:
        def run() -> None:
            key = ScheduleKey(power, self.setting.num_pieces[0], True)
            for one in self.schedules[key]:
                if one.batch_size in self.setting.growth_sizes and one.pieces:
                    problem = self.setting.problem(power)
                    grown = grow_batch(problem, one.pieces)
                    self.growth[power, one.batch_size] = grown

        return _Job(1.0, run)


def _handed_on(
    found: tuple[PiecewiseSchedule, ...],
) -> tuple[PiecewiseSchedule, ...]:
    """Return the schedules, each at least as short as those of smaller batches.

    Noise only adds to the loss, so what reaches the target at one batch size reaches
    it at every larger one.
    """
    kept: list[PiecewiseSchedule] = []
    for one in found:
        before = kept[-1] if kept else one
        shorter = before.steps is not None and (
            one.steps is None or before.steps < one.steps
        )
        same = replace(before, batch_size=one.batch_size, loss=None)
        kept.append(same if shorter else one)
    return tuple(kept)
