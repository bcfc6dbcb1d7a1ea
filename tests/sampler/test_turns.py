"""Two processes share one stream: each its turns, and as many passes."""

import pytest
import torch
from collectives.example_replicas import WORLD, start, stop
from sampler import example_turns
from sampler.example_streams import plain_order

from rightbatch.sampler.turns import own_turn


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("turns")
    stop(start(example_turns.take, folder / "meeting", folder), 90)
    return [torch.load(folder / f"{own}.pt") for own in range(WORLD)]


@pytest.mark.slow
def test_the_process_group_says_whose_turn_it_is(found):
    order, position = plain_order(30, 24), 0
    for place, size in enumerate((6, 12, 5, 1)):
        rows = [row for one in found for row in one["items"][place]]
        assert sorted(rows) == sorted(order[position : position + size])
        position += size
    assert found[0]["items"][0] == order[:3]
    assert found[1]["items"][0] == order[3:6]


@pytest.mark.slow
def test_what_one_replica_cannot_join_none_does(found):
    for one in found:
        assert one["padded"] == [[3, 3, 3, 3], [1] * 12]
        assert one["texts"] == 4


@pytest.mark.slow
def test_replicas_whose_items_differ_add_up_and_keep_step(found):
    first, second = (one["iterable"] for one in found)
    assert [update[0] for update in first] == [8, 7, 8]
    assert [update[0] for update in second] == [8, 7, 8]
    assert [update[1] for update in first] == [4, 4, 4]
    assert [update[1] for update in second] == [4, 3, 4]
    assert [update[2] for update in first] == [update[2] for update in second]
    assert [update[3] for update in first] == [0, 8, 15]


def test_a_process_alone_has_every_turn():
    assert own_turn() == (0, 1)
