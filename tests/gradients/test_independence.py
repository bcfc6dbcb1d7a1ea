"""Losses that know of the other examples are refused; all others pass."""

from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional

from rightbatch.errors import InputError
from rightbatch.gradients.independence import check_independence, halves

Pair = namedtuple("Pair", "inputs labels")


def batch_of(count, classes=3):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 4, generator=generator)
    return inputs, torch.randint(classes, (count,), generator=generator)


def cross_entropy(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def contrastive(model, batch):
    scores = functional.normalize(model(batch[0]))
    return -(scores @ scores.T).log_softmax(dim=1).diagonal()


def of_the_whole_batch(model, batch):
    return cross_entropy(model, batch).mean().expand(len(batch[0]))


def weighted_by_class(model, batch):
    counts = torch.bincount(batch[1], minlength=3).clamp(min=1)
    return cross_entropy(model, batch) / counts[batch[1]]


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


@pytest.mark.parametrize(
    "loss",
    [contrastive, of_the_whole_batch, weighted_by_class],
    ids=lambda f: f.__name__,
)
def test_a_loss_that_knows_of_other_examples_is_refused(loss):
    with pytest.raises(InputError, match="depends on the others of its batch"):
        check_independence(linear(), loss, batch_of(16))


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [nn.Dropout(0.5)],
        [nn.BatchNorm1d(4)],
        [nn.LayerNorm(4), nn.AlphaDropout(0.3)],
    ],
    ids=["plain", "dropout", "batch normalization", "both kinds"],
)
def test_dropout_and_batch_normalization_do_not_look_like_it(layers):
    check_independence(nn.Sequential(*layers, linear()), cross_entropy, batch_of(16))


class Restless(nn.Module):
    """Draws by a function, which no list of modules tells."""

    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, inputs):
        return self.inner(functional.dropout(inputs, 0.5, self.training))


def test_a_model_that_draws_by_itself_is_looked_at_in_evaluation_mode():
    check_independence(Restless(), cross_entropy, batch_of(16))
    with pytest.raises(InputError, match="depends on the others"):
        check_independence(Restless(), contrastive, batch_of(16))


class Normalized(nn.Module):
    """Normalizes over the batch in training mode, by its own means."""

    def __init__(self):
        super().__init__()
        self.inner = linear()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs):
        self.seen += 1
        if self.training:
            inputs = inputs - inputs.mean(0)
        return self.inner(inputs)


def test_a_custom_normalization_over_the_batch_is_seen_and_its_buffers_put_back():
    model = Normalized()
    with pytest.raises(InputError, match="custom normalization over the batch"):
        check_independence(model, cross_entropy, batch_of(16))
    assert float(model.seen) == 0


def test_modes_and_random_numbers_are_left_as_they_were():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4), linear())
    model[0].eval()
    before = torch.get_rng_state()
    check_independence(model, cross_entropy, batch_of(16))
    assert [module.training for module in model] == [False, True, True]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_parts_may_be_given_where_a_batch_cannot_be_cut():
    inputs, labels = batch_of(16)

    def by_columns(model, batch):
        return cross_entropy(model, (batch[0].T, batch[1]))

    parts = [(inputs[:5].T, labels[:5]), (inputs[5:].T, labels[5:])]
    check_independence(linear(), by_columns, (inputs.T, labels), parts)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rounding_is_not_taken_for_a_dependence(dtype):
    inputs, labels = batch_of(64)
    check_independence(linear().to(dtype), cross_entropy, (inputs.to(dtype), labels))


@pytest.mark.parametrize(
    ("loss", "count", "said"),
    [
        (lambda m, b: cross_entropy(m, b).mean(), 8, "shape .* got shape"),
        (cross_entropy, 1, "two examples or more, got 1"),
        (lambda m, b: cross_entropy(m, b)[:2], 8, "has 4 values"),
    ],
)
def test_what_is_no_loss_of_each_example_is_said(loss, count, said):
    with pytest.raises(InputError, match=said):
        check_independence(linear(), loss, batch_of(count))


def test_halves_keep_the_kind_of_batch():
    inputs, labels = batch_of(5)
    first, second = halves(Pair(inputs, {"y": [labels, "word"], "rate": 3}), 5)
    assert isinstance(first, Pair)
    assert (len(first.inputs), len(second.inputs)) == (2, 3)
    assert torch.equal(second.labels["y"][0], labels[2:])
    assert second.labels["rate"] == 3
    assert isinstance(halves((inputs, labels), 5)[0], tuple)


def test_losses_of_zero_agree():
    check_independence(linear(), lambda m, b: 0 * m(b[0])[:, 0], batch_of(8))
