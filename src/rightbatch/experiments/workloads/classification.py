"""What all workloads that tell images apart share."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer

# The L2 of Perrone et al.; the recorded loss does not include it.
WEIGHT_DECAY = 1e-4


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """Return the loss of each image, shape (B,), in nats.

    Args:
        model: Images to logits.
        batch: Images and labels.
    """
    images, labels = batch
    return functional.cross_entropy(model(images), labels, reduction="none")


def error(model: nn.Module, batch: Any) -> Tensor:
    """Return 1 for each image told wrong, 0 for the others, shape (B,).

    Args:
        model: Images to logits.
        batch: Images and labels.
    """
    images, labels = batch
    return (model(images).argmax(1) != labels).float()


def seeded(build: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Return `model(seed)`, whose initialisation depends on the seed alone.

    Args:
        build: Makes the model with torch's default initialisation.

    Example:
        >>> model = seeded(lambda: nn.Linear(2, 1))
        >>> bool((model(3).weight == model(3).weight).all())
        True
    """

    def model(seed: int) -> nn.Module:
        # The global generator is left as it was found: a caller's own draws must
        # not depend on whether a model was made in between.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build()

    return model


def decayed_sgd(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Return SGD with the weight decay of Perrone et al., 1e-4.

    Args:
        parameters: Of the model.
        lr: Learning rate.
    """
    return SGD(parameters, lr=lr, weight_decay=WEIGHT_DECAY)


def decayed_adam(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Return Adam with the L2 of Perrone et al., 1e-4, in its gradient.

    Args:
        parameters: Of the model.
        lr: Learning rate.
    """
    return Adam(parameters, lr=lr, weight_decay=WEIGHT_DECAY)


def plain_sgd(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Return SGD alone.

    Args:
        parameters: Of the model.
        lr: Learning rate.
    """
    return SGD(parameters, lr=lr)
