"""Workloads small enough that a run takes milliseconds."""

import multiprocessing
import os
import signal
import time

import torch
from torch import nn
from torch.nn import functional
from torch.optim import SGD
from torch.utils.data import Dataset, TensorDataset

from rightbatch.workload import Target, Workload

LRS = (0.02, 0.1, 0.5, 2.0)


def points(count, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    noise = torch.randn(count, generator=generator)
    labels = (inputs.sum(1) + 0.7 * noise > 0).long()
    return TensorDataset(inputs, labels)


class Items(Dataset):
    """The same points one by one, as a data set without `.tensors`."""

    def __init__(self, dataset):
        self._dataset = dataset

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        return self._dataset[index]


def linear(seed):
    torch.manual_seed(seed)
    return nn.Linear(4, 2)


def with_dropout(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))


def cross_entropy(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def accuracy(model, batch):
    return (model(batch[0]).argmax(1) == batch[1]).float()


def sgd(parameters, lr):
    return SGD(parameters, lr=lr)


def decaying(parameters, lr):
    return SGD(parameters, lr=lr, weight_decay=min(0.01, 0.1 / lr))


def make(**changes):
    settings = {
        "name": "tiny",
        "model": linear,
        "train": points(256, 0),
        "evaluate_on": points(100, 1),
        "loss": cross_entropy,
        "optimizer": sgd,
        "target": Target(value=0.4, on="held_out"),
        "lrs": LRS,
        "metrics": {"accuracy": accuracy},
    }
    return Workload(**(settings | changes))


def tiny():
    return make()


def dropout():
    return make(name="dropout", model=with_dropout)


def slow():
    def loss(model, batch):
        time.sleep(0.0005)
        return cross_entropy(model, batch)

    return make(name="slow", loss=loss)


def failing():
    def loss(model, batch):
        if len(batch[0]) == 8:
            raise ZeroDivisionError("as it was told to")
        return cross_entropy(model, batch)

    return make(name="failing", loss=loss)


def killed():
    def loss(model, batch):
        if len(batch[0]) == 8 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return cross_entropy(model, batch)

    return make(name="killed", loss=loss)
