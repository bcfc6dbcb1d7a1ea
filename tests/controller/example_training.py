"""Small loops under a controller, and the same by hand, slow and obvious."""

from dataclasses import dataclass
from typing import Any

import torch
from example_policies import Listed
from torch import nn
from torch.nn import functional
from torch.optim import SGD
from torch.utils.data import TensorDataset

from rightbatch.controller import Acting, BatchSizeController
from rightbatch.policies import Decision
from rightbatch.sampler import ExampleStream, Loading, MicroBatchStream

__all__ = ["Listed"]


@dataclass(frozen=True)
class Watching:
    """Always the same batch size, but it keeps what it saw in a list given to it."""

    batch_size: float
    needs: frozenset[str]
    seen: Any

    def init(self):
        return None

    def update(self, state, seen):
        self.seen.append(seen)
        return Decision(self.batch_size), state


def data(count=96, *, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 5, generator=generator).to(dtype)
    return TensorDataset(x, torch.randint(3, (count,), generator=generator))


def net(seed=0, *, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def loss_of(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


def losses_of(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def stream_of(dataset=None, micro_batch_size=4, *, seed=0, tail="carry", **loading):
    dataset = data() if dataset is None else dataset
    return MicroBatchStream(
        dataset, micro_batch_size, seed=seed, tail=tail, loading=Loading(**loading)
    )


def controlled(policy, model=None, optimizer=None, stream=None, **settings):
    model = net() if model is None else model
    optimizer = optimizer or SGD(model.parameters(), lr=0.1)
    settings.setdefault("acting", Acting())
    return BatchSizeController(
        model, optimizer, policy, stream or stream_of(), **settings
    )


def run(controller, loss=loss_of, **limits):
    for update in controller.updates(**limits):
        for part in update:
            update.backward(loss(controller.model, part.batch))
        update.step()
    return controller


def by_hand(model, optimizer, batch_sizes, lrs=None, *, dataset=None, seed=0):
    """Return the losses of whole batches in one pass each, as anyone would train."""
    stream = ExampleStream(data() if dataset is None else dataset, seed)
    losses = []
    for place, size in enumerate(batch_sizes):
        batch = stream.next(size)
        if lrs is not None:
            for group in optimizer.param_groups:
                group["lr"] = lrs[place]
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])
