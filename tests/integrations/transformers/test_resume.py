"""A Trainer goes on from its checkpoints as if it had never stopped."""

import json

import pytest
import torch
from example_policies import Listed
from integrations.example_trainers import (
    Net,
    Rows,
    column,
    followed,
    trainer_of,
    weights,
)
from transformers import Trainer

from rightbatch.controller import Sensing
from rightbatch.errors import InputError
from rightbatch.policies import Clip, GeoDamp, NoiseFollowing

GROWING = GeoDamp(initial_batch_size=8, delay=1, factor=2)


def run(folder, policy=GROWING, resume=None, *, dropout=0.3, callback=None, **settings):
    """Train, from the beginning or from a checkpoint, on shuffled rows."""
    given = {
        "train_sampling_strategy": "random",
        "save_strategy": "steps",
        "save_steps": 1,
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch",
    }
    trainer = trainer_of(folder, Net(dropout=dropout), Rows(), **(given | settings))
    follower = followed(trainer, policy, **(callback or {"lr_rule": "linear"}))
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer, follower


def assert_goes_on(folder, at, **settings):
    whole, expected = run(folder, **settings)
    again, found = run(folder, resume=folder / f"checkpoint-{at}", **settings)
    rest = expected.records[at:]
    for name in ("step", "batch_size", "examples"):
        assert column(found.records, name) == column(rest, name)
    for name in ("loss", "lr"):
        assert column(found.records, name) == pytest.approx(
            column(rest, name), rel=1e-9
        )
    torch.testing.assert_close(weights(again.model), weights(whole.model))
    assert again.state.global_step == whole.state.global_step
    assert again.state.epoch == pytest.approx(whole.state.epoch)


# 23 micro-batches an epoch: 12 updates of two, 6 of four, 3 of eight, 2 of sixteen.
@pytest.mark.parametrize("at", [5, 12, 15, 18, 20, 22])
def test_a_run_goes_on_in_the_middle_of_an_epoch_and_at_its_end(tmp_path, at):
    assert_goes_on(tmp_path, at)
