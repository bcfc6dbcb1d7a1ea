"""Gradients as flat vectors, and a model that is left as it was."""

import copy

import pytest
import torch
from curvature.example_models import (
    CROSS_ENTROPY,
    Tied,
    example_gradients,
    labelled,
    network,
)
from torch import nn

from rightbatch.curvature import gradient, hessian, unit_gradients
from rightbatch.errors import InputError


def test_the_gradient_is_the_mean_of_the_examples_own():
    model, batch = network(), labelled(5)
    expected = example_gradients(model, CROSS_ENTROPY, batch).mean(0)
    assert torch.allclose(gradient(model, CROSS_ENTROPY, batch), expected, atol=1e-14)


def test_tied_parameters_are_there_once_and_frozen_ones_are_not():
    model, batch = Tied(), labelled(4)
    found = gradient(model, CROSS_ENTROPY, batch)
    # 3 x 3 shared weights, the first bias, and the two that are idle
    assert found.shape == (9 + 3 + 2,)
    assert torch.equal(found[:2], torch.zeros(2, dtype=torch.float64))
    expected = example_gradients(model, CROSS_ENTROPY, batch).mean(0)
    assert torch.allclose(found, expected, atol=1e-14)


def test_a_recurrent_model_and_a_sparse_embedding_are_looked_at_too():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"words": nn.Embedding(7, 3, sparse=True), "over": nn.LSTM(3, 2)}
    )

    def loss(model, batch):
        return model["over"](model["words"](batch))[0].square().sum((0, 2))

    batch = torch.randint(7, (4, 5))
    found = gradient(model, loss, batch)
    loss(model, batch).mean().backward()
    grads = [p.grad.to_dense().reshape(-1) for p in model.parameters()]
    assert torch.allclose(found, torch.cat(grads), atol=1e-7)


def with_everything():
    """A model in train mode with statistics, chance, old gradients and a hook."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)
    ).double()
    CROSS_ENTROPY(model, labelled(8)).mean().backward()
    seen = []
    for parameter in model.parameters():
        parameter.register_hook(seen.append)
    return model, seen


@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad])
def test_looking_leaves_no_trace(grad_mode):
    model, seen = with_everything()
    tensors = [*model.parameters(), *model.buffers()]
    before = [t.detach().clone() for t in tensors]
    grads = [p.grad for p in model.parameters()]
    kept = copy.deepcopy(grads)
    random_numbers = torch.random.get_rng_state()
    with grad_mode():
        gradient(model, CROSS_ENTROPY, labelled(8))
        product = hessian(model, CROSS_ENTROPY, [labelled(8)])
        product(torch.ones_like(product.like))
        mode_after = torch.is_grad_enabled()
    assert all(torch.equal(t, old) for t, old in zip(tensors, before, strict=True))
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
    assert all(torch.equal(g, old) for g, old in zip(grads, kept, strict=True))
    assert [id(t) for t in [*model.parameters(), *model.buffers()]] == [
        id(t) for t in tensors
    ]
    assert torch.equal(torch.random.get_rng_state(), random_numbers)
    assert all(module.training for module in model.modules())
    assert mode_after == (grad_mode is torch.enable_grad)
    assert seen == []


def test_nothing_is_left_behind_by_a_failure_either():
    model, _ = with_everything()
    random_numbers = torch.random.get_rng_state()
    tensors = [*model.parameters(), *model.buffers()]

    def failing(model, batch):
        model(batch[0])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gradient(model, failing, labelled(8))
    assert torch.equal(torch.random.get_rng_state(), random_numbers)
    assert [id(t) for t in [*model.parameters(), *model.buffers()]] == [
        id(t) for t in tensors
    ]


def test_it_works_in_inference_mode():
    model, batch = network(), labelled(5)
    outside = gradient(model, CROSS_ENTROPY, batch)
    with torch.inference_mode():
        inside = gradient(model, CROSS_ENTROPY, batch)
    assert torch.equal(inside, outside)


def test_units_draw_their_own_random_numbers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    batch = labelled(4)
    first, second = unit_gradients(model, CROSS_ENTROPY, [batch, batch]).rows
    assert not torch.allclose(first, second)


def test_a_model_with_nothing_to_train_is_refused():
    model = network().requires_grad_(False)
    with pytest.raises(InputError, match="gradient: `model` must have trainable"):
        gradient(model, CROSS_ENTROPY, labelled(2))


@pytest.mark.parametrize("reduce", [torch.mean, lambda t: t[:0], lambda t: t[:, None]])
def test_a_loss_that_is_not_per_example_is_refused(reduce):
    with pytest.raises(InputError, match=r"`loss` must return one value per example"):
        gradient(network(), lambda m, b: reduce(CROSS_ENTROPY(m, b)), labelled(2))


def test_a_loss_that_is_no_tensor_is_refused():
    with pytest.raises(InputError, match="must return a tensor, got float"):
        gradient(network(), lambda m, b: 1.0, labelled(2))


def test_a_loss_of_another_model_is_refused():
    other = network()
    with pytest.raises(InputError, match="must depend on the trainable parameters"):
        gradient(network(), lambda _, b: CROSS_ENTROPY(other, b).detach(), labelled(2))


def test_a_gradient_that_is_not_finite_is_refused():
    batch = labelled(2)
    batch[0][0, 0] = torch.inf
    with pytest.raises(InputError, match="`gradient` must be finite, got"):
        gradient(network(), CROSS_ENTROPY, batch)


@pytest.mark.parametrize("batches", [labelled(2), labelled(2)[0], {"x": 1}])
def test_a_batch_in_place_of_a_list_of_them_is_refused(batches):
    with pytest.raises(InputError, match="must be a list of batches"):
        hessian(network(), CROSS_ENTROPY, batches)


def test_no_batches_are_refused():
    with pytest.raises(InputError, match="`batches` must not be empty"):
        hessian(network(), CROSS_ENTROPY, [])
