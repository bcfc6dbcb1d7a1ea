"""Data sets in the files of MNIST: 28 x 28 grey images in ten classes."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from rightbatch.errors import DataMissingError
from rightbatch.experiments.data.checksums import difference
from rightbatch.experiments.data.idx import read_idx_images
from rightbatch.experiments.workloads.image_sets import ImageSets, fifths_of
from rightbatch.workload import find_data

FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
SIDE = 28
NUM_CLASSES = 10


def idx_sets(
    data_set: str,
    data_dir: Path | None,
    relabel: Callable[[Tensor], Tensor] | None = None,
) -> ImageSets:
    """Return the sets of a data set in MNIST's files; they are read when first used.

    Args:
        data_set: Folder under which the files are looked for.
        data_dir: Where to look first.
        relabel: Maps labels to others.
    """

    def read() -> tuple[Tensor, Tensor]:
        files = find_data(data_set, FILES, data_dir)
        return read_idx_images(files, side=SIDE, num_classes=NUM_CLASSES)

    return fifths_of(read, relabel)


def source_of(what: str, data_set: str, data_dir: Path | None) -> str:
    """Return the source of a workload, which names files other than the published.

    Args:
        what: The source without them.
        data_set: Folder under which the files are looked for.
        data_dir: Where to look first.

    Example:
        >>> source_of("LeNet", "mnist", Path("nowhere")).startswith("LeNet")
        True
    """
    try:
        paths = find_data(data_set, FILES, data_dir)
    except DataMissingError:
        return what
    said = [words for path in paths if (words := difference(data_set, path))]
    return f"{what}; other files: {said[0]}" if said else what
