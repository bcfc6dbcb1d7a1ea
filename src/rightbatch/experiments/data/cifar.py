"""Reader of CIFAR10 and CIFAR100, in the Python and in the binary version.

Both versions come as ``.tar.gz`` archives; the folders they unpack to are read as well.
The Python version is a set of pickles, and unpickling runs what a file asks for; here
nothing is run: an array is rebuilt from its bytes, and a file that asks for anything
else is refused (:mod:`rightbatch.experiments.data.array_pickle`). The binary version is
records of one label (CIFAR100: two, the fine one second) and 3 x 32 x 32 bytes, red
first, row by row (Krizhevsky, "The CIFAR-10 dataset").
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rightbatch.errors import InputError
from rightbatch.experiments.data.archives import members
from rightbatch.experiments.data.array_pickle import load_arrays
from rightbatch.experiments.data.labelled_images import to_tensors

SIDE = 32
PIXELS = 3 * SIDE * SIDE
BATCHES_10 = tuple(f"data_batch_{number}" for number in range(1, 6))
# By the number of classes: the training files, the labels before each image.
TRAIN_FILES = {10: BATCHES_10, 100: ("train",)}
LABELS_BEFORE = {10: 1, 100: 2}
LABEL_KEYS = {10: "labels", 100: "fine_labels"}

Arrays = tuple[NDArray[Any], NDArray[Any]]


def read_cifar(path: Path, *, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the training images and labels of CIFAR10 or CIFAR100.

    Args:
        path: An archive, or the folder it unpacks to; of either version.
        num_classes: 10 or 100 (the fine labels).

    Returns:
        Images, shape (n, 3, 32, 32), uint8, in the order of the files; labels, shape
        (n,), int64.

    Raises:
        InputError: A file is missing, cut short, damaged or not what it should be.
    """
    wanted = TRAIN_FILES[num_classes]
    names = {*wanted, *(f"{name}.bin" for name in wanted)}
    found = dict(members(path, lambda name: name.name in names))
    by_name = {name.rpartition("/")[2]: content for name, content in found.items()}
    binary = any(name.endswith(".bin") for name in by_name)
    files = [f"{name}.bin" if binary else name for name in wanted]
    missing = [name for name in files if name not in by_name]
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(missing)}.",
            f"the training files of CIFAR{num_classes} are {', '.join(wanted)}, "
            "with or without .bin",
        )
    read = _of_records if binary else _of_pickle
    batches = [read(path / name, by_name[name], num_classes) for name in files]
    return to_tensors(
        np.concatenate([images for images, _ in batches]),
        np.concatenate([labels for _, labels in batches]),
        side=SIDE,
        channels=3,
        num_classes=num_classes,
        places=(path, path),
    )


def _of_records(place: Path, content: bytes, num_classes: int) -> Arrays:
    before = LABELS_BEFORE[num_classes]
    values = np.frombuffer(content, np.uint8)
    if len(values) == 0 or len(values) % (before + PIXELS):
        raise InputError(
            f"{place}: must be whole records of {before + PIXELS} bytes, "
            f"got {len(values)} bytes.",
            "the file is cut short, or of the other CIFAR",
        )
    records = values.reshape(-1, before + PIXELS)
    return records[:, before:].reshape(-1, 3, SIDE, SIDE), records[:, before - 1]


def _of_pickle(place: Path, content: bytes, num_classes: int) -> Arrays:
    batch = load_arrays(content, place)
    key = LABEL_KEYS[num_classes]
    if not isinstance(batch, Mapping) or not {"data", key} <= batch.keys():
        raise InputError(
            f"{place}: a CIFAR{num_classes} batch must hold 'data' and {key!r}."
        )
    images: Any = batch["data"]
    labels: Any = batch[key]
    if not isinstance(images, np.ndarray) or images.shape[1:] != (PIXELS,):
        raise InputError(
            f"{place}: 'data' must be rows of {PIXELS} bytes, got "
            f"{getattr(images, 'shape', type(images).__name__)}."
        )
    found = _labels(place, key, labels)
    # Of each batch: put together, two wrong ones may come to the right number.
    if found.shape != (len(images),):
        raise InputError(
            f"{place}: must hold a label for each image, got {len(images)} images and "
            f"{key!r} of shape {found.shape}."
        )
    return images.reshape(-1, 3, SIDE, SIDE), found


def _labels(place: Path, key: str, labels: Any) -> NDArray[Any]:
    whole = isinstance(labels, np.ndarray) or (
        isinstance(labels, Sequence) and all(isinstance(label, int) for label in labels)
    )
    if not whole:
        raise InputError(f"{place}: {key!r} must be whole numbers.")
    return np.asarray(labels)
