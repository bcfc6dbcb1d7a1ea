"""Gradients in one process, and the seam for those of others."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from integrations.example_estimators import (
    blobs,
    classifier,
    net,
    weights_of,
)
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from rightbatch.controller import BatchSizeController
from rightbatch.errors import InputError
from rightbatch.integrations.sklearn import LocalGradients, seed_pass
from rightbatch.policies import Constant


def loss_of(module, batch):
    return functional.cross_entropy(module(batch[0]), batch[1], reduction="none")


def test_a_gradient_is_the_mean_over_the_batch_however_it_is_cut():
    x, y = blobs()
    data = TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
    module = net().double()
    loss_of(module, data.tensors).mean().backward()
    whole = module.first.weight.grad.clone()
    source = LocalGradients(module, loss_of, data, micro_batch_size=4, seed=0)
    stream = source.stream()
    stream.largest_pass = 8
    controller = BatchSizeController(
        module,
        torch.optim.SGD(module.parameters(), lr=0.0),
        Constant(batch_size=60),
        stream,
    )
    for update in controller.updates(max_steps=1):
        source.accumulate(update)
        assert len(update.batch.passes) == 8
        torch.testing.assert_close(module.first.weight.grad, whole)
        update.step()
    source.close()


def test_random_layers_draw_by_pass_wherever_the_generator_is():
    x, y = blobs()
    data = TensorDataset(torch.as_tensor(x).float(), torch.as_tensor(y))
    losses = []
    for salt in (0, 1):
        torch.manual_seed(0)
        module = net(dropout=0.5)
        source = LocalGradients(module, loss_of, data, micro_batch_size=8, seed=3)
        controller = BatchSizeController(
            module,
            torch.optim.SGD(module.parameters(), lr=0.1),
            Constant(batch_size=24),
            source.stream(),
        )
        for update in controller.updates(max_steps=4):
            torch.rand(salt)
            source.accumulate(update)
            update.step()
        losses.append([record.loss for record in controller.records])
    assert losses[0] == losses[1]


def test_neighbouring_passes_draw_otherwise():
    drawn = set()
    with torch.random.fork_rng(devices=[]):
        for seed, first, place in ((0, 0, 0), (1, 0, 0), (0, 8, 0), (0, 0, 1)):
            seed_pass(seed, first, place)
            drawn.add(float(torch.rand(())))
    assert len(drawn) == 4


class Workers:
    """How many, as the tests of ``integrations.dask`` have it."""


def stand_in(made):
    """Return a module in the place of ``rightbatch.integrations.dask``."""

    class DaskGradients(LocalGradients):
        def __init__(self, client, workers, work, **how):
            weigh = work.pop("weigh")
            super().__init__(**work, **how)
            made.append((client, workers, weigh, self))
            self.is_closed = False

        def close(self):
            self.is_closed = True

    dask = ModuleType("dask")
    dask.DaskGradients, dask.Workers, dask.Work = DaskGradients, Workers, dict
    return dask


def test_with_a_client_gradients_come_from_its_workers(monkeypatch):
    made = []
    monkeypatch.setitem(sys.modules, "rightbatch.integrations.dask", stand_in(made))
    x, y = blobs()
    settings = {"module": nn.Linear(4, 3), "policy": "geodamp:factor=2,delay=3"}
    there = classifier(client="client", workers=Workers(), **settings).fit(x, y)
    here = classifier(noise="units", **settings).fit(x, y)
    assert np.array_equal(weights_of(there), weights_of(here))
    ((client, workers, weigh, source),) = made
    assert (client, type(workers), weigh) == ("client", Workers, None)
    assert source.is_closed


def test_workers_are_workers_and_send_no_gradients_of_single_examples(monkeypatch):
    monkeypatch.setitem(sys.modules, "rightbatch.integrations.dask", stand_in([]))
    x, y = blobs()
    with pytest.raises(InputError, match="`workers` must be Workers, got 2"):
        classifier(client="client", workers=2).fit(x, y)
    with pytest.raises(InputError, match="`noise` cannot be 'examples' with a client"):
        classifier(client="client", noise="examples").fit(x, y)


def test_a_source_is_closed_after_a_fit_that_failed(monkeypatch):
    closed = []
    monkeypatch.setattr(LocalGradients, "close", lambda self: closed.append(1))

    def fail(row, step):
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        classifier(log=fail).fit(*blobs())
    assert closed == [1]
