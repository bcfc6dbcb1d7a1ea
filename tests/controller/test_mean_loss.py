"""The evaluated loss leaves no trace in the model."""

import pytest
import torch
from controller.example_training import data, losses_of, net
from torch import nn

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
