"""Channels last: the same numbers, and only where a model takes them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from rightbatch.sampler.image_layout import images_last, layout_for


def net(channels=1, flatten=None):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        flatten or nn.Flatten(),
        nn.Linear(4 * 3 * 3, 5),
    )


class Viewed(nn.Module):
    """Flattens as many tutorials do, which needs the channels first."""

    def forward(self, images):
        return images.view(len(images), -1)


def loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def batch_of(channels, count=6):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, channels, 8, 8, generator=generator)
    return images, torch.arange(count) % 5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 6])
def test_images_laid_out_anew_hold_the_same_numbers(channels, count):
    images, labels = batch_of(channels, count)
    again, same_labels = images_last((images, labels))
    assert torch.equal(again, images)
    assert same_labels is labels
    assert again.stride()[1] == 1
    # A view of part of a chunk is laid out as well.
    part = batch_of(channels)[0][2:5]
    assert torch.equal(images_last(part), part)


@pytest.mark.parametrize("channels", [1, 3])
def test_losses_and_gradients_are_the_same_to_rounding(channels):
    model, batch = net(channels), batch_of(channels)
    layout = layout_for(model, loss, batch)
    assert layout is images_last
    plain = loss(model, batch)
    ours = loss(model, layout(batch))
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    wanted = torch.autograd.grad(plain.sum(), list(model.parameters()))
    found = torch.autograd.grad(ours.sum(), list(model.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_model_that_views_its_images_as_rows_keeps_them_as_they_are():
    batch = batch_of(3)
    assert layout_for(net(3, Viewed()), loss, batch)(batch) is batch


def test_a_model_that_reads_memory_in_another_order_keeps_them_as_they_are():
    class AsStored(nn.Module):
        def forward(self, images):
            return images.as_strided((len(images), 36), (36, 1))

    batch = batch_of(3)
    assert layout_for(net(3, AsStored()), loss, batch)(batch) is batch


class HeadInTraining(nn.Module):
    """Views its images as rows, in training alone."""

    def __init__(self):
        super().__init__()
        self.body = net(3)

    def forward(self, images):
        if self.training:
            assert images.view(len(images), -1).ndim == 2
        return self.body(images)


class WithStridesAndAZeroHead(nn.Module):
    """Reads memory in its order; a head of zeros hides it."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(192, 5)
        nn.init.zeros_(self.head.weight)

    def forward(self, images):
        out = self.convolution(images)
        return self.head(out.as_strided((len(out), 192), (192, 1)))


@pytest.mark.parametrize("make", [HeadInTraining, WithStridesAndAZeroHead])
def test_models_that_only_seem_to_take_it_keep_images_as_they_are(make):
    batch = batch_of(3)
    assert layout_for(make(), loss, batch)(batch) is batch


def test_a_metric_that_views_its_images_keeps_them_as_they_are():
    def brightness(model, batch):
        return batch[0].view(len(batch[0]), -1).mean(1)

    batch = batch_of(3)
    assert layout_for(net(3), loss, batch) is images_last
    assert layout_for(net(3), loss, batch, [brightness])(batch) is batch


def test_trying_it_draws_nothing_from_the_callers_generators():
    def noisy(model, batch):
        return loss(model, (batch[0] + torch.rand(()), batch[1]))

    model = net()
    before = torch.get_rng_state()
    assert layout_for(model, noisy, batch_of(1)) is images_last
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_convolution_nothing_is_tried():
    def never(model, batch):
        raise AssertionError

    batch = batch_of(1)
    assert layout_for(nn.Linear(2, 2), never, batch)(batch) is batch


def test_trying_it_changes_neither_the_model_nor_its_statistics():
    model = nn.Sequential(nn.BatchNorm2d(1), net())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layout_for(model, loss, batch_of(1))
    assert model.training
    assert all(torch.equal(before[name], v) for name, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_batches_of_other_kinds_pass_with_their_images_laid_out():
    images, labels = batch_of(3)
    made = images_last({"images": [images, "name"], "labels": labels})
    assert made["images"][0].stride()[1] == 1
    assert (made["images"][1], made["labels"] is labels) == ("name", True)
    sequences = torch.zeros(2, 3, 4)
    assert images_last(sequences) is sequences
