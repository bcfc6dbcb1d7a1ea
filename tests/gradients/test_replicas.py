"""DDP and FSDP2 on two processes, beside one process on the same examples."""

import pytest
import torch
from example_replicas import found_by_each
from gradients import replica_work
from torch import nn

from rightbatch.collectives import all_sum, all_sum_numbers, num_replicas
from rightbatch.gradients import NoiseMeter
from rightbatch.gradients.replicas import replicas_of


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes found, by case."""
    folder = tmp_path_factory.mktemp("replicas")
    return found_by_each(replica_work.work, replica_work.WORLD, folder)


def alone(sizes, source="units"):
    """One process on all replicas' parts."""
    model = replica_work.net()
    with NoiseMeter(model, source) as meter:
        for _ in range(3):
            model.zero_grad()
            parts = [p for rank in range(2) for p in replica_work.shares(rank, sizes)]
            replica_work.accumulate(meter, model, parts)
        return replica_work.result(meter)


SAME = {
    "bucket views": [8, 8],
    "own gradients": [8, 8],
    "one unit each": [16],
    "ragged": [9, 4, 3],
    "auto": [16],
    "shards": [8, 8],
    "shards of the whole": [8, 8],
    "shards, one unit each": [16],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SAME)
def test_replicas_read_what_one_process_reads(found, case):
    truth = alone(SAME[case])
    for one in found:
        assert one[case] == pytest.approx(truth, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["examples", "examples, own gradients"])
def test_examples_are_read_over_replicas_too(found, case):
    truth = alone([8, 8], "examples")
    for one in found:
        assert one[case] == pytest.approx(truth, rel=1e-9)
        assert one[case][2] == 32


@pytest.mark.slow
def test_replicas_agree_on_the_noise_scale_whatever_each_was_given(found):
    assert found[0]["memory"] == found[1]["memory"]
    assert found[0]["memory"]["elapsed"] == found[0]["memory"]["examples"] * 5 / 3


@pytest.mark.slow
def test_parts_add_up_over_replicas(found):
    model = replica_work.net()
    with NoiseMeter(model, parts="layers") as meter:
        parts = [p for rank in range(2) for p in replica_work.shares(rank, [8, 8])]
        replica_work.accumulate(meter, model, parts)
        truth = {n: p.moments.grad_variance for n, p in meter.noise_scale.parts.items()}
    for one in found:
        assert one["parts"] == pytest.approx(truth)


@pytest.mark.slow
def test_replicas_with_other_units_are_right_where_weights_are_told(found):
    x, y = replica_work.data(32)
    sizes = [8, 8, 4, 4, 8]
    model = replica_work.net()
    with NoiseMeter(model) as meter:
        pieces = list(zip(x.split(sizes), y.split(sizes), strict=True))
        replica_work.accumulate(meter, model, pieces)
        truth = replica_work.result(meter)
    for one in found:
        assert one["told"] == pytest.approx(truth, rel=1e-9)


REFUSED = {
    "counts": "different number of units",
    "no sync": "replicas hold different gradients.*no_sync",
    "weights": "`weight` must be given on every replica or on none",
    "nothing": "no backward has run in a unit",
    "examples of shards": "cannot be read of sharded parameters.*source='units'",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_all_replicas_are_told_what_is_wrong(found, case):
    import re

    for one in found:
        assert re.search(REFUSED[case], one[f"refused: {case}"])


@pytest.mark.slow
def test_what_one_replica_did_wrong_is_told_to_all(found):
    assert "another replica could not read" in found[0]["refused: clipped"]
    assert "clipping or unscaling" in found[1]["refused: clipped"]


@pytest.mark.slow
def test_an_update_takes_one_small_sum(found):
    for one in found:
        assert len(one["exchanges"]) == 1
        assert one["exchanges"][0] <= 20


def test_one_process_is_its_own_sum():
    values = torch.ones(2)
    assert all_sum(values) is values
    assert all_sum_numbers([1.0, 2.0]) == [1.0, 2.0]
    assert num_replicas() == 1
    assert replicas_of(nn.Linear(1, 1)).num == 1
    assert replicas_of(nn.Linear(1, 1)).sum([3.0]) == [3.0]
