"""A framework that fetches an update whole says beforehand what it weighs."""

import pytest
import torch
from controller.example_training import Listed, data, loss_of, net, weights
from torch.optim import SGD

from rightbatch.controller import Acting, HostedController, Sensing
from rightbatch.errors import InputError
from rightbatch.sampler import CountedStream

WORDS = (3.0, 5.0, 2.0)


def hosted(model, **settings):
    optimizer = SGD(model.parameters(), lr=0.1)
    stream = CountedStream(4, dataset_size=12)
    return HostedController(model, optimizer, Listed((12,)), stream, **settings)


@pytest.mark.parametrize("tells", [True, False])
def test_the_gradient_is_the_weighted_mean_told_or_not(tells):
    model = net()
    controller = hosted(model, sensing=Sensing(tokens=lambda batch: batch[2]))
    rows, labels = data(12)[:]
    parts = list(zip(rows.split(4), labels.split(4), WORDS, strict=True))
    controller.begin()
    if tells:
        controller.expect(sum(WORDS))
    shares = []
    for part in parts:
        shares.append(controller.enter(4, part))
        loss = loss_of(model, part)
        (loss * shares[-1]).backward()
        controller.leave(loss)
    found = torch.cat([one.grad.reshape(-1) for one in model.parameters()])
    whole = sum(n * loss_of(model, part) for n, part in zip(WORDS, parts, strict=True))
    grads = torch.autograd.grad(whole / sum(WORDS), list(model.parameters()))
    torch.testing.assert_close(found, torch.cat([one.reshape(-1) for one in grads]))
    if tells:
        assert shares == pytest.approx([0.3, 0.5, 0.2])


def test_an_update_that_weighs_nothing_is_refused():
    controller = hosted(net(), sensing=Sensing(tokens=lambda batch: 0))
    controller.begin()
    with pytest.raises(InputError, match="must hold a token that counts, got none"):
        controller.expect(0.0)
    assert not controller.is_open


def test_a_schedule_made_for_shorter_updates_too_goes_by_its_own_steps():
    model = net()
    controller = hosted(model, acting=Acting(lr_batch_size=4, counts="examples"))
    controller.schedule_steps = 1.5
    controller.begin()
    for _ in range(3):
        controller.enter(4)
        controller.leave(1.0)
    before = weights(model)
    controller.after_step()
    assert controller.owed_schedule_steps(made=1) == 3  # 3 batches of 1.5, floor(3.5)
    torch.testing.assert_close(weights(model), before)
