"""The JSON document of a plan: both curves joined, for every number of replicas."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rightbatch.cli.plan_words import (
    disagreements,
    end_warnings,
    law_warnings,
    past_end,
    plan_warnings,
    sentence,
)
from rightbatch.errors import InputError, NotReachedError

if TYPE_CHECKING:
    from rightbatch.cli.communication import CommunicationChoice
    from rightbatch.cli.machine import MachineChoice
    from rightbatch.cli.plan_loss import TunedLoss
    from rightbatch.convergence import TunedFit
    from rightbatch.step_time import MeasuredStepTime, StepTimeFit
    from rightbatch.training_time import (
        BatchLimits,
        Comparison,
        Plan,
        PlanDraws,
        PlanEntry,
        StepTimeModel,
        TrainingTimeLaw,
    )

NUM_DRAWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a plan is asked for, wherever its curves come from.

    Args:
        replicas: Numbers of replicas, ascending.
        choice: Where the communication time comes from.
        machine: Overlap, and checks between steps.
        law: ``auto``, ``inverse``, ``knee``, ``floor``; or ``loss``, of tables.
        max_batch_size: The user's limit.
        max_micro_batch_size: Largest forward pass that fits; None where it is unknown.
        max_accumulation_steps: Most passes per step; None for no limit.
        candidates: The only batch sizes to choose from; None for all.
        compare: Batch sizes to compare with the recommended ones.
        verify: Train fresh seeds at the recommended batch size.
        device: Where steps are timed.
        timing_seconds: For timing them.
        num_parameters: Of a model known from tables alone.
        units: What tables count in: arguments of the readers of runs.
    """

    replicas: tuple[int, ...]
    choice: "CommunicationChoice"
    machine: "MachineChoice"
    law: str
    max_batch_size: int | None
    max_micro_batch_size: int | None
    max_accumulation_steps: int | None
    candidates: tuple[int, ...] | None
    compare: tuple[int, ...]
    verify: bool
    device: str
    timing_seconds: float
    num_parameters: int | None
    units: dict[str, Any]

    def inputs(self) -> dict[str, Any]:
        """Return the settings as the JSON document gives them."""
        return {
            "replicas": self.replicas,
            "law": self.law,
            "max_batch_size": self.max_batch_size,
            "max_micro_batch_size": self.max_micro_batch_size,
            "max_accumulation_steps": self.max_accumulation_steps,
            "candidates": self.candidates,
            "compare": self.compare,
            **self.machine.inputs(),
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
        max_accumulation_steps: Most passes per step; None for no limit.
        candidates: The only batch sizes to choose from; None for all.
        compare: Batch sizes to compare with the recommended ones.
        min_batch_size: The least above those at which no run reached the target; None
            where there are none.
        missed_batch_size: The least above all those that reached the target at which
            no run did; None where there is none.
        recommended: What to train at by number of replicas, where runs were bought for
            it; None for the best batch sizes of the law.
    """

    fits: "tuple[tuple[float | None, TunedFit | TunedLoss], ...]"
    step_time: "StepTimeFit"
    measured: "MeasuredStepTime"
    replicas: tuple[int, ...]
    max_batch_size: int | None = None
    max_micro_batch_size: int | None = None
    max_accumulation_steps: int | None = None
    candidates: tuple[int, ...] | None = None
    compare: tuple[int, ...] = ()
    min_batch_size: int | None = None
    missed_batch_size: int | None = None
    recommended: Mapping[int, int] | None = None

    @property
    def tuned(self) -> "TunedFit | TunedLoss":
        """The fit that the plan is made with."""
        return self.fits[-1][1]

    @property
    def served(self) -> "BatchLimits":
        """What can be served, less what lies at or beyond batch sizes that missed."""
        from rightbatch.training_time import BatchLimits

        missed = self.missed_batch_size
        caps = [self.max_batch_size, None if missed is None else missed - 1]
        return BatchLimits(
            min_batch_size=self.min_batch_size,
            max_batch_size=min((cap for cap in caps if cap is not None), default=None),
            max_micro_batch_size=self.max_micro_batch_size,
            max_accumulation_steps=self.max_accumulation_steps,
            candidates=self.candidates,
        )

    @property
    def limits(self) -> "BatchLimits":
        """What can be served and is supported by the runs."""
        from rightbatch.training_time import limits_of

        return limits_of(self.tuned.fit, self.served)

    @property
    def chosen(self) -> Mapping[int, int]:
        """Those of the recommended batch sizes that the law of steps bears.

        Past the largest batch run, a law whose S_min is not above 0 has no steps left.
        """
        if not self.recommended:
            return {}
        self._check_missed()
        largest = self.limits.max_batch_size
        return {
            count: size
            for count, size in self.recommended.items()
            if largest is None or size <= largest
        }

    def training_time(self, step_time: "StepTimeModel") -> "TrainingTimeLaw":
        """Return steps times seconds.

        Args:
            step_time: The fitted law or the measured times.

        Returns:
            The composed law.
        """
        from rightbatch.training_time import TrainingTimeLaw

        return TrainingTimeLaw(steps=self.tuned.fit, step_time=step_time)

    def draws(self, step_time: Any, num: int = NUM_DRAWS) -> "PlanDraws | None":
        """Return what the plan may be wrong by; None when nothing tells the noise.

        Args:
            step_time: Drawn laws, or a model taken as exact.
            num: How many draws.

        Returns:
            Draws of both curves.
        """
        from rightbatch.training_time import PlanDraws

        steps = self.tuned.fit.draws(num)
        return None if steps is None else PlanDraws(steps=steps, step_time=step_time)

    def plan(
        self,
        step_time: "StepTimeModel",
        draws: "PlanDraws | None",
        batch_sizes: Mapping[int, int] | None = None,
    ) -> "Plan":
        """Return the best batch size for each number of replicas.

        Args:
            step_time: The fitted law or the measured times.
            draws: For the intervals.
            batch_sizes: By number of replicas, in place of the best.

        Returns:
            The plan.

        Raises:
            InputError: Nothing limits the batch size, or nothing can be served.
        """
        from rightbatch.training_time import plan_batch_sizes

        self._check_missed()
        try:
            return plan_batch_sizes(
                self.training_time(step_time),
                self.replicas,
                limits=self.served,
                draws=draws,
                lr_for=self.tuned.lr_at,
                batch_sizes=batch_sizes,
            )
        except InputError as error:
            if "max_batch_size" not in str(error):
                raise
            raise InputError(
                "plan: the time to the target falls with ever larger batches.",
                "give --max-batch-size",
            ) from None

    def _check_missed(self) -> None:
        """Refuse limits that leave batch sizes alone at which no run got there."""
        high = self.missed_batch_size
        wanted = max(self.replicas[-1], *(self.candidates or (1,))[:1])
        if high is not None and wanted >= high:
            raise NotReachedError(
                f"plan: no run reached the target at batch size {high}, and "
                f"{wanted} is the smallest that may be chosen.",
                "allow smaller ones or fewer --replicas, or train longer there",
            )
        least = self.min_batch_size
        if least is None:
            return
        ends = [self.max_batch_size] if self.max_batch_size else []
        allowed = min([*ends, *(self.candidates or ())[-1:]], default=least)
        if allowed < least:
            raise NotReachedError(
                f"plan: no run reached the target at batch size {least - 1}, and "
                f"{allowed} is the largest that may be chosen.",
                "allow larger ones, or train longer there",
            )


def above_missed(batch_sizes: Sequence[float], reached: Sequence[bool]) -> int | None:
    """Return the least whole batch size above those that never reached the target.

    Args:
        batch_sizes: One per run.
        reached: Whether the run reached the target.

    Returns:
        One more than the largest batch size none of whose runs did, of those below
        the smallest that did; None without such ones.

    Example:
        >>> above_missed([8, 8, 32, 128, 512], [False, False, False, True, True])
        33
    """
    pairs = list(zip(batch_sizes, reached, strict=True))
    arrived = {size for size, did in pairs if did}
    missed = [size for size, _ in pairs if size < min(arrived, default=0.0)]
    return int(max(missed)) + 1 if missed else None


def missed_above(batch_sizes: Sequence[float], reached: Sequence[bool]) -> int | None:
    """Return the least batch size that never reached the target, above all that did.

    Args:
        batch_sizes: One per run.
        reached: Whether the run reached the target.

    Returns:
        The batch size; None without one.

    Example:
        >>> missed_above([8, 64, 64, 512, 4096], [True, False, True, False, False])
        512
    """
    pairs = list(zip(batch_sizes, reached, strict=True))
    most = max((size for size, did in pairs if did), default=float("inf"))
    missed = [size for size, _ in pairs if size > most]
    return math.ceil(min(missed)) if missed else None


def plan_results(findings: Findings, workload: str) -> dict[str, Any]:
    """Return the results of a plan under their stable keys.

    Args:
        findings: Both curves.
        workload: Its name.

    Returns:
        `optimal`, `optimal_measured`, `comparisons`, `limits`, `convergence`,
        `seconds_to_target`, `scaling`, `warnings`, `sentence`.

    Raises:
        InputError: A batch size to compare cannot be served anywhere.
    """
    from rightbatch.cli.plan_curves import scaling_curves, time_curve

    draws = findings.draws(findings.step_time.draws(NUM_DRAWS, seed=1))
    exact = None if draws is None else replace(draws, step_time=findings.measured)
    law = findings.step_time.law
    fitted = findings.plan(law, draws, findings.chosen)
    timed = findings.measured.measured_range
    measured = _cut_short(findings.plan(findings.measured, exact), timed)
    warnings = [*law_warnings(findings), *findings.step_time.warnings]
    warnings += plan_warnings(findings, fitted)
    # Two plans of one law of steps, so that what they differ by is the times.
    alone = findings.plan(law, None) if findings.chosen else fitted
    warnings += disagreements(alone, measured, timed)
    warnings += end_warnings(measured, timed)
    compared = _compared(findings, fitted, draws)
    return {
        "optimal": [entry.to_dict() for entry in fitted.entries],
        "optimal_measured": [entry.to_dict() for entry in measured.entries],
        "comparisons": [one.to_dict() for one in compared],
        "limits": findings.limits.to_dict(),
        "convergence": [
            {"workload": workload, "target": target, **tuned.to_dict()}
            for target, tuned in findings.fits
        ],
        "seconds_to_target": [
            time_curve(findings, entry.to_dict(), draws) for entry in fitted.entries
        ],
        "scaling": scaling_curves(findings, fitted, draws),
        "warnings": list(dict.fromkeys(warnings)),
        "sentence": sentence(findings, fitted),
    }


def _cut_short(plan: "Plan", timed: tuple[float, float]) -> "Plan":
    """Return a plan with measured times, open where they end before it does."""

    def opened(entry: "PlanEntry") -> "PlanEntry":
        said = past_end(entry, timed)
        if said is None:
            return entry
        known = entry.intervals
        if known is not None:
            side = "high" if entry.micro_batch_size > timed[1] else "low"
            size = replace(known.batch_size, **{side: None})
            known = replace(known, batch_size=size)
        return replace(entry, intervals=known, warnings=(*entry.warnings, said))

    return replace(plan, entries=tuple(map(opened, plan.entries)))


def _compared(
    findings: Findings, plan: "Plan", draws: "PlanDraws | None"
) -> "list[Comparison]":
    """Return every batch size to compare, where it gives each replica an example."""
    from rightbatch.training_time import compare_batch_sizes

    law = findings.training_time(findings.step_time.law)
    found: list[Comparison] = []
    missed = findings.missed_batch_size
    asked = [size for size in findings.compare if missed is None or size < missed]
    for entry in plan.entries:
        sizes = [size for size in asked if size >= entry.num_replicas]
        if sizes:
            found += compare_batch_sizes(
                law,
                sizes,
                entry.batch_size,
                entry.num_replicas,
                limits=findings.served,
                draws=draws,
            )
    if asked and not found:
        raise InputError(
            f"--compare: {asked[-1]} does not give each of "
            f"{findings.replicas[0]} replicas an example.",
            "ask for fewer --replicas",
        )
    return found
