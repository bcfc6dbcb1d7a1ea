"""Gradients of single examples of the scale and shift of normalization layers."""

from torch import Tensor, nn
from torch.nn import functional

INSTANCE_NORMALIZATIONS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
# Whose gradient from one example depends on no other example.
NORMALIZATIONS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, *INSTANCE_NORMALIZATIONS)


def normalized(layer: nn.Module, a: Tensor) -> Tensor:
    """Return the input of a layer normalized, before its scale and shift.

    Args:
        layer: One of the normalizations, a batch normalization in evaluation mode.
        a: Its input.

    Example:
        >>> import torch
        >>> normalized(nn.LayerNorm(2, eps=0), torch.tensor([[1.0, 3.0]]))
        tensor([[-1.,  1.]])
    """
    match layer:
        case nn.LayerNorm():
            shape = list(layer.normalized_shape)
            return functional.layer_norm(a, shape, None, None, layer.eps)
        case nn.RMSNorm():
            shape = list(layer.normalized_shape)
            return functional.rms_norm(a, shape, None, layer.eps)
        case nn.GroupNorm():
            return functional.group_norm(a, layer.num_groups, None, None, layer.eps)
        case nn.InstanceNorm1d() | nn.InstanceNorm2d() | nn.InstanceNorm3d():
            return functional.instance_norm(a, eps=layer.eps)
        case _:
            mean, variance = layer.running_mean, layer.running_var
            assert isinstance(mean, Tensor)
            assert isinstance(variance, Tensor)
            eps = layer.eps
            assert isinstance(eps, float)
            return functional.batch_norm(a, mean, variance, eps=eps)


def summed_over_places(layer: nn.Module, values: Tensor) -> Tensor:
    """Return values summed over all places that share a scale, shape (B, ...scale).

    Args:
        layer: Tells which places those are.
        values: As the layer's output, examples first.
    """
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        ends = len(layer.normalized_shape)
        middle = values.ndim - 1 - ends
        return values.flatten(1, middle).sum(1) if middle else values
    return values.flatten(2).sum(2) if values.ndim > 2 else values
