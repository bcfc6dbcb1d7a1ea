"""What a worker keeps of a run, and how it computes the gradients of forward passes."""

import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, Self

import cloudpickle
import numpy as np
import torch
from distributed import get_worker
from torch import Tensor, nn
from torch.utils.data import default_collate

from rightbatch.errors import InputError
from rightbatch.integrations.dask.packing import Bytes, pack, unpack
from rightbatch.integrations.sklearn.gradient_source import LARGEST_PASS, seed_pass
from rightbatch.sampler.draws import Draws, generators_put_back
from rightbatch.sampler.nesting import moved

# Random layers draw from a generator that all threads of a process share, and torch's
# own threads are enough to keep the cores busy.
_ONE_AT_A_TIME = threading.Lock()


class PassTask(NamedTuple):
    """A forward pass to compute.

    Args:
        rows: Its examples, by number.
        position: The stream's, before the first of them.
        first_example: The stream's position before the update.
        place: Number of the pass within the update.
    """

    rows: np.ndarray
    position: int
    first_example: int
    place: int


@dataclass(frozen=True, slots=True)
class ModuleState:
    """What a module is at an update: all that its gradients depend on.

    Args:
        values: Of parameters and buffers, packed.
        trained: Whether each parameter wants a gradient.
        training: Whether each of its modules is in training mode.
    """

    values: Bytes
    trained: tuple[bool, ...]
    training: tuple[bool, ...]

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + self.values.nbytes

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """Return the state of a module.

        Args:
            module: Any.

        Example:
            >>> state = ModuleState.of(nn.Sequential(nn.Linear(1, 1)).eval())
            >>> len(state.values), state.trained, state.training
            (8, (True, True), (False, False))
        """
        return cls(
            pack(tensors_in(module)),
            tuple(one.requires_grad for one in module.parameters()),
            tuple(one.training for one in module.modules()),
        )

    def put_into(self, module: nn.Module) -> None:
        """Put a module of the same kind into this state."""
        tensors = tensors_in(module)
        with torch.no_grad():
            for one, value in zip(tensors, unpack(self.values, tensors), strict=True):
                one.copy_(value)
        for parameter, is_trained in zip(
            module.parameters(), self.trained, strict=True
        ):
            parameter.requires_grad_(is_trained)
        for one, is_training in zip(module.modules(), self.training, strict=True):
            one.training = is_training


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
        error: Of the loss or the data set: a value here, as Dask would take some of
            them for its own.
    """

    passes: list[PassGradient]
    seconds: float
    worker: str
    error: Exception | None = None


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

    def answer(self, state: ModuleState, tasks: Sequence[PassTask]) -> Answer:
        """Return the gradients of some passes at one point.

        Args:
            state: Of the module there.
            tasks: The passes.
        """
        with _ONE_AT_A_TIME, generators_put_back():
            begin = perf_counter()
            found: list[PassGradient] = []
            error = None
            try:
                if self._made is None:
                    self._made = self._make()
                for task in tasks:
                    found.append(self._pass(self._made, state, task))
            except Exception as one:
                error = _carried(one)
            return Answer(found, perf_counter() - begin, _address(), error)

    def _make(self) -> "Computing":
        """Return what was pickled.

        Raises:
            InputError: A module that it is defined in is not there.
        """
        try:
            module, loss, weigh = cloudpickle.loads(self.recipe)
            examples: Any = self.dataset
            if isinstance(examples, bytes):
                examples = cloudpickle.loads(examples)
        except ImportError as error:
            raise InputError(
                f"DaskGradients: the worker {_address()} lacks what module, loss or "
                f"data set are defined in: {error}.",
                "install it there, client.upload_file(...), or define them in the "
                "script itself",
            ) from error
        device = torch.device(self.device)
        if isinstance(examples, tuple):
            columns: Any = examples
            with warnings.catch_warnings():
                # What came over the wire cannot be written to, and nobody will.
                warnings.filterwarnings("ignore", "The given NumPy array is not writ")
                examples = tuple(torch.from_numpy(one) for one in columns)
            examples = moved(examples, device)
        draws = Draws(seed=self.seed)
        return Computing(module.to(device), loss, weigh, examples, draws)

    def _pass(
        self, computing: "Computing", state: ModuleState, task: PassTask
    ) -> PassGradient:
        # Each pass begins at the update's own buffers, whoever computed others before.
        state.put_into(computing.module)
        device = torch.device(self.device)
        pieces = np.array_split(task.rows, -(-len(task.rows) // LARGEST_PASS))
        starts = np.cumsum([task.position, *map(len, pieces)])
        batches = [
            computing.batch(rows, int(start), device)
            for rows, start in zip(pieces, starts, strict=False)
        ]
        seed_pass(self.seed, task.first_example, task.place, self.device)
        return computing.gradient(batches, [len(rows) for rows in pieces])


@dataclass(frozen=True, slots=True)
class Computing:
    """A module that gradients are computed with.

    Args:
        module: In training mode.
        loss: ``loss(module, batch)``.
        weigh: ``weigh(batch)``, what a piece of a pass counts for; its examples when
            None.
        examples: A tuple of tensors, or a map-style data set.
        draws: What items made by chance are drawn from.
    """

    module: nn.Module
    loss: Callable[[nn.Module, Any], Tensor]
    weigh: Callable[[Any], float] | None
    examples: Any
    draws: Draws

    def batch(self, rows: np.ndarray, position: int, device: torch.device) -> Any:
        """Return the examples of some numbers, as they are at a position."""
        if isinstance(self.examples, tuple):
            wanted = torch.from_numpy(rows).to(device)
            return [one[wanted] for one in self.examples]
        items = self.draws.items(self.examples, position, rows.tolist())
        return moved(default_collate(items), device)

    def gradient(self, batches: Sequence[Any], counts: Sequence[int]) -> PassGradient:
        """Return the gradient of the mean loss over some batches.

        Args:
            batches: Computed one after the other.
            counts: How many examples each has.
        """
        parameters = trained_in(self.module)
        for parameter in parameters:
            parameter.grad = None
        weights = [float(count) for count in counts]
        if self.weigh is not None:
            weights = [float(self.weigh(batch)) for batch in batches]
        total, mean = sum(weights) or 1.0, 0.0
        for batch, count, weight in zip(batches, counts, weights, strict=True):
            loss = _mean(self.loss(self.module, batch), count) * (weight / total)
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


def compute(held: Held, state: ModuleState, tasks: Sequence[PassTask]) -> Answer:
    """Return the gradients of some passes: what runs on a worker.

    Args:
        held: By the worker.
        state: Of the module at this update.
        tasks: Its passes.
    """
    return held.answer(state, tasks)


def _mean(loss: Tensor, count: int) -> Tensor:
    """Return a mean loss.

    Raises:
        InputError: It is neither that nor the loss of each example.
    """
    if loss.ndim and loss.shape != (count,):
        raise InputError(
            "DaskGradients: `loss` must return a mean, shape (), or the loss of each "
            f"example, shape ({count},), got shape {tuple(loss.shape)}."
        )
    return loss.mean()


def _carried(error: Exception) -> Exception:
    """Return an error as it can be sent, with what was under way on the worker."""
    said = "".join(traceback.format_exception(error))
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"On the Dask worker {_address()}:\n{said}")
    return error.with_traceback(None)


def _address() -> str:
    try:
        return get_worker().address
    except ValueError:  # not on a worker
        return ""
