"""Items made by chance: drawn by seed and position, wherever they are loaded."""

import random

import numpy as np
import pytest
import torch
from sampler.example_streams import plain_order
from torch.utils.data import Dataset

from rightbatch.sampler import Loading, MicroBatchStream
from rightbatch.sampler.draws import Draws, generators_put_back


class Augmented(Dataset):
    """Each item is its row, and what three generators gave it."""

    def __len__(self):
        return 40

    def __getitem__(self, row):
        drawn = (torch.rand(()), np.random.rand(), random.random())
        return torch.tensor([float(row), *drawn], dtype=torch.float64)


def jittered(items):
    return torch.stack(items) + torch.rand(())


def items_of(stream, sizes):
    passes = [one.batch for size in sizes for one in stream.next(size).passes]
    return torch.cat(passes)


def stream_of(seed=0, size=4, workers=2, **loading):
    settings = Loading(num_workers=workers, **loading)
    return MicroBatchStream(Augmented(), size, seed=seed, loading=settings)


def expected(count, seed=0):
    """Return the items at the first positions, one by one in this process."""
    with generators_put_back():
        order = plain_order(40, count, seed)
        return torch.stack(
            [
                Draws(seed=seed).items(Augmented(), place, [row])[0]
                for place, row in enumerate(order)
            ]
        )


@pytest.mark.slow
def test_augmented_examples_are_the_same_in_any_micro_batch_and_process():
    wanted = expected(100)
    # Some of 5, 3 and 2 are not foreseen and loaded in this process.
    assert torch.equal(items_of(stream_of(), [8, 16, 5, 3, 8, 2, 16, 2, 40]), wanted)
    assert torch.equal(items_of(stream_of(size=10, workers=1), [20, 40, 40]), wanted)


@pytest.mark.slow
def test_augmented_examples_are_the_same_after_a_resume_and_on_other_replicas():
    wanted = expected(40)
    stream = stream_of()
    stream.next(12)
    resumed = stream_of()
    resumed.load_state_dict(stream.state_dict())
    assert torch.equal(items_of(resumed, [8, 20]), wanted[12:])
    second = stream_of(workers=1, rank=1, num_replicas=2)
    assert torch.equal(items_of(second, [8, 8]), wanted[[4, 5, 6, 7, 12, 13, 14, 15]])


@pytest.mark.slow
def test_other_seeds_give_other_draws_and_the_runs_generators_are_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    first = items_of(stream_of(seed=0), [3, 8])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state()), random.getstate()) == before[1:]
    other = items_of(stream_of(seed=1), [3, 8])
    assert not set(first[:, 1].tolist()) & set(other[:, 1].tolist())
    torch.manual_seed(1)
    assert torch.equal(first, items_of(stream_of(seed=0), [3, 8]))


def test_an_example_is_drawn_anew_at_its_next_visit():
    drawn = expected(80)
    first, second = (part[part[:, 0].argsort()] for part in drawn.split(40))
    assert torch.equal(first[:, 0], second[:, 0])
    assert bool((first[:, 1:] != second[:, 1:]).all())


def test_draws_of_near_positions_and_seeds_have_nothing_to_do_with_each_other():
    # The correlation of 4,000 pairs has a standard deviation of .016; four of them.
    with generators_put_back():
        drawn = []
        for place in range(4001):
            Draws(seed=3).begin(place)
            drawn.append((float(torch.rand(())), np.random.rand(), random.random()))
    for column in np.array(drawn).T:
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1]) < 0.064
        assert abs(column.mean() - 0.5) < 4 * 12**-0.5 / 4001**0.5


def test_without_loading_processes_items_are_drawn_from_the_runs_generators():
    torch.manual_seed(0)
    first = items_of(stream_of(workers=0), [4])
    torch.manual_seed(0)
    assert torch.equal(first[:, 1], items_of(stream_of(workers=0), [4])[:, 1])
    assert not torch.equal(first[:, 1], items_of(stream_of(workers=0), [4])[:, 1])


@pytest.mark.slow
def test_what_collating_draws_is_the_same_after_a_resume():
    def stream():
        loading = Loading(num_workers=1)
        return MicroBatchStream(Augmented(), 4, collate=jittered, loading=loading)

    whole = stream()
    rows = items_of(whole, [8, 8])
    resumed = stream()
    resumed.load_state_dict({**whole.state_dict(), "examples": 8})
    assert torch.equal(items_of(resumed, [8]), rows[8:])
