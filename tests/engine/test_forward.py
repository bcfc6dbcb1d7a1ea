"""What can be stacked, and what is refused with a reason."""

import pytest
import torch
from engine.example_models import batches_for, loss, make_model
from torch import nn
from torch.optim import SGD, Adagrad

from rightbatch.engine import find_forward, make_update


def found_for(models, make=SGD, loss=loss, size=4):
    updates = [make_update(model, make, loss, 0.1) for model in models]
    batches = [batches_for(seed, 1, size)[0] for seed in range(len(models))]
    return find_forward(updates, batches)


def two(build):
    return [build(), build()]


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        return self.out(inputs)


class Fixed(nn.Module):
    """A buffer that stays as it is, and may be drawn."""

    def __init__(self, shift):
        super().__init__()
        self.out = nn.Linear(6, 3)
        self.register_buffer("shift", torch.full((6,), shift))

    def forward(self, inputs):
        return self.out(inputs + self.shift)


class Deciding(nn.Module):
    """Its way depends on the numbers it sees, which no stack can follow."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.ones(6))
        self.out = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.out(
            inputs * self.place if inputs.sum() > 0 else inputs + self.place
        )


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.out, self.unused = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, inputs):
        return self.out(inputs)


def frozen():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    model[0].weight.requires_grad_(False)
    return model


def hooked(parameters, lr):
    optimizer = SGD(parameters, lr=lr)
    optimizer.register_step_post_hook(lambda *_: None)
    return optimizer


@pytest.mark.parametrize(
    ("build", "make", "reason"),
    [
        (lambda: nn.Linear(6, 3), lambda p, lr: Adagrad(p, lr=lr), "the plain path"),
        (lambda: nn.Linear(6, 3), hooked, "its optimizer has hooks"),
        (
            lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)),
            SGD,
            "batch normalization",
        ),
        (frozen, SGD, "some of its parameters are not trained"),
        (lambda: nn.Sequential(nn.Dropout(), nn.Linear(6, 3)), SGD, "random numbers"),
        (Counting, SGD, "its buffers change"),
        (Deciding, SGD, "it cannot be stacked (RuntimeError)"),
        (Half, SGD, "a parameter takes no part in the loss"),
    ],
)
def test_what_cannot_be_stacked_is_refused_with_its_reason(build, make, reason):
    found = found_for(two(build), make)
    assert found.forward is None
    assert reason in found.reason


def test_a_fixed_buffer_is_no_hindrance_unless_it_is_each_seeds_own():
    assert found_for(two(lambda: Fixed(0.5))).forward is not None
    found = found_for([Fixed(0.5), Fixed(0.7)])
    assert found.reason == "its buffers change, or differ from seed to seed"


def test_a_loss_that_looks_at_the_whole_batch_is_not_left_to_the_twin():
    def centred(model, batch):
        logits = model(batch[0])
        return (logits - logits.mean(0)).square().sum(1)

    assert found_for(two(lambda: nn.Linear(6, 3)), loss=centred).forward.name == "vmap"


def test_the_probe_neither_trains_nor_draws():
    models = [make_model("mlp", seed) for seed in range(2)]
    before = [p.clone() for model in models for p in model.parameters()]
    state = torch.get_rng_state()
    assert found_for(models).forward.name == "twin"
    after = [p for model in models for p in model.parameters()]
    assert all(map(torch.equal, before, after))
    assert torch.equal(state, torch.get_rng_state())


def test_batches_that_are_no_tuples_of_tensors_are_refused():
    updates = [make_update(nn.Linear(6, 3), SGD, loss, 0.1) for _ in range(2)]
    assert "no tuple" in find_forward(updates, [{"x": torch.ones(4, 6)}] * 2).reason
