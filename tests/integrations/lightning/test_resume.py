"""A Lightning run goes on from a checkpoint as if it had never ended."""

import pytest
import torch
from controller.example_training import Listed, data, weights
from integrations.example_lightning import (
    QUIET,
    Net,
    Resumable,
    fitted,
    hooks_of,
    loader_of,
    trainer_of,
)
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader

from rightbatch.controller import Sensing
from rightbatch.errors import InputError
from rightbatch.integrations.lightning import BatchSizeCallback
from rightbatch.policies import GeoDamp, NoiseFollowing, PadaDamp

# The runs that go on keep no checkpoints of their own.
OTHERS = "ignore:Be aware that when using `ckpt_path`, callbacks used"
pytestmark = [pytest.mark.filterwarnings(one) for one in (*QUIET, OTHERS)]

POLICIES = {
    "geodamp": GeoDamp(initial_batch_size=4, delay=1, factor=2),
    "padadamp": PadaDamp(initial_batch_size=4, rate=0.5),
    "noise": NoiseFollowing(initial_batch_size=8),
}
CASES = [
    # Within an epoch, at its end, and within it once the batch is large.
    ("geodamp", "linear", SGD, {"lr": 0.05, "momentum": 0.9}, (5, 24, 30)),
    ("padadamp", "none", AdamW, {"lr": 0.01}, (7, 12)),
    ("noise", "auto", SGD, {"lr": 0.05, "momentum": 0.9}, (8, 10)),
    ("noise", "auto", AdamW, {"lr": 0.01}, (8,)),
]


def schedule(optimizer):
    return {"scheduler": CosineAnnealingLR(optimizer, T_max=72), "interval": "step"}


def callback_of(policy, **settings):
    sensing = Sensing(noise="examples", every=3)
    return BatchSizeCallback(policy, sensing=sensing, **settings)


def resumable():
    return loader_of(data(94), kind=Resumable)


def keeping(folder, **settings):
    # A file for every one that is due, by the number of its update.
    return ModelCheckpoint(folder, "{step}", save_top_k=-1, **settings)


@pytest.mark.parametrize(
    ("name", "rule", "kind", "settings", "places"),
    CASES,
    ids=[f"{name}-{kind.__name__}" for name, _, kind, _, _ in CASES],
)
def test_a_run_goes_on_in_the_midst_of_an_epoch(
    tmp_path, name, rule, kind, settings, places
):
    whole = callback_of(POLICIES[name], lr_rule=rule)
    module = Net(kind, schedule, **settings)
    given = {"enable_checkpointing": True}
    keep = keeping(tmp_path, every_n_train_steps=1)
    fitted(
        tmp_path, whole, module=module, loader=resumable(), callbacks=[keep], **given
    )
    sizes = [record.batch_size for record in whole.records]
    assert len(set(sizes)) > 2
    for place in places:
        again = callback_of(POLICIES[name], lr_rule=rule)
        path = tmp_path / f"step={place}.ckpt"
        other = Net(kind, schedule, **settings)
        fitted(tmp_path, again, module=other, loader=resumable(), path=path)
        torch.testing.assert_close(weights(other.net), weights(module.net))
        assert [one.batch_size for one in again.records] == sizes
        for own, one in zip(again.records, whole.records, strict=True):
            torch.testing.assert_close(numbers(own), numbers(one), equal_nan=True)
            assert own.reason == one.reason


def numbers(record):
    """Return the numbers of a record that are the same in every run."""
    values = record._replace(seconds=0.0, reason=0.0)
    return torch.tensor([torch.nan if one is None else float(one) for one in values])


def kept(folder, place=5, kind=Resumable):
    callback = callback_of(POLICIES["geodamp"])
    keep = keeping(folder, every_n_train_steps=place)
    fitted(
        folder,
        callback,
        loader=loader_of(data(94), kind=kind),
        callbacks=[keep],
        enable_checkpointing=True,
        max_epochs=1,
    )
    return folder / f"step={place}.ckpt"


def test_the_state_is_plain_and_is_read_without_trust(tmp_path):
    path = kept(tmp_path)
    state = torch.load(path, weights_only=True)["callbacks"]["BatchSizeCallback"]
    assert state["controller"]["memory"]["step"] == 5
    module, callback = Net(), callback_of(POLICIES["geodamp"])
    trainer = trainer_of(tmp_path, callback, max_epochs=1)
    trainer.fit(module, resumable(), ckpt_path=path, weights_only=True)
    assert [record.step for record in callback.records] == [*range(1, 25)]


def test_a_loader_that_cannot_go_on_begins_its_epoch_anew_and_lightning_says_so(
    tmp_path,
):
    path = kept(tmp_path, kind=DataLoader)
    callback = callback_of(POLICIES["geodamp"])
    with pytest.warns(UserWarning, match="your dataloader is not resumable"):
        fitted(tmp_path, callback, loader=loader_of(data(94)), path=path, max_epochs=1)
    # As many batches as were left, but the epoch's first ones: none is short.
    assert len(callback.records) == 24
    assert [record.batch_size for record in callback.records] == [4] * 24


def test_a_checkpoint_in_the_midst_of_an_update_is_that_before_it(tmp_path):
    class Saving(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 7:
                self.trainer.save_checkpoint(path)

    path = tmp_path / "within.ckpt"
    begun = callback_of(Listed((12,)))
    fitted(tmp_path, begun, module=Saving(), loader=resumable(), max_epochs=1)
    state = torch.load(path, weights_only=True)["callbacks"]["BatchSizeCallback"]
    assert state["controller"]["memory"]["step"] == 2
    assert state["controller"]["stream"] == {"counted": 24}
    callback = callback_of(Listed((12,)))
    fitted(tmp_path, callback, loader=resumable(), path=path, max_epochs=1)
    # Two batches of the broken-off update are gone with it, as Lightning has it.
    sizes = [record.batch_size for record in callback.records]
    assert sizes == [12] * 7 + [2]
    assert sum(sizes) == 94 - 8


def test_a_trainer_s_checkpoint_after_the_run_is_of_its_end(tmp_path):
    callback = callback_of(POLICIES["geodamp"])
    module = fitted(tmp_path, callback, loader=resumable(), max_epochs=2)
    module.trainer.save_checkpoint(tmp_path / "end.ckpt")
    again = callback_of(POLICIES["geodamp"])
    fitted(tmp_path, again, loader=resumable(), path=tmp_path / "end.ckpt")
    assert [record.batch_size for record in again.records][-1] == 14
    assert len(again.records) == len(callback.records) + 6


def test_the_state_of_another_policy_is_refused(tmp_path):
    path, callback = kept(tmp_path), callback_of(POLICIES["padadamp"])
    trainer, module = trainer_of(tmp_path, callback, max_epochs=3), Net()
    with pytest.raises(InputError, match="the state is of another policy"):
        trainer.fit(module, resumable(), ckpt_path=path)
    assert hooks_of(trainer, module) == 0


def test_a_checkpoint_from_before_the_callback_is_gone_on_from(tmp_path):
    module = fitted(
        tmp_path,
        ModelCheckpoint(tmp_path / "other"),
        max_epochs=1,
        enable_checkpointing=True,
    )
    module.trainer.save_checkpoint(tmp_path / "plain.ckpt")
    callback = callback_of(POLICIES["geodamp"])
    fitted(tmp_path, callback, path=tmp_path / "plain.ckpt", max_epochs=2)
    assert [record.step for record in callback.records][-1] == 24


def test_a_run_with_nothing_left_to_do_keeps_what_it_was(tmp_path):
    callback = callback_of(POLICIES["noise"])
    trainer, path = trainer_of(tmp_path, callback, max_epochs=1), tmp_path / "end.ckpt"
    trainer.fit(Net(), resumable())
    known = callback.records, callback.batch_size, callback.noise_scale
    trainer.fit(Net(), resumable())
    assert (callback.records, callback.batch_size, callback.noise_scale) == known
    trainer.save_checkpoint(path)
    again = callback_of(POLICIES["noise"])
    fitted(tmp_path, again, loader=resumable(), path=path, max_epochs=1)
    assert len(again.records) == len(callback.records) > 1
    assert again.batch_size == callback.batch_size
    # And can still go on.
    fitted(tmp_path, again, loader=resumable(), path=path, max_epochs=2)
    assert again.records[-1].epoch == 2.0
