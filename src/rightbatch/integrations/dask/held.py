"""What a worker keeps of a run, and how it computes the gradients of forward passes."""

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import torch
from distributed import get_worker
from torch import Tensor, nn
from torch.utils.data import default_collate

from rightbatch.integrations.dask.packing import Bytes, pack, unpack
from rightbatch.integrations.sklearn.gradient_source import LARGEST_PASS, seed_pass
from rightbatch.sampler.nesting import moved

# Random layers draw from a generator that all threads of a process share, and torch's
# own threads are enough to keep the cores busy.
_ONE_AT_A_TIME = threading.Lock()


class PassTask(NamedTuple):
    """A forward pass to compute.

    Args:
        rows: Its examples, by number.
        first_example: The stream's position before the update.
        place: Number of the pass within the update.
    """

    rows: np.ndarray
    first_example: int
    place: int


class PassGradient(NamedTuple):
    """What came of a forward pass.

    Args:
        loss: Its mean loss.
        gradient: Of that loss, packed; parameters that it does not reach left out.
        reached: Whether each parameter is reached.
        buffers: The module's buffers after the pass, packed.
    """

    loss: float
    gradient: Bytes
    reached: tuple[bool, ...]
    buffers: Bytes


class Answer(NamedTuple):
    """What a worker sends back.

    Args:
        passes: Of its part of the update, in order.
        seconds: It computed.
        worker: Its address.
    """

    passes: list[PassGradient]
    seconds: float
    worker: str


@dataclass(slots=True)
class Held:
    """What a worker keeps for a whole run: the data, and a module to compute with.

    Args:
        dataset: Map-style, pickled; or the columns whose rows are its items, which go
            from process to process as they are.
        recipe: Module, loss and weighing function, pickled.
        device: Where passes are computed.
        seed: Of random layers.
    """

    dataset: bytes | tuple[np.ndarray, ...]
    recipe: bytes
    device: str
    seed: int
    _made: Any = None

    def __getstate__(self) -> tuple[Any, ...]:
        return self.dataset, self.recipe, self.device, self.seed

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dataset, self.recipe, self.device, self.seed = state
        self._made = None

    def __sizeof__(self) -> int:
        # Dask plans its memory by this.
        data = self.dataset
        columns = (one.nbytes for one in data if isinstance(one, np.ndarray))
        held = 2 * len(data) if isinstance(data, bytes) else sum(columns)
        return object.__sizeof__(self) + len(self.recipe) + held

    def answer(self, state: Bytes, tasks: Sequence[PassTask]) -> Answer:
        """Return the gradients of some passes at one point.

        Args:
            state: Parameters and buffers, packed.
            tasks: The passes.
        """
        with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
            begin = perf_counter()
            if self._made is None:
                self._made = self._make()
            found = [self._pass(self._made, state, task) for task in tasks]
            return Answer(found, perf_counter() - begin, _address())

    def _make(self) -> "Computing":
        module, loss, weigh = cloudpickle.loads(self.recipe)
        if isinstance(self.dataset, bytes):
            examples = cloudpickle.loads(self.dataset)
        else:
            with warnings.catch_warnings():
                # What came over the wire cannot be written to, and nobody will.
                warnings.filterwarnings("ignore", "The given NumPy array is not writ")
                examples = tuple(torch.from_numpy(one) for one in self.dataset)
            examples = moved(examples, torch.device(self.device))
        return Computing(module.to(self.device), loss, weigh, examples)

    def _pass(self, computing: "Computing", state: Bytes, task: PassTask) -> Any:
        # Each pass begins at the update's own buffers, whoever computed others before.
        computing.load(state)
        seed_pass(self.seed, task.first_example, task.place, self.device)
        pieces = np.array_split(task.rows, -(-len(task.rows) // LARGEST_PASS))
        device = torch.device(self.device)
        return computing.gradient([computing.batch(rows, device) for rows in pieces])


@dataclass(frozen=True, slots=True)
class Computing:
    """A module that gradients are computed with.

    Args:
        module: In training mode.
        loss: ``loss(module, batch)``.
        weigh: ``weigh(batch)``, what a piece of a pass counts for; its examples when
            None.
        examples: A tuple of tensors, or a map-style data set.
    """

    module: nn.Module
    loss: Callable[[nn.Module, Any], Tensor]
    weigh: Callable[[Any], float] | None
    examples: Any

    def batch(self, rows: np.ndarray, device: torch.device) -> Any:
        """Return the examples of some numbers."""
        if isinstance(self.examples, tuple):
            wanted = torch.from_numpy(rows).to(device)
            return [one[wanted] for one in self.examples]
        batch = default_collate([self.examples[int(row)] for row in rows])
        return moved(batch, device)

    def load(self, state: Bytes) -> None:
        """Put parameters and buffers where they are now."""
        tensors = tensors_in(self.module)
        with torch.no_grad():
            for tensor, value in zip(tensors, unpack(state, tensors), strict=True):
                tensor.copy_(value)

    def gradient(self, batches: Sequence[Any]) -> PassGradient:
        """Return the gradient of the mean loss over some batches."""
        parameters = trained_in(self.module)
        for parameter in parameters:
            parameter.grad = None
        weights = [_weight(batch, self.weigh) for batch in batches]
        total, mean = sum(weights) or 1.0, 0.0
        for batch, weight in zip(batches, weights, strict=True):
            loss = self.loss(self.module, batch).mean() * (weight / total)
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            mean += float(loss.detach())
        gradients = [one.grad for one in parameters]
        dense = [one.to_dense() for one in gradients if one is not None]
        return PassGradient(
            mean,
            pack(dense),
            tuple(one is not None for one in gradients),
            pack(list(self.module.buffers())),
        )


def tensors_in(module: nn.Module) -> list[Tensor]:
    """Return all that a forward pass depends on, in one order everywhere.

    Args:
        module: Any.

    Example:
        >>> len(tensors_in(nn.BatchNorm1d(2)))
        5
    """
    return [*module.parameters(), *module.buffers()]


def trained_in(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that want a gradient, in one order everywhere.

    Args:
        module: Any.

    Example:
        >>> len(trained_in(nn.Linear(2, 2, bias=False)))
        1
    """
    return [one for one in module.parameters() if one.requires_grad]


def compute(held: Held, state: Bytes, tasks: Sequence[PassTask]) -> Answer:
    """Return the gradients of some passes: what runs on a worker.

    Args:
        held: By the worker.
        state: Parameters and buffers at this update.
        tasks: Its passes.
    """
    return held.answer(state, tasks)


def _weight(batch: Any, weigh: Callable[[Any], float] | None) -> float:
    if weigh is not None:
        return float(weigh(batch))
    first = batch[0] if isinstance(batch, (list, tuple)) else batch
    return float(len(first))


def _address() -> str:
    try:
        return get_worker().address
    except ValueError:  # not on a worker
        return ""
