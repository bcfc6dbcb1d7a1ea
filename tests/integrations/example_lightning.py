"""Small Lightning runs, and the same examples in the same order for other loops."""

import lightning.pytorch as pl
import pytest
import torch
from controller.example_training import (
    Listed,
    controlled,
    data,
    loss_of,
    net,
    run,
    weights,
)
from torch.optim import SGD
from torch.utils.data import DataLoader, Sampler

from rightbatch.controller import Acting, Sensing
from rightbatch.policies import GeoDamp, NoiseFollowing, PadaDamp
from rightbatch.sampler import ExampleStream, Loading, MicroBatchStream

MICRO = 4
# What Lightning says of loaders and machines as small as those of tests, and what torch
# says of how Lightning looks at loaders.
QUIET = (
    "ignore:.*LeafSpec.* is deprecated:FutureWarning",
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:The 'val_dataloader' does not have many workers",
    "ignore:GPU available but not used",
)

EXAMPLES = Sensing(noise="examples", every=3)
POLICIES = {
    "listed": Listed((4, 12, 20, 8)),
    "geodamp": GeoDamp(initial_batch_size=4, delay=1, factor=2),
    "padadamp": PadaDamp(initial_batch_size=4, rate=0.5),
    "noise": NoiseFollowing(initial_batch_size=8),
}


class Epochs(Sampler):
    """The order that an `ExampleStream` of the same seed has, epoch by epoch."""

    def __init__(self, dataset, seed=0):
        self.count, self.seed, self.epoch = len(dataset), seed, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        places = torch.arange(self.count)
        stream = ExampleStream(torch.utils.data.TensorDataset(places), self.seed)
        for _ in range(self.epoch + 1):
            (order,) = stream.next(self.count)
        return iter(order.tolist())

    def __len__(self):
        return self.count


class Resumable(DataLoader):
    """A loader that goes on in the middle of an epoch: what a user has to write."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.served = self.skipped = 0

    def __iter__(self):
        self.served, skipped = self.skipped, self.skipped
        self.skipped = 0
        for place, batch in enumerate(super().__iter__()):
            if place >= skipped:
                self.served += 1
                yield batch

    def state_dict(self):
        return {"served": self.served % len(self)}

    def load_state_dict(self, state):
        self.skipped = state["served"]


class Net(pl.LightningModule):
    """The network of the controller's tests, trained by Lightning."""

    def __init__(self, optimizer=SGD, schedule=None, **settings):
        super().__init__()
        self.net = net()
        self.optimizer, self.schedule = optimizer, schedule
        self.settings = {"lr": 0.1} | settings

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch)

    def configure_optimizers(self):
        optimizer = self.optimizer(self.net.parameters(), **self.settings)
        if self.schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.schedule(optimizer)}


def loader_of(dataset, *, kind=DataLoader, micro=MICRO, **settings):
    return kind(dataset, batch_size=micro, sampler=Epochs(dataset), **settings)


def trainer_of(folder, callback, **settings):
    plain = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    callbacks = [callback, *settings.pop("callbacks", ())]
    return pl.Trainer(
        default_root_dir=folder, callbacks=callbacks, **(plain | settings)
    )


def fitted(folder, callback, *, module=None, loader=None, path=None, **settings):
    module = Net() if module is None else module
    settings.setdefault("max_epochs", 3)
    trainer = trainer_of(folder, callback, **settings)
    loader = loader_of(data()) if loader is None else loader
    trainer.fit(module, loader, ckpt_path=path)
    return module


def hooks_of(trainer, module):
    """Return how many hooks there are on a module, its weights and its optimizers."""
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    kinds += ("_backward_hooks", "_backward_pre_hooks")
    found = [getattr(part, kind) for part in module.modules() for kind in kinds]
    for weight in module.parameters():
        found += [weight._backward_hooks, weight._post_accumulate_grad_hooks]
    for optimizer in trainer.optimizers:
        found.append(optimizer._optimizer_step_pre_hooks)
        found.append(optimizer._optimizer_step_post_hooks)
    return sum(len(one or ()) for one in found)


def plain_stream(dataset, micro=MICRO):
    """Return the same micro-batches in the same order, for the plain controller."""
    loading = Loading(join="never")
    return MicroBatchStream(dataset, micro, seed=0, tail="short", loading=loading)


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


def by_step(kind, **settings):
    def made(optimizer):
        return {"scheduler": kind(optimizer, **settings), "interval": "step"}

    return made
