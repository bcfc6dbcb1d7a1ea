"""Small data, modules and fits for the tests of the estimators."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from rightbatch.integrations.sklearn import AdaptiveClassifier, AdaptiveRegressor


def blobs(count=60, classes=3, seed=0):
    """Return points around centres that lie apart, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % classes
    centres = 3 * np.eye(classes, 4)
    return centres[y] + rng.normal(scale=0.7, size=(count, 4)), y


def line(count=48, outputs=1, seed=0):
    """Return points and linear functions of them with a little noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    y = x @ rng.normal(size=(3, outputs)) + 0.1 * rng.normal(size=(count, outputs))
    return x, y[:, 0] if outputs == 1 else y


def classifier(**settings):
    return AdaptiveClassifier(
        **{"lr": 0.01, "max_epochs": 15, "random_state": 0, **settings}
    )


def regressor(**settings):
    return AdaptiveRegressor(
        **{"lr": 0.01, "max_epochs": 15, "random_state": 0, **settings}
    )


class Net(nn.Module):
    """A network with dropout and batch normalization, of whatever sizes."""

    def __init__(self, inputs=4, outputs=3, hidden=8, dropout=0.0, norm=False):
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.norm = nn.BatchNorm1d(hidden) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


def net(kind=Net, **settings):
    """Return a network that is the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(**settings)


class Items(Dataset):
    """Items made one by one, as those of a folder of images."""

    def __init__(self, *columns):
        self.columns = columns
        self.reads = 0

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, index):
        self.reads += 1
        x, *others = (column[index] for column in self.columns)
        return (torch.as_tensor(x, dtype=torch.float32), *others)


def tensors(x, *columns):
    return TensorDataset(
        torch.as_tensor(x, dtype=torch.float32), *map(torch.as_tensor, columns)
    )


def weights_of(estimator):
    return torch.cat(
        [p.detach().reshape(-1) for p in estimator.module_.parameters()]
    ).numpy()
