r"""Growing the batch where a schedule would lower the learning rate.

What a step of SGD at a small x = lr p h does depends on lr k, how far it goes, and on
lr/B, how noisy it is. A piece of k steps at lr and B can therefore be taken in k lr/lr'
steps at a larger lr' and at B lr'/lr: as many examples, in fewer updates (Smith et al.,
2018). The exchange fails where x is not small: near the stability edge the fastest
direction hardly shrinks and collects noise, so the lr' held is guarded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.optimizers import Optimizer
from rightbatch.quadratic.pieces import Piece, loss_after_pieces
from rightbatch.quadratic.problem import NoisyQuadratic, refuse_label_noise

_ROUNDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class GrownBatch:
    """A schedule whose decay of the learning rate has become growth of the batch.

    Args:
        pieces: The new schedule. Where pieces end is rounded to whole steps; each
            reads as many examples as before.
        held_lr: What the learning rate is held at; pieces above it are left as they
            were.
        guarded: Whether that is less than the schedule's largest, which would have
            raised the loss too much.
        updates_before: Steps of the old schedule.
        updates: Steps of the new one.
        examples: Of either.
        loss_before: Expected loss after the old schedule.
        loss: After the new one.
        unguarded_loss: With the schedule's largest learning rate held.
    """

    pieces: tuple[Piece, ...]
    held_lr: float
    guarded: bool
    updates_before: int
    updates: int
    examples: float
    loss_before: float
    loss: float
    unguarded_loss: float

    @property
    def saving(self) -> float:
        """How many times fewer updates."""
        return self.updates_before / self.updates

    @property
    def loss_increase(self) -> float:
        """Relative rise of the loss, .01 for one percent; negative for a fall."""
        return self.loss / self.loss_before - 1

    def __str__(self) -> str:
        text = (
            f"{self.saving:.2f}x fewer updates, loss {self.loss_increase:+.2%}, "
            f"lr held at {self.held_lr:.4g}"
        )
        if self.guarded:
            rise = self.unguarded_loss / self.loss_before
            text += f" (held at the largest, the loss would be x{rise:.4g})"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return the result for a program."""
        return {
            "updates_before": self.updates_before,
            "updates": self.updates,
            "saving": self.saving,
            "examples": self.examples,
            "loss_before": self.loss_before,
            "loss": self.loss,
            "held_lr": self.held_lr,
            "guarded": self.guarded,
            "pieces": [
                {"steps": p.steps, "lr": p.lr, "batch_size": p.batch_size}
                for p in self.pieces
            ],
        }


def grow_batch(
    problem: NoisyQuadratic,
    pieces: Sequence[Piece],
    *,
    optimizer: Optimizer | None = None,
    max_increase: float = 0.05,
) -> GrownBatch:
    r"""Return a schedule of growing batches in place of one of falling learning rates.

    .. math:: k_j' = k_j\, lr_j / lr', \qquad B_j' = B_j\, lr' / lr_j

    with lr' the largest learning rate of the schedule. Where that raises the loss by
    more than `max_increase`, the largest lr' below it that does not is held instead, by
    bisection, and pieces with a larger rate stay as they are. (At lr' p h = 2 the loss
    can be thousands of times larger.)

    Args:
        problem: What is minimised; without label noise.
        pieces: The schedule.
        optimizer: Whose momentum and EMA decay to use; SGD by default. An EMA decay is
            per step and is not rescaled.
        max_increase: Largest relative rise of the loss, infinity for no guard.

    Returns:
        The new schedule, with both losses.

    Raises:
        InputError: There is no piece of positive learning rate and length, a value is
            out of range, or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic import NoisyQuadratic, Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(100))
        >>> decayed = [Piece(steps=1000, lr=lr, batch_size=4) for lr in (0.2, 0.05)]
        >>> print(grow_batch(problem, decayed))
        1.60x fewer updates, loss +2.19%, lr held at 0.2
    """
    who = "grow_batch"
    refuse_label_noise(who, problem)
    _checks.nonnegative(
        who, "max_increase", max_increase if max_increase < np.inf else 0
    )
    kept = [piece for piece in pieces if piece.steps and piece.lr > 0]
    if not kept:
        raise InputError(
            f"{who}: `pieces` must have one with steps and a learning rate, got "
            f"{len(pieces)} without."
        )
    used = Optimizer(name="sgd", lr=kept[0].lr) if optimizer is None else optimizer
    base = problem.irreducible_loss
    before = loss_after_pieces(problem, used, kept)
    bound = base + (before - base) * (1 + max_increase)

    def loss_at(held: float) -> float:
        return loss_after_pieces(problem, used, _grown(kept, held))

    high, low = max(p.lr for p in kept), min(p.lr for p in kept)
    unguarded = loss_at(high)
    held, guarded = high, not unguarded <= bound
    if guarded:
        for _ in range(_ROUNDS):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if loss_at(middle) <= bound else (low, middle)
        held = low
    grown = _grown(kept, held)
    return GrownBatch(
        pieces=grown,
        held_lr=held,
        guarded=guarded,
        updates_before=sum(piece.steps for piece in kept),
        updates=sum(piece.steps for piece in grown),
        examples=sum(piece.steps * piece.batch_size for piece in kept),
        loss_before=before,
        loss=loss_at(held),
        unguarded_loss=unguarded,
    )


def _grown(pieces: Sequence[Piece], held: float) -> tuple[Piece, ...]:
    """Return the pieces below `held` lifted to it, ends rounded to whole steps."""
    grown: list[Piece] = []
    taken, wished = 0, 0.0
    for piece in pieces:
        if piece.lr >= held:
            grown.append(piece)
            continue
        # Ends are rounded, not lengths: what one piece loses the next one gains.
        wished += piece.steps * piece.lr / held
        steps = max(1, round(wished) - taken)
        taken += steps
        size = piece.batch_size * piece.steps / steps
        grown.append(Piece(steps=steps, lr=held, batch_size=size))
    return tuple(grown)
