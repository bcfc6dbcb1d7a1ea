"""Layers that hold the parameters of several models at once, one behind the other.

A model's twin is the model itself, its layers exchanged for these. It takes the rows
of all members, the first row of each member first, then the second rows: S members
with M rows each are M S rows, and row m S + s is member s's. A layer tells the members
apart by that; all else (activations, pools, sums, the model's own code) goes row by
row and needs no twin.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def make_twin(model: nn.Module) -> nn.Module | None:
    """Return the twin of a model; None where a parameter is in no layer known here.

    Args:
        model: Is left as it is.

    Returns:
        A module in whose parameters' places :func:`bind` puts stacked ones.

    Example:
        >>> twin = make_twin(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
        >>> bind(twin, {"0.weight": torch.ones(5, 3, 2), "0.bias": torch.zeros(5, 3)})
        >>> twin(torch.ones(4 * 5, 2)).shape
        torch.Size([20, 3])
    """
    twin = _exchanged(copy.deepcopy(model))
    known = {
        parameter
        for module in twin.modules()
        if isinstance(module, _Twin)
        for parameter in module.parameters()
    }
    every = list(twin.parameters())
    # Held by two layers under one name, it would be bound in one of them.
    names = list(twin.named_parameters(remove_duplicate=False))
    if not known.issuperset(every) or len(names) > len(every):
        return None
    return twin


def bind(twin: nn.Module, stacked: Mapping[str, Tensor]) -> None:
    """Put stacked parameters in their places.

    Args:
        twin: As :func:`make_twin` returns it.
        stacked: By the parameter's name in the model, shape (S, ...).
    """
    for name, parameter in stacked.items():
        place, _, attribute = name.rpartition(".")
        module = twin.get_submodule(place)
        delattr(module, attribute)
        # No parameter of the module's: autograd's leaf, or a tensor being compiled.
        setattr(module, attribute, parameter)


class _Twin(nn.Module):
    """A layer whose `weight` and `bias` have a first axis of members."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.weight = layer.weight
        self.bias = layer.bias


class _Linear(_Twin):
    def forward(self, inputs: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        members, features = weight.shape[0], inputs.shape[-1]
        rows = inputs.reshape(-1, members, inputs[0].numel() // features, features)
        # Of each member all its rows, and all places of a row: (S, M T, features).
        each = rows.transpose(0, 1).reshape(members, -1, features)
        transposed = weight.transpose(1, 2)
        if bias is None:
            out = each.bmm(transposed)
        else:
            out = bias.unsqueeze(1).baddbmm(each, transposed)
        out = out.reshape(members, *rows.shape[:1], *rows.shape[2:3], -1)
        return out.transpose(0, 1).reshape(*inputs.shape[:-1], -1)


class _Conv(_Twin):
    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self._groups = layer.groups
        self._padding, self._dilation = layer.padding, layer.dilation
        self._stride = layer.stride
        self._convolve: Callable[..., Tensor] = (
            functional.conv2d if isinstance(layer, nn.Conv2d) else functional.conv1d
        )

    def forward(self, inputs: Tensor) -> Tensor:
        members = self.weight.shape[0]
        rows, channels, *size = inputs.shape
        # The channels of all members side by side: a convolution in groups.
        out = self._convolve(
            inputs.reshape(rows // members, members * channels, *size),
            self.weight.flatten(0, 1),
            None if self.bias is None else self.bias.flatten(),
            stride=self._stride,
            padding=self._padding,
            dilation=self._dilation,
            groups=members * self._groups,
        )
        return out.reshape(rows, -1, *out.shape[2:])


class _LayerNorm(_Twin):
    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self._shape, self._eps = layer.normalized_shape, layer.eps

    def forward(self, inputs: Tensor) -> Tensor:
        members = self.weight.shape[0]
        normal = functional.layer_norm(inputs, self._shape, eps=self._eps)
        rows = normal.reshape(-1, members, *inputs.shape[1:])
        places = [1] * (inputs.ndim - 1 - len(self._shape))
        out = rows * self.weight.reshape(members, *places, *self._shape)
        if self.bias is not None:
            out = out + self.bias.reshape(members, *places, *self._shape)
        return out.reshape(inputs.shape)


class _Embedding(_Twin):
    def __init__(self, layer: Any) -> None:
        nn.Module.__init__(self)
        self.weight = layer.weight

    def forward(self, inputs: Tensor) -> Tensor:
        members, entries, _ = self.weight.shape
        offsets = entries * torch.arange(members, device=inputs.device)
        rows = inputs.reshape(-1, members, inputs[0].numel()) + offsets.unsqueeze(1)
        return functional.embedding(
            rows.reshape(inputs.shape), self.weight.flatten(0, 1)
        )


def _twin_of(layer: Any) -> nn.Module | None:
    # A subclass may do something else, so the type itself is asked for.
    kind = type(layer)
    if kind is nn.Linear:
        return _Linear(layer)
    if kind in (nn.Conv1d, nn.Conv2d) and layer.padding_mode == "zeros":
        return _Conv(layer)
    if kind is nn.LayerNorm and layer.weight is not None:
        return _LayerNorm(layer)
    if kind is nn.Embedding:
        special = (layer.padding_idx, layer.max_norm)
        if special == (None, None) and not (layer.sparse or layer.scale_grad_by_freq):
            return _Embedding(layer)
    return None


def _exchanged(module: nn.Module) -> nn.Module:
    twin = _twin_of(module)
    if twin is not None:
        return twin
    for name, child in module.named_children():
        setattr(module, name, _exchanged(child))
    return module
