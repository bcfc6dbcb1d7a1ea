"""What can be stacked, and what is refused with a reason."""

import random
import threading

import numpy as np
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


class Seldom(nn.Module):
    """Its rare ways are on the whole not met in a few passes."""

    def __init__(self, chance):
        super().__init__()
        self.out = nn.Linear(6, 3)
        self.chance = chance

    def forward(self, inputs):
        return self.out(inputs * 0 if self.chance() < 1e-9 else inputs)


class Remembering(nn.Module):
    """Keeps what it saw, or how often, outside of its buffers."""

    def __init__(self, keep):
        super().__init__()
        self.out = nn.Linear(6, 3)
        self.seen, self.keep = 0, keep

    def forward(self, inputs):
        out = self.out(inputs)
        self.seen = self.keep(self.seen, out)
        return out * (1.0 if self.keep is not count or self.seen < 50 else 0.5)


class Holding(nn.Module):
    """Has an attribute that it does not touch."""

    def __init__(self, held):
        super().__init__()
        self.out = nn.Linear(6, 3)
        self.held = held

    def forward(self, inputs):
        return self.out(inputs)


def count(seen, out):
    return seen + 1


def clamped():
    model = nn.Linear(6, 3)
    model.weight.register_hook(lambda gradient: gradient.clamp(-50, 50))
    return model


def watched(register):
    def build():
        model = nn.Sequential(nn.Linear(6, 3))
        getattr(model[0], register)(lambda *_: None)
        return model

    return build


def scaled_after():
    model = nn.Linear(6, 3)

    def scale(parameter):
        parameter.grad.mul_(0.1)

    model.weight.register_post_accumulate_grad_hook(scale)
    return model


def head_only(parameters, lr):
    return SGD(list(parameters)[2:], lr=lr)


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
        (lambda: make_model("mlp", 0), head_only, "not exactly its parameters"),
        (clamped, SGD, "have hooks"),
        (scaled_after, SGD, "have hooks"),
        (watched("register_forward_hook"), SGD, "have hooks"),
        (watched("register_forward_pre_hook"), SGD, "have hooks"),
        (watched("register_full_backward_hook"), SGD, "have hooks"),
        (watched("register_full_backward_pre_hook"), SGD, "have hooks"),
        (lambda: Seldom(lambda: torch.rand(()).item()), SGD, "random numbers"),
        (lambda: Seldom(np.random.random), SGD, "random numbers"),
        (lambda: Seldom(random.random), SGD, "random numbers"),
        (lambda: Remembering(count), SGD, "attributes change"),
        (lambda: Remembering(lambda seen, out: out), SGD, "attributes change"),
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


def test_a_loss_that_branches_on_the_mean_of_its_batch_is_refused():
    def branching(model, batch):
        losses = loss(model, batch)
        return losses if losses.mean() > 1e-3 else 2 * losses

    found = found_for(two(lambda: nn.Linear(6, 3)), loss=branching)
    assert found.reason == "it cannot be stacked (RuntimeError)"


def test_a_model_that_cannot_be_copied_is_left_to_vmap():
    found = found_for(two(lambda: Holding(threading.Lock())))
    assert found.forward.name == "vmap"


def test_attributes_that_stay_as_they_are_are_no_hindrance():
    for held in (7, [torch.ones(2), {"a": None}], lambda: 1):
        assert found_for(two(lambda held=held: Holding(held))).forward.name == "twin"


def test_the_generators_are_as_they_were_after_a_model_that_draws():
    for chance in (np.random.random, random.random):
        before = random.getstate(), str(np.random.get_state())
        assert found_for(two(lambda chance=chance: Seldom(chance))).forward is None
        assert (random.getstate(), str(np.random.get_state())) == before


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
