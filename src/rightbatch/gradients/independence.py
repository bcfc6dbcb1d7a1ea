"""Whether an example's loss depends on the other examples of its batch.

A noise scale is about gradients of examples that do not know of one another. In-batch
losses (contrastive ones, losses normalized over the batch) have no such gradients: a
smaller batch is another problem, not a noisier view of the same one.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from rightbatch.batch_norm import BATCH_NORMALIZATIONS
from rightbatch.errors import InputError

# Of the losses' root mean square. Kernels differ between batch sizes by rounding, and
# convolutions on a GPU round to ten bits; an in-batch loss changes by tens of percent.
TOLERANCE = 2e-3
# What draws at random, or lets examples meet, in training mode alone.
_SETTLED = (
    *BATCH_NORMALIZATIONS,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def check_independence(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batch: Any,
    parts: Sequence[Any] | None = None,
) -> None:
    """Refuse a loss whose value for an example depends on the rest of the batch.

    The loss of each example is taken in the whole batch and in its parts. Dropout and
    batch normalization are in evaluation mode meanwhile, all else in training mode;
    where the loss is random even so, all is in evaluation mode. Modes, buffers and
    random numbers are left as they were, and no gradient is computed.

    Args:
        model: As it is trained.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,).
        batch: Two examples or more.
        parts: The same examples in the same order, in smaller batches; by default both
            halves of every tensor in the batch that has a row for each example.

    Raises:
        InputError: A loss depends on other examples, it is not one number for each
            example, or there is one example only.

    Example:
        >>> def contrastive(model, batch):
        ...     scores = model(batch) @ model(batch).T
        ...     return -scores.log_softmax(dim=1).diagonal()
        >>> check_independence(nn.Linear(2, 2), contrastive, torch.randn(8, 2))
        Traceback (most recent call last):
        rightbatch.errors.InputError: the loss of an example depends on the others ...
    """
    with _left_alone(model), torch.no_grad():
        model.train()
        for module in model.modules():
            if isinstance(module, _SETTLED):
                module.eval()
        whole = _losses(model, loss, batch)
        if not _agree(whole, _losses(model, loss, batch)):
            model.eval()
            whole = _losses(model, loss, batch)
        if len(whole) < 2:
            raise InputError(
                "check_independence: `batch` must hold two examples or more, got "
                f"{len(whole)}."
            )
        pieces = halves(batch, len(whole)) if parts is None else parts
        apart = [_losses(model, loss, piece) for piece in pieces]
        together = torch.cat(apart)
    if len(together) != len(whole):
        raise InputError(
            f"the loss of a batch of {len(whole)} examples has {len(together)} values "
            "when it is computed in parts.",
            "return one value per example",
        )
    if not _agree(whole, together):
        raise InputError(
            "the loss of an example depends on the others of its batch, by up to "
            f"{_most_apart(whole, together):.2g} of a mean loss of "
            f"{float(whole.mean()):.3g}: gradients of single examples, and with them a "
            "noise scale, do not exist.",
            "in-batch losses (contrastive, or normalized over the batch) have none; "
            "a custom normalization over the batch has none in training either",
        )


def halves(batch: Any, num_examples: int) -> tuple[Any, Any]:
    """Return both halves of a batch.

    Args:
        batch: Tensors, alone or in tuples, lists and mappings.
        num_examples: Its examples; a tensor that has not as many rows is in both.

    Returns:
        The first half, the smaller one if they differ, and the second.

    Example:
        >>> halves((torch.arange(3), "left"), 3)
        ((tensor([0]), 'left'), (tensor([1, 2]), 'left'))
    """
    middle = num_examples // 2
    return (
        _rows(batch, num_examples, slice(None, middle)),
        _rows(batch, num_examples, slice(middle, None)),
    )


def _rows(batch: Any, num: int, rows: slice) -> Any:
    if isinstance(batch, Tensor):
        return batch[rows] if batch.ndim and len(batch) == num else batch
    if isinstance(batch, dict):
        mapping = cast(dict[Any, Any], batch)
        return {key: _rows(value, num, rows) for key, value in mapping.items()}
    if isinstance(batch, (list, tuple)):
        items = [_rows(part, num, rows) for part in cast(Sequence[Any], batch)]
        if isinstance(batch, list):
            return items
        # A named tuple takes its fields one by one.
        made: Any = type(batch)
        return made(*items) if hasattr(batch, "_fields") else made(items)
    return batch


def _losses(
    model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], batch: Any
) -> Tensor:
    losses = loss(model, batch)
    if losses.ndim != 1 or not len(losses):
        raise InputError(
            "the loss must be one value per example, shape (B,), got shape "
            f"{tuple(losses.shape)}.",
            "with reduction='none'",
        )
    return losses.detach()


def _agree(one: Tensor, other: Tensor) -> bool:
    rounding = torch.finfo(one.dtype).eps ** 0.5 if one.dtype.is_floating_point else 0.0
    allowed = max(TOLERANCE, rounding)
    # Losses that are not finite are told apart where training meets them.
    return one.shape == other.shape and not _most_apart(one, other) > allowed


def _most_apart(one: Tensor, other: Tensor) -> float:
    one, other = one.double(), other.double()
    size = one.square().mean().sqrt()
    return float((one - other).abs().max() / size) if size > 0 else 0.0


@contextmanager
def _left_alone(model: nn.Module) -> Generator[None]:
    """Put modes, buffers and random numbers back after a block."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    places = {parameter.device for parameter in model.parameters()}
    devices = [place for place in places if place.type == "cuda"]
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)
