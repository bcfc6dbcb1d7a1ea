"""Reading examples leaves the training as it is, whatever else is done to the model."""

import copy

import pytest
import torch
from gradients.example_models import each_gradient, images, lenet
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from rightbatch.gradients import NoiseMeter

cross_entropy = functional.cross_entropy


def case():
    torch.manual_seed(0)
    return lenet().double(), *images(6, 1, 18)


def step(meter, model, x, y, loss=cross_entropy):
    model.zero_grad()
    with meter.unit(examples=len(x)):
        loss(model(x), y).backward()
    meter.update()


def gradients(model, x, y):
    return torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))


def variance_of(each):
    count = len(next(iter(each.values())))
    squares = sum(float(g.square().sum()) for g in each.values()) / count
    total = sum(float(g.mean(0).square().sum()) for g in each.values())
    return (squares - total) / (1 - 1 / count)


def same(found, truth):
    return all(torch.allclose(a, b) for a, b in zip(found, truth, strict=True))


def test_two_meters_on_one_model_do_not_see_each_other():
    model, x, y = case()
    truth, variance = (
        gradients(model, x, y),
        variance_of(each_gradient(model, cross_entropy, x, y)),
    )
    one = NoiseMeter(model, "examples")
    other = NoiseMeter(model, "examples", num_examples=6)
    for _ in range(4):
        model.zero_grad()
        with one.unit(examples=6), other.unit(examples=6):
            cross_entropy(model(x), y).backward()
        one.update()
        other.update()
        assert same([p.grad for p in model.parameters()], truth)
        for meter in (one, other):
            assert meter.last_moments.grad_variance == pytest.approx(variance)
    one.close()
    other.close()


def test_a_copy_of_the_model_is_trained_without_the_meter():
    model, x, y = case()
    with NoiseMeter(model, "examples") as meter:
        step(meter, model, x, y)
        step(meter, model, x, y)
        twin = copy.deepcopy(model)
        truth = [g.clone() for g in gradients(model, x, y)]
        model.zero_grad()
        twin.zero_grad()
        cross_entropy(twin(x), y).backward()
        assert same([p.grad for p in twin.parameters()], truth)
        assert all(p.grad is None for p in model.parameters())


def test_other_numbers_in_place_of_the_parameters_keep_their_gradients():
    model, x, y = case()
    fast = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    with NoiseMeter(model, "examples") as meter:
        step(meter, model, x, y)
        step(meter, model, x, y)
        truth = gradients(model, x, y)
        out = cross_entropy(functional_call(model, fast, (x,)), y)
        found = torch.autograd.grad(out, list(fast.values()))
        assert same(found, truth)
        each = each_gradient(model, cross_entropy, x, y)
        assert each["0.weight"].shape[0] == 6


def test_a_transform_over_inputs_goes_through():
    model, x, y = case()
    with NoiseMeter(model, "examples") as meter:
        step(meter, model, x, y)
        step(meter, model, x, y)
        found = torch.func.grad(lambda inputs: cross_entropy(model(inputs), y))(x)
    inputs = x.clone().requires_grad_()
    cross_entropy(model(inputs), y).backward()
    assert torch.allclose(found, inputs.grad)


def test_an_interrupt_inside_a_layer_leaves_nothing_frozen(monkeypatch):
    model, x, y = case()

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    meter = NoiseMeter(model, "examples")
    step(meter, model, x, y)
    with monkeypatch.context() as patched:
        patched.setattr(functional, "conv2d", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model(x)
    meter.close()
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("twice", [False, True])
def test_an_activation_in_place_may_follow_rows_of_sequences(twice):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            x = functional.relu_(self.inner(x))
            if twice:
                x = functional.relu_(self.inner(x))
            return self.head(x).transpose(1, 2)

    torch.manual_seed(0)
    model = Net().double()
    x, y = torch.randn(5, 6, 4).double(), torch.randint(3, (5, 6))
    variance = variance_of(each_gradient(model, cross_entropy, x, y))
    with NoiseMeter(model, "examples") as meter:
        for _ in range(3):
            step(meter, model, x, y)
            assert meter.last_moments.grad_variance == pytest.approx(variance)


def test_the_update_that_finds_a_parameter_out_is_left_out():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(functional.linear(self.inner(x), self.inner.weight.T))

    torch.manual_seed(0)
    model = Tied().double()
    x, y = torch.randn(5, 4).double(), torch.randint(3, (5,))
    each = each_gradient(model, cross_entropy, x, y)
    del each["inner.weight"]
    with NoiseMeter(model, "examples") as meter:
        for _ in range(3):
            step(meter, model, x, y)
        reading = meter.noise_scale
        assert list(reading.uncovered) == ["inner.weight"]
        assert (reading.num_skipped, reading.estimate.num_steps) == (1, 2)
        assert reading.moments.grad_variance == pytest.approx(variance_of(each))


def test_a_layer_whose_weight_is_used_without_calling_it_is_found_out():
    class Merged(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(functional.linear(x, self.inner.weight, self.inner.bias))

    torch.manual_seed(0)
    model = Merged().double()
    x, y = torch.randn(5, 4).double(), torch.randint(3, (5,))
    with NoiseMeter(model, "examples") as meter:
        for _ in range(2):
            step(meter, model, x, y)
        missing = meter.noise_scale.uncovered
    assert set(missing) == {"inner.weight", "inner.bias"}
    assert missing["inner.bias"] == "used outside the layers that are read"


def test_a_second_use_that_begins_later_is_found_out(monkeypatch):
    from rightbatch.gradients.per_example import source

    monkeypatch.setattr(source, "_CHECK_EVERY", 3)
    torch.manual_seed(0)

    class Later(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head, self.again = nn.Linear(4, 4), nn.Linear(4, 3), False

        def forward(self, x):
            x = self.inner(x)
            if self.again:
                x = functional.linear(x, self.inner.weight)
            return self.head(x)

    model = Later().double()
    x, y = torch.randn(5, 4).double(), torch.randint(3, (5,))
    with NoiseMeter(model, "examples") as meter:
        step(meter, model, x, y)
        model.again = True
        for _ in range(4):
            step(meter, model, x, y)
        assert list(meter.noise_scale.uncovered) == ["inner.weight"]


def test_gradients_that_cancel_over_the_batch_are_not_taken_for_wrong():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4), nn.Flatten(), nn.Linear(64, 3)
    )
    x, y = torch.randn(6, 2, 6, 6), torch.randint(3, (6,))
    with NoiseMeter(model, "examples") as meter:
        step(meter, model, x, y)
        assert meter.noise_scale.uncovered == {}


def test_weight_norm_is_not_taken_for_a_plain_layer():
    with pytest.warns(FutureWarning):
        inner = nn.utils.weight_norm(nn.Linear(4, 4))
    model = nn.Sequential(inner, nn.Linear(4, 3)).double()
    x, y = torch.randn(5, 4).double(), torch.randint(3, (5,))
    with NoiseMeter(model, "examples") as meter:
        step(meter, model, x, y)
        missing = meter.noise_scale.uncovered
    assert {"0.weight_g", "0.weight_v"} <= set(missing)


def test_batch_normalization_without_statistics_is_refused_in_any_mode():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="mixes the examples"):
        NoiseMeter(model.eval(), "examples")


def test_half_precision_products_neither_overflow_nor_vanish():
    from rightbatch.gradients.per_example.linear import gram_squares
    from rightbatch.gradients.per_example.uses import Use, squares_of_uses

    for size in (1e-5, 600.0):
        a = torch.full((2, 3, 4), 1.0, dtype=torch.float16)
        g = torch.full((2, 3, 5), size, dtype=torch.float16)
        truth = float(g[0, 0, 0]) ** 2 * 9 * 4 * 5
        assert gram_squares(a, g).tolist() == pytest.approx([truth] * 2, rel=1e-3)
        uses = [Use(g, a)]
        assert squares_of_uses(uses).tolist() == pytest.approx([truth] * 2, rel=1e-3)


def test_as_many_positions_as_examples_are_told_by_their_order():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.place, self.head = nn.Embedding(9, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(x + self.place(torch.arange(1, 5))).sum(1)

    model = Net().double()
    with NoiseMeter(model, "examples") as meter:
        step(meter, model, torch.randn(4, 4, 3).double(), torch.randint(2, (4,)))
        assert list(meter.noise_scale.uncovered) == ["place.weight"]
