"""Small images in the formats of the real data sets, written by hand."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def drawn(count: int, *, side: int = 32) -> np.ndarray:
    """Return images, shape (count, 3, side, side), uint8."""
    rng = np.random.default_rng(count)
    return rng.integers(256, size=(count, 3, side, side), dtype=np.uint8)


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    """Write an archive, packed as its name says."""
    packing = path.suffix.removeprefix(".")
    mode = "w" if packing == "tar" else f"w:{packing}"
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    """Return an image file of an image of shape (3, side, side)."""
    out = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(out, kind)
    return out.getvalue()
