"""The MNIST workloads of Perrone et al.: LeNet in three widths, and even/odd.

The net has exactly the published parameter counts: conv5 1 -> 16f, conv5 16f -> 32f,
3*3*32f -> 100f -> 10, biases, ReLU, with f = 1, 2, 4: 43,158, 169,506 and 671,802.
The paper does not say how it pools, and the count does not fix it; here the pools are
3/2, then 2/2 (28 -> 24 -> 11 -> 7 -> 3).

Losses are recorded on two fixed random fifths, as in the paper: the target's on one
that is trained on, and the cross-validation loss on another, which is not
(:mod:`rightbatch.experiments.workloads.fifths`), so that 48,000 of the 60,000 images
are trained on. Optimizer: SGD with weight decay 1e-4, the paper's L2, which the
recorded loss does not include. Pixels are scaled to 0..1 and not normalised further.
Any other data set of 28 x 28 images in ten classes (Fashion-MNIST, KMNIST) works in
the same files.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from rightbatch.experiments.workloads.classification import (
    cross_entropy,
    decayed_sgd,
    error,
    seeded,
)
from rightbatch.experiments.workloads.idx_files import FILES, idx_sets, source_of
from rightbatch.workload import Target, Workload

DATA_SET = "mnist"
# By width; Perrone et al., Table 1.
PUBLISHED_PARAMETERS = {1: 43_158, 2: 169_506, 4: 671_802}
# Those of Table 1, .01 and .05, and enough around them to tune.
LRS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5)


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
    sets = idx_sets(DATA_SET, data_dir, relabel)
    return Workload(
        name=name,
        model=seeded(partial(_lenet, width)),
        train=sets.train,
        evaluate_on=sets.subset,
        held_out=sets.held_out,
        loss=cross_entropy,
        optimizer=decayed_sgd,
        target=Target(value=0.1, on="train_subset"),
        lrs=LRS,
        example_unit="image",
        source=source_of("Perrone et al., LeNet on MNIST", DATA_SET, data_dir),
        metrics={"error": error},
        data_set=DATA_SET,
        data_files=FILES,
        data_dir=data_dir,
        published_parameters=PUBLISHED_PARAMETERS[width],
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


def _parity(labels: Tensor) -> Tensor:
    return labels % 2
