r"""Averaged weights: what Zhang et al. evaluate beside the weights themselves."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rightbatch._checks import finite
from rightbatch.errors import InputError


class AveragedWeights:
    r"""An exponential moving average of a model's weights over its updates.

    :math:`y \leftarrow \gamma y + (1 - \gamma) \theta` after each update, from
    :math:`y_0 = \theta_0`, as in the noisy quadratic model of Zhang et al. (2019); the
    start is not corrected for. Buffers, such as those of batch normalisation, are the
    model's own.

    Args:
        model: Whose trained parameters are averaged; where they lie in one block of
            memory, one operation does it.
        decay: :math:`\gamma`, between 0 and 1.

    Raises:
        InputError: The decay is not between 0 and 1.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> average = AveragedWeights(model, decay=0.75)
        >>> _ = nn.init.ones_(model.weight)
        >>> average.update()
        >>> with average.in_use():
        ...     model.weight.item()
        0.25
        >>> model.weight.item()
        1.0
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = check_decay("ema", decay)
        trained = [p.detach() for p in model.parameters() if p.requires_grad]
        self._weights = _blocks(trained)
        self._averages = [block.clone() for block in self._weights]

    def update(self) -> None:
        """Take in the weights as they are, after an update."""
        for average, weights in zip(self._averages, self._weights, strict=True):
            average.lerp_(weights, 1 - self.decay)

    @contextmanager
    def in_use(self) -> Generator[None]:
        """Give the model the averaged weights for a while."""
        own = [weights.clone() for weights in self._weights]
        _copy(self._averages, self._weights)
        try:
            yield
        finally:
            _copy(own, self._weights)


def check_decay(who: str, decay: float, name: str = "decay") -> float:
    """Return a decay that is between 0 and 1, both left out.

    Args:
        who: Who refuses.
        decay: As given.
        name: Of the argument or option.

    Raises:
        InputError: It is not.

    Example:
        >>> check_decay("ema", 0.99)
        0.99
    """
    if not 0 < finite(who, name, decay) < 1:
        raise InputError(
            f"{who}: `{name}` must be between 0 and 1, got {decay:g}.",
            "0.99 averages over about the last 100 updates",
        )
    return decay


def _copy(values: Iterable[Tensor], places: Iterable[Tensor]) -> None:
    for value, place in zip(values, places, strict=True):
        place.copy_(value)


def _blocks(tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors, those that lie one behind the other joined into one view."""
    blocks: list[Tensor] = []
    for tensor in tensors:
        last = blocks[-1] if blocks else None
        if last is not None and _adjoin(last, tensor):
            size = last.numel() + tensor.numel()
            blocks[-1] = torch.as_strided(last, (size,), (1,), last.storage_offset())
        else:
            blocks.append(tensor)
    return blocks


def _adjoin(first: Tensor, second: Tensor) -> bool:
    return (
        first.dtype == second.dtype
        and first.is_contiguous()
        and second.is_contiguous()
        and first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
        and first.data_ptr() + first.nbytes == second.data_ptr()
    )
