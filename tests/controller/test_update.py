"""The gradient of an update is the mean over its batch, whatever it is cut into."""

import pytest
import torch
from controller.example_training import (
    Listed,
    by_hand,
    controlled,
    data,
    loss_of,
    losses_of,
    net,
    run,
    stream_of,
    weights,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.optim import LBFGS, SGD, Adam
from torch.utils.data import TensorDataset

from rightbatch.controller import Acting, Sensing
from rightbatch.errors import InputError

SIZES = (4, 12, 28, 8, 20)


def gradients_of(controller, update):
    for part in update:
        update.backward(loss_of(controller.model, part.batch))
    return [p.grad.clone() for p in controller.model.parameters() if p.grad is not None]


def all_of(update):
    parts = [part.batch for part in update.batch.passes]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def exact(model, batch):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(loss_of(model, batch), trained)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    micro=st.sampled_from([1, 2, 3, 4, 8]),
    largest=st.sampled_from([None, 8, 16]),
    tail=st.sampled_from(["carry", "short", "drop"]),
    join=st.sampled_from(["doubling", "any"]),
)
def test_the_gradient_is_the_mean_over_the_batch(sizes, micro, largest, tail, join):
    stream = stream_of(data(53), micro, tail=tail, largest_pass=largest, join=join)
    controller = controlled(Listed(tuple(sizes)), stream=stream)
    for update in controller.updates(max_steps=7):
        found = gradients_of(controller, update)
        wanted = exact(controller.model, all_of(update))
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        update.step()


def test_the_trajectory_is_that_of_whole_batches_in_one_pass():
    plain = net()
    losses = by_hand(plain, SGD(plain.parameters(), lr=0.1), SIZES * 4)
    stream = stream_of(micro_batch_size=4, largest_pass=8)
    controller = run(controlled(Listed(SIZES), stream=stream), max_steps=20)
    assert [r.batch_size for r in controller.records] == list(SIZES * 4)
    assert [r.loss for r in controller.records] == pytest.approx(losses, rel=1e-9)
    torch.testing.assert_close(weights(controller.model), weights(plain))


def test_losses_of_single_examples_do_as_well_as_their_mean():
    one = run(controlled(Listed(SIZES)), max_steps=10)
    other = run(controlled(Listed(SIZES)), losses_of, max_steps=10)
    torch.testing.assert_close(weights(one.model), weights(other.model))


def test_a_frozen_parameter_has_no_gradient_and_stays():
    model = net()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    stream = stream_of(micro_batch_size=4, largest_pass=4)
    optimizer = SGD(model.parameters(), lr=0.1)
    controller = controlled(Listed((16,)), model, optimizer, stream)
    run(controller, max_steps=5)
    assert torch.equal(model[0].weight, before)
    assert model[0].weight.grad is None
    assert model[0].bias.grad is not None


def padded(count=64):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, 6, 5, generator=generator).double()
    labels = torch.randint(3, (count, 6), generator=generator)
    lengths = torch.randint(1, 7, (count, 1), generator=generator)
    return TensorDataset(x, labels.masked_fill(torch.arange(6) >= lengths, -100))


def token_loss(model, batch):
    return functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def count_tokens(batch):
    return int((batch[1] != -100).sum())


def test_passes_weigh_by_their_tokens_where_the_loss_is_a_mean_over_tokens():
    dataset = padded()
    plain, controller = (
        net(),
        controlled(
            Listed((16,)),
            stream=stream_of(dataset, 2, largest_pass=2),
            sensing=Sensing(tokens=count_tokens),
        ),
    )
    for update in controller.updates(max_steps=3):
        batch = all_of(update)
        plain.load_state_dict(controller.model.state_dict())
        wanted = torch.autograd.grad(token_loss(plain, batch), list(plain.parameters()))
        for part in update:
            update.backward(token_loss(controller.model, part.batch))
        for parameter, other in zip(controller.model.parameters(), wanted, strict=True):
            torch.testing.assert_close(parameter.grad, other, rtol=1e-9, atol=1e-12)
        update.step()
    tokens = sum(count_tokens([None, row[1]]) for row in dataset)
    whole_epoch = run(
        controlled(
            Listed((16,)),
            stream=stream_of(dataset, 2),
            sensing=Sensing(tokens=count_tokens),
        ),
        token_loss,
        epochs=1,
    )
    assert whole_epoch.records[-1].tokens == tokens


def test_a_batch_without_a_token_that_counts_is_refused():
    controller = controlled(Listed((4,)), sensing=Sensing(tokens=lambda batch: 0))
    with pytest.raises(InputError, match="must hold a token that counts"):
        run(controller, max_steps=1)


def test_mixed_precision_gives_the_gradient_scaled_and_the_step_unscaled():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    stream = stream_of(micro_batch_size=4, largest_pass=4)
    controller = controlled(Listed((16,)), stream=stream, acting=Acting(scaler=scaler))
    plain = net()
    by_hand(plain, SGD(plain.parameters(), lr=0.1), (16,) * 5)
    run(controller, max_steps=5)
    torch.testing.assert_close(weights(controller.model), weights(plain))


def test_autocast_and_a_growing_scale_train_on():
    dataset = data(dtype=torch.float32)
    model = net(dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    controller = controlled(
        Listed((8, 16)),
        model,
        stream=stream_of(dataset),
        acting=Acting(scaler=scaler, max_grad_norm=1.0),
    )

    def loss(model, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss_of(model, batch)

    run(controller, loss, max_steps=60)
    assert scaler.get_scale() > 8
    losses = [record.loss for record in controller.records]
    assert sum(losses[-12:]) < sum(losses[:12])


def test_long_gradients_are_clipped_to_the_norm_asked_for():
    plain = net()
    optimizer = SGD(plain.parameters(), lr=1.0)
    controller = controlled(
        Listed((16,)),
        optimizer=None,
        stream=stream_of(micro_batch_size=4, largest_pass=8),
        acting=Acting(max_grad_norm=0.01),
    )
    for update in controller.updates(max_steps=3):
        batch = all_of(update)
        plain.load_state_dict(controller.model.state_dict())
        optimizer.zero_grad()
        loss_of(plain, batch).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
        optimizer.param_groups[0]["lr"] = 0.1
        optimizer.step()
        for part in update:
            update.backward(loss_of(controller.model, part.batch))
        update.step()
        torch.testing.assert_close(weights(controller.model), weights(plain))


def test_an_optimizer_may_ask_for_the_loss_again():
    plain, model = net(), net()
    by_closure = LBFGS(plain.parameters(), lr=0.5, max_iter=4)
    batch = data()[:]

    def closure():
        by_closure.zero_grad()
        loss = loss_of(plain, batch)
        loss.backward()
        return loss

    for _ in range(3):
        by_closure.step(closure)
    stream = stream_of(micro_batch_size=96, shuffle=False)
    controller = controlled(
        Listed((96,)), model, LBFGS(model.parameters(), lr=0.5, max_iter=4), stream
    )
    for update in controller.updates(max_steps=3):
        update.step(update.closure(lambda part: loss_of(model, part.batch)))
    torch.testing.assert_close(weights(model), weights(plain))
    assert controller.records[-1].loss < controller.records[0].loss


def test_a_closure_accumulates_too_and_noise_is_read_once():
    model = net()
    controller = controlled(
        Listed((32,), needs=frozenset({"noise_scale"})),
        model,
        LBFGS(model.parameters(), lr=0.5, max_iter=3),
        stream_of(micro_batch_size=4, largest_pass=8),
        sensing=Sensing(every=1, noise="units"),
    )
    for update in controller.updates(max_steps=4):
        update.step(update.closure(lambda part: loss_of(model, part.batch)))
    assert controller.noise_scale.estimate.num_steps == 4


def test_out_of_memory_begins_the_update_anew_in_smaller_passes_of_the_same_batch():
    plain = net()
    by_hand(plain, Adam(plain.parameters(), lr=0.01), (32,) * 3)
    model = net()
    controller = controlled(
        Listed((32,)),
        model,
        Adam(model.parameters(), lr=0.01),
        stream_of(micro_batch_size=4),
    )

    def fits(model, batch):
        if len(batch[0]) > 8:
            raise torch.OutOfMemoryError("not enough memory")
        return loss_of(model, batch)

    for update in controller.updates(max_steps=3):
        while True:
            try:
                for part in update:
                    update.backward(fits(model, part.batch))
                break
            except torch.OutOfMemoryError:
                update.in_smaller_passes()
        update.step()
    torch.testing.assert_close(weights(model), weights(plain))
    assert [r.batch_size for r in controller.records] == [32] * 3
    assert [r.accumulation_steps for r in controller.records] == [4] * 3


def test_passes_of_one_example_cannot_be_made_smaller():
    controller = controlled(Listed((1,)), stream=stream_of(micro_batch_size=1))
    update = next(iter(controller.updates(max_steps=1)))
    with pytest.raises(InputError, match="holds one example already"):
        update.in_smaller_passes()


# Misuse -------------------------------------------------------------------------------


@pytest.fixture
def update():
    controller = controlled(Listed((16,)), stream=stream_of(largest_pass=8))
    return next(iter(controller.updates(max_steps=1)))


def test_a_pass_without_its_backward_is_refused(update):
    with pytest.raises(InputError, match="ended without its backward"):
        for _ in update:
            pass


def test_a_step_before_all_passes_is_refused(update):
    with pytest.raises(InputError, match="forward passes are left"):
        update.step()


def test_a_backward_outside_of_a_pass_is_refused(update):
    with pytest.raises(InputError, match="no forward pass waits"):
        update.backward(torch.ones(()))


def test_a_second_backward_in_one_pass_is_refused():
    controller = controlled(Listed((4,)))
    update = next(iter(controller.updates(max_steps=1)))
    part = next(iter(update))
    update.backward(loss_of(controller.model, part.batch))
    with pytest.raises(InputError, match="no forward pass waits"):
        update.backward(loss_of(controller.model, part.batch))


def test_a_loss_of_another_shape_is_refused(update):
    next(iter(update))
    with pytest.raises(InputError, match=r"`loss` must be a mean.*got shape \(3,\)"):
        update.backward(torch.ones(3, requires_grad=True))


def test_a_second_step_is_refused():
    controller = controlled(Listed((4,)))
    update = next(iter(controller.updates(max_steps=1)))
    for part in update:
        update.backward(loss_of(controller.model, part.batch))
    update.step()
    with pytest.raises(InputError, match="was made already"):
        update.step()


def test_an_update_that_is_not_made_is_refused():
    controller = controlled(Listed((4,)))
    with pytest.raises(InputError, match="an update was not made"):
        for _ in controller.updates(max_steps=2):
            pass


@pytest.mark.parametrize("limit", ["epochs", "max_steps", "max_examples"])
def test_limits_are_positive(limit):
    with pytest.raises(InputError, match=f"`{limit}` must be"):
        controlled(Listed((4,))).updates(**{limit: 0})
