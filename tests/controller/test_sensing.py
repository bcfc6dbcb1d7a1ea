"""Only what somebody needs is measured, and what is measured is right."""

import pytest
import torch
from controller.example_training import (
    Listed,
    Watching,
    controlled,
    data,
    loss_of,
    losses_of,
    net,
    run,
    stream_of,
)
from torch import nn
from torch.optim import SGD

from rightbatch.controller import MeanLoss, Sensing
from rightbatch.errors import InputError
from rightbatch.policies import OBSERVABLE


def watched(*needs, batch_size=16, **settings):
    seen = []
    policy = Watching(batch_size, frozenset(needs), seen)
    return controlled(policy, **settings), seen


def test_what_nobody_needs_is_not_there():
    controller, seen = watched()
    run(controller, max_steps=3)
    assert controller.noise_scale is None
    for one in seen:
        assert all(getattr(one, name) is None for name in OBSERVABLE)
    assert [one.step for one in seen] == [0, 1, 2]
    assert [one.examples for one in seen] == [0, 16, 32]
    assert [one.batch_size for one in seen] == [0, 16, 16]


def test_what_the_last_batch_told_is_seen_before_the_next_update():
    controller, seen = watched("batch_loss", "lr", "epoch", "dataset_size", "seconds")
    run(controller, max_steps=3)
    records = controller.records
    assert seen[0].batch_loss is None
    assert seen[0].lr is None
    assert [one.batch_loss for one in seen[1:]] == [r.loss for r in records[:-1]]
    assert seen[1].lr == 0.1
    assert [one.epoch for one in seen] == pytest.approx([0, 1 / 6, 2 / 6])
    assert {one.dataset_size for one in seen} == {96}
    assert seen[2].seconds > seen[1].seconds > seen[0].seconds == 0


def test_the_norm_of_the_batch_s_gradient_is_that_of_autograd():
    controller, seen = watched("batch_grad_sq_norm", stream=stream_of(largest_pass=4))
    model, wanted = controller.model, []
    for update in controller.updates(max_steps=3):
        parts = [part.batch for part in update.batch.passes]
        batch = [torch.cat(column) for column in zip(*parts, strict=True)]
        grads = torch.autograd.grad(loss_of(model, batch), list(model.parameters()))
        wanted.append(float(sum(g.square().sum() for g in grads)))
        for part in update:
            update.backward(loss_of(model, part.batch))
        update.step()
    assert seen[0].batch_grad_sq_norm is None
    assert [s.batch_grad_sq_norm for s in seen[1:]] == pytest.approx(wanted[:-1])


def test_the_evaluated_loss_is_the_one_now_and_its_seconds_are_kept_apart():
    model = net()
    whole = MeanLoss(model, losses_of, data())
    controller, seen = watched(
        "eval_loss", model=model, sensing=Sensing(evaluate=whole)
    )
    before = []
    for update in controller.updates(max_steps=3):
        before.append(whole())
        for part in update:
            update.backward(loss_of(model, part.batch))
        update.step()
    assert [one.eval_loss for one in seen] == before
    assert [record.eval_loss for record in controller.records] == before
    assert controller.evaluating_seconds > 0


@pytest.mark.parametrize("source", ["units", "examples"])
def test_moments_are_unbiased_at_frozen_weights(source):
    """|G|^2 and tr Sigma of the whole data set, over 300 updates of it."""
    dataset, model = data(), net()
    rows = []
    for place in range(96):
        one = tuple(column[place : place + 1] for column in dataset[:])
        grads = torch.autograd.grad(loss_of(model, one), list(model.parameters()))
        rows.append(torch.cat([g.reshape(-1) for g in grads]))
    rows = torch.stack(rows)
    mean = rows.mean(0)
    variance = float((rows - mean).square().sum() / 95)
    controller, _ = watched(
        "moments",
        model=model,
        optimizer=SGD(model.parameters(), lr=0.0),
        sensing=Sensing(noise=source, every=1, horizon=1e9),
    )
    run(controller, max_steps=300)
    found = controller.noise_scale.moments
    assert found.grad_variance == pytest.approx(variance, rel=0.05)
    assert found.grad_sq_norm == pytest.approx(float(mean.square().sum()), rel=0.1)


def test_noise_is_read_every_so_many_updates_and_seen_from_then_on():
    controller, seen = watched("noise_scale", sensing=Sensing(every=4))
    run(controller, max_steps=10)
    assert seen[0].noise_scale is None
    values = [one.noise_scale for one in seen[1:]]
    assert values[0] == values[1] == values[3] != values[4]


def test_an_update_measured_in_units_has_eight_passes_and_the_others_one():
    controller, _ = watched("noise_scale", sensing=Sensing(noise="units", every=3))
    run(controller, max_steps=7)
    passes = [record.accumulation_steps for record in controller.records]
    assert passes == [8, 1, 1, 8, 1, 1, 8]


def test_auto_reads_examples_where_all_layers_can_be_read():
    controller, _ = watched("noise_scale", sensing=Sensing(every=1))
    run(controller, max_steps=4)
    assert controller.noise_scale.source == "examples"
    assert controller.records[0].accumulation_steps == 1


class Scaled(nn.Module):
    """A layer of one's own, whose examples nobody can read."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, x):
        return x * self.factor


def test_auto_goes_on_with_units_where_some_layer_cannot_be_read():
    model = nn.Sequential(net(), Scaled())
    controller, _ = watched("noise_scale", model=model, sensing=Sensing(every=1))
    run(controller, max_steps=12)
    assert controller.noise_scale.source == "units"
    assert controller.noise_scale.coverage == 1
    assert controller.records[-1].accumulation_steps == 8


def test_a_batch_of_one_example_waits_to_be_read():
    controller = controlled(
        Listed((1, 1, 8), needs=frozenset({"noise_scale"})),
        stream=stream_of(micro_batch_size=1),
        sensing=Sensing(every=1),
    )
    run(controller, max_steps=3)
    assert controller.noise_scale.estimate.num_steps == 1


@pytest.mark.parametrize("noise", ["auto", "examples", "units"])
def test_a_short_batch_of_one_example_at_an_epoch_s_end_is_left_out(noise):
    sensing = Sensing(noise=noise, every=2)
    stream = stream_of(data(9), tail="short")
    policy = Watching(4, frozenset({"noise_scale"}), [])
    controller = run(controlled(policy, stream=stream, sensing=sensing), max_steps=6)
    assert [one.batch_size for one in controller.records] == [4, 4, 1, 4, 4, 1]
    moments = [one.grad_sq_norm for one in controller.records]
    assert moments[0] == moments[1] == moments[2] != moments[3]


def test_the_noise_scale_stands_in_the_record():
    controller, _ = watched("moments", sensing=Sensing(every=1))
    run(controller, max_steps=5)
    record, reading = controller.records[-1], controller.noise_scale
    assert record.noise_scale == reading.value
    assert record.grad_variance == reading.moments.grad_variance
    assert record.noise_scale_low == reading.interval.low


def test_inner_products_are_asked_for_now_and_then():
    calls = []
    sensing = Sensing(inner_product_variance=lambda: calls.append(0) or 3.0, every=4)
    controller, seen = watched("inner_product_variance", sensing=sensing)
    run(controller, max_steps=9)
    assert len(calls) == 3
    assert {one.inner_product_variance for one in seen} == {3.0}


# Refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "sensing", "cure"),
    [
        ("eval_loss", Sensing(), "MeanLoss"),
        ("moments", Sensing(noise="off"), "noise='auto'"),
        ("noise_scale", Sensing(noise="off"), "noise='auto'"),
        ("inner_product_variance", Sensing(), "rightbatch.curvature"),
        ("tokens", Sensing(), r"Sensing\(tokens"),
    ],
)
def test_a_policy_that_needs_what_is_not_measured_is_refused_at_once(
    need, sensing, cure
):
    with pytest.raises(InputError, match=f"Watching needs `{need}`.*{cure}"):
        watched(need, sensing=sensing)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"noise": "unit"}, "noise.*units"),
        ({"every": 0}, "every"),
        ({"min_units": 1}, "min_units.*2 at least"),
        ({"min_units": 0}, "min_units"),
        ({"horizon": -1.0}, "horizon"),
        ({"horizon": "all"}, "horizon"),
    ],
)
def test_settings_out_of_range_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        Sensing(**settings)


def test_examples_are_refused_where_asked_for_and_unreadable():
    with pytest.raises(InputError):
        watched("noise_scale", model=Scaled(), sensing=Sensing(noise="examples"))
