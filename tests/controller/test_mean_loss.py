"""The evaluated loss leaves no trace in the model."""

import random

import numpy as np
import pytest
import torch
from controller.example_training import data, losses_of, net
from torch import nn
from torch.utils.data import Dataset

from rightbatch.controller import MeanLoss
from rightbatch.errors import InputError


def with_batch_norm():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)
    ).double()


def test_it_is_the_mean_over_all_examples():
    model = net()
    assert MeanLoss(model, losses_of, data())() == pytest.approx(
        float(losses_of(model, data()[:]).mean().detach())
    )


def test_batch_normalization_and_modes_are_left_as_they_were():
    model = with_batch_norm()
    model[2].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    first = MeanLoss(model, losses_of, data())
    assert first() == first()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(generator, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_modes_come_back_when_the_loss_fails():
    def failing(model, batch):
        raise ZeroDivisionError

    model = with_batch_norm()
    mean_loss = MeanLoss(model, failing, data())
    with pytest.raises(ZeroDivisionError):
        mean_loss()
    assert model.training
    assert model[2].training


def test_a_fraction_is_the_same_examples_at_each_call_and_with_each_seed_others():
    model = net()
    some = MeanLoss(model, losses_of, data(), fraction=0.25, seed=1)
    assert some.num_examples == 24
    assert some() == some()
    assert some() != MeanLoss(model, losses_of, data(), fraction=0.25, seed=2)()


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_a_fraction_is_above_nothing_and_at_most_all(fraction):
    with pytest.raises(InputError, match="`fraction` must be in"):
        MeanLoss(net(), losses_of, data(), fraction=fraction)


def test_a_loss_that_is_a_mean_already_is_refused():
    mean_loss = MeanLoss(net(), lambda m, b: losses_of(m, b).mean(), data())
    with pytest.raises(InputError, match="one value per example"):
        mean_loss()


class Read(Dataset):
    """Items that are counted, and drawn by chance."""

    def __init__(self, spread=0.0):
        self.tensor_rows = data().tensors
        self.spread = spread
        self.reads = 0

    def __len__(self):
        return len(self.tensor_rows[0])

    def __getitem__(self, row):
        self.reads += 1
        noise = torch.randn(5) + float(np.random.rand()) + random.random()
        return self.tensor_rows[0][row] + self.spread * noise, self.tensor_rows[1][row]


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_items_are_read_at_each_call_and_not_before(fraction):
    model, items = net(), Read()
    mean_loss = MeanLoss(model, losses_of, items, fraction=fraction)
    assert items.reads == 0
    same = MeanLoss(model, losses_of, data(), fraction=fraction)
    assert mean_loss() == pytest.approx(same(), rel=1e-12)
    assert items.reads == mean_loss.num_examples
    mean_loss()
    assert items.reads == 2 * mean_loss.num_examples


def test_items_made_by_chance_are_the_same_at_each_call_and_the_runs_draws_go_on():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = net()
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    mean_loss = MeanLoss(model, losses_of, Read(spread=1.0), chunk_size=7)
    first = mean_loss()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state()), random.getstate()) == before[1:]
    torch.rand(3)
    assert mean_loss() == first
    assert MeanLoss(model, losses_of, Read(spread=1.0))() == pytest.approx(first)
    assert MeanLoss(model, losses_of, Read(spread=1.0), seed=1)() != first


@pytest.mark.parametrize("make", [data, Read])
def test_so_many_examples_go_through_the_model_at_once(make):
    sizes = []

    def loss(model, batch):
        sizes.append(len(batch[1]))
        return losses_of(model, batch)

    MeanLoss(net(), loss, make(), chunk_size=40)()
    MeanLoss(net(), loss, make())()
    assert sizes == [40, 40, 16, 96]
    with pytest.raises(InputError, match="`chunk_size` must be a whole number >= 1"):
        MeanLoss(net(), loss, make(), chunk_size=0)


def test_rows_of_tensors_are_looked_at_where_they_lie():
    rows, seen = data(), []

    def loss(model, batch):
        seen.append(batch[0].data_ptr())
        return losses_of(model, batch)

    MeanLoss(net(), loss, rows)()
    assert seen == [rows.tensors[0].data_ptr()]
