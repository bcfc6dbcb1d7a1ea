"""Reader of idx files, the format of MNIST and its many likenesses; gzipped or not.

An idx file is a magic number (two zero bytes, a type code, the number of dimensions),
the dimensions as big-endian 32-bit integers, then the values, big-endian, last
dimension fastest (LeCun, Cortes and Burges, "The MNIST database").
"""

import gzip
import math
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rightbatch.errors import InputError

# The third byte of the file.
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array an idx file holds, in the machine's own byte order.

    Whether it is gzipped is told by its first bytes, not by its name.

    Raises:
        InputError: The file cannot be read, is no idx file, or holds fewer or more
            values than its header says; the file is named.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        >>> read_idx(path)
        array([7, 2, 1], dtype=uint8)
    """
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
        raise InputError(
            f"{path}: not an idx file: it begins with "
            f"{content[:4].hex(' ') or 'nothing'}."
        )
    dtype, rank = np.dtype(DTYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    if rank == 0 or len(content) < start:
        raise InputError(f"{path}: the idx header is cut short or has no dimensions.")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", rank, 4))
    wanted, found = math.prod(shape) * dtype.itemsize, len(content) - start
    if wanted != found:
        raise InputError(
            f"{path}: {'cut short' if found < wanted else 'too long'}: its header says "
            f"{' x '.join(map(str, shape))} values, {wanted} bytes; it has {found}.",
            "fetch the file again",
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


class IdxImages(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels of a pair of idx files, read when first used.

    Args:
        find: Returns the paths of the images and of the labels; called at first use.
        side: Height and width an image must have, in pixels.
        num_classes: Labels must be in 0..num_classes-1.
        rows: ``rows(n)`` picks rows out of n; all when None.
        relabel: Maps labels to others; as they are when None.
    """

    # The stream may gather many rows at once.
    rows_are_items = True

    def __init__(
        self,
        find: Callable[[], tuple[Path, ...]],
        *,
        side: int,
        num_classes: int,
        rows: Callable[[int], Tensor] | None = None,
        relabel: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._find = find
        self._side = side
        self._num_classes = num_classes
        self._rows = rows
        self._relabel = relabel

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images, shape (n, 1, side, side), in 0..1; labels, shape (n,), int64."""
        images, labels = _pair(self._find(), self._side, self._num_classes)
        if self._rows is not None:
            rows = self._rows(len(labels))
            images, labels = images[rows], labels[rows]
        labels = labels.long()
        if self._relabel is not None:
            labels = self._relabel(labels)
        return images.unsqueeze(1).float().div_(255), labels

    def __len__(self) -> int:
        return len(self.tensors[1])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.tensors
        return images[index], labels[index]


def _pair(
    files: tuple[Path, ...], side: int, num_classes: int
) -> tuple[Tensor, Tensor]:
    image_file, label_file = files
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.dtype != np.uint8 or images.shape[1:] != (side, side):
        raise InputError(
            f"{image_file}: images must be {side} x {side} bytes, "
            f"got {images.dtype} of shape {images.shape}."
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{label_file}: labels must be one whole number per image, "
            f"got {labels.dtype} of shape {labels.shape}."
        )
    if len(images) != len(labels):
        raise InputError(
            f"{image_file} holds {len(images)} images and {label_file} "
            f"{len(labels)} labels.",
            "they must belong together",
        )
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
        raise InputError(
            f"{label_file}: labels must be in 0..{num_classes - 1}, "
            f"got {labels[bad[0]]} at {bad[0]}."
        )
    return torch.from_numpy(images), torch.from_numpy(labels)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == GZIP_MAGIC else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read: {error}.", "fetch the file again"
        ) from None
