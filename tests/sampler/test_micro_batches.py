"""One stream cut into micro-batches: which examples, whose, in which passes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampler.example_streams import (
    KINDS,
    Items,
    asked_of,
    cut_streams,
    named,
    numbered,
    plain_order,
    rows_of,
    stream_of,
    streams_of,
)
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from rightbatch.errors import InputError
from rightbatch.sampler import Loading, MicroBatchStream, sources

# Which examples ---------------------------------------------------------------------


@given(case=cut_streams())
def test_an_update_takes_the_next_examples_of_the_stream(case):
    asked = asked_of(case)
    del case["repeats"]
    streams = streams_of(**case)
    order = plain_order(case["length"], sum(size for size, _ in asked))
    position = 0
    for size, units in asked:
        updates = [stream.next(size, min_units=units) for stream in streams]
        rows = [row for update in updates for row in rows_of(update)]
        assert sorted(rows) == sorted(order[position : position + size])
        for stream, update in zip(streams, updates, strict=True):
            assert update.first_example == position
            assert update.num_examples == size
            assert stream.examples == position + size
        position += size


@given(case=cut_streams())
def test_one_replica_hands_them_out_in_the_order_of_the_example_stream(case):
    asked = asked_of(case)
    del case["repeats"]
    stream = streams_of(**{**case, "of": 1})[0]
    rows = [
        row for b, units in asked for row in rows_of(stream.next(b, min_units=units))
    ]
    assert rows == plain_order(case["length"], len(rows))


@given(case=cut_streams(), seed=st.integers(0, 3))
def test_every_epoch_has_each_example_once_though_batches_end_with_it(case, seed):
    asked = asked_of(case)
    del case["repeats"]
    streams = streams_of(**case, tail="short", seed=seed)
    length = case["length"]
    order = plain_order(length, 3 * length, seed)
    for epoch in range(3):
        rows: list[int] = []
        while len(rows) < length:
            size, units = asked[len(rows) % len(asked)]
            updates = [stream.next(size, min_units=units) for stream in streams]
            assert updates[0].num_examples == min(size, length - len(rows))
            rows += [row for update in updates for row in rows_of(update)]
        assert sorted(rows) == sorted(order[epoch * length : (epoch + 1) * length])
        assert streams[0].epoch == epoch + 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_of_an_epoch_can_be_dropped(kind):
    stream = stream_of(kind, 10, 2, tail="drop")
    order = plain_order(10, 40)
    firsts = [stream.next(size).first_example for size in (4, 4, 4, 4, 6)]
    assert firsts == [0, 4, 10, 14, 20]
    assert (stream.examples, stream.taken) == (30, 22)
    assert rows_of(stream.next(4)) == order[30:34]
    assert (stream.examples, stream.taken) == (34, 26)


@pytest.mark.parametrize("kind", ["tensors", "items"])
def test_a_loop_over_an_epoch_makes_as_many_updates_as_a_loader_that_drops_last(kind):
    stream = stream_of(kind, 100, 5, tail="drop")
    for epoch in (1, 2, 3):
        updates = 0
        while stream.examples < 100 * epoch:
            assert stream.next(30).num_examples == 30
            updates += 1
        assert updates == len(DataLoader(numbered(100), 30, drop_last=True)) == 3
        assert (stream.epoch, stream.taken) == (epoch, 90 * epoch)


def test_where_an_update_would_begin_can_be_asked_before_it_is_taken():
    stream = stream_of("tensors", 100, 5, tail="drop")
    stream.next(30)
    stream.next(30)
    assert [stream.begins_at(size) for size in (30, 40, 41, 100)] == [60, 60, 100, 100]
    assert (stream.examples, stream.taken) == (60, 60)
    assert stream.next(50).first_example == 100
    assert (stream.examples, stream.taken) == (150, 110)
    assert stream_of("items", 9, 2).begins_at(9) == 0
    with pytest.raises(InputError, match="`batch_size` must be at most the data set's"):
        stream.begins_at(101)


def test_examples_skipped_stay_told_apart_from_those_taken_after_a_resume():
    stream = stream_of("tensors", 22, 4, tail="drop")
    for _ in range(4):
        stream.next(8)
    resumed = stream_of("items", 22, 2, tail="drop")
    resumed.load_state_dict(stream.state_dict())
    assert (resumed.examples, resumed.taken) == (stream.examples, stream.taken)
    assert (stream.examples, stream.taken) == (44, 32)
    assert rows_of(resumed.next(8)) == rows_of(stream.next(8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", [1, 2, 3])
def test_micro_batches_are_dealt_out_in_turn(kind, of):
    size, num = 2, 12
    order = plain_order(40, size * num)
    parts = [order[size * j : size * (j + 1)] for j in range(num)]
    for rank in range(of):
        stream = stream_of(kind, 40, size, rank=rank, of=of, join="any")
        rows = rows_of(stream.next(size * of)) + rows_of(stream.next(size * (num - of)))
        assert rows == [row for part in parts[rank::of] for row in part]


def test_examples_of_a_constant_batch_are_batch_size_times_updates():
    stream = stream_of("tensors", 1437, 16)
    for _ in range(200):
        stream.next(16)
    assert stream.examples == 16 * 200
    assert stream.epoch == 16 * 200 / 1437


@pytest.mark.parametrize("chunk_bytes", [1, 100, 2**20])
@pytest.mark.parametrize("of", [1, 2])
def test_how_much_is_gathered_at_once_does_not_show(monkeypatch, chunk_bytes, of):
    monkeypatch.setattr(sources, "CHUNK_BYTES", chunk_bytes)
    streams = streams_of("tensors", 23, 2, of)
    order, position = plain_order(23, 400), 0
    for size in (4, 4, 4, 8, 8, 20, 4, 5, 5, 5, 3, 12, 12, 4, 4, 23, 23):
        rows = [row for stream in streams for row in rows_of(stream.next(size))]
        assert sorted(rows) == sorted(order[position : position + size])
        position += size


def test_rows_may_come_in_the_data_sets_own_order():
    stream = stream_of("items", 5, 1, shuffle=False)
    assert rows_of(stream.next(4)) + rows_of(stream.next(4)) == [0, 1, 2, 3, 4, 0, 1, 2]


# Resuming ---------------------------------------------------------------------------

RESUMED = [
    # (batch size, replicas, micro-batch size), each after the other
    [(3, 1, 4), (5, 2, 2), (8, 3, 6)],
    [(16, 2, 4), (12, 1, 3), (24, 3, 4)],
    [(8, 3, 2), (20, 1, 20), (6, 2, 1)],
]


@pytest.mark.parametrize("settings", RESUMED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_resume_is_exact_at_other_sizes_and_replicas_twice_in_a_row(kind, settings):
    order = plain_order(25, 300)
    state, position = None, 0
    for batch_size, of, size in settings:
        streams = streams_of(kind, 25, size, of)
        for stream in streams:
            if state is not None:
                stream.load_state_dict(state)
        for _ in range(5):
            rows = [row for s in streams for row in rows_of(s.next(batch_size))]
            wanted = order[position : position + batch_size]
            assert sorted(rows) == sorted(wanted)
            if of == 1:
                assert rows == wanted
            position += batch_size
        state = streams[-1].state_dict()
        assert state["examples"] == position


def test_a_state_says_nothing_about_sizes_and_is_plain():
    assert stream_of("tensors", 20, 4, seed=7).state_dict() == {
        "version": 1,
        "examples": 0,
        "skipped": 0,
        "seed": 7,
        "dataset_size": 20,
        "shuffle": True,
    }


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"seed": 1}, "the state's `seed` must be 0, got 1"),
        ({"length": 30}, "the state's `dataset_size` must be 20, got 30"),
        ({"shuffle": False}, "the state's `shuffle` must be True, got False"),
    ],
)
def test_a_state_of_another_order_is_refused(other, match):
    given = {"kind": "tensors", "length": 20, "size": 4, **other}
    with pytest.raises(InputError, match=match):
        stream_of("tensors", 20, 4).load_state_dict(stream_of(**given).state_dict())


def test_a_state_of_something_else_is_refused():
    with pytest.raises(
        InputError, match="must be of a MicroBatchStream, got one without"
    ):
        stream_of("tensors", 20, 4).load_state_dict({"step": 3})


def test_going_back_gives_the_same_examples_again():
    stream = stream_of("tensors", 50, 4)
    stream.next(12)
    state = stream.state_dict()
    first = [rows_of(stream.next(8)) for _ in range(4)]
    stream.load_state_dict(state)
    assert [rows_of(stream.next(8)) for _ in range(4)] == first


# Sizes that can be served -----------------------------------------------------------


@given(
    length=st.integers(12, 300),
    size=st.integers(1, 4),
    of=st.integers(1, 3),
    wish=st.floats(1e-3, 1e6),
)
def test_a_wish_is_served_by_the_nearest_multiple(length, size, of, wish):
    stream = stream_of("items", length, size, of=of)
    assert stream.granule == size * of
    multiples = range(stream.granule, length + 1, stream.granule)
    below = [m for m in multiples if m <= wish] or [multiples[0]]
    above = [m for m in multiples if m >= wish] or [multiples[-1]]
    assert stream.served(wish, "down") == below[-1]
    assert stream.served(wish, "up") == above[0]
    nearest = min(abs(m - wish) for m in multiples)
    assert abs(stream.served(wish) - wish) == pytest.approx(nearest)


def test_no_bound_is_served_by_the_whole_data_set():
    assert stream_of("items", 50, 8).served(float("inf")) == 48


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0,), "`wish` must be positive, got 0"),
        ((float("nan"),), "`wish` must be positive, got nan"),
        ((8, "nearer"), r"`how` cannot be 'nearer'. \(did you mean nearest"),
    ],
)
def test_a_wish_that_is_none_is_refused(arguments, match):
    with pytest.raises(InputError, match=match):
        stream_of("items", 50, 8).served(*arguments)


# Refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tensors", "items"])
@pytest.mark.parametrize(
    ("size", "units", "match"),
    [
        (21, 1, "`batch_size` must be at most the data set's 20 examples, got 21"),
        (0, 1, "`batch_size` must be a whole number >= 1, got 0"),
        (2.5, 1, "`batch_size` must be a whole number >= 1, got 2.5"),
        (4, 0, "`min_units` must be a whole number >= 1, got 0"),
    ],
)
def test_a_batch_that_cannot_be_served_is_refused(kind, size, units, match):
    stream = stream_of(kind, 20, 4)
    with pytest.raises(InputError, match=match):
        stream.next(size, min_units=units)
    assert stream.examples == 0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"length": 0}, "the data set is empty"),
        ({"size": 0}, "`micro_batch_size` must be a whole number >= 1, got 0"),
        ({"size": 21}, "must be at most the data set's 20 examples, got 21"),
        ({"size": 8, "of": 3}, "`micro_batch_size` times 3 replicas must .* got 24"),
        ({"largest_pass": 3}, "`largest_pass` must be at least the micro-batch size 4"),
        ({"largest_pass": 0}, "`largest_pass` must be a whole number >= 1, got 0"),
        ({"join": "dubling"}, r"`join` cannot be 'dubling'. \(did you mean doubling"),
        ({"tail": "carrie"}, r"`tail` cannot be 'carrie'. \(did you mean carry"),
        ({"rank": 2, "of": 2}, "`rank` must be at least 0 and below 2, got 2"),
        ({"rank": None}, "must be given together, got None and 1"),
        ({"of": 0}, "`num_replicas` must be a whole number >= 1, got 0"),
        ({"num_workers": -1}, "`num_workers` must not be negative, got -1"),
        ({"prefetch_factor": 0}, "`prefetch_factor` must be a whole number >= 1"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        stream_of(**{"kind": "items", "length": 20, "size": 4, **settings})


def test_a_largest_pass_of_nothing_is_refused_later_too():
    stream = stream_of("items", 20, 4)
    with pytest.raises(InputError, match="`largest_pass` must be a whole number >= 1"):
        stream.largest_pass = 0


def test_nan_in_a_tensor_is_refused():
    data = TensorDataset(torch.tensor([[1.0], [torch.nan]]))
    with pytest.raises(InputError, match="holds NaN: tensor 0, row 1"):
        MicroBatchStream(data, 1)


class Endless(IterableDataset[int]):
    def __iter__(self):
        return iter(range(5))


@pytest.mark.parametrize("data", [Endless(), DataLoader(numbered(8)), iter([1])])
def test_what_has_no_numbered_items_is_sent_to_the_other_stream(data):
    with pytest.raises(InputError, match="IterableStream takes any iterable"):
        MicroBatchStream(data, 1)


def test_one_process_is_the_only_replica():
    stream = MicroBatchStream(Items(9), 2, collate=named, loading=Loading())
    assert (stream.num_replicas, stream.micro_batch_size, stream.granule) == (1, 2, 2)
    assert (stream.dataset_size, stream.largest_pass) == (9, None)
