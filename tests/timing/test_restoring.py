"""A block that leaves no trace: weights, state, modes and generators, bit for bit."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from rightbatch.timing import restored


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)
    )


def step(model, optimizer):
    def closure():
        optimizer.zero_grad()
        x = torch.randn(6, 3) + np.random.rand() + random.random()
        loss = functional.mse_loss(model(x), torch.ones(6, 2))
        loss.backward()
        return loss

    return float(optimizer.step(closure).detach())


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01)),
    "adamw": lambda p: torch.optim.AdamW(p, amsgrad=True),
    "adadelta": torch.optim.Adadelta,
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=3, history_size=2),
}


def everything(model, optimizer):
    """Return all that may have changed, as plain numbers."""
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    gradients = [
        None if p.grad is None else p.grad.tolist() for p in model.parameters()
    ]
    return {
        "weights": weights,
        "gradients": gradients,
        "modes": [module.training for module in model.modules()],
        "optimizer": plain(optimizer.state_dict()),
        "attributes": sorted(vars(optimizer)),
        "torch": torch.get_rng_state().tolist(),
        "numpy": plain(np.random.get_state()),
        "python": random.getstate(),
    }


def plain(value):
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value.tolist() if hasattr(value, "tolist") else value


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("num_before", [0, 3])
def test_training_in_the_block_changes_nothing_after_it(name, num_before):
    model = net()
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(num_before):
        step(model, optimizer)
    model[1].eval()
    before = everything(model, optimizer)
    with restored(model, optimizer):
        model.train()
        for _ in range(4):
            step(model, optimizer)
        optimizer.param_groups[0]["lr"] = 7.0
        assert everything(model, optimizer) != before
    assert everything(model, optimizer) == before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_the_block_had_not_been(name):
    losses = []
    for is_interrupted in (False, True):
        model = net()
        optimizer = OPTIMIZERS[name](model.parameters())
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        for place in range(6):
            losses.append(step(model, optimizer))
            if is_interrupted and place == 2:
                with restored(model, optimizer):
                    for _ in range(3):
                        step(model, optimizer)
    assert losses[:6] == losses[6:]


def test_a_block_that_raises_leaves_no_trace_either():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = everything(model, optimizer)

    def fail():
        with restored(model, optimizer):
            step(model, optimizer)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert everything(model, optimizer) == before


def test_the_same_tensors_hold_the_values():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    step(model, optimizer)
    weight = model[0].weight
    gradient, momentum = weight.grad, optimizer.state[weight]["momentum_buffer"]
    mean = model[1].running_mean
    with restored(model, optimizer):
        model.zero_grad(set_to_none=True)
        step(model, optimizer)
        model[1].running_mean = torch.zeros(8)
    assert weight.grad is gradient
    assert optimizer.state[weight]["momentum_buffer"] is momentum
    assert model[1].running_mean is mean
    assert optimizer.param_groups[0]["params"][0] is weight


def test_a_scheduler_does_not_notice_steps_of_the_block():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with restored(model, optimizer):
        step(model, optimizer)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()


def test_a_model_without_an_optimizer_is_put_back_alone():
    model = net()
    before = [p.tolist() for p in model.parameters()]
    with restored(model), torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert [p.tolist() for p in model.parameters()] == before
