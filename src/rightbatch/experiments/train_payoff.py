"""Whether a growing batch paid: two kinds of runs compared at a loss both reached."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np

from rightbatch.experiments.train_pricing import PricedRun, price_run
from rightbatch.experiments.train_record import TrainingRun
from rightbatch.training_time import StepTimeModel

Verdict = Literal["yes", "no", "unclear", "not_reached"]
Basis = Literal["target", "lowest"]
# Less than this is within what a fitted law of step times can be off by.
GRAIN = 0.02


class Reached(NamedTuple):
    """What a run took to a loss; places between two evaluations are interpolated.

    Args:
        steps: Updates.
        examples: Examples.
        measured_seconds: As they passed, evaluations left out.
        seconds: By the law, for each number of replicas.
    """

    steps: float
    examples: float
    measured_seconds: float
    seconds: Mapping[int, float]


class Spread(NamedTuple):
    """A ratio over seeds: its median, and the ends of its range.

    Example:
        >>> Spread.of([0.5, 0.7, 0.4]).to_dict()
        {'value': 0.5, 'low': 0.4, 'high': 0.7}
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of values, one per seed."""
        return cls(median(values), min(values), max(values))

    def to_dict(self) -> dict[str, float]:
        """Return the JSON form; the ends are those of the range, not of an interval."""
        return self._asdict()

    @property
    def verdict(self) -> Verdict:
        """Whether a time so many times the other's pays, at every seed."""
        if self.high < 1 - GRAIN:
            return "yes"
        return "no" if self.low >= 1 - GRAIN else "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payoff:
    """A policy's runs beside those of another, to the same loss.

    Args:
        policy: Whose.
        against: The other.
        loss: The loss compared at; None where there is none that all came below.
        basis: Whether that is the target, or the lowest loss that all reached.
        target: The target; None without one.
        reached: How many of the policy's and of the other's runs reached the target.
        num_seeds: Pairs compared.
        steps: Updates over the other's.
        examples: Examples over the other's.
        measured_seconds: Measured seconds over the other's.
        seconds: By the law, for each number of replicas.
        taken: Medians of what the policy took.
        against_taken: Medians of what the other took.
    """

    policy: str
    against: str
    loss: float | None
    basis: Basis
    target: float | None
    reached: tuple[int, int]
    num_seeds: int
    steps: Spread | None = None
    examples: Spread | None = None
    measured_seconds: Spread | None = None
    seconds: Mapping[int, Spread] = field(default_factory=dict[int, Spread])
    taken: Reached | None = None
    against_taken: Reached | None = None

    @property
    def misses_target(self) -> bool:
        """Whether the other reached the target at every seed, and the policy did not.

        However soon it came to a higher loss, that is not what was asked for.
        """
        mine, others = self.reached
        return mine < self.num_seeds == others

    def pays(self, num_replicas: int) -> Verdict:
        """Return whether it pays on a number of replicas that was priced."""
        if num_replicas not in self.seconds or self.misses_target:
            return "not_reached"
        return self.seconds[num_replicas].verdict

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "policy": self.policy,
            "against": self.against,
            "loss": self.loss,
            "basis": self.basis,
            "target": self.target,
            "reached_target": self.reached[0],
            "against_reached_target": self.reached[1],
            "num_seeds": self.num_seeds,
            "steps": self.steps and self.steps.to_dict(),
            "examples": self.examples and self.examples.to_dict(),
            "measured_seconds": self.measured_seconds
            and self.measured_seconds.to_dict(),
            "seconds": [
                {
                    "num_replicas": replicas,
                    **spread.to_dict(),
                    "pays": self.pays(replicas),
                    "taken": self.taken and self.taken.seconds[replicas],
                    "against_taken": self.against_taken
                    and self.against_taken.seconds[replicas],
                }
                for replicas, spread in self.seconds.items()
            ],
            "taken": _taken(self.taken),
            "against_taken": _taken(self.against_taken),
        }


def _taken(reached: Reached | None) -> dict[str, float] | None:
    if reached is None:
        return None
    return {
        "steps": reached.steps,
        "examples": reached.examples,
        "measured_seconds": reached.measured_seconds,
    }


def reach(
    run: TrainingRun, loss: float, prices: Sequence[PricedRun] = ()
) -> Reached | None:
    """Return what a run took until its evaluated loss was first at or below a loss.

    Args:
        run: Any.
        loss: The loss.
        prices: Its clocks.

    Returns:
        Where the line between two evaluations crosses it; None if it never does.
    """
    place = _crossing(run, loss)
    if place is None:
        return None
    trace = run.trace
    examples = np.concatenate([[0.0], trace.examples])

    def at(values: Any) -> float:
        return float(np.interp(place, examples, np.concatenate([[0.0], values])))

    clock = trace.measurements.get("seconds")
    return Reached(
        steps=at(trace.steps),
        examples=place,
        measured_seconds=math.nan if clock is None else at(clock),
        seconds={one.num_replicas: at(one.clock) for one in prices},
    )


def _crossing(run: TrainingRun, loss: float) -> float | None:
    before: tuple[float, float] | None = None
    for one in run.evaluations:
        if one.loss <= loss:
            if before is None or not math.isfinite(before[1]):
                return float(one.examples)
            share = (before[1] - loss) / (before[1] - one.loss)
            return before[0] + share * (one.examples - before[0])
        before = (float(one.examples), one.loss)
    return None


def compare(
    runs: Sequence[TrainingRun],
    others: Sequence[TrainingRun],
    step_time: StepTimeModel,
    replicas: Sequence[int],
    *,
    target: float | None = None,
) -> Payoff:
    """Return how a policy's runs compare with another's, seed by seed.

    They are compared at the target where every run reached it, else at the lowest loss
    that every one of them reached.

    Args:
        runs: Of one policy, one per seed.
        others: Of the other; only seeds that both have count.
        step_time: Seconds per step.
        replicas: Numbers of replicas to price at.
        target: A loss.

    Returns:
        Ratios with their range over the seeds; none where a run never came below the
        loss it began with.
    """
    second = {run.seed: run for run in others}
    pairs = [(run, second[run.seed]) for run in runs if run.seed in second]
    loss, basis = _common_loss([run for pair in pairs for run in pair], target)
    payoff = Payoff(
        policy=runs[0].policy,
        against=others[0].policy,
        loss=loss,
        basis=basis,
        target=target,
        reached=(
            sum(_is_within(run, target) for run, _ in pairs),
            sum(_is_within(run, target) for _, run in pairs),
        ),
        num_seeds=len(pairs),
    )
    if loss is None:
        return payoff
    found = [
        (
            _taken_by(one, loss, step_time, replicas),
            _taken_by(other, loss, step_time, replicas),
        )
        for one, other in pairs
    ]
    return replace(
        payoff,
        steps=Spread.of([a.steps / b.steps for a, b in found]),
        examples=Spread.of([a.examples / b.examples for a, b in found]),
        measured_seconds=Spread.of(
            [a.measured_seconds / b.measured_seconds for a, b in found]
        ),
        seconds={
            p: Spread.of([a.seconds[p] / b.seconds[p] for a, b in found])
            for p in replicas
        },
        taken=_median([a for a, _ in found]),
        against_taken=_median([b for _, b in found]),
    )


def _taken_by(
    run: TrainingRun, loss: float, step_time: StepTimeModel, replicas: Sequence[int]
) -> Reached:
    sizes = run.trace.batch_sizes
    found = reach(run, loss, [price_run(sizes, step_time, p) for p in replicas])
    # The common loss is one that every run reached.
    assert found is not None
    return found


def _median(found: Sequence[Reached]) -> Reached:
    return Reached(
        steps=median(one.steps for one in found),
        examples=median(one.examples for one in found),
        measured_seconds=median(one.measured_seconds for one in found),
        seconds={p: median(one.seconds[p] for one in found) for p in found[0].seconds},
    )


def _is_within(run: TrainingRun, target: float | None) -> bool:
    best = run.best_loss
    return target is not None and best is not None and best <= target


def _common_loss(
    runs: Sequence[TrainingRun], target: float | None
) -> tuple[float | None, Basis]:
    lowest = [run.best_loss for run in runs]
    starts = [run.initial_loss for run in runs]
    known = [one for one in lowest if one is not None]
    if not runs or len(known) < len(lowest):
        return None, "lowest"
    lowest_of_all = max(known)
    met = target is not None and lowest_of_all <= target
    loss = target if met and target is not None else lowest_of_all
    # At the start nothing was taken yet, and a ratio would be none.
    if any(start is not None and start <= loss for start in starts):
        return None, "lowest"
    return loss, "target" if met else "lowest"
