"""Layers for several models at once, beside the layers themselves."""

import pytest
import torch
from torch import nn

from rightbatch.engine.twins import bind, make_twin

LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear over places": (lambda: nn.Linear(5, 3, bias=False), (2, 4, 5)),
    "conv": (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 7, 6)),
    "conv same": (lambda: nn.Conv2d(2, 3, 3, padding="same", dilation=2), (2, 7, 6)),
    "conv 1d": (lambda: nn.Conv1d(2, 3, 2, bias=False), (2, 7)),
    "norm": (lambda: nn.LayerNorm(5), (5,)),
    "norm over places": (lambda: nn.LayerNorm((4, 5), bias=False), (3, 4, 5)),
}


@pytest.mark.parametrize("name", list(LAYERS))
@pytest.mark.parametrize(("members", "rows"), [(1, 3), (4, 1), (3, 2)])
def test_a_twin_gives_each_member_its_own_layers_output(name, members, rows):
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    layers = [build() for _ in range(members)]
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    twin = make_twin(layers[0])
    names = dict(layers[0].named_parameters())
    bind(
        twin,
        {
            n: torch.stack([dict(m.named_parameters())[n] for m in layers])
            for n in names
        },
    )
    inputs = torch.randn(rows, members, *shape)
    out = twin(inputs.flatten(0, 1)).unflatten(0, (rows, members))
    for member, layer in enumerate(layers):
        torch.testing.assert_close(out[:, member], layer(inputs[:, member]))


def test_an_embeddings_twin_looks_up_each_members_own_entries():
    layers = [nn.Embedding(7, 2) for _ in range(3)]
    twin = make_twin(layers[0])
    bind(twin, {"weight": torch.stack([layer.weight for layer in layers])})
    symbols = torch.randint(7, (4, 3, 5))
    out = twin(symbols.flatten(0, 1)).unflatten(0, (4, 3))
    for member, layer in enumerate(layers):
        assert torch.equal(out[:, member], layer(symbols[:, member]))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Embedding(7, 2, padding_idx=0),
        nn.Embedding(7, 2, sparse=True),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        nn.GRU(3, 3),
        type("Own", (nn.Linear,), {})(3, 3),
    ],
)
def test_a_layer_that_is_not_known_has_no_twin(layer):
    assert make_twin(nn.Sequential(layer)) is None


def test_a_shared_layer_has_no_twin_and_the_model_is_left_as_it_was():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = shared.weight
    assert make_twin(model) is None
    assert type(model[0]) is nn.Linear
    assert make_twin(nn.Sequential(nn.Linear(3, 3))) is not None
