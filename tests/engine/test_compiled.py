"""Compiled steps beside the plain loop of each member."""

import copy
import shutil

import pytest
import torch
from engine.example_models import (
    LRS,
    MODELS,
    OPTIMIZERS,
    as_type,
    batches_for,
    loss,
    make_model,
    plain_loop,
    stack_of,
)
from torch import nn
from torch.optim import SGD

from rightbatch.engine import (
    CompiledStack,
    CompiledSteps,
    Stack,
    compile_steps,
    find_forward,
    interleaved,
    make_update,
    objection_to_compiling,
)
from rightbatch.engine import compiled as module
from rightbatch.engine.forward import Mapped


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def as_it_is(graph, arguments):
    """Compile to the traced graph itself."""
    return graph


def data_for(model, members, steps):
    return [
        [as_type(batch, model) for batch in batches_for(seed, steps, 4)]
        for seed in range(members)
    ]


def rows_of(data, width, start=0, stop=None):
    """Return batches of all members, filled up with rows of the first."""
    filled = [*data, *data[:1] * (width - len(data))]
    return [
        interleaved(each)
        for each in zip(*(own[start:stop] for own in filled), strict=True)
    ]


def assert_each_is_plain(models, make, lrs, data, train, rel=1e-9):
    """Hold models after `train`, which returns losses, against the plain loop."""
    twins = [copy.deepcopy(model) for model in models]
    found = train()
    for member, (twin, lr, batches) in enumerate(zip(twins, lrs, data, strict=True)):
        expected = plain_loop(twin, make(twin.parameters(), lr), batches)
        assert found[member].tolist() == pytest.approx(expected, rel=rel, abs=rel)
        for ours, theirs in zip(
            models[member].parameters(), twin.parameters(), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=rel, atol=rel)


def compiled_on(updates, forward, data, num_steps=3, compiler=as_it_is):
    probe = rows_of(data, len(updates), 0, 2 * num_steps)
    found = compile_steps(
        Stack(updates, forward), probe, num_steps=num_steps, compiler=compiler
    )
    assert found.steps is not None, found.reason
    return found.steps


@pytest.mark.parametrize("optimizer", ["sgd", "decay"])
@pytest.mark.parametrize("kind", list(MODELS))
def test_each_member_takes_the_plain_loops_way(kind, optimizer):
    make = OPTIMIZERS[optimizer]
    models = [make_model(kind, seed).double() for seed in range(3)]
    data = data_for(models[0], 3, 20)
    updates, forward = stack_of(models, make)

    def train():
        steps = compiled_on(updates, forward, data)
        stack = Stack(updates, forward)
        losses = CompiledStack(stack, steps)(rows_of(data, 3))
        stack.release()
        return losses

    assert_each_is_plain(models, make, LRS, data, train)


def test_vmap_can_be_traced_where_there_is_a_twin_too():
    models = [make_model("conv", seed).double() for seed in range(3)]
    data = data_for(models[0], 3, 8)
    updates, _ = stack_of(models, SGD)
    forward = Mapped(models[0], loss)

    def train():
        steps = compiled_on(updates, forward, data)
        return CompiledStack(Stack(updates, forward), steps)(rows_of(data, 3))

    assert_each_is_plain(models, SGD, LRS, data, train)


def make_grouped(parameters, lr):
    first, *others = parameters
    return SGD([{"params": [first], "weight_decay": 0.1}, {"params": others}], lr=lr)


def test_the_decay_of_one_group_is_not_that_of_another():
    models = [make_model("mlp", seed).double() for seed in range(3)]
    data = data_for(models[0], 3, 8)
    updates, forward = stack_of(models, make_grouped)

    def train():
        steps = compiled_on(updates, forward, data)
        return CompiledStack(Stack(updates, forward), steps)(rows_of(data, 3))

    assert_each_is_plain(models, make_grouped, LRS, data, train)


def leave_and_come_back(updates, forward, steps, data):
    """Train three members; one ends, one pauses, goes on with another and alone.

    Returns:
        Losses of 16, 11 and 16 steps.
    """
    losses = [[], [], []]
    for members, count in (((0, 1, 2), 7), ((0, 1), 4), ((0, 2), 5), ((2,), 4)):
        stack = Stack([updates[m] for m in members], forward)
        compiled = CompiledStack(stack, steps)
        coming = [data[m][len(losses[m]) :][:count] for m in members]
        found = compiled(rows_of(coming, compiled.width))
        for member, own in zip(members, found.tolist(), strict=True):
            losses[member] += own
        stack.release()
    return [torch.tensor(own, dtype=torch.float64) for own in losses]


def test_members_end_or_pause_and_the_others_go_on_in_the_same_function():
    models = [make_model("mlp", seed).double() for seed in range(3)]
    data = data_for(models[0], 3, 16)
    updates, forward = stack_of(models, OPTIMIZERS["decay"])
    steps = compiled_on(updates, forward, data)
    ended = [data[0], data[1][:11], data[2]]
    assert_each_is_plain(
        models,
        OPTIMIZERS["decay"],
        LRS,
        ended,
        lambda: leave_and_come_back(updates, forward, steps, data),
    )


@pytest.mark.parametrize("count", range(1, 8))
def test_any_number_of_steps_is_made_and_no_more(count):
    models = [make_model("mlp", seed).double() for seed in range(3)]
    data = data_for(models[0], 3, 8)
    updates, forward = stack_of(models, SGD)

    def train():
        steps = compiled_on(updates, forward, data, num_steps=4)
        compiled = CompiledStack(Stack(updates, forward), steps)
        return compiled(rows_of(data, 3, 0, count))

    made = [own[:count] for own in data]
    assert_each_is_plain(models, SGD, LRS, made, train)


def test_a_step_that_is_not_made_leaves_no_trace_of_an_infinite_gradient():
    models = [nn.Linear(6, 3).double() for _ in range(2)]
    data = data_for(models[0], 2, 4)
    updates, forward = stack_of(models, SGD, lrs=(0.1, 0.1))
    steps = compiled_on(updates, forward, data, num_steps=2)
    compiled = CompiledStack(Stack(updates, forward), steps)
    inputs, labels = rows_of(data, 2)[0]
    lost = (torch.full_like(inputs, torch.inf), labels)
    none = torch.zeros(2, dtype=torch.bool)
    *after, losses = steps.function(
        *compiled._values, *compiled._factors, none, *lost, *lost
    )
    assert not losses.isfinite().any()
    assert all(map(torch.equal, after, compiled._values))


def test_a_member_that_diverges_leaves_the_others_alone_and_the_trial_passes():
    models = [make_model("conv", seed) for seed in range(3)]
    updates, forward = stack_of(models, SGD, lrs=(0.1, 1e30, 0.1))
    data = data_for(models[0], 3, 10)
    steps = compiled_on(updates, forward, data)
    losses = CompiledStack(Stack(updates, forward), steps)(rows_of(data, 3))
    assert not losses[1].isfinite().all()
    assert losses[[0, 2]].isfinite().all()


def test_trying_it_moves_nothing():
    models = [make_model("mlp", seed) for seed in range(3)]
    before = [p.clone() for model in models for p in model.parameters()]
    updates, forward = stack_of(models, SGD)
    compiled_on(updates, forward, data_for(models[0], 3, 6))
    after = [p for model in models for p in model.parameters()]
    assert all(map(torch.equal, before, after))


def wrong_at(place, by):
    """Return a compiler whose function is off in one of its results."""

    def compiler(graph, arguments):
        def function(*flat):
            results = list(graph(*flat))
            results[place] = results[place] + by
            return results

        return function

    return compiler


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_compiler_that_errs_is_not_believed(place):
    models = [make_model("mlp", seed) for seed in range(3)]
    updates, forward = stack_of(models, SGD)
    probe = rows_of(data_for(models[0], 3, 6), 3)
    found = compile_steps(
        Stack(updates, forward), probe, num_steps=3, compiler=wrong_at(place, 1e-3)
    )
    assert found == (None, "compiled, it has other gradients")


def test_a_compiler_that_forgets_a_step_is_not_believed():
    def compiler(graph, arguments):
        return lambda *flat: (*flat[:4], graph(*flat)[-1])

    models = [make_model("mlp", seed) for seed in range(3)]
    updates, forward = stack_of(models, SGD)
    probe = rows_of(data_for(models[0], 3, 6), 3)
    found = compile_steps(
        Stack(updates, forward), probe, num_steps=3, compiler=compiler
    )
    assert found.reason == "compiled, it has other gradients"


def test_a_compiler_that_fails_is_a_reason():
    def compiler(graph, arguments):
        raise OSError("the disk is full")

    models = [make_model("mlp", seed) for seed in range(3)]
    updates, forward = stack_of(models, SGD)
    probe = rows_of(data_for(models[0], 3, 6), 3)
    found = compile_steps(
        Stack(updates, forward), probe, num_steps=3, compiler=compiler
    )
    assert found == (None, "it cannot be compiled (OSError)")


def test_an_optimizer_with_a_state_is_a_reason_before_anything_is_compiled():
    models = [make_model("mlp", seed) for seed in range(3)]
    updates, forward = stack_of(models, OPTIMIZERS["momentum"])
    probe = rows_of(data_for(models[0], 3, 6), 3)
    found = compile_steps(Stack(updates, forward), probe, num_steps=3)
    assert found == (None, "its optimizer is more than SGD with weight decay")
    assert objection_to_compiling(updates) == found.reason


def test_without_a_compiler_or_elsewhere_than_on_a_cpu_there_is_an_objection(
    monkeypatch,
):
    updates = [make_update(make_model("mlp", 0), SGD, loss, 0.1)]
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = objection_to_compiling(updates)
    assert reason == "there is no C++ compiler no-such-compiler"
    monkeypatch.setattr(module.shutil, "which", lambda name: name)
    assert objection_to_compiling(updates) == ""
    elsewhere = [make_update(make_model("mlp", 0).to("meta"), SGD, loss, 0.1)]
    assert objection_to_compiling(elsewhere) == "its parameters are not on the CPU"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler g++")
def test_what_inductor_compiles_takes_the_plain_loops_way(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    models = [make_model("mlp", seed).double() for seed in range(3)]
    data = [
        [(inputs[:1], labels[:1]) for inputs, labels in own]
        for own in data_for(models[0], 3, 16)
    ]
    updates = [
        make_update(model, OPTIMIZERS["decay"], loss, lr)
        for model, lr in zip(models, LRS, strict=True)
    ]
    fresh = [
        make_update(copy.deepcopy(model), OPTIMIZERS["decay"], loss, 0.1)
        for model in models
    ]
    forward = find_forward(fresh, [own[0] for own in data]).forward
    steps = compiled_on(updates, forward, data, num_steps=2, compiler=module.inductor)
    assert isinstance(steps, CompiledSteps)
    ended = [data[0], data[1][:11], data[2]]
    assert_each_is_plain(
        models,
        OPTIMIZERS["decay"],
        LRS,
        ended,
        lambda: leave_and_come_back(updates, forward, steps, data),
    )
