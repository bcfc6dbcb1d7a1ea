"""The record of a run: what was asked, what was checked, how it ended.

A record answers again, without training, for other targets and smaller budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rightbatch._checks import finite
from rightbatch.errors import InputError
from rightbatch.experiments.crossing import (
    Crossing,
    Trace,
    grid_index,
    grid_step,
    grid_step_up_to,
)
from rightbatch.experiments.gate import answers_for

Status = Literal["reached", "not_reached", "diverged", "out_of_memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCrossing:
    """Where a run crossed one of its targets.

    Args:
        target: The value asked for.
        status: ``"reached"``, or how the run ended without reaching it.
        steps: Steps to the target; None when it was not reached.
        grid_spacing: Steps between this check and the one before it that could have
            met the target: the answer is known no better. None when it was not reached.
    """

    target: float
    status: Status
    steps: int | None = None
    grid_spacing: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run to its targets, and how it ended.

    Args:
        batch_size: Examples per step.
        lr: Learning rate.
        seed: What the initialisation and the order of the data derive from.
        status: Of the hardest target: ``"reached"``, ``"not_reached"`` in the budget,
            ``"diverged"``, or ``"out_of_memory"``: this batch size does not fit.
        last_step: Updates made: a few past the crossing, whose window they complete.
        budget: Updates it was allowed; the cap where faster runs had set one.
        trace: (step, value) of each check, unsmoothed; step 0 is the start.
        crossings: One per target, in the order asked.
        nearest: The best value checked (smoothed where it can be); None for none.
        crossing: The definition in use.
        seconds_training: Time spent on updates. Unit: seconds.
        seconds_checking: Time spent on checks. Unit: seconds.
        median_step_seconds: Median over chunks of updates, checks excluded. Unit:
            seconds per step. None when no update was made.
        held_out_trace: (step, value) at the same checks on the workload's held-out
            set; empty unless asked for.
        tier: How its updates were made: ``"plain"``; ``"stacked"``, together with
            other runs; or ``"compiled"``, these as one compiled function. The outcome
            is the same to rounding.

    Example:
        >>> crossed = TargetCrossing(target=0.5, status="reached", steps=9)
        >>> run = Run(batch_size=8, lr=0.1, seed=0, status="reached", last_step=9,
        ...     budget=100, trace=((0, 1.0), (9, 0.4)), crossings=(crossed,),
        ...     nearest=0.4, crossing=Crossing(), seconds_training=1.0,
        ...     seconds_checking=0.1, median_step_seconds=0.1)
        >>> run.steps(0.5), run.rows()[0]["examples"]
        (9, 72)
    """

    batch_size: int
    lr: float
    seed: int
    status: Status
    last_step: int
    budget: int
    trace: Trace
    crossings: tuple[TargetCrossing, ...]
    nearest: float | None
    crossing: Crossing
    seconds_training: float
    seconds_checking: float
    median_step_seconds: float | None
    held_out_trace: Trace = ()
    tier: str = "plain"

    @property
    def targets(self) -> tuple[float, ...]:
        """The targets asked for."""
        return tuple(crossed.target for crossed in self.crossings)

    def steps(self, target: float | None = None) -> int | None:
        """Return the steps to a target, the hardest when None; None if not reached.

        Raises:
            InputError: The run was not asked for that target.
        """
        wanted = self.crossing.hardest(self.targets) if target is None else target
        for crossed in self.crossings:
            if crossed.target == wanted:
                return crossed.steps
        raise InputError(f"Run: target {wanted} is not among {self.targets}.")

    def held_out_steps(self, target: float) -> int | None:
        """Return the steps to a target on the held-out set; None if not reached.

        Raises:
            InputError: The held-out set was not recorded.
        """
        if not self.held_out_trace:
            raise InputError(
                "Run: the loss on the held-out set was not recorded.",
                "sweep with --record-held-out",
            )
        return self.crossing.steps(self.held_out_trace, target)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per target, as a table of runs has them.

        Steps on the held-out set are among its values where that was recorded.
        """
        return [
            {
                "batch_size": self.batch_size,
                "lr": self.lr,
                "seed": self.seed,
                "target": crossed.target,
                "steps": crossed.steps,
                "examples": crossed.steps and crossed.steps * self.batch_size,
                "status": crossed.status,
                **self._held_out(crossed.target),
            }
            for crossed in self.crossings
        ]

    def _held_out(self, target: float) -> dict[str, int | None]:
        if not self.held_out_trace:
            return {}
        return {"held_out_steps": self.held_out_steps(target)}

    def outcome(self) -> tuple[Any, ...]:
        """Return all that the settings and the seed decide: no seconds."""
        return (
            (self.batch_size, self.lr, self.seed, self.status, self.last_step),
            (self.budget, self.trace, self.crossings, self.nearest, self.crossing),
            self.held_out_trace,
        )


def exact_text(value: float) -> str:
    """Return a number in few digits where they are all it has, else in full.

    Args:
        value: Any; another number gets another text.

    Example:
        >>> exact_text(0.9), exact_text(1.0), exact_text(0.9999999)
        ('0.9', '1', '0.9999999')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def read_crossings(
    crossing: Crossing,
    trace: Sequence[tuple[int, float]],
    targets: Sequence[float],
    unreached: Status,
) -> tuple[TargetCrossing, ...]:
    """Return where `trace` crosses each target; `unreached` is the status elsewhere.

    Raises:
        InputError: A target is not finite, or there are none.

    Example:
        >>> trace = [(step, 10.0 / (step + 1)) for step in range(30)]
        >>> [c.steps for c in read_crossings(Crossing(), trace, [1, .1], "diverged")]
        [9, None]
    """
    if not targets:
        raise InputError("read_crossings: `targets` must not be empty.")
    curve = crossing.curve(trace)
    found: list[TargetCrossing] = []
    for target in targets:
        finite("read_crossings", "target", target)
        step = next((s for s, v in curve if crossing.meets(v, target)), None)
        if step is None:
            found.append(TargetCrossing(target=target, status=unreached))
            continue
        index = grid_index(step) if crossing.definition == "smoothed" else None
        spacing = step - grid_step(index - 1) if index else crossing.every
        found.append(
            TargetCrossing(
                target=target, status="reached", steps=step, grid_spacing=spacing
            )
        )
    return tuple(found)


def reread(run: Run, targets: Sequence[float], budget: int) -> Run | None:
    """Return what `run` would have been with these targets and this budget.

    Args:
        run: A run that ended.
        targets: The targets asked for now.
        budget: The updates allowed now.

    Returns:
        The run, its trace cut where it would have ended; the seconds stay those
        spent. None when it does not answer: it stopped short of the budget, or its
        gate was set for other targets and left out checks that these need.

    Example:
        >>> trace = tuple((step, 10.0 / (step + 1)) for step in range(30))
        >>> run = Run(batch_size=8, lr=0.1, seed=0, status="not_reached", last_step=29,
        ...     budget=29, trace=trace, crossings=(), nearest=None, crossing=Crossing(),
        ...     seconds_training=1.0, seconds_checking=0.1, median_step_seconds=0.1)
        >>> reread(run, [1.0], 25).status, reread(run, [0.1], 40)
        ('reached', None)
    """
    crossing = run.crossing
    own, new = run.targets, set(targets) - set(run.targets)
    traces = (run.trace, *([run.held_out_trace] if run.held_out_trace else []))
    if own and not all(
        answers_for(crossing, trace, one, own) for trace in traces for one in new
    ):
        return None
    hardest = crossing.hardest(targets)
    trace = tuple(point for point in run.trace if point[0] <= budget)
    status: Status = "not_reached"
    last_step = min(run.last_step, budget)
    if crossing.definition == "smoothed":
        last_step = grid_step_up_to(last_step)
    else:
        last_step -= last_step % crossing.every
    for end in range(1, len(trace) + 1):
        values = [v for _, v in crossing.completed(trace[max(0, end - 5) : end])]
        if any(crossing.meets(value, hardest) for value in values):
            status, trace, last_step = "reached", trace[:end], trace[end - 1][0]
            break
    if status != "reached":
        if run.status in ("diverged", "out_of_memory") and run.last_step <= budget:
            status = run.status
        elif budget > (run.budget if run.status == "not_reached" else run.last_step):
            return None
    return replace(
        run,
        status=status,
        last_step=last_step,
        budget=budget,
        trace=trace,
        crossings=read_crossings(crossing, trace, targets, status),
        nearest=crossing.nearest(trace),
        held_out_trace=run.held_out_trace[: len(trace)],
    )
