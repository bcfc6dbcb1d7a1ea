"""Diagonals read off optimizers against the steps these make."""

import copy

import pytest
import torch
from curvature.example_models import CROSS_ENTROPY, labelled, network
from torch import nn, optim

from rightbatch.curvature import gradient, preconditioner_diagonal
from rightbatch.errors import InputError

TINY = 1e-14
KINDS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01, eps=TINY),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, eps=TINY, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, betas=(0.8, 0.9), eps=TINY),
    "nadam": lambda p: optim.NAdam(p, lr=0.01, eps=TINY),
    "radam, too few steps": lambda p: optim.RAdam(p, lr=0.01, betas=(0.9, 0.5)),
    "radam": lambda p: optim.RAdam(p, lr=0.01, betas=(0.9, 0.99), eps=TINY),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, eps=TINY),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.01, eps=TINY, lr_decay=0.1),
}
SECOND = {"rmsprop": "square_avg"}


def trained(make, steps=8, model=None):
    model = network() if model is None else model
    optimizer = make(model.parameters())
    for step in range(steps):
        optimizer.zero_grad()
        CROSS_ENTROPY(model, labelled(5, seed=step)).mean().backward()
        optimizer.step()
    return model, optimizer


def moved(optimizer, flat):
    """What a step with this gradient moves a copy by."""
    copied = copy.deepcopy(optimizer)
    parameters = copied.param_groups[0]["params"]
    parts = flat.split([p.numel() for p in parameters])
    before = [p.detach().clone() for p in parameters]
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter).clone()
    copied.step()
    pairs = zip(before, parameters, strict=True)
    return torch.cat([(b - p.detach()).reshape(-1) for b, p in pairs])


@pytest.mark.parametrize("name", KINDS)
def test_the_diagonal_is_the_slope_of_the_update_up_to_a_factor(name):
    model, optimizer = trained(KINDS[name])
    diagonal = preconditioner_diagonal(optimizer, model)
    if name in ("sgd", "adagrad"):
        probe = torch.full_like(diagonal, 1e-5)
    else:
        # With its own square the second moment stays as it is in the step to come.
        key = SECOND.get(name, "exp_avg_sq")
        seconds = [s[key].reshape(-1) for s in optimizer.state.values()]
        probe = torch.cat(seconds).sqrt()
    slope = (moved(optimizer, probe) - moved(optimizer, -probe)) / probe
    assert torch.allclose(slope / slope[0], diagonal / diagonal[0], rtol=1e-6)


WITHOUT_MEMORY = {
    "adam": lambda p: optim.Adam(p, lr=0.01, betas=(0.0, 0.9), eps=0.1),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, betas=(0.0, 0.9), eps=0.1),
    "nadam": lambda p: optim.NAdam(p, lr=0.01, betas=(0.0, 0.9), eps=0.1),
    "radam": lambda p: optim.RAdam(p, lr=0.01, betas=(0.0, 0.9), eps=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, eps=0.1),
}


@pytest.mark.parametrize("name", WITHOUT_MEMORY)
def test_after_a_step_that_kept_the_second_moment_it_is_that_step_s_slope(name):
    model, optimizer = trained(WITHOUT_MEMORY[name], steps=12)
    key = SECOND.get(name, "exp_avg_sq")
    states = optimizer.state.values()
    probe = torch.cat([s[key].reshape(-1) for s in states]).sqrt()
    slope = (moved(optimizer, probe) - moved(optimizer, -probe)) / (2 * 0.01 * probe)
    parts = probe.split([p.numel() for p in model.parameters()])
    for parameter, part in zip(model.parameters(), parts, strict=True):
        parameter.grad = part.view_as(parameter).clone()
    optimizer.step()
    assert torch.allclose(preconditioner_diagonal(optimizer, model), slope, rtol=1e-6)


def test_one_step_of_adam_knows_the_gradient_s_size():
    model, batch = network(), labelled(5)
    first = gradient(model, CROSS_ENTROPY, batch)
    optimizer = optim.Adam(model.parameters(), lr=0.01, eps=1e-3)
    CROSS_ENTROPY(model, batch).mean().backward()
    optimizer.step()
    expected = 1 / (first.abs() + 1e-3)
    assert torch.allclose(preconditioner_diagonal(optimizer, model), expected)


def test_a_centred_rmsprop_divides_by_the_spread():
    model, optimizer = trained(lambda p: optim.RMSprop(p, lr=0.01, centered=True))
    states = optimizer.state.values()
    square = torch.cat([s["square_avg"].reshape(-1) for s in states])
    mean = torch.cat([s["grad_avg"].reshape(-1) for s in states])
    expected = 1 / ((square - mean**2).sqrt() + 1e-8)
    assert torch.allclose(preconditioner_diagonal(optimizer, model), expected)


def test_the_gradient_at_hand_is_not_in_it():
    model, optimizer = trained(KINDS["adam"])
    before = preconditioner_diagonal(optimizer, model)
    CROSS_ENTROPY(model, labelled(5, seed=99)).mean().backward()
    assert torch.equal(preconditioner_diagonal(optimizer, model), before)


def test_groups_count_by_their_rates_and_frozen_parameters_not_at_all():
    model = network()
    model[0].bias.requires_grad_(False)
    groups = [
        {"params": [model[2].weight, model[2].bias], "lr": 0.1},
        {"params": [model[0].weight, model[0].bias], "lr": 0.4},
    ]
    found = preconditioner_diagonal(optim.SGD(groups), model)
    assert found.tolist() == [1.0] * 12 + [0.25] * 15


def test_an_optimizer_that_is_not_understood_is_refused():
    model = nn.Linear(2, 1)
    with pytest.raises(InputError, match=r"got LBFGS.*pass the diagonal itself"):
        preconditioner_diagonal(optim.LBFGS(model.parameters()), model)


def test_an_optimizer_before_its_first_step_is_refused():
    model = nn.Linear(2, 1)
    with pytest.raises(InputError, match=r"must have made a step.*after the first"):
        preconditioner_diagonal(optim.Adagrad(model.parameters()), model)


def test_an_optimizer_of_another_model_is_refused():
    other = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    with pytest.raises(InputError, match="must hold every trainable parameter"):
        preconditioner_diagonal(other, nn.Linear(2, 1))


def test_a_rate_of_zero_is_refused():
    model = nn.Linear(2, 1)
    still = optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(InputError, match="must have a positive learning rate, got 0"):
        preconditioner_diagonal(still, model)


def test_a_model_with_nothing_to_train_is_refused():
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model.requires_grad_(False)
    with pytest.raises(InputError, match="`model` must have trainable parameters"):
        preconditioner_diagonal(optimizer, model)
