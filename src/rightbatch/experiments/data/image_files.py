"""Reader of image files, ``<split>/<class>/<name>.png`` or ``.jpg``.

They lie in a folder or in a tar archive, packed or not. Classes are numbered in the
order of their names, as they stand. Needs Pillow, of the extra ``data``.
"""

import io
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rightbatch.errors import InputError
from rightbatch.experiments.data.archives import members
from rightbatch.experiments.data.labelled_images import to_tensors

SUFFIXES = {".png", ".jpg", ".jpeg"}


def read_image_files(
    path: Path, *, split: str, side: int, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return the images of one split and their classes, ordered by class and name.

    Args:
        path: A folder or a tar archive; files of other kinds, and hidden files and
            folders, are passed over.
        split: Name of the folder whose folders are the classes, ``train``; it may lie
            deeper, and the uppermost of that name is taken.
        side: Height and width an image must have, in pixels.
        num_classes: How many folders of classes there must be.

    Returns:
        Images, shape (n, 3, side, side), uint8; labels, shape (n,), int64.

    Raises:
        InputError: Pillow is not there, a folder of a class is missing, an image
            cannot be read or is of another size; the file is named.
    """
    decode = _decoder()

    def is_image(name: PurePosixPath) -> bool:
        return (
            len(name.parts) >= 3
            and name.parts[-3] == split
            and name.suffix.lower() in SUFFIXES
            # Some systems leave a file of notes beside each image.
            and not any(part.startswith(".") for part in name.parts)
        )

    contents = _of_one_folder(path, split, dict(members(path, is_image)))
    found = {
        name: _square(decode(content, path / name), side, path / name)
        for name, content in contents.items()
    }
    names = sorted(found, key=lambda name: PurePosixPath(name).parts[-2:])
    class_of = {name: PurePosixPath(name).parts[-2] for name in names}
    classes = sorted(set(class_of.values()))
    if len(classes) != num_classes:
        raise InputError(
            f"{path}: must have images in {num_classes} folders {split}/<class>, got "
            f"{len(classes)}{': ' if classes else ''}{', '.join(classes[:12])}.",
            "each image is <split>/<class>/<name>.png or .jpg",
        )
    images = np.stack([found[name] for name in names]).transpose(0, 3, 1, 2)
    labels = np.array([classes.index(class_of[name]) for name in names])
    return to_tensors(
        images,
        labels,
        side=side,
        channels=3,
        num_classes=num_classes,
        places=(path, path),
    )


def _of_one_folder(
    path: Path, split: str, contents: dict[str, bytes]
) -> dict[str, bytes]:
    folder_of = {name: PurePosixPath(name).parents[1] for name in contents}
    folders = sorted(set(folder_of.values()), key=lambda at: (len(at.parts), at))
    if len(folders) > 1 and len(folders[0].parts) == len(folders[1].parts):
        raise InputError(
            f"{path}: must have one folder {split}, got {folders[0]} and {folders[1]}.",
            "name the folder of one of them",
        )
    return {name: contents[name] for name in contents if folder_of[name] == folders[0]}


def _decoder() -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputError(
            "reading image files needs Pillow, which is not installed.",
            "pip install 'rightbatch[data]'",
        ) from None

    def decode(content: bytes, place: Path) -> NDArray[np.uint8]:
        try:
            with Image.open(io.BytesIO(content)) as image:
                # Pillow would cut what is above 255 off.
                if image.mode.startswith(("I", "F")):
                    raise ValueError(f"its pixels must be bytes, got mode {image.mode}")
                return np.asarray(image.convert("RGB"))
        except (
            UnidentifiedImageError,
            Image.DecompressionBombError,
            OSError,
            SyntaxError,
            ValueError,
        ) as error:
            reason = (
                "of no kind known"
                if isinstance(error, UnidentifiedImageError)
                else str(error).rstrip(".")
            )
            raise InputError(f"{place}: the image cannot be read: {reason}.") from None

    return decode


def _square(image: NDArray[np.uint8], side: int, place: Path) -> NDArray[np.uint8]:
    height, width, _ = image.shape
    if (height, width) != (side, side):
        raise InputError(
            f"{place}: images must be {side} x {side} pixels, got {width} x {height}.",
            "resize them first",
        )
    return image
