"""Batches of any nesting are joined and cut, or said not to be joinable."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

from rightbatch.sampler.nesting import NotJoinableError, cut, joined, length_of, moved


class Pair(NamedTuple):
    """A batch with names."""

    x: Any
    y: Any


class Titles(dict[str, Any]):
    """A mapping of its own type."""


def batch(start: int, stop: int) -> Any:
    """Return the examples from start up to stop, in every nesting there is."""
    rows = torch.arange(start, stop)
    return {
        "pair": Pair(rows, rows.float().unsqueeze(1)),
        "columns": [rows, (rows.numpy(), rows.bool())],
        "texts": [str(row) for row in rows.tolist()],
        "maybe": tuple(None if row % 2 else row for row in rows.tolist()),
        "split": "train",
        "width": 1,
        "nothing": None,
        "own": Titles(x=rows),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, (torch.Tensor, np.ndarray)):
        return type(one) is type(other) and one.tolist() == other.tolist()
    if isinstance(one, dict):
        return type(one) is type(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        parts = zip(one, other, strict=True)
        return type(one) is type(other) and all(same(a, b) for a, b in parts)
    return one == other


@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_joining_what_was_cut_gives_it_back(cuts):
    total = sum(cuts)
    whole = batch(0, total)
    bounds = [sum(cuts[:place]) for place in range(len(cuts) + 1)]
    parts = [cut(whole, a, b, total) for a, b in zip(bounds, bounds[1:], strict=False)]
    for part, (a, b) in zip(parts, zip(bounds, bounds[1:], strict=False), strict=True):
        assert same(part, batch(a, b))
    assert same(joined(parts, cuts), whole)


def test_a_batch_alone_is_itself_and_so_is_all_of_it():
    opaque = object()
    assert joined([opaque], [3]) is opaque
    assert cut(opaque, 0, 3, 3) is opaque


NOT_JOINABLE = {
    "other shapes": [torch.zeros(2, 3), torch.zeros(2, 4)],
    "other dtypes": [torch.zeros(2), torch.zeros(2).int()],
    "other types": [torch.zeros(2), [1, 2]],
    "other keys": [{"a": torch.zeros(2)}, {"b": torch.zeros(2)}],
    "other lengths of a tuple": [(torch.zeros(2),), (torch.zeros(2), torch.zeros(2))],
    "no axis": [torch.tensor(1.0), torch.tensor(1.0)],
    "examples elsewhere": [torch.zeros(3, 2), torch.zeros(3, 2)],
    "other numbers": [{"longest": 3}, {"longest": 4}],
    "other lists": [["a"], ["b"]],
    "packed": [pack_sequence([torch.zeros(2)] * 2)] * 2,
    "sparse": [torch.eye(2).to_sparse()] * 2,
    "unknown": [object(), object()],
}


@pytest.mark.parametrize("case", NOT_JOINABLE)
def test_what_cannot_be_joined_is_said_so(case):
    with pytest.raises(NotJoinableError):
        joined(NOT_JOINABLE[case], [2, 2])


@pytest.mark.parametrize(
    "whole",
    [
        torch.zeros(3),
        torch.tensor(0.0),
        ["a"],
        [torch.zeros(2), torch.zeros(3)],
        pack_sequence([torch.zeros(2)] * 2),
        torch.eye(2).to_sparse(),
        object(),
    ],
)
def test_what_cannot_be_cut_is_said_so(whole):
    with pytest.raises(NotJoinableError):
        cut(whole, 0, 1, 2)


@pytest.mark.parametrize(
    ("whole", "length"),
    [
        (torch.zeros(3, 2), 3),
        ({"texts": ["a"], "x": (np.zeros(4),)}, 4),
        (["a", "b"], None),
        (torch.tensor(1.0), None),
        ([torch.tensor(1.0), torch.zeros(2)], 2),
        (object(), None),
    ],
)
def test_the_length_is_that_of_the_first_tensor(whole, length):
    assert length_of(whole) == length


def test_every_tensor_is_moved_and_the_rest_left():
    found = moved(batch(0, 2), torch.device("meta"))
    assert found["pair"].y.device.type == "meta"
    assert found["columns"][0].device.type == "meta"
    assert found["own"]["x"].device.type == "meta"
    assert found["texts"] == ["0", "1"]


def test_what_can_move_itself_does():
    packed = moved(pack_sequence([torch.zeros(2)]), torch.device("meta"))
    assert packed.data.device.type == "meta"
