"""A Trainer under the callback makes the updates of the plain controller."""

import pytest
import torch
from example_policies import Listed
from integrations.example_trainers import (
    Net,
    column,
    followed,
    plain,
    trainer_of,
    weights,
)
from torch.optim import SGD, AdamW

from rightbatch.controller import Sensing
from rightbatch.policies import Clip, GeoDamp, NoiseFollowing, PadaDamp

POLICIES = {
    "geodamp": GeoDamp(initial_batch_size=4, delay=1, factor=2),
    "padadamp": Clip(PadaDamp(initial_batch_size=8, rate=0.5), high=32),
    "noise": Clip(NoiseFollowing(initial_batch_size=8), low=8, high=48),
    "up-and-down": Listed((4, 16, 8, 200, 12)),
}
OPTIMIZERS = {
    "sgd": lambda parameters: SGD(parameters, lr=0.05, momentum=0.9),
    "adamw": lambda parameters: AdamW(parameters, lr=0.01),
}


def fixed(optimizer):
    """Return what a Trainer is given instead of making its own."""
    return {
        "optimizers": (optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1))
    }


@pytest.mark.parametrize(
    ("policy", "optimizer", "rule"),
    [
        ("geodamp", "sgd", "none"),
        ("geodamp", "adamw", "auto"),
        ("padadamp", "sgd", "linear"),
        ("padadamp", "adamw", "none"),
        ("noise", "sgd", "auto"),
        ("noise", "adamw", "linear"),
        ("up-and-down", "sgd", "auto"),
        ("up-and-down", "adamw", "auto"),
    ],
)
def test_it_follows_the_plain_controller(tmp_path, policy, optimizer, rule):
    sensing = Sensing(noise="examples", every=3)
    policy, made = POLICIES[policy], OPTIMIZERS[optimizer]
    model = Net()
    trainer = trainer_of(tmp_path, model, parts=fixed(made(model.parameters())))
    callback = followed(trainer, policy, lr_rule=rule, sensing=sensing)
    trainer.train()
    oracle = plain(policy, made, lr_rule=rule, sensing=sensing)
    for name in ("batch_size", "examples", "accumulation_steps"):
        assert column(callback.records, name) == column(oracle.records, name)
    for name in ("loss", "lr", "epoch"):
        expected = pytest.approx(column(oracle.records, name), rel=1e-9)
        assert column(callback.records, name) == expected
    torch.testing.assert_close(weights(model), weights(oracle.model))
