"""Norms of single examples' gradients of every layer, beside vmap over gradients."""

import pytest
import torch
from gradients.example_models import each_gradient
from torch import nn

from rightbatch.gradients.per_example.convolution import (
    Geometry,
    can_go_by_rows,
    gradients_by_rows,
    weight_gradients,
    weight_of_rows,
)
from rightbatch.gradients.per_example.embedding import table_gradient, table_squares
from rightbatch.gradients.per_example.layers import kind_of
from rightbatch.gradients.per_example.linear import (
    gram_is_cheaper,
    gram_squares,
    row_norms,
    summed,
)
from rightbatch.gradients.per_example.uses import Use, squares_of_uses

BATCH = 5


def numbers(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def ids(*shape, high=7):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(high, shape, generator=generator)


def batch_norm():
    layer = nn.BatchNorm2d(4).eval()
    layer.running_mean += 0.3
    layer.running_var *= 1.7
    return layer


LAYERS = {
    "linear, a row an example": (nn.Linear(3, 4), numbers(BATCH, 3)),
    "linear without bias": (nn.Linear(3, 4, bias=False), numbers(BATCH, 3)),
    "linear on sequences": (nn.Linear(3, 4), numbers(BATCH, 6, 3)),
    "linear on short sequences": (nn.Linear(30, 40), numbers(BATCH, 2, 30)),
    "linear on grids": (nn.Linear(3, 4), numbers(BATCH, 2, 3, 3)),
    "embedding": (nn.Embedding(7, 4), ids(BATCH, 6)),
    "embedding of one": (nn.Embedding(7, 4), ids(BATCH)),
    "embedding of grids": (nn.Embedding(7, 4), ids(BATCH, 2, 3)),
    "embedding with padding": (nn.Embedding(7, 4, padding_idx=2), ids(BATCH, 6)),
    "conv1d": (nn.Conv1d(2, 3, 3), numbers(BATCH, 2, 8)),
    "conv1d, strided": (nn.Conv1d(2, 4, 3, stride=2, groups=2), numbers(BATCH, 2, 8)),
    "conv2d": (nn.Conv2d(2, 3, 3), numbers(BATCH, 2, 7, 6)),
    "conv2d, one channel": (nn.Conv2d(1, 3, (2, 3)), numbers(BATCH, 1, 7, 6)),
    "conv2d, padded": (nn.Conv2d(2, 3, 3, padding=(1, 2)), numbers(BATCH, 2, 5, 6)),
    "conv2d, same": (nn.Conv2d(2, 3, (5, 3), padding="same"), numbers(BATCH, 2, 5, 6)),
    "conv2d, valid": (nn.Conv2d(2, 3, 2, padding="valid"), numbers(BATCH, 2, 5, 6)),
    "conv2d, circular": (
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        numbers(BATCH, 2, 5, 6),
    ),
    "conv2d, strided": (nn.Conv2d(2, 3, 3, stride=(2, 3)), numbers(BATCH, 2, 8, 9)),
    "conv2d, dilated": (nn.Conv2d(2, 3, 3, dilation=2), numbers(BATCH, 2, 8, 9)),
    "conv2d, grouped": (nn.Conv2d(4, 6, 3, groups=2), numbers(BATCH, 4, 5, 6)),
    "conv2d, by channel": (
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        numbers(BATCH, 4, 5, 6),
    ),
    "conv3d": (
        nn.Conv3d(2, 4, 2, stride=2, padding=1, groups=2),
        numbers(BATCH, 2, 4, 5, 6),
    ),
    "layer norm": (nn.LayerNorm(4), numbers(BATCH, 4)),
    "layer norm on sequences": (nn.LayerNorm(4), numbers(BATCH, 6, 4)),
    "layer norm of grids": (nn.LayerNorm((3, 4)), numbers(BATCH, 2, 3, 4)),
    "layer norm without bias": (nn.LayerNorm(4, bias=False), numbers(BATCH, 6, 4)),
    "rms norm": (nn.RMSNorm(4), numbers(BATCH, 6, 4)),
    "group norm": (nn.GroupNorm(2, 4), numbers(BATCH, 4, 3, 3)),
    "group norm on rows": (nn.GroupNorm(2, 4), numbers(BATCH, 4)),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), numbers(BATCH, 4, 3, 3)),
    "batch norm that is off": (batch_norm(), numbers(BATCH, 4, 3, 3)),
}


@pytest.fixture(params=LAYERS.items(), ids=LAYERS.keys())
def one_pass(request):
    """A layer in float64, its input, its output's gradient, and each gradient."""
    _, (layer, a) = request.param
    torch.manual_seed(0)
    layer = layer.double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    g = numbers(*layer(a).shape, seed=2)
    each = each_gradient(layer, lambda out, target: (out * target).sum(), a, g)
    return layer, a, g, each


def close(found, truth):
    assert torch.allclose(found, truth, rtol=1e-10, atol=1e-12)


def test_squared_norms_are_those_of_each_example(one_pass):
    layer, a, g, each = one_pass
    found = kind_of(layer).squares(layer, a, g, list(each))
    for name, gradients in each.items():
        close(found[name], gradients.flatten(1).square().sum(1))


def test_sums_are_those_of_each_example_too(one_pass):
    layer, a, g, each = one_pass
    found = kind_of(layer).sums(layer, a, g, list(each))
    for name, gradients in each.items():
        squares, total = found[name]
        close(squares, gradients.flatten(1).square().sum(1))
        close(total, gradients.sum(0))


def test_each_gradient_can_be_had(one_pass):
    layer, a, g, each = one_pass
    for name, gradients in each.items():
        found = kind_of(layer).each(layer, a, g, name)
        close(found.reshape(gradients.shape), gradients)
        total = kind_of(layer).total(layer, a, g, name)
        close(total.reshape(gradients.shape[1:]), gradients.sum(0))


def test_what_a_matrix_was_used_for_gives_the_same_norms(one_pass):
    layer, a, g, each = one_pass
    use = kind_of(layer).use
    if use is not None:
        truth = each["weight"].flatten(1).square().sum(1)
        close(squares_of_uses([use(layer, a, g)]), truth)


def test_products_of_rows_and_sums_of_gradients_agree():
    a, g = numbers(3, 4, 5), numbers(3, 4, 6, seed=1)
    squares, total = summed(a, g)
    close(gram_squares(a, g), squares)
    close(total, torch.einsum("btq,btp->qp", g, a))


def test_sums_made_in_chunks_are_the_same(monkeypatch):
    from rightbatch.gradients.per_example import linear

    a, g = numbers(7, 4, 5), numbers(7, 4, 6, seed=1)
    whole = summed(a, g)
    monkeypatch.setattr(linear, "CHUNK_NUMBERS", 2 * 5 * 6)
    for one, other in zip(whole, summed(a, g), strict=True):
        close(one, other)


def test_a_convolution_s_sums_are_the_same_in_chunks_and_by_rows(monkeypatch):
    from rightbatch.gradients.per_example import convolution

    layer = nn.Conv2d(3, 4, 3).double()
    a = numbers(7, 3, 6, 6)
    g = numbers(*layer(a).shape, seed=1)
    whole = convolution.summed(layer, a, g)
    for name, value in (("CHUNK_NUMBERS", 250), ("LARGE_WEIGHT", 0)):
        monkeypatch.setattr(convolution, name, value)
        for one, other in zip(whole, convolution.summed(layer, a, g), strict=True):
            close(one, other)


def test_products_of_rows_are_for_few_rows_and_wide_layers():
    assert gram_is_cheaper(8, 1024, 1024)
    assert not gram_is_cheaper(128, 128, 128)


def test_half_precision_is_summed_in_single():
    rows = torch.full((2, 70_000), 1.0, dtype=torch.float16)
    assert torch.allclose(row_norms(rows), torch.tensor(70_000.0).sqrt())


def test_both_ways_to_a_convolution_s_gradients_agree():
    layer = nn.Conv2d(3, 4, (3, 2), padding=1).double()
    a = numbers(5, 3, 6, 7)
    g = numbers(*layer(a).shape, seed=1)
    geometry = Geometry.of(layer)
    assert can_go_by_rows(geometry)
    rows = gradients_by_rows(a, g, geometry)
    each = weight_gradients(a, g, geometry)
    close(weight_of_rows(rows, 3, 2), each.sum(0))


def test_a_table_s_gradient_is_summed_by_row():
    numbers_of_rows, g = ids(3, 4), numbers(3, 4, 2)
    total = table_gradient(numbers_of_rows, g, 7)
    spelled = torch.zeros(7, 2, dtype=torch.float64)
    for example in range(3):
        for place in range(4):
            spelled[numbers_of_rows[example, place]] += g[example, place]
    close(total, spelled)
    assert table_squares(numbers_of_rows, g).shape == (3,)


def test_uses_of_every_kind_have_cross_terms():
    looked = [Use(ids(3, 4), numbers(3, 4, 2, seed=s)) for s in (1, 2)]
    multiplied = [
        Use(numbers(3, 5, 7, seed=s), numbers(3, 5, 2, seed=s + 9)) for s in (3, 4)
    ]
    total = torch.zeros(3, 7, 2, dtype=torch.float64)
    for use in looked:
        index = use.left.unsqueeze(-1).expand_as(use.right)
        total.scatter_add_(1, index, use.right)
    for use in multiplied:
        total += use.left.transpose(1, 2) @ use.right
    close(squares_of_uses([*looked, *multiplied]), total.flatten(1).square().sum(1))
    close(
        squares_of_uses([multiplied[0], looked[0], multiplied[1], looked[1]]),
        total.flatten(1).square().sum(1),
    )


class Doubled(nn.Linear):
    """A subclass that computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "layer",
    [
        Doubled(2, 2),
        nn.LSTM(2, 2),
        nn.Bilinear(2, 2, 2),
        nn.ConvTranspose2d(2, 2, 2),
        nn.Embedding(3, 2, sparse=True),
        nn.Embedding(3, 2, max_norm=1.0),
        nn.Embedding(3, 2, scale_grad_by_freq=True),
        nn.InstanceNorm1d(2, affine=True, track_running_stats=True),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_are_not_understood_are_not_guessed_at(layer):
    assert kind_of(layer) is None
