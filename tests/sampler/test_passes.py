"""The forward passes of an update: how many, how large, where they go."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampler.example_streams import (
    KINDS,
    Items,
    asked_of,
    cut_streams,
    plain_order,
    rows_in,
    rows_of,
    stream_of,
    streams_of,
)

from rightbatch.sampler import IterableStream, Loading, MicroBatchStream

# Passes -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tensors", "items", "collated"])
@pytest.mark.parametrize(
    ("join", "largest", "batch_size", "sizes"),
    [
        ("doubling", None, 44, [32, 8, 4]),
        ("doubling", 16, 44, [16, 16, 8, 4]),
        ("doubling", 31, 44, [16, 16, 8, 4]),
        ("doubling", 4, 12, [4, 4, 4]),
        ("doubling", None, 46, [32, 8, 4, 2]),
        ("any", None, 44, [44]),
        ("any", 16, 44, [16, 16, 12]),
        ("any", 12, 46, [12, 12, 12, 10]),
        ("never", None, 14, [4, 4, 4, 2]),
        ("doubling", None, 3, [3]),
    ],
)
def test_micro_batches_are_joined_up_to_the_largest_pass(
    kind, join, largest, batch_size, sizes
):
    stream = stream_of(kind, 100, 4, join=join, largest_pass=largest)
    for _ in range(3):
        update = stream.next(batch_size)
        assert [one.num_examples for one in update.passes] == sizes
        assert [one.num_micro_batches for one in update.passes] == [
            -(-size // 4) for size in sizes
        ]


@given(case=cut_streams())
def test_all_replicas_have_as_many_passes(case):
    asked = asked_of(case)
    del case["repeats"]
    streams = streams_of(**case)
    for size, units in asked:
        updates = [stream.next(size, min_units=units) for stream in streams]
        if case["kind"] != "padded":
            assert len({len(update.passes) for update in updates}) == 1
        empty = [one for u in updates for one in u.passes if not one.num_examples]
        assert all(update.is_padded == bool(empty) for update in updates)
        if size % (case["size"] * case["of"]) == 0:
            assert not empty


@given(case=cut_streams(), units=st.integers(2, 12))
def test_a_meter_gets_the_units_it_asks_for_as_equal_as_can_be(case, units):
    kind = "tensors" if case["kind"] == "padded" else case["kind"]
    largest = case["largest_pass"]
    streams = streams_of(kind, case["length"], case["size"], case["of"])
    for size, _ in case["asked"]:
        for stream in streams:
            stream.largest_pass = largest
        updates = [stream.next(size, min_units=units) for stream in streams]
        sizes = [one.num_examples for u in updates for one in u.passes]
        wanted = min(units, size // case["of"] * case["of"])
        assert len(sizes) >= wanted
        assert len([s for s in sizes if s]) <= size
        assert max(sizes) <= (largest or size)
        if size >= case["of"]:
            # Those of one replica differ by one; replicas' own shares by one more.
            assert max(sizes) - min(sizes) <= 2


def test_units_go_below_the_micro_batch_size_where_they_have_to():
    for kind in ("tensors", "items", "collated", "padded"):
        update = stream_of(kind, 100, 16).next(16, min_units=8)
        assert [one.num_examples for one in update.passes] == [2] * 8


def test_units_are_whole_micro_batches_where_that_is_equal():
    update = stream_of("collated", 100, 4).next(64, min_units=8)
    assert {(one.num_examples, one.num_micro_batches) for one in update.passes} == {
        (8, 2)
    }


def test_the_largest_pass_may_change_at_any_time_and_go_below_a_micro_batch():
    stream = stream_of("tensors", 100, 8)
    assert len(stream.next(32).passes) == 1
    assert len(stream.next(32).passes) == 1
    stream.largest_pass = 8
    assert len(stream.next(32).passes) == 4
    stream.largest_pass = 3
    sizes = [one.num_examples for one in stream.next(32).passes]
    assert (len(sizes), max(sizes), sum(sizes)) == (11, 3, 32)
    stream.largest_pass = None
    assert len(stream.next(32).passes) == 1


@pytest.mark.parametrize("tail", ["short", "carry"])
@pytest.mark.parametrize("kind", KINDS)
def test_fewer_examples_than_replicas_leave_one_an_empty_pass(kind, tail):
    streams = streams_of(kind, 13, 2, 3, tail=tail)
    for stream in streams:
        stream.next(12)
    updates = [stream.next(1) for stream in streams]
    assert [update.local_examples for update in updates] == [1, 0, 0]
    assert [len(update.passes) for update in updates] == [1, 1, 1]
    assert all(update.is_padded for update in updates)
    assert [u.passes[0].num_micro_batches for u in updates] == [1, 0, 0]
    rows = [row for update in updates for row in rows_of(update)]
    assert rows == plain_order(13, 13)[12:]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_pass_repeats_two_examples_so_that_batch_normalization_works(kind):
    streams = streams_of(kind, 13, 2, 3)
    empty = [
        one
        for size in (2, 7, 8)
        for stream in streams
        for one in stream.next(size).passes
        if not one.num_examples
    ]
    assert empty
    for one in empty:
        rows = rows_in(one.batch)
        assert len(rows) == len(set(rows)) == 2


# Batches that cannot be joined ------------------------------------------------------


def test_sentences_of_other_lengths_go_one_micro_batch_at_a_time():
    update = stream_of("padded", 50, 4).next(16)
    assert [one.num_examples for one in update.passes] == [4, 4, 4, 4]
    shapes = {one.batch["x"].shape[1] for one in update.passes}
    assert len(shapes) > 1


def test_what_is_not_understood_is_handed_on_as_it_is():
    class Opaque:
        def __init__(self, items):
            self.rows = [row for _, row in items]

    stream = MicroBatchStream(Items(20), 2, collate=Opaque)
    update = stream.next(7, min_units=5)
    assert [one.num_examples for one in update.passes] == [2, 2, 2, 1]
    assert [row for one in update.passes for row in one.batch.rows] == plain_order(
        20, 7
    )


def test_smaller_passes_cut_micro_batches_that_cannot_be_joined():
    update = stream_of("padded", 50, 4).next(8).recut(2)
    assert [one.num_examples for one in update.passes] == [2, 2, 2, 2]


# Devices ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["items", "collated", "padded"])
def test_passes_go_to_the_device_as_they_are_asked_for(kind):
    stream = stream_of(kind, 50, 4, device="meta")
    passes = stream.next(12).passes
    for one in (*passes, passes[0], *passes[:1]):
        batch = one.batch if isinstance(one.batch, dict) else {"x": one.batch[0]}
        assert batch["x"].device.type == "meta"
    assert sum(one.num_examples for one in passes) == 12
    assert len(passes) == len(list(passes))
    assert stream.device.type == "meta"


@pytest.mark.parametrize(
    ("asked", "there", "found"),
    [
        ("cuda", True, "cuda:3"),
        ("cuda", False, "cuda"),
        ("cuda:1", True, "cuda:1"),
        ("mps", False, "mps:0"),
        ("cpu", True, "cpu"),
    ],
)
def test_a_device_carries_its_number_as_a_models_parameters_do(
    monkeypatch, asked, there, found
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    streams = (
        MicroBatchStream(Items(9), 2, loading=Loading(device=asked)),
        IterableStream([torch.ones(2)], 2, loading=Loading(device=asked)),
    )
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert [stream.device for stream in streams] == [torch.device(found)] * 2


def test_tensors_are_moved_once():
    stream = stream_of("tensors", 50, 4, device="meta")
    assert stream.next(8).passes[0].batch[0].device.type == "meta"


def test_smaller_passes_stay_on_the_device():
    update = stream_of("collated", 50, 4, device="meta").next(8).recut(2)
    assert {one.batch["x"].device.type for one in update.passes} == {"meta"}
