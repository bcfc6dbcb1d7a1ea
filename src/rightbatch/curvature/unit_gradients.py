"""Gradients of equal units of examples, and what their spread says."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rightbatch import _checks
from rightbatch.batch_norm import BATCH_NORMALIZATIONS, mixes_examples
from rightbatch.curvature.loss_surface import (
    Loss,
    LossSurface,
    checked_finite,
    listed,
    own_differentiation,
)
from rightbatch.curvature.products import checked_diagonal
from rightbatch.errors import InputError
from rightbatch.noise_scale import GradientMoments


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitGradients:
    r"""Mean gradients of independent units of the same number of examples.

    Args:
        rows: One gradient per unit, shape (R, n).
        unit_size: b, examples in each unit.

    Raises:
        InputError: There are no rows, a number is not finite or the size is not whole.

    Example:
        >>> units = UnitGradients(rows=torch.tensor([[1.0], [3.0]]), unit_size=4)
        >>> units.moments()
        GradientMoments(grad_sq_norm=3.0, grad_variance=8.0)
    """

    rows: Tensor
    unit_size: int

    def __post_init__(self) -> None:
        _checks.positive_integer("UnitGradients", "unit_size", self.unit_size)
        if self.rows.ndim != 2 or not self.rows.numel():
            raise InputError(
                "UnitGradients: `rows` must be one gradient per unit, shape (R, n), "
                f"got shape {tuple(self.rows.shape)}."
            )
        checked_finite("UnitGradients", "rows", self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def mean(self) -> Tensor:
        """The gradient of all units together. Shape (n,)."""
        return self.rows.mean(0)

    def moments(self) -> GradientMoments:
        r"""Return unbiased estimates of the squared norm and the variance.

        .. math:: \mathrm{tr}\,\Sigma \approx \frac{b}{R-1} \sum_j |g_j - \bar g|^2,
                  \quad |G|^2 \approx |\bar g|^2 - \mathrm{tr}\,\Sigma / (b R)

        After :meth:`scaled` they are those of D g, an optimizer's own noise scale.

        Raises:
            InputError: There are fewer than two units.
        """
        need_units("moments", len(self), 2)
        mean = self.mean
        spread = float((self.rows - mean).square().sum()) / (len(self) - 1)
        return GradientMoments(
            grad_sq_norm=float(mean.square().sum()) - spread / len(self),
            grad_variance=self.unit_size * spread,
        )

    def scaled(self, diagonal: Tensor) -> "UnitGradients":
        """Return D g in place of g, for a preconditioner of before the step.

        A preconditioner that has seen these gradients is no constant, and the moments
        would not be unbiased.

        Args:
            diagonal: D, not negative, shape (n,).

        Returns:
            The units, each multiplied by D.

        Raises:
            InputError: The diagonal is negative, all zero or of another shape.
        """
        size = self.rows.shape[1]
        factors = checked_diagonal("scaled", diagonal, size).to(self.rows)
        return replace(self, rows=self.rows * factors)

    def along(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return one example's variance and the squared gradient along directions.

        .. math:: s_k = b\, \mathrm{var}_j \langle g_j, y_k \rangle, \quad
                  \langle \bar g, y_k \rangle^2 - s_k / (b R)

        Both unbiased, for directions that do not depend on these units; the second may
        fall below zero.

        Args:
            directions: Unit vectors as rows, shape (m, n).

        Returns:
            The two, each of shape (m,).

        Raises:
            InputError: There are fewer than two units.
        """
        need_units("along", len(self), 2)
        dots = self.rows.to(directions) @ directions.T
        variance = dots.var(0, unbiased=True)
        return self.unit_size * variance, dots.mean(0).square() - variance / len(self)

    def blocks(self, num_blocks: int) -> "Iterator[UnitGradients]":
        """Yield the units in so many equal blocks, in order; a rest is left out.

        Raises:
            InputError: There are fewer units than blocks.
        """
        count = _checks.positive_integer("blocks", "num_blocks", num_blocks)
        need_units("blocks", len(self), count)
        length = len(self) // count
        for k in range(count):
            yield replace(self, rows=self.rows[k * length : (k + 1) * length])


def unit_gradients(
    model: nn.Module, loss: Loss, batches: Iterable[Any]
) -> UnitGradients:
    """Return the gradient of the mean loss of each batch, one row per batch.

    Args:
        model: Left as it is; in eval mode if it holds batch normalisation.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,).
        batches: Independent units of the same number of examples; one of each is best
            where it can be afforded.

    Returns:
        The gradients of all units, held at the same time.

    Raises:
        InputError: Units differ in size or depend on each other, there are none, no
            parameter is trainable, the loss is not one value per example, or a gradient
            is not finite.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> slope = lambda model, x: model(x).squeeze(1)
        >>> units = unit_gradients(model, slope, [torch.ones(2, 1), torch.zeros(2, 1)])
        >>> units.rows.tolist(), units.unit_size
        ([[1.0], [0.0]], 2)
    """
    surface = LossSurface("unit_gradients", model)
    refuse_batch_norm("unit_gradients", model)
    found = listed("unit_gradients", batches)
    with own_differentiation(surface.leaves):
        gradients = [surface.gradient(loss, batch) for batch in found]
    size = equal_size("unit_gradients", [examples for _, examples in gradients])
    return UnitGradients(rows=torch.stack([g for g, _ in gradients]), unit_size=size)


def in_units(batch: Any, unit_size: int = 1) -> list[Any]:
    """Return a batch cut along its first axis into units; a rest is left out.

    Args:
        batch: A tensor, or tensors in tuples, lists and dicts, examples first.
        unit_size: Examples in each unit.

    Returns:
        The units, views of the batch.

    Raises:
        InputError: The batch holds something else than tensors of as many examples, or
            is smaller than a unit.

    Example:
        >>> in_units((torch.arange(5), torch.ones(5)), unit_size=2)[1]
        (tensor([2, 3]), tensor([1., 1.]))
    """
    size = _checks.positive_integer("in_units", "unit_size", unit_size)
    lengths = {t.shape[0] if t.ndim else 0 for t in _tensors(batch)}
    if len(lengths) != 1 or min(lengths) < size:
        raise InputError(
            f"in_units: `batch` must hold tensors of one length, at least {size}, got "
            f"lengths {sorted(lengths)}."
        )
    count = lengths.pop() // size
    return [_part(batch, slice(k * size, (k + 1) * size)) for k in range(count)]


def need_units(who: str, num_units: int, needed: int) -> None:
    """Refuse fewer units than needed.

    Raises:
        InputError: There are fewer.
    """
    if num_units < needed:
        raise InputError(
            f"{who}: `units` must be at least {needed}, got {num_units}.",
            "in_units cuts a batch into smaller ones",
        )


def equal_size(who: str, sizes: list[int]) -> int:
    """Return the size of units if they are all of the same.

    Raises:
        InputError: They are not.
    """
    if len(set(sizes)) != 1:
        raise InputError(
            f"{who}: `batches` must hold the same number of examples each, got "
            f"{min(sizes)} to {max(sizes)}.",
            "leave the last, smaller one out",
        )
    return sizes[0]


def refuse_batch_norm(who: str, model: nn.Module) -> None:
    """Refuse a model whose examples see each other.

    Raises:
        InputError: Batch normalisation takes its statistics from the batch.
    """
    for name, module in model.named_modules():
        if isinstance(module, BATCH_NORMALIZATIONS) and mixes_examples(module):
            raise InputError(
                f"{who}: `model` must not normalise over the batch, got {name or 'it'} "
                f"({type(module).__name__}) doing so: a gradient then depends on how "
                "examples are grouped.",
                "call model.eval() first, with running statistics",
            )


def _tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, (tuple, list)):
        return [t for part in batch for t in _tensors(part)]
    if isinstance(batch, dict):
        return [t for part in batch.values() for t in _tensors(part)]
    raise InputError(
        f"in_units: `batch` must hold tensors only, got {type(batch).__name__}.",
        "cut it yourself, and hand over the list of units",
    )


def _part(batch: Any, place: slice) -> Any:
    if isinstance(batch, Tensor):
        return batch[place]
    if isinstance(batch, dict):
        return {key: _part(value, place) for key, value in batch.items()}
    parts = [_part(value, place) for value in batch]
    return parts if isinstance(batch, list) else tuple(parts)
