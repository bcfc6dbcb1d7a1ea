r"""The two factors by which K-FAC knows the curvature of a layer.

For a layer with inputs :math:`a` (a one appended for the bias) and derivatives
:math:`g` of the loss with respect to its outputs, the Fisher matrix of its weights is
taken to be :math:`A \otimes G` with :math:`A = E\,a a^\top`, :math:`G = E\,g g^\top`
(Martens and Grosse, 2015). A convolution, and a linear layer applied at several
places, sums :math:`A` over the places of an example and averages :math:`G` over them
(Grosse and Martens, 2016).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# A factor of more rows takes longer to invert than hundreds of updates: 3,200 rows
# some ten seconds of a core, and each doubling eight times that.
MAX_SIDE = 3200

Layer = nn.Linear | nn.Conv2d


def layers_of(model: nn.Module) -> tuple[Layer, ...]:
    """Return the layers whose factors can be measured, in the model's order.

    Linear layers and plain two-dimensional convolutions, if their weights are trained;
    no groups, and padding by zeros of a given number. Neither factor has more than
    :data:`MAX_SIDE` rows: a layer into or out of a large vocabulary is left out.

    Args:
        model: Whose layers.

    Example:
        >>> layers_of(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
        (Linear(in_features=2, out_features=3, bias=True),)
    """
    found: list[Layer] = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and _is_known(module):
            found.append(module)
    return tuple(found)


def input_factor(layer: Layer, inputs: list[Tensor], num_examples: int) -> Tensor:
    """Return A, the second moment of the inputs summed over places.

    Args:
        layer: Whose inputs.
        inputs: Of each use of the layer, as it was given them.
        num_examples: In the batch.

    Returns:
        Shape (n, n), n the inputs of one output, the bias's one last.
    """
    rows = torch.cat([_input_rows(layer, part) for part in inputs])
    if layer.bias is not None:
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
    return rows.T @ rows / num_examples


def output_factor(layer: Layer, gradients: list[Tensor]) -> Tensor:
    """Return G, the second moment of the outputs' gradients averaged over places.

    Args:
        layer: Whose outputs.
        gradients: Of each use, of the sum of the examples' losses.

    Returns:
        Shape (m, m), m the outputs.
    """
    if isinstance(layer, nn.Conv2d):
        gradients = [gradient.movedim(1, -1) for gradient in gradients]
    rows = torch.cat(
        [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
    )
    return rows.T @ rows / len(rows)


def damped_inverses(a: Tensor, g: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    r"""Return the inverses of both factors, the damping shared between them.

    :math:`(A + \pi \sqrt\lambda I)^{-1}` and :math:`(G + \sqrt\lambda / \pi\, I)^{-1}`
    with :math:`\pi^2` the ratio of their mean eigenvalues (Martens and Grosse, 2015,
    section 6.3).

    Args:
        a: Shape (n, n).
        g: Shape (m, m).
        damping: The damping, above 0.

    Example:
        >>> a, g = damped_inverses(torch.eye(1) * 4, torch.eye(1), damping=1.0)
        >>> a.item(), round(g.item(), 3)
        (0.1666666716337204, 0.667)
    """
    tiny = torch.finfo(a.dtype).tiny
    pi = (
        (a.trace() / len(a)).clamp_min(tiny) / (g.trace() / len(g)).clamp_min(tiny)
    ).sqrt()
    root = damping**0.5
    return _inverse(a, pi * root), _inverse(g, root / pi)


def _inverse(matrix: Tensor, damping: Tensor) -> Tensor:
    # Rounding leaves eigenvalues a little below 0, where a Cholesky factor would fail.
    values, vectors = torch.linalg.eigh(matrix)
    return vectors / (values.clamp_min(0) + damping) @ vectors.T


def _input_rows(layer: Layer, inputs: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return inputs.reshape(-1, inputs.shape[-1])
    patches = functional.unfold(
        inputs,
        layer.kernel_size,
        dilation=layer.dilation,
        padding=layer.padding,  # type: ignore[arg-type]
        stride=layer.stride,
    )
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])


def _is_known(module: Layer) -> bool:
    num_outputs = len(module.weight)
    num_inputs = module.weight[0].numel() + (module.bias is not None)
    if max(num_outputs, num_inputs) > MAX_SIDE:
        return False
    if isinstance(module, nn.Linear):
        return module.weight.requires_grad
    return (
        module.weight.requires_grad
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
