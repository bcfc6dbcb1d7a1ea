"""Images in numpy archives."""

import os

import numpy as np
import pytest
from experiments.data.example_images import drawn

from rightbatch.errors import InputError
from rightbatch.experiments.data.npz import read_npz

IMAGES = drawn(3, side=8).transpose(0, 2, 3, 1)
LABELS = np.array([2, 0, 1], dtype=np.uint8)


def test_channels_come_first(tmp_path):
    path = tmp_path / "images.npz"
    np.savez_compressed(path, X=IMAGES, y=LABELS)
    images, labels = read_npz(path, side=8, num_classes=3)
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), IMAGES)
    assert labels.tolist() == [2, 0, 1]


def test_grey_images_have_one_channel(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, X=IMAGES[..., 0], y=LABELS)
    assert read_npz(path, side=8, num_classes=3)[0].shape == (3, 1, 8, 8)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("was-here",)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"y": LABELS}, "lacks X"),
        ({"images": IMAGES}, "lacks X and y"),
        ({"X": IMAGES, "y": LABELS[:2]}, "holds 3 images and .* 2 labels"),
        ({"X": IMAGES / 255, "y": LABELS}, "must be 8 x 8 bytes, got float64 of shape"),
        ({"X": IMAGES[:, :7], "y": LABELS}, r"got uint8 of shape \(3, 3, 7, 8\)"),
        ({"X": IMAGES[..., :2], "y": LABELS}, "must have 3 channels, got 2"),
        ({"X": IMAGES[..., 0], "y": LABELS}, "must have 3 channels, got 1"),
        ({"X": IMAGES, "y": LABELS + 1}, r"labels must be in 0\.\.2, got 3 at 0"),
        (
            {"X": IMAGES, "y": np.array([Attack()])},
            "not a numpy archive of plain arrays",
        ),
    ],
)
def test_what_is_no_archive_of_images_is_refused(tmp_path, monkeypatch, arrays, match):
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", **arrays)
    with pytest.raises(InputError, match=match):
        read_npz(tmp_path / "images.npz", side=8, num_classes=3, channels=3)
    assert not (tmp_path / "was-here").exists()


def test_a_file_that_is_cut_short_or_no_archive_is_refused(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, X=IMAGES, y=LABELS)
    whole = path.read_bytes()
    for content in (whole[:-100], b"text", b"", b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"images.npz: not a numpy archive"):
            read_npz(path, side=8, num_classes=3)
    with pytest.raises(InputError, match="No such file"):
        read_npz(tmp_path / "absent.npz", side=8, num_classes=3)


def test_the_exact_images_are_the_first_of_cifar10(shared_data):
    path = shared_data / "cifar10" / "cifar10_lossless_first4000.npz"
    if not path.is_file():
        pytest.skip("no exact CIFAR10 images among the real data")
    images, labels = read_npz(path, side=32, num_classes=10)
    assert images.shape == (4000, 3, 32, 32)
    # As CIFAR10's data_batch_1 begins.
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]


def test_a_single_array_under_the_name_of_an_archive_is_refused(tmp_path):
    path = tmp_path / "images.npz"
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(InputError, match=r"images.npz: lacks X and y"):
        read_npz(path, side=8, num_classes=3)
