"""The learning-rate schedule goes by examples, or by updates where they are counted."""

import pytest
import torch
from example_policies import Listed
from integrations.example_trainers import (
    MICRO,
    Net,
    Rows,
    column,
    followed,
    trainer_of,
    weights,
)
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback

from rightbatch.controller import Acting
from rightbatch.errors import InputError
from rightbatch.policies import Constant, GeoDamp

LINEAR = {"lr_scheduler_type": "linear", "warmup_steps": 3}


class Rates(TrainerCallback):
    """Keeps the schedule's rate of each step."""

    def __init__(self):
        self.rates = []

    def on_step_begin(self, args, state, control, lr_scheduler, **rest):
        self.rates.append(lr_scheduler.get_last_lr()[0])


def train(folder, policy=None, dataset=None, *, callback=None, **settings):
    model = Net()
    trainer = trainer_of(folder, model, dataset, **settings)
    follower = policy and followed(trainer, policy, **(callback or {}))
    kept = Rates()
    trainer.add_callback(kept)
    trainer.train()
    return trainer, follower, kept.rates


@pytest.mark.parametrize("limits", [{"num_train_epochs": 3}, {"max_steps": 17}])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_constant_batch_is_what_the_trainer_alone_does(
    tmp_path, accumulation, limits
):
    # 24 rows more than a multiple: no micro-batch is short, but an epoch's last update.
    dataset = Rows(88)
    settings = LINEAR | limits | {"max_grad_norm": 0.5}
    alone, _, expected = train(
        tmp_path, None, dataset, gradient_accumulation_steps=accumulation, **settings
    )
    policy = Constant(batch_size=MICRO * accumulation)
    ours, _, rates = train(tmp_path, policy, dataset, **settings)
    assert rates == pytest.approx(expected)
    assert ours.state.global_step == alone.state.global_step == ours.state.max_steps
    assert ours.state.epoch == pytest.approx(alone.state.epoch)
    torch.testing.assert_close(weights(ours.model), weights(alone.model))


def test_a_growing_batch_is_at_the_same_rate_at_the_same_example(tmp_path):
    policy = GeoDamp(initial_batch_size=8, delay=1, factor=2)
    _, follower, rates = train(tmp_path, policy, Rows(96), **LINEAR)
    total, warm = 4 * 12, 3
    before = [0, *column(follower.records, "examples")][:-1]
    steps = [examples // 8 for examples in before]
    expected = [
        0.05 * min(step / warm, max(0, total - step) / (total - warm)) for step in steps
    ]
    assert rates == pytest.approx(expected)


def test_at_the_end_the_schedule_is_at_its_end(tmp_path):
    policy = Listed((8, 8, 16, 24, 400))
    trainer, _, _ = train(tmp_path, policy, lr_scheduler_type="linear")
    assert set(trainer.lr_scheduler.get_last_lr()) == {0.0}


def test_the_base_may_be_told(tmp_path):
    acting = Acting(lr_batch_size=4)
    trainer, follower, rates = train(
        tmp_path,
        Constant(batch_size=16),
        Rows(96),
        callback={"acting": acting, "lr_rule": "linear"},
        num_train_epochs=1,
        **LINEAR,
    )
    assert rates == pytest.approx(
        [0.05 * one for one in (0, 20 / 21, 16 / 21, 12 / 21, 8 / 21, 4 / 21)]
    )
    assert column(follower.records, "lr") == pytest.approx([4 * one for one in rates])


def test_updates_move_the_schedule_where_they_are_asked_for(tmp_path):
    policy = Listed((4, 8, 16))
    trainer, follower, rates = train(tmp_path, policy, max_steps=30, **LINEAR)
    assert column(follower.records, "batch_size")[-1] == 16
    expected = [0.05 * min(step / 3, (30 - step) / 27) for step in range(30)]
    assert rates == pytest.approx(expected)
    assert trainer.state.global_step == 30


def test_epochs_may_count_updates_too(tmp_path):
    policy = Listed((4, 8, 16))
    _, follower, rates = train(
        tmp_path, policy, callback={"acting": Acting(counts="steps")}, **LINEAR
    )
    total = 4 * 23
    expected = [0.05 * min(k / 3, (total - k) / (total - 3)) for k in range(len(rates))]
    assert rates == pytest.approx(expected)


def test_a_schedule_that_waits_for_a_measurement_is_left_to_it(tmp_path):
    trainer, follower, rates = train(
        tmp_path,
        GeoDamp(initial_batch_size=4, delay=1, factor=4),
        lr_scheduler_type="reduce_lr_on_plateau",
        eval_strategy="epoch",
        lr_scheduler_kwargs={"mode": "min"},
        metric_for_best_model="eval_loss",
        parts={"eval_dataset": Rows(20)},
    )
    assert trainer.lr_scheduler.last_epoch == 4


def test_part_of_an_epoch_ends_where_it_should(tmp_path):
    trainer, follower, _ = train(
        tmp_path, Listed((8, 20)), Rows(96), num_train_epochs=1.5, save_strategy="steps"
    )
    assert column(follower.records, "examples")[-1] == 144
    assert trainer.state.epoch == pytest.approx(1.5)
    # Whatever happens at the last update happens at the last one of these.
    assert (tmp_path / f"checkpoint-{trainer.state.global_step}").is_dir()
    assert trainer.state.max_steps == trainer.state.global_step


class Stream(IterableDataset):
    """Rows of unknown number."""

    def __iter__(self):
        return iter(Rows(50))


def test_a_stream_of_unknown_length_begins_anew_as_often_as_it_takes(tmp_path):
    trainer, follower, _ = train(tmp_path, Listed((4, 16, 40)), Stream(), max_steps=8)
    sizes = column(follower.records, "batch_size")
    # Ends of 50 cut an update short, and all of it is trained on all the same.
    assert sizes == [4, 16, 30, 4, 16, 30, 4, 16]
    assert trainer.state.global_step == 8


class Earlier(Trainer):
    """Plans as earlier versions do, which do not say how long an epoch is."""

    def set_initial_training_values(self, args, dataloader):
        values = list(super().set_initial_training_values(args, dataloader))
        values[4], values[5] = False, None
        return tuple(values)


def test_a_stream_of_unknown_length_is_refused_of_earlier_versions(tmp_path):
    with pytest.raises(InputError, match="data of unknown length needs transformers 5"):
        train(tmp_path, Listed((8,)), Stream(), kind=Earlier, max_steps=8)
