"""Small models of every kind that can be stacked, their data, and optimizers."""

import copy

import torch
from torch import nn
from torch.nn import functional
from torch.optim import SGD, Adadelta, Adam, AdamW, NAdam, RAdam, RMSprop

from rightbatch.engine import find_forward, make_update

LRS = (0.05, 0.05, 0.2)
OPTIMIZERS = {
    "sgd": lambda p, lr: SGD(p, lr=lr),
    "decay": lambda p, lr: SGD(p, lr=lr, weight_decay=0.01),
    "momentum": lambda p, lr: SGD(p, lr=lr / 5, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p, lr: SGD(p, lr=lr / 5, momentum=0.9, nesterov=True),
    "adam": lambda p, lr: Adam(p, lr=lr / 10),
    "adamw": lambda p, lr: AdamW(p, lr=lr / 10, weight_decay=0.1),
    "rmsprop": lambda p, lr: RMSprop(p, lr=lr / 30),
    "nadam": lambda p, lr: NAdam(p, lr=lr / 10),
    "radam": lambda p, lr: RAdam(p, lr=lr / 10),
    "adadelta": lambda p, lr: Adadelta(p, lr=lr),
}


class Position(nn.Module):
    """A parameter of the module's own, in no layer."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(6))
        self.out = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.out(inputs + self.place)


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.out = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.out(self.second(self.first(inputs).tanh()).tanh())


class Residual(nn.Module):
    """Layers over places, a sum past them, and a norm."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(8, 6)
        self.norm = nn.LayerNorm(6)
        self.inner = nn.Linear(6, 6, bias=False)
        self.out = nn.Linear(6, 3)

    def forward(self, inputs):
        symbols = (inputs * 2).long().clamp(-4, 3) + 4
        places = self.embed(symbols)
        places = places + self.inner(self.norm(places)).relu()
        return self.out(places.mean(1))


MODELS = {
    "linear": lambda: nn.Linear(6, 3),
    "mlp": lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 2, groups=2, bias=False),
        nn.MaxPool2d((1, 2)),
        nn.Flatten(),
        nn.Linear(4, 3),
    ),
    "conv1d": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)),
        nn.Conv1d(2, 5, 2, stride=1),
        nn.Flatten(),
        nn.Linear(10, 3),
    ),
    "residual": Residual,
    "position": Position,
    "tied": Tied,
}


def make_model(kind, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[kind]()


def batches_for(seed, count, size):
    generator = torch.Generator().manual_seed(100 + seed)
    return [
        (
            torch.randn(size, 6, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def plain_loop(model, optimizer, batches):
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        mean = loss(model, batch).mean()
        mean.backward()
        optimizer.step()
        losses.append(mean.item())
    return losses


def stack_of(models, make, lrs=LRS, batch_size=4):
    updates = [
        make_update(model, make, loss, lr)
        for model, lr in zip(models, lrs, strict=True)
    ]
    batches = [batches_for(seed, 1, batch_size)[0] for seed in range(len(models))]
    fresh = [copy.deepcopy(model) for model in models]
    found = find_forward(
        [make_update(model, make, loss, 0.1) for model in fresh],
        [as_type(batch, models[0]) for batch in batches],
    )
    assert found.forward is not None, found.reason
    return updates, found.forward


def as_type(batch, model):
    dtype = next(model.parameters()).dtype
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in batch)
