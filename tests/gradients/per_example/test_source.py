"""Norms of single examples read inside a loop, of whole networks."""

import pytest
import torch
from gradients.example_models import (
    GroupNormResNet,
    TiedTransformer,
    each_gradient,
    images,
    lenet,
    sequences,
    token_loss,
)
from torch import nn
from torch.nn import functional

from rightbatch.gradients import NoiseMeter

cross_entropy = functional.cross_entropy


def transformer_case():
    x, y = sequences(6)
    # Every sequence counts by its tokens: the loss of the step is a mean over tokens.
    return TiedTransformer(), x, y, token_loss


def network(name):
    torch.manual_seed(0)
    if name == "lenet":
        model, (x, y), loss = lenet(), images(6, 1, 18), cross_entropy
    elif name == "resnet":
        model, (x, y), loss = GroupNormResNet(), images(6, 2, 8), cross_entropy
    else:
        model, x, y, loss = transformer_case()
    return model.double(), x, y, loss


def contributions(model, x, y, loss):
    """Return what each example adds to the gradient of the step, by parameter."""
    kept = (y != 0).flatten(1).sum(1) if y.ndim > 1 else torch.ones(len(y))
    shares = kept.double() / kept.sum()
    each = each_gradient(model, loss, x, y)
    return {
        name: g * shares.view(-1, *[1] * (g.ndim - 1)).to(g.dtype)
        for name, g in each.items()
    }


def moments(parts, count):
    squares = sum(float(p.flatten(1).square().sum()) for p in parts)
    total = sum(float(p.sum(0).square().sum()) for p in parts)
    variance = (count * squares - total) / (1 - 1 / count)
    return total - variance / count, variance


def step(meter, model, x, y, loss):
    model.zero_grad()
    with meter.unit(examples=len(x)):
        loss(model(x), y).backward()
    meter.update()


@pytest.mark.parametrize("name", ["lenet", "resnet", "transformer"])
def test_networks_are_read_exactly_the_slow_way_and_the_quick_one(name):
    model, x, y, loss = network(name)
    parts = contributions(model, x, y, loss)
    truth = moments(parts.values(), len(x))
    plain = torch.autograd.grad(loss(model(x), y), list(model.parameters()))
    with NoiseMeter(model, "examples", parts="parameters", horizon=None) as meter:
        for _ in range(3):
            meter.reset()
            step(meter, model, x, y, loss)
            found = meter.last_moments
            assert found.grad_sq_norm == pytest.approx(truth[0], rel=1e-10)
            assert found.grad_variance == pytest.approx(truth[1], rel=1e-10)
            for name_of, part in parts.items():
                one = meter.noise_scale.parts[name_of].moments
                own = moments([part], len(x))
                size = float(part.square().sum())
                assert one.grad_sq_norm == pytest.approx(own[0], abs=1e-10 * size)
                assert one.grad_variance == pytest.approx(own[1], rel=1e-10)
            # The training's own gradient is what it was, wherever it was made.
            for parameter, gradient in zip(model.parameters(), plain, strict=True):
                assert torch.allclose(parameter.grad, gradient, rtol=1e-10, atol=1e-14)
        assert meter.noise_scale.coverage == 1.0
        assert meter.noise_scale.uncovered == {}


@pytest.mark.parametrize("name", ["lenet", "resnet", "transformer"])
def test_a_few_examples_of_each_pass_stand_for_all(name):
    model, x, y, loss = network(name)
    parts = contributions(model, x, y, loss)
    total = sum(float(p.sum(0).square().sum()) for p in parts.values())
    few = sum(float(p[:2].flatten(1).square().sum()) for p in parts.values())
    variance = (len(x) * few * len(x) / 2 - total) / (1 - 1 / len(x))
    with NoiseMeter(model, "examples", num_examples=2) as meter:
        for _ in range(3):
            step(meter, model, x, y, loss)
            assert meter.last_moments.grad_variance == pytest.approx(
                variance, rel=1e-10
            )


def test_normalization_layers_alone_can_be_read():
    model, x, y, loss = network("transformer")
    parts = contributions(model, x, y, loss)
    truth = moments([p for n, p in parts.items() if n.startswith("norm")], len(x))
    with NoiseMeter(model, "normalization", parts="layers") as meter:
        for _ in range(2):
            step(meter, model, x, y, loss)
            assert meter.last_moments.grad_variance == pytest.approx(
                truth[1], rel=1e-10
            )
        reading = meter.noise_scale
    own = sum(parts[n][0].numel() for n in parts if n.startswith("norm"))
    assert reading.coverage == pytest.approx(
        own / sum(p.numel() for p in model.parameters())
    )
    assert "normalization layers alone" in reading.notes[0]
    assert set(reading.parts) == {"norm1", "norm2"}  # of the others nothing is read


def test_a_model_without_normalization_cannot_be_read_by_it():
    with pytest.raises(ValueError, match="not of a normalization layer"):
        NoiseMeter(nn.Linear(2, 2), "normalization")


class Mixed(nn.Module):
    """Parts that are read, and parts that cannot be, for four reasons."""

    def __init__(self):
        super().__init__()
        self.position = nn.Embedding(4, 3)
        self.scale = nn.Parameter(torch.ones(3))
        self.pair = nn.ConvTranspose1d(4, 4, 1)
        self.borrowed = nn.Linear(3, 3)
        self.read = nn.Linear(3, 2)

    def forward(self, x):
        x = x * self.scale + self.position(torch.arange(4))
        x = self.borrowed(x) + functional.linear(x, self.borrowed.weight)
        return self.read(self.pair(x)).sum(1)


def test_what_is_not_read_is_counted_and_named_with_its_reason():
    torch.manual_seed(0)
    model = Mixed().double()
    x, y = torch.randn(5, 4, 3).double(), torch.randint(2, (5,))
    with NoiseMeter(model, "examples") as meter:
        for _ in range(2):
            step(meter, model, x, y, cross_entropy)
        reading = meter.noise_scale
    missing = reading.uncovered
    assert missing["position.weight"].startswith("called with 4 rows for 5 examples")
    assert missing["scale"] == "in Mixed, which is not read by example"
    assert missing["pair.weight"] == "in ConvTranspose1d, which is not read by example"
    assert missing["borrowed.weight"].startswith("used outside its layer as well")
    read = {"borrowed.bias", "read.weight", "read.bias"}
    assert missing.keys() == dict(model.named_parameters()).keys() - read
    assert meter.noise_scale.source == "examples"
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    share = sum(sizes[n] for n in read) / sum(sizes.values())
    assert reading.coverage == pytest.approx(share)
    assert "% of the parameters read" in str(reading)
    each = contributions(model, x, y, cross_entropy)
    truth = moments([each[n] for n in read], 5)
    assert meter.last_moments.grad_variance == pytest.approx(truth[1], rel=1e-10)


def test_as_many_positions_as_examples_are_not_taken_for_examples():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2)).double()

    class Broadcast(nn.Module):
        def __init__(self):
            super().__init__()
            self.position, self.head = model

        def forward(self, x):
            return self.head(x + self.position(torch.arange(4))).sum(1)

    net, x = Broadcast(), torch.randn(4, 4, 3).double()
    with NoiseMeter(net, "examples") as meter:
        step(meter, net, x, torch.randint(2, (4,)), cross_entropy)
        missing = meter.noise_scale.uncovered
    assert missing == {"position.weight": "called with positions, without the examples"}


def test_sequences_first_are_refused_with_the_way_out():
    model = nn.Linear(3, 2).double()
    x = torch.randn(7, 5, 3).double()  # seven places, five examples
    with NoiseMeter(model, "examples") as meter:
        with meter.unit(examples=5):
            model(x).square().mean().backward()
        with pytest.raises(
            ValueError, match=r"called with 7 rows for 5 .*source='units'"
        ):
            meter.update()


def test_batch_normalization_in_training_mode_is_refused_by_example():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double()
    message = r"batch normalization in training mode.*source='units'.*evaluation mode"
    with pytest.raises(ValueError, match=message):
        NoiseMeter(model, "examples")
    model.eval()
    x, y = torch.randn(6, 3).double(), torch.randint(2, (6,))
    truth = moments(contributions(model, x, y, cross_entropy).values(), 6)
    with NoiseMeter(model, "examples") as meter:
        for _ in range(2):
            step(meter, model, x, y, cross_entropy)
        assert meter.last_moments.grad_variance == pytest.approx(truth[1], rel=1e-10)
        model.train()
        with pytest.raises(ValueError, match=message):
            step(meter, model, x, y, cross_entropy)


def test_batch_normalization_in_training_mode_is_read_by_units_with_a_note():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    with NoiseMeter(model) as meter:
        for size in (8, 6):
            with meter.unit(examples=size):
                model(torch.randn(size, 3)).square().mean().backward()
        meter.update()
        notes = meter.noise_scale.notes
    assert "depends on the unit's size" in notes[0]
    assert "(units of 6, 8)" in notes[0]
    assert "same size" in notes[1]


def test_a_layer_that_begins_to_serve_twice_is_learned_after_one_update():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(3, 3).double(), nn.Linear(3, 2).double()
            self.times = 1

        def forward(self, x):
            for _ in range(self.times):
                x = torch.tanh(self.inner(x))
            return self.head(x)

    torch.manual_seed(0)
    model, x, y = Sometimes(), torch.randn(6, 3).double(), torch.randint(2, (6,))
    model.times = 3
    truth = moments(contributions(model, x, y, cross_entropy).values(), 6)
    with NoiseMeter(model, "examples") as meter:
        for times in (1, 1, 3, 3, 1):
            model.times = times
            step(meter, model, x, y, cross_entropy)
        assert meter.noise_scale.num_skipped == 1
        assert meter.noise_scale.estimate.num_steps == 4
        model.times = 3
        step(meter, model, x, y, cross_entropy)
        assert meter.last_moments.grad_variance == pytest.approx(truth[1], rel=1e-10)


def test_a_wrong_number_of_examples_is_refused():
    model, x, y, loss = network("lenet")
    with NoiseMeter(model, "examples") as meter:
        step(meter, model, x, y, loss)
        model.zero_grad()
        with meter.unit(examples=5):
            loss(model(x), y).backward()
        with pytest.raises(ValueError, match=r"had 6 rows in a unit of 5 examples"):
            meter.update()


def test_a_gradient_of_gradients_is_what_it_is_without_the_meter():
    model, x, y, loss = network("lenet")

    def penalty():
        first = torch.autograd.grad(
            loss(model(x), y), list(model.parameters()), create_graph=True
        )
        model.zero_grad()
        sum(g.square().sum() for g in first).backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = penalty()
    with NoiseMeter(model, "examples") as meter:
        step(meter, model, x, y, loss)
        metered = penalty()
    for one, other in zip(plain, metered, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_an_error_in_the_forward_pass_leaves_parameters_trainable():
    model, x, y, loss = network("lenet")
    with NoiseMeter(model, "examples") as meter:
        step(meter, model, x, y, loss)
        with pytest.raises(RuntimeError):
            model(x[:, :, :3])
        assert all(p.requires_grad for p in model.parameters())
        step(meter, model, x, y, loss)


def test_evaluation_between_updates_is_not_read():
    model, x, y, loss = network("lenet")
    with NoiseMeter(model, "examples") as meter:
        for _ in range(2):
            step(meter, model, x, y, loss)
            first = meter.last_moments
            with torch.no_grad():
                model(x[:3])
        assert meter.last_moments.grad_variance == pytest.approx(first.grad_variance)


def test_inputs_given_by_name_are_found():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(3, 3).double(), nn.Linear(3, 2).double()

        def forward(self, x):
            return self.head(input=torch.tanh(self.inner(input=x)))

    model, x, y = Named(), torch.randn(6, 3).double(), torch.randint(2, (6,))
    truth = moments(contributions(model, x, y, cross_entropy).values(), 6)
    with NoiseMeter(model, "examples") as meter:
        for _ in range(2):
            step(meter, model, x, y, cross_entropy)
            assert meter.last_moments.grad_variance == pytest.approx(truth[1])


def test_rows_that_become_sequences_are_read_all_the_same():
    def loss(out, target):
        return cross_entropy(out.flatten(0, -2), target.flatten())

    model = nn.Linear(3, 2).double()
    rows = torch.randn(5, 3).double(), torch.randint(2, (5,))
    sequences = torch.randn(5, 4, 3).double(), torch.randint(2, (5, 4))
    each = each_gradient(model, loss, *sequences)
    truth = moments([g / 5 for g in each.values()], 5)
    with NoiseMeter(model, "examples") as meter:
        for x, y in (rows, rows, sequences):
            step(meter, model, x, y, loss)
        assert meter.last_moments.grad_variance == pytest.approx(truth[1])
