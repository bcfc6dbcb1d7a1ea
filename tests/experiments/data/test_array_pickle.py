"""Pickles of arrays, against pickle itself; and pickles that must not be run."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.experiments.data.array_pickle import load_arrays
from rightbatch.experiments.data.image_stand_in import python_2_pickle

HERE = Path("data_batch_1")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_that_python_3_pickled_comes_back(protocol, order):
    array = np.asarray(np.arange(12, dtype=np.uint8).reshape(3, 4), order=order)
    held = {"data": array, "labels": [3, 1, 2], "name": "one", "none": None}
    read = load_arrays(pickle.dumps(held, protocol), HERE)
    np.testing.assert_array_equal(read.pop("data"), array)
    assert read == {"labels": [3, 1, 2], "name": "one", "none": None}


@pytest.mark.parametrize("size", [10, 300])
def test_a_batch_that_python_2_pickled_comes_back(size):
    images = (np.arange(2 * size) % 256).astype(np.uint8).reshape(2, size)
    content = python_2_pickle(images, {b"labels": [7, 200]})
    read = load_arrays(content, HERE)
    np.testing.assert_array_equal(read["data"], images)
    assert read["labels"] == [7, 200]
    # What it was written as is a pickle to Python itself, too.
    theirs = pickle.loads(
        content.replace(b"numpy.core", b"numpy._core"), encoding="bytes"
    )
    np.testing.assert_array_equal(theirs[b"data"], images)


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path):
    left = tmp_path / "was-here"
    for protocol in range(5):
        content = pickle.dumps({"data": Attack(os.mkdir, str(left))}, protocol)
        with pytest.raises(InputError, match=r"asks for \w+\.mkdir, which was not run"):
            load_arrays(content, HERE)
    assert not left.exists()


@pytest.mark.parametrize("asked", [eval, getattr, np.load, OrderedDict])
def test_anything_but_arrays_and_text_is_refused_by_name(asked):
    with pytest.raises(InputError, match=rf"asks for [\w.]*\.{asked.__name__}, "):
        load_arrays(pickle.dumps(asked), HERE)


def test_an_object_kept_elsewhere_is_refused():
    with pytest.raises(InputError, match="asks for an outside object, 'x'"):
        load_arrays(b"\x80\x02X\x01\x00\x00\x00xQ.", HERE)


@pytest.mark.parametrize(
    "held",
    [
        {"data": np.array([{"an": "object"}], dtype=object)},
        {"data": np.zeros(3)},
    ],
    ids=["objects", "floats"],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_an_array_of_anything_but_bytes_is_refused(held, protocol):
    with pytest.raises(InputError, match="data_batch_1: .*an array is not of bytes"):
        load_arrays(pickle.dumps(held, protocol), HERE)


def test_an_array_with_its_axes_laid_out_otherwise_is_refused():
    class Laid:
        def __reduce__(self):
            arguments = b"12", np.dtype("u1"), (2,), "K", (0,)
            return np.zeros(1).__reduce_ex__(5)[0], arguments

    with pytest.raises(InputError, match="an array is laid out in order K"):
        load_arrays(pickle.dumps(Laid(), 5), HERE)


WHOLE = python_2_pickle(np.zeros((1, 4), np.uint8), {b"labels": [1]})


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "Ran out of input"),
        (b"no pickle at all", "data_batch_1: not a pickle of arrays"),
        (WHOLE[:-30], "data_batch_1: not a pickle of arrays"),
        (
            WHOLE.replace(b"U\x04\0\0\0\0", b"U\x03\0\0\0"),
            r"shape \(1, 4\) has 3 bytes",
        ),
        (b"\x80\x02cnumpy\nndarray\n)R.", "an array has no values"),
        (b"\x80\x02c_codecs\nencode\n.", "asks for a function, which was not run"),
    ],
)
def test_damaged_pickles_are_named(content, match):
    with pytest.raises(InputError, match=match):
        load_arrays(content, HERE)
