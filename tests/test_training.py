"""The reference loop: ends, checkpoints, Ctrl-C, a kill, and memory that runs out."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from controller.example_training import (
    Listed,
    controlled,
    loss_of,
    losses_of,
    net,
    run,
    stream_of,
    weights,
)
from torch import nn
from torch.nn import functional
from torch.optim import Adam
from torch.utils.data import TensorDataset

from rightbatch.errors import InputError
from rightbatch.training import (
    Checkpoint,
    Until,
    load_checkpoint,
    save_checkpoint,
    train,
)


def made(sizes=(4, 8), **settings):
    model = net()
    return controlled(
        Listed(sizes), model, Adam(model.parameters(), lr=0.01), **settings
    )


def rows(records):
    return [record._replace(seconds=0.0) for record in records]


def test_it_makes_the_updates_of_the_loop_written_out():
    one, other = made(), made()
    run(one, losses_of, max_steps=9)
    end = train(other, losses_of, until=Until(max_steps=9))
    assert (end.status, end.step, end.examples) == ("finished", 9, other.examples)
    assert rows(one.records) == rows(other.records)
    assert torch.equal(weights(one.model), weights(other.model))


@pytest.mark.parametrize(
    ("until", "steps"),
    [
        (Until(epochs=1), 16),
        (Until(max_examples=20), 4),
        (Until(max_steps=3, epochs=9), 3),
        (Until(max_seconds=1e-9), 1),
    ],
)
def test_training_ends_at_the_first_end(until, steps):
    assert train(made(), losses_of, until=until).step == steps


def test_on_update_sees_every_record_and_may_stop():
    seen = []

    def stop(record):
        seen.append(record.step)
        return record.step == 4

    assert train(made(), losses_of, until=Until(epochs=9), on_update=stop).status == (
        "stopped"
    )
    assert seen == [1, 2, 3, 4]


def test_a_lost_loss_ends_training_and_says_where_it_is_back():
    controller = made()

    def loss(model, batch):
        return loss_of(model, batch) * (float("nan") if controller.step == 3 else 1)

    end = train(controller, loss, until=Until(epochs=9))
    assert end.status == "diverged"
    assert "training is lost at update 4" in end.said[0]


def test_memory_that_runs_out_makes_passes_smaller_and_never_the_batch():
    one, other = made((32,)), made((32,))

    def small(model, batch):
        if len(batch[0]) > 8:
            raise RuntimeError("not enough memory: you tried to allocate 9 bytes")
        return losses_of(model, batch)

    train(one, small, until=Until(max_steps=5))
    train(other, losses_of, until=Until(max_steps=5))
    torch.testing.assert_close(weights(one.model), weights(other.model))
    assert {record.batch_size for record in one.records} == {32}
    assert {record.micro_batch_size for record in one.records} == {8}


def test_any_other_failure_of_the_loss_goes_on_its_way():
    def failing(model, batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train(made(), failing, until=Until(max_steps=1))


# Targets and losses that others crashed on --------------------------------------------


def targets(kind, count=40):
    generator = torch.Generator().manual_seed(0)
    return {
        "integers": torch.randint(3, (count,), generator=generator),
        "numbers": torch.randn(count, generator=generator).double(),
        "vectors": torch.randn(count, 3, generator=generator).double(),
        "labels": torch.randint(2, (count, 3), generator=generator).double(),
    }[kind]


def plain_loss(model, batch):
    return functional.mse_loss(model(batch[0]).mean(1), batch[1], reduction="none")


class NamelessLoss(nn.Module):
    """A module, without `__name__`."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, model, batch):
        losses = self.inner(model(batch[0]), batch[1])
        return losses if losses.ndim == 1 else losses.mean(1)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("integers", NamelessLoss(nn.CrossEntropyLoss(reduction="none"))),
        ("numbers", plain_loss),
        ("vectors", NamelessLoss(nn.MSELoss(reduction="none"))),
        ("labels", NamelessLoss(nn.BCEWithLogitsLoss(reduction="none"))),
    ],
)
def test_targets_of_all_kinds_train(kind, loss):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 5, generator=generator).double()
    controller = made((4, 8, 16), stream=stream_of(TensorDataset(x, targets(kind))))
    end = train(controller, loss, until=Until(epochs=30))
    assert end.status == "finished"
    losses = [record.loss for record in controller.records]
    assert sum(losses[-20:]) < sum(losses[:20])


# Checkpoints --------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({}, "an end must be given"),
        ({"epochs": 0}, "epochs"),
        ({"max_steps": -1}, "max_steps"),
        ({"max_seconds": float("nan")}, "max_seconds"),
    ],
)
def test_ends_are_positive_and_there_is_one(settings, match):
    with pytest.raises(InputError, match=match):
        Until(**settings)


def test_seconds_between_checkpoints_are_not_negative(tmp_path):
    with pytest.raises(InputError, match="every_seconds"):
        Checkpoint(path=tmp_path / "run.pt", every_seconds=-1)


# Ctrl-C and a kill --------------------------------------------------------------------


def test_ctrl_c_is_heard_after_the_update_under_way(tmp_path):
    path = tmp_path / "run.pt"
    controller = made()

    def loss(model, batch):
        if controller.step == 4:
            signal.raise_signal(signal.SIGINT)
        return losses_of(model, batch)

    end = train(
        controller, loss, until=Until(epochs=9), checkpoint=Checkpoint(path=path)
    )
    assert (end.status, end.step) == ("interrupted", 5)
    other = made()
    load_checkpoint(path, other)
    assert torch.equal(weights(other.model), weights(controller.model))
    # And the caller's Ctrl-C is what it was.
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_second_ctrl_c_is_heard_at_once():
    def loss(model, batch):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return losses_of(model, batch)

    with pytest.raises(KeyboardInterrupt):
        train(made(), loss, until=Until(epochs=1))


def test_a_thread_that_is_not_the_main_one_trains_too():
    ends = []
    worker = threading.Thread(
        target=lambda: ends.append(train(made(), losses_of, until=Until(epochs=1)))
    )
    worker.start()
    worker.join(60)
    assert ends[0].status == "finished"


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
    here = os.path.dirname(__file__)

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
    time_at = 9
    first, second = (
        [row[:time_at] + row[time_at + 1 :] for row in state["records"]]
        for state in states
    )
    # NaN-free rows: equality is bit for bit.
    assert first == second
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name])
