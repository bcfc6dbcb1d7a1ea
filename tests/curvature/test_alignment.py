"""Progress of update rules against closed forms."""

import copy
import json
import math

import pytest
import torch
from curvature.example_models import CROSS_ENTROPY, labelled, network
from torch import nn, optim

from rightbatch.curvature import (
    UnitGradients,
    alignment_curve,
    update_of,
)
from rightbatch.errors import InputError

MEAN = torch.tensor([0.5, -0.2, 0.05, 0.0, 0.3], dtype=torch.float64)
DEVIATION = torch.tensor([1.0, 2.0, 0.5, 1.0, 4.0], dtype=torch.float64)


def gaussian(num_units, unit_size, seed=0):
    """Units whose examples have normal gradients of known mean and spread."""
    drawn = torch.Generator().manual_seed(seed)
    normal = torch.randn(num_units, 5, generator=drawn, dtype=torch.float64)
    rows = MEAN + DEVIATION * normal / math.sqrt(unit_size)
    return UnitGradients(rows=rows, unit_size=unit_size)


def signed(batch_size):
    """Progress of sign descent: sum of G_i times the mean of the sign."""
    ratio = MEAN * math.sqrt(batch_size) / (DEVIATION * math.sqrt(2))
    return float((MEAN * torch.erf(ratio)).sum())


def test_sgd_s_progress_is_the_squared_gradient_at_every_batch_size():
    blocks = gaussian(8000, 2).blocks(400)
    found = alignment_curve(blocks, lambda g: g, [2, 4, 10, 16])
    truth = float(MEAN.square().sum())
    for value, error in zip(found.progress, found.standard_errors, strict=True):
        assert abs(value - truth) < 4 * error
        assert error < truth / 8


def test_sgd_s_progress_against_the_same_batch_would_count_noise():
    units = gaussian(8000, 2)
    same = float(units.rows.square().sum(1).mean())
    noise = float(DEVIATION.square().sum()) / 2
    assert same == pytest.approx(float(MEAN.square().sum()) + noise, rel=0.05)
    assert same > 10 * float(MEAN.square().sum())


def test_sign_descent_s_progress_is_that_of_the_closed_form():
    blocks = gaussian(16000, 2).blocks(400)
    found = alignment_curve(blocks, torch.sign, [2, 6, 20, 38])
    for size, value, error in zip(
        found.batch_sizes, found.progress, found.standard_errors, strict=True
    ):
        assert abs(value - signed(size)) < 4 * error
        assert error < 0.1 * signed(38)
    assert signed(2) < 0.6 * signed(38)


def test_the_errors_told_are_those_of_independent_curves():
    curves = [
        alignment_curve(gaussian(64, 2, seed=s).blocks(8), torch.sign, [2, 8])
        for s in range(200)
    ]
    for k in range(2):
        values = torch.tensor([c.progress[k] for c in curves])
        told = torch.tensor([c.standard_errors[k] for c in curves])
        assert abs(float(values.mean()) - signed((2, 8)[k])) < 4 * float(
            values.std() / math.sqrt(200)
        )
        assert float(told.square().mean().sqrt()) == pytest.approx(
            float(values.std()), rel=0.2
        )


def stepped_adam():
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for step in range(5):
        optimizer.zero_grad()
        CROSS_ENTROPY(model, labelled(5, seed=step)).mean().backward()
        optimizer.step()
    return model, optimizer


def test_an_update_of_adam_is_the_formula_from_the_state_before():
    model, optimizer = stepped_adam()
    drawn = torch.Generator().manual_seed(0)
    flat = torch.randn(31, generator=drawn, dtype=torch.float64)
    state = optimizer.state.values()
    first = torch.cat([s["exp_avg"].reshape(-1) for s in state])
    second = torch.cat([s["exp_avg_sq"].reshape(-1) for s in state])
    first = (0.9 * first + 0.1 * flat) / (1 - 0.9**6)
    second = (0.999 * second + 0.001 * flat**2) / (1 - 0.999**6)
    expected = first / (second.sqrt() + 1e-8)
    assert torch.allclose(update_of(optimizer, model)(flat), expected, atol=1e-10)


def test_trying_an_update_leaves_no_trace():
    model, optimizer = stepped_adam()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    grads = [p.grad.clone() for p in model.parameters()]
    update = update_of(optimizer, model)
    first = update(torch.ones(31, dtype=torch.float64))
    assert torch.equal(update(torch.ones(31, dtype=torch.float64)), first)
    for old, new in zip(before[0].values(), model.state_dict().values(), strict=True):
        assert torch.equal(old, new)
    for old, new in zip(
        before[1]["state"].values(),
        optimizer.state_dict()["state"].values(),
        strict=True,
    ):
        assert all(torch.equal(old[key], new[key]) for key in old)
    pairs = zip(grads, model.parameters(), strict=True)
    assert all(torch.equal(g, p.grad) for g, p in pairs)


def test_a_scheduler_on_the_optimizer_does_not_notice():
    model, optimizer = stepped_adam()
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1)
    expected = update_of(optimizer, model)(torch.ones(31, dtype=torch.float64))
    assert torch.isfinite(expected).all()
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert scheduler.last_epoch == 0


def test_an_update_has_momentum_and_decay_in_it_and_rates_in_proportion():
    model = nn.Linear(2, 1)
    groups = [
        {"params": [model.bias], "lr": 0.2},
        {"params": [model.weight], "lr": 0.1, "weight_decay": 0.5},
    ]
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 4.0]]))
    found = update_of(optim.SGD(groups, lr=0.1), model)(torch.ones(3))
    assert found.tolist() == pytest.approx([1.0, 1.5, 1.0], rel=1e-5)


def test_a_curve_prints_and_turns_to_json():
    found = alignment_curve(gaussian(20, 2).blocks(4), torch.sign, [2, 4])
    assert "batch size   progress\n          2" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["batch_sizes"] == [2, 4]


@pytest.mark.parametrize("size", [3, 8, 10])
def test_a_batch_that_units_do_not_make_is_refused(size):
    blocks = gaussian(8, 2).blocks(2)
    with pytest.raises(InputError, match="unit's 2 below the block's 8, got"):
        alignment_curve(blocks, torch.sign, [size])


def test_what_gives_no_curve_is_refused():
    with pytest.raises(InputError, match="at least 2 and 1, got 1 and 1"):
        alignment_curve(gaussian(8, 2).blocks(1), torch.sign, [2])
    with pytest.raises(InputError, match="at least 2 and 1, got 2 and 0"):
        alignment_curve(gaussian(8, 2).blocks(2), torch.sign, [])
    with pytest.raises(InputError, match="`batch_sizes` must be a whole number"):
        alignment_curve(gaussian(8, 2).blocks(2), torch.sign, [2.5])
    with pytest.raises(InputError, match="`update` must be flat with 5"):
        alignment_curve(gaussian(8, 2).blocks(2), lambda g: g[:2], [2])


def test_an_optimizer_that_cannot_step_for_the_model_is_refused():
    model = nn.Linear(2, 1)
    with pytest.raises(InputError, match="must hold every trainable parameter"):
        update_of(optim.SGD(nn.Linear(2, 1).parameters(), lr=1), model)
    with pytest.raises(InputError, match="must have a positive learning rate"):
        update_of(optim.SGD(model.parameters(), lr=0.0), model)
    update = update_of(optim.SGD(model.parameters(), lr=1.0), model)
    with pytest.raises(InputError, match="`gradient` must be flat with 3"):
        update(torch.ones(2))
