"""The stream of examples: its order, its cuts, its ways through a data set."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from rightbatch.errors import InputError
from rightbatch.experiments.workloads import digits
from rightbatch.sampler import (
    ExampleStream,
    MicroBatchStream,
    chunks,
    examples,
    whole,
)
from rightbatch.sampler.examples import tensors_of


def numbered(length: int) -> TensorDataset:
    rows = torch.arange(length)
    return TensorDataset(rows.float().unsqueeze(1).expand(length, 3), rows)


class Items(Dataset[Any]):
    """A map-style data set without tensors."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3,), float(index)), index


class Doubled(TensorDataset):
    """Rows of tensors, made into something else."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        images, label = super().__getitem__(index)
        return 2 * images, label


class Noisy(TensorDataset):
    """Rows of tensors, some of them, by chance, turned round."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        images, label = super().__getitem__(index)
        return (images.flip(0) if torch.rand(()) < 0.1 else images), label


class Marked(Dataset[Any]):
    """Tensors found late, whose rows are the items."""

    rows_are_items = True

    def __init__(self, tensors: Any) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return tuple(tensor[index] for tensor in self.tensors)


class MarkedAndDoubled(Marked):
    """What a class above it says of its own items does not hold for these."""

    def __getitem__(self, index: int) -> Any:
        images, label = super().__getitem__(index)
        return 2 * images, label


class Named(Dataset[Any]):
    """Items made of tensors that have names."""

    def __init__(self) -> None:
        self.tensors = {"x": torch.ones(6, 3), "row": torch.arange(6)}

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return {name: tensor[index] for name, tensor in self.tensors.items()}


def rows_of(stream: ExampleStream, batch_sizes: list[int]) -> list[int]:
    return [row for size in batch_sizes for row in stream.next(size)[1].tolist()]


@given(
    length=st.integers(1, 40),
    seed=st.integers(0, 5),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
@settings(max_examples=50, deadline=None)
def test_the_order_does_not_depend_on_the_cuts(length, seed, cuts):
    sizes = [min(size, length) for size in cuts]
    cut = rows_of(ExampleStream(numbered(length), seed), sizes)
    one_by_one = rows_of(ExampleStream(numbered(length), seed), [1] * sum(sizes))
    assert cut == one_by_one


def test_both_ways_through_a_data_set_give_the_same_examples():
    fast, slow = ExampleStream(numbered(11), 3), ExampleStream(Items(11), 3)
    for size in (4, 4, 4, 7, 11, 1):
        (images, labels), (same_images, same_labels) = fast.next(size), slow.next(size)
        assert labels.tolist() == same_labels.tolist()
        assert torch.equal(images, same_images)
        assert torch.equal(images[:, 0].long(), labels)


@pytest.mark.parametrize("chunk_bytes", [1, 60, 2**20])
def test_every_epoch_holds_each_example_once_however_large_a_chunk(
    monkeypatch, chunk_bytes
):
    monkeypatch.setattr(examples, "CHUNK_BYTES", chunk_bytes)
    rows = rows_of(ExampleStream(numbered(10), 0), [3] * 10)
    for epoch in range(3):
        assert sorted(rows[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert rows[:10] != rows[10:20]


def test_a_batch_is_exactly_as_long_as_asked_across_epochs():
    stream = ExampleStream(numbered(10), 0)
    assert [len(stream.next(7)[1]) for _ in range(10)] == [7] * 10
    assert stream.examples == 70


def test_seeds_give_different_orders_and_one_seed_the_same():
    orders = {
        tuple(rows_of(ExampleStream(numbered(20), seed), [20, 20])) for seed in range(6)
    }
    again = rows_of(ExampleStream(numbered(20), 2), [20, 20])
    assert len(orders) == 6
    assert tuple(again) in orders


def test_the_second_epoch_of_a_seed_is_not_the_first_of_another():
    second = rows_of(ExampleStream(numbered(20), 0), [20, 20])[20:]
    firsts = [rows_of(ExampleStream(numbered(20), seed), [20]) for seed in range(1, 9)]
    assert second not in firsts


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    rows_of(ExampleStream(numbered(5), 1), [2, 2, 2])
    assert torch.equal(torch.rand(1), expected)


def test_all_positions_of_an_epoch_are_equally_likely():
    # 600 seeds over 6 rows: 100 expected each, s.d. 9.1; five s.d. is the bound.
    first = Counter(
        rows_of(ExampleStream(numbered(6), seed), [1])[0] for seed in range(600)
    )
    assert all(abs(first[row] - 100) < 46 for row in range(6))


@pytest.mark.parametrize("data", [numbered(5), Items(5)])
@pytest.mark.parametrize(
    ("size", "match"),
    [(6, "at most the data set's 5 examples, got 6"), (0, "whole number >= 1, got 0")],
)
def test_a_batch_size_that_cannot_be_served_is_refused(data, size, match):
    with pytest.raises(InputError, match=match):
        ExampleStream(data, 0).next(size)


def test_an_empty_data_set_is_refused():
    with pytest.raises(InputError, match="the data set is empty"):
        ExampleStream(Items(0), 0)
    with pytest.raises(InputError, match="the data set is empty"):
        whole(Items(0))


def test_nan_in_a_tensor_is_refused_with_its_row():
    data = TensorDataset(torch.tensor([[1.0], [torch.nan]]))
    with pytest.raises(InputError, match="holds NaN: tensor 0, row 1"):
        ExampleStream(data, 0)
    with pytest.raises(InputError, match="holds NaN: tensor 0, row 1"):
        whole(data)


def test_nan_is_found_beside_infinities_and_in_one_dimension():
    data = TensorDataset(torch.tensor([torch.inf, -torch.inf, torch.nan]))
    with pytest.raises(InputError, match="row 2"):
        ExampleStream(data, 0)


def test_infinite_values_are_the_workloads_own_business():
    data = TensorDataset(torch.tensor([torch.inf, -torch.inf]))
    assert len(ExampleStream(data, 0).next(2)[0]) == 2


def test_collate_gets_the_items_and_its_batch_is_handed_on():
    stream = ExampleStream(
        numbered(6), 0, collate=lambda items: {"n": torch.tensor([i[1] for i in items])}
    )
    assert len(stream.next(4)["n"]) == 4


def test_items_that_count_for_several_examples_are_joined_until_the_size_is_reached():
    counts = {0: 1, 1: 2, 2: 3, 3: 4}
    stream = ExampleStream(Items(4), 0, example_count=lambda item: counts[item[1]])
    reference = ExampleStream(Items(4), 0)
    order = rows_of(reference, [1] * 40)
    taken = 0
    for _ in range(6):
        before = stream.examples
        rows = stream.next(5)[1].tolist()
        assert rows == order[taken : taken + len(rows)]
        taken += len(rows)
        sizes = [counts[row] for row in rows]
        assert stream.examples - before == sum(sizes)
        assert sum(sizes) >= 5 > sum(sizes[:-1])


def test_more_counted_examples_than_the_data_set_holds_are_refused():
    stream = ExampleStream(Items(3), 0, example_count=lambda item: 2)
    with pytest.raises(InputError, match="at most the data set's 6 examples, got 7"):
        stream.next(7)


def test_an_item_that_counts_for_nothing_is_refused():
    stream = ExampleStream(Items(3), 0, example_count=lambda item: 0)
    with pytest.raises(InputError, match="`example_count` must be a whole number >= 1"):
        stream.next(1)


@pytest.mark.parametrize("data", [numbered(7), Items(7)])
def test_chunks_hold_each_example_once_in_the_order_asked_for(data):
    parts = chunks(data, 3)
    assert [len(part[1]) for part in parts] == [3, 3, 1]
    assert torch.cat([part[1] for part in parts]).tolist() == list(range(7))
    backwards = chunks(data, 4, order=[6, 5, 4, 3, 2, 1, 0])
    assert torch.cat([part[1] for part in backwards]).tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert whole(data)[1].tolist() == list(range(7))


def test_chunks_of_no_size_are_refused():
    with pytest.raises(InputError, match="`chunk_size` must be a whole number"):
        chunks(numbered(3), 0)


def test_batches_of_any_nesting_are_moved_to_the_device():
    def nested(items: list[Any]) -> Any:
        labels = torch.tensor([item[1] for item in items])
        return {"a": [labels, (labels, "text")]}

    batch = ExampleStream(Items(3), 0, collate=nested, device="meta").next(2)
    assert batch["a"][0].device.type == "meta"
    assert batch["a"][1][0].device.type == "meta"
    assert batch["a"][1][1] == "text"


@pytest.mark.parametrize(
    "data", [Doubled(*numbered(6).tensors), MarkedAndDoubled(numbered(6).tensors)]
)
def test_items_that_a_class_makes_of_its_rows_are_what_is_handed_out(data):
    def is_doubled(batch: Any) -> bool:
        return torch.equal(batch[0][:, 0], 2.0 * batch[1])

    assert is_doubled(ExampleStream(data, 0).next(4))
    assert is_doubled(whole(data))
    assert all(is_doubled(part) for part in chunks(data, 4, order=[5, 1, 0]))
    update = MicroBatchStream(data, 2).next(6)
    assert all(is_doubled(one.batch) for one in update.passes)


def test_items_made_by_chance_are_drawn_anew_at_each_visit():
    data = Noisy(torch.arange(300.0).view(100, 3), torch.arange(100))
    torch.manual_seed(0)
    first, second = whole(data)[0], whole(data)[0]
    assert not torch.equal(first, second)


def test_tensors_by_name_are_items_like_any_others():
    data = Named()
    assert ExampleStream(data, 0).next(6)["row"].sort().values.tolist() == [*range(6)]
    assert whole(data)["row"].tolist() == [*range(6)]
    assert len(chunks(data, 4)) == 2
    assert len(MicroBatchStream(data, 2).next(4).passes[0].batch["x"]) == 4


@pytest.mark.parametrize("make", [TensorDataset, lambda *tensors: Marked(tensors)])
def test_rows_of_tensors_are_gathered_where_they_are_the_items(make):
    data = make(*numbered(6).tensors)
    assert tensors_of(data, torch.device("cpu")) is not None
    assert torch.equal(whole(data)[0], data.tensors[0])


@pytest.mark.parametrize("data", [digits.Digits(held_out=True), Marked(())])
def test_data_sets_that_say_so_are_gathered(data):
    assert tensors_of(data, torch.device("cpu")) == data.tensors


def test_fewer_items_than_rows_are_read_one_by_one():
    data = Marked(numbered(9).tensors)
    assert tensors_of(data, torch.device("cpu")) is None
    assert whole(data)[1].tolist() == [*range(6)]
