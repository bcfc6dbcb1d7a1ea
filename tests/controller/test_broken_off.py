"""Updates that are broken off, asked twice, or meet a schedule of their own."""

import copy

import pytest
import torch
from controller.example_training import (
    Listed,
    controlled,
    data,
    loss_of,
    losses_of,
    net,
    run,
    stream_of,
    weights,
)
from torch import nn
from torch.optim import LBFGS, SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR

from rightbatch.controller import Acting, Sensing
from rightbatch.controller.acting import Follower
from rightbatch.errors import DivergedError, InputError

NOISE = frozenset({"noise_scale"})


class Interrupt(Exception):  # noqa: N818  # stands for Ctrl-C
    pass


def broken_off(controller, step, part=0):
    """Train until a pass of an update fails."""

    def loss(model, batch):
        if controller.step == step and broken_off.passes == part:
            raise Interrupt
        broken_off.passes += controller.step == step
        return loss_of(model, batch)

    broken_off.passes = 0
    with pytest.raises(Interrupt):
        run(controller, loss, max_steps=99)


# Broken off ---------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["off", "units", "examples"])
def test_an_update_that_is_broken_off_is_made_again_on_the_same_examples(noise):
    needs = frozenset() if noise == "off" else NOISE

    def made():
        return controlled(
            Listed((16, 32), needs=needs),
            stream=stream_of(largest_pass=8),
            sensing=Sensing(noise=noise, every=2),
        )

    whole, broken = made(), made()
    run(whole, max_steps=12)
    broken_off(broken, 4, part=1)
    run(broken, max_steps=12)
    assert [r.examples for r in broken.records] == [r.examples for r in whole.records]
    assert [r.loss for r in broken.records] == [r.loss for r in whole.records]
    assert torch.equal(weights(broken.model), weights(whole.model))


def test_a_state_taken_while_an_update_is_under_way_is_that_before_it():
    one = controlled(Listed((8, 16)))
    for update in one.updates(max_steps=9):
        if one.step == 3:
            state = copy.deepcopy(one.training_state())
            break
        for part in update:
            update.backward(loss_of(one.model, part.batch))
        update.step()
    other = controlled(Listed((8, 16)), net(seed=1))
    other.load_training_state(state)
    run(other, max_steps=9)
    whole = run(controlled(Listed((8, 16))), max_steps=9)
    assert [r.batch_size for r in other.records] == [
        r.batch_size for r in whole.records[3:]
    ]
    assert torch.equal(weights(other.model), weights(whole.model))


def test_a_lost_run_may_be_gone_on_with_in_the_same_loop():
    controller = controlled(Listed((8,)))
    lost = 0
    for update in controller.updates(max_steps=6):
        for part in update:
            loss = loss_of(controller.model, part.batch)
            is_bad = controller.step == 3 and not lost
            update.backward(loss * (float("nan") if is_bad else 1.0))
        try:
            update.step()
        except DivergedError:
            lost += 1
    assert (lost, controller.step) == (1, 6)


def test_a_state_loaded_into_a_controller_that_has_trained_is_all_there_is():
    first = run(
        controlled(Listed((8, 32)), lr_rule="linear"), max_steps=3
    ).training_state()
    fresh = controlled(Listed((8, 32)), lr_rule="linear")
    used = run(controlled(Listed((8, 32)), lr_rule="linear"), max_steps=20)
    for one in (fresh, used):
        one.load_training_state(copy.deepcopy(first))
        run(one, max_steps=9)
    assert [r.lr for r in used.records[-6:]] == [r.lr for r in fresh.records]
    assert torch.equal(weights(used.model), weights(fresh.model))


def test_what_the_user_says_of_the_rate_counts_more_than_the_state():
    state = run(controlled(Listed((8,)), lr_rule="linear"), max_steps=3).state_dict()
    other = controlled(Listed((8,)), lr_rule="linear", acting=Acting(lr_batch_size=16))
    other.load_state_dict(state)
    run(other, max_steps=4)
    assert other.records[-1].lr == pytest.approx(0.05)


def test_a_state_that_is_refused_changes_nothing():
    state = run(controlled(Listed((8,))), max_steps=5).training_state()
    other = controlled(Listed((8,)), nn.Linear(5, 3).double())
    before = weights(other.model).clone()
    with pytest.raises(InputError, match="of another model"):
        other.load_training_state(state)
    assert (other.step, other.examples) == (0, 0)
    assert torch.equal(weights(other.model), before)


# Asked again --------------------------------------------------------------------------


def lbfgs(**acting):
    model = net()
    return controlled(
        Listed((32,), needs=frozenset({"batch_grad_sq_norm"})),
        model,
        LBFGS(model.parameters(), lr=0.5, max_iter=8),
        stream_of(largest_pass=8),
        acting=Acting(**acting),
    )


def close(controller, steps=1):
    for update in controller.updates(max_steps=steps):
        update.step(update.closure(lambda part: loss_of(controller.model, part.batch)))
    return controller


def test_the_loss_of_a_closure_is_the_one_before_the_step():
    controller = lbfgs()
    x, y = (torch.cat(c) for c in zip(*_parts(stream_of()), strict=True))
    wanted = float(loss_of(controller.model, (x, y)).detach())
    close(controller)
    assert controller.records[0].loss == pytest.approx(wanted)
    assert controller.records[0].batch_grad_sq_norm > 0


def _parts(stream):
    return [part.batch for part in stream.next(32).passes]


def test_a_closure_s_gradients_are_clipped_too():
    lengths = []
    controller = lbfgs(max_grad_norm=1e-3)
    plain = controller._stepper._clipped

    def clipped(limit):
        found = plain(limit)
        parameters = controller.model.parameters()
        lengths.append(float(nn.utils.get_total_norm([p.grad for p in parameters])))
        return found

    controller._stepper._clipped = clipped
    close(controller, 2)
    assert len(lengths) > 2
    assert max(lengths) <= 1e-3 * (1 + 1e-6)


def test_a_closure_under_a_gradient_scaler_is_refused():
    controller = lbfgs(scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(InputError, match="GradScaler does not go with a closure"):
        close(controller)


def test_a_closure_that_is_lost_ends_before_the_step():
    controller = lbfgs()
    before = weights(controller.model).clone()
    update = next(iter(controller.updates(max_steps=1)))
    closure = update.closure(
        lambda part: loss_of(controller.model, part.batch) * float("nan")
    )
    with pytest.raises(DivergedError, match="lost at update 1"):
        update.step(closure)
    assert torch.equal(weights(controller.model), before)


# Losses and gradients of other kinds --------------------------------------------------


def test_losses_of_examples_do_not_go_with_tokens():
    controller = controlled(Listed((8,)), sensing=Sensing(tokens=lambda b: len(b[1])))
    with pytest.raises(InputError, match="`loss` must be the mean over the tokens"):
        run(controller, losses_of, max_steps=1)


def test_parameters_of_no_optimizer_are_emptied_and_not_read_twice():
    model = net()
    optimizer = SGD(model[0].parameters(), lr=0.01)
    controller = controlled(
        Listed((16,), needs=NOISE), model, optimizer, sensing=Sensing(every=1)
    )
    sizes = []
    for update in controller.updates(max_steps=6):
        for part in update:
            update.backward(loss_of(model, part.batch))
        sizes.append(float(model[2].weight.grad.norm()))
        update.step()
    assert max(sizes) < 3 * min(sizes)


def test_a_step_that_mixed_precision_left_out_moves_no_schedule():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = StepLR(optimizer, 3, gamma=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    controller = controlled(
        Listed((8,)),
        model,
        optimizer,
        acting=Acting(scaler=scaler, scheduler=scheduler),
    )

    def loss(model, batch):
        value = loss_of(model, batch)
        if controller.step == 2:
            value.register_hook(lambda gradient: gradient * float("inf"))
        return value

    run(controller, loss, max_steps=4)
    assert [r.lr for r in controller.records] == [0.1] * 4
    assert "not finite" in controller.records[2].reason
    assert scheduler.last_epoch == 3


# Batch normalization ------------------------------------------------------------------


def normalized():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()


@pytest.mark.parametrize("batch_size", [4, 8, 64])
def test_no_pass_is_smaller_than_a_micro_batch_under_batch_normalization(batch_size):
    controller = controlled(
        Listed((batch_size,), needs=NOISE),
        normalized(),
        stream=stream_of(micro_batch_size=4),
        sensing=Sensing(every=2),
    )
    run(controller, max_steps=6)
    assert all(r.batch_size // r.accumulation_steps >= 4 for r in controller.records)
    read = controller.noise_scale
    assert (read is None) == (batch_size == 4)


# Schedules ----------------------------------------------------------------------------


def test_one_cycle_ends_with_the_batch_that_straddles_its_end():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = OneCycleLR(optimizer, 0.1, total_steps=24)
    controller = controlled(
        Listed((4, 28)), model, optimizer, acting=Acting(scheduler=scheduler)
    )
    run(controller, max_examples=96)
    assert controller.examples > 96 or controller.examples == 96
    assert scheduler.last_epoch == 24


def test_a_schedule_that_wants_a_measurement_is_refused():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="got ReduceLROnPlateau.*step it in the loop"):
        controlled(
            Listed((4,)),
            model,
            optimizer,
            acting=Acting(scheduler=ReduceLROnPlateau(optimizer)),
        )


def test_a_schedule_of_another_optimizer_is_refused():
    other = SGD(net().parameters(), lr=0.1)
    with pytest.raises(InputError, match="of another optimizer"):
        controlled(Listed((4,)), acting=Acting(scheduler=StepLR(other, 3)))


def adamw(**settings):
    return AdamW([nn.Parameter(torch.ones(1))], lr=0.1, **settings)


def test_betas_and_decay_that_somebody_moves_are_followed():
    optimizer = adamw(betas=(0.9, 0.999), weight_decay=0.1)
    follower = Follower(optimizer, "adam_sde", Acting(lr_batch_size=8))
    group = optimizer.param_groups[0]
    with follower.applied(16, None, 1.0):
        assert group["betas"][0] == pytest.approx(0.8)
    group["betas"], group["weight_decay"] = (0.95, 0.999), 0.0
    with follower.applied(16, None, 1.0):
        assert group["betas"][0] == pytest.approx(0.9)
        assert group["weight_decay"] == 0.0


def test_a_group_that_comes_in_later_follows_too():
    optimizer = adamw()
    follower = Follower(optimizer, "square_root", Acting(lr_batch_size=4))
    with follower.applied(16, None, 1.0) as lr:
        assert lr == pytest.approx(0.2)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 1.0})
    with follower.applied(16, None, 1.0):
        rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.2, 2.0])


def test_a_sensor_that_gives_no_number_is_named():
    seen = controlled(
        Listed((4,), needs=frozenset({"eval_loss"})),
        sensing=Sensing(evaluate=lambda: None),
    )
    with pytest.raises(InputError, match="`evaluate` must return a number, got None"):
        run(seen, max_steps=1)


def test_a_loss_asked_for_too_early_is_refused():
    update = next(iter(controlled(Listed((4,))).updates(max_steps=1)))
    with pytest.raises(InputError, match="none before the first backward"):
        _ = update.loss


def test_the_same_data_set_is_seen_whole_after_all_that():
    controller = controlled(Listed((8,)), stream=stream_of(data(40)))
    broken_off(controller, 2)
    broken_off(controller, 3)
    run(controller, epochs=1)
    assert (controller.step, controller.examples) == (5, 40)
