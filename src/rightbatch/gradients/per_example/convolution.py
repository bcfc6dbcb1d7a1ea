"""Gradients of single examples of the weight of a convolution, of any dimension."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional, grad

from rightbatch.gradients.per_example.linear import CHUNK_NUMBERS, squares_of

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_WEIGHT_GRADIENTS: dict[int, Callable[..., Tensor]] = {
    1: grad.conv1d_weight,
    2: grad.conv2d_weight,
    3: grad.conv3d_weight,
}
# Numbers of a weight past which the library's grouped gradient is slow on a CPU: at
# 128 x 128 x 9 it took four times as long as one by rows, at 64 x 64 x 9 less.
LARGE_WEIGHT = 100_000


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution walks over its input.

    Args:
        kernel: Size of the kernel, one number per dimension.
        stride: Steps between places of the kernel.
        padding: Zeros put round the input, both sides of each dimension, last first,
            as ``torch.nn.functional.pad`` takes them.
        dilation: Steps within the kernel.
        groups: Groups of channels.
        mode: How the input is padded: "constant" for zeros.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    mode: str

    @classmethod
    def of(cls, layer: Convolution) -> "Geometry":
        """Return that of a layer, its padding in numbers."""
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        return cls(
            kernel=tuple(layer.kernel_size),
            stride=tuple(layer.stride),
            padding=_padding(layer),
            dilation=tuple(layer.dilation),
            groups=layer.groups,
            mode=mode,
        )


def _padding(layer: Convolution) -> tuple[int, ...]:
    sides: list[int] = []
    for place in reversed(range(len(layer.kernel_size))):
        if isinstance(layer.padding, str):
            # "same" puts the odd zero behind, as torch does.
            whole = layer.dilation[place] * (layer.kernel_size[place] - 1)
            whole = whole if layer.padding == "same" else 0
            sides += [whole // 2, whole - whole // 2]
        else:
            sides += [layer.padding[place]] * 2
    return tuple(sides)


def padded(a: Tensor, geometry: Geometry) -> Tensor:
    """Return the input with its padding put on."""
    if not any(geometry.padding):
        return a
    return functional.pad(a, geometry.padding, mode=geometry.mode)


def summed(layer: Convolution, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared norms of the weight's gradients, and the sum of the gradients.

    Args:
        layer: The layer.
        a: Its input, shape (B, C, ...).
        g: Gradient of its output, shape (B, D, ...).

    Returns:
        Shape (B,), and the weight's.
    """
    geometry = Geometry.of(layer)
    chunk = max(1, CHUNK_NUMBERS // layer.weight.numel())
    if chunk >= len(a):
        return _summed(layer, a, g, geometry)
    pieces = [
        _summed(layer, inputs, outputs, geometry)
        for inputs, outputs in zip(a.split(chunk), g.split(chunk), strict=True)
    ]
    total = pieces[0][1]
    for _, part in pieces[1:]:
        total = total + part
    return torch.cat([squares for squares, _ in pieces]), total


def _summed(
    layer: Convolution, a: Tensor, g: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    if layer.weight.numel() > LARGE_WEIGHT and can_go_by_rows(geometry):
        each = gradients_by_rows(a, g, geometry)
        squares = squares_of(each[0])
        for row in each[1:]:
            squares += squares_of(row)
        total = weight_of_rows(each, layer.in_channels, geometry.kernel[1])
        return squares, total
    each = weight_gradients(a, g, geometry)
    return squares_of(each), each.sum(0)


def weight_gradient(a: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Return the weight's gradient summed over examples, as autograd makes it.

    Args:
        a: The layer's input, shape (B, C, ...).
        g: Gradient of its output, shape (B, D, ...).
        geometry: Of the layer.

    Returns:
        Shape (D, C / groups, ...kernel).
    """
    inside = padded(a, geometry)
    width = inside.shape[1] // geometry.groups
    return _WEIGHT_GRADIENTS[len(geometry.kernel)](
        inside,
        (g.shape[1], width, *geometry.kernel),
        g,
        stride=geometry.stride,
        dilation=geometry.dilation,
        groups=geometry.groups,
    )


def weight_gradients(a: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Return each example's gradient of the weight.

    Args:
        a: The layer's input, shape (B, C, ...).
        g: Gradient of its output, shape (B, D, ...).
        geometry: Of the layer.

    Returns:
        Shape (B, D, C / groups, ...kernel).

    Example:
        >>> layer = nn.Conv1d(1, 1, 2)
        >>> a, g = torch.tensor([[[1.0, 2.0, 4.0]]]), torch.ones(1, 1, 2)
        >>> weight_gradients(a, g, Geometry.of(layer))
        tensor([[[[3., 6.]]]])
    """
    inside = padded(a, geometry)
    if inside.shape[1] == geometry.groups:
        return _correlated(inside, g, geometry)
    # The examples side by side as groups of channels of one: their gradients lie one
    # after the other in the gradient of one large weight.
    batch, out = g.shape[:2]
    apart = replace(geometry, groups=batch * geometry.groups, padding=())
    each = weight_gradient(
        inside.reshape(1, -1, *inside.shape[2:]),
        g.reshape(1, -1, *g.shape[2:]),
        apart,
    )
    return each.view(batch, out, *each.shape[1:])


def _correlated(inside: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Return the same where each group has one channel: quicker as a convolution.

    The gradient of a weight is a correlation of input and output gradient, with stride
    and dilation exchanged (Rochette et al., 2019).
    """
    batch, out = g.shape[:2]
    spatial = inside.shape[2:]
    each = _CONVOLUTIONS[len(spatial)](
        inside.reshape(1, -1, *spatial),
        g.reshape(-1, 1, *g.shape[2:]),
        stride=geometry.dilation,
        dilation=geometry.stride,
        groups=batch * geometry.groups,
    )
    # What lies past the kernel are places the stride never reached.
    for dimension, size in enumerate(geometry.kernel, start=2):
        each = each.narrow(dimension, 0, size)
    return each.reshape(batch, out, 1, *geometry.kernel)


def can_go_by_rows(geometry: Geometry) -> bool:
    """Return whether :func:`gradients_by_rows` knows this layer."""
    return (
        len(geometry.kernel) == 2
        and geometry.groups == 1
        and geometry.stride == (1, 1)
        and geometry.dilation == (1, 1)
    )


def gradients_by_rows(a: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Return each example's gradient of the weight, row of the kernel by row.

    Only the columns of the kernel are laid out side by side; a shift by a row is then
    another view of the same memory, so that the patches take a kernel's height less
    of it than unfolded ones.

    Args:
        a: The layer's input, shape (B, C, H, W).
        g: Gradient of its output, shape (B, D, H', W').
        geometry: Of a layer that :func:`can_go_by_rows`.

    Returns:
        Shape (kernel rows, B, D, C * kernel columns).
    """
    inside = padded(a, geometry)
    batch, channels, height, _ = inside.shape
    high, wide = g.shape[2:]
    rows, columns = geometry.kernel
    patches = inside.new_empty(batch, channels, columns, height, wide)
    for column in range(columns):
        patches[:, :, column] = inside[..., column : column + wide]
    flat = patches.view(batch, channels * columns, height * wide)
    outputs = g.flatten(2)
    each = flat.new_empty(rows, batch, g.shape[1], channels * columns)
    for row in range(rows):
        shifted = flat[..., row * wide : (row + high) * wide]
        torch.bmm(outputs, shifted.transpose(1, 2), out=each[row])
    return each


def weight_of_rows(each: Tensor, channels: int, columns: int) -> Tensor:
    """Return the weight's gradient summed over examples, shape (D, C, rows, columns).

    Args:
        each: From :func:`gradients_by_rows`.
        channels: C.
        columns: Of the kernel.
    """
    total = each.sum(1)
    rows, out = total.shape[:2]
    return total.view(rows, out, channels, columns).permute(1, 2, 0, 3)
