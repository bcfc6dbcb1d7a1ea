"""The largest micro-batch that fits in memory, by a short search without a trace."""

import math
from collections.abc import Callable, Generator, Iterable, Sized
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import Dataset, default_collate

from rightbatch._checks import positive, positive_integer
from rightbatch.collectives import all_min_numbers
from rightbatch.errors import InputError, NotReachedError
from rightbatch.sampler.nesting import moved
from rightbatch.timing.restoring import restored
from rightbatch.timing.steps import is_out_of_memory

_WHO = "find_micro_batch_size"
# Batch normalization cannot train on one example, and whoever searches has room for
# a few; smaller ones are tried where these do not fit.
FIRST_SIZE = 8
# For a function that makes batches of any size.
_DEFAULT_LARGEST = 2**16
# Where nobody counts memory nothing but the machine's end would stop the search; and a
# CPU is busy with fewer.
_DEFAULT_LARGEST_UNCOUNTED = 1024
LimitedBy = Literal["memory", "dataset", "asked", "default"]


class MicroBatchTry(NamedTuple):
    """One size that was tried: whether it fits, and what forward and backward took."""

    size: int
    fits: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimit:
    """How much memory a forward and backward pass may take.

    Args:
        margin: Share of the memory left free, for batches of longer examples and for
            what the allocator cannot use.
        total_bytes: What there is; None for what the GPU has left beside others. On
            the CPU None is no limit: there only an error of the allocator ends the
            search, or the largest size to try.
    """

    margin: float = 0.1
    total_bytes: float | None = None

    def check(self) -> None:
        """Refuse what is no limit.

        Raises:
            InputError: `margin` is not in [0, 1), or `total_bytes` is not positive.
        """
        if not 0 <= self.margin < 1:
            raise InputError(
                f"MemoryLimit: `margin` must be at least 0 and below 1, "
                f"got {self.margin!r}."
            )
        if self.total_bytes is not None:
            positive("MemoryLimit", "total_bytes", self.total_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatchSearch:
    """The micro-batch size that a search found, and how.

    Args:
        micro_batch_size: Examples of one replica in a forward and backward pass; a
            power of two.
        tried: Every size tried, in order.
        limited_by: Why it is no larger: "memory"; "dataset", which is not twice as
            large; "asked", the largest that was asked for; "default", where none was.
        margin: Share of the memory left free.
        used_bytes: Of memory at that size; None where nobody counted.

    Example:
        >>> found = MicroBatchSearch(
        ...     micro_batch_size=8, tried=(MicroBatchTry(8, True, 0.25),
        ...     MicroBatchTry(16, False, 0.5)), limited_by="memory", margin=0.1)
        >>> print(found)
        Micro-batch size 8, limited by memory, of which 10 % is left free.
               8  fits          250 ms
              16  does not fit
    """

    micro_batch_size: int
    tried: tuple[MicroBatchTry, ...]
    limited_by: LimitedBy
    margin: float
    used_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        values = asdict(self)
        values["tried"] = [one._asdict() for one in self.tried]
        return values

    def __str__(self) -> str:
        reason = {
            "memory": f"memory, of which {100 * self.margin:g} % is left free",
            "dataset": "the data set, which is not twice as large",
            "asked": "the largest asked for",
            "default": "the largest tried unless `largest` is given",
        }[self.limited_by]
        rows = [
            f"{one.size:>8}  fits    {1e3 * one.seconds:9.3g} ms"
            if one.fits
            else f"{one.size:>8}  does not fit"
            for one in self.tried
        ]
        head = f"Micro-batch size {self.micro_batch_size}, limited by {reason}."
        return "\n".join([head, *rows])


def find_micro_batch_size(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    data: Dataset[Any] | Callable[[int], Any],
    *,
    optimizer: Optimizer | None = None,
    largest: int | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    memory: MemoryLimit = MemoryLimit(),  # noqa: B008  # frozen
) -> MicroBatchSearch:
    """Return the largest power of two whose forward and backward pass fits in memory.

    Sizes are doubled from 8 until one does not fit (halved, where 8 does not), each in
    training mode. The last that did is verified with the optimizer's step and its state
    in place. Model, optimizer, generators and modes are then as they were, bit for bit,
    whatever happened. Replicas try in step and settle on what fits all of them. What is
    found is how many examples go through the model at once; the batch size of an update
    is not touched: past it gradients accumulate.

    Args:
        model: On its device. In DistributedDataParallel the module inside is tried, so
            that no replica waits for one that ran out of memory.
        loss: ``loss(model, batch)`` returns the loss of each example, or their mean.
        data: Map-style data set whose first examples are tried; or ``data(size)``
            that makes a batch of that many on the device, the longest ones say.
        optimizer: Its step is part of what has to fit; left out when None. Hooks that
            were put on its step are called as at any step.
        largest: Examples to try at most. When None the data set's size, and at most
            1,024 on a CPU without a limit; or 65,536 for a function.
        collate: Makes a batch of a list of items; stacks tensors when None.
        memory: What there is, and the share of it to leave free.

    Returns:
        The size, every try, and what limits it.

    Raises:
        InputError: `largest` or `memory` is out of range, or the data set is empty.
        NotReachedError: Not even one example fits.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> layer = nn.Linear(3, 1)
        >>> data = TensorDataset(torch.ones(100, 3))
        >>> found = find_micro_batch_size(layer, lambda m, b: m(b[0])[:, 0], data)
        >>> found.micro_batch_size, found.limited_by, layer.weight.grad
        (64, 'dataset', None)
    """
    memory.check()
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    device = next(inner.parameters()).device
    counted = device.type == "cuda" or memory.total_bytes is not None
    most, limited_by = _most(data, largest, counted=counted)
    make_batch = cast(Callable[[int], Any], data)
    if _is_dataset(data):
        make_batch = _first_examples(cast(Any, data), collate, device)
    counter = _counter(inner, optimizer, memory, device)
    trial = _Trial(inner, loss, optimizer, make_batch, counter)
    with restored(inner, optimizer), torch.enable_grad():
        size = _search(trial, most)
    return MicroBatchSearch(
        micro_batch_size=size,
        tried=tuple(trial.tried),
        limited_by=limited_by if size == most else "memory",
        margin=memory.margin,
        used_bytes=trial.used[size],
    )


def _most(
    data: Any, largest: int | None, *, counted: bool
) -> tuple[int, Literal["dataset", "asked", "default"]]:
    """Return the largest size worth a try, on every replica, and what it is due to.

    Raises:
        InputError: `largest` is not positive, or the data set is empty.
    """
    most, limited_by = _DEFAULT_LARGEST, "default"
    if not counted:
        most = _DEFAULT_LARGEST_UNCOUNTED
    if largest is not None:
        most, limited_by = positive_integer(_WHO, "largest", largest), "asked"
    if _is_dataset(data):
        length = len(cast(Sized, data))
        if not length:
            raise InputError(f"{_WHO}: the data set is empty.")
        bounds_all = largest is None and counted
        if bounds_all or _power_of_two(length) < _power_of_two(most):
            most, limited_by = length, "dataset"
    return _power_of_two(int(all_min_numbers([most])[0])), limited_by


def _search(trial: "_Trial", most: int) -> int:
    size = min(FIRST_SIZE, most)
    if trial.fits(size):
        while 2 * size <= most and trial.fits(2 * size):
            size *= 2
        # Once more, all state in place and the memory as a failure leaves it.
        if trial.fits(size):
            return size
    while size > 1:
        size //= 2
        if trial.fits(size):
            return size
    raise NotReachedError(
        f"{_WHO}: not even one example fits in memory.",
        "a smaller model, shorter examples, or activation checkpointing",
    )


@dataclass(slots=True)
class _Trial:
    """Makes updates of one size after the other, and keeps what came of them."""

    model: nn.Module
    loss: Callable[[nn.Module, Any], Tensor]
    optimizer: Optimizer | None
    make_batch: Callable[[int], Any]
    counter: "_Counter"
    tried: list[MicroBatchTry] = field(default_factory=list)
    used: dict[int, int | None] = field(default_factory=dict)

    def fits(self, size: int) -> bool:
        """Return whether an update on some examples fits, on every replica.

        Raises:
            Exception: It failed for another reason than memory.
        """
        begin = perf_counter()
        used, fits = None, False
        try:
            with self.counter.counting():
                self._update(size)
            used = self.counter.used_bytes()
            fits = used is None or used <= self.counter.most_bytes
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Past the handler: the error's traceback held what had filled the memory.
        self.model.zero_grad(set_to_none=True)
        if not fits and torch.cuda.is_available():
            torch.cuda.empty_cache()
        seconds = perf_counter() - begin
        fits = all_min_numbers([float(fits)])[0] > 0
        self.tried.append(MicroBatchTry(size, fits, seconds))
        self.used[size] = used
        return fits

    def _update(self, size: int) -> None:
        self.model.train()
        batch = self.make_batch(size)

        def closure() -> Tensor:
            self.model.zero_grad(set_to_none=True)
            mean = self.loss(self.model, batch).mean()
            mean.backward()
            return mean

        if self.optimizer is None:
            closure()
            return
        # A rate of zero: memory is what is tried, and weights that run away are not.
        for group in self.optimizer.param_groups:
            if "lr" in group:
                group["lr"] = 0.0
        cast(Any, self.optimizer).step(closure)


class _Counter(Protocol):
    """Counts the memory of an update."""

    most_bytes: float

    def counting(self) -> AbstractContextManager[None]:
        """Return the block in which memory is counted."""
        ...

    def used_bytes(self) -> int | None:
        """Return what the last block used; None where it cannot be known."""
        ...


def _counter(
    model: nn.Module,
    optimizer: Optimizer | None,
    memory: MemoryLimit,
    device: torch.device,
) -> _Counter:
    if device.type == "cuda":
        return _CudaPeak(memory, device)
    return _SavedTensors(memory, model, optimizer)


class _CudaPeak:
    """The peak of what torch holds on a GPU."""

    def __init__(self, memory: MemoryLimit, device: torch.device) -> None:
        self._device = device
        free, _ = torch.cuda.mem_get_info(device)
        total = memory.total_bytes or free + torch.cuda.memory_reserved(device)
        self.most_bytes = (1 - memory.margin) * total

    @contextmanager
    def counting(self) -> Generator[None]:
        torch.cuda.reset_peak_memory_stats(self._device)
        yield
        torch.cuda.synchronize(self._device)

    def used_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated(self._device)


class _SavedTensors:
    """What the backward pass keeps, beside parameters, gradients and state.

    A lower bound of the peak; counted only where there is a limit to hold it to.
    """

    def __init__(
        self, memory: MemoryLimit, model: nn.Module, optimizer: Optimizer | None
    ) -> None:
        self._total = memory.total_bytes
        self._model = model
        self._optimizer = optimizer
        self._saved: dict[int, int] = {}
        self.most_bytes = (1 - memory.margin) * (memory.total_bytes or math.inf)

    @contextmanager
    def counting(self) -> Generator[None]:
        self._saved.clear()
        if self._total is None:
            yield
            return
        with saved_tensors_hooks(self._note, lambda tensor: tensor):
            yield

    def used_bytes(self) -> int | None:
        if self._total is None:
            return None
        kept = _storages(self._model.parameters()) | _storages(self._model.buffers())
        if self._optimizer is not None:
            states = self._optimizer.state.values()
            kept |= _storages(v for state in states for v in state.values())
        gradients = _storages(p.grad for p in self._model.parameters())
        return sum((self._saved | kept | gradients).values())

    def _note(self, tensor: Tensor) -> Tensor:
        self._saved |= _storages([tensor])
        return tensor


def _storages(values: Iterable[Any]) -> dict[int, int]:
    """Return the bytes of each piece of memory that some tensors lie in."""
    found = [v.untyped_storage() for v in values if isinstance(v, Tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in found}


def _first_examples(
    data: Dataset[Any],
    collate: Callable[[list[Any]], Any] | None,
    device: torch.device,
) -> Callable[[int], Any]:
    # Kept: to read an image takes longer than to try it.
    items: list[Any] = []

    def make_batch(size: int) -> Any:
        items.extend(data[row] for row in range(len(items), size))
        return moved((collate or default_collate)(items[:size]), device)

    return make_batch


def _is_dataset(data: Any) -> bool:
    return hasattr(data, "__len__") and hasattr(data, "__getitem__")


def _power_of_two(value: int) -> int:
    """Return the largest power of two up to a number."""
    return 1 << (value.bit_length() - 1)
