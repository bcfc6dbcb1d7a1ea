"""Where an estimator's gradients come from: this process, or whoever it asks."""

from typing import Any, Protocol
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rightbatch.batch_norm import batch_normalizations, mixes_examples
from rightbatch.controller import Update
from rightbatch.sampler import Loading, MicroBatchStream, Stream, UpdateBatch
from rightbatch.sampler.examples import length_of_dataset
from rightbatch.sampler.micro_batches import Tail
from rightbatch.training import accumulate

# Examples of one forward pass at most: past it a pass gains no speed, only memory.
LARGEST_PASS = 2048


class BatchLoss(Protocol):
    """The loss of one forward pass; it can be pickled, and holds no data.

    Its ``mean()`` is what the pass is worth: the mean of its examples' losses, weighted
    where the batch's last column is weights.
    """

    def __call__(self, module: nn.Module, batch: Any) -> Tensor:
        """Return the loss of each example, shape (b,), or their mean, shape ()."""
        ...


class GradientSource(Protocol):
    """Serves the examples of updates, and adds up their gradients in the module.

    :class:`LocalGradients` is the one without a client; with one it is
    :class:`~rightbatch.integrations.dask.DaskGradients`. Both are made of a module in
    training mode, which the optimizer of this process changes between two updates; a
    :class:`BatchLoss`; a data set of (x, y) or (x, y, weight); the examples of the
    least forward pass; and the seed of the order and, by :func:`seed_pass`, of the
    random layers in each pass.
    """

    def stream(self) -> Stream:
        """Return a stream at its beginning, with :func:`tail_of` the module.

        Its state is as :class:`MicroBatchStream`'s, so that a run can go on.
        """
        ...

    def accumulate(self, update: Update) -> None:
        """Go over the passes of an update, calling ``update.backward`` for each."""
        ...

    def close(self) -> None:
        """Give back what was taken."""
        ...


class LocalGradients:
    """Gradients of the module in this process.

    Args:
        module: Trained, in training mode.
        loss: Of a forward pass.
        dataset: Map-style, of (x, y) or (x, y, weight).
        micro_batch_size: Examples of the least forward pass.
        seed: Of the order and of random layers.
        device: Where the module is.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> source = LocalGradients(
        ...     nn.Linear(2, 1),
        ...     lambda module, batch: module(batch[0]).squeeze(1),
        ...     TensorDataset(torch.zeros(6, 2), torch.zeros(6)),
        ...     micro_batch_size=4,
        ...     seed=0,
        ... )
        >>> source.stream().served(100)
        4
    """

    def __init__(
        self,
        module: nn.Module,
        loss: BatchLoss,
        dataset: Dataset[Any],
        *,
        micro_batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._module, self._loss, self._dataset = module, loss, dataset
        self._micro_batch_size, self._seed = micro_batch_size, seed
        self._device = torch.device(device)

    def stream(self) -> MicroBatchStream:
        """Return a stream of the data, at its beginning."""
        length = length_of_dataset(self._dataset)
        loading = Loading(
            device=self._device,
            largest_pass=max(LARGEST_PASS, self._micro_batch_size),
            by_position=True,
            # One process trains alone, whatever group it may be a member of.
            rank=0,
            num_replicas=1,
        )
        tail = tail_of(self._module, length, self._micro_batch_size)
        cuts = batch_normalizations(self._module) and tail == "short"
        return (WholePasses if cuts else MicroBatchStream)(
            self._dataset,
            self._micro_batch_size,
            seed=self._seed,
            tail=tail,
            loading=loading,
        )

    def accumulate(self, update: Update) -> None:
        """Go over the passes of an update, in smaller ones where memory runs out."""
        place = 0

        def loss_of(module: nn.Module, batch: Any) -> Tensor:
            nonlocal place
            seed_pass(self._seed, update.batch.first_example, place, self._device)
            place += 1
            return self._loss(module, batch)

        accumulate(update, self._module, loss_of)

    def close(self) -> None:
        """Nothing was taken."""


class WholePasses(MicroBatchStream):
    """A stream that cuts no batch into passes of less than a micro-batch.

    Whoever reads noise asks for passes as the wish is, not as the last batch of an
    epoch comes out; with batch normalization one pass would be a single example.
    """

    def next(self, batch_size: int, *, min_units: int = 1) -> UpdateBatch:
        """Return the examples of the next update.

        Args:
            batch_size: Of it, unless an epoch ends before.
            min_units: Forward passes wanted; fewer where they would be too small.
        """
        length = self.dataset_size or 1
        count = min(batch_size, length - self.examples % length)
        most = max(1, count // self.micro_batch_size)
        return super().next(batch_size, min_units=min(min_units, most))


def seed_pass(
    seed: int, first_example: int, place: int, device: torch.device | str = "cpu"
) -> None:
    """Seed torch for the random layers of a forward pass, whoever computes it.

    Dropout then falls on the same units in one process, on several, and in a run that
    goes on. The generator of the process is changed: put it back afterwards.

    Args:
        seed: Of the run.
        first_example: Position of the update's first example, as
            ``update.batch.first_example`` has it.
        place: Number of the pass within its update, from 0.
        device: Where the module is.

    Example:
        >>> with torch.random.fork_rng(devices=[]):
        ...     seed_pass(0, 64, 1)
        ...     first = torch.rand(())
        ...     seed_pass(0, 64, 1)
        ...     bool(first == torch.rand(()))
        True
    """
    # The generator takes 32 bits: they are mixed here, as near seeds are alike there.
    word = crc32(f"{seed} {first_example} {place}".encode())
    torch.default_generator.manual_seed(word)
    if torch.device(device).type != "cpu":
        torch.manual_seed(word)


def tail_of(
    module: nn.Module, num_examples: int | None = None, micro_batch_size: int = 1
) -> Tail:
    """Return what a stream does where an epoch ends inside a batch.

    The batch has what is left ("short"), so that an epoch is each example once; but
    batch normalization cannot train on a single example, and where one may be left its
    batches go on in the next epoch ("carry").

    Args:
        module: Trained.
        num_examples: Of an epoch; None where nobody knows.
        micro_batch_size: What batches are multiples of.

    Example:
        >>> tail_of(nn.Linear(2, 2)), tail_of(nn.BatchNorm1d(2))
        ('short', 'carry')
        >>> tail_of(nn.BatchNorm1d(2), 40, 32), tail_of(nn.BatchNorm1d(2), 33, 32)
        ('short', 'carry')
    """
    if not batch_normalizations(module):
        return "short"
    if num_examples is None or is_tail_tiny(num_examples, micro_batch_size):
        return "carry"
    return "short"


def is_tail_tiny(num_examples: int, micro_batch_size: int) -> bool:
    """Return whether an epoch's last batch may have a pass of a single example.

    Args:
        num_examples: Of the epoch.
        micro_batch_size: What batches are multiples of.

    Example:
        >>> is_tail_tiny(64, 32), is_tail_tiny(65, 32), is_tail_tiny(66, 32)
        (False, True, False)
    """
    return micro_batch_size == 1 or num_examples % micro_batch_size == 1


def normalizes_rows(module: nn.Module) -> bool:
    """Return whether a module in training cannot take a single row.

    Args:
        module: One with ``BatchNorm2d`` can: it has the pixels of an image.

    Example:
        >>> normalizes_rows(nn.BatchNorm1d(2)), normalizes_rows(nn.BatchNorm2d(2))
        (True, False)
    """
    return any(
        isinstance(layer, nn.BatchNorm1d) and mixes_examples(layer)
        for layer in batch_normalizations(module)
    )
