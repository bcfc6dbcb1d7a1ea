"""Rows of labelled images, against tensors written by hand."""

from functools import cache

import pytest
import torch

from rightbatch.errors import InputError
from rightbatch.experiments.data.labelled_images import LabelledImages

PIXELS = torch.tensor([0, 51, 102, 255], dtype=torch.uint8).reshape(4, 1, 1, 1)
LABELS = torch.tensor([0, 1, 2, 1])


def test_pixels_become_fractions():
    images, labels = LabelledImages(lambda: (PIXELS, LABELS)).tensors
    assert images.flatten().tolist() == pytest.approx([0, 0.2, 0.4, 1])
    assert images.dtype == torch.float32
    assert labels.tolist() == [0, 1, 2, 1]


def test_rows_are_picked_and_labels_mapped():
    picked = LabelledImages(
        lambda: (PIXELS, LABELS),
        rows=lambda count: torch.arange(count - 1, 0, -1),
        relabel=lambda labels: labels + 10,
    )
    assert picked.tensors[1].tolist() == [11, 12, 11]
    assert len(picked) == 3
    assert picked[0][1] == 11


def test_files_are_read_at_first_use_and_once_for_all_sets_of_rows():
    asked: list[int] = []

    @cache
    def read():
        asked.append(1)
        return PIXELS, LABELS

    sets = [LabelledImages(read, rows=torch.arange) for _ in range(3)]
    assert not asked
    assert [len(one) for one in sets] == [4, 4, 4]
    assert len(asked) == 1
    # What is read stays as it was: the sets copy their rows.
    sets[0].tensors[0].zero_()
    assert sets[1].tensors[0].sum() > 0
    assert PIXELS.sum() > 0


def test_a_reading_that_failed_is_tried_again():
    asked: list[int] = []

    @cache
    def read():
        asked.append(1)
        if len(asked) == 1:
            raise InputError("not yet")
        return PIXELS, LABELS

    images = LabelledImages(read)
    with pytest.raises(InputError, match="not yet"):
        len(images)
    assert len(images) == 4
