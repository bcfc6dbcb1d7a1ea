"""An identity in the graph, behind a layer: sees the gradient of the layer's output.

Where the sums of the examples' gradients are made here anyway, the layer's own
parameters are left out of the layer's graph and get their gradient from here, so that
it is made once. Saved inputs are saved by autograd: under activation checkpointing they
are recomputed like all others.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function

Answer = Callable[[Tensor, Tensor], Sequence[Tensor | None]]
"""Takes a layer's input and its output's gradient; returns parameter gradients."""


class _Watch(Function):
    @staticmethod
    def forward(
        ctx: Any, output: Tensor, a: Tensor, answer: Answer, *parameters: Tensor
    ) -> Tensor:
        ctx.save_for_backward(a)
        ctx.answer = answer
        ctx.num_parameters = len(parameters)
        # Neither a view, which an activation in place could not follow, nor the output
        # marked as changed, for which autograd would copy every gradient of a view.
        return output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = gradients
        (a,) = ctx.saved_tensors
        return gradient, None, None, *ctx.answer(a, gradient)


def watched(
    output: Tensor, a: Tensor, answer: Answer, parameters: Sequence[Tensor] = ()
) -> Tensor:
    """Return the output of a layer, watched.

    Args:
        output: Of the layer.
        a: Its input.
        answer: Called in the backward pass with the input and the output's gradient.
        parameters: Whose gradients the answer gives.

    Example:
        >>> import torch
        >>> x = torch.ones(2, requires_grad=True)
        >>> seen = []
        >>> y = watched(2 * x, x, lambda a, g: seen.append(g) or ())
        >>> y.sum().backward()
        >>> x.grad, seen
        (tensor([2., 2.]), [tensor([1., 1.])])
    """
    made: Tensor = _Watch.apply(output, a, answer, *parameters)  # pyright: ignore
    return made
