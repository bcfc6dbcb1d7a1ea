"""Another policy asked about a run that is over."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, Interval
from rightbatch.noise_scale import GradientMoments
from rightbatch.policies import (
    Decision,
    Observation,
    Policy,
    ask,
    check_policy,
    policy_name,
)
from rightbatch.simulation.trace import Trace, as_count

_LEVEL = 0.95

# What a policy can need, and the columns that tell it.
_SOURCES: dict[str, tuple[str, ...]] = {
    "batch_grad_sq_norm": ("batch_grad_sq_norm",),
    "moments": ("grad_sq_norm", "grad_variance"),
    "noise_scale": ("noise_scale",),
    "inner_product_variance": ("inner_product_variance",),
    "seconds": ("seconds",),
    "tokens": ("tokens",),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """What a policy would have asked for on a recorded run.

    The loop is open: a decision changes nothing, every loss is that of the recorded
    run, at its batch sizes and after its examples. So the decisions tell how a policy
    reads such a run, not what would have become of the run under it.

    Args:
        policy: Name of the policy.
        trace: The recorded run.
        decisions: For each of its updates, on what was known before it.
    """

    policy: str
    trace: Trace
    decisions: tuple[Decision, ...]

    @property
    def batch_sizes(self) -> FloatArray:
        """The batch sizes wished for, one per update of the trace, shape (k,)."""
        return np.array([one.batch_size for one in self.decisions], dtype=float)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the trace's rows beside what was wished for."""
        return {
            "policy": self.policy,
            "open_loop": True,
            "trace": [
                {
                    **row,
                    "batch_size": as_count(one.batch_size),
                    "recorded_batch_size": row["batch_size"],
                    "lr_factor": one.lr_factor,
                    "reason": one.reason,
                }
                for row, one in zip(self.trace.rows(), self.decisions, strict=True)
            ],
        }

    def __str__(self) -> str:
        if not self.decisions:
            return f"{self.policy}: the recorded run has no updates"
        wished, taken = self.batch_sizes, self.trace.batch_sizes
        return (
            f"{self.policy} would have asked for {wished[0]:.4g} to {wished[-1]:.4g} "
            f"examples over {int(self.trace.steps[-1]):,} recorded updates, which took "
            f"{taken[0]:.4g} to {taken[-1]:.4g}. Open loop: losses and examples are "
            "those of the recorded run, not of one at these batch sizes."
        )


def replay(
    policy: Policy[Any],
    trace: Trace,
    *,
    dataset_size: int | None = None,
    num_replicas: int = 1,
) -> Replay:
    """Return what a policy would have decided on a recorded run.

    Its one recorded loss stands for the evaluated loss, and for the loss of the last
    batch where the trace has no column of that name.

    Args:
        policy: Asked once per row, with what the rows before it tell. A trace with gaps
            asks it less often than a run would.
        trace: Of a run under any policy.
        dataset_size: For policies that count epochs, where the trace does not.
        num_replicas: What the policy is told.

    Returns:
        One decision per row.

    Raises:
        InputError: The policy needs what the trace does not have, or it asks for a
            batch size that is none.

    Example:
        >>> from rightbatch.policies import Constant
        >>> from rightbatch.simulation import read_trace
        >>> rows = [
        ...     {"step": 1, "examples": 8, "batch_size": 8, "loss": 2.0},
        ...     {"step": 2, "examples": 24, "batch_size": 16, "loss": 1.0},
        ... ]
        >>> replay(Constant(batch_size=32), read_trace(rows)).batch_sizes
        array([32., 32.])
    """
    needs = check_policy("replay", policy)
    if dataset_size is not None:
        _checks.positive_integer("replay", "dataset_size", dataset_size)
    _checks.positive_integer("replay", "num_replicas", num_replicas)
    reader = _Reader(trace, dataset_size, num_replicas, needs)
    reader.refuse_unrecorded(policy_name(policy))
    state, decisions = policy.init(), list[Decision]()
    for row in range(len(trace)):
        decision, state = ask(policy, state, reader.before(row))
        decisions.append(decision)
    return Replay(policy=policy_name(policy), trace=trace, decisions=tuple(decisions))


@dataclass(frozen=True, slots=True)
class _Reader:
    """What the rows of a trace tell a policy."""

    trace: Trace
    dataset_size: int | None
    num_replicas: int
    needs: frozenset[str]

    def refuse_unrecorded(self, policy: str) -> None:
        has = self.trace.measurements
        for need in sorted(self.needs):
            lacks = [name for name in _SOURCES.get(need, ()) if name not in has]
            if need == "lr" and np.isnan(self.trace.lrs).all():
                lacks = ["lr"]
            if need == "epoch" and self.dataset_size is None and "epoch" not in has:
                lacks = ["epoch"]
            if lacks:
                raise InputError(
                    f"replay: {policy} needs `{need}`, but the trace has no "
                    f"{' and no '.join(lacks)}.",
                    "give dataset_size" if need == "epoch" else "record it in the run",
                )
        if "dataset_size" in self.needs and self.dataset_size is None:
            raise InputError(
                f"replay: {policy} needs `dataset_size`, got None.", "give dataset_size"
            )

    def before(self, row: int) -> Observation:
        """Return what is known before the update of a row."""
        trace, last = self.trace, row - 1
        if row == 0:
            clock: tuple[int, float, float] = (0, 0, 0)
            told: dict[str, Any] = {"eval_loss": trace.initial_loss, "seconds": 0.0}
            told["epoch"] = told["tokens"] = 0.0
        else:
            clock = (
                int(trace.steps[last]),
                _whole(trace.examples[last]),
                _whole(trace.batch_sizes[last]),
            )
            told = self._told(last)
        told["dataset_size"] = self.dataset_size
        return Observation(
            step=clock[0],
            examples=clock[1],
            batch_size=clock[2],
            num_replicas=self.num_replicas,
            **{name: told.get(name) for name in self.needs},
        )

    def _told(self, row: int) -> dict[str, Any]:
        trace = self.trace
        values = {
            name: _number(column[row]) for name, column in trace.measurements.items()
        }
        told: dict[str, Any] = dict(values)
        told["lr"] = _number(trace.lrs[row])
        told["eval_loss"] = _number(trace.losses[row])
        told.setdefault("batch_loss", told["eval_loss"])
        if "epoch" not in told and self.dataset_size is not None:
            told["epoch"] = float(trace.examples[row]) / self.dataset_size
        square, variance = values.get("grad_sq_norm"), values.get("grad_variance")
        if square is not None and variance is not None:
            told["moments"] = GradientMoments(
                grad_sq_norm=square, grad_variance=variance
            )
        if "noise_scale" in values:
            told["noise_scale"] = Interval(
                value=values["noise_scale"],
                low=values.get("noise_scale_low"),
                high=values.get("noise_scale_high"),
                level=_LEVEL,
                unit="examples",
                definition="tr Sigma / |G|^2, as recorded",
            )
        return told


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _whole(value: float) -> float:
    value = float(value)
    return int(value) if value.is_integer() else value
