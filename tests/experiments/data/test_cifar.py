"""The reader of CIFAR, in all its forms, against the images they were made of."""

import pickle

import numpy as np
import pytest
from experiments.data.example_images import drawn, write_files, write_tar

from rightbatch.errors import InputError
from rightbatch.experiments.data.cifar import read_cifar
from rightbatch.experiments.data.image_stand_in import python_2_pickle

IMAGES = drawn(10)
LABELS = np.array([6, 9, 9, 4, 1, 1, 2, 7, 8, 3], dtype=np.uint8)


def python_10() -> dict[str, bytes]:
    files = {
        "cifar-10-batches-py/readme.html": b"",
        "cifar-10-batches-py/test_batch": b"",
    }
    for number in range(5):
        rows = slice(2 * number, 2 * number + 2)
        files[f"cifar-10-batches-py/data_batch_{number + 1}"] = python_2_pickle(
            IMAGES[rows], {b"labels": LABELS[rows].tolist()}
        )
    return files


def binary_10() -> dict[str, bytes]:
    records = np.hstack([LABELS[:, None], IMAGES.reshape(10, -1)])
    return {
        f"cifar-10-batches-bin/data_batch_{n + 1}.bin": records[
            2 * n : 2 * n + 2
        ].tobytes()
        for n in range(5)
    }


def python_100() -> dict[str, bytes]:
    lists = {b"coarse_labels": [0] * 10, b"fine_labels": (LABELS * 11).tolist()}
    return {"cifar-100-python/train": python_2_pickle(IMAGES, lists)}


def binary_100() -> dict[str, bytes]:
    labels = np.stack([np.zeros(10, np.uint8), LABELS * 11], axis=1)
    records = np.hstack([labels, IMAGES.reshape(10, -1)])
    return {"cifar-100-binary/train.bin": records.tobytes()}


FORMS = {
    "python-10": (python_10, 10, 1),
    "binary-10": (binary_10, 10, 1),
    "python-100": (python_100, 100, 11),
    "binary-100": (binary_100, 100, 11),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", ["x.tar.gz", "x.tar", "folder"])
def test_all_forms_hold_the_same_images_in_the_order_of_the_files(
    tmp_path, form, packed
):
    make, num_classes, factor = FORMS[form]
    files = make()
    if packed == "folder":
        path = write_files(tmp_path, files) / next(iter(files)).split("/")[0]
    else:
        # The order of an archive's members says nothing.
        path = write_tar(tmp_path / packed, dict(reversed(files.items())))
    images, labels = read_cifar(path, num_classes=num_classes)
    np.testing.assert_array_equal(images.numpy(), IMAGES)
    assert labels.tolist() == (LABELS * factor).tolist()


def test_a_truncated_archive_is_refused(tmp_path):
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", python_10())
    whole = path.read_bytes()
    for share in (0.9, 0.5, 0.001, 0):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=r"python.tar.gz: .*cut short"):
            read_cifar(path, num_classes=10)


def test_the_missing_files_are_named(tmp_path):
    files = python_10()
    del files["cifar-10-batches-py/data_batch_2"]
    path = write_files(tmp_path, files)
    with pytest.raises(InputError, match=r"lacks data_batch_2\. \(the training files"):
        read_cifar(path, num_classes=10)
    with pytest.raises(InputError, match="lacks train"):
        read_cifar(path, num_classes=100)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "must be whole records of 3074 bytes, got 0 bytes"),
        (bytes(3073), "must be whole records of 3074 bytes, got 3073 bytes"),
        (b"\0\x64" + bytes(3072), "labels must be in 0..99, got 100 at 0"),
    ],
)
def test_a_binary_file_that_is_none_is_refused(tmp_path, content, match):
    path = write_files(tmp_path, {"train.bin": content})
    with pytest.raises(InputError, match=match):
        read_cifar(path, num_classes=100)


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ([1, 2], "a CIFAR100 batch must hold 'data' and 'fine_labels'"),
        ({"data": IMAGES.reshape(10, -1)}, "must hold 'data' and 'fine_labels'"),
        ({"data": IMAGES, "fine_labels": [1]}, r"rows of 3072 bytes, got \(10, 3, 32"),
        ({"data": "text", "fine_labels": [1]}, "rows of 3072 bytes, got str"),
        (
            {"data": IMAGES.reshape(10, -1), "fine_labels": ["a"] * 10},
            "'fine_labels' must be whole numbers",
        ),
        (
            {"data": IMAGES.reshape(10, -1), "fine_labels": [1] * 9},
            r"train: must hold a label for each image, got 10 images and .*\(9,\)",
        ),
        (
            {"data": IMAGES.reshape(10, -1), "fine_labels": [-1] * 10},
            r"labels must be in 0\.\.99, got -1 at 0",
        ),
    ],
)
def test_a_pickle_that_is_no_batch_is_refused(tmp_path, batch, match):
    path = write_files(tmp_path, {"train": pickle.dumps(batch, 2)})
    with pytest.raises(InputError, match=match):
        read_cifar(path, num_classes=100)


def test_batches_whose_labels_only_come_to_the_right_number_together_are_refused(
    tmp_path,
):
    files = python_10()
    for number, labels in ((2, [9]), (3, [4, 1, 1])):
        files[f"cifar-10-batches-py/data_batch_{number}"] = python_2_pickle(
            IMAGES[:2], {b"labels": labels}
        )
    path = write_tar(tmp_path / "x.tar", files)
    with pytest.raises(
        InputError, match=r"data_batch_2: must hold a label for each image, got 2"
    ):
        read_cifar(path, num_classes=10)
