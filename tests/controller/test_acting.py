"""Learning rate and kin follow the batch, on top of the user's own schedule."""

import pytest
import torch
from controller.example_training import (
    Listed,
    by_hand,
    controlled,
    loss_of,
    net,
    run,
    stream_of,
    weights,
)
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, StepLR

from rightbatch.controller import Acting, Sensing
from rightbatch.controller.acting import Follower, ScheduleClock, settings_of
from rightbatch.errors import InputError
from rightbatch.lr_scaling import LR_RULES, Settings, transfer


def weight():
    return nn.Parameter(torch.ones(1))


def test_the_rate_follows_the_batch_and_comes_back():
    sizes, lrs = (4, 8, 16, 4), (0.1, 0.2, 0.4, 0.1)
    plain = net()
    by_hand(plain, SGD(plain.parameters(), lr=0.1), sizes, lrs)
    controller = controlled(Listed(sizes), lr_rule="linear")
    run(controller, max_steps=4)
    assert [r.lr for r in controller.records] == pytest.approx(lrs)
    assert [r.lr_factor for r in controller.records] == pytest.approx([1, 2, 4, 1])
    torch.testing.assert_close(weights(controller.model), weights(plain))


def test_the_user_s_own_rate_is_never_overwritten():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    controller = controlled(
        Listed((4, 64), (1.0, 0.5)), model, optimizer, lr_rule="linear"
    )
    for update in controller.updates(max_steps=6):
        assert optimizer.param_groups[0]["lr"] == 0.1
        for part in update:
            update.backward(loss_of(model, part.batch))
        update.step()
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_the_rate_is_put_back_when_the_step_fails():
    optimizer = SGD([weight()], lr=0.1)
    follower = Follower(optimizer, "linear", Acting(lr_batch_size=1))

    def fail():
        with follower.applied(4, None, 1.0) as lr:
            assert lr == pytest.approx(0.4)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_policy_s_factor_multiplies_the_rule_s():
    controller = controlled(Listed((4, 16), (1.0, 0.5)), lr_rule="square_root")
    run(controller, max_steps=2)
    assert controller.records[1].lr == pytest.approx(0.1 * 2 * 0.5)


def test_each_group_keeps_its_own_rate_and_schedule():
    model = net()
    optimizer = SGD(
        [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 1}],
        lr=0.1,
    )
    scheduler = LambdaLR(optimizer, [lambda k: 0.5**k, lambda k: 1 / (1 + k)])
    follower = Follower(optimizer, "linear", Acting(lr_batch_size=8))
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    with follower.applied(32, None, 1.0):
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1, 4 / 3])
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.025, 1 / 3])


@pytest.mark.parametrize("rule", [r for r in LR_RULES if r != "power"])
def test_every_rule_is_that_of_transfer(rule):
    optimizer = SGD([weight()], lr=0.3)
    follower = Follower(optimizer, rule, Acting(lr_batch_size=8))
    wanted = transfer(
        Settings(optimizer="sgd", lr=0.3), 8, 128, rule=rule, noise_scale=50
    ).settings.lr
    with follower.applied(128, 50.0, 1.0) as lr:
        assert lr == pytest.approx(wanted)


def test_betas_eps_and_decay_change_with_the_rule_and_come_back():
    optimizer = AdamW([weight()], lr=0.1, betas=(0.9, 0.999), weight_decay=0.1)
    before = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    follower = Follower(optimizer, "adam_sde", Acting(lr_batch_size=16))
    with follower.applied(64, None, 1.0):
        group = optimizer.param_groups[0]
        assert group["betas"] == pytest.approx((0.6, 0.996))
        assert group["eps"] == pytest.approx(5e-9)
        assert group["lr"] == pytest.approx(0.2)
        assert group["weight_decay"] == pytest.approx(0.2)
    after = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    assert after == before


def test_what_is_to_be_kept_is_kept_and_half_lives_can_be_held():
    optimizer = Adam([weight()], lr=0.1, betas=(0.9, 0.999))
    acting = Acting(lr_batch_size=16, keep=("eps", "beta1"), half_life=("beta2",))
    with Follower(optimizer, "adam_sde", acting).applied(64, None, 1.0):
        group = optimizer.param_groups[0]
        assert group["eps"] == 1e-8
        assert group["betas"] == pytest.approx((0.9, 0.999**4))


def test_the_average_of_rmsprop_follows_under_torch_s_name():
    optimizer = RMSprop([weight()], lr=0.1, alpha=0.9)
    follower = Follower(optimizer, "half_life", Acting(lr_batch_size=16))
    with follower.applied(32, None, 1.0):
        assert optimizer.param_groups[0]["alpha"] == pytest.approx(0.81)
    assert optimizer.param_groups[0]["alpha"] == 0.9


def test_coupled_weight_decay_is_left_alone():
    optimizer = SGD([weight()], lr=0.1, weight_decay=0.1, momentum=0.9)
    assert settings_of(optimizer, optimizer.param_groups[0]).weight_decay is None
    with Follower(optimizer, "linear", Acting(lr_batch_size=1)).applied(4, None, 1.0):
        assert optimizer.param_groups[0]["weight_decay"] == 0.1


def test_a_rule_that_needs_a_noise_scale_waits_for_it():
    follower = Follower(SGD([weight()], lr=0.1), "adascale", Acting(lr_batch_size=8))
    with follower.applied(64, None, 1.0) as lr:
        assert lr == 0.1
    with follower.applied(64, 1e9, 1.0) as lr:
        assert lr == pytest.approx(0.8)
    with follower.applied(64, 1e-9, 1.0) as lr:
        assert lr == pytest.approx(0.1)


def test_adascale_has_the_noise_measured_though_the_policy_does_not():
    controller = controlled(
        Listed((32,)),
        lr_rule="adascale",
        sensing=Sensing(every=2),
        acting=Acting(lr_batch_size=8),
    )
    run(controller, max_steps=9)
    assert controller.noise_scale is not None
    factors = [record.lr_factor for record in controller.records]
    # The first update is measured, and its rate may follow already.
    assert all(1 <= factor <= 4 for factor in factors)
    assert factors[-1] > 1


def test_the_first_batch_served_is_what_the_rate_is_for_unless_said():
    first = run(controlled(Listed((8, 16)), lr_rule="linear"), max_steps=2)
    said = run(
        controlled(Listed((8, 16)), lr_rule="linear", acting=Acting(lr_batch_size=16)),
        max_steps=2,
    )
    assert [r.lr for r in first.records] == pytest.approx([0.1, 0.2])
    assert [r.lr for r in said.records] == pytest.approx([0.05, 0.1])


def test_auto_is_adascale_for_sgd_and_has_the_noise_measured():
    auto = run(controlled(Listed((8, 32)), lr_rule="auto"), max_steps=9)
    named = run(controlled(Listed((8, 32)), lr_rule="adascale"), max_steps=9)
    assert [r.lr for r in auto.records] == [r.lr for r in named.records]
    assert auto.records[-1].grad_variance is not None
    quiet = controlled(Listed((8, 32)), lr_rule="auto", sensing=Sensing(noise="off"))
    assert [r.lr for r in run(quiet, max_steps=2).records] == [0.1, 0.4]


def test_a_rule_that_needs_the_noise_is_refused_where_it_is_off():
    with pytest.raises(InputError, match="`lr_rule` adascale needs the noise scale"):
        controlled(Listed((4,)), lr_rule="adascale", sensing=Sensing(noise="off"))


def test_an_unknown_rule_is_refused_with_near_names():
    with pytest.raises(InputError, match="lr_rule.*adascale"):
        controlled(Listed((4,)), lr_rule="adascal")


# Schedules that count examples --------------------------------------------------------


def rates(counts, sizes, steps, **more):
    model = net()
    optimizer = SGD(model.parameters(), lr=1.0)
    scheduler = StepLR(optimizer, 6, gamma=0.5)
    controller = controlled(
        Listed(sizes),
        model,
        optimizer,
        acting=Acting(scheduler=scheduler, counts=counts, guard=None),
        **more,
    )
    run(controller, max_steps=steps)
    return [record.lr for record in controller.records], scheduler


def test_a_schedule_counts_examples_by_default_and_steps_where_asked():
    # Six steps of 4 examples are 24 examples: 4 + 8 + 8 are short of them, 4 more not.
    by_examples, _ = rates("auto", (4, 8, 8, 4, 4), 5)
    assert by_examples == [1, 1, 1, 1, 0.5]
    by_steps, _ = rates("steps", (4, 8, 8, 4, 4, 4, 4), 7)
    assert by_steps == [1, 1, 1, 1, 1, 1, 0.5]


def test_a_cosine_ends_at_the_same_example_whatever_the_batches():
    for sizes in ((4,), (4, 12, 8)):
        model = net()
        optimizer = SGD(model.parameters(), lr=1.0)
        scheduler = CosineAnnealingLR(optimizer, T_max=24)
        controller = controlled(
            Listed(sizes), model, optimizer, acting=Acting(scheduler=scheduler)
        )
        run(controller, max_examples=96)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_under_adascale_the_schedule_moves_by_the_gain():
    optimizer = SGD([weight()], lr=1.0)
    follower = Follower(optimizer, "adascale", Acting(lr_batch_size=8))
    assert follower.progress(32, None) == 1
    assert 1 < follower.progress(32, 30.0) < 4
    assert follower.progress(32, 1e9) == pytest.approx(4, rel=1e-6)


def test_tenths_of_a_step_add_up_to_whole_ones():
    optimizer = SGD([weight()], lr=1.0)
    scheduler = StepLR(optimizer, 1, gamma=0.5)
    clock = ScheduleClock(scheduler)
    optimizer.step()
    for _ in range(10):
        clock.advance(0.1)
    assert optimizer.param_groups[0]["lr"] == 0.5
    other = ScheduleClock(scheduler)
    other.load_state_dict(clock.state_dict())
    assert other.state_dict() == clock.state_dict()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"counts": "epochs"}, "counts"),
        ({"lr_batch_size": 0}, "lr_batch_size"),
        ({"max_grad_norm": -1.0}, "max_grad_norm"),
    ],
)
def test_settings_out_of_range_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        Acting(**settings)


def test_an_optimizer_nobody_knows_has_its_rate_changed_and_nothing_else():
    class Own(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1, "momentum": 0.9})

        def step(self, closure=None):
            self.seen = self.param_groups[0]["lr"]

    model = net()
    optimizer = Own(model.parameters())
    stream = stream_of()
    run(
        controlled(Listed((4, 16)), model, optimizer, stream, lr_rule="linear"),
        max_steps=2,
    )
    assert optimizer.seen == pytest.approx(0.4)
