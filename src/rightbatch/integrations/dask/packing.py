"""Tensors as one array of bytes, and back: what travels between processes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]


def pack(tensors: Sequence[Tensor]) -> Bytes:
    """Return the values of tensors of any kinds, one after the other.

    Args:
        tensors: Dense, on any device.

    Returns:
        A new array of bytes.

    Example:
        >>> tensors = [torch.ones(2, dtype=torch.bfloat16), torch.tensor(3)]
        >>> len(pack(tensors))
        12
    """
    pieces = [_flat(tensor) for tensor in tensors]
    return torch.cat(pieces).numpy() if pieces else np.empty(0, np.uint8)


def unpack(packed: Bytes, like: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors from their bytes.

    Args:
        packed: By :func:`pack`.
        like: Tensors of the same shapes and kinds, in the same order.

    Returns:
        Tensors on the CPU, with memory of their own.

    Example:
        >>> tensors = [torch.ones(2, dtype=torch.bfloat16), torch.tensor(3)]
        >>> unpack(pack(tensors), tensors)
        [tensor([1., 1.], dtype=torch.bfloat16), tensor(3)]
    """
    found: list[Tensor] = []
    begin = 0
    for one in like:
        end = begin + one.numel() * one.element_size()
        # A copy: what came from elsewhere can be read only, and is not aligned.
        value = torch.empty(one.shape, dtype=one.dtype)
        value.view(-1).view(torch.uint8).numpy()[:] = packed[begin:end]
        found.append(value)
        begin = end
    return found


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
