"""What each update was: one row per update, and the trace of a run."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rightbatch.simulation import Trace

_MEASUREMENTS = (
    ("batch_loss", "loss"),
    ("batch_grad_sq_norm", "batch_grad_sq_norm"),
    ("grad_sq_norm", "grad_sq_norm"),
    ("grad_variance", "grad_variance"),
    ("noise_scale", "noise_scale"),
    ("noise_scale_low", "noise_scale_low"),
    ("noise_scale_high", "noise_scale_high"),
    ("inner_product_variance", "inner_product_variance"),
    ("seconds", "seconds"),
    ("epoch", "epoch"),
    ("tokens", "tokens"),
)


class UpdateRecord(NamedTuple):
    """One update of a run.

    Args:
        step: Updates done, this one included.
        examples: Examples taken, those of this update included.
        batch_size: Examples of the update, over all replicas.
        micro_batch_size: Examples of the largest forward pass of this replica.
        accumulation_steps: Forward passes of this replica.
        num_replicas: Replicas that shared the batch.
        lr: Learning rate of the first parameter group, all factors in it.
        loss: Mean loss on the batch, before the update.
        reason: Why that batch size.
        seconds: Since the first update began, evaluations apart.
        wish: What the policy asked for, before it was made servable.
        lr_factor: On the learning rate the user's own schedule had; rule and policy.
        epoch: Passes over the data set; None where its size is unknown.
        tokens: Tokens taken; None where nobody counts them.
        noise_scale: In examples, as known after the update; None while it is not.
        noise_scale_low: Lower end of its interval.
        noise_scale_high: Upper end; None where there is none.
        grad_sq_norm: Unbiased squared norm of the gradient, averaged.
        grad_variance: Unbiased trace of its covariance, averaged.
        batch_grad_sq_norm: Squared norm of this batch's gradient, where it was needed.
        inner_product_variance: Where it was needed.
        eval_loss: The evaluated loss that the policy saw before the update.
    """

    step: int
    examples: int
    batch_size: int
    micro_batch_size: int
    accumulation_steps: int
    num_replicas: int
    lr: float
    loss: float
    reason: str
    seconds: float
    wish: float
    lr_factor: float = 1.0
    epoch: float | None = None
    tokens: float | None = None
    noise_scale: float | None = None
    noise_scale_low: float | None = None
    noise_scale_high: float | None = None
    grad_sq_norm: float | None = None
    grad_variance: float | None = None
    batch_grad_sq_norm: float | None = None
    inner_product_variance: float | None = None
    eval_loss: float | None = None


def trace_of(records: Sequence[UpdateRecord]) -> Trace:
    """Return the trace of a run, as simulations have it and `replay` reads it.

    Its loss after an update is the evaluated one where the policy had one; else that of
    the next batch, which was taken at the same point, and is noisier.

    Args:
        records: In order.

    Returns:
        One row per record; the last has no loss, as nothing came after it.

    Example:
        >>> record = UpdateRecord(1, 8, 8, 8, 1, 1, 0.1, 2.5, "constant", 0.01, 8.0)
        >>> trace_of([record]).initial_loss
        2.5
    """
    evaluated = _column(records, "eval_loss")
    before = evaluated if np.isfinite(evaluated).any() else _column(records, "loss")
    after = np.append(before[1:], np.nan)[: len(records)]
    columns = {name: _column(records, field) for name, field in _MEASUREMENTS}
    return Trace(
        steps=_column(records, "step"),
        examples=_column(records, "examples"),
        batch_sizes=_column(records, "batch_size"),
        lrs=_column(records, "lr"),
        losses=after,
        reasons=[one.reason for one in records],
        initial_loss=float(before[0]) if np.isfinite(before[:1]).any() else None,
        measurements={k: v for k, v in columns.items() if np.isfinite(v).any()},
    )


def _column(records: Sequence[UpdateRecord], field: str) -> np.ndarray:
    values = [getattr(one, field) for one in records]
    return np.array([np.nan if v is None else v for v in values], dtype=float)
