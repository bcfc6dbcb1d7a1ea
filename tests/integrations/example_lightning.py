"""Small Lightning runs, and the same examples in the same order for other loops."""

import lightning.pytorch as pl
import torch
from controller.example_training import data, loss_of, net
from torch.optim import SGD
from torch.utils.data import DataLoader, Sampler

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


class Epochs(Sampler):
    """The order that an `ExampleStream` of the same seed has, epoch by epoch."""

    def __init__(self, dataset, seed=0, *, start=0):
        self.count, self.seed, self.epoch, self.start = len(dataset), seed, 0, start

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        places = torch.arange(self.count)
        stream = ExampleStream(torch.utils.data.TensorDataset(places), self.seed)
        for _ in range(self.epoch + 1):
            (order,) = stream.next(self.count)
        start, self.start = self.start, 0
        return iter(order.tolist()[start:])

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


def plain_stream(dataset, micro=MICRO):
    """Return the same micro-batches in the same order, for the plain controller."""
    loading = Loading(join="never")
    return MicroBatchStream(dataset, micro, seed=0, tail="short", loading=loading)
