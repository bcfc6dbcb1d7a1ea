"""Small Trainers, and the same training by the plain controller."""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from rightbatch.controller import BatchSizeController
from rightbatch.integrations.transformers import BatchSizeCallback
from rightbatch.sampler import Loading, MicroBatchStream

MICRO = 4


class Rows(Dataset):
    """Rows and labels, as dicts for a Trainer or as pairs."""

    def __init__(self, count=90, *, as_dicts=True):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(count, 5, generator=generator).double()
        self.y = torch.randint(3, (count,), generator=generator)
        self.as_dicts = as_dicts

    def __len__(self):
        return len(self.x)

    def __getitem__(self, place):
        pair = self.x[place], self.y[place]
        return {"x": pair[0], "labels": pair[1]} if self.as_dicts else pair


class Net(nn.Module):
    """Two layers that return the mean loss, as a Trainer wants it."""

    def __init__(self, seed=0, dropout=0.0):
        super().__init__()
        torch.manual_seed(seed)
        layers = [nn.Linear(5, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3)]
        self.layers = nn.Sequential(*layers).double()

    def forward(self, x, labels=None):
        logits = self.layers(x)
        if labels is None:
            return {"logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def arguments(folder, **settings):
    given = {
        "per_device_train_batch_size": MICRO,
        "num_train_epochs": 4,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(str(folder), **(given | settings))


def trainer_of(
    folder, model=None, dataset=None, *, kind=Trainer, parts=None, **settings
):
    return kind(
        Net() if model is None else model,
        arguments(folder, **settings),
        train_dataset=Rows() if dataset is None else dataset,
        **(parts or {}),
    )


def followed(trainer, policy, **settings):
    """Return the callback, attached."""
    settings.setdefault("lr_rule", "none")
    callback = BatchSizeCallback(trainer, policy, **settings)
    trainer.add_callback(callback)
    return callback


def plain(policy, optimizer_of, *, count=90, micro=MICRO, epochs=4, **settings):
    """Return the plain controller after as many epochs of the same order."""
    model = Net()
    stream = MicroBatchStream(
        Rows(count, as_dicts=False),
        micro,
        tail="short",
        loading=Loading(shuffle=False, join="never"),
    )
    optimizer = optimizer_of(model.parameters())
    controller = BatchSizeController(model, optimizer, policy, stream, **settings)
    for update in controller.updates(epochs=epochs):
        for part in update:
            loss = functional.cross_entropy(model.layers(part.batch[0]), part.batch[1])
            update.backward(loss)
        update.step()
    return controller


def weights(model):
    return torch.cat([one.detach().reshape(-1) for one in model.parameters()])


def column(records, name):
    return [getattr(one, name) for one in records]
