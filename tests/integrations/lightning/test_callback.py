"""Under the callback, Lightning makes the updates of the plain controller."""

import pickle

import lightning.pytorch as pl
import pytest
import torch
from controller.example_training import (
    Listed,
    controlled,
    data,
    loss_of,
    losses_of,
    net,
    run,
    weights,
)
from integrations.example_lightning import (
    QUIET,
    Net,
    fitted,
    loader_of,
    plain_stream,
    trainer_of,
)
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from rightbatch.controller import Acting, MeanLoss, Sensing
from rightbatch.errors import DivergedError
from rightbatch.integrations.lightning import BatchSizeCallback
from rightbatch.policies import (
    AdaDamp,
    Constant,
    Dwell,
    GeoDamp,
    NoiseFollowing,
    PadaDamp,
)

pytestmark = [pytest.mark.filterwarnings(one) for one in QUIET]

EXAMPLES = Sensing(noise="examples", every=3)
POLICIES = {
    "listed": Listed((4, 12, 20, 8)),
    "geodamp": GeoDamp(initial_batch_size=4, delay=1, factor=2),
    "padadamp": PadaDamp(initial_batch_size=4, rate=0.5),
    "noise": NoiseFollowing(initial_batch_size=8),
}
OPTIMIZERS = {
    "momentum": (SGD, {"lr": 0.05, "momentum": 0.9}),
    "adamw": (AdamW, {"lr": 0.01}),
}


def plain(policy, kind=SGD, *, dataset, acting=None, epochs=3, rule="none", **settings):
    """Return the plain controller after the same run, with its records."""
    model = net()
    optimizer = kind(model.parameters(), **settings)
    if callable(acting):
        acting = acting(optimizer)
    stream = plain_stream(dataset)
    named = {"lr_rule": rule, "sensing": EXAMPLES, "acting": acting or Acting()}
    return run(controlled(policy, model, optimizer, stream, **named), epochs=epochs)


def assert_same(callback, module, controller):
    torch.testing.assert_close(weights(module.net), weights(controller.model))
    for own, one in zip(callback.records, controller.records, strict=True):
        assert own.batch_size == one.batch_size
        assert own.examples == one.examples
        assert own.accumulation_steps == one.accumulation_steps
        assert own.lr == pytest.approx(one.lr, rel=1e-9)
        assert own.loss == pytest.approx(one.loss, rel=1e-9)
        assert own.epoch == pytest.approx(one.epoch)
        measured = one.noise_scale
        assert own.noise_scale == (measured and pytest.approx(measured, rel=1e-6))


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


def by_step(kind, **settings):
    def made(optimizer):
        return {"scheduler": kind(optimizer, **settings), "interval": "step"}

    return made


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


def test_a_schedule_is_not_taken_past_its_last_step(tmp_path):
    module = Net(schedule=by_step(OneCycleLR, max_lr=0.1, total_steps=11))
    # Twice as fast as it was made for: 12 steps in all.
    callback = BatchSizeCallback(Constant(batch_size=8), acting=Acting(lr_batch_size=4))
    fitted(tmp_path, callback, module=module, max_steps=6, max_epochs=-1)
    (config,) = module.trainer.lr_scheduler_configs
    assert config.scheduler.last_epoch == 11


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


def test_the_last_update_of_an_epoch_is_what_is_left_of_it(tmp_path):
    callback = BatchSizeCallback(Constant(batch_size=20), lr_rule="none")
    fitted(tmp_path, callback, max_epochs=2, limit_train_batches=12)
    sizes = [record.batch_size for record in callback.records]
    assert sizes == [20, 20, 8] * 2
    assert [record.epoch for record in callback.records][2::3] == [1.0, 2.0]


def test_max_steps_counts_updates(tmp_path):
    callback = BatchSizeCallback(Constant(batch_size=12))
    module = fitted(tmp_path, callback, max_epochs=-1, max_steps=11)
    assert module.trainer.global_step == len(callback.records) == 11
    fitted(tmp_path, callback, max_epochs=None, fast_dev_run=2)
    assert [record.batch_size for record in callback.records] == [8]


class Stream(IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return iter(self.dataset)


def test_a_loader_without_length_ends_where_it_ends(tmp_path):
    dataset = data(46)
    callback = BatchSizeCallback(Constant(batch_size=20), lr_rule="none")
    loader = DataLoader(Stream(dataset), batch_size=4)
    module = fitted(tmp_path, callback, loader=loader, max_epochs=2)
    sizes = [record.batch_size for record in callback.records]
    assert sizes == [20, 20, 6] * 2
    assert callback.records[0].epoch is None
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for batch in DataLoader(dataset, batch_size=20):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
    torch.testing.assert_close(weights(module.net), weights(model))


NONE = pytest.mark.filterwarnings("ignore:`training_step` returned `None`")


@NONE
@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_a_micro_batch_without_a_loss_is_left_out_of_its_update(tmp_path, left_out):
    class Choosy(Net):
        def training_step(self, batch, batch_idx):
            if batch_idx % 3 == left_out:
                return None
            return super().training_step(batch, batch_idx)

    dataset = data(24)
    callback = BatchSizeCallback(Constant(batch_size=12), lr_rule="none")
    module = fitted(
        tmp_path, callback, module=Choosy(), loader=loader_of(dataset), max_epochs=1
    )
    assert [record.batch_size for record in callback.records] == [8, 8]
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    batches = [*loader_of(dataset)]
    for start in (0, 3):
        kept = [batches[start + place] for place in range(3) if place != left_out]
        optimizer.zero_grad()
        loss_of(model, [torch.cat(part) for part in zip(*kept, strict=True)]).backward()
        optimizer.step()
    torch.testing.assert_close(weights(module.net), weights(model))


@NONE
def test_an_update_without_any_loss_is_none(tmp_path):
    class Empty(Net):
        def training_step(self, batch, batch_idx):
            return None if batch_idx < 3 else super().training_step(batch, batch_idx)

    callback = BatchSizeCallback(Constant(batch_size=12))
    module = Empty(schedule=by_step(StepLR, step_size=1, gamma=0.5))
    fitted(tmp_path, callback, module=module, loader=loader_of(data(36)), max_epochs=1)
    assert [record.examples for record in callback.records] == [12, 24]


def test_an_epoch_that_is_broken_off_takes_its_update_along(tmp_path):
    class Short(Net):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 4 else None

    callback = BatchSizeCallback(Constant(batch_size=12), sensing=EXAMPLES)
    module = Short()
    fitted(tmp_path, callback, module=module, max_epochs=2)
    assert [record.examples for record in callback.records] == [12, 24]


class Gaps(DataLoader):
    """There is nothing in one place."""

    gap = 0

    def __iter__(self):
        for place, batch in enumerate(super().__iter__()):
            yield None if place == self.gap else batch


@pytest.mark.filterwarnings("ignore:train_dataloader yielded None")
@pytest.mark.parametrize(
    ("gap", "sizes"), [(3, [12, 12, 8]), (4, [12, 8, 12]), (5, [12, 12])]
)
def test_a_gap_makes_an_update_smaller_or_where_it_would_step_ends_it(
    tmp_path, gap, sizes
):
    callback = BatchSizeCallback(Constant(batch_size=12), sensing=EXAMPLES)
    loader = Gaps(data(36), batch_size=4)
    loader.gap = gap
    fitted(tmp_path, callback, loader=loader, max_epochs=1)
    assert [record.batch_size for record in callback.records] == sizes


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


class Scaled(Net):
    """In single precision, as half needs it; the gradient of a batch may be lost."""

    def __init__(self, lost=-1, **settings):
        super().__init__(**settings)
        self.net.float()
        self.lost = lost

    def training_step(self, batch, batch_idx):
        return loss_of(self.net, (batch[0].float(), batch[1]))

    def on_after_backward(self):
        if self.trainer.fit_loop.batch_idx == self.lost:
            next(self.parameters()).grad[0] = torch.inf


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(SGD, {}), (SGD, {"fused": True}), (AdamW, {"fused": True})],
    ids=["sgd", "fused sgd", "fused adamw"],
)
def test_a_step_that_the_scaler_leaves_out_is_said_and_counts_for_no_schedule(
    tmp_path, kind, settings
):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    rates = []

    class Watched(Scaled):
        def lr_scheduler_step(self, scheduler, metric):
            rates.append(scheduler.optimizer.param_groups[0]["lr"])
            super().lr_scheduler_step(scheduler, metric)

    callback = BatchSizeCallback(
        Constant(batch_size=12),
        lr_rule="linear",
        acting=Acting(lr_batch_size=4, counts="steps"),
        sensing=Sensing(noise="off"),
    )
    halving = by_step(StepLR, step_size=1, gamma=0.5)
    module = Watched(lost=4, optimizer=kind, schedule=halving, **settings)
    fitted(
        tmp_path,
        callback,
        module=module,
        loader=loader_of(data(48)),
        max_epochs=1,
        plugins=plugin,
    )
    reasons = [record.reason for record in callback.records]
    assert "no step" in reasons[1]
    assert sum("no step" in reason for reason in reasons) == 1
    # The schedule never sees the rate of the batch.
    assert rates == [0.1, 0.05, 0.025, 0.0125]
    lrs = [record.lr for record in callback.records]
    assert [lrs[0], *lrs[2:]] == pytest.approx([0.3, 0.075, 0.0375])
    assert callback.records[-1].loss > 0


@pytest.mark.parametrize("fused", [False, True])
def test_losses_and_noise_are_those_without_a_scaler(tmp_path, fused):
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        settings = {}
        if scaler is not None:
            plugin = MixedPrecision("16-mixed", "cpu", scaler)
            # Half precision itself is not what is looked at.
            plugin.autocast_context_manager = torch.enable_grad
            settings = {"plugins": plugin}
        callback = BatchSizeCallback(POLICIES["listed"], sensing=EXAMPLES)
        module = Scaled(optimizer=AdamW, fused=fused, lr=0.01)
        fitted(tmp_path, callback, module=module, max_epochs=2, **settings)
        found.append(
            [(one.loss, one.noise_scale or 0.0, one.lr) for one in callback.records]
        )
    torch.testing.assert_close(
        torch.tensor(found[0]), torch.tensor(found[1]), rtol=1e-4, atol=1e-6
    )


def test_bfloat16_is_lightning_s(tmp_path):
    callback = BatchSizeCallback(POLICIES["geodamp"], sensing=EXAMPLES)
    fitted(tmp_path, callback, module=Scaled(), precision="bf16-mixed")
    exact = BatchSizeCallback(POLICIES["geodamp"], sensing=EXAMPLES)
    fitted(tmp_path, exact, module=Scaled())
    for own, one in zip(callback.records, exact.records, strict=True):
        assert own.batch_size == one.batch_size
        assert own.loss == pytest.approx(one.loss, rel=0.05)


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
    assert not module.net[0]._forward_hooks
    assert not trainer.optimizers[0]._optimizer_step_post_hooks


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

    told, logger = [], Kept()
    callback = BatchSizeCallback(
        POLICIES["listed"],
        sensing=EXAMPLES,
        log=lambda numbers, step: told.append((step, numbers)),
    )
    fitted(tmp_path, callback, logger=logger, log_every_n_steps=7, max_epochs=2)
    assert [step for step, _ in told] == [record.step for record in callback.records]
    rows, last = dict(told), callback.records[-1]
    assert rows[last.step]["batch/size"] == last.batch_size
    assert rows[last.step]["optim/lr"] == last.lr
    assert {"noise/scale", "cost/examples_per_second"} <= rows[last.step].keys()
    kept = {step: row for step, row in logger.rows if "batch/size" in row}
    assert [*kept] == [*range(7, last.step + 1, 7)]
    assert all(kept[step] == rows[step] for step in kept)
