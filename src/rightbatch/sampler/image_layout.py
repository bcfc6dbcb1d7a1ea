"""How images lie in memory: channels last, where convolutions are faster so.

On a CPU a convolution over images whose channels are neighbours in memory takes about
half the time (LeNet on 28 x 28 images, one core: 1.7 x the updates per second from 32
images on, 2.2 x the images evaluated). Only strides change, so what is computed is the
same to rounding; but a model that views its images as rows cannot take them, so it is
tried first.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from rightbatch.sampler.draws import generators_put_back

# Of a vector's length: far above rounding in another order of summation, far below
# another computation.
TOLERANCE = 1e-3
TRIED_EXAMPLES = 8
# A head that begins at zero would hide what comes before it.
MOVE = 0.01


def images_last(batch: Any) -> Any:
    """Return a batch whose images have their channels last in memory.

    Args:
        batch: Tensors, or tuples, lists and mappings of them. Images are floating-point
            tensors of four axes: (B, C, H, W); everything else stays as it is.

    Example:
        >>> images, labels = images_last((torch.zeros(2, 3, 4, 4), torch.zeros(2)))
        >>> images.shape, images.stride()
        (torch.Size([2, 3, 4, 4]), (48, 1, 12, 3))
    """
    if isinstance(batch, Tensor):
        return _last(batch) if batch.ndim == 4 and batch.is_floating_point() else batch
    if isinstance(batch, Mapping):
        named = cast(Mapping[Any, Any], batch)
        return {key: images_last(value) for key, value in named.items()}
    # A named tuple is made of its parts one by one, so it is left alone.
    if type(batch) in (tuple, list):
        parts = [images_last(part) for part in cast(list[Any], batch)]
        return parts if isinstance(batch, list) else tuple(parts)
    return batch


def layout_for(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batch: Any,
    metrics: Sequence[Callable[[nn.Module, Any], Tensor]] = (),
) -> Callable[[Any], Any]:
    """Return what lays out batches for a model: :func:`images_last`, or nothing.

    It is tried on copies of the model, whose weights are moved a little from where a
    fresh one's may be zero: the model has a 2-d convolution on a CPU, and for eight of
    the examples, in training and in evaluation, takes them without an error and gives
    the same losses, gradients and metrics. No draw of the caller's generators is used,
    and the choice does not depend on a clock.

    Args:
        model: Is not changed.
        loss: ``loss(model, batch)`` returns a value per example.
        batch: One to try it on.
        metrics: Further functions that will see such batches, as `loss`.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
        >>> images = torch.rand(4, 1, 5, 5)
        >>> layout_for(model, lambda model, x: model(x).sum(1), images) is images_last
        True
    """
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if not convolves or any(p.device.type != "cpu" for p in model.parameters()):
        return _as_it_is
    few = _few(batch)
    try:
        with generators_put_back():
            moved = _moved(model)
            wanted = _tried(moved, loss, few, metrics)
            found = _tried(moved, loss, images_last(few), metrics)
    except Exception:
        # Whatever it is, the batch as it was is no worse for it; errors of the loss
        # itself come up again there, in its own words.
        return _as_it_is
    same = all(_close(*pair) for pair in zip(found, wanted, strict=True))
    return images_last if same else _as_it_is


def _tried(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batch: Any,
    metrics: Sequence[Callable[[nn.Module, Any], Tensor]],
) -> list[Tensor]:
    """Return all that a batch gives: losses, gradients and metrics."""
    given: list[Tensor] = []
    for training in (True, False):
        # A copy each: running statistics change, and some models keep what they saw.
        tried = copy.deepcopy(model).train(training)
        torch.default_generator.manual_seed(0)
        with torch.enable_grad():
            losses = loss(tried, batch)
            trained = [p for p in tried.parameters() if p.requires_grad]
            if losses.requires_grad:
                found = torch.autograd.grad(
                    losses.sum(), trained, allow_unused=True, materialize_grads=True
                )
                # Together: one that is zero but for rounding (a bias before batch
                # normalisation) has no scale of its own.
                given.append(torch.cat([gradient.flatten() for gradient in found]))
        with torch.no_grad():
            given += [losses.detach(), *(metric(tried, batch) for metric in metrics)]
    return given


def _moved(model: nn.Module) -> nn.Module:
    moved = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in moved.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter.dtype), alpha=MOVE)
    return moved


def _few(batch: Any) -> Any:
    """Return the first examples of a batch; as it is what has no first axis."""
    if isinstance(batch, Tensor):
        return batch[:TRIED_EXAMPLES] if batch.ndim else batch
    if isinstance(batch, Mapping):
        named = cast(Mapping[Any, Any], batch)
        return {key: _few(value) for key, value in named.items()}
    if type(batch) in (tuple, list):
        parts = [_few(part) for part in cast(list[Any], batch)]
        return parts if isinstance(batch, list) else tuple(parts)
    return batch


def _close(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape:
        return False
    scale = float(wanted.double().norm())
    return float((found.double() - wanted.double()).norm()) <= TOLERANCE * scale


def _last(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        # One channel lies as it lies; its strides alone say which layout is meant.
        height, width = images.shape[2:]
        flat = images.contiguous()
        return flat.as_strided(images.shape, (height * width, 1, width, 1))
    return images.contiguous(memory_format=torch.channels_last)


def _as_it_is(batch: Any) -> Any:
    return batch
