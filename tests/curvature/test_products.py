"""Products with matrices against the matrices themselves."""

import pytest
import torch
from curvature.example_models import (
    CROSS_ENTROPY,
    HALF_SQUARES,
    Tied,
    explicit_gauss_newton,
    explicit_hessian,
    labelled,
    network,
)
from torch import nn

from rightbatch.curvature import (
    OutputLoss,
    Product,
    gauss_newton,
    gauss_newton_vector_product,
    hessian,
    hessian_vector_product,
)
from rightbatch.errors import InputError


def matrix_of(product):
    return torch.stack([product(e) for e in torch.eye(product.size).to(product.like)])


@pytest.mark.parametrize("make", [network, Tied])
@pytest.mark.parametrize("keep_graphs", [False, True])
def test_hessian_products_are_those_of_the_explicit_hessian(make, keep_graphs):
    model, batch = make(), labelled(7)
    found = matrix_of(hessian(model, CROSS_ENTROPY, [batch], keep_graphs=keep_graphs))
    expected = explicit_hessian(model, CROSS_ENTROPY, batch)
    assert float((found - expected).abs().max()) < 1e-10
    # the network bends its outputs, so the two matrices do differ
    assert not torch.allclose(
        expected, explicit_gauss_newton(model, CROSS_ENTROPY, batch), atol=1e-3
    )


@pytest.mark.parametrize("make", [network, Tied])
def test_gauss_newton_products_are_those_of_the_explicit_matrix(make):
    model, batch = make(), labelled(7)
    found = matrix_of(gauss_newton(model, CROSS_ENTROPY, [batch]))
    expected = explicit_gauss_newton(model, CROSS_ENTROPY, batch)
    assert float((found - expected).abs().max()) < 1e-10
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-12


def test_the_gauss_newton_matrix_of_a_linear_model_is_its_hessian():
    model = nn.Linear(3, 1).double()
    batch = labelled(6)[0], torch.arange(6.0, dtype=torch.float64)
    one = matrix_of(gauss_newton(model, HALF_SQUARES, [batch]))
    assert torch.allclose(one, matrix_of(hessian(model, HALF_SQUARES, [batch])))


@pytest.mark.parametrize("make", [hessian, gauss_newton])
def test_batches_count_by_the_examples_in_them(make):
    model, (x, y) = network(), labelled(9)
    together = make(model, CROSS_ENTROPY, [(x, y)])
    parts = make(model, CROSS_ENTROPY, [(x[:2], y[:2]), (x[2:], y[2:])])
    vector = torch.linspace(-1, 1, together.size, dtype=torch.float64)
    assert torch.allclose(together(vector), parts(vector), atol=1e-14)


def test_the_functions_are_single_products():
    model, batches = network(), [labelled(4)]
    product = hessian(model, CROSS_ENTROPY, batches)
    vector = torch.linspace(-1, 1, product.size, dtype=torch.float64)
    found = hessian_vector_product(model, CROSS_ENTROPY, batches, vector)
    assert torch.equal(found, product(vector))
    found = gauss_newton_vector_product(model, CROSS_ENTROPY, batches, vector)
    assert torch.equal(found, gauss_newton(model, CROSS_ENTROPY, batches)(vector))


def test_a_caller_without_gradients_gets_the_same():
    product = hessian(network(), CROSS_ENTROPY, [labelled(4)])
    vector = torch.ones_like(product.like)
    expected = product(vector)
    with torch.no_grad():
        assert torch.equal(product(vector), expected)


def test_dropout_is_the_same_at_every_product_and_another_by_another_seed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    one, other = (hessian(model, CROSS_ENTROPY, [labelled(4)], seed=s) for s in (0, 1))
    vector = torch.ones_like(one.like)
    first = one(vector)
    torch.rand(3)
    assert torch.equal(one(vector), first)
    assert not torch.allclose(other(vector), first)


def test_attention_has_second_derivatives():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True).double()
    inputs = torch.randn(2, 3, 4, dtype=torch.float64)

    def loss(model, x):
        return model(x)[:, :, 0].square().sum(1)

    found = hessian(layer, loss, [inputs])
    vector = torch.randn_like(found.like)
    # the derivative of gradients along the vector, by differences
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        slopes = []
        for sign in (1e-5, -1e-5):
            moved = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True)
            moved.double()
            moved.load_state_dict(layer.state_dict())
            start = nn.utils.parameters_to_vector(layer.parameters()).detach()
            nn.utils.vector_to_parameters(start + sign * vector, moved.parameters())
            grads = torch.autograd.grad(
                loss(moved, inputs).mean(), list(moved.parameters())
            )
            slopes.append(nn.utils.parameters_to_vector(grads))
    expected = (slopes[0] - slopes[1]) / 2e-5
    assert torch.allclose(found(vector), expected, atol=1e-6)


def test_a_loss_linear_in_the_parameters_has_no_curvature():
    model = nn.Linear(3, 1)
    linear = OutputLoss(
        outputs=lambda model, x: model(x),
        loss_of_outputs=lambda outputs, x: outputs.squeeze(1),
    )
    for make in (hessian, gauss_newton):
        product = make(model, linear, [torch.ones(2, 3)])
        assert torch.equal(product(torch.ones(4)), torch.zeros(4))


def test_a_product_follows_the_parameters_and_kept_graphs_refuse_to():
    model, batch = network(), labelled(4)
    live = hessian(model, CROSS_ENTROPY, [batch])
    kept = hessian(model, CROSS_ENTROPY, [batch], keep_graphs=True)
    vector = torch.ones_like(live.like)
    assert torch.allclose(live(vector), kept(vector), atol=1e-14)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    expected = explicit_hessian(model, CROSS_ENTROPY, batch) @ vector
    assert torch.allclose(live(vector), expected, atol=1e-12)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept(vector)


def test_a_preconditioned_product_scales_both_sides():
    product = hessian(network(), CROSS_ENTROPY, [labelled(7)])
    diagonal = torch.linspace(0.1, 3, product.size, dtype=torch.float64)
    root = diagonal.sqrt()
    expected = root[:, None] * matrix_of(product) * root
    assert torch.allclose(
        matrix_of(product.preconditioned(diagonal)), expected, atol=1e-14
    )


@pytest.mark.parametrize(
    "bad", [-torch.ones(2), torch.zeros(2), torch.tensor([1, 1e999])]
)
def test_a_diagonal_that_is_none_is_refused(bad):
    product = Product(name="H", apply=lambda v: v, like=torch.zeros(2))
    with pytest.raises(InputError, match="H: `diagonal` must be finite, not negative"):
        product.preconditioned(bad)


def test_a_vector_of_another_shape_is_refused():
    product = hessian(network(), CROSS_ENTROPY, [labelled(2)])
    with pytest.raises(InputError, match="hessian: `vector` must be flat with 31"):
        product(torch.ones(3))


def test_a_product_that_is_not_finite_is_refused():
    product = Product(name="H", apply=lambda v: v / 0, like=torch.zeros(2))
    with pytest.raises(InputError, match="H: `product` must be finite, got 2 of 2"):
        product(torch.ones(2))


def test_a_loss_in_one_part_has_no_gauss_newton_matrix():
    with pytest.raises(InputError, match="`loss` must be an OutputLoss, got function"):
        gauss_newton(network(), lambda model, batch: model(batch), [labelled(2)])


def test_a_mean_loss_of_outputs_is_refused():
    mean = OutputLoss(
        outputs=CROSS_ENTROPY.outputs,
        loss_of_outputs=lambda o, b: CROSS_ENTROPY.loss_of_outputs(o, b).mean(),
    )
    product = gauss_newton(network(), mean, [labelled(2)])
    with pytest.raises(InputError, match="gauss_newton: `loss` must return one value"):
        product(torch.ones_like(product.like))
