"""The CIFAR10 and CIFAR100 workloads of Perrone et al. and of Zhang et al. (2019).

Perrone et al., Table 1: LeNet, VGG-9 (by SGD, and by Adam), VGG-11 and ResNet-20, with
exactly the published parameter counts. Table 1 quotes the same counts for CIFAR100,
which are those with a head for ten classes; learning a hundred takes a head of a
hundred, and so the CIFAR100 nets have 18,090 parameters more than published (200 x 90
weights and 90 biases). Losses are recorded on the two random fifths of
:mod:`rightbatch.experiments.workloads.fifths`, and, where the first crossing is asked
for, every 100 updates, as published. Weight decay is the paper's 1e-4. Zhang et al.:
ResNet-8, ResNet-32 and VGG-11, which is `cifar10-vgg11`; SGD without weight decay.

Not fixed by the papers at hand, and chosen here: pixels are (p - .5) / .25, p in 0..1;
no augmentation; targets are training losses of 1.0 (CIFAR100: 2.5); Adam's rates are
around its usual .001; both ResNets of Zhang et al. have batch normalization.

Files are taken in the order of `SOURCES`; the source of a workload names the one found.
To have another, name a folder that holds only that with ``--data-dir``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from rightbatch.errors import DataMissingError
from rightbatch.experiments.data.checksums import difference
from rightbatch.experiments.data.cifar import read_cifar
from rightbatch.experiments.data.image_files import read_image_files
from rightbatch.experiments.data.npz import read_npz
from rightbatch.experiments.workloads import cifar_nets
from rightbatch.experiments.workloads.cifar_nets import VGG_9, VGG_11
from rightbatch.experiments.workloads.classification import (
    cross_entropy,
    decayed_adam,
    decayed_sgd,
    error,
    plain_sgd,
    seeded,
)
from rightbatch.experiments.workloads.image_sets import fifths_of
from rightbatch.workload import Target, Workload, find_any

SIDE = 32
CENTER, SPREAD = 0.5, 0.25
RECORDED_EVERY = 100
# Those of Table 1, .01, .025 and .05, and enough around them to tune.
LRS = (0.01, 0.025, 0.05, 0.1, 0.2)
ADAM_LRS = (0.0001, 0.0003, 0.001, 0.003)

Read = Callable[[Path], tuple[Tensor, Tensor]]


def _files(num_classes: int) -> Read:
    return partial(read_image_files, split="train", side=SIDE, num_classes=num_classes)


# By data set: the files that will do, in this order, what they hold, and their reader.
SOURCES: Mapping[str, Mapping[str, tuple[str, Read]]] = {
    "cifar10": {
        "cifar-10-python.tar.gz": ("all images", partial(read_cifar, num_classes=10)),
        "cifar-10-batches-py": ("all images", partial(read_cifar, num_classes=10)),
        "cifar-10-binary.tar.gz": ("all images", partial(read_cifar, num_classes=10)),
        "cifar-10-batches-bin": ("all images", partial(read_cifar, num_classes=10)),
        "cifar10_lossless_first4000.npz": (
            "the first 4,000 images, exact",
            partial(read_npz, side=SIDE, num_classes=10, channels=3),
        ),
        "cifar10_jpeg.tar.xz": ("all images, as lossy JPEGs", _files(10)),
        "cifar10_images": ("image files", _files(10)),
    },
    "cifar100": {
        "cifar-100-python.tar.gz": ("all images", partial(read_cifar, num_classes=100)),
        "cifar-100-python": ("all images", partial(read_cifar, num_classes=100)),
        "cifar-100-binary.tar.gz": ("all images", partial(read_cifar, num_classes=100)),
        "cifar-100-binary": ("all images", partial(read_cifar, num_classes=100)),
        "cifar100_images": ("image files", _files(100)),
    },
}
CLASSES = {"cifar10": 10, "cifar100": 100}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What makes one workload.

    Args:
        title: What the net is called.
        net: Returns the net for a number of classes.
        published: How many parameters the paper says it has.
        optimizer: As `Workload` takes it.
        lrs: Learning rates to choose among.
        paper: Where it is from.
    """

    title: str
    net: Callable[[int], nn.Module]
    published: int | None
    optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer] = decayed_sgd
    lrs: tuple[float, ...] = LRS
    paper: str = "Perrone et al., Table 1"


LENET = Row(title="LeNet", net=cifar_nets.lenet, published=487_458)
VGG9 = Row(title="VGG-9", net=partial(cifar_nets.vgg, VGG_9), published=1_125_090)
VGG11 = Row(title="VGG-11", net=partial(cifar_nets.vgg, VGG_11), published=1_862_754)
RESNET20 = Row(title="ResNet-20", net=partial(cifar_nets.resnet, 20), published=270_410)


def lenet10(data_dir: Path | None = None) -> Workload:
    """Return cifar10-lenet, 487,458 parameters; published with lr .05.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(lenet10())
        487458
    """
    return _workload("cifar10-lenet", LENET, "cifar10", data_dir)


def vgg9_10(data_dir: Path | None = None) -> Workload:
    """Return cifar10-vgg9, 1,125,090 parameters; published with lr .01 and .05.

    Example:
        >>> vgg9_10().published_parameters
        1125090
    """
    return _workload("cifar10-vgg9", VGG9, "cifar10", data_dir)


def vgg9_10_adam(data_dir: Path | None = None) -> Workload:
    """Return cifar10-vgg9-adam: the same net by Adam, whose rate is not published.

    Example:
        >>> vgg9_10_adam().lrs
        (0.0001, 0.0003, 0.001, 0.003)
    """
    row = replace(VGG9, title="VGG-9 by Adam", optimizer=decayed_adam, lrs=ADAM_LRS)
    return _workload("cifar10-vgg9-adam", row, "cifar10", data_dir)


def vgg11_10(data_dir: Path | None = None) -> Workload:
    """Return cifar10-vgg11, 1,862,754 parameters; published with lr .025.

    It stands for the VGG-11 of Zhang et al. as well, whose size is not given.

    Example:
        >>> vgg11_10().published_parameters
        1862754
    """
    return _workload("cifar10-vgg11", VGG11, "cifar10", data_dir)


def resnet20_10(data_dir: Path | None = None) -> Workload:
    """Return cifar10-resnet20, 270,410 parameters; published with lr .05.

    Example:
        >>> resnet20_10().published_parameters
        270410
    """
    return _workload("cifar10-resnet20", RESNET20, "cifar10", data_dir)


def resnet8_10(data_dir: Path | None = None) -> Workload:
    """Return cifar10-resnet8 of Zhang et al., 75,530 parameters here.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(resnet8_10())
        75530
    """
    return _workload("cifar10-resnet8", _zhang(8), "cifar10", data_dir)


def resnet32_10(data_dir: Path | None = None) -> Workload:
    """Return cifar10-resnet32 of Zhang et al., 465,290 parameters here.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(resnet32_10())
        465290
    """
    return _workload("cifar10-resnet32", _zhang(32), "cifar10", data_dir)


def lenet100(data_dir: Path | None = None) -> Workload:
    """Return cifar100-lenet: 505,548 parameters, published as 487,458; lr .05.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(lenet100()) - lenet100().published_parameters
        18090
    """
    return _workload("cifar100-lenet", LENET, "cifar100", data_dir)


def vgg9_100(data_dir: Path | None = None) -> Workload:
    """Return cifar100-vgg9: 1,143,180 parameters, published as 1,125,090; lr .05.

    Example:
        >>> vgg9_100().published_parameters
        1125090
    """
    return _workload("cifar100-vgg9", VGG9, "cifar100", data_dir)


def vgg11_100(data_dir: Path | None = None) -> Workload:
    """Return cifar100-vgg11: 1,880,844 parameters, published as 1,862,754.

    Published with lr .025 and .05.

    Example:
        >>> vgg11_100().published_parameters
        1862754
    """
    return _workload("cifar100-vgg11", VGG11, "cifar100", data_dir)


def _zhang(depth: int) -> Row:
    return Row(
        title=f"ResNet-{depth}",
        net=partial(cifar_nets.resnet, depth),
        published=None,
        optimizer=plain_sgd,
        paper="Zhang et al. (2019), figure 5",
    )


def _workload(name: str, row: Row, data_set: str, data_dir: Path | None) -> Workload:
    sources = SOURCES[data_set]
    num_classes = CLASSES[data_set]
    choices = tuple((file,) for file in sources)

    def find() -> Path:
        (path,) = find_any(data_set, choices, data_dir)
        return path

    def read() -> tuple[Tensor, Tensor]:
        path = find()
        return _source_of(path, sources)[1](path)

    sets = fifths_of(read, center=CENTER, spread=SPREAD)
    return Workload(
        name=name,
        model=seeded(partial(row.net, num_classes)),
        train=sets.train,
        evaluate_on=sets.subset,
        held_out=sets.held_out,
        loss=cross_entropy,
        optimizer=row.optimizer,
        target=Target(
            value=1.0 if num_classes == 10 else 2.5,
            on="train_subset",
            every=RECORDED_EVERY,
        ),
        lrs=row.lrs,
        example_unit="image",
        source=_source(row, data_set, find),
        metrics={"error": error},
        data_set=data_set,
        data_files=choices[0],
        other_data_files=choices[1:],
        data_dir=data_dir,
        published_parameters=row.published,
    )


def _source(row: Row, data_set: str, find: Callable[[], Path]) -> str:
    parts = [f"{row.paper}: {row.title} on {data_set.upper()}"]
    if CLASSES[data_set] != 10:
        parts.append(f"{row.published:,} parameters with the ten-way head of the paper")
    try:
        path = find()
    except DataMissingError:
        return "; ".join(parts)
    words, _ = _source_of(path, SOURCES[data_set])
    parts.append(f"{path.name}: {difference(data_set, path) or words}")
    return "; ".join(parts)


def _source_of(path: Path, sources: Mapping[str, tuple[str, Read]]) -> tuple[str, Read]:
    # An archive is found without its .gz, too.
    return sources.get(path.name) or sources[f"{path.name}.gz"]
