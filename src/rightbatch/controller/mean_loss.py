"""The loss on a fraction of the data, leaving no trace in the model."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.sampler import chunks
from rightbatch.sampler.draws import Draws, generators_put_back
from rightbatch.sampler.examples import length_of_dataset, tensors_of
from rightbatch.sampler.nesting import moved


class MeanLoss:
    """The mean loss of a model on a fixed part of a data set, called without arguments.

    In evaluation mode and without gradients: dropout is off, batch normalization uses
    the statistics it has and leaves them alone, every module's mode is put back.

    Rows of tensors are kept on the model's device: views, where the whole data set lies
    there, else a copy of the fraction. Items of any other data set are read anew at
    each call, a chunk at a time, in this process: they take little memory, and their
    time. Those made by chance (augmented ones) are drawn by `seed`, the same at each
    call; the run's generators are put back.

    Args:
        model: Read at each call.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,).
        dataset: Map-style.
        fraction: Share of the data set, in (0, 1]: the same examples at each call.
        seed: Chooses them.
        collate: Makes a batch of a list of items; stacks tensors when None.
        chunk_size: Examples that go through the model at once.

    Raises:
        InputError: `fraction` is not in (0, 1], `chunk_size` is not positive, or the
            data set is empty.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.arange(4.0).unsqueeze(1))
        >>> model = nn.Dropout()
        >>> mean_loss = MeanLoss(model, lambda model, x: model(x[0]).squeeze(1), data)
        >>> mean_loss(), model.training, mean_loss.num_examples
        (1.5, True, 4)
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        dataset: Dataset[Any],
        *,
        fraction: float = 1.0,
        seed: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        chunk_size: int = 512,
    ) -> None:
        if not 0 < fraction <= 1:
            raise InputError(
                f"MeanLoss: `fraction` must be in (0, 1], got {fraction!r}."
            )
        self._model, self._loss = model, loss
        size = _checks.positive_integer("MeanLoss", "chunk_size", chunk_size)
        length = length_of_dataset(dataset)
        self.num_examples = max(1, round(fraction * length))
        rows = torch.arange(length)
        if fraction < 1:
            order = np.random.default_rng(seed).permutation(length)
            rows = torch.from_numpy(np.sort(order[: self.num_examples]))
        chosen = rows if fraction < 1 else None
        self._batches: Iterable[Any] = _Items(dataset, rows, size, seed, collate)
        if collate is None and tensors_of(dataset) is not None:
            place = _place_of(model) or "cpu"
            self._batches = chunks(dataset, size, order=chosen, device=place)

    def __call__(self) -> float:
        """Return the mean loss now.

        Raises:
            InputError: The loss is not one value per example.
        """
        total, count = 0.0, 0
        with evaluating(self._model):
            place = _place_of(self._model)
            for batch in self._batches:
                there = batch if place is None else moved(batch, place)
                losses = self._loss(self._model, there)
                if losses.ndim != 1:
                    raise InputError(
                        "MeanLoss: `loss` must return one value per example, shape "
                        f"(B,), got shape {tuple(losses.shape)}.",
                        "with reduction='none'",
                    )
                total += float(losses.double().sum())
                count += len(losses)
        return total / count


def _place_of(model: nn.Module) -> torch.device | None:
    return next((p.device for p in model.parameters()), None)


class _Items:
    """Chunks of a data set's items, read and collated anew each time around.

    Args:
        dataset: Map-style.
        rows: Which items.
        size: Of a chunk.
        seed: What items made by chance are drawn from.
        collate: Makes a batch of a list of items; stacks tensors when None.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        rows: Tensor,
        size: int,
        seed: int,
        collate: Callable[[list[Any]], Any] | None,
    ) -> None:
        self._dataset = dataset
        self._rows = rows.split(size)
        self._draws = Draws(seed=seed)
        self._collate: Callable[[list[Any]], Any] = collate or default_collate

    def __iter__(self) -> Iterator[Any]:
        begin = 0
        for rows in self._rows:
            with generators_put_back():
                items = self._draws.items(self._dataset, begin, rows.tolist())
                batch = self._collate(items)
            yield batch
            begin += len(rows)


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Put a model into evaluation for a while; every module's own mode comes back.

    Args:
        model: Any.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluating(model):
        ...     model[0].training, torch.is_grad_enabled()
        (False, False)
        >>> model[0].training, model[1].training
        (True, False)
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
