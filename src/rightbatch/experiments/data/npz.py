"""Reader of images in a numpy archive: ``X``, uint8, and ``y``, their classes."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rightbatch.errors import InputError
from rightbatch.experiments.data.checksums import check_sum
from rightbatch.experiments.data.labelled_images import to_tensors

UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error)


def read_npz(
    path: Path, *, side: int, num_classes: int, channels: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a numpy archive.

    Args:
        path: It holds `X`, shape (n, side, side, channels) or (n, side, side), uint8,
            and `y`, shape (n,), whole numbers. Arrays of objects are refused: reading
            them would run what they ask for.
        side: Height and width an image must have, in pixels.
        num_classes: Labels must be in 0..num_classes-1.
        channels: How many an image must have; any number when None.

    Returns:
        Images, shape (n, channels, side, side), uint8; labels, shape (n,), int64.

    Raises:
        InputError: The file cannot be read, lacks an array or holds another kind.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "two.npz"
        >>> pixels = np.zeros((2, 8, 8, 3), dtype=np.uint8)
        >>> np.savez(path, X=pixels, y=np.array([1, 0]))
        >>> read_npz(path, side=8, num_classes=2)[0].shape
        torch.Size([2, 3, 8, 8])
    """
    images, labels = _arrays(path)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim == 4:
        images = images.transpose(0, 3, 1, 2)
    return to_tensors(
        images,
        labels,
        side=side,
        channels=channels,
        num_classes=num_classes,
        places=(path, path),
    )


def _arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    check_sum(path)
    try:
        # numpy leaves a file that it opened and cannot read to be closed some day.
        with path.open("rb") as file:
            archive: Any = np.load(file, allow_pickle=False)
            # A single array, as numpy.save writes it, has no names.
            names = () if isinstance(archive, np.ndarray) else archive.files
            missing = [name for name in ("X", "y") if name not in names]
            if missing:
                raise InputError(
                    f"{path}: lacks {' and '.join(missing)}.",
                    "an archive of images holds X, uint8, and y, their classes",
                )
            return archive["X"], archive["y"]
    except InputError:
        raise
    # Of kinds that zipfile cannot unpack it says so by a RuntimeError.
    except (*UNREADABLE, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path}: not a numpy archive of plain arrays: {error}.",
            "fetch the file again, or save it with numpy.savez",
        ) from None
