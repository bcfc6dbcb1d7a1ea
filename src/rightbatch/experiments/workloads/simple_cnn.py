"""The simple CNN of Zhang et al. (2019) and Shallue et al. on MNIST and Fashion-MNIST.

conv5 1 -> 32 and conv5 32 -> 64, each padded to keep its size and followed by ReLU and
a pool 2/2 (28 -> 14 -> 7), then 7*7*64 -> 1024 -> 10, ReLU, biases: 3,274,634
parameters. Dropout, input scaling, weight decay and the target are not fixed by the
text at hand; here there is no dropout and no decay, pixels are scaled to 0..1, and the
target is a training loss of .1 (Fashion-MNIST: .3) on a random fifth of the images, the
sets being those of Perrone's workloads. The optimizer is plain SGD; the paper's
others take its place by name.
"""

from pathlib import Path

from torch import nn

from rightbatch.experiments.workloads.classification import (
    cross_entropy,
    error,
    plain_sgd,
    seeded,
)
from rightbatch.experiments.workloads.idx_files import FILES, idx_sets, source_of
from rightbatch.workload import Target, Workload

LRS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5)


def mnist(data_dir: Path | None = None) -> Workload:
    """Return mnist-simple-cnn, 3,274,634 parameters, to a training loss of .1.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(mnist())
        3274634
    """
    return _workload("mnist-simple-cnn", "mnist", 0.1, data_dir)


def fashion(data_dir: Path | None = None) -> Workload:
    """Return fashion-simple-cnn, the same net, to a training loss of .3.

    Example:
        >>> fashion().data_set
        'fashion-mnist'
    """
    return _workload("fashion-simple-cnn", "fashion-mnist", 0.3, data_dir)


def _workload(
    name: str, data_set: str, target: float, data_dir: Path | None
) -> Workload:
    sets = idx_sets(data_set, data_dir)
    what = f"Zhang et al. (2019), simple CNN on {data_set}"
    return Workload(
        name=name,
        model=seeded(_simple_cnn),
        train=sets.train,
        evaluate_on=sets.subset,
        held_out=sets.held_out,
        loss=cross_entropy,
        optimizer=plain_sgd,
        target=Target(value=target, on="train_subset"),
        lrs=LRS,
        example_unit="image",
        source=source_of(what, data_set, data_dir),
        metrics={"error": error},
        data_set=data_set,
        data_files=FILES,
        data_dir=data_dir,
    )


def _simple_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 1024),
        nn.ReLU(),
        nn.Linear(1024, 10),
    )
