"""Batches of any nesting: moved to a device, joined, cut along their examples.

A batch is a tensor, an array, or tuples, named tuples, lists and dicts of them, the
examples along the first axis. A list or tuple holds columns where its members are such
batches, and one value per example where they are plain (a list of strings, say).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

PLAIN = (str, bytes, int, float, bool, type(None))


class NotJoinableError(Exception):
    """The examples of a batch cannot be told apart, or two batches do not match."""


def moved(batch: Any, device: torch.device, *, non_blocking: bool = False) -> Any:
    """Return a batch with its tensors on a device.

    Args:
        batch: Any nesting; what is no tensor and has no ``to`` is left as it is.
        device: Where to.
        non_blocking: Copy from pinned memory without waiting.

    Example:
        >>> moved({"x": [torch.ones(1), "text"]}, torch.device("cpu"))
        {'x': [tensor([1.]), 'text']}
    """
    if isinstance(batch, Tensor):
        if non_blocking and batch.device.type == "cpu" and not batch.is_pinned():
            batch = batch.pin_memory()
        return batch.to(device, non_blocking=non_blocking)
    if isinstance(batch, PackedSequence) or not _is_nest(batch):
        return cast(Any, batch).to(device) if hasattr(batch, "to") else batch
    return _mapped(
        [batch], lambda parts: moved(parts[0], device, non_blocking=non_blocking)
    )


def joined(batches: Sequence[Any], counts: Sequence[int]) -> Any:
    """Return several batches as one, concatenated along their examples.

    Args:
        batches: Of one nesting.
        counts: Examples in each.

    Raises:
        NotJoinableError: Their shapes, types or nestings differ, or a part of them
            does not have the examples along its first axis.

    Example:
        >>> joined([(torch.zeros(1), ["a"]), (torch.ones(2), ["b", "c"])], [1, 2])
        (tensor([0., 1., 1.]), ['a', 'b', 'c'])
    """
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    if any(type(batch) is not type(first) for batch in batches):
        raise NotJoinableError
    if isinstance(first, (Tensor, np.ndarray)):
        return _concatenated(batches, counts)
    if isinstance(first, PLAIN):
        if any(batch != first for batch in batches):
            raise NotJoinableError
        return first
    if _is_values(first):
        if [len(batch) for batch in batches] != list(counts):
            raise NotJoinableError
        return type(first)(value for batch in batches for value in batch)
    if isinstance(first, PackedSequence) or not _is_nest(first):
        raise NotJoinableError
    return _mapped(batches, lambda parts: joined(parts, counts))


def cut(batch: Any, start: int, stop: int, count: int) -> Any:
    """Return the examples of a batch from `start` up to `stop`.

    Args:
        batch: Any nesting.
        start: First example wanted.
        stop: The one after the last.
        count: Examples in the batch.

    Raises:
        NotJoinableError: A part of it does not have the examples along its first axis.

    Example:
        >>> cut({"x": torch.arange(3), "name": "train"}, 1, 3, 3)
        {'x': tensor([1, 2]), 'name': 'train'}
    """
    if (start, stop) == (0, count):
        return batch
    if isinstance(batch, (Tensor, np.ndarray)):
        if not _is_strided(batch) or len(batch) != count:
            raise NotJoinableError
        return batch[start:stop]
    if isinstance(batch, PLAIN):
        return batch
    if _is_values(batch):
        if len(batch) != count:
            raise NotJoinableError
        return batch[start:stop]
    if isinstance(batch, PackedSequence) or not _is_nest(batch):
        raise NotJoinableError
    return _mapped([batch], lambda parts: cut(parts[0], start, stop, count))


def length_of(batch: Any) -> int | None:
    """Return how long the first tensor or array of a batch is; None without one.

    Example:
        >>> length_of({"names": ["a", "b"], "x": torch.zeros(2, 3)})
        2
    """
    if isinstance(batch, (Tensor, np.ndarray)):
        return len(batch) if batch.ndim else None
    if not _is_nest(batch):
        return None
    members = batch.values() if isinstance(batch, Mapping) else batch
    found = (length_of(member) for member in cast(Any, members))
    return next((length for length in found if length is not None), None)


def _mapped(batches: Sequence[Any], act: Callable[[list[Any]], Any]) -> Any:
    """Return the nesting of some batches, `act` having been done to their members.

    Raises:
        NotJoinableError: Their nestings differ.
    """
    first = batches[0]
    if isinstance(first, Mapping):
        keys = cast(Mapping[Any, Any], first).keys()
        if any(batch.keys() != keys for batch in batches):
            raise NotJoinableError
        members = {key: act([batch[key] for batch in batches]) for key in keys}
        return members if type(first) is dict else type(cast(Any, first))(members)
    if any(len(batch) != len(first) for batch in batches):
        raise NotJoinableError
    parts = [act(list(column)) for column in zip(*batches, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)


def _concatenated(batches: Sequence[Any], counts: Sequence[int]) -> Any:
    first = batches[0]
    for batch, count in zip(batches, counts, strict=True):
        if not _is_strided(batch) or len(batch) != count:
            raise NotJoinableError
        if batch.shape[1:] != first.shape[1:] or batch.dtype != first.dtype:
            raise NotJoinableError
    if isinstance(first, Tensor):
        return torch.cat(list(batches))
    return np.concatenate(batches)


def _is_strided(part: Any) -> bool:
    if isinstance(part, Tensor) and (part.is_nested or part.layout != torch.strided):
        return False
    return part.ndim > 0


def _is_nest(batch: Any) -> bool:
    return isinstance(batch, (Mapping, tuple, list))


def _is_values(batch: Any) -> bool:
    return (
        isinstance(batch, (tuple, list))
        and not hasattr(batch, "_fields")
        and len(cast(Any, batch)) > 0
        and all(isinstance(value, PLAIN) for value in cast(Sequence[Any], batch))
    )
