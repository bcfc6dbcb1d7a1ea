"""The reader of idx files, against bytes written by hand."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.experiments.data.idx import DTYPES, read_idx, read_idx_images


def idx_bytes(values: np.ndarray, code: int = 8) -> bytes:
    header = struct.pack(">BBBB", 0, 0, code, values.ndim)
    sizes = b"".join(struct.pack(">I", n) for n in values.shape)
    return header + sizes + values.astype(DTYPES[code]).tobytes()


def written(path: Path, content: bytes, *, zipped: bool = False) -> Path:
    path.write_bytes(gzip.compress(content) if zipped else content)
    return path


def read_pair(folder: Path, images: np.ndarray, labels: np.ndarray):
    files = (
        written(folder / "images", idx_bytes(images)),
        written(folder / "labels", idx_bytes(labels)),
    )
    return read_idx_images(files, side=2, num_classes=3)


@given(
    code=st.sampled_from(sorted(DTYPES)),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    zipped=st.booleans(),
)
def test_an_array_comes_back_as_it_was_written(tmp_path_factory, code, shape, zipped):
    values = np.arange(np.prod(shape)).reshape(shape) % 100
    path = tmp_path_factory.mktemp("idx") / "any-name"
    read = read_idx(written(path, idx_bytes(values, code), zipped=zipped))
    assert read.dtype == np.dtype(DTYPES[code]).newbyteorder("=")
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not an idx file: it begins with nothing"),
        (b"\x89PNG....", "begins with 89 50 4e 47"),
        (b"\0\0\x07\x01\0\0\0\1a", "not an idx file"),
        (b"\0\0\x08\x00", "has no dimensions"),
        (b"\0\0\x08\x02\0\0\0\1", "header is cut short"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "cut short: .* 5 values, 5 bytes; it has 3"),
        (b"\0\0\x08\x01\0\0\0\x02abc", "too long: .* 2 bytes; it has 3"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_that_is_not_what_it_says_is_refused(tmp_path, content, match, zipped):
    path = written(tmp_path / "bad-idx", content, zipped=zipped)
    with pytest.raises(InputError, match=f"bad-idx: .*{match}"):
        read_idx(path)


def test_a_damaged_or_truncated_gzip_file_and_a_missing_one_are_named(tmp_path):
    whole = gzip.compress(idx_bytes(np.arange(200)))
    for name, content in (
        ("short", whole[: len(whole) // 2]),
        ("damaged", whole[:20] + b"\xff\xff\xff\xff" + whole[24:]),
    ):
        path = written(tmp_path / name, content)
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            read_idx(path)
    with pytest.raises(InputError, match="absent: cannot be read: .*No such file"):
        read_idx(tmp_path / "absent")


def test_images_get_one_channel_and_labels_become_int64(tmp_path):
    images = np.array([[[0, 51], [102, 255]], [[255, 255], [0, 0]]])
    pixels, labels = read_pair(tmp_path, images, np.array([2, 0]))
    assert pixels.shape == (2, 1, 2, 2)
    assert pixels[0].flatten().tolist() == [0, 51, 102, 255]
    assert labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (np.zeros((2, 3, 3)), np.zeros(2), "images: images must be 2 x 2 bytes"),
        (np.zeros((0, 2, 2)), np.zeros(0), "images: holds no images"),
        (
            np.zeros((2, 3, 2, 2)),
            np.zeros(2),
            "images: images must have 1 channel, got 3",
        ),
        (np.zeros((2, 4)), np.zeros(2), r"got uint8 of shape \(2, 4\)"),
        (np.zeros((2, 2, 2)), np.zeros((2, 1)), "labels: labels must be one whole"),
        (np.zeros((2, 2, 2)), np.zeros(3), "holds 2 images and .*labels 3 labels"),
        (np.zeros((2, 2, 2)), np.array([0, 3]), "must be in 0..2, got 3 at 1"),
    ],
)
def test_a_pair_that_does_not_belong_together_is_refused(
    tmp_path, images, labels, match
):
    with pytest.raises(InputError, match=match):
        read_pair(tmp_path, images, labels)


def test_labels_that_are_no_whole_numbers_are_refused(tmp_path):
    files = (
        written(tmp_path / "images", idx_bytes(np.zeros((1, 2, 2)))),
        written(tmp_path / "labels", idx_bytes(np.array([0.5]), 0x0D)),
    )
    with pytest.raises(InputError, match="got float32 of shape"):
        read_idx_images(files, side=2, num_classes=3)
