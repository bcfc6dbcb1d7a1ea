"""Images with a class each, as a data set; and what every reader of them checks."""

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


class LabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """Rows of images and labels, read when first used.

    Args:
        read: Returns the images, shape (n, channels, height, width), uint8, and the
            labels, shape (n,), int64; called at first use. Several sets of rows of
            the same files share one reading through ``functools.cache(read)``.
        rows: ``rows(n)`` picks rows out of n; all when None.
        relabel: Maps labels to others; as they are when None.
        center: Taken from all pixels, once they are in 0..1.
        spread: What pixels are then divided by.

    Example:
        >>> pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
        >>> images = LabelledImages(lambda: (pixels, torch.tensor([2, 0, 1])))
        >>> len(images), images[2]
        (3, (tensor([[[1.]]]), tensor(1)))
    """

    # The stream may gather many rows at once.
    rows_are_items = True

    def __init__(
        self,
        read: Callable[[], tuple[Tensor, Tensor]],
        *,
        rows: Callable[[int], Tensor] | None = None,
        relabel: Callable[[Tensor], Tensor] | None = None,
        center: float = 0.0,
        spread: float = 1.0,
    ) -> None:
        self._read = read
        self._rows = rows
        self._relabel = relabel
        self._center = center
        self._spread = spread

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images, shape (n, channels, height, width), floats; labels, shape (n,)."""
        images, labels = self._read()
        if self._rows is not None:
            rows = self._rows(len(labels))
            images, labels = images[rows], labels[rows]
        if self._relabel is not None:
            labels = self._relabel(labels)
        pixels = images.float().div_(255)
        return pixels.sub_(self._center).div_(self._spread), labels

    def __len__(self) -> int:
        return len(self.tensors[1])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.tensors
        return images[index], labels[index]


def to_tensors(
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    side: int,
    num_classes: int,
    places: tuple[Path, Path],
    channels: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return images and labels as tensors, once they are what they must be.

    Args:
        images: Shape (n, channels, side, side), uint8.
        labels: Shape (n,), whole numbers in 0..num_classes-1.
        side: Height and width an image must have, in pixels.
        num_classes: How many classes there are.
        places: The files the images and the labels are from, for errors.
        channels: How many an image must have; any number when None.

    Returns:
        Images, uint8, and labels, int64.

    Raises:
        InputError: They are not; the file is named.

    Example:
        >>> pixels = np.zeros((2, 3, 8, 8), dtype=np.uint8)
        >>> here = (Path("x"), Path("y"))
        >>> images, labels = to_tensors(
        ...     pixels, np.array([1, 0]), side=8, num_classes=2, places=here
        ... )
        >>> images.shape, labels.dtype
        (torch.Size([2, 3, 8, 8]), torch.int64)
    """
    image_file, label_file = places
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2:] != (side, side):
        raise InputError(
            f"{image_file}: images must be {side} x {side} bytes, got {images.dtype} "
            f"of shape {images.shape}."
        )
    if channels not in (None, images.shape[1]):
        raise InputError(
            f"{image_file}: images must have {channels} channel"
            f"{'s' if channels != 1 else ''}, got {images.shape[1]}."
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
    if len(images) == 0:
        raise InputError(f"{image_file}: holds no images.")
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
        raise InputError(
            f"{label_file}: labels must be in 0..{num_classes - 1}, "
            f"got {labels[bad[0]]} at {bad[0]}."
        )
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(
        labels.astype(np.int64)
    )
