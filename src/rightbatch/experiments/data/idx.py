"""Reader of idx files, the format of MNIST and its many likenesses; gzipped or not.

An idx file is a magic number (two zero bytes, a type code, the number of dimensions),
the dimensions as big-endian 32-bit integers, then the values, big-endian, last
dimension fastest (LeCun, Cortes and Burges, "The MNIST database").
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rightbatch.errors import InputError
from rightbatch.experiments.data.checksums import check_sum
from rightbatch.experiments.data.labelled_images import to_tensors

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


def read_idx_images(
    files: tuple[Path, ...], *, side: int, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a pair of idx files.

    Args:
        files: The file of images and the file of labels.
        side: Height and width an image must have, in pixels.
        num_classes: Labels must be in 0..num_classes-1.

    Returns:
        Images, shape (n, 1, side, side), uint8; labels, shape (n,), int64.

    Raises:
        InputError: A file cannot be used, or they do not belong together.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "x").write_bytes(bytes([0, 0, 8, 3, *[0, 0, 0, 1] * 3, 255]))
        >>> _ = (folder / "y").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
        >>> files = folder / "x", folder / "y"
        >>> read_idx_images(files, side=1, num_classes=10)
        (tensor([[[[255]]]], dtype=torch.uint8), tensor([7]))
    """
    image_file, label_file = files
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim == 3:
        images = images[:, np.newaxis]
    return to_tensors(
        images,
        labels,
        side=side,
        channels=1,
        num_classes=num_classes,
        places=(image_file, label_file),
    )


def _content(path: Path) -> bytes:
    check_sum(path)
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == GZIP_MAGIC else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read: {error}.", "fetch the file again"
        ) from None
