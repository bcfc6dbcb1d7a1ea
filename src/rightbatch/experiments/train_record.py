"""What one training run under a batch-size policy leaves behind, and how it is kept."""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from rightbatch.errors import StoreError
from rightbatch.fitting import FloatArray
from rightbatch.simulation import Trace

TrainingStatus = Literal["finished", "stopped", "diverged", "interrupted"]
DETAILS = ("micro_batch_size", "accumulation_steps", "lr_factor", "wish")
"""Columns of a run beside those of its trace."""


class Evaluated(NamedTuple):
    """The loss on the examples a workload is evaluated on, at one moment of a run.

    Args:
        step: Updates made by then.
        examples: Examples they took.
        loss: Mean per example, in evaluation mode; not finite where it is lost.
    """

    step: int
    examples: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingRun:
    """One run under one policy: a row per update, and losses on a grid of examples.

    Args:
        policy: The policy as it was named.
        seed: Of weights and of the order of the examples.
        settings: What else decides the run, as JSON holds it.
        status: How it ended.
        trace: A row per update; its losses are those of batches.
        evaluations: In order, the first before any update.
        seconds_evaluating: Spent on them. The trace's clock leaves them out.
        policy_examples: Examples evaluated for the policy, apart from all others.
        notes: What to know of it, one sentence each.
        details: Columns named as in :data:`DETAILS`, one value per update.

    Example:
        >>> trace = Trace(steps=[1], examples=[8], batch_sizes=[8], lrs=[0.1],
        ...     losses=[2.3], reasons=["constant"], measurements={"seconds": [0.01]})
        >>> run = TrainingRun(policy="constant", seed=0, settings={}, status="finished",
        ...     trace=trace, evaluations=(Evaluated(0, 0, 2.4), Evaluated(1, 8, 2.2)))
        >>> run.steps, run.examples, run.loss, run.best_loss, run.seconds
        (1, 8, 2.2, 2.2, 0.01)
    """

    policy: str
    seed: int
    settings: Mapping[str, Any]
    status: TrainingStatus
    trace: Trace
    evaluations: tuple[Evaluated, ...]
    seconds_evaluating: float = 0.0
    policy_examples: int = 0
    notes: tuple[str, ...] = ()
    details: Mapping[str, FloatArray] = field(default_factory=dict[str, FloatArray])

    @property
    def steps(self) -> int:
        """Updates made."""
        return int(self.trace.steps[-1]) if len(self.trace) else 0

    @property
    def examples(self) -> int:
        """Examples they took."""
        return int(self.trace.examples[-1]) if len(self.trace) else 0

    @property
    def seconds(self) -> float:
        """Measured seconds of training, evaluations left out."""
        clock = self.trace.measurements.get("seconds")
        return float(clock[-1]) if clock is not None and len(clock) else 0.0

    @property
    def initial_loss(self) -> float | None:
        """The evaluated loss before the first update; None where it is not finite."""
        return _known(self.evaluations[0].loss) if self.evaluations else None

    @property
    def loss(self) -> float | None:
        """The last evaluated loss; None where it is not finite."""
        return _known(self.evaluations[-1].loss) if self.evaluations else None

    @property
    def best_loss(self) -> float | None:
        """The lowest evaluated loss; None where none is finite."""
        found = [one.loss for one in self.evaluations if math.isfinite(one.loss)]
        return min(found, default=None)

    def rows(self) -> list[dict[str, Any]]:
        """Return one mapping per update, as the JSON document has it."""
        columns = {name: values.tolist() for name, values in self.details.items()}
        details = [dict(zip(columns, row, strict=True)) for row in _turned(columns)]
        rows = self.trace.rows()
        if not details:
            return rows
        return [
            row | {name: _plain(value) for name, value in more.items()}
            for row, more in zip(rows, details, strict=True)
        ]

    def summary(self) -> dict[str, Any]:
        """Return the numbers at its end, as the JSON document has them."""
        return {
            "steps": self.steps,
            "examples": self.examples,
            "seconds": self.seconds,
            "loss": self.loss,
            # Of the trace's own kind of loss, which is what a replay reads.
            "initial_loss": self.trace.initial_loss,
            "initial_evaluated_loss": self.initial_loss,
            "best_loss": self.best_loss,
            "policy": self.policy,
            "seed": self.seed,
            "status": self.status,
            "evaluation_seconds": self.seconds_evaluating,
            "policy_examples": self.policy_examples,
        }


def pack(run: TrainingRun) -> bytes:
    """Return the columns and the evaluations of a run as bytes, exactly.

    Args:
        run: Any.

    Returns:
        JSON, compressed: a run of 3,600 updates takes about 100 kB.
    """
    trace = run.trace
    columns = {
        "steps": trace.steps,
        "examples": trace.examples,
        "batch_sizes": trace.batch_sizes,
        "lrs": trace.lrs,
        "losses": trace.losses,
    }
    document = {
        "columns": {name: values.tolist() for name, values in columns.items()},
        "reasons": list(trace.reasons),
        "initial_loss": trace.initial_loss,
        "measurements": {k: v.tolist() for k, v in trace.measurements.items()},
        "details": {k: v.tolist() for k, v in run.details.items()},
        "evaluations": [list(one) for one in run.evaluations],
        "seconds_evaluating": run.seconds_evaluating,
        "policy_examples": run.policy_examples,
        "notes": list(run.notes),
    }
    return zlib.compress(json.dumps(document).encode())


def unpack(data: bytes, **known: Any) -> TrainingRun:
    """Return the run that :func:`pack` made bytes of.

    Args:
        data: The bytes.
        **known: `policy`, `seed`, `settings` and `status`, which are kept apart.

    Returns:
        The run, equal to the last bit.

    Raises:
        StoreError: The bytes are no run.
    """
    try:
        document = json.loads(zlib.decompress(data))
        trace = Trace(
            **document["columns"],
            reasons=document["reasons"],
            initial_loss=document["initial_loss"],
            measurements=document["measurements"],
        )
        return TrainingRun(
            **known,
            trace=trace,
            evaluations=tuple(Evaluated(*one) for one in document["evaluations"]),
            seconds_evaluating=document["seconds_evaluating"],
            policy_examples=document["policy_examples"],
            notes=tuple(document["notes"]),
            details={k: np.array(v) for k, v in document["details"].items()},
        )
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the store holds a training run that cannot be read: {error}.",
            "put the file aside, and name another with --store",
        ) from error


def _turned(columns: Mapping[str, list[Any]]) -> list[tuple[Any, ...]]:
    return list(zip(*columns.values(), strict=True))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: float) -> float | int | None:
    return int(value) if float(value).is_integer() else _known(value)
