"""Image files in folders and archives, against the images they were made of."""

import io
import sys

import numpy as np
import pytest
from experiments.data.example_images import drawn, encoded, write_files, write_tar
from PIL import Image

from rightbatch.errors import InputError
from rightbatch.experiments.data.image_files import read_image_files

IMAGES = drawn(4, side=8)
FILES = {
    "README.md": b"not an image",
    "train/cat/0001.png": encoded(IMAGES[1]),
    "train/cat/0000.png": encoded(IMAGES[0]),
    "train/cat/._0000.png": b"notes of a file system",
    "train/cat/notes.txt": b"text",
    "train/ant/0000.PNG": encoded(IMAGES[2]),
    "train/.cache/0000.png": encoded(IMAGES[3]),
    "test/bee/0000.png": encoded(IMAGES[3]),
    "test/train/cat/0000.png": encoded(IMAGES[3]),
}


def in_mode(mode: str) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (8, 8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("form", ["folder", "images.tar", "images.tar.xz", "deeper"])
def test_classes_are_folders_in_the_order_of_their_names(tmp_path, form):
    if form == "folder":
        path = write_files(tmp_path, FILES)
    elif form == "deeper":
        path = write_files(tmp_path, {f"top/{name}": FILES[name] for name in FILES})
    else:
        path = write_tar(tmp_path / form, FILES)
    images, labels = read_image_files(path, split="train", side=8, num_classes=2)
    np.testing.assert_array_equal(images.numpy(), IMAGES[[2, 0, 1]])
    assert labels.tolist() == [0, 1, 1]


def test_a_jpeg_and_a_grey_image_become_colours(tmp_path):
    flat = np.full((3, 8, 8), 77, dtype=np.uint8)
    files = {
        "test/a/1.jpg": encoded(flat, "JPEG"),
        "test/b/2.jpeg": encoded(flat, "JPEG"),
    }
    path = write_files(tmp_path, files)
    images, _ = read_image_files(path, split="test", side=8, num_classes=2)
    assert images.shape == (2, 3, 8, 8)
    assert (images == 77).all()


@pytest.mark.parametrize(
    ("files", "match"),
    [
        (
            {"train/a/1.png": encoded(drawn(1, side=9)[0])},
            "1.png: images must be 8 x 8",
        ),
        ({"train/a/1.png": b"\x89PNG"}, "1.png: the image cannot be read: of no kind"),
        (
            {"train/a/1.png": FILES["train/cat/0000.png"][:-40]},
            "cannot be read: .*trunc",
        ),
        (
            {"train/a/1.png": in_mode("I;16")},
            "1.png: .*: its pixels must be bytes, got mode I;16",
        ),
        (
            {"a/train/x/1.png": b"", "b/train/x/1.png": b""},
            "must have one folder train, got a/train and b/train",
        ),
        ({"test/a/1.png": b""}, "2 folders train/<class>, got 0."),
        ({"train/a/1.png": encoded(IMAGES[0])}, "2 folders train/<class>, got 1: a."),
        (
            {f"train/{name}/1.png": encoded(IMAGES[0]) for name in "abc"},
            "got 3: a, b, c.",
        ),
    ],
)
def test_what_is_no_folder_of_images_is_refused(tmp_path, files, match):
    path = write_files(tmp_path, files)
    with pytest.raises(InputError, match=match):
        read_image_files(path, split="train", side=8, num_classes=2)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"pip install 'rightbatch\[data\]'"):
        read_image_files(tmp_path, split="train", side=8, num_classes=2)


def test_an_image_too_large_to_be_decoded_is_refused(tmp_path, monkeypatch):
    path = write_files(tmp_path, FILES)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(InputError, match="PNG: the image cannot be read: .*exceeds"):
        read_image_files(path, split="train", side=8, num_classes=2)
