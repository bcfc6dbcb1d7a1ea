"""Ctrl-C, once and twice."""

import signal
import threading

import pytest
import torch
from controller.example_training import (
    losses_of,
    weights,
)
from training.example_runs import made

from rightbatch.training import (
    Checkpoint,
    Until,
    load_checkpoint,
    train,
)


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


def test_a_second_ctrl_c_is_heard_at_once_and_the_last_file_stays(tmp_path):
    path = tmp_path / "run.pt"
    controller = made()
    # Half an update: a gradient of some passes, a position past all of them.
    files = Checkpoint(path=path, every_seconds=0)

    def loss(model, batch):
        if controller.step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return losses_of(model, batch)

    with pytest.raises(KeyboardInterrupt):
        train(controller, loss, until=Until(epochs=1), checkpoint=files)
    whole, other = made(), made()
    train(whole, losses_of, until=Until(max_steps=3))
    load_checkpoint(path, other)
    assert (other.step, other.examples) == (3, whole.examples)
    assert torch.equal(weights(other.model), weights(whole.model))


def test_a_thread_that_is_not_the_main_one_trains_too():
    ends = []
    worker = threading.Thread(
        target=lambda: ends.append(train(made(), losses_of, until=Until(epochs=1)))
    )
    worker.start()
    worker.join(60)
    assert ends[0].status == "finished"
