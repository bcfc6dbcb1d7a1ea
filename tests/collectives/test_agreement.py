"""One word for all replicas, on two processes and on one."""

import math

import pytest
import torch
from collectives import example_replicas
from collectives.example_replicas import WORLD

from rightbatch.collectives import (
    agree,
    all_min_numbers,
    all_sum,
    all_sum_numbers,
    barrier,
    exchange_device,
    num_replicas,
    rank,
    same_on_all,
)
from rightbatch.errors import InputError


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes was told, by question."""
    folder = tmp_path_factory.mktemp("exchanges")
    processes = example_replicas.start(
        example_replicas.exchange_all, folder / "meeting", folder
    )
    example_replicas.stop(processes, 90)
    return [torch.load(folder / f"{own}.pt") for own in range(WORLD)]


@pytest.mark.slow
def test_the_first_replicas_word_holds_for_all(found):
    for one in found:
        assert one["agree"] == {"rank": 0, "parts": [0, None, "ü", 0.1, math.inf]}
        assert one["nothing"] is None


@pytest.mark.slow
def test_a_word_of_any_length_is_heard(found):
    for one in found:
        assert one["long"] == [0] * 2000
        assert one["longer here"] == "x"


@pytest.mark.slow
def test_all_know_whether_they_were_given_the_same(found):
    for one in found:
        assert one["same"] is True
        assert one["other"] is False


@pytest.mark.slow
def test_numbers_are_added_and_compared_over_replicas(found):
    for one in found:
        assert one["sum"] == [2.0, 1.0]
        assert one["min"] == [0.0, 4.0, math.inf]


@pytest.mark.slow
def test_each_knows_which_it_is(found):
    for own, one in enumerate(found):
        assert one["this"] == (own, 2, own == 0, "cpu")
        assert one["inner"] == (own, 2)
        assert one["rank"] == (own, 2, "cpu")


@pytest.mark.slow
def test_who_comes_late_to_a_barrier_is_named(found):
    assert "not every replica came within 0.5 s" in found[0]["waited"]
    assert "1 failed to pass" in found[0]["waited"]


def test_one_process_agrees_with_itself():
    assert agree({"a": (1, 2)}) == {"a": [1, 2]}
    assert math.isnan(agree(math.nan))
    assert same_on_all("anything")
    assert all_min_numbers([3, 1]) == [3, 1]
    assert all_sum_numbers([3, 1]) == [3, 1]
    values = torch.ones(2)
    assert all_sum(values) is values
    assert (rank(), num_replicas(), str(exchange_device())) == (0, 1, "cpu")
    barrier(timeout_seconds=1)


def test_a_group_of_one_exchanges_with_itself(tmp_path):
    place = f"file://{tmp_path}/meeting"
    torch.distributed.init_process_group(
        "gloo", init_method=place, rank=0, world_size=1
    )
    try:
        assert agree("x" * 3000) == "x" * 3000
        assert agree([]) == []
        assert same_on_all([1, {"b": None}])
        assert all_min_numbers([2.5]) == [2.5]
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("value", [{1, 2}, object, {"a": b"x"}])
@pytest.mark.parametrize("ask", [agree, same_on_all])
def test_what_json_does_not_hold_is_refused(ask, value):
    with pytest.raises(InputError, match="`value` must be what JSON holds"):
        ask(value)


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_barrier_needs_some_time(seconds):
    with pytest.raises(InputError, match="`timeout_seconds` must be positive"):
        barrier(timeout_seconds=seconds)
