r"""Hessian and Gauss-Newton matrices known by what they do to a vector.

A Hessian-vector product differentiates the inner product of gradient and vector once
more (Pearlmutter, 1994); the matrix itself, n by n numbers, is never there. The
Gauss-Newton matrix :math:`J^\top H_{out} J` (Schraudolph, 2002) leaves out the
curvature of the outputs themselves: it has no negative directions where the loss is
convex in the outputs.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from rightbatch.curvature.loss_surface import (
    Loss,
    LossSurface,
    OutputLoss,
    checked_finite,
    checked_losses,
    flatten,
    listed,
    own_differentiation,
    unflatten,
)
from rightbatch.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """A symmetric matrix known by its products with vectors.

    Args:
        name: What it is, for messages.
        apply: Returns the matrix times a flat vector.
        like: A flat vector whose size, dtype and device are those taken.

    Example:
        >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> product = Product(name="H", apply=matrix.mv, like=torch.zeros(2))
        >>> product(torch.tensor([1.0, 0.0])).tolist(), product.size
        ([2.0, 1.0], 2)
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    like: Tensor

    @property
    def size(self) -> int:
        """Number of rows, the trainable parameters of a model."""
        return self.like.numel()

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the matrix times a vector, shape (n,).

        Raises:
            InputError: The vector is not a flat one of this size, or the product is not
                finite.
        """
        checked_vector(self.name, "vector", vector, self.size)
        product = self.apply(vector.to(self.like))
        return checked_finite(self.name, "product", product)

    def preconditioned(self, diagonal: Tensor) -> "Product":
        r"""Return :math:`D^{1/2} H D^{1/2}`, with the eigenvalues of :math:`D H`.

        It is the curvature an optimizer that moves along D g sees. Per-example
        gradients that go with it are those times :math:`D^{1/2}`.

        Args:
            diagonal: D, not negative, shape (n,).

        Returns:
            The product.

        Raises:
            InputError: The diagonal is negative, all zero or of another shape.

        Example:
            >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
            >>> product = Product(name="H", apply=matrix.mv, like=torch.zeros(2))
            >>> scaled = product.preconditioned(torch.tensor([4.0, 1.0]))
            >>> scaled(torch.tensor([1.0, 0.0])).tolist()
            [8.0, 2.0]
        """
        root = checked_diagonal(self.name, diagonal, self.size).to(self.like).sqrt()
        return Product(
            name=f"preconditioned {self.name}",
            apply=lambda vector: root * self.apply(root * vector),
            like=self.like,
        )


def hessian(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    *,
    seed: int = 0,
    keep_graphs: bool = False,
) -> Product:
    """Return the Hessian of the mean loss over batches, as a product.

    The mean is over examples: a batch counts by how many it holds. The matrix is that
    of the parameters at the time of a product, in the model's present mode.

    Args:
        model: Left as it is.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,).
        batches: A list of what `loss` takes; gone through at every product.
        seed: Of the random numbers the model draws (dropout), the same ones at every
            product: the matrix must not change between two of them.
        keep_graphs: Keep what the second differentiation needs from the first product
            on, for all batches: .6 of the time, and the memory of a forward and a
            backward pass over all of them. Ends with an error of torch if the
            parameters are changed between products.

    Returns:
        The product; a call costs three to four gradients, two with graphs kept.

    Raises:
        InputError: No parameter is trainable or there is no batch. A product raises
            it if the loss is not one value per example or the result is not finite.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> squares = lambda model, x: model(x).square().sum(1) / 2
        >>> product = hessian(model, squares, [torch.tensor([[1.0, 2.0]])])
        >>> product(torch.tensor([1.0, 0.0])).tolist()
        [1.0, 2.0]
    """
    surface = LossSurface("hessian", model)

    found = listed("hessian", batches)
    kept: dict[int, tuple[tuple[Tensor, ...], int]] = {}

    def gradients(place: int) -> tuple[tuple[Tensor, ...], int]:
        if place in kept:
            return kept[place]
        losses = surface.losses(loss, found[place])
        parts = torch.autograd.grad(
            losses.sum(), surface.leaves, create_graph=True, materialize_grads=True
        )
        if keep_graphs:
            kept[place] = parts, len(losses)
        return parts, len(losses)

    def product_sum(place: int, vector: list[Tensor]) -> tuple[Tensor, int]:
        parts, examples = gradients(place)
        bent = _differentiated(parts, vector, surface.leaves, keep_graph=keep_graphs)
        return bent, examples

    return _mean_product(surface, len(found), product_sum, seed)


def gauss_newton(
    model: nn.Module, loss: Loss, batches: Iterable[Any], *, seed: int = 0
) -> Product:
    r"""Return the Gauss-Newton matrix of the mean loss over batches, as a product.

    .. math:: \frac1n \sum_i J_i^\top \, \nabla^2_{out} \ell_i \, J_i

    with J the derivative of the outputs. For a likelihood of the exponential family
    (cross-entropy, squares) it is the Fisher matrix.

    Args:
        model: Left as it is.
        loss: An `OutputLoss`: the outputs and the loss of them.
        batches: A list of batches; gone through at every product.
        seed: Of the random numbers the model draws, the same ones at every product.

    Returns:
        The product.

    Raises:
        InputError: The loss is not in two parts, no parameter is trainable or there is
            no batch. A product raises it as for `hessian`.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> squares = OutputLoss(
        ...     outputs=lambda model, x: model(x),
        ...     loss_of_outputs=lambda outputs, x: outputs.square().sum(1) / 2,
        ... )
        >>> product = gauss_newton(model, squares, [torch.tensor([[1.0, 2.0]])])
        >>> product(torch.tensor([1.0, 0.0])).tolist()
        [1.0, 2.0]
    """
    if not isinstance(loss, OutputLoss):
        raise InputError(
            f"gauss_newton: `loss` must be an OutputLoss, got {type(loss).__name__}.",
            "OutputLoss(outputs=..., loss_of_outputs=...) names its two parts",
        )
    surface = LossSurface("gauss_newton", model)

    found = listed("gauss_newton", batches)

    def product_sum(place: int, parts: list[Tensor]) -> tuple[Tensor, int]:
        batch = found[place]
        outputs = surface.evaluate(loss.outputs, batch)
        moved = _moved_outputs(outputs, parts, surface.leaves)
        cut = outputs.detach().requires_grad_()
        losses = checked_losses(surface.who, loss.loss_of_outputs(cut, batch))
        (slope,) = torch.autograd.grad(losses.sum(), cut, create_graph=True)
        bent = _differentiated([slope], [moved], [cut]).view_as(outputs)
        back = torch.autograd.grad(
            outputs, surface.leaves, bent, materialize_grads=True
        )
        return flatten(back), len(losses)

    return _mean_product(surface, len(found), product_sum, seed)


def hessian_vector_product(
    model: nn.Module, loss: Loss, batches: Iterable[Any], vector: Tensor
) -> Tensor:
    """Return the Hessian of the mean loss over batches times a flat vector.

    See :func:`hessian`, of which this is one product.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> squares = lambda model, x: model(x).square().sum(1) / 2
        >>> along = torch.tensor([0.0, 1.0])
        >>> hessian_vector_product(model, squares, [torch.ones(3, 2)], along).tolist()
        [1.0, 1.0]
    """
    return hessian(model, loss, batches)(vector)


def gauss_newton_vector_product(
    model: nn.Module, loss: Loss, batches: Iterable[Any], vector: Tensor
) -> Tensor:
    """Return the Gauss-Newton matrix over batches times a flat vector.

    See :func:`gauss_newton`, of which this is one product.
    """
    return gauss_newton(model, loss, batches)(vector)


def checked_vector(who: str, name: str, vector: Tensor, size: int) -> Tensor:
    """Return the vector if it is flat and of this size.

    Raises:
        InputError: It is not.
    """
    if vector.shape != (size,):
        raise InputError(
            f"{who}: `{name}` must be flat with {size} numbers, one per trainable "
            f"parameter, got shape {tuple(vector.shape)}."
        )
    return vector


def checked_diagonal(who: str, diagonal: Tensor, size: int) -> Tensor:
    """Return a preconditioner's diagonal if it is not negative and of this size.

    Raises:
        InputError: It is not.
    """
    checked_vector(who, "diagonal", diagonal, size)
    low, high = float(diagonal.min()), float(diagonal.max())
    if not (low >= 0 and 0 < high < math.inf):
        raise InputError(
            f"{who}: `diagonal` must be finite, not negative and not all zero, got "
            f"{low:g} to {high:g}."
        )
    return diagonal


def _mean_product(
    surface: LossSurface,
    num_batches: int,
    product_sum: Callable[[int, list[Tensor]], tuple[Tensor, int]],
    seed: int,
) -> Product:
    """Return the mean over examples of products summed over a batch's examples."""

    def apply(vector: Tensor) -> Tensor:
        total, count = torch.zeros_like(vector), 0
        parts = unflatten(vector, surface.leaves)
        # Fused attention kernels have no second derivative.
        with own_differentiation(surface.leaves, seed), sdpa_kernel(SDPBackend.MATH):
            for place in range(num_batches):
                product, examples = product_sum(place, parts)
                total += product
                count += examples
        return total / count

    return Product(name=surface.who, apply=apply, like=surface.point)


def _differentiated(
    values: Iterable[Tensor],
    weights: Iterable[Tensor],
    leaves: list[Tensor],
    *,
    keep_graph: bool = False,
) -> Tensor:
    """Return the flat derivative of sum(weights * values), zero where there is none."""
    pairs = [(v, w) for v, w in zip(values, weights, strict=True) if v.requires_grad]
    if not pairs:
        return flatten(torch.zeros_like(leaf) for leaf in leaves)
    parts = torch.autograd.grad(
        [v for v, _ in pairs],
        leaves,
        [w for _, w in pairs],
        retain_graph=keep_graph,
        materialize_grads=True,
    )
    return flatten(parts)


def _moved_outputs(
    outputs: Tensor, parts: list[Tensor], leaves: list[Tensor]
) -> Tensor:
    """Return J v: the derivative along u of J'u, which is linear in u, times v."""
    probe = torch.zeros_like(outputs, requires_grad=True)
    pulled = torch.autograd.grad(
        outputs, leaves, probe, create_graph=True, materialize_grads=True
    )
    return _differentiated(pulled, parts, [probe]).view_as(outputs)
