"""A lost run is noticed, and the last good state put back."""

import math

import pytest
import torch
from controller.example_training import (
    Listed,
    controlled,
    loss_of,
    net,
    run,
    weights,
)
from torch.optim import SGD, Adam

from rightbatch.controller import Acting, Guard
from rightbatch.controller.guard import LossWatch
from rightbatch.errors import DivergedError, InputError


def failing_at(step, controller):
    def loss(model, batch):
        factor = math.nan if controller.step == step else 1.0
        return loss_of(model, batch) * factor

    return loss


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_nan_puts_back_weights_optimizer_and_position(kind):
    def made(steps):
        model = net()
        guard = Guard(keep_every=4)
        controller = controlled(
            Listed((4, 8)),
            model,
            kind(model.parameters(), lr=0.01),
            acting=Acting(guard=guard),
        )
        return run(controller, max_steps=steps) if steps else controller

    lost, good = made(0), made(8)
    with pytest.raises(
        DivergedError, match=r"lost at update 11: a loss of nan.*update 8"
    ):
        run(lost, failing_at(10, lost), max_steps=20)
    assert torch.equal(weights(lost.model), weights(good.model))
    assert lost.step == good.step == 8
    assert lost.examples == good.examples
    assert [r.step for r in lost.records] == list(range(1, 9))
    # And it goes on as if nothing had been.
    run(lost, max_steps=14)
    run(good, max_steps=14)
    assert torch.equal(weights(lost.model), weights(good.model))
    assert [r.batch_size for r in lost.records] == [r.batch_size for r in good.records]


def test_before_the_first_copy_nothing_is_put_back_and_the_bad_step_is_not_made():
    controller = controlled(Listed((4,)))
    with pytest.raises(DivergedError, match="nothing is put back"):
        run(controller, failing_at(3, controller), max_steps=9)
    assert torch.isfinite(weights(controller.model)).all()
    assert controller.step == 3


def test_a_loss_that_stays_far_above_the_first_is_lost():
    watch = LossWatch(Guard(factor=10, patience=5))
    losses = [1.0] * 2 + 99 * [50.0]
    lost = [watch.is_lost(loss, step, 64) for step, loss in enumerate(losses, start=1)]
    assert not any(lost[:5])
    assert lost.index(True) < 30


def test_a_single_spike_is_not_lost():
    watch = LossWatch(Guard(factor=10, patience=5))
    losses = [1.0] * 20 + [1e9] + [1.0] * 100
    assert not any(
        watch.is_lost(loss, step + 1, 64) for step, loss in enumerate(losses)
    )
    assert watch.is_sane


def test_a_loss_below_zero_has_no_scale_and_is_lost_only_where_not_finite():
    watch = LossWatch(Guard(factor=2, patience=1))
    assert not any(
        watch.is_lost(loss, 1 + k, 128) for k, loss in enumerate([-1.0, 50, 99])
    )
    assert watch.is_lost(math.inf, 4, 128)


@pytest.mark.parametrize("seed", range(20))
def test_small_batches_of_a_healthy_run_are_no_loss(seed):
    """N(0, 1) targets, one at a time, nothing learned: a first loss may be tiny."""
    generator = torch.Generator().manual_seed(seed)
    losses = torch.randn(2000, generator=generator).square().tolist()
    watch = LossWatch(Guard())
    assert not any(watch.is_lost(loss, k, 1) for k, loss in enumerate(losses, 1))


def test_a_state_whose_weights_are_lost_already_is_not_put_back():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.01)
    controller = controlled(
        Listed((8,)), model, optimizer, acting=Acting(guard=Guard(keep_every=10))
    )
    good = {}

    def loss(model, batch):
        if controller.step == 10:
            good["weights"] = weights(model).clone()
        if controller.step == 19:
            optimizer.param_groups[0]["lr"] = 1e38
        return loss_of(model, batch)

    with pytest.raises(DivergedError, match="back after update 10"):
        run(controller, loss, max_steps=99)
    assert torch.equal(weights(model), good["weights"])


def test_scheduler_and_scaler_are_put_back_too():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)
    controller = controlled(
        Listed((8,)),
        model,
        optimizer,
        acting=Acting(scheduler=scheduler, scaler=scaler, guard=Guard(keep_every=5)),
    )
    with pytest.raises(DivergedError, match="back after update 5"):
        run(controller, failing_at(9, controller), max_steps=20)
    assert scheduler.last_epoch == 5
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert scaler.get_scale() == 8.0
    run(controller, max_steps=8)
    assert scheduler.last_epoch == 8


def test_without_a_guard_nothing_stops_a_run():
    controller = controlled(Listed((4,)), acting=Acting(guard=None))
    run(controller, failing_at(2, controller), max_steps=5)
    assert controller.step == 5


def test_the_watch_goes_on_from_its_state():
    one, other = LossWatch(Guard()), LossWatch(Guard())
    for step in range(1, 9):
        one.is_lost(1.0 / step, step, 8)
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict()


@pytest.mark.parametrize(
    "settings", [{"factor": 0}, {"patience": 0}, {"keep_every": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Guard(**settings)
