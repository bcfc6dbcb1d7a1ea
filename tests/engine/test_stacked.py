"""Runs in lockstep beside the plain loop of each: one trajectory for every member."""

import copy

import pytest
import torch
from engine.example_models import (
    LRS,
    MODELS,
    OPTIMIZERS,
    as_type,
    batches_for,
    make_model,
    plain_loop,
    stack_of,
)
from torch import nn
from torch.optim import SGD, Adam

from rightbatch.engine import Stack, interleaved
from rightbatch.errors import WorkloadError

STEPS = {"sgd": 200, "momentum": 200, "adam": 200}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_stacked(updates, forward, all_batches):
    stack = Stack(updates, forward)
    losses = [stack(interleaved(batches)) for batches in zip(*all_batches, strict=True)]
    stack.release()
    return torch.stack(losses, dim=1)


def assert_each_is_plain(kind, make, dtype, steps, rel):
    models = [make_model(kind, seed).to(dtype) for seed in range(len(LRS))]
    twins = [copy.deepcopy(model) for model in models]
    all_batches = [
        [as_type(batch, models[0]) for batch in batches_for(seed, steps, 4)]
        for seed in range(len(LRS))
    ]
    updates, forward = stack_of(models, make)
    found = run_stacked(updates, forward, all_batches)
    for member, (twin, batches) in enumerate(zip(twins, all_batches, strict=True)):
        expected = plain_loop(twin, make(twin.parameters(), LRS[member]), batches)
        assert found[member].tolist() == pytest.approx(expected, rel=rel, abs=rel)
        for ours, theirs in zip(
            models[member].parameters(), twin.parameters(), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=rel, atol=rel)
    return forward


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_in_double_precision_each_member_takes_the_plain_loops_way(optimizer):
    steps = STEPS.get(optimizer, 30)
    assert_each_is_plain("mlp", OPTIMIZERS[optimizer], torch.float64, steps, 1e-9)


@pytest.mark.parametrize("kind", list(MODELS))
def test_any_model_that_can_be_stacked_takes_the_plain_loops_way(kind):
    forward = assert_each_is_plain(kind, SGD, torch.float64, 50, 1e-9)
    assert forward.name == ("vmap" if kind in ("position", "tied") else "twin")


# Single precision: 30 steps of roundings of 1e-7, as large steps enlarge them.
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_in_single_precision_it_is_the_plain_loops_way_to_rounding(optimizer):
    assert_each_is_plain("conv", OPTIMIZERS[optimizer], torch.float32, 30, 1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "decay", "momentum", "adam"])
def test_members_may_leave_and_the_others_go_on_as_before(optimizer):
    make = OPTIMIZERS[optimizer]
    models = [make_model("mlp", seed).double() for seed in range(len(LRS))]
    twins = [copy.deepcopy(model) for model in models]
    data = [
        [as_type(batch, models[0]) for batch in batches_for(seed, 30, 4)]
        for seed in range(len(LRS))
    ]
    updates, forward = stack_of(models, make)
    run_stacked(updates, forward, [batches[:10] for batches in data])
    left = [0, 2]
    run_stacked(
        [updates[member] for member in left],
        forward,
        [data[member][10:20] for member in left],
    )
    # The last one alone goes on by its own update.
    alone = [updates[2](batch).item() for batch in data[2][20:]]
    for member, steps in ((0, 20), (1, 10), (2, 30)):
        twin = twins[member]
        expected = plain_loop(
            twin, make(twin.parameters(), LRS[member]), data[member][:steps]
        )
        for ours, theirs in zip(
            models[member].parameters(), twin.parameters(), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert alone == pytest.approx(expected[20:], rel=1e-9)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_late_starter_joins_with_the_optimizer_state_it_has(optimizer):
    make = OPTIMIZERS[optimizer]
    models = [make_model("mlp", seed).double() for seed in range(2)]
    twins = [copy.deepcopy(model) for model in models]
    data = [
        [as_type(batch, models[0]) for batch in batches_for(seed, 20, 4)]
        for seed in range(2)
    ]
    updates, forward = stack_of(models, make, lrs=(0.1, 0.1))
    for batch in data[0][:10]:
        updates[0](batch)
    run_stacked(updates, forward, [data[0][10:], data[1][:10]])
    for member, steps in ((0, 20), (1, 10)):
        twin = twins[member]
        plain_loop(twin, make(twin.parameters(), 0.1), data[member][:steps])
        for ours, theirs in zip(
            models[member].parameters(), twin.parameters(), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_same_stack_gives_the_same_numbers_bit_by_bit():
    def trained():
        models = [make_model("conv", seed) for seed in range(3)]
        updates, forward = stack_of(models, SGD)
        run_stacked(updates, forward, [batches_for(seed, 20, 32) for seed in range(3)])
        return [parameter for model in models for parameter in model.parameters()]

    assert all(map(torch.equal, trained(), trained()))


def test_a_member_that_diverges_leaves_the_others_alone():
    models = [make_model("conv", seed) for seed in range(3)]
    updates, forward = stack_of(models, SGD, lrs=(0.1, 1e30, 0.1))
    data = [batches_for(seed, 10, 4) for seed in range(3)]
    losses = run_stacked(updates, forward, data)
    assert not losses[1].isfinite().all()
    assert losses[[0, 2]].isfinite().all()


def test_while_stacked_a_model_can_be_evaluated_at_any_time():
    models = [make_model("mlp", seed).double() for seed in range(3)]
    twin = copy.deepcopy(models[1])
    data = [
        [as_type(batch, twin) for batch in batches_for(seed, 3, 4)] for seed in range(3)
    ]
    updates, forward = stack_of(models, SGD)
    stack = Stack(updates, forward)
    for batches in zip(*data, strict=True):
        stack(interleaved(batches))
    plain_loop(twin, SGD(twin.parameters(), LRS[1]), data[1])
    inputs = data[0][0][0]
    torch.testing.assert_close(models[1](inputs), twin(inputs), rtol=1e-9, atol=1e-9)


def test_a_gradient_that_is_missing_is_an_error_that_says_so():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.sometimes = nn.Linear(6, 3), nn.Linear(6, 3)
            self.used = True

        def forward(self, inputs):
            out = self.always(inputs)
            return out + self.sometimes(inputs) if self.used else out

    models = [Sometimes() for _ in range(2)]
    updates, forward = stack_of(models, SGD, lrs=(0.1, 0.1))
    stack = Stack(updates, forward)
    forward._twin.used = False
    batches = [batches_for(seed, 1, 4)[0] for seed in range(2)]
    with pytest.raises(WorkloadError, match="took no part in the loss of one batch"):
        stack(interleaved(batches))


def test_the_options_of_several_groups_hold_for_each():
    def make(parameters, lr):
        every = list(parameters)
        return Adam(
            [{"params": every[:1], "weight_decay": 0.1}, {"params": every[1:]}], lr=lr
        )

    assert_each_is_plain("mlp", make, torch.float64, 30, 1e-9)


def test_a_stack_agrees_with_members_that_are_what_each_is_by_itself():
    models = [make_model("mlp", seed) for seed in range(len(LRS))]
    updates, forward = stack_of(models, OPTIMIZERS["sgd"])
    batch = interleaved([batches_for(seed, 1, 4)[0] for seed in range(len(LRS))])
    stack = Stack(updates, forward)
    assert stack.agrees(batch)
    # As if a member's own code took another way.
    updates[1].loss = lambda model, rows: 2 * updates[0].loss(model, rows)
    assert not stack.agrees(batch)
