"""The search for the largest micro-batch: what it finds, without a trace."""

import random

import numpy as np
import pytest
import torch
from collectives.example_replicas import start, stop
from timing import example_search
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from rightbatch.collectives import replicas
from rightbatch.errors import InputError, NotReachedError
from rightbatch.timing import (
    MemoryLimit,
    MicroBatchSearch,
    MicroBatchTry,
    find_micro_batch_size,
    micro_batch,
)

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory.\nmore lines"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
    MemoryError(),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)
    )


def data(length):
    return TensorDataset(torch.randn(length, 3), torch.zeros(length))


def losses(model, batch):
    return functional.mse_loss(model(batch[0])[:, 0], batch[1], reduction="none")


def failing_above(limit, error=None):
    """Return a loss that runs out of memory, half way, above a number of examples."""

    def loss(model, batch):
        values = losses(model, batch)
        if len(batch[1]) > limit:
            raise error or MemoryError
        return values

    return loss


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("limit", [2, 7, 8, 100])
def test_the_largest_power_of_two_that_fits_is_found(limit, error):
    found = find_micro_batch_size(net(), failing_above(limit, error), data(1000))
    assert found.micro_batch_size == 2 ** int(np.log2(limit))
    assert found.limited_by == "memory"
    assert [one.fits for one in found.tried] == [
        one.size <= limit for one in found.tried
    ]


def test_the_search_is_short_and_ends_with_a_verifying_update():
    found = find_micro_batch_size(net(), failing_above(100), data(5000))
    assert [one.size for one in found.tried] == [8, 16, 32, 64, 128, 64]


@pytest.mark.parametrize(
    ("length", "largest", "size", "limited_by"),
    [
        (100, None, 64, "dataset"),
        (100, 1000, 64, "dataset"),
        (100, 16, 16, "asked"),
        (100, 31, 16, "asked"),
        (100, 4, 4, "asked"),
        (5, None, 4, "dataset"),
        (64, 64, 64, "asked"),
    ],
)
def test_what_limits_the_size_is_said(length, largest, size, limited_by):
    found = find_micro_batch_size(net(), losses, data(length), largest=largest)
    assert (found.micro_batch_size, found.limited_by) == (size, limited_by)


@pytest.mark.parametrize(
    ("rows", "memory", "size", "limited_by"),
    [
        (5000, MemoryLimit(), 1024, "default"),
        (1024, MemoryLimit(), 1024, "default"),
        (1000, MemoryLimit(), 512, "dataset"),
        (5000, MemoryLimit(total_bytes=1e12), 4096, "dataset"),
    ],
)
def test_where_nobody_counts_memory_no_more_is_tried_than_a_cpu_can_use(
    rows, memory, size, limited_by
):
    found = find_micro_batch_size(net(), losses, data(rows), memory=memory)
    assert (found.micro_batch_size, found.limited_by) == (size, limited_by)
    asked = find_micro_batch_size(net(), losses, data(rows), largest=4096)
    assert asked.micro_batch_size == 2 ** int(np.log2(min(rows, 4096)))


def test_a_largest_size_that_nobody_asked_for_is_said_to_be_none():
    found = find_micro_batch_size(net(), losses, lambda size: data(size).tensors)
    assert found.micro_batch_size == 1024
    assert "limited by the largest tried unless `largest` is given." in str(found)


def test_each_item_is_read_once_however_many_sizes_are_tried():
    class Read(Dataset):
        def __init__(self):
            self.reads = []

        def __len__(self):
            return 200

        def __getitem__(self, row):
            self.reads.append(row)
            return torch.ones(3), torch.zeros(())

    items = Read()
    find_micro_batch_size(net(), failing_above(64), items)
    assert items.reads == list(range(128))


def test_hooks_of_the_optimizers_step_are_called_as_at_any_step():
    model, calls = net(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    found = find_micro_batch_size(model, losses, data(20), optimizer=optimizer)
    assert len(calls) == len(found.tried)


def test_a_size_that_fails_when_verified_is_halved():
    calls = []

    def loss(model, batch):
        calls.append(len(batch[1]))
        if calls[-1] > 32 or (calls[-1] == 32 and calls.count(32) > 1):
            raise MemoryError
        return losses(model, batch)

    found = find_micro_batch_size(net(), loss, data(200))
    assert found.micro_batch_size == 16
    assert calls == [8, 16, 32, 64, 32, 16]


def test_a_step_that_does_not_fit_counts_too():
    model = net()

    class Hungry(torch.optim.SGD):
        def step(self, closure=None):
            value = super().step(closure)
            if sizes[-1] > 16:
                raise MemoryError
            return value

    sizes = []

    def loss(model, batch):
        sizes.append(len(batch[1]))
        return losses(model, batch)

    optimizer = Hungry(model.parameters(), lr=0.1)
    found = find_micro_batch_size(model, loss, data(99), optimizer=optimizer)
    assert found.micro_batch_size == 16


def state_of(model, optimizer):
    return (
        {name: value.tolist() for name, value in model.state_dict().items()},
        [p.grad for p in model.parameters()],
        [module.training for module in model.modules()],
        str(optimizer.state_dict()),
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),
        random.getstate(),
    )


@pytest.mark.parametrize("limit", [0, 50, 1000])
def test_the_search_leaves_no_trace(limit):
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    losses(model, data(5).tensors).mean().backward()
    optimizer.step()
    model.zero_grad()
    model[1].eval()
    rows = data(200)
    before = state_of(model, optimizer)
    try:
        find_micro_batch_size(model, failing_above(limit), rows, optimizer=optimizer)
    except (NotReachedError, ValueError):
        assert limit == 0
    assert state_of(model, optimizer) == before


def test_another_error_goes_on_its_way_without_a_trace():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    rows = data(200)
    before = state_of(model, optimizer)
    loss = failing_above(16, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        find_micro_batch_size(model, loss, rows, optimizer=optimizer)
    assert state_of(model, optimizer) == before


def test_nothing_that_fits_is_an_error_of_its_own():
    layer = nn.Linear(3, 1)
    with pytest.raises(NotReachedError, match="not even one example fits.*smaller mod"):
        find_micro_batch_size(layer, failing_above(0), data(200))


def wide(model, batch):
    # One float64 per unit and example is kept for the backward pass of the square.
    return model(batch).square().sum(1)


@pytest.mark.parametrize(("margin", "size"), [(0.0, 32), (0.1, 16), (0.6, 8)])
def test_a_share_of_the_memory_is_left_free(margin, size):
    layer = nn.Linear(1, 100, bias=False).double()
    # Weights and gradients, 1,600 bytes; 100 units and one input of each example.
    total = 1600 + 32 * 8 * (100 + 1)
    found = find_micro_batch_size(
        layer,
        wide,
        lambda count: torch.ones(count, 1, dtype=torch.float64),
        memory=MemoryLimit(margin=margin, total_bytes=total),
    )
    assert found.micro_batch_size == size
    assert found.used_bytes == 1600 + size * 808
    assert found.margin == margin


def test_the_optimizers_state_is_counted_from_the_first_try():
    layer = nn.Linear(1, 100, bias=False).double()
    found = find_micro_batch_size(
        layer,
        wide,
        lambda count: torch.ones(count, 1, dtype=torch.float64),
        optimizer=torch.optim.SGD(layer.parameters(), lr=1.0, momentum=0.9),
        largest=16,
        memory=MemoryLimit(total_bytes=1e9),
    )
    assert found.used_bytes == 2400 + 16 * 808


def test_a_module_in_data_parallel_is_tried_without_what_wraps_it(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    seen = []

    def loss(model, batch):
        seen.append(type(model).__name__)
        return losses(model, batch)

    with replicas("gloo", init_method=f"file://{tmp_path}/meeting"):
        model = nn.parallel.DistributedDataParallel(net())
        assert find_micro_batch_size(model, loss, data(20)).micro_batch_size == 16
    assert set(seen) == {"Sequential"}


def test_replicas_settle_on_what_fits_all_of_them(monkeypatch):
    # The other replica runs out of memory above 32 examples.
    sizes = []

    def smallest(numbers):
        if numbers[0] not in (0.0, 1.0):
            return numbers
        return [min(numbers[0], float(sizes[-1] <= 32))]

    def loss(model, batch):
        sizes.append(len(batch[1]))
        return losses(model, batch)

    monkeypatch.setattr(micro_batch, "all_min_numbers", smallest)
    found = find_micro_batch_size(net(), loss, data(1000))
    assert found.micro_batch_size == 32
    assert found.limited_by == "memory"


def test_items_are_collated_and_modes_are_those_of_training():
    seen = []

    def loss(model, batch):
        seen.append((len(batch["x"]), model.training))
        return losses(model, (batch["x"], batch["y"]))

    def collate(items):
        return {
            "x": torch.stack([item[0] for item in items]),
            "y": torch.stack([item[1] for item in items]),
        }

    model = net().eval()
    find_micro_batch_size(model, loss, data(20), collate=collate)
    assert seen == [(8, True), (16, True), (16, True)]
    assert not model.training


def test_the_result_is_readable_by_a_person_and_a_program():
    found = MicroBatchSearch(
        micro_batch_size=8,
        tried=(MicroBatchTry(8, True, 0.5), MicroBatchTry(16, False, 0.1)),
        limited_by="memory",
        margin=0.2,
        used_bytes=99,
    )
    assert "Micro-batch size 8, limited by memory, of which 20 % is left" in str(found)
    assert "16  does not fit" in str(found)
    assert found.to_dict() == {
        "micro_batch_size": 8,
        "tried": [
            {"size": 8, "fits": True, "seconds": 0.5},
            {"size": 16, "fits": False, "seconds": 0.1},
        ],
        "limited_by": "memory",
        "margin": 0.2,
        "used_bytes": 99,
    }


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"largest": 0}, "`largest` must be a whole number >= 1, got 0"),
        ({"memory": MemoryLimit(margin=1)}, "`margin` must be at least 0 and below 1"),
        ({"memory": MemoryLimit(margin=-0.1)}, "`margin` must be at least 0 and below"),
        ({"memory": MemoryLimit(total_bytes=0)}, "`total_bytes` must be positive"),
        ({"data": TensorDataset(torch.ones(0, 3))}, "the data set is empty"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments, match):
    with pytest.raises(InputError, match=match):
        find_micro_batch_size(net(), losses, **{"data": data(9), **arguments})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_peak_of_the_allocator_counts():
    model = nn.Linear(1, 100_000).cuda()
    found = find_micro_batch_size(
        model,
        wide,
        lambda count: torch.ones(count, 1, device="cuda"),
        memory=MemoryLimit(total_bytes=200e6),
    )
    assert found.limited_by == "memory"
    assert found.used_bytes < 180e6


@pytest.mark.slow
def test_two_processes_settle_on_what_fits_both_and_sharded_models_too(tmp_path):
    stop(start(example_search.search, tmp_path / "meeting", tmp_path), 90)
    for own in range(2):
        found = torch.load(tmp_path / f"{own}.pt")
        assert found["replicated"] == (16, [8, 16, 32, 16], True)
        assert found["sharded"] == (32, [8, 16, 32, 64, 32], True)
