import contextlib

import pytest
import torch
from torch import nn

from rightbatch.errors import InputError
from rightbatch.experiments.optimizers.ema import AveragedWeights, check_decay


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))


def flatten(model: nn.Module) -> None:
    parameters = list(model.parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    parts = flat.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view(parameter.shape)


def vector(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("in_one_buffer", [False, True])
def test_the_average_is_the_weighted_sum_of_all_weights_so_far(
    in_one_buffer: bool,
) -> None:
    model, decay, steps = net(), 0.9, 7
    if in_one_buffer:
        flatten(model)
    average = AveragedWeights(model, decay)
    history = [vector(model).clone()]
    for _ in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update()
        history.append(vector(model).clone())
    wanted = decay**steps * history[0] + (1 - decay) * sum(
        decay ** (steps - k) * history[k] for k in range(1, steps + 1)
    )
    with average.in_use():
        torch.testing.assert_close(vector(model), wanted)
    assert torch.equal(vector(model), history[-1])


def test_weights_in_one_buffer_take_one_operation() -> None:
    apart, joined = net(), net()
    flatten(joined)
    assert len(AveragedWeights(apart, 0.9)._averages) == 6
    assert len(AveragedWeights(joined, 0.9)._averages) == 1


def test_weights_come_back_when_a_check_fails() -> None:
    model = net()
    average = AveragedWeights(model, 0.9)
    before = vector(model).clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    now = vector(model).clone()
    average.update()
    with contextlib.suppress(ZeroDivisionError), average.in_use():
        assert not torch.equal(vector(model), now)
        raise ZeroDivisionError
    assert torch.equal(vector(model), now)
    assert not torch.equal(now, before)


def test_parameters_that_are_not_trained_are_left_alone() -> None:
    model = net()
    model[0].requires_grad_(False)
    average = AveragedWeights(model, 0.5)
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    with average.in_use():
        assert (model[0].weight == 3).all()


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, 99.0])
def test_a_decay_outside_of_0_to_1_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match="ema: `decay` must be between 0 and 1"):
        check_decay("ema", decay)
