"""What is written, what is gone on from, and what is refused."""

import os
import subprocess
import sys

import pytest
import torch
from controller.example_training import (
    Listed,
    controlled,
    losses_of,
    weights,
)
from torch import nn
from torch.optim import Adam
from training.example_runs import made, rows

from rightbatch.errors import InputError
from rightbatch.training import (
    Checkpoint,
    Until,
    load_checkpoint,
    save_checkpoint,
    train,
)
from rightbatch.training.columns import records_from


def with_dropout():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.Dropout(), nn.Linear(16, 3)).double()


def dropped(sizes=(4, 8)):
    model = with_dropout()
    return controlled(Listed(sizes), model, Adam(model.parameters(), lr=0.01))


def test_a_run_goes_on_from_its_file_draws_of_dropout_included(tmp_path):
    path = tmp_path / "deep" / "run.pt"
    torch.manual_seed(5)
    whole = dropped()
    train(whole, losses_of, until=Until(max_steps=30))
    torch.manual_seed(5)
    for end in (11, 30):
        part = dropped()
        files = Checkpoint(path=path, every_seconds=0, resume=True)
        train(part, losses_of, until=Until(max_steps=end), checkpoint=files)
        torch.manual_seed(99)
    assert rows(part.records) == rows(whole.records)
    assert torch.equal(weights(part.model), weights(whole.model))
    assert [p.name for p in path.parent.iterdir()] == ["run.pt"]


def test_without_resume_a_run_begins_anew(tmp_path):
    files = Checkpoint(path=tmp_path / "run.pt")
    train(made(), losses_of, until=Until(max_steps=3), checkpoint=files)
    again = made()
    train(again, losses_of, until=Until(max_steps=2), checkpoint=files)
    assert again.step == 2


def test_a_disk_that_is_full_does_not_end_the_run_nor_the_last_file(
    tmp_path, monkeypatch
):
    path = tmp_path / "run.pt"
    controller = made()
    train(
        controller,
        losses_of,
        until=Until(max_steps=3),
        checkpoint=Checkpoint(path=path),
    )
    before = path.read_bytes()

    def full(state, place):
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    end = train(
        controller,
        losses_of,
        until=Until(max_steps=6),
        checkpoint=Checkpoint(path=path, every_seconds=0),
    )
    assert (end.status, end.step) == ("finished", 6)
    assert len(end.said) == 1
    assert "was not written: [Errno 28] No space left" in end.said[0]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_what_a_killed_process_left_half_written_is_overwritten(tmp_path):
    (tmp_path / ".run.pt.part").write_bytes(b"half")
    save_checkpoint(tmp_path / "run.pt", made())
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_only_one_name_is_ever_used_beside_a_file(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(torch, "save", lambda state, place: names.append(place.name))
    for process in (11, 12):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        with pytest.raises(FileNotFoundError):
            save_checkpoint(tmp_path / "run.pt", made())
    assert names == [".run.pt.part"] * 2


def test_a_state_that_cannot_be_given_is_no_full_disk(tmp_path, monkeypatch):
    controller = made()

    def failing():
        raise RuntimeError("another replica is gone")

    monkeypatch.setattr(controller, "training_state", failing)
    files = Checkpoint(path=tmp_path / "run.pt")
    with pytest.raises(RuntimeError, match="another replica is gone"):
        train(controller, losses_of, until=Until(max_steps=1), checkpoint=files)


def test_a_path_may_be_text(tmp_path):
    path = str(tmp_path / "run.pt")
    controller = made()
    files = Checkpoint(path=path, resume=True)
    train(controller, losses_of, until=Until(max_steps=2), checkpoint=files)
    other = made()
    load_checkpoint(path, other)
    save_checkpoint(path, other)
    assert other.step == 2


def test_a_path_of_another_kind_is_refused():
    with pytest.raises(InputError, match="`path` must be a path, got 7"):
        Checkpoint(path=7)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("", "is a folder"),
        ("taken/run.pt", "the folder .*taken cannot be made: File exists"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_before_training(
    tmp_path, name, match
):
    (tmp_path / "taken").touch()
    controller = made()
    files = Checkpoint(path=tmp_path / name)
    with pytest.raises(InputError, match=match):
        train(controller, losses_of, until=Until(max_steps=1), checkpoint=files)
    assert controller.step == 0


def test_a_file_that_is_none_of_ours_is_refused(tmp_path):
    controller = made()
    with pytest.raises(InputError, match="there is no file"):
        load_checkpoint(tmp_path / "none.pt", controller)
    (tmp_path / "bad.pt").write_text("nonsense")
    with pytest.raises(InputError, match="is not a checkpoint of rightbatch"):
        load_checkpoint(tmp_path / "bad.pt", controller)
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="is not a checkpoint of rightbatch"):
        load_checkpoint(tmp_path / "other.pt", controller)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


def test_a_file_from_elsewhere_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"records": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="is not a checkpoint"):
        load_checkpoint(tmp_path / "evil.pt", made())
    assert not (tmp_path / "evil").exists()


def test_a_checkpoint_of_another_policy_is_refused(tmp_path):
    save_checkpoint(tmp_path / "run.pt", made((4, 8)))
    with pytest.raises(InputError, match="of another policy"):
        load_checkpoint(tmp_path / "run.pt", made((4, 16)))


def test_seconds_between_checkpoints_are_not_negative(tmp_path):
    with pytest.raises(InputError, match="every_seconds"):
        Checkpoint(path=tmp_path / "run.pt", every_seconds=-1)


KILLED = """
import sys
from pathlib import Path
import torch
from torch.optim import SGD
sys.path.insert(0, sys.argv[1])
from controller.example_training import Listed, controlled, losses_of, net, data
from rightbatch.training import Checkpoint, Until, train
from rightbatch.policies import AdaDamp, Clip
from rightbatch.controller import MeanLoss, Sensing
torch.set_num_threads(1)
model = net()
policy = Clip(AdaDamp(initial_batch_size=4), high=64)
controller = controlled(
    policy, model, SGD(model.parameters(), lr=0.05),
    sensing=Sensing(evaluate=MeanLoss(model, losses_of, data())),
)
files = Checkpoint(path=Path(sys.argv[2]), every_seconds=0.02, resume=True)
def tell(record):
    print(record.step, flush=True)
train(controller, losses_of, until=Until(max_steps=int(sys.argv[3])),
      checkpoint=files, on_update=tell)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_bit_for_bit(tmp_path):
    here = os.path.dirname(os.path.dirname(__file__))

    def start(path):
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, here, path, "400"],
            stdout=subprocess.PIPE,
            text=True,
        )

    killed = start(tmp_path / "killed.pt")
    for line in killed.stdout:
        if int(line) > 150 and (tmp_path / "killed.pt").exists():
            break
    killed.kill()
    killed.wait(30)
    killed.stdout.close()
    states = []
    for name in ("killed.pt", "whole.pt"):
        process = start(tmp_path / name)
        lines = process.communicate(timeout=120)[0].split()
        assert lines[-1] == "400"
        states.append(torch.load(tmp_path / name, weights_only=True))
        if name == "killed.pt":
            assert int(lines[0]) > 1
    first, second = (rows(records_from(state["records"])) for state in states)
    # NaN-free rows: equality is bit for bit.
    assert first == second
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name])
