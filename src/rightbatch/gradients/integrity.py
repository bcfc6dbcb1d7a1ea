"""Whether the gradient is still what the units added up to.

Someone else may change it: a second backward pass, ``zero_grad``, clipping, a scaler,
an optimizer that steps inside the backward pass. Every change in place moves a tensor's
version on, which costs nothing to look at; the numbers themselves are compared in the
first updates, as what a loop does to its gradients then it does in all of them.
"""

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from rightbatch.gradients.ledger import write_square
from rightbatch.gradients.replicas import Replicas, local_part

# What went wrong, and the way out behind the bar.
CHANGED = (
    "NoiseMeter.update: the gradients were changed between the units or after the last "
    "one, by a backward pass outside `meter.unit`, zero_grad, clipping or unscaling. | "
    "wrap every backward pass of the update in a unit, and call update() right after "
    "the last one; discard() forgets an update that is begun anew"
)
DIRTY = (
    "NoiseMeter.update: gradients were not zero before the first unit. | call "
    "zero_grad() after each optimizer step, and no backward pass before the first unit"
)
ALTERED = (
    "NoiseMeter.update: a backward pass left another gradient than it made: a hook "
    "changes it, or an optimizer steps inside the backward pass. | the meter cannot "
    "measure such a loop"
)
FAILED = (
    "NoiseMeter.update: a backward pass failed half-way and left its part in the "
    "gradients. | call zero_grad() and discard(), and begin the update anew"
)
_SAME = 1e-3


class Integrity:
    """Looks at the gradients of some parameters at the seams of an update.

    Args:
        parameters: All of them, by column.
        replicas: Who shares the gradient: DDP changes it on purpose.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], replicas: Replicas) -> None:
        self._parameters = parameters
        self._replicas = replicas
        last = len(parameters) - 1
        self._few = [parameters[column] for column in sorted({0, last // 2, last})]
        self._zeroes_in_place = False
        self.clear(looks_closely=True)

    def clear(self, *, looks_closely: bool) -> None:
        """Begin an update.

        Args:
            looks_closely: Whether to compare numbers too.
        """
        self._looks_closely = looks_closely
        self._versions: list[int | None] | None = None
        self._squares: list[float] | None = None
        self.problem = ""

    def note(self, problem: str) -> None:
        """Keep what went wrong first."""
        self.problem = self.problem or problem

    def before_unit(self) -> None:
        """Look before a unit: nothing may have changed since the last one."""
        if self._versions is not None and self._grad_versions() != self._versions:
            self.note(CHANGED)

    def at_first_gradient(self, left_out: Collection[int] = ()) -> None:
        """Look when the update's first gradient is made: nothing may be there.

        Args:
            left_out: Columns that are not looked at.
        """
        present = [
            parameter.grad
            for column, parameter in enumerate(self._parameters)
            if parameter.grad is not None and column not in left_out
        ]
        if not present:
            return
        if self._looks_closely:
            self._zeroes_in_place = True
            if any(bool(_local(gradient).any()) for gradient in present):
                self.note(DIRTY)
        elif not self._zeroes_in_place:
            self.note(DIRTY)

    def after_unit(self, made: Sequence[float] | None) -> None:
        """Look after a unit.

        Args:
            made: Squared norms of what the first unit made, by column; None for a
                later one, or where it is not known.
        """
        self._versions = self._grad_versions()
        if not self._looks_closely or self._replicas.sharded:
            return
        self._squares = [_square(p.grad) for p in self._parameters]
        if made is not None and self._replicas.num == 1:
            pairs = zip(made, self._squares, strict=True)
            if not all(_is_same(*pair) for pair in pairs):
                self.note(ALTERED)

    def after_failure(self) -> None:
        """Look after a unit that raised: had its gradients come already?"""
        before = self._versions or [None] * len(self._few)
        if self._grad_versions() != before:
            self.note(FAILED)

    def before_reading(self) -> None:
        """Look before the gradient is read."""
        if self._versions is None:
            return
        changed = self._grad_versions() != self._versions
        if not changed and self._squares is not None:
            # A GradScaler leaves versions as they are.
            now = [_square(p.grad) for p in self._parameters]
            pairs = zip(now, self._squares, strict=True)
            changed = not all(_is_same(*pair) for pair in pairs)
        if changed:
            self.note(CHANGED)

    def _grad_versions(self) -> list[int | None]:
        # A few tell: what runs there runs over all of them, and the first updates'
        # numbers are compared for every one.
        return [
            None if (gradient := parameter.grad) is None else gradient._version  # pyright: ignore[reportPrivateUsage]
            for parameter in self._few
        ]


def _local(gradient: Tensor) -> Tensor:
    gradient = local_part(gradient)[0]
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _square(gradient: Tensor | None) -> float:
    if gradient is None:
        return 0.0
    cell = torch.zeros((), dtype=torch.float64)
    write_square(gradient, cell)
    return float(cell)


def _is_same(one: float, other: float) -> bool:
    if not (math.isfinite(one) and math.isfinite(other)):
        return True
    return abs(one - other) <= _SAME * max(one, other)
