"""What the callback cannot follow is refused before training, with the reason."""

import sys
from importlib import import_module

import lightning.pytorch as pl
import pytest
import torch
from controller.example_training import data
from integrations.example_lightning import QUIET, Net, fitted, trainer_of
from lightning.pytorch.callbacks import (
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
)
from lightning.pytorch.strategies import FSDPStrategy, SingleDeviceStrategy
from torch.optim import LBFGS
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from rightbatch.controller import Acting, Sensing
from rightbatch.errors import InputError
from rightbatch.integrations.lightning import BatchSizeCallback
from rightbatch.integrations.lightning.loading import first_length
from rightbatch.integrations.lightning.refusals import refuse_trainer
from rightbatch.policies import AdaDamp, Constant, GeoDamp

pytestmark = [pytest.mark.filterwarnings(one) for one in QUIET]


def callback_of(**settings):
    return BatchSizeCallback(Constant(batch_size=8), **settings)


class Manual(Net):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Taking(Net):
    def training_step(self, dataloader_iter):
        return super().training_step(next(dataloader_iter)[0], 0)


@pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor")
@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Manual, "Manual has manual optimization: it steps by itself"),
        (Taking, r"training_step\(dataloader_iter\) takes its batches itself"),
        (lambda: Net(LBFGS), "LBFGS asks for the loss several times"),
    ],
)
def test_modules_whose_updates_cannot_be_followed(tmp_path, module, reason):
    with pytest.raises(InputError, match=reason):
        fitted(tmp_path, callback_of(), module=module())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"accumulate_grad_batches": 2}, r"Trainer\(accumulate_grad_batches=2\) and"),
        (
            {"callbacks": [GradientAccumulationScheduler({0: 2})]},
            "GradientAccumulationScheduler and the callback would both say",
        ),
        (
            {"callbacks": [StochasticWeightAveraging(0.1)]},
            "StochasticWeightAveraging sets the accumulation itself",
        ),
    ],
)
def test_trainers_that_accumulate_by_themselves(tmp_path, settings, reason):
    with pytest.raises(InputError, match=reason):
        fitted(tmp_path, callback_of(), **settings)


class Engine(SingleDeviceStrategy):
    """What DeepSpeedStrategy says of itself; deepspeed itself is not needed."""

    @property
    def handles_gradient_accumulation(self):
        return True


def test_a_strategy_that_accumulates_itself(tmp_path):
    strategy = Engine(torch.device("cpu"))
    with pytest.raises(InputError, match="Engine accumulates gradients itself, over"):
        fitted(tmp_path, callback_of(), strategy=strategy)


def test_a_strategy_that_shards_the_model(tmp_path):
    trainer = trainer_of(tmp_path, pl.Callback())
    # Lightning makes it where there is an accelerator only.
    trainer.strategy.__class__ = type("Own", (SingleDeviceStrategy,), {})
    refuse_trainer(trainer, Net())
    trainer.strategy.__class__ = type("Own", (FSDPStrategy,), {})
    with pytest.raises(InputError, match="Own shards the model, which is not tested"):
        refuse_trainer(trainer, Net())


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned")
def test_a_module_without_an_optimizer(tmp_path):
    class Without(Net):
        def configure_optimizers(self):
            return None

    with pytest.raises(InputError, match="must return one optimizer, got 0"):
        fitted(tmp_path, callback_of(), module=Without())


class Varying(BatchSampler):
    def __init__(self, sampler):
        super().__init__(sampler, 4, drop_last=False)
        del self.batch_size

    def __iter__(self):
        yield from ([0, 1, 2, 3, 4], [5], [6, 7, 8, 9, 10, 11])

    def __len__(self):
        return 3


def varying():
    dataset = data(12)
    return DataLoader(dataset, batch_sampler=Varying(SequentialSampler(dataset)))


@pytest.mark.parametrize(
    ("loader", "kind"),
    [
        (varying, "a DataLoader"),
        (lambda: [torch.ones(2)] * 3, "3 loaders in a list"),
    ],
)
def test_a_loader_that_does_not_say_its_batch_size(tmp_path, loader, kind):
    reason = f"`micro_batch_size` must be given: the loader, {kind}, does not say"
    with pytest.raises(InputError, match=reason):
        fitted(tmp_path, callback_of(), loader=loader())


def test_batches_of_varying_size_are_followed_once_their_usual_size_is_said(tmp_path):
    callback = callback_of(micro_batch_size=4)
    fitted(tmp_path, callback, loader=varying(), max_epochs=2)
    assert [record.batch_size for record in callback.records] == [6, 6, 6, 6]


def test_the_batch_size_of_a_batch_sampler_is_known(tmp_path):
    sampler = BatchSampler(SequentialSampler(data(12)), 4, drop_last=False)
    callback = callback_of()
    loader = DataLoader(data(12), batch_sampler=sampler)
    fitted(tmp_path, callback, loader=loader, max_epochs=1)
    assert [record.batch_size for record in callback.records] == [8, 4]
    assert callback.records[-1].epoch == 1.0


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_a_micro_batch_has_examples(size):
    with pytest.raises(InputError, match="`micro_batch_size` must be"):
        callback_of(micro_batch_size=size)


@pytest.mark.parametrize(
    ("policy", "settings", "reason"),
    [
        ("noise-folowing", {}, "did you mean noise-following"),
        ("geodamp:dealy=2", {}, "did you mean delay"),
        ("geometric", {}, "geometric needs `factor`"),
        (3, {}, "`policy` must have needs, init and update, got 3"),
        (GeoDamp, {}, "`policy` must be a policy, got the class GeoDamp"),
        ("geodamp", {"lr_rule": None}, "`lr_rule` must be the name of a rule, got N"),
        ("geodamp", {"lr_rule": "lienar"}, "did you mean linear"),
        ("geodamp", {"lr_rule": "power"}, "`rule` power needs its exponent"),
        ("geodamp", {"sensing": "examples"}, r"`sensing` must be Sensing\(...\), got"),
        ("geodamp", {"acting": Sensing()}, r"`acting` must be Acting\(...\), got Sens"),
        ("geodamp", {"count": 4}, "`count` must be a function, got 4"),
        ("geodamp", {"log": "a.csv"}, "`log` must be a function, got 'a.csv'"),
    ],
)
def test_wrong_settings_are_refused_where_they_are_written(policy, settings, reason):
    with pytest.raises(InputError, match=reason):
        BatchSizeCallback(policy, **settings)


NAMES = ["padadamp", "schedule:points=0:768 250B:1536", "seesaw:schedule=cosine"]


@pytest.mark.parametrize("name", [*NAMES, "geodamp:delay=1,wait=3,dwell=2,spill=yes"])
def test_names_that_need_to_know_the_run_wait_for_it(name):
    assert BatchSizeCallback(name, lr_rule="power:0.4").records == []


def test_two_of_them_in_a_trainer_are_refused_by_lightning(tmp_path):
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        trainer_of(tmp_path, callback_of(), callbacks=[callback_of()])


def test_examples_are_counted_by_the_first_tensor_or_as_the_user_says(tmp_path):
    assert first_length([{"name": "x"}, (torch.ones(3, 2), torch.ones(5))]) == 3
    for batch in ({"name": "x"}, "text", torch.ones(())):
        with pytest.raises(InputError, match="`count` must be given: no tensor in a"):
            first_length(batch)
    callback = callback_of(
        count=lambda batch: 2 * len(batch[0]),
        micro_batch_size=8,
        sensing=Sensing(noise="off"),
    )
    fitted(tmp_path, callback, max_epochs=1)
    assert callback.records[-1].examples == 2 * 96
    with pytest.raises(InputError, match="`count` must be a whole number >= 1"):
        fitted(tmp_path, callback_of(count=lambda batch: 0), max_epochs=1)


def time_first(parts):
    x, y = (torch.stack(part) for part in zip(*parts, strict=True))
    return {"steps": torch.zeros(9, len(x)), "x": x, "y": y}


class Sequences(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step((batch["x"], batch["y"]), batch_idx)


def test_a_first_tensor_longer_than_the_loader_s_batch_does_not_count(tmp_path):
    given = {
        "module": Sequences(),
        "loader": DataLoader(data(), batch_size=4, collate_fn=time_first),
        "max_epochs": 1,
    }
    reason = r"`count` must be given: .* of 4 examples has shape \(9, 4\)"
    for settings in ({}, {"micro_batch_size": 4}):
        with pytest.raises(InputError, match=reason):
            fitted(tmp_path, callback_of(**settings), **given)
    callback = callback_of(count=lambda batch: len(batch["x"]))
    fitted(tmp_path, callback, **given)
    assert callback.records[-1].examples == 96


def twice(parts):
    x, y = (torch.stack(part) for part in zip(*parts, strict=True))
    return torch.cat([x, -x]), torch.cat([y, y])


def test_batches_larger_than_the_loader_says_are_followed_once_it_is_said(tmp_path):
    loader = DataLoader(data(), batch_size=4, collate_fn=twice)
    callback = callback_of(micro_batch_size=8)
    fitted(tmp_path, callback, loader=loader, max_epochs=1)
    assert [record.batch_size for record in callback.records] == [8] * 24


def test_epochs_of_other_lengths(tmp_path):
    class Anew(Net):
        def train_dataloader(self):
            return DataLoader(data(48 - 16 * self.current_epoch), batch_size=4)

    settings = {"reload_dataloaders_every_n_epochs": 1, "max_epochs": 2}
    trainer = trainer_of(tmp_path, callback_of(), **settings)
    with pytest.raises(InputError, match="as the first, 12, got 8 from the loader"):
        trainer.fit(Anew())
    callback = callback_of()
    trainer_of(tmp_path, callback, limit_train_batches=8, **settings).fit(Anew())
    assert [record.epoch for record in callback.records] == [
        number / 4 for number in range(1, 9)
    ]


class Endless:
    """A loader that nothing is known of."""

    def __iter__(self):
        return iter(DataLoader(data(), batch_size=4))


def test_a_policy_that_cannot_be_served_is_refused_when_training_begins(tmp_path):
    with pytest.raises(InputError, match="AdaDamp needs `eval_loss`"):
        fitted(tmp_path, BatchSizeCallback(AdaDamp(initial_batch_size=8)))
    callback = BatchSizeCallback(
        GeoDamp(initial_batch_size=4, delay=1, factor=2), micro_batch_size=4
    )
    with pytest.raises(InputError, match="GeoDamp needs `epoch`"):
        fitted(tmp_path, callback, loader=Endless())
    with pytest.raises(InputError, match=r"Acting\(max_grad_norm=...\) is the frame"):
        fitted(tmp_path, callback_of(acting=Acting(max_grad_norm=1.0)))


def test_a_callback_that_no_trainer_calls_says_so():
    with pytest.raises(InputError, match="training has not begun"):
        callback_of().on_after_backward(None, None)


class Blocking:
    """Lets some packages not be found."""

    def __init__(self, *names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def blocked(monkeypatch):
    def block(*names):
        own = "rightbatch.integrations.lightning"
        for name in (own, f"{own}.callback", "lightning", "lightning.pytorch"):
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Blocking(*names), *sys.meta_path])
        return own

    return block


def test_without_lightning_the_import_says_what_to_install(blocked):
    name = blocked("lightning", "pytorch_lightning")
    cure = r"lightning is not installed. \(pip install 'rightbatch\[lightning\]'\)"
    with pytest.raises(InputError, match=cure):
        import_module(name)


def test_a_lightning_that_lacks_something_says_what_it_lacks(blocked):
    name = blocked("lightning.pytorch")
    with pytest.raises(ModuleNotFoundError, match=r"lightning\.pytorch"):
        import_module(name)
