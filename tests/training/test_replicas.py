"""Two replicas end, write and go on together, each with a clock of its own."""

import pytest
import torch
from example_replicas import found_by_each
from training import replica_work

from rightbatch.training import Until, save_checkpoint, train
from rightbatch.training.checkpoints import Checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    save_checkpoint(folder / "alone.pt", alone())
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """What each of two processes found, by case."""
    return found_by_each(replica_work.work, replica_work.WORLD, folder)


def alone():
    return replica_work.controlled(lambda model: model)


def each(found, case):
    for one in found:
        assert case in one, list(one.values())[-1]
    return [one[case] for one in found]


def test_a_replica_whose_clock_is_late_writes_when_the_first_one_does(found, folder):
    for one in each(found, "late"):
        assert one == {"status": "finished", "step": 60, "said": ()}
    assert (folder / "late.pt").exists()


def test_time_that_is_up_on_one_replica_is_up_on_all(found):
    first, second = each(found, "slow")
    assert first == second
    assert first["status"] == "finished"
    assert first["step"] < 2000


def test_ctrl_c_that_one_replica_hears_ends_all_after_the_same_update(found):
    for one in each(found, "interrupted"):
        assert (one["status"], one["step"]) == ("interrupted", 5)


def test_a_stop_that_one_replica_asks_for_stops_all(found):
    for one in each(found, "stopped"):
        assert (one["status"], one["step"]) == ("stopped", 3)


def test_a_checkpoint_that_only_the_first_replica_was_given_is_written(found, folder):
    for one in each(found, "written by one"):
        assert one == {"status": "finished", "step": 4, "said": ()}
    # A process alone goes on from it.
    controller = alone()
    files = Checkpoint(path=folder / "one.pt", resume=True)
    loss = replica_work.losses_of
    train(controller, loss, until=Until(max_steps=6), checkpoint=files)
    assert [record.num_replicas for record in controller.records] == [2] * 4 + [1] * 2


def test_a_file_that_the_first_replica_cannot_write_ends_no_run(found):
    first, second = each(found, "no disk")
    assert (first["step"], second["step"]) == (4, 4)
    assert "No space left" in first["said"][0]


def test_a_path_that_cannot_be_written_is_refused_on_all_replicas(found):
    first, second = each(found, "no folder")
    assert "is a folder" in first
    assert "the first replica cannot write it" in second


def test_a_checkpoint_that_only_one_replica_finds_is_refused_on_all(found):
    first, second = each(found, "found by one")
    assert "the first one has a file, another one not the same" in first
    assert "the first one has a file, this one no file" in second


def test_checkpoints_of_different_runs_are_refused_on_all(found):
    first, second = each(found, "others file")
    assert "replicas must go on from the same checkpoint" in first
    assert "the first one has a file, this one another one" in second


def test_each_replica_goes_on_with_its_own_random_numbers(found):
    first, second = each(found, "resumed")
    for one in (first, second):
        assert torch.equal(one["part"], one["whole"])
    assert torch.equal(first["whole"], second["whole"])
    assert not torch.equal(first["draws"], second["draws"])


def test_replicas_that_go_on_from_one_process_draw_differently_and_repeatably(found):
    first, second = each(found, "from one")
    assert not torch.equal(first[0], second[0])
    for draws in (first, second):
        assert torch.equal(*draws)
