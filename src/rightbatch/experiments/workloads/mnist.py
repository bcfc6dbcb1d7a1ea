"""The MNIST workloads of Perrone et al.: LeNet in three widths, and even/odd.

The net has exactly the published parameter counts: conv5 1 -> 16f, conv5 16f -> 32f,
3*3*32f -> 100f -> 10, biases, ReLU, with f = 1, 2, 4: 43,158, 169,506 and 671,802.
The paper does not say how it pools, and the count does not fix it; here the pools are
3/2, then 2/2 (28 -> 24 -> 11 -> 7 -> 3).

All 60,000 images are trained on, and the loss is recorded on a fixed random fifth of
them, as in the paper; so the target is on the training subset. Optimizer: SGD with
weight decay 1e-4, the paper's L2, which the recorded loss does not include. Pixels
are scaled to 0..1 and not normalised further. Any other data set of 28 x 28 images in
ten classes (Fashion-MNIST, KMNIST) works in the same files.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from rightbatch.experiments.idx import IdxImages
from rightbatch.experiments.workloads.classification import (
    cross_entropy,
    error,
    seeded,
)
from rightbatch.workload import Target, Workload, find_data

DATA_SET = "mnist"
FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
LRS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5)
WEIGHT_DECAY = 1e-4
# Perrone et al. record the training loss on a random 20 % of the training data.
SUBSET_FRACTION = 0.2


def lenet_small(data_dir: Path | None = None) -> Workload:
    """Return mnist-lenet-small, 43,158 parameters; reads its files when first used.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(lenet_small())
        43158
    """
    return _workload("mnist-lenet-small", 1, data_dir)


def lenet_medium(data_dir: Path | None = None) -> Workload:
    """Return mnist-lenet-medium, 169,506 parameters; reads its files when first used.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(lenet_medium())
        169506
    """
    return _workload("mnist-lenet-medium", 2, data_dir)


def lenet_large(data_dir: Path | None = None) -> Workload:
    """Return mnist-lenet-large, 671,802 parameters; reads its files when first used.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(lenet_large())
        671802
    """
    return _workload("mnist-lenet-large", 4, data_dir)


def even_odd(data_dir: Path | None = None) -> Workload:
    """Return mnist-even-odd: the medium net, labels 0 (even) and 1 (odd).

    The ten-way head is kept, as the published count of 169,506 says it was.

    Example:
        >>> even_odd().name
        'mnist-even-odd'
    """
    return _workload("mnist-even-odd", 2, data_dir, relabel=_parity)


def _workload(
    name: str,
    width: int,
    data_dir: Path | None,
    relabel: Callable[[Tensor], Tensor] | None = None,
) -> Workload:
    def find() -> tuple[Path, ...]:
        return find_data(DATA_SET, FILES, data_dir)

    train = IdxImages(find, side=28, num_classes=10, relabel=relabel)
    subset = IdxImages(find, side=28, num_classes=10, relabel=relabel, rows=_subset)
    return Workload(
        name=name,
        model=seeded(partial(_lenet, width)),
        train=train,
        evaluate_on=subset,
        loss=cross_entropy,
        optimizer=_sgd,
        target=Target(value=0.1, on="train_subset"),
        lrs=LRS,
        example_unit="image",
        source="Perrone et al., LeNet on MNIST",
        metrics={"error": error},
        data_set=DATA_SET,
        data_files=FILES,
    )


def _lenet(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16 * width, 5),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(16 * width, 32 * width, 5),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(3 * 3 * 32 * width, 100 * width),
        nn.ReLU(),
        nn.Linear(100 * width, 10),
    )


def _subset(num_rows: int) -> Tensor:
    count = max(1, round(SUBSET_FRACTION * num_rows))
    return torch.from_numpy(np.random.RandomState(0).permutation(num_rows)[:count])


def _parity(labels: Tensor) -> Tensor:
    return labels % 2


def _sgd(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return SGD(parameters, lr=lr, weight_decay=WEIGHT_DECAY)
