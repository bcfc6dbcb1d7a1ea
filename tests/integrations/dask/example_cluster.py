"""Small problems, a cluster of two worker processes, and the same run in one."""

import os
import signal

import torch
from torch import nn
from torch.nn import functional
from torch.optim import SGD
from torch.utils.data import TensorDataset

from rightbatch.controller import BatchSizeController, Sensing
from rightbatch.integrations.dask import DaskGradients, Work, Workers
from rightbatch.policies import PadaDamp
from rightbatch.sampler import Loading, MicroBatchStream

MICRO = 8
ALONE = Loading()
TWO = Workers(grads_per_worker=32, maximum=2, follow="none")
GROWING = PadaDamp(initial_batch_size=8, rate=0.4)


def data(count=600, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 20, generator=generator).to(dtype)
    return TensorDataset(x, torch.randint(3, (count,), generator=generator))


def net(*, extra=(), dtype=torch.float64):
    torch.manual_seed(0)
    layers = nn.Linear(20, 32), *extra, nn.Tanh(), nn.Linear(32, 3)
    return nn.Sequential(*layers).to(dtype)


def losses_of(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def controlled(model, stream, policy=GROWING, **settings):
    settings.setdefault("sensing", Sensing(noise="units"))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return BatchSizeController(model, optimizer, policy, stream, **settings)


def on_cluster(client, model, dataset, *, workers=TWO, loss=losses_of, **work):
    work = Work(module=model, loss=loss, dataset=dataset, **work)
    return DaskGradients(client, workers, work, micro_batch_size=MICRO)


def trained(source, controller, *, meanwhile=lambda step: None, **limits):
    for update in controller.updates(**limits):
        meanwhile(controller.step)
        source.accumulate(update)
        update.step()
    return controller


def alone(
    model,
    dataset,
    *,
    loss=losses_of,
    policy=GROWING,
    loading=ALONE,
    limits,
    **settings,
):
    """Return the controller of the same run in this process, pass by pass."""
    stream = MicroBatchStream(dataset, MICRO, tail="short", loading=loading)
    controller = controlled(model, stream, policy, **settings)
    for update in controller.updates(**limits):
        for part in update:
            update.backward(loss(model, part.batch))
        update.step()
    return controller


def weights(model):
    return torch.cat([one.detach().reshape(-1) for one in model.parameters()])


def pids(client):
    """Return the process of each worker, by address."""
    return client.run(os.getpid)


def kill(pid):
    os.kill(pid, signal.SIGKILL)
