"""Workloads on scikit-learn's digits: 1,797 images of 8x8, bundled, offline.

The split is fixed: rows are permuted by ``numpy``'s ``RandomState(0)``; the first 359
are held out and the other 1,438 trained on. Pixels are divided by 16, to 0..1.
"""

from collections.abc import Callable, Iterable
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset

from rightbatch.experiments.workloads.classification import (
    cross_entropy,
    error,
    seeded,
)
from rightbatch.workload import Target, Workload

NUM_HELD_OUT = 359
LRS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Digits(Dataset[tuple[Tensor, Tensor]]):
    """Half of the split, read when first used.

    Args:
        held_out: The 359 held out, instead of the 1,438 trained on.

    Example:
        >>> len(Digits(held_out=True)), len(Digits(held_out=False))
        (359, 1438)
    """

    # The stream may gather many rows at once.
    rows_are_items = True

    def __init__(self, *, held_out: bool) -> None:
        self._held_out = held_out

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images, shape (n, 1, 8, 8), in 0..1; labels, shape (n,)."""
        images, labels = _images_and_labels()
        order = np.random.RandomState(0).permutation(len(labels))
        rows = order[:NUM_HELD_OUT] if self._held_out else order[NUM_HELD_OUT:]
        return images[rows], labels[rows]

    def __len__(self) -> int:
        return len(self.tensors[1])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.tensors
        return images[index], labels[index]


def mlp() -> Workload:
    """Return digits-mlp: 64-64-10, ReLU, 4,810 parameters, to a held-out loss of .15.

    Example:
        >>> mlp().lrs
        (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    """
    return _workload("digits-mlp", _mlp)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def lenet() -> Workload:
    """Return digits-lenet: two small convolutions, to a held-out loss of .15.

    conv3 1->8 (6x6), conv3 8->16 (4x4), pool 2/2 (2x2), 64 -> 32 -> 10, ReLU, biases:
    80 + 1,168 + 2,080 + 330 = 3,658 parameters.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(lenet())
        3658
    """
    return _workload("digits-lenet", _lenet)


def _lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def _workload(name: str, build: Callable[[], nn.Module]) -> Workload:
    return Workload(
        name=name,
        model=seeded(build),
        train=Digits(held_out=False),
        evaluate_on=Digits(held_out=True),
        loss=cross_entropy,
        optimizer=_sgd,
        target=Target(value=0.15, on="held_out"),
        lrs=LRS,
        example_unit="image",
        source="scikit-learn's digits (UCI optical recognition of handwritten digits)",
        metrics={"error": error},
    )


def _sgd(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return SGD(parameters, lr=lr)


@cache
def _images_and_labels() -> tuple[Tensor, Tensor]:
    # Imported here: scikit-learn takes a second, and listing workloads needs no data.
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    return images, torch.tensor(digits.target)
