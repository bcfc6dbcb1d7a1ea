"""What a Lightning user's loader says of its micro-batches."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rightbatch import _checks
from rightbatch.errors import InputError

_WHO = "BatchSizeCallback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """What a replica's loader serves.

    Args:
        micro_batch_size: Examples in a batch of the loader.
        epoch_size: Examples of an epoch, of this replica; None where unknown.
        most: Examples that a batch can have; infinite where unknown.
        num_batches: Of an epoch; infinite where unknown.
    """

    micro_batch_size: int
    epoch_size: int | None
    most: float
    num_batches: float

    def agree_with(self, num_batches: float) -> None:
        """Refuse another number of batches than at first.

        Args:
            num_batches: Of an epoch that begins.

        Raises:
            InputError: There are more or fewer: parts of an epoch are counted by the
                first one's length.
        """
        if num_batches != self.num_batches:
            raise InputError(
                f"{_WHO}: every epoch must have as many batches as the first, "
                f"{self.num_batches:g}, got {num_batches:g} from the loader that the "
                "Trainer made anew.",
                "Trainer(limit_train_batches=...), no larger than the shortest epoch",
            )


def loads_of(loader: Any, given: int | None, num_batches: float) -> Loads:
    """Return what a loader serves.

    Args:
        loader: As the Trainer has it; or several, in a collection.
        given: The micro-batch size, where the user said it.
        num_batches: Of an epoch; infinite where unknown.

    Raises:
        InputError: The loader does not tell how many examples a batch has.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loads_of(DataLoader(range(10), batch_size=4), None, num_batches=3)
        Loads(micro_batch_size=4, epoch_size=10, most=4, num_batches=3)
    """
    own = _batch_size(loader)
    size = own if given is None else given
    if size is None:
        raise InputError(
            f"{_WHO}: `micro_batch_size` must be given: the loader, "
            f"{_kind(loader)}, does not say how many examples a batch has.",
            "BatchSizeCallback(..., micro_batch_size=...), and count=... where batches "
            "differ in more than the last",
        )
    served = None
    if math.isfinite(num_batches):
        served = int(num_batches) * size
        known: Any = loader.sampler if hasattr(loader, "sampler") else None
        if isinstance(known, Sized):
            served = min(served, len(known))
    return Loads(
        micro_batch_size=size,
        epoch_size=served,
        # Another number than the loader's own is the user's word for it.
        most=size if size == own else math.inf,
        num_batches=num_batches,
    )


def first_length(batch: Any, most: float = math.inf) -> int:
    """Return how many examples a batch has: the length of its first tensor.

    Args:
        batch: A tensor; or a mapping, list or tuple that holds one, however deep.
        most: Examples that it can have.

    Raises:
        InputError: It holds none, or one that is longer.

    Example:
        >>> import torch
        >>> first_length({"name": "x", "images": [torch.zeros(3, 8, 8)]})
        3
    """
    tensor = _first_tensor(batch)
    if tensor is None or not tensor.ndim:
        raise InputError(
            f"{_WHO}: `count` must be given: no tensor in a {type(batch).__name__} "
            "says how many examples it has.",
            "BatchSizeCallback(..., count=lambda batch: ...)",
        )
    length = len(tensor)
    if length > most:
        raise InputError(
            f"{_WHO}: `count` must be given: the first tensor of a batch of {most:g} "
            f"examples has shape {tuple(tensor.shape)}.",
            "BatchSizeCallback(..., count=lambda batch: ...); or micro_batch_size=... "
            "where batches do have more examples than the loader says",
        )
    return length


def counted(count: Callable[[Any], int], batch: Any) -> int:
    """Return what `count` says of a batch.

    Args:
        count: The user's.
        batch: Any.

    Raises:
        InputError: It is no positive whole number.

    Example:
        >>> counted(len, [1, 2, 3])
        3
    """
    return _checks.positive_integer(_WHO, "count", int(count(batch)))


def _first_tensor(batch: Any) -> Tensor | None:
    # Asked of every micro-batch: what most of them are is looked at first.
    if isinstance(batch, Tensor):
        return batch
    parts: Iterable[Any] = ()
    if isinstance(batch, list | tuple):
        parts = batch
    elif isinstance(batch, Mapping):
        parts = batch.values()
    for one in parts:
        found = _first_tensor(one)
        if found is not None:
            return found
    return None


def _batch_size(loader: Any) -> int | None:
    holders = [loader]
    if hasattr(loader, "batch_sampler"):
        holders.append(loader.batch_sampler)
    sizes = [one.batch_size for one in holders if hasattr(one, "batch_size")]
    return next((size for size in sizes if isinstance(size, int)), None)


def _kind(loader: Any) -> str:
    if isinstance(loader, Mapping | Sequence):
        return f"{len(loader)} loaders in a {type(loader).__name__}"
    return f"a {type(loader).__name__}"
