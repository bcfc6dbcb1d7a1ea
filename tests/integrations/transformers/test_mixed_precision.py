"""Under a GradScaler the callback reads gradients as they are, and steps left out."""

import pytest
import torch
from example_policies import Listed
from integrations.example_trainers import Net, column, followed, trainer_of, weights
from transformers import TrainerCallback

from rightbatch.controller import Sensing
from rightbatch.policies import Clip, NoiseFollowing, RadaDamp


def trained(folder, policy, scaler=None, **settings):
    trainer = trainer_of(folder, Net(), optim="sgd", **settings)
    # As accelerate sets it up on a GPU; the arithmetic is the same here.
    trainer.accelerator.scaler = scaler
    follower = followed(trainer, policy, lr_rule="linear", sensing=Sensing(every=2))
    trainer.train()
    return trainer, follower


@pytest.mark.parametrize(
    "policy",
    [
        Clip(NoiseFollowing(initial_batch_size=8), low=8, high=48),
        Clip(RadaDamp(initial_batch_size=8), low=8, high=48),
    ],
)
def test_scaled_gradients_change_nothing(tmp_path, policy):
    plain, expected = trained(tmp_path, policy)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5)
    scaled, found = trained(tmp_path, policy, scaler)
    assert scaler.get_scale() > 2.0**10
    for name in ("batch_size", "examples"):
        assert column(found.records, name) == column(expected.records, name)
    assert column(found.records, "loss") == pytest.approx(
        column(expected.records, "loss"), rel=1e-6
    )
    torch.testing.assert_close(weights(scaled.model), weights(plain.model))


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ("adamw_torch", [0, 1, 3, 3, 5, 6]),
        # The Trainer takes no notice here, and moves the schedule: it is made good for.
        ("adamw_torch_fused", [0, 1, 3, 4, 5, 6]),
    ],
)
def test_a_step_that_overflowed_is_left_out(tmp_path, optimizer, schedule):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    trainer = trainer_of(tmp_path, Net(), optim=optimizer, lr_scheduler_type="linear")
    trainer.accelerator.scaler = scaler
    passes = iter(range(10**6))
    first = next(trainer.model.parameters())
    first.register_hook(lambda grad: grad * torch.inf if next(passes) == 6 else grad)
    follower = followed(trainer, Listed((8, 16)))
    rates = []

    class Looking(TrainerCallback):
        def on_step_begin(self, args, state, control, lr_scheduler, **rest):
            rates.append(lr_scheduler.last_epoch)

    trainer.add_callback(Looking)
    trainer.train()
    # Micro-batches 0-1, 2-5, 6-7: the third update.
    skipped = [one.step for one in follower.records if one.reason.startswith("no step")]
    assert skipped == [3]
    assert rates[:6] == schedule
    assert scaler.get_scale() == 2.0**9
