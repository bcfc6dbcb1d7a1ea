"""An update's gradient, computed by the workers of a cluster."""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any, NamedTuple
from uuid import uuid4

import cloudpickle
import numpy as np
import torch
from distributed import Client, KilledWorker
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from rightbatch.batch_norm import batch_normalizations
from rightbatch.controller import Update
from rightbatch.errors import InputError, ReplicaError
from rightbatch.integrations.dask.held import (
    Answer,
    Held,
    ModuleState,
    PassGradient,
    PassTask,
    compute,
    trained_in,
)
from rightbatch.integrations.dask.packing import unpack
from rightbatch.integrations.dask.workers import (
    WHO,
    Crew,
    Workers,
    bounded,
    check_client,
    reason_lost,
)
from rightbatch.integrations.sklearn.gradient_source import BatchLoss, tail_of
from rightbatch.sampler import Loading, MicroBatchStream, UpdateBatch
from rightbatch.sampler.examples import length_of_dataset, tensors_of

# An update that workers died in is tried so often; each loses nothing but time.
_TRIES = 5
_LOST = (CancelledError, KilledWorker, OSError)
_CURES = {
    "dataset": "open files and connections when an item is asked for, not before",
    "module": "keep locks, files and generators out of module and loss",
}
# A larger model goes to a worker itself. What goes with a task is kept in Dask's logs
# of messages, here and in the scheduler, a thousand of each.
_SMALL_BYTES = 2**13


class Share(NamedTuple):
    """Who computed an update, and how long all of it took.

    Args:
        batch_size: Of the update.
        wanted: Workers that were to share it.
        present: Workers that were there.
        used: Different workers that computed a part.
        seconds: From the first byte sent to the last one received.
        computing_seconds: Of the worker with most to do; the rest is transport.
    """

    batch_size: int
    wanted: int
    present: int
    used: int
    seconds: float
    computing_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is computed: all of it can be pickled.

    Args:
        module: Trained by this process's optimizer, between two updates.
        loss: ``loss(module, batch)``, of each example or their mean.
        dataset: Map-style.
        weigh: ``weigh(batch)``, what the mean of a batch counts for, where that is not
            its examples.
    """

    module: nn.Module
    loss: BatchLoss
    dataset: Dataset[Any]
    weigh: Callable[[Any], float] | None = None


class DaskGradients:
    """Gradients of a module, computed by as many workers as the batch asks for.

    The data goes to the workers once. At each update the module's state goes to them,
    and the gradient of each worker's part comes back: it is added up here, in the order
    of the examples, so that the result does not depend on who computed what. A worker
    that dies has its part computed by another.

    .. code-block:: python

        work = Work(module=module, loss=loss, dataset=data)
        source = DaskGradients(client, Workers(grads_per_worker=64), work)
        controller = BatchSizeController(
            module, optimizer, policy, source.stream(), sensing=Sensing(noise="units")
        )
        for update in controller.updates(epochs=20):
            source.accumulate(update)
            update.step()

    Args:
        client: Of the cluster.
        workers: How many share a batch.
        work: What they compute.
        micro_batch_size: Examples that batch sizes are multiples of.
        seed: Of the order of the examples and of random layers.

    Raises:
        InputError: The client cannot be worked with, there is no worker, or something
            cannot be pickled.
    """

    def __init__(
        self,
        client: Client,
        workers: Workers,
        work: Work,
        *,
        micro_batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        _checks_of(workers, work)
        self._client: Any = client
        self._workers = bounded(client, workers)
        self._module, self._dataset = work.module, work.dataset
        self._micro_batch_size, self._seed = micro_batch_size, seed
        self._crew = Crew(client, self._workers)
        recipe = pickled("module", (work.module, work.loss, work.weigh))
        self._held_here = Held(
            _columns_or_bytes(work.dataset), recipe, workers.device, seed
        )
        self._held: Any = None
        self._names = (f"rightbatch-{uuid4().hex[:12]}-{k}" for k in count())
        self.shares: list[Share] = []

    def stream(self) -> MicroBatchStream:
        """Return a stream of the numbers of examples, at its beginning.

        A batch of it is a list of one tensor, the numbers; or of that and the weights,
        where the data set is of three tensors.
        """
        numbers = torch.arange(length_of_dataset(self._dataset))
        tensors = tensors_of(self._dataset) or ()
        columns = (numbers, *tensors[2:3])
        return CutForWorkers(
            TensorDataset(*columns),
            self._micro_batch_size,
            seed=self._seed,
            tail=tail_of(self._module, len(numbers), self._micro_batch_size),
            loading=Loading(join="any", rank=0, num_replicas=1),
            parts=self._workers.for_batch,
            # Batch normalization cannot train on one example.
            least=2 if batch_normalizations(self._module) else 1,
        )

    def accumulate(self, update: Update) -> None:
        """Add up the gradient of an update in the module.

        Args:
            update: Of a controller whose stream is :meth:`stream`.

        Raises:
            ReplicaError: Workers died over and over, or the scheduler is gone.
            InputError: The client is closed, or no worker is left.
        """
        batch, begin = update.batch, perf_counter()
        answers = self._answers(update.batch)
        for answer in answers:
            if answer.error is not None:
                raise answer.error
        seconds = perf_counter() - begin
        found = [one for answer in answers for one in answer.passes]
        parameters = trained_in(self._module)
        for _, one in zip(update, found, strict=True):
            update.backward(arrived(one, parameters))
        self._take_buffers(found, [one.num_examples for one in batch.passes])
        self.shares.append(
            Share(
                batch_size=batch.num_examples,
                wanted=self._workers.for_batch(batch.num_examples),
                present=len(self._crew.addresses()),
                used=len({answer.worker for answer in answers}),
                seconds=seconds,
                computing_seconds=max(answer.seconds for answer in answers),
            )
        )

    def close(self) -> None:
        """Take the data from the workers, and let the cluster shrink."""
        self._held = None
        self._crew.release()

    # ----------------------------------------------------------------------------------

    def _answers(self, batch: UpdateBatch) -> list[Answer]:
        """Return what the workers answer, however many of them die meanwhile.

        Raises:
            ReplicaError: They die over and over, or the scheduler is gone.
            Exception: Dask's own, where nothing of that is so.
        """
        state, tasks, reason = ModuleState.of(self._module), _tasks(batch), ""
        check_client(self._client)
        for _ in range(_TRIES):
            if not self._crew.is_connected():
                break
            try:
                wanted = self._crew.follow(batch.num_examples)
                return self._asked(state, _parts(tasks, wanted))
            # What was on dead workers alone is lost with them: all of it is sent anew.
            except _LOST as error:
                # Not the error itself: it would hold what was sent to the workers.
                reason = str(error).strip().partition("\n")[0]
            except Exception as error:
                if self._client.status == "running":
                    raise
                reason = str(error).strip().partition("\n")[0]
            self._held = None
        raise ReplicaError(*reason_lost(self._client, _TRIES, reason))

    def _asked(
        self, state: ModuleState, parts: Sequence[Sequence[PassTask]]
    ) -> list[Answer]:
        client, direct = self._client, self._workers.direct
        if self._held is None:
            self._crew.wait_for_one()
            self._held = client.scatter(self._held_here, broadcast=True, hash=False)
        sent = self._sent(state, shared=len(parts) > 1)
        addresses = self._crew.addresses() or [None]
        futures = [
            client.submit(
                compute,
                self._held,
                sent,
                part,
                key=next(self._names),
                pure=False,
                # One part each, where they are there; any other will do.
                workers=addresses[place % len(addresses)],
                allow_other_workers=True,
            )
            for place, part in enumerate(parts)
        ]
        return client.gather(futures, direct=direct or None)

    def _sent(self, state: ModuleState, *, shared: bool) -> Any:
        """Send the module's state once, however many share it.

        Returns:
            What stands for it in a task.
        """
        if state.values.nbytes > _SMALL_BYTES:
            direct = self._workers.direct or None
            return self._client.scatter(state, hash=False, direct=direct)
        if not shared:
            return state  # along with the one that wants it, which saves a way
        name = next(self._names)
        return self._client.submit(_itself, state, key=name, pure=False)

    def _take_buffers(
        self, found: Sequence[PassGradient], examples: Sequence[int]
    ) -> None:
        """Move running averages on by one step: the mean over the update's passes."""
        buffers = list(self._module.buffers())
        if not buffers:
            return
        after = [unpack(one.buffers, buffers) for one in found]
        total = sum(examples)
        with torch.no_grad():
            for place, buffer in enumerate(buffers):
                if not buffer.is_floating_point():
                    buffer.copy_(after[-1][place])
                    continue
                mean = torch.zeros_like(buffer, device="cpu")
                for values, weight in zip(after, examples, strict=True):
                    mean += values[place] * (weight / total)
                buffer.copy_(mean)


class CutForWorkers(MicroBatchStream):
    """A stream whose updates have a forward pass for each worker at least.

    Args:
        dataset: As :class:`MicroBatchStream` has it, as all else.
        micro_batch_size: As there.
        parts: ``parts(batch_size)``, how many workers share it.
        least: Examples of a pass at least.
        **settings: As there.

    Example:
        >>> data = TensorDataset(torch.arange(40))
        >>> stream = CutForWorkers(data, 4, parts=Workers(grads_per_worker=8).for_batch)
        >>> [one.num_examples for one in stream.next(24).passes]
        [8, 8, 8]
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        micro_batch_size: int,
        *,
        parts: Callable[[float], int],
        least: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(dataset, micro_batch_size, **settings)
        self._parts, self._least = parts, least

    def next(self, batch_size: int, *, min_units: int = 1) -> UpdateBatch:
        """Return the examples of the next update.

        Args:
            batch_size: As :meth:`MicroBatchStream.next` has it.
            min_units: Passes at least; more where more workers share the batch.
        """
        units = max(min_units, self._parts(batch_size))
        most = max(1, batch_size // self._least)
        return super().next(batch_size, min_units=min(units, most))


class _Arrived(torch.autograd.Function):
    """A loss whose gradient was computed elsewhere.

    Its backward is the ordinary one, so that whoever reads gradients on their way, such
    as the noise meter, finds them as if they came from here.
    """

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Any, *_: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (factor,) = upstream
        gradients = [None if g is None else g * factor.to(g) for g in ctx.gradients]
        return (None, None, *gradients)


def arrived(found: PassGradient, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return a loss with the gradient that a worker computed.

    Args:
        found: By the worker.
        parameters: That the gradient is of.

    Returns:
        Shape ().
    """
    reached = [
        p for p, is_reached in zip(parameters, found.reached, strict=True) if is_reached
    ]
    values = iter(unpack(found.gradient, reached))
    gradients = [
        next(values).to(parameter.device) if is_reached else None
        for parameter, is_reached in zip(parameters, found.reached, strict=True)
    ]
    loss = torch.tensor(found.loss, dtype=torch.float64)
    made: Any = _Arrived.apply(loss, gradients, *parameters)  # pyright: ignore
    return made


def _tasks(batch: UpdateBatch) -> list[PassTask]:
    counts = [one.num_examples for one in batch.passes]
    positions = np.cumsum([batch.first_example, *counts]).tolist()
    return [
        PassTask(one.batch[0].numpy(), positions[place], batch.first_example, place)
        for place, one in enumerate(batch.passes)
    ]


def _parts(tasks: Sequence[PassTask], wanted: int) -> list[list[PassTask]]:
    """Return the passes in as many runs of about one length, none of them empty."""
    bounds = np.linspace(0, len(tasks), min(wanted, len(tasks)) + 1).round().astype(int)
    return [list(tasks[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def _itself(value: Any) -> Any:
    return value


def _columns_or_bytes(dataset: Dataset[Any]) -> bytes | tuple[np.ndarray, ...]:
    columns = tensors_of(dataset)
    if columns is None or any(one.dtype == torch.bfloat16 for one in columns):
        return pickled("dataset", dataset)
    return tuple(one.detach().cpu().numpy() for one in columns)


def _checks_of(workers: object, work: object) -> None:
    """Check that arguments are what they are called.

    Raises:
        InputError: One is not.
    """
    for name, value, kind in (("workers", workers, Workers), ("work", work, Work)):
        if not isinstance(value, kind):
            raise InputError(
                f"{WHO}: `{name}` must be {kind.__name__}(...), got {value!r}.",
                f"from rightbatch.integrations.dask import {kind.__name__}",
            )


def pickled(name: str, value: Any) -> bytes:
    """Return a value as bytes that a worker can read.

    Args:
        name: Of the argument.
        value: Pickled by value where it is of ``__main__``.

    Raises:
        InputError: It cannot be pickled.

    Example:
        >>> type(pickled("module", nn.Linear(1, 1)))
        <class 'bytes'>
    """
    try:
        return cloudpickle.dumps(value)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{WHO}: `{name}` must be such that it can be pickled, to go to workers: "
            f"{type(error).__name__}: {reason}",
            _CURES.get(name, ""),
        ) from None
