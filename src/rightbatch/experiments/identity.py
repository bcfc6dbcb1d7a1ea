"""What a store of runs belongs to: a workload, told apart by a cheap fingerprint."""

import hashlib
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from rightbatch.errors import WorkloadError
from rightbatch.experiments.randomness import OwnRandomness
from rightbatch.experiments.record import exact_text
from rightbatch.experiments.store import RunStore, StoreIdentity
from rightbatch.workload import Workload, failing_as, num_parameters

# Spread evenly, the ends included: another file, split or order shows in a few.
HASHED_EXAMPLES = 32


def identify(workload: Workload) -> StoreIdentity:
    """Return what the runs of a workload may be stored under.

    The model's number of parameters, the optimizer and its settings, the sizes of the
    data sets with a hash of 32 examples of each, the target's metric, direction and
    examples, and the decay of averaged weights; not the target's value, which a sweep
    is free to choose.

    Raises:
        WorkloadFailedError: The workload's own code raised.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> identify(mlp()).fingerprint["parameters"]
        4810
    """
    target = workload.target
    decay = workload.ema_decay
    # Data may be augmented at random: the same draws give the same hash.
    with failing_as(f"{workload.name}: reading it"), OwnRandomness(0).in_use():
        return StoreIdentity(
            workload=workload.name,
            fingerprint={
                "parameters": num_parameters(workload),
                "optimizer": _optimizer(workload),
                "train": _data(workload.train),
                "evaluate_on": _data(workload.evaluate_on),
                "metric": target.metric,
                "direction": target.direction,
                "on": target.on,
                **({} if decay is None else {"ema_decay": exact_text(decay)}),
            },
            example_unit=workload.example_unit,
        )


def open_store(path: Path, workload: Workload) -> RunStore:
    """Return the store at `path` for the runs of `workload`, made if need be.

    Raises:
        InputError: The path is none for a store.
        StoreMismatchError: It belongs to another workload or version.
        StoreError: It cannot be opened or written.
        WorkloadFailedError: The workload's own code raised.
    """
    return RunStore(path, identify(workload))


def _optimizer(workload: Workload) -> str:
    optimizer: Any = workload.optimizer_for(nn.Linear(1, 1))(
        [nn.Parameter(torch.zeros(1))], 1.0
    )
    if not isinstance(optimizer, Optimizer):
        raise WorkloadError(
            f"{workload.name}: `optimizer` must return a torch optimizer, got "
            f"{type(optimizer).__name__}."
        )
    # Settings left off are left out: torch's releases add new ones, switched off.
    settings = [
        f"{name}={value}"
        for name, value in sorted(optimizer.defaults.items())
        if isinstance(value, (int, float, tuple)) and value is not False and value != 0
    ]
    return f"{type(optimizer).__name__}({', '.join(settings)})"


def _data(dataset: Dataset[Any]) -> str:
    size = len(cast(Sized, dataset))
    digest = hashlib.sha256()
    rows = np.linspace(0, size - 1, min(size, HASHED_EXAMPLES)).astype(int)
    for row in rows.tolist():
        _add(digest, dataset[row])
    return f"{size} examples, {digest.hexdigest()[:16]}"


def _add(digest: Any, part: Any) -> None:
    if isinstance(part, Tensor):
        part = part.detach().cpu().numpy()
    if isinstance(part, np.ndarray):
        array = cast(np.ndarray[Any, Any], part)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    elif isinstance(part, Mapping):
        for key, value in cast(Mapping[Any, Any], part).items():
            _add(digest, key)
            _add(digest, value)
    elif isinstance(part, (list, tuple)):
        for value in cast(Sequence[Any], part):
            _add(digest, value)
    elif isinstance(part, (str, bytes, int, float, np.generic)):
        digest.update(repr(part).encode())
    else:
        # The text of an object may hold its address.
        digest.update(type(part).__qualname__.encode())
