"""A controller in a framework's loop makes the updates of its own loop."""

import math

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
from torch.optim import LBFGS, SGD, Adam
from torch.optim.lr_scheduler import StepLR

from rightbatch.controller import Acting, Guard, HostedController, Sensing
from rightbatch.errors import DivergedError, InputError
from rightbatch.policies import GeoDamp, NoiseFollowing, PadaDamp
from rightbatch.sampler import CountedStream, ExampleStream

MICRO = 4


def hosted(policy, model, optimizer, dataset, **settings):
    stream = CountedStream(MICRO, dataset_size=len(dataset))
    return HostedController(model, optimizer, policy, stream, **settings)


def epochs_of(dataset, number, seed=0):
    """Return the micro-batches of each epoch, as a framework's loader has them."""
    stream = ExampleStream(dataset, seed)
    for _ in range(number):
        x, y = stream.next(len(dataset))
        yield list(zip(x.split(MICRO), y.split(MICRO), strict=True))


def host(controller, optimizer, micro_batches, *, loss=loss_of, begin_at=0):
    """Go over an epoch as a framework does: its own loader, backward and step."""
    place, records = begin_at, []
    while place < len(micro_batches):
        count = controller.begin(most=len(micro_batches) - place)
        optimizer.zero_grad()
        for batch in micro_batches[place : place + count]:
            share = controller.enter(len(batch[0]), batch)
            found = loss(controller.model, batch)
            (found * share).backward()
            is_complete = controller.leave(found)
        assert is_complete
        controller.before_step()
        optimizer.step()
        records.append(controller.after_step())
        place += count
    return records


@pytest.mark.parametrize("count", [96, 94], ids=["even", "ragged"])
@pytest.mark.parametrize("lr_rule", ["none", "linear", "auto"])
@pytest.mark.parametrize(
    "policy",
    [
        Listed((4, 12, 20, 8)),
        GeoDamp(initial_batch_size=4, delay=1, factor=2),
        PadaDamp(initial_batch_size=4, rate=0.5),
        NoiseFollowing(initial_batch_size=8),
    ],
    ids=["listed", "geodamp", "padadamp", "noise"],
)
def test_the_updates_are_those_of_the_plain_controller(policy, lr_rule, count):
    dataset, sensing = data(count), Sensing(noise="examples", every=3)
    settings = {"lr_rule": lr_rule, "sensing": sensing}
    stream = stream_of(dataset, MICRO, tail="short", join="never")
    plain = run(controlled(policy, stream=stream, **settings), epochs=3)
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    controller = hosted(policy, model, optimizer, dataset, **settings)
    for micro_batches in epochs_of(dataset, 3):
        host(controller, optimizer, micro_batches)
    torch.testing.assert_close(weights(model), weights(plain.model))
    for own, one in zip(controller.records, plain.records, strict=True):
        assert own.batch_size == one.batch_size
        assert own.examples == one.examples
        assert own.lr == pytest.approx(one.lr, rel=1e-9)
        assert own.loss == pytest.approx(one.loss, rel=1e-9)
        measured = one.noise_scale
        assert own.noise_scale == (measured and pytest.approx(measured, rel=1e-6))
        assert own.epoch == pytest.approx(one.epoch)


def test_an_update_is_the_mean_over_its_examples_however_ragged():
    (x, y), model = data(11).tensors, net()
    optimizer = SGD(model.parameters(), lr=1.0)
    controller = hosted(Listed((12,)), model, optimizer, data(11))
    assert controller.begin() == 3
    for rows in (slice(0, 4), slice(4, 5), slice(5, 11)):
        share = controller.enter(len(x[rows]))
        found = loss_of(model, (x[rows], y[rows]))
        (found * share).backward()
        controller.leave(found)
    own = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    whole = net()
    expected = loss_of(whole, (x, y))
    expected.backward()
    true = torch.cat([p.grad.reshape(-1) for p in whole.parameters()])
    torch.testing.assert_close(own, true)
    controller.after_step()
    (record,) = controller.records
    assert (record.batch_size, record.examples) == (11, 11)
    assert record.loss == pytest.approx(float(expected.detach()))


def test_tokens_weigh_instead_of_examples_and_are_counted():
    (x, y), model = data(12).tensors, net()
    counts = torch.arange(12) % 5  # the first of every five examples counts for nothing

    def mean(model, rows):
        losses = losses_of(model, (x[rows], y[rows]))
        return (losses * counts[rows]).sum() / max(int(counts[rows].sum()), 1)

    optimizer = SGD(model.parameters(), lr=1.0)
    sensing = Sensing(tokens=lambda rows: counts[rows].sum())
    controller = hosted(Listed((12,)), model, optimizer, data(12), sensing=sensing)
    controller.begin()
    for rows in (slice(0, 1), slice(1, 8), slice(8, 12)):
        share = controller.enter(rows.stop - rows.start, rows)
        found = mean(model, rows)
        (found * share).backward()
        controller.leave(found)
    own = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    whole = net()
    mean(whole, slice(0, 12)).backward()
    true = torch.cat([p.grad.reshape(-1) for p in whole.parameters()])
    torch.testing.assert_close(own, true)
    controller.after_step()
    assert controller.records[0].tokens == counts.sum()


def test_a_run_goes_on_from_its_state():
    dataset = data(96)
    settings = {"lr_rule": "auto", "sensing": Sensing(noise="examples", every=3)}
    policy = NoiseFollowing(initial_batch_size=8)
    (micro_batches,) = epochs_of(dataset, 1)

    def begun():
        model = net()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        return hosted(policy, model, optimizer, dataset, **settings), optimizer

    whole, optimizer = begun()
    host(whole, optimizer, micro_batches)
    first, optimizer = begun()
    host(first, optimizer, micro_batches[:10])
    state = first.state_dict()
    second, other = begun()
    second.model.load_state_dict(first.model.state_dict())
    other.load_state_dict(optimizer.state_dict())
    second.load_state_dict(state)
    host(second, other, micro_batches, begin_at=10)
    torch.testing.assert_close(weights(second.model), weights(whole.model))
    assert second.examples == whole.examples


def test_the_state_of_a_broken_off_update_is_the_one_before_it():
    model, dataset = net(), data()
    optimizer = SGD(model.parameters(), lr=0.1)
    controller = hosted(
        Listed((4, 8)), model, optimizer, dataset, sensing=Sensing(noise="units")
    )
    (micro_batches,) = epochs_of(dataset, 1)
    host(controller, optimizer, micro_batches[:3])
    before = controller.state_dict()
    controller.begin()
    controller.enter(MICRO)
    assert controller.is_open
    during = controller.state_dict()
    assert (during["stream"], during["state"]) == (before["stream"], before["state"])
    controller.discard()
    assert not controller.is_open
    assert controller.state_dict()["stream"] == before["stream"]
    host(controller, optimizer, micro_batches[3:6])
    assert [one.batch_size for one in controller.records] == [4, 8, 4, 8]


def test_settings_are_the_user_s_own_between_steps():
    model = net()
    optimizer = Adam(model.parameters(), lr=0.1)
    controller = hosted(
        Listed((4, 16)), model, optimizer, data(), lr_rule="square-root"
    )
    (micro_batches,) = epochs_of(data(), 1)
    records = host(controller, optimizer, micro_batches[:5])
    assert [one.lr for one in records] == pytest.approx([0.1, 0.2])
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_step_that_was_left_out_is_said_so():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    controller = hosted(Listed((4,)), model, optimizer, data())
    controller.begin()
    share = controller.enter(4)
    controller.leave(share, grad_scale=2.0)
    record = controller.after_step(is_made=False)
    assert record.reason.startswith("no step")


@pytest.mark.parametrize(
    ("counts", "schedule_steps"), [("steps", 5), ("examples", 9), ("auto", 9)]
)
def test_a_schedule_moves_as_far_as_the_updates_count(counts, schedule_steps):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = StepLR(optimizer, 1)
    acting = Acting(counts=counts)
    controller = hosted(Listed((4, 10)), model, optimizer, data(), acting=acting)
    (micro_batches,) = epochs_of(data(), 1)
    made = 0
    for record in host(controller, optimizer, micro_batches[:9]):
        assert record.batch_size in (4, 12)
        made += 1  # the framework's own, after each update
    assert made == 5
    made += controller.owed_schedule_steps(made)
    assert made == schedule_steps
    assert scheduler.last_epoch == 0


def test_a_schedule_that_is_early_is_waited_for():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    acting = Acting(counts="examples", lr_batch_size=8)
    controller = hosted(Listed((4, 16)), model, optimizer, data(), acting=acting)
    (micro_batches,) = epochs_of(data(), 1)
    host(controller, optimizer, micro_batches[:1])
    assert controller.owed_schedule_steps(1) == 0  # half a step, and one was made
    host(controller, optimizer, micro_batches[1:5])
    assert controller.owed_schedule_steps(1) == 0  # 2.5 of 2
    host(controller, optimizer, micro_batches[5:6])
    assert controller.owed_schedule_steps(0) == 1


def test_noise_is_read_in_units_where_an_update_has_two():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    sensing = Sensing(noise="units", every=1)
    controller = hosted(
        Listed((4, 24)), model, optimizer, data(), lr_rule="adascale", sensing=sensing
    )
    (micro_batches,) = epochs_of(data(), 1)
    host(controller, optimizer, micro_batches[:1])
    assert controller.noise_scale is None
    host(controller, optimizer, micro_batches[1:7])
    assert controller.noise_scale is not None


def test_the_norm_of_the_batch_s_gradient_is_told_unscaled():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    policy = Listed((4,), needs=frozenset({"batch_grad_sq_norm"}))
    controller = hosted(policy, model, optimizer, data())
    controller.begin()
    batch = data()[:4]
    share = controller.enter(4)
    found = loss_of(model, batch)
    (found * share * 8).backward()
    controller.leave(found, grad_scale=8.0)
    square = sum(float(p.grad.square().sum()) for p in model.parameters()) / 64
    assert controller.after_step().batch_grad_sq_norm == pytest.approx(square)


def test_a_framework_may_end_an_update_early():
    model = net()
    controller = hosted(Listed((16,)), model, SGD(model.parameters(), lr=0.1), data())
    assert controller.begin() == 4
    controller.enter(4)
    assert not controller.leave(1.0)
    controller.enter(4)
    assert controller.leave(3.0, is_last=True)
    record = controller.after_step()
    assert (record.batch_size, record.accumulation_steps) == (8, 2)
    assert record.loss == pytest.approx(2.0)


def test_a_lost_run_is_stopped():
    model = net()
    controller = hosted(Listed((4,)), model, SGD(model.parameters(), lr=0.1), data())
    controller.begin()
    controller.enter(4)
    with pytest.raises(DivergedError, match="training is lost at update 1: a loss"):
        controller.leave(math.nan)
    unguarded = hosted(
        Listed((4,)),
        model,
        SGD(model.parameters(), lr=0.1),
        data(),
        acting=Acting(guard=None),
    )
    unguarded.begin()
    unguarded.enter(4)
    assert unguarded.leave(math.nan)


def test_what_the_watch_has_seen_is_kept():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    acting = Acting(guard=Guard(factor=3))
    controller = hosted(Listed((4,)), model, optimizer, data(), acting=acting)
    (micro_batches,) = epochs_of(data(), 1)
    host(controller, optimizer, micro_batches[:3])
    other = hosted(Listed((4,)), model, optimizer, data(), acting=acting)
    other.load_state_dict(controller.state_dict())
    assert other.state_dict()["watch"] == controller.state_dict()["watch"]
    assert other.state_dict()["watch"]["seen"] == 12


@pytest.mark.parametrize("name", ["enter", "leave", "before_step", "after_step"])
def test_nothing_comes_before_begin(name):
    model = net()
    controller = hosted(Listed((4,)), model, SGD(model.parameters(), lr=0.1), data())
    arguments = {"enter": [4], "leave": [1.0]}.get(name, [])
    with pytest.raises(InputError, match=f"HostedController.{name}: no update has"):
        getattr(controller, name)(*arguments)


def test_an_update_needs_a_micro_batch():
    model = net()
    controller = hosted(Listed((4,)), model, SGD(model.parameters(), lr=0.1), data())
    with pytest.raises(InputError, match="`most` must be positive, got 0"):
        controller.begin(most=0)


def test_an_update_without_a_token_is_refused():
    model = net()
    sensing = Sensing(tokens=lambda batch: 0)
    optimizer = SGD(model.parameters(), lr=0.1)
    controller = hosted(Listed((4,)), model, optimizer, data(), sensing=sensing)
    controller.begin()
    controller.enter(4)
    with pytest.raises(InputError, match="must hold a token that counts, got none"):
        controller.leave(1.0)
    assert not controller.is_open


def test_what_is_the_framework_s_is_refused():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    for acting, name in (
        (Acting(max_grad_norm=1.0), "max_grad_norm"),
        (Acting(scheduler=StepLR(optimizer, 1)), "scheduler"),
        (Acting(scaler=torch.amp.GradScaler("cpu")), "scaler"),
    ):
        with pytest.raises(InputError, match=rf"Acting\({name}=...\) is the framework"):
            hosted(Listed((4,)), model, optimizer, data(), acting=acting)
    with pytest.raises(InputError, match="LBFGS asks for the loss several times"):
        hosted(Listed((4,)), model, LBFGS(model.parameters()), data())


def test_a_counted_stream_goes_on_from_its_own_position_only():
    stream = CountedStream(4, dataset_size=10, num_replicas=2)
    assert (stream.granule, stream.served(1e9), stream.served(3)) == (8, 16, 8)
    assert CountedStream(4).served(math.inf) == 4
    stream.next(16)
    other = CountedStream(4)
    other.load_state_dict(stream.state_dict())
    assert (other.examples, other.taken, other.begins_at(4)) == (16, 16, 16)
    with pytest.raises(InputError, match="the state is of another stream"):
        other.load_state_dict({"examples": 3})
    with pytest.raises(InputError, match="`dataset_size` must be"):
        CountedStream(4, dataset_size=0)
