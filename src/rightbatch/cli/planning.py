"""The JSON document of a plan: both curves joined, for every number of replicas."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.cli.communication import CommunicationChoice
    from rightbatch.convergence import TunedFit
    from rightbatch.step_time import MeasuredStepTime, StepTimeFit
    from rightbatch.training_time import (
        BatchLimits,
        Plan,
        PlanDraws,
        PlanEntry,
        StepTimeModel,
        TrainingTimeLaw,
    )

NUM_DRAWS = 1000
CURVE_POINTS = 80
FEW_RUNS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a plan is asked for, wherever its curves come from.

    Args:
        replicas: Numbers of replicas, ascending.
        choice: Where the communication time comes from.
        law: ``auto``, ``inverse`` or ``knee``.
        max_batch_size: The user's limit.
        verify: Train fresh seeds at the recommended batch size.
        device: Where steps are timed.
        timing_seconds: For timing them.
        num_parameters: Of a model known from tables alone.
        examples_per_epoch: Of a table that counts epochs.
    """

    replicas: tuple[int, ...]
    choice: "CommunicationChoice"
    law: str
    max_batch_size: int | None
    verify: bool
    device: str
    timing_seconds: float
    num_parameters: int | None
    examples_per_epoch: float | None

    def inputs(self) -> dict[str, Any]:
        """Return the settings as the JSON document gives them."""
        return {
            "replicas": self.replicas,
            "law": self.law,
            "max_batch_size": self.max_batch_size,
            "device": self.device,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was measured and fitted, from which a plan follows.

    Args:
        fits: Target and law, one per target; the plan is for the last.
        step_time: The fitted law of step times, communication included.
        measured: The step times themselves, interpolated.
        replicas: Numbers of replicas, ascending.
        max_batch_size: The largest batch size that may be asked for; None for no limit.
        max_micro_batch_size: The largest that fits in memory; None when none failed.
    """

    fits: "tuple[tuple[float | None, TunedFit], ...]"
    step_time: "StepTimeFit"
    measured: "MeasuredStepTime"
    replicas: tuple[int, ...]
    max_batch_size: int | None = None
    max_micro_batch_size: int | None = None

    @property
    def tuned(self) -> "TunedFit":
        """The fit that the plan is made with."""
        return self.fits[-1][1]

    @property
    def limits(self) -> "BatchLimits":
        """What can be served.

        Where S_min is not above zero the law says that ever larger batches are faster,
        which no run supports: the largest batch run is then the limit.
        """
        from rightbatch.training_time import BatchLimits

        largest = self.max_batch_size
        if self.tuned.fit.law.min_steps <= 0:
            run = int(self.tuned.fit.fitted_range[1])
            largest = run if largest is None else min(run, largest)
        return BatchLimits(
            max_batch_size=largest, max_micro_batch_size=self.max_micro_batch_size
        )

    def training_time(self, step_time: "StepTimeModel") -> "TrainingTimeLaw":
        """Return steps times seconds.

        Args:
            step_time: The fitted law or the measured times.

        Returns:
            The composed law.
        """
        from rightbatch.training_time import TrainingTimeLaw

        return TrainingTimeLaw(steps=self.tuned.fit.law, step_time=step_time)

    def draws(self, step_time: Any) -> "PlanDraws | None":
        """Return what the plan may be wrong by; None when nothing tells the noise.

        Args:
            step_time: Drawn laws, or a model taken as exact.

        Returns:
            Draws of both curves.
        """
        from rightbatch.training_time import PlanDraws

        steps = self.tuned.fit.draws(NUM_DRAWS)
        if steps is None:
            return None
        return PlanDraws(steps=steps, step_time=step_time)

    def plan(self, step_time: "StepTimeModel", draws: "PlanDraws | None") -> "Plan":
        """Return the best batch size for each number of replicas.

        Args:
            step_time: The fitted law or the measured times.
            draws: For the intervals.

        Returns:
            The plan.

        Raises:
            InputError: Nothing limits the batch size, or nothing can be served.
        """
        from rightbatch.training_time import plan_batch_sizes

        try:
            return plan_batch_sizes(
                self.training_time(step_time),
                self.replicas,
                limits=self.limits,
                draws=draws,
                lr_for=self.tuned.lr_at,
                fitted_range=self.tuned.fit.fitted_range,
            )
        except InputError as error:
            if "max_batch_size" not in str(error):
                raise
            raise InputError(
                "plan: the time to the target falls with ever larger batches.",
                "give --max-batch-size",
            ) from None


def plan_results(findings: Findings, workload: str) -> dict[str, Any]:
    """Return the results of a plan under their stable keys.

    Args:
        findings: Both curves.
        workload: Its name.

    Returns:
        `optimal`, `optimal_measured`, `convergence`, `seconds_to_target`, `scaling`,
        `warnings`, `sentence`.
    """
    drawn = findings.step_time.draws(NUM_DRAWS, seed=1)
    draws = findings.draws(drawn)
    fitted = findings.plan(findings.step_time.law, draws)
    measured = findings.plan(findings.measured, findings.draws(findings.measured))
    warnings = [*_law_warnings(findings), *findings.step_time.warnings]
    warnings += _plan_warnings(findings, fitted)
    warnings += _disagreements(fitted, measured)
    return {
        "optimal": [entry.to_dict() for entry in fitted.entries],
        "optimal_measured": [entry.to_dict() for entry in measured.entries],
        "convergence": [
            {"workload": workload, "target": target, **tuned.to_dict()}
            for target, tuned in findings.fits
        ],
        "seconds_to_target": [
            _time_curve(findings, entry.to_dict(), draws) for entry in fitted.entries
        ],
        "scaling": _scaling(findings, fitted),
        "warnings": list(dict.fromkeys(warnings)),
        "sentence": _sentence(findings, fitted),
    }


def _time_curve(
    findings: Findings, entry: dict[str, Any], draws: "PlanDraws | None"
) -> dict[str, Any]:
    import numpy as np

    count = entry["num_replicas"]
    low, high = findings.tuned.fit.fitted_range
    low = max(min(low, entry["batch_size"]), count)
    high = max(high, 1.2 * entry["within_5_percent"][1], 2 * low)
    grid = np.geomspace(low, high, CURVE_POINTS)
    curve = findings.training_time(findings.step_time.law)
    exact = findings.training_time(findings.measured)
    found: dict[str, Any] = {
        "batch_size": grid,
        "seconds": curve.seconds_to_target(grid, count),
    }
    if draws is not None:
        times = draws.steps.steps(grid) * draws.step_time.seconds_per_step(grid, count)
        found["low"], found["high"] = np.quantile(times, [0.05, 0.95], axis=0)
    return {
        "num_replicas": count,
        "curve": found,
        "measured": {
            "batch_size": grid,
            "seconds": exact.seconds_to_target(grid, count),
        },
        "optimum": {"batch_size": entry["batch_size"], "seconds": entry["seconds"]},
        "within_5_percent": entry["within_5_percent"],
    }


def _scaling(findings: Findings, plan: "Plan") -> dict[str, Any]:
    from rightbatch import scaling

    law = findings.training_time(findings.step_time.law)
    first = plan.entries[0]
    local = max(first.batch_size // first.num_replicas, 1)
    most = findings.limits.max_batch_size
    # One more doubling than was asked for shows where the curves go.
    counts = [2**i for i in range(20) if 2**i <= 4 * max(findings.replicas)]
    counts = sorted({*counts, *findings.replicas})
    if most is not None:
        counts = [count for count in counts if count <= most]
    alone = float(law.seconds_to_target(first.batch_size, 1))
    held = scaling.strong(law, first.batch_size, counts, baseline_seconds=alone)
    served = [count for count in counts if most is None or count * local <= most]
    grown = scaling.weak(law, local, served, baseline_seconds=alone).to_dict()
    rest = [None] * (len(counts) - len(served))
    best = scaling.optimal(law, counts, limits=findings.limits, baseline_seconds=alone)
    return {
        "replicas": counts,
        "strong": {**held.to_dict(), "batch_size": first.batch_size},
        "weak": {
            "local_batch_size": local,
            "seconds": grown["seconds"] + rest,  # beyond: more than the data set holds
            "speedup": grown["speedup"] + rest,
        },
        "optimal": best.to_dict(),
    }


def _law_warnings(findings: Findings) -> list[str]:
    fit = findings.tuned.fit
    warnings = [*findings.tuned.warnings, *fit.warnings]
    if fit.status != "ok":
        warnings.insert(0, f"the law of steps is {fit.status}. {fit.advice}")
    if fit.law.min_steps <= 0:
        warnings.append(
            "S_min is not above 0, so no batch size is too large for this law: the "
            "largest batch size run is a lower bound of the best one"
        )
    repeats = [point.num_runs for point in fit.points if not point.excluded]
    if min(repeats) < FEW_RUNS:
        warnings.append(
            "few runs: some batch sizes have one run only, so the noise between seeds "
            "is read off the residuals"
        )
    return warnings


def _plan_warnings(findings: Findings, plan: "Plan") -> list[str]:
    """Say each thing once for all numbers of replicas it holds for."""
    low, high = findings.tuned.fit.fitted_range
    outside = [entry for entry in plan.entries if entry.extrapolated]
    capped = [entry for entry in plan.entries if entry.limited_by == "dataset"]
    idle = [entry for entry in plan.entries if entry.idle_replicas]
    warnings: list[str] = []
    if outside:
        warnings.append(
            f"extrapolated: batch sizes {_listed(e.batch_size for e in outside)} (on "
            f"{_listed(e.num_replicas for e in outside)} replicas) lie outside "
            f"{low:g} to {high:g}, where steps were measured: run there first"
        )
    if capped:
        warnings.append(
            f"on {_listed(e.num_replicas for e in capped)} replicas the largest batch "
            f"size allowed, {capped[-1].batch_size}, is best: a larger one would be "
            "faster still"
        )
    uneven = [entry for entry in plan.entries if _served(entry) != entry.batch_size]
    if uneven:
        warnings.append(
            f"batch sizes {_listed(e.batch_size for e in uneven)} (on "
            f"{_listed(e.num_replicas for e in uneven)} replicas) cannot be shared "
            f"evenly: a step takes as long as {_listed(map(_served, uneven))} examples "
            "do"
        )
    if idle:
        used = min(entry.num_replicas - entry.idle_replicas for entry in idle)
        warnings.append(
            f"{_listed(e.num_replicas for e in idle)} replicas are slower than {used}: "
            "what they spend on each other outweighs what they save"
        )
    return warnings


def _served(entry: "PlanEntry") -> int:
    return entry.micro_batch_size * entry.accumulation_steps * entry.num_replicas


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _disagreements(fitted: "Plan", measured: "Plan") -> list[str]:
    """Say where the two plans differ by more than either holds to be worth 5 %."""
    pairs = zip(fitted.entries, measured.entries, strict=True)
    apart = [
        f"{one.num_replicas} ({one.batch_size} or {other.batch_size})"
        for one, other in pairs
        if not _within(one.batch_size, other.within_5_percent)
        and not _within(other.batch_size, one.within_5_percent)
    ]
    if not apart:
        return []
    return [
        "the fitted and the measured step times disagree about the best batch size on "
        f"{', '.join(apart)} replicas: trust the measured one"
    ]


def _within(batch_size: int, ends: Sequence[int]) -> bool:
    return ends[0] <= batch_size <= ends[1]


def _sentence(findings: Findings, plan: "Plan") -> str:
    from rightbatch.reporting.formats import number, seconds

    first = plan.entries[0]
    rate = "" if first.lr is None else f", lr {number(first.lr)}"
    low, high = first.within_5_percent
    where = "" if first.num_replicas == 1 else f" on {first.num_replicas} replicas"
    said = (
        f"Train at {first.batch_size}{rate}{where}: about {first.steps:,.0f} steps, "
        f"{seconds(first.seconds)}; {low} to {high} are within 5 % of the best time."
    )
    best = min(plan.entries, key=lambda entry: entry.seconds)
    if best is not first:
        said += (
            f" On {best.num_replicas} replicas train at {best.batch_size}: "
            f"{best.speedup:.3g} times faster."
        )
    if findings.tuned.fit.status != "ok":
        said += f" The law of steps is {findings.tuned.fit.status}: see the warnings."
    return said
