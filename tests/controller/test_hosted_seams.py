"""What a framework's loop does besides: it leaves losses out, and steps schedules."""

import pytest
import torch
from controller.example_training import Listed, data, loss_of, net
from torch.optim import SGD

from rightbatch.controller import Acting, HostedController, Sensing
from rightbatch.policies import NoiseFollowing
from rightbatch.sampler import CountedStream


def hosted(policy=None, **settings):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    stream = CountedStream(4, dataset_size=96)
    policy = policy or Listed((12,))
    return HostedController(model, optimizer, policy, stream, **settings), optimizer


def part(place):
    x, y = data().tensors
    return x[place * 4 : place * 4 + 4], y[place * 4 : place * 4 + 4]


def backward(controller, place):
    share = controller.enter(4)
    loss = loss_of(controller.model, part(place))
    (loss * share).backward()
    return controller.leave(loss)


def gradient(model):
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("left_out", [0, 1, 2])
@pytest.mark.parametrize("noise", ["units", "examples"])
def test_an_update_is_the_mean_over_the_micro_batches_that_were_not_withdrawn(
    left_out, noise
):
    sensing = Sensing(noise=noise, every=1)
    policy = NoiseFollowing(initial_batch_size=12)
    controller, optimizer = hosted(policy, sensing=sensing)
    assert controller.begin() == 3
    complete = []
    for place in range(3):
        if place == left_out:
            controller.enter(4)
            complete.append(controller.withdraw())
        else:
            complete.append(backward(controller, place))
    assert complete == [False, False, True]
    whole = net()
    kept = [part(place) for place in range(3) if place != left_out]
    loss_of(whole, [torch.cat(one) for one in zip(*kept, strict=True)]).backward()
    torch.testing.assert_close(gradient(controller.model), gradient(whole))
    record = controller.after_step()
    assert (record.batch_size, record.examples, record.accumulation_steps) == (8, 8, 2)
    # Half an update tells nothing of the noise; the next one is measured.
    assert controller.noise_scale is None
    optimizer.zero_grad()
    for place in range(controller.begin()):
        backward(controller, place)
    assert controller.noise_scale is not None


def test_an_update_with_nothing_left_is_forgotten():
    controller, _ = hosted()
    for _ in range(controller.begin()):
        controller.enter(4)
        assert not controller.withdraw()
    assert not controller.is_open
    assert (controller.step, controller.examples) == (0, 0)


def test_settings_that_were_put_back_stay_so_and_the_record_has_the_step_s():
    controller, optimizer = hosted(lr_rule="linear", acting=Acting(lr_batch_size=4))
    for place in range(controller.begin()):
        backward(controller, place)
    controller.before_step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3)
    controller.put_back()
    optimizer.param_groups[0]["lr"] = 0.05  # by the framework's schedule
    assert controller.after_step().lr == pytest.approx(0.3)
    assert optimizer.param_groups[0]["lr"] == 0.05
    controller.put_back()


def test_time_that_is_excused_is_none_of_the_update_s():
    controller, _ = hosted()
    for place in range(controller.begin()):
        backward(controller, place)
    controller.excuse(100.0)
    assert controller.after_step().seconds < 0
