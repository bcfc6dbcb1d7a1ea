"""The loss on a fraction of the data, leaving no trace in the model."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rightbatch.errors import InputError
from rightbatch.sampler import chunks

_CHUNK = 512


class MeanLoss:
    """The mean loss of a model on a fixed part of a data set, called without arguments.

    In evaluation mode and without gradients: dropout is off, batch normalization uses
    the statistics it has and leaves them alone, every module's mode is put back.

    Args:
        model: Read at each call.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,).
        dataset: Map-style.
        fraction: Share of the data set, in (0, 1]: the same examples at each call.
        seed: Chooses them.
        collate: Makes a batch of a list of items; stacks tensors when None.

    Raises:
        InputError: `fraction` is not in (0, 1], or the data set is empty.

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
    ) -> None:
        if not 0 < fraction <= 1:
            raise InputError(
                f"MeanLoss: `fraction` must be in (0, 1], got {fraction!r}."
            )
        self._model, self._loss = model, loss
        length = len(dataset)  # pyright: ignore[reportArgumentType]
        self.num_examples = max(1, round(fraction * length))
        rows = None
        if fraction < 1:
            order = np.random.default_rng(seed).permutation(length)
            rows = np.sort(order[: self.num_examples]).tolist()
        place = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._chunks = chunks(
            dataset, _CHUNK, order=rows, collate=collate, device=place
        )

    def __call__(self) -> float:
        """Return the mean loss now.

        Raises:
            InputError: The loss is not one value per example.
        """
        total, count = 0.0, 0
        with evaluating(self._model):
            for batch in self._chunks:
                losses = self._loss(self._model, batch)
                if losses.ndim != 1:
                    raise InputError(
                        "MeanLoss: `loss` must return one value per example, shape "
                        f"(B,), got shape {tuple(losses.shape)}.",
                        "with reduction='none'",
                    )
                total += float(losses.double().sum())
                count += len(losses)
        return total / count


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
