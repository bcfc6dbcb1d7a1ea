"""A stream over batches that something else makes."""

import json
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from rightbatch.errors import InputError
from rightbatch.sampler import IterableStream, Loading
from rightbatch.sampler.draws import generators_state, set_generators


def batches_of(length, size):
    return list(torch.arange(length).split(size))


def rows_of(update):
    rows = [row for one in update.passes for row in one.batch.tolist()]
    assert len(rows) == update.local_examples
    return rows


class Sentences(Dataset):
    """Texts of other lengths, as a data set without tensors."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.ones(1 + index % 5)


def padded(texts):
    return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)


class Lines(IterableDataset):
    """A data set that is only read through, another way each epoch."""

    def __init__(self):
        self.epoch = -1

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(range(10 * self.epoch, 10 * self.epoch + 6))


class Remembering:
    """Batches that know where they are, as torchdata's loaders do."""

    def __init__(self):
        self.place = 0

    def __iter__(self):
        while self.place < 5:
            self.place += 1
            yield torch.tensor([self.place - 1] * 2)
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def test_each_item_is_a_micro_batch_and_updates_take_the_next_ones():
    stream = IterableStream(batches_of(24, 2), 2, dataset_size=24)
    assert rows_of(stream.next(4)) == [0, 1, 2, 3]
    assert rows_of(stream.next(10)) == list(range(4, 14))
    assert rows_of(stream.next(2)) == [14, 15]
    assert (stream.examples, stream.epoch) == (16, 16 / 24)


def test_the_last_item_counts_for_what_it_holds_and_then_they_begin_anew():
    stream = IterableStream(DataLoader(TensorDataset(torch.arange(10)), 4), 4)
    updates = [stream.next(8) for _ in range(3)]
    assert [update.num_examples for update in updates] == [8, 6, 6]
    assert [len(update.passes) for update in updates] == [1, 1, 1]
    assert stream.examples == 20
    assert stream.epoch == 2.0
    assert stream.dataset_size is None


@pytest.mark.parametrize(
    ("join", "largest", "sizes"),
    [
        ("doubling", None, [8, 4, 2]),
        ("doubling", 4, [4, 4, 4, 2]),
        ("any", None, [14]),
        ("any", 8, [8, 6]),
        ("never", None, [2] * 7),
    ],
)
def test_items_are_joined_up_to_the_largest_pass(join, largest, sizes):
    loading = Loading(join=join, largest_pass=largest)
    update = IterableStream(batches_of(20, 2), 2, loading=loading).next(14)
    assert [one.num_examples for one in update.passes] == sizes
    assert [one.num_micro_batches for one in update.passes] == [s // 2 for s in sizes]
    assert rows_of(update) == list(range(14))


def test_texts_of_other_lengths_are_accumulated_one_item_at_a_time():
    loader = DataLoader(Sentences(), 3, collate_fn=padded)
    update = IterableStream(loader, 3).next(12)
    assert [one.num_examples for one in update.passes] == [3, 3, 3, 3]
    assert [one.batch.shape[1] for one in update.passes] == [3, 5, 4, 5]
    units = IterableStream(loader, 3).next(12, min_units=8)
    assert [one.num_examples for one in units.passes] == [2, 1] * 4


def test_a_meter_gets_the_units_it_asks_for():
    stream = IterableStream(batches_of(20, 4), 4)
    sizes = [one.num_examples for one in stream.next(4, min_units=8).passes]
    assert sizes == [1, 1, 1, 1]
    sizes = [one.num_examples for one in stream.next(12, min_units=8).passes]
    assert sizes == [2, 2, 2, 2, 1, 1, 1, 1]


def test_examples_may_be_counted_otherwise():
    words = [torch.ones(2, length) for length in (3, 5, 7)]
    stream = IterableStream(words, 6, count=lambda batch: batch.numel())
    update = stream.next(18)
    assert (update.num_examples, update.local_examples) == (30, 30)
    assert [one.num_examples for one in update.passes] == [6, 10, 14]
    halves = update.recut(1)
    assert [one.num_examples for one in halves.passes] == [3, 3, 5, 5, 7, 7]


def test_smaller_passes_hold_the_same_examples():
    update = IterableStream(batches_of(20, 4), 4).next(16)
    assert rows_of(update.recut(4)) == rows_of(update) == list(range(16))
    assert len(update.recut(4).passes) == 4
    assert [one.num_examples for one in update.recut(3).passes] == [3, 3, 3, 3, 2, 2]
    assert not update.is_padded


def test_a_data_set_that_is_read_through_is_told_the_epoch():
    stream = IterableStream(DataLoader(Lines(), 2), 2)
    assert [rows_of(stream.next(2)) for _ in range(4)] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [10, 11],
    ]
    assert rows_of(IterableStream(DataLoader(Lines(), 3), 3).next(6)) == [*range(6)]


def test_every_replica_takes_as_many_items_of_its_own():
    loading = Loading(rank=1, num_replicas=2)
    stream = IterableStream(batches_of(20, 2), 2, loading=loading)
    update = stream.next(8)
    assert (update.num_examples, update.local_examples) == (8, 4)
    assert rows_of(update) == [0, 1, 2, 3]
    assert (stream.granule, stream.num_replicas, stream.examples) == (4, 2, 8)


@pytest.mark.parametrize("at", [0, 1, 3, 5, 7])
def test_a_resume_skips_what_had_been_taken(at):
    def fresh():
        return IterableStream(DataLoader(TensorDataset(torch.arange(10)), 2), 2)

    def rows(stream, num):
        return [stream.next(2).passes[0].batch[0].tolist() for _ in range(num)]

    stream = fresh()
    rows(stream, at)
    resumed = fresh()
    resumed.load_state_dict(stream.state_dict())
    assert resumed.state_dict() == stream.state_dict()
    assert rows(resumed, 8) == rows(stream, 8)
    assert (resumed.examples, resumed.epoch) == (stream.examples, stream.epoch)


class Shuffled:
    """Batches in an order that numpy and Python draw."""

    def __iter__(self):
        rows = list(np.random.permutation(10))
        random.shuffle(rows)
        return iter(torch.tensor(rows).split(2))


def shuffled(workers=0, generator=None):
    return DataLoader(
        torch.arange(10), 2, shuffle=True, num_workers=workers, generator=generator
    )


LOADERS = {
    "loader": shuffled,
    "generator": lambda: shuffled(generator=torch.Generator().manual_seed(3)),
    "numpy": Shuffled,
    "workers": lambda: shuffled(workers=1),
}


def taken_with_draws(stream, num):
    """Return rows of updates, between which a model draws random numbers."""
    found = []
    for _ in range(num):
        found += [rows_of(stream.next(2)), torch.rand(1).tolist(), random.random()]
    return found


def seed_all(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.mark.parametrize("at", [1, 3, 5, 7])
@pytest.mark.parametrize("name", LOADERS)
def test_a_resume_in_a_shuffled_epoch_goes_on_in_its_order(name, at):
    seed_all(0)
    stream = IterableStream(LOADERS[name](), 2)
    taken_with_draws(stream, at)
    state = json.loads(json.dumps(stream.state_dict()))
    before = generators_state()
    went_on = taken_with_draws(stream, 12)
    seed_all(1)
    resumed = IterableStream(LOADERS[name](), 2)
    set_generators(before)
    resumed.load_state_dict(state)
    assert taken_with_draws(resumed, 12) == went_on
    set_generators(before)
    resumed.load_state_dict(state)
    again = IterableStream(LOADERS[name](), 2)
    again.load_state_dict(json.loads(json.dumps(resumed.state_dict())))
    assert taken_with_draws(again, 12) == went_on


@pytest.mark.parametrize("size", [None, 10])
def test_epochs_are_in_time_where_the_last_examples_are_dropped(size):
    loader = DataLoader(torch.arange(10), 4, drop_last=True)
    stream = IterableStream(loader, 4, dataset_size=size)
    epochs = []
    for _ in range(6):
        stream.next(4)
        epochs.append(stream.epoch)
    within = [0.4, 0.8, 1.4, 1.8, 2.4, 2.8]
    assert epochs == pytest.approx(within if size else [0, 0, 1.5, 2, 2.5, 3])
    resumed = IterableStream(loader, 4, dataset_size=size)
    resumed.load_state_dict(stream.state_dict())
    assert resumed.epoch == stream.epoch
    resumed.next(4)
    stream.next(4)
    assert resumed.epoch == stream.epoch


def test_several_epochs_may_end_within_an_update():
    stream = IterableStream(batches_of(6, 2), 2)
    stream.next(16)
    assert stream.epoch == pytest.approx(2 + 4 / 6)


@pytest.mark.parametrize("at", [0, 2, 5, 6])
def test_a_resume_uses_the_loaders_own_state_where_it_has_one(at):
    stream = IterableStream(Remembering(), 2)
    for _ in range(at):
        stream.next(2)
    resumed = IterableStream(Remembering(), 2)
    resumed.load_state_dict(stream.state_dict())
    for _ in range(8):
        assert rows_of(resumed.next(2)) == rows_of(stream.next(2))
    assert resumed.examples == stream.examples


def test_a_wish_is_served_by_whole_items():
    stream = IterableStream(batches_of(20, 4), 4)
    assert [stream.served(wish) for wish in (1, 7, 1e6)] == [4, 8, 1_000_000]
    known = IterableStream(batches_of(20, 4), 4, dataset_size=18)
    assert known.served(float("inf")) == 16


def test_where_nothing_bounds_a_wish_it_has_to_be_finite():
    stream = IterableStream(batches_of(20, 4), 4)
    with pytest.raises(InputError, match="`wish` must be positive, got inf"):
        stream.served(float("inf"))


@pytest.mark.parametrize(
    ("batches", "num"),
    [(iter(batches_of(4, 2)), 2), ((b for b in batches_of(4, 2)), 2), ([], 0)],
)
def test_items_that_end_for_good_are_said_so(batches, num):
    stream = IterableStream(batches, 2)
    for _ in range(num):
        stream.next(2)
    match = f"`batches` ended after {2 * num} examples and cannot .*give a DataLoader"
    with pytest.raises(InputError, match=match):
        stream.next(2)


def test_items_without_a_tensor_have_to_be_counted():
    with pytest.raises(InputError, match="must hold a tensor of its examples, got lis"):
        IterableStream([["a", "b"]], 2).next(2)
    counted = IterableStream([["a", "b"]], 2, count=len).next(2)
    assert counted.num_examples == 2


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"batches": 5}, "`batches` must be iterable, got int"),
        ({"micro_batch_size": 0}, "`micro_batch_size` must be a whole number >= 1"),
        ({"dataset_size": 0}, "`dataset_size` must be a whole number >= 1, got 0"),
        ({"loading": Loading(num_workers=2)}, "`num_workers` must be 0, got 2"),
        ({"loading": Loading(largest_pass=1)}, "`largest_pass` must be at least the"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, match):
    given = {"batches": batches_of(20, 4), "micro_batch_size": 4, **settings}
    with pytest.raises(InputError, match=match):
        IterableStream(**given)


BEGUN = {
    "begun": {**generators_state(), "own": []},
    "epoch_examples": (9, 9),
    "epoch_size": 0,
}


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({"examples": 3}, "got one without batches, begun, epoch_examples, epoch_size"),
        (
            {"examples": 9, "epochs": 0, "items": 9, "batches": None, **BEGUN},
            "must have the 9 items of an epoch .* has fewer",
        ),
        (
            {"examples": 2, "epochs": 0, "items": 1, "batches": {"place": 1}, **BEGUN},
            "`batches` must have a state where those of the checkpoint had one",
        ),
    ],
)
def test_a_state_of_something_else_is_refused(state, match):
    with pytest.raises(InputError, match=match):
        IterableStream(batches_of(6, 2), 2).load_state_dict(state)


@pytest.mark.parametrize(("size", "units"), [(0, 1), (2, 0)])
def test_sizes_that_are_none_are_refused(size, units):
    with pytest.raises(InputError, match="must be a whole number >= 1, got 0"):
        IterableStream(batches_of(6, 2), 2).next(size, min_units=units)


def test_the_largest_pass_can_be_set():
    stream = IterableStream(batches_of(16, 2), 2)
    stream.largest_pass = 2
    assert len(stream.next(8).passes) == 4
    stream.largest_pass = None
    assert stream.largest_pass is None
    with pytest.raises(InputError, match="`largest_pass` must be a whole number >= 1"):
        stream.largest_pass = 0
