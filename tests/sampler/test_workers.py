"""Micro-batches that other processes load ahead: the same examples, at once."""

import gc
import weakref
from multiprocessing import active_children

import pytest
import torch
from sampler.example_streams import plain_order, rows_of, stream_of, streams_of

AHEAD = {"num_workers": 2, "prefetch_factor": 4}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["items", "collated", "padded"])
def test_a_change_acts_on_the_next_update_whatever_is_loaded_ahead(kind):
    stream = stream_of(kind, 100, 4, **AHEAD)
    sizes = [4, 32, 8, 100, 4, 4, 64]
    order, position = plain_order(100, sum(sizes)), 0
    for size in sizes:
        assert rows_of(stream.next(size)) == order[position : position + size]
        position += size


@pytest.mark.slow
def test_no_example_is_lost_where_batches_end_with_an_epoch():
    streams = streams_of("items", 21, 2, 2, tail="short", **AHEAD)
    order = plain_order(21, 63)
    for epoch in range(3):
        rows: list[int] = []
        for size in (8, 4, 8, 8):
            updates = [stream.next(size) for stream in streams]
            rows += [row for update in updates for row in rows_of(update)]
        assert sorted(rows) == sorted(order[21 * epoch : 21 * (epoch + 1)])


@pytest.mark.slow
def test_what_is_dropped_is_thrown_away_though_it_was_loaded():
    stream = stream_of("items", 22, 4, tail="drop", **AHEAD)
    order = plain_order(22, 66)
    rows = [rows_of(stream.next(size)) for size in (8, 8, 8, 4, 8, 16)]
    firsts = [0, 8, 22, 30, 34, 44]
    assert rows == [
        order[first : first + size]
        for first, size in zip(firsts, (8, 8, 8, 4, 8, 16), strict=True)
    ]


@pytest.mark.slow
def test_sizes_that_were_not_foreseen_and_resumes_are_exact_too():
    stream = stream_of("collated", 40, 4, **AHEAD)
    order = plain_order(40, 400)
    sizes = [8, 5, 3, 8, 1, 12, 7]
    rows = [row for size in sizes for row in rows_of(stream.next(size))]
    assert rows == order[: sum(sizes)]
    stream.load_state_dict({**stream.state_dict(), "examples": 6})
    assert rows_of(stream.next(8)) == order[6:14]
    assert rows_of(stream.next(8)) == order[14:22]


@pytest.mark.slow
def test_loading_ahead_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    rows_of(stream_of("items", 40, 4, **AHEAD).next(8))
    assert torch.equal(torch.rand(1), expected)


def test_tensors_need_no_processes():
    stream = stream_of("tensors", 40, 4, **AHEAD)
    assert rows_of(stream.next(8)) == plain_order(40, 8)


@pytest.mark.slow
def test_a_stream_that_nobody_has_any_more_is_freed_at_once_with_its_processes():
    gc.collect()
    gc.disable()
    others = set(active_children())  # of other tests in this process, as a cluster's
    try:
        for kind in ("tensors", "collated"):
            stream = stream_of(kind, 40, 4, **AHEAD)
            stream.next(8)
            assert (set(active_children()) != others) == (kind == "collated")
            left = weakref.ref(stream)
            del stream
            assert left() is None
        assert set(active_children()) == others
    finally:
        gc.enable()
