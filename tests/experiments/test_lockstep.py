"""Runs trained together beside each made alone."""

import math
from dataclasses import replace

import pytest
import tiny_workload
import torch
from experiments.example_graphs import traced_only
from torch.optim import Adam

from rightbatch.engine.compiled import Compilation
from rightbatch.errors import InputError, RightbatchError, WorkloadFailedError
from rightbatch.experiments import graphs
from rightbatch.experiments import lockstep as lockstep_module
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.evaluation import Evaluation
from rightbatch.experiments.graphs import CompiledGraphs
from rightbatch.experiments.lockstep import Lockstep
from rightbatch.experiments.race import Resumed
from rightbatch.experiments.run import LiveRun, RunSettings
from rightbatch.experiments.sweep import SweepSettings, sweep
from rightbatch.experiments.tiers import find_stacking

# In double precision a crossing is moved by rounding only where it was a coin's toss.
DOUBLE = [
    tuple(t.double() if t.is_floating_point() else t for t in data.tensors)
    for data in (tiny_workload.points(256, 0), tiny_workload.points(100, 1))
]


def double(**changes):
    train, evaluate_on = (
        torch.utils.data.TensorDataset(*tensors) for tensors in DOUBLE
    )
    settings = {
        "model": lambda seed: tiny_workload.linear(seed).double(),
        "train": train,
        "evaluate_on": evaluate_on,
    }
    return tiny_workload.make(**(settings | changes))


def one_of(workload, lr, seed, crossing, size=8):
    settings = RunSettings(
        batch_size=size, lr=lr, seed=seed, targets=(0.4,), crossing=crossing
    )
    return LiveRun(workload, settings, Evaluation(workload))


def assert_each_is_as_alone(workload, pairs, tier):
    """Each run, taken to 400 updates, has the outcome of one trained by itself."""
    for (lr, seed), live in pairs:
        alone = one_of(workload, lr, seed, live.settings.crossing)
        for budget in (64, 128, 400):
            alone.advance(budget)
        ours, theirs = live.result(400), alone.result(400)
        assert (ours.status, ours.last_step) == (theirs.status, theirs.last_step)
        assert [step for step, _ in ours.trace] == [step for step, _ in theirs.trace]
        for (_, value), (_, expected) in zip(ours.trace, theirs.trace, strict=True):
            assert value == pytest.approx(expected, rel=1e-7, nan_ok=True)
        assert (ours.tier, theirs.tier) == (tier, "plain")


@pytest.mark.parametrize(
    ("crossing", "adam"),
    [
        (Crossing(gate=3.0), False),
        (Crossing(gate=3.0), True),
        (Crossing(definition="first", gate=1.2), False),
        (Crossing(definition="first", every=7), False),
    ],
)
def test_each_run_ends_as_it_does_alone(crossing, adam):
    changes = {"optimizer": lambda p, lr: Adam(p, lr=lr / 10)} if adam else {}
    workload = double(**changes)
    members = [(lr, seed) for lr in (0.02, 0.1, 1e4) for seed in (0, 1)]
    together = [one_of(workload, lr, seed, crossing) for lr, seed in members]
    runners = [Resumed((), (0.4,), lambda live=live: live) for live in together]
    lockstep = Lockstep(workload, 8)
    for budget in (64, 128, 400):
        going = [(r, budget) for r in runners if r.status is None]
        assert {id(r) for r in lockstep.advance(going)} == {id(r) for r, _ in going}
    assert_each_is_as_alone(workload, zip(members, together, strict=True), "stacked")


@pytest.mark.parametrize(
    "crossing", [Crossing(gate=3.0), Crossing(definition="first", gate=1.2)]
)
def test_compiled_each_run_ends_as_it_does_alone_and_may_pause(crossing, monkeypatch):
    calls = []
    monkeypatch.setattr(graphs, "compile_steps", traced_only(calls=calls))
    workload = double(optimizer=tiny_workload.decaying)
    members = [(lr, seed) for lr in (0.02, 0.1, 1e4) for seed in (0, 1)]
    together = [one_of(workload, lr, seed, crossing) for lr, seed in members]
    runners = [Resumed((), (0.4,), lambda live=live: live) for live in together]
    lockstep = Lockstep(workload, 8, graphs=CompiledGraphs(workload))
    for going, budget in (
        (runners, 64),
        (runners[:3], 128),
        (runners[3:], 128),
        (runners[::2], 400),
        (runners, 400),
    ):
        left = [(r, budget) for r in going if r.status is None]
        assert {id(r) for r in lockstep.advance(left)} == {id(r) for r, _ in left}
    assert calls == [6]
    assert_each_is_as_alone(workload, zip(members, together, strict=True), "compiled")


def test_what_is_not_compiled_is_stacked_and_recorded_so(monkeypatch):
    monkeypatch.setattr(graphs, "compile_steps", traced_only(gain=0.5))
    workload, crossing = double(), Crossing(gate=3.0)
    together = [one_of(workload, 0.1, seed, crossing) for seed in (0, 1)]
    runners = [Resumed((), (0.4,), lambda live=live: live) for live in together]
    lockstep = Lockstep(workload, 8, graphs=CompiledGraphs(workload))
    list(lockstep.advance([(runner, 64) for runner in runners]))
    assert [live.tier for live in together] == ["stacked"] * 2


@pytest.mark.parametrize("tier", ["stacked", "compiled"])
def test_the_runs_of_a_stacked_sweep_are_those_of_a_plain_one(tier, monkeypatch):
    monkeypatch.setattr(graphs, "compile_steps", traced_only())
    settings = SweepSettings(batch_sizes=(8, 32), seeds=(0, 1, 2), max_steps=500)
    workload = double()
    plain = sweep(workload, replace(settings, tier="plain"))
    stacked = sweep(workload, replace(settings, tier=tier))
    assert {run.tier for run in plain} == {"plain"}
    assert {run.tier for run in stacked} == {tier}
    for ours, theirs in zip(stacked, plain, strict=True):
        assert (ours.batch_size, ours.lr, ours.seed, ours.status) == (
            theirs.batch_size,
            theirs.lr,
            theirs.seed,
            theirs.status,
        )
        assert (ours.steps(), ours.budget) == (theirs.steps(), theirs.budget)
        assert math.isclose(ours.nearest, theirs.nearest, rel_tol=1e-7)


def test_an_error_of_the_workload_names_the_runs_together():
    calls = []

    def loss(model, batch):
        calls.append(1)
        # Past the probe and the first checks.
        if len(calls) > 60 and torch.is_grad_enabled():
            raise ZeroDivisionError("as it was told to")
        return tiny_workload.cross_entropy(model, batch)

    settings = SweepSettings(batch_sizes=(8,), seeds=(0,), max_steps=90, tier="stacked")
    with pytest.raises(
        WorkloadFailedError, match=r"batch size 8, \d runs together\) raised ZeroDiv"
    ):
        sweep(tiny_workload.make(loss=loss), settings)


def test_a_compiled_sweep_that_cannot_be_compiled_says_so(monkeypatch):
    def failing(stack, batches):
        return Compilation(None, "it cannot be compiled (OSError)")

    monkeypatch.setattr(graphs, "compile_steps", failing)
    settings = SweepSettings(batch_sizes=(8,), seeds=(0,), max_steps=9, tier="compiled")
    with pytest.raises(InputError, match=r"`tier` compiled cannot be had.*OSError"):
        sweep(tiny_workload.tiny(), settings)


def test_runs_that_do_not_fit_together_are_made_alone_where_nobody_asked():
    def loss(model, batch):
        if torch.is_grad_enabled() and len(batch[0]) > 8 * 2:
            raise MemoryError
        return tiny_workload.cross_entropy(model, batch)

    workload, crossing = double(loss=loss), Crossing(gate=3.0)
    assert find_stacking(workload, 8).forward is not None
    members = [(lr, seed) for lr in (0.02, 0.1) for seed in (0, 1)]
    runners = [
        Resumed((), (0.4,), lambda m=m: one_of(workload, *m, crossing)) for m in members
    ]
    lockstep = Lockstep(workload, 8)
    for budget in (64, 400):
        going = [(r, budget) for r in runners if r.status is None]
        assert {id(r) for r in lockstep.advance(going)} == {id(r) for r, _ in going}
    for member, runner in zip(members, runners, strict=True):
        alone = one_of(workload, *member, crossing)
        alone.advance(400)
        assert runner.result(400).outcome() == alone.result(400).outcome()
        assert runner.result(400).tier == "plain"


def test_a_model_that_asks_how_many_rows_there_are_is_trained_by_itself():
    def loss(model, batch):
        # No probe has as many rows as two members of sixteen.
        scale = 0.5 if 20 < len(batch[0]) <= 40 else 1.0
        return scale * tiny_workload.cross_entropy(model, batch)

    workload, members = double(loss=loss), [(lr, 0) for lr in (0.02, 0.1)]

    def runners():
        return [
            Resumed((), (0.3,), lambda m=m: one_of(workload, *m, Crossing(), size=16))
            for m in members
        ]

    assert find_stacking(workload, 16).forward is not None
    asked = Lockstep(workload, 16, required=True)
    with pytest.raises(RightbatchError, match=r"other losses than one by one.*plain"):
        list(asked.advance([(runner, 100) for runner in runners()]))
    found = runners()
    list(Lockstep(workload, 16).advance([(runner, 100) for runner in found]))
    for member, runner in zip(members, found, strict=True):
        alone = one_of(workload, *member, Crossing(), size=16)
        alone.advance(100)
        assert runner.result(100).outcome() == alone.result(100).outcome()


@pytest.mark.parametrize("tier", ["auto", "stacked"])
def test_a_stack_that_does_not_fit_while_it_is_built_is_not_made(monkeypatch, tier):
    def full(updates, forward):
        raise MemoryError

    monkeypatch.setattr(lockstep_module, "Stack", full)
    workload, members = double(), [(lr, 0) for lr in (0.02, 0.1)]
    runners = [
        Resumed((), (0.4,), lambda m=m: one_of(workload, *m, Crossing()))
        for m in members
    ]
    going = [(runner, 400) for runner in runners]
    if tier == "stacked":
        with pytest.raises(RightbatchError, match="the memory does not suffice"):
            list(Lockstep(workload, 8, required=True).advance(going))
        return
    assert len(list(Lockstep(workload, 8).advance(going))) == 2
    for member, runner in zip(members, runners, strict=True):
        alone = one_of(workload, *member, Crossing())
        alone.advance(400)
        assert runner.result(400).outcome() == alone.result(400).outcome()


def test_too_little_memory_for_all_together_says_what_to_ask_for():
    calls = []

    def loss(model, batch):
        calls.append(1)
        if len(calls) > 60 and torch.is_grad_enabled():
            raise MemoryError
        return tiny_workload.cross_entropy(model, batch)

    settings = SweepSettings(batch_sizes=(8,), seeds=(0,), max_steps=90, tier="stacked")
    with pytest.raises(
        RightbatchError, match=r"runs together\): the memory does not.*--tier plain"
    ):
        sweep(tiny_workload.make(loss=loss), settings)
