"""Tiny generated images in the real files of MNIST, Fashion-MNIST and CIFAR.

Each class is a bright square at a place of its own on a dim, speckled ground, so that a
net can learn them; nothing about them is like the data they stand in for.
"""

import gzip
import io
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]

NUM_IMAGES = 200
PER_BATCH = NUM_IMAGES // 5
CELL = 3


def _drawn(channels: int, side: int, num_classes: int) -> tuple[Images, list[int]]:
    """Return images, shape (n, channels, side, side), and classes, the same each time.

    Args:
        channels: 1 or 3.
        side: In pixels.
        num_classes: At most the cells of three pixels that a side squared holds.
    """
    draws = np.random.RandomState(0)
    # A few grey levels only, so that the archives stay small.
    images = draws.randint(4, size=(NUM_IMAGES, channels, side, side)) * 16
    per_row = side // CELL
    labels = [row % num_classes for row in range(NUM_IMAGES)]
    for image, label in zip(images, labels, strict=True):
        cell = label * (per_row**2 // num_classes)
        top, left = CELL * (cell // per_row), CELL * (cell % per_row)
        image[:, top : top + 2 * CELL, left : left + 2 * CELL] = 240
    return images.astype(np.uint8), labels


def write_idx(folder: Path) -> None:
    """Write the training files of MNIST, or of a data set in its form.

    Args:
        folder: Where to.
    """
    images, labels = _drawn(1, 28, 10)
    header = struct.pack(">IIII", 0x803, NUM_IMAGES, 28, 28)
    _write_gz(folder / "train-images-idx3-ubyte.gz", header + images.tobytes())
    header = struct.pack(">II", 0x801, NUM_IMAGES)
    _write_gz(folder / "train-labels-idx1-ubyte.gz", header + bytes(labels))


def write_cifar10(folder: Path) -> None:
    """Write the Python version of CIFAR10, its training batches.

    Args:
        folder: Where to.
    """
    images, labels = _drawn(3, 32, 10)
    batches: dict[str, bytes] = {}
    for number in range(5):
        rows = slice(number * PER_BATCH, (number + 1) * PER_BATCH)
        name = f"cifar-10-batches-py/data_batch_{number + 1}"
        batches[name] = python_2_pickle(images[rows], {b"labels": labels[rows]})
    _write_tar(folder / "cifar-10-python.tar.gz", batches)


def write_cifar100(folder: Path) -> None:
    """Write the Python version of CIFAR100, its training file.

    Args:
        folder: Where to.
    """
    images, labels = _drawn(3, 32, 100)
    coarse = [label // 5 for label in labels]
    content = python_2_pickle(
        images, {b"fine_labels": labels, b"coarse_labels": coarse}
    )
    _write_tar(folder / "cifar-100-python.tar.gz", {"cifar-100-python/train": content})


def python_2_pickle(images: Images, lists: Mapping[bytes, list[int]]) -> bytes:
    """Return a dict of images and lists as Python 2 pickled CIFAR's.

    Python 3 has no way to write Python 2's text, which readers have to cope with, so
    the opcodes are spelt out: protocol 2, text of bytes, an array by way of numpy's
    reconstruction.

    Args:
        images: Kept as rows under ``data``.
        lists: Lists of numbers below 256, by their keys.
    """
    rows = images.reshape(len(images), -1)
    shape = b"".join(b"J" + struct.pack("<i", size) for size in rows.shape)
    kind = b"cnumpy\ndtype\n" + _text(b"u1") + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + _text(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
    array = empty + _text(b"b") + b"\x87R"
    array += (
        b"(K\x01" + shape + b"\x86" + kind + b"\x89" + _text(rows.tobytes()) + b"tb"
    )
    items = _text(b"data") + array
    for key, values in lists.items():
        items += (
            _text(key) + b"](" + b"".join(b"K%c" % value for value in values) + b"e"
        )
    return b"\x80\x02}(" + items + b"u."


def _text(value: bytes) -> bytes:
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + struct.pack("<i", len(value)) + value


def _write_gz(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, 1, mtime=0))


def _write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    _write_gz(path, packed.getvalue())


IMAGE_STAND_INS: Mapping[str, Callable[[Path], None]] = {
    "mnist": write_idx,
    "fashion-mnist": write_idx,
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
}
