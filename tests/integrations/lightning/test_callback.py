"""Under the callback, Lightning makes the updates of the plain controller."""

import pickle

import lightning.pytorch as pl
import pytest
import torch
from controller.example_training import (
    controlled,
    data,
    loss_of,
    losses_of,
    net,
    run,
    weights,
)
from integrations.example_lightning import (
    EXAMPLES,
    POLICIES,
    QUIET,
    Net,
    assert_same,
    by_step,
    fitted,
    hooks_of,
    loader_of,
    plain,
    plain_stream,
    trainer_of,
)
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from rightbatch.controller import Acting, MeanLoss, Sensing
from rightbatch.errors import DivergedError
from rightbatch.integrations.lightning import BatchSizeCallback
from rightbatch.policies import (
    AdaDamp,
    Constant,
    Dwell,
    NoiseFollowing,
)

pytestmark = [pytest.mark.filterwarnings(one) for one in QUIET]


OPTIMIZERS = {
    "momentum": (SGD, {"lr": 0.05, "momentum": 0.9}),
    "adamw": (AdamW, {"lr": 0.01}),
}


@pytest.mark.parametrize(
    ("name", "rule", "optimizer", "count"),
    [
        ("listed", "none", "momentum", 94),
        ("listed", "linear", "adamw", 96),
        ("geodamp", "linear", "momentum", 94),
        ("geodamp", "auto", "adamw", 94),
        ("padadamp", "auto", "momentum", 93),
        ("noise", "none", "adamw", 94),
        ("noise", "auto", "momentum", 96),
        ("noise", "auto", "adamw", 94),
    ],
)
def test_the_updates_are_those_of_the_plain_controller(
    tmp_path, name, rule, optimizer, count
):
    policy, dataset = POLICIES[name], data(count)
    kind, settings = OPTIMIZERS[optimizer]
    callback = BatchSizeCallback(policy, lr_rule=rule, sensing=EXAMPLES)
    module = Net(kind, **settings)
    fitted(tmp_path, callback, module=module, loader=loader_of(dataset))
    controller = plain(policy, kind, dataset=dataset, rule=rule, **settings)
    assert_same(callback, module, controller)
    assert len({record.batch_size for record in callback.records}) > 1
    assert callback.batch_size == callback.records[-1].batch_size


@pytest.mark.parametrize("counts", ["steps", "examples", "auto"])
def test_a_schedule_by_step_goes_as_far_as_the_plain_controller_s(tmp_path, counts):
    policy, dataset = POLICIES["geodamp"], data(96)
    acting = Acting(counts=counts)
    callback = BatchSizeCallback(
        policy, lr_rule="linear", acting=acting, sensing=EXAMPLES
    )
    module = Net(schedule=by_step(StepLR, step_size=10, gamma=0.7))
    fitted(tmp_path, callback, module=module, loader=loader_of(dataset))
    controller = plain(
        policy,
        dataset=dataset,
        rule="linear",
        lr=0.1,
        acting=lambda optimizer: Acting(
            counts=counts, scheduler=StepLR(optimizer, 10, gamma=0.7)
        ),
    )
    assert_same(callback, module, controller)


# The last step is the callback's own, then Lightning's.
@pytest.mark.parametrize("total_steps", [10, 9])
def test_a_schedule_is_not_taken_past_its_last_step(tmp_path, total_steps):
    module = Net(schedule=by_step(OneCycleLR, max_lr=0.1, total_steps=total_steps))
    # Twice as fast as it was made for: 12 steps in all.
    acting = Acting(lr_batch_size=4, counts="examples")
    callback = BatchSizeCallback(Constant(batch_size=8), acting=acting)
    fitted(tmp_path, callback, module=module, max_steps=6, max_epochs=-1)
    (config,) = module.trainer.lr_scheduler_configs
    assert config.scheduler.last_epoch == total_steps
    assert config.frequency == 1


class Planned(Net):
    """Its schedule is as long as the Trainer expects to train."""

    def configure_optimizers(self):
        self.planned = self.trainer.estimated_stepping_batches
        made = by_step(OneCycleLR, max_lr=0.1, total_steps=self.planned)
        self.schedule = made
        return super().configure_optimizers()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"max_steps": 30, "max_epochs": -1}, "none"),
        ({"max_steps": 30, "max_epochs": -1}, "adascale"),
        ({"max_steps": 30, "max_epochs": 3}, "none"),
        ({"max_epochs": 3}, "none"),
        ({"max_steps": 1000, "max_epochs": 3}, "none"),
    ],
    ids=["steps", "adascale", "steps first", "epochs", "epochs first"],
)
def test_a_schedule_for_the_estimated_steps_ends_with_the_run(tmp_path, settings, rule):
    module = Planned()
    callback = BatchSizeCallback(POLICIES["geodamp"], lr_rule=rule, sensing=EXAMPLES)
    fitted(tmp_path, callback, module=module, loader=loader_of(data(96)), **settings)
    (config,) = module.trainer.lr_scheduler_configs
    assert config.scheduler.last_epoch == module.planned
    assert module.planned == settings.get("max_epochs", 3) * 24 or (
        module.planned == 30 == len(callback.records)
    )


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: {"scheduler": StepLR(optimizer, 1, 0.5), "interval": "epoch"},
        lambda optimizer: {
            "scheduler": ReduceLROnPlateau(optimizer, factor=0.5, patience=0),
            "interval": "epoch",
            "monitor": "rising",
        },
        lambda optimizer: {
            "scheduler": StepLR(optimizer, 1, 0.5),
            "interval": "step",
            "frequency": 8,
        },
    ],
    ids=["epoch", "plateau", "frequency"],
)
def test_other_schedules_are_left_alone(tmp_path, schedule):
    class Rising(Net):
        def on_train_epoch_start(self):
            rates.append(self.optimizers().param_groups[0]["lr"])

        def on_train_epoch_end(self):
            self.log("rising", float(self.current_epoch))

    found = []
    callback = BatchSizeCallback(
        Constant(batch_size=8), lr_rule="linear", acting=Acting(lr_batch_size=4)
    )
    # Lightning by itself is the other one.
    for settings in (
        {"callback": callback},
        {"callback": pl.Callback(), "accumulate_grad_batches": 2},
    ):
        rates = []
        module = Rising(schedule=schedule)
        fitted(tmp_path, module=module, max_epochs=4, **settings)
        found.append(rates)
    assert found[0] == found[1]
    assert found[0][0] > found[0][-1]


def test_lightning_clips_the_whole_gradient(tmp_path):
    policy, dataset = POLICIES["listed"], data(94)
    callback = BatchSizeCallback(policy, lr_rule="none", sensing=EXAMPLES)
    module = fitted(
        tmp_path, callback, loader=loader_of(dataset), gradient_clip_val=0.05
    )
    controller = plain(
        policy, dataset=dataset, lr=0.1, acting=Acting(max_grad_norm=0.05)
    )
    assert_same(callback, module, controller)
    unclipped = plain(policy, dataset=dataset, lr=0.1)
    assert not torch.allclose(weights(module.net), weights(unclipped.model))


def test_a_policy_may_have_the_loss_evaluated(tmp_path):
    policy, dataset = Dwell(AdaDamp(initial_batch_size=9.5), updates=5), data(96)

    def sensing(model):
        return Sensing(evaluate=MeanLoss(model, losses_of, dataset))

    module = Net(lr=0.3)
    callback = BatchSizeCallback(policy, lr_rule="none", sensing=sensing(module.net))
    fitted(tmp_path, callback, module=module, loader=loader_of(dataset))
    model = net()
    optimizer, stream = SGD(model.parameters(), lr=0.3), plain_stream(dataset)
    controller = controlled(policy, model, optimizer, stream, sensing=sensing(model))
    run(controller, epochs=3)
    assert_same(callback, module, controller)
    evaluated = [record.eval_loss for record in callback.records]
    assert evaluated == pytest.approx([one.eval_loss for one in controller.records])
    assert {8, 12} <= {record.batch_size for record in callback.records}


class Validated(Net):
    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.validations = 0

    def validation_step(self, batch, batch_idx):
        self.validations += 1
        self.log("val_loss", loss_of(self.net, batch))

    def val_dataloader(self):
        return DataLoader(data(8), batch_size=8)


def test_a_validation_in_the_midst_of_updates_changes_nothing(tmp_path):
    policy, dataset = POLICIES["noise"], data(94)
    callback = BatchSizeCallback(policy, sensing=EXAMPLES)
    module = Validated()
    fitted(
        tmp_path,
        callback,
        module=module,
        loader=loader_of(dataset),
        val_check_interval=5,
    )
    assert module.validations > 3 * 4
    controller = plain(policy, dataset=dataset, rule="auto", lr=0.1)
    assert_same(callback, module, controller)


def test_validations_are_no_part_of_the_seconds(tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(
        "rightbatch.integrations.lightning.callback.perf_counter",
        lambda: 1000.0 * next(clock),
    )
    callback = BatchSizeCallback(Constant(batch_size=24))
    fitted(tmp_path, callback, module=Validated(), val_check_interval=5, max_epochs=1)
    # Of the four updates three had a validation in their midst, of "1000 s" each.
    assert callback.records[-1].seconds < -2000


def test_tokens_weigh_where_they_are_counted(tmp_path):
    x, y = data(24).tensors
    dataset = TensorDataset(x, y, torch.arange(24) % 5)

    def mean(model, batch):
        losses = losses_of(model, batch[:2])
        return (losses * batch[2]).sum() / batch[2].sum()

    class Tokens(Net):
        def training_step(self, batch, batch_idx):
            return mean(self.net, batch)

    sensing = Sensing(tokens=lambda batch: batch[2].sum())
    callback = BatchSizeCallback(
        Constant(batch_size=12), lr_rule="none", sensing=sensing
    )
    loader = DataLoader(dataset, batch_size=4)
    module = Tokens()
    fitted(tmp_path, callback, module=module, loader=loader, max_epochs=1)
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    for batch in DataLoader(dataset, batch_size=12):
        optimizer.zero_grad()
        mean(model, batch).backward()
        optimizer.step()
    torch.testing.assert_close(weights(module.net), weights(model))
    assert callback.records[-1].tokens == (torch.arange(24) % 5).sum()


def test_an_optimizer_step_of_the_user_s_is_made_once_an_update(tmp_path):
    calls = []

    class Own(Net):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            optimizer.step(closure=optimizer_closure)
            calls.append(batch_idx)

        def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
            optimizer.zero_grad(set_to_none=False)

    policy, dataset = POLICIES["listed"], data(94)
    callback = BatchSizeCallback(policy, lr_rule="none", sensing=EXAMPLES)
    module = fitted(tmp_path, callback, module=Own(), loader=loader_of(dataset))
    assert len(calls) == len(callback.records)
    controller = plain(policy, dataset=dataset, lr=0.1)
    assert_same(callback, module, controller)


def test_a_second_fit_of_a_trainer_goes_on_and_another_trainer_begins(tmp_path):
    policy, dataset = POLICIES["geodamp"], data(96)
    callback = BatchSizeCallback(policy, lr_rule="none", sensing=EXAMPLES)
    trainer, module = trainer_of(tmp_path, callback, max_epochs=1), Net()
    trainer.fit(module, loader_of(dataset))
    assert trainer.accumulate_grad_batches == 1
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, loader_of(dataset))
    controller = plain(policy, dataset=dataset, lr=0.1)
    assert_same(callback, module, controller)
    fitted(tmp_path, callback, loader=loader_of(dataset), max_epochs=1)
    assert [record.step for record in callback.records] == [*range(1, 25)]
    assert callback.batch_size == 4


def test_a_run_that_is_lost_ends_with_the_reason_and_leaves_nothing_behind(tmp_path):
    class Nowhere(Net):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * torch.nan

    callback = BatchSizeCallback(Constant(batch_size=8), lr_rule="none")
    trainer, module = trainer_of(tmp_path, callback, max_epochs=3), Nowhere()
    with pytest.raises(DivergedError, match="lost at update"):
        trainer.fit(module, loader_of(data()))
    assert trainer.accumulate_grad_batches == 1
    assert hooks_of(trainer, module) == 0


@pytest.mark.parametrize("noise", ["examples", "units"])
def test_no_hook_is_left_after_a_run(tmp_path, noise):
    class Counting(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            within.append(hooks_of(self.trainer, self))

    within = []
    sensing = Sensing(noise=noise, every=1)
    callback = BatchSizeCallback(POLICIES["noise"], sensing=sensing)
    module = fitted(tmp_path, callback, module=Counting(), max_epochs=1)
    assert min(within) > 2
    assert hooks_of(module.trainer, module) == 0


def test_a_policy_may_be_named_and_begins_at_a_micro_batch(tmp_path):
    callback = BatchSizeCallback("geodamp:delay=1,factor=3", lr_rule="none")
    fitted(tmp_path, callback, max_epochs=2)
    assert {record.batch_size for record in callback.records} == {4, 12}


def test_a_name_means_the_same_for_as_long_as_its_run_lasts(tmp_path):
    # Its rate is that of the run's length, which changes here.
    callback = BatchSizeCallback("padadamp", lr_rule="none")
    trainer, module = trainer_of(tmp_path, callback, max_epochs=1), Net()
    trainer.fit(module, loader_of(data()))
    number, first = len(callback.records), callback.batch_size
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader_of(data()))
    assert [record.step for record in callback.records][number] == number + 1
    assert callback.batch_size > first


@pytest.mark.slow
def test_a_compiled_module_s_noise_is_read_in_units(tmp_path):
    found = []
    for settings in ({}, {"sensing": Sensing(noise="units")}):
        module = Net()
        if not settings:
            module = torch.compile(module, backend="eager")
        policy = NoiseFollowing(initial_batch_size=16)
        callback = BatchSizeCallback(policy, lr_rule="none", **settings)
        fitted(tmp_path, callback, module=module, max_epochs=5)
        assert callback.noise_scale.source == "units"
        found.append([(one.batch_size, one.loss) for one in callback.records])
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(found[1]))


def test_a_callback_can_be_sent_to_the_processes_that_a_trainer_spawns(tmp_path):
    callback = pickle.loads(pickle.dumps(BatchSizeCallback(POLICIES["geodamp"])))
    fitted(tmp_path, callback, max_epochs=2)
    assert callback.batch_size == 8


def test_the_log_and_the_trainer_s_loggers_are_told(tmp_path):
    class Kept(pl.loggers.logger.DummyLogger):
        rows = []

        def log_metrics(self, metrics, step):
            self.rows.append((step, metrics))

    class Logging(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("own", loss)
            return loss

    told, logger = [], Kept()
    callback = BatchSizeCallback(
        POLICIES["listed"],
        sensing=EXAMPLES,
        log=lambda numbers, step: told.append((step, numbers)),
    )
    given = {"logger": logger, "log_every_n_steps": 7, "max_epochs": 2}
    fitted(tmp_path, callback, module=Logging(), **given)
    assert [step for step, _ in told] == [record.step for record in callback.records]
    rows, last = dict(told), callback.records[-1]
    assert rows[last.step]["batch/size"] == last.batch_size
    assert rows[last.step]["optim/lr"] == last.lr
    assert {"noise/scale", "cost/examples_per_second"} <= rows[last.step].keys()
    kept = {step: row for step, row in logger.rows if "batch/size" in row}
    assert [*kept] == [step for step, row in logger.rows if "own" in row]
    # Lightning's steps count from 0.
    assert [step + 1 for step in kept] == [*range(7, last.step + 1, 7)]
    assert all(kept[step] == rows[step + 1] for step in kept)
