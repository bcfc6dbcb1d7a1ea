"""A Trainer goes on from its checkpoints as if it had never stopped."""

import json
import shutil

import pytest
import torch
from integrations.example_trainers import (
    Net,
    Rows,
    column,
    followed,
    trainer_of,
    weights,
)
from torch.utils.data import IterableDataset

from rightbatch.controller import Sensing
from rightbatch.errors import InputError
from rightbatch.policies import Clip, GeoDamp, NoiseFollowing, PadaDamp

GROWING = GeoDamp(initial_batch_size=8, delay=1, factor=2)
LINE = Clip(PadaDamp(initial_batch_size=8, rate=2), high=32)


def run(
    folder, policy=GROWING, resume=None, *, dataset=None, callback=None, **settings
):
    """Train, from the beginning or from a checkpoint, on shuffled rows."""
    given = {
        "train_sampling_strategy": "random",
        "save_strategy": "steps",
        "save_steps": 1,
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch",
    }
    dataset = Rows() if dataset is None else dataset
    trainer = trainer_of(folder, Net(dropout=0.3), dataset, **(given | settings))
    follower = followed(trainer, policy, **(callback or {"lr_rule": "linear"}))
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer, follower


def assert_goes_on(whole, again, at):
    (trainer, expected), (trainer_again, found) = whole, again
    rest = expected.records[at:]
    for name in ("step", "batch_size", "examples", "noise_scale"):
        assert column(found.records, name) == column(rest, name)
    for name in ("loss", "lr"):
        assert column(found.records, name) == pytest.approx(
            column(rest, name), rel=1e-9
        )
    torch.testing.assert_close(weights(trainer_again.model), weights(trainer.model))
    assert trainer_again.state.global_step == trainer.state.global_step
    assert trainer_again.state.epoch == pytest.approx(trainer.state.epoch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Train once, with a checkpoint after each update."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


# 23 micro-batches an epoch: 12 updates of two, 6 of four, 3 of eight, 2 of sixteen.
@pytest.mark.parametrize("at", [5, 12, 15, 18, 20, 22])
def test_a_run_goes_on_in_the_middle_of_an_epoch_and_at_its_end(whole, at, tmp_path):
    folder, finished = whole
    assert column(finished[1].records, "step")[-1] == 23
    again = run(tmp_path, resume=folder / f"checkpoint-{at}", save_strategy="no")
    assert_goes_on(finished, again, at)


def test_a_run_that_was_resumed_may_be_resumed_again(whole, tmp_path):
    folder, finished = whole
    run(tmp_path, resume=folder / "checkpoint-14")
    again = run(tmp_path, resume=tmp_path / "checkpoint-17", save_strategy="no")
    assert_goes_on(finished, again, 17)


def test_a_finished_run_trains_no_further(whole, tmp_path):
    folder, (trainer, _) = whole
    again, follower = run(tmp_path, resume=folder / "checkpoint-23", save_strategy="no")
    assert follower.records == []
    torch.testing.assert_close(weights(again.model), weights(trainer.model))


def test_a_checkpoint_s_state_is_plain_json_and_its_arguments_plain_numbers(whole):
    folder, _ = whole
    state = json.loads((folder / "checkpoint-15" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["rightbatch"]["epoch"] == 1
    assert state["stateful_callbacks"]["rightbatch"]["examples"] == 3 * 16
    args = torch.load(
        folder / "checkpoint-15" / "training_args.bin", weights_only=False
    )
    assert type(args.gradient_accumulation_steps) is int


def test_the_noise_scale_goes_on_too(tmp_path):
    settings = {
        "policy": Clip(NoiseFollowing(initial_batch_size=8), low=8, high=32),
        "callback": {"lr_rule": "auto", "sensing": Sensing(every=3)},
    }
    finished = run(tmp_path, **settings)
    at = len(finished[1].records) // 2
    checkpoint = tmp_path / f"checkpoint-{at}"
    assert_goes_on(finished, run(tmp_path, resume=checkpoint, **settings), at)


@pytest.mark.parametrize("at", [7, 13])
def test_a_run_of_so_many_updates_goes_on(tmp_path, at):
    settings = {"policy": LINE, "max_steps": 20}
    finished = run(tmp_path, **settings)
    assert finished[0].state.epoch > 3
    checkpoint = tmp_path / f"checkpoint-{at}"
    assert_goes_on(finished, run(tmp_path, resume=checkpoint, **settings), at)


class Stream(IterableDataset):
    """Rows of unknown number."""

    def __iter__(self):
        return iter(Rows(50))


@pytest.mark.parametrize("at", [4, 9])
def test_a_stream_of_unknown_length_goes_on(tmp_path, at):
    settings = {"policy": LINE, "max_steps": 12, "dataset": Stream()}
    finished = run(tmp_path, **settings)
    checkpoint = tmp_path / f"checkpoint-{at}"
    assert_goes_on(finished, run(tmp_path, resume=checkpoint, **settings), at)


def test_the_best_model_is_loaded_and_few_checkpoints_are_kept(tmp_path):
    trainer = trainer_of(
        tmp_path,
        save_strategy="epoch",
        eval_strategy="epoch",
        load_best_model_at_end=True,
        save_total_limit=1,
        learning_rate=0.5,
        parts={"eval_dataset": Rows(20)},
    )
    followed(trainer, GROWING)
    trainer.train()
    losses = [
        one["eval_loss"] for one in trainer.state.log_history if "eval_loss" in one
    ]
    assert len(losses) == 4
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses))
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1


def test_another_micro_batch_goes_on_at_the_same_example(whole, tmp_path):
    folder, (_, expected) = whole
    _, found = run(
        tmp_path,
        resume=folder / "checkpoint-15",
        save_strategy="no",
        per_device_train_batch_size=8,
    )
    assert column(found.records, "batch_size") == [16, 16, 10, 32, 32, 26, 64, 26]
    assert column(found.records, "examples")[-1] == expected.records[-1].examples


def test_a_checkpoint_inside_of_a_micro_batch_is_refused(whole, tmp_path):
    folder, _ = whole
    with pytest.raises(InputError, match="is no multiple of the 5 of a micro-batch"):
        run(
            tmp_path,
            resume=folder / "checkpoint-15",
            per_device_train_batch_size=5,
        )


def test_a_checkpoint_of_another_policy_is_refused(whole, tmp_path):
    folder, _ = whole
    trainer = trainer_of(tmp_path, Net(dropout=0.3))
    followed(trainer, NoiseFollowing(initial_batch_size=8))
    with pytest.raises(InputError, match="the state is of another policy"):
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-15"))
    modules = list(trainer.model.modules())
    assert not any(one._forward_hooks or one._backward_hooks for one in modules)


def test_a_checkpoint_written_without_the_callback_is_refused(whole, tmp_path):
    folder, _ = whole
    copy = tmp_path / "checkpoint-15"
    shutil.copytree(folder / "checkpoint-15", copy)
    state = json.loads((copy / "trainer_state.json").read_text())
    del state["stateful_callbacks"]["rightbatch"]
    (copy / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="was written without this callback"):
        run(tmp_path, resume=copy)


def test_skipping_no_data_begins_the_epoch_again(whole, tmp_path):
    folder, _ = whole
    _, found = run(
        tmp_path,
        resume=folder / "checkpoint-15",
        save_strategy="no",
        ignore_data_skip=True,
    )
    assert sum(column(found.records, "batch_size")[:5]) == 90
    assert sum(column(found.records, "batch_size")) == 3 * 90
