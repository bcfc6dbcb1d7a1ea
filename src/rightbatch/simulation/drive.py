"""Any batch-size policy driven on a noisy quadratic."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.policies import (
    Decision,
    Observation,
    Policy,
    ask,
    check_policy,
    policy_name,
)
from rightbatch.quadratic import NoisyQuadratic, Optimizer
from rightbatch.quadratic.problem import check_target
from rightbatch.simulation.conditions import Conditions, checked_factor
from rightbatch.simulation.expected import ExpectedWalk
from rightbatch.simulation.sampled import SampledWalk
from rightbatch.simulation.trace import Trace, as_count, measurement_columns
from rightbatch.simulation.walk import MEASURED, Measured, Walk

# Far above what a run that is going to arrive ever passes through.
_DIVERGED = 1e12

StoppedBy = Literal["target", "max_steps", "max_examples", "divergence"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Simulation:
    """What became of a run.

    Args:
        policy: Name of the policy.
        optimizer: With its settings.
        trace: One row per update.
        initial_loss: Before the first update.
        target: The loss it was to reach; None for no such.
        stopped_by: ``target``, ``max_steps``, ``max_examples`` or ``divergence``.
        is_expectation: Whether losses are exact expectations, or those of one draw.
    """

    policy: str
    optimizer: Optimizer
    trace: Trace
    initial_loss: float
    target: float | None
    stopped_by: StoppedBy
    is_expectation: bool

    @property
    def reached(self) -> bool:
        """Whether the target was reached; then steps and examples are those to it."""
        return self.stopped_by == "target"

    @property
    def steps(self) -> int:
        """Updates done."""
        return len(self.trace)

    @property
    def examples(self) -> float:
        """Examples taken."""
        return float(self.trace.examples[-1]) if self.steps else 0.0

    @property
    def loss(self) -> float:
        """The loss at the end."""
        return float(self.trace.losses[-1]) if self.steps else self.initial_loss

    @property
    def seconds(self) -> float | None:
        """Seconds of all updates; None where no step time was given."""
        clock = self.trace.measurements.get("seconds")
        if clock is None:
            return None
        return float(clock[-1]) if self.steps else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: ``trace``, a row per update, and ``summary``."""
        loss = self.loss
        return {
            "policy": self.policy,
            **self.optimizer.to_dict(),
            "target": self.target,
            "trace": self.trace.rows(),
            "summary": {
                "steps": self.steps,
                "examples": as_count(self.examples),
                "seconds": self.seconds,
                "loss": loss if math.isfinite(loss) else None,
                "initial_loss": self.initial_loss,
                "reached": self.reached,
                "stopped_by": self.stopped_by,
                "is_expectation": self.is_expectation,
            },
        }

    def __str__(self) -> str:
        kind = "expected loss" if self.is_expectation else "loss of one draw"
        time = "" if self.seconds is None else f", {self.seconds:.3g} s"
        return (
            f"{self.policy}: {kind} {self.initial_loss:.4g} to {self.loss:.4g} in "
            f"{self.steps:,} updates, {self.examples:,.0f} examples{time} "
            f"(stopped by {self.stopped_by.replace('_', ' ')})"
        )


def simulate(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    policy: Policy[Any],
    *,
    target: float | None = None,
    max_steps: int = 100_000,
    max_examples: float | None = None,
    conditions: Conditions | None = None,
) -> Simulation:
    """Return what a policy does on a noisy quadratic, update by update.

    Without a seed the second moments of every direction are pushed through each update
    exactly, and the policy sees expectations. The batch sizes then follow from the
    expected loss. A policy that reacts to noise takes other batch sizes in every noisy
    run, so the mean over draws need not be this run; for one that does not react it is.

    Args:
        problem: What is minimised.
        optimizer: With its settings, as torch means them.
        policy: Asked before every update.
        target: Stop at the first loss at or below it.
        max_steps: Stop after so many updates.
        max_examples: Stop after the update that reaches so many examples.
        conditions: Draws, rounding, learning-rate rules, clocks.

    Returns:
        The trace and how it ended; a target out of reach is no error.

    Raises:
        InputError: An argument is out of range, the policy needs what is not known
            here, or it asks for a batch size that is none.

    Example:
        >>> from rightbatch.policies import Constant
        >>> from rightbatch.quadratic import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> sgd = Optimizer(name="sgd", lr=0.5)
        >>> print(simulate(problem, sgd, Constant(batch_size=64), target=0.1))
        Constant: expected loss 2.594 to 0.0994 in 113 updates, 7,232 examples \
(stopped by target)
    """
    who = "simulate"
    given = conditions or Conditions()
    needs = check_policy(who, policy)
    given.refuse_unseen(policy_name(policy), needs)
    _checks.positive_integer(who, "max_steps", max_steps)
    if max_examples is not None:
        _checks.positive(who, "max_examples", max_examples)
    if target is not None:
        check_target(who, problem, target)
    if problem.label_noise is not None:
        raise InputError(
            f"{who}: `problem` must not have label noise, got {problem.label_noise:g}.",
            "give its noise as variances per direction",
        )
    walk: Walk = ExpectedWalk(problem, optimizer)
    if given.seed is not None:
        walk = SampledWalk(problem, optimizer, given.seed, given.num_units)
    limits = _Limits(
        target=-math.inf if target is None else target,
        max_steps=max_steps,
        max_examples=math.inf if max_examples is None else max_examples,
        max_loss=_largest_loss(problem, optimizer),
    )
    run = _Run(walk, optimizer.lr, given, needs)
    stopped_by = run.follow(policy, limits)
    return Simulation(
        policy=policy_name(policy),
        optimizer=optimizer,
        trace=run.trace(),
        initial_loss=run.initial_loss,
        target=target,
        stopped_by=stopped_by,
        is_expectation=given.seed is None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    target: float
    max_steps: int
    max_examples: float
    max_loss: float

    def passed(self, loss: float, steps: int, examples: float) -> StoppedBy | None:
        if loss <= self.target:
            return "target"
        if not loss <= self.max_loss:
            return "divergence"
        if examples >= self.max_examples:
            return "max_examples"
        return "max_steps" if steps >= self.max_steps else None


def _largest_loss(problem: NoisyQuadratic, optimizer: Optimizer) -> float:
    # The start, or where one update from the minimum would lead at a batch of one.
    lr = min(optimizer.lr, optimizer.max_stable_rate / float(problem.rates.max()))
    kick = lr**2 * float(problem.loss_weights @ problem.step_noise)
    excess = problem.initial_loss - problem.irreducible_loss + kick
    return problem.irreducible_loss + _DIVERGED * excess


class _Run:
    """The clock and the record of one run."""

    def __init__(
        self, walk: Walk, lr: float, conditions: Conditions, needs: frozenset[str]
    ) -> None:
        self._walk = walk
        self._base_lr = lr
        self._given = conditions
        self._needs = needs
        self._wanted = (needs | conditions.record) & MEASURED
        self._steps = 0
        self._examples: float = 0
        self._batch_size: float = 0
        self._first_batch: float = 0
        self._lr: float | None = None
        self._seconds = 0.0
        self._seconds_of: dict[float, float] = {}
        self._measured = Measured()
        self._rows: list[tuple[float, float, float, float]] = []
        self._clock: list[float] = []
        self._reasons: list[str] = []
        self._told: list[Measured] = []
        self._loss = self.initial_loss = walk.loss

    def follow(self, policy: Policy[Any], limits: _Limits) -> StoppedBy:
        state = policy.init()
        while True:
            stopped_by = limits.passed(self._loss, self._steps, self._examples)
            if stopped_by is not None:
                return stopped_by
            decision, state = ask(policy, state, self._seen())
            # What overflows has diverged, and says so by its loss.
            with np.errstate(over="ignore", invalid="ignore"):
                self._update(decision)

    def _update(self, decision: Decision) -> None:
        batch = self._given.served(decision.batch_size)
        self._first_batch = self._first_batch or batch
        self._lr = self._rate(batch, decision.lr_factor)
        self._measured = self._walk.step(self._lr, float(batch), self._wanted)
        self._loss = self._walk.loss
        self._steps += 1
        self._batch_size = batch
        self._examples += batch
        self._rows.append((self._examples, batch, self._lr, self._loss))
        self._reasons.append(decision.reason)
        if self._wanted:
            self._told.append(self._measured)
        if self._given.step_time is not None:
            self._tick(batch)

    def _rate(self, batch: float, factor: float) -> float:
        rate = self._base_lr * factor
        if self._given.lr_schedule is not None:
            rate *= checked_factor("lr_schedule", self._given.lr_schedule(self._steps))
        if self._given.lr_rule is not None:
            ratio = batch / self._first_batch
            rate *= checked_factor("lr_rule", self._given.lr_rule(ratio))
        return rate

    def _tick(self, batch: float) -> None:
        assert self._given.step_time is not None
        if batch not in self._seconds_of:
            self._seconds_of[batch] = float(
                self._given.step_time.seconds_per_step(batch, self._given.num_replicas)
            )
        self._seconds += self._seconds_of[batch]
        self._clock.append(self._seconds)

    def _seen(self) -> Observation:
        given = self._given
        if not self._needs:
            return Observation(
                step=self._steps,
                examples=self._examples,
                batch_size=self._batch_size,
                num_replicas=given.num_replicas,
            )
        told = self._measured
        everything: dict[str, Any] = {
            "lr": self._lr,
            "eval_loss": self._loss,
            "dataset_size": given.dataset_size,
            "seconds": self._seconds,
            "batch_loss": told.batch_loss,
            "batch_grad_sq_norm": told.batch_grad_sq_norm,
            "moments": told.moments,
            "noise_scale": told.noise_scale,
            "inner_product_variance": told.inner_product_variance,
        }
        if given.dataset_size is not None:
            everything["epoch"] = self._examples / given.dataset_size
        if given.tokens_per_example is not None:
            everything["tokens"] = self._examples * given.tokens_per_example
        return Observation(
            step=self._steps,
            examples=self._examples,
            batch_size=self._batch_size,
            num_replicas=given.num_replicas,
            **{name: everything[name] for name in self._needs},
        )

    def trace(self) -> Trace:
        columns = np.array(self._rows, dtype=float).reshape(-1, 4).T
        measurements = measurement_columns(self._told)
        if self._given.step_time is not None:
            measurements["seconds"] = np.array(self._clock)
        if self._given.dataset_size is not None:
            measurements["epoch"] = columns[0] / self._given.dataset_size
        if self._given.tokens_per_example is not None:
            measurements["tokens"] = columns[0] * self._given.tokens_per_example
        return Trace(
            steps=np.arange(1.0, self._steps + 1),
            examples=columns[0],
            batch_sizes=columns[1],
            lrs=columns[2],
            losses=columns[3],
            reasons=self._reasons,
            initial_loss=self.initial_loss,
            measurements=measurements,
        )
