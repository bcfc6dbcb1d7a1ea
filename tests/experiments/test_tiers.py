"""Which tier a sweep takes, and what it says of it."""

import time

import pytest
import tiny_workload
from experiments.example_graphs import traced_only
from torch.optim import Adam
from torch.utils.data import TensorDataset

from rightbatch.errors import InputError, WorkloadFailedError
from rightbatch.experiments import graphs, tiers
from rightbatch.experiments.identity import open_store
from rightbatch.experiments.sweep import SweepSettings, sweep
from rightbatch.experiments.tiers import (
    TierChoice,
    choose_tier,
    find_stacking,
    seed_groups,
)

MEMBERS = [(lr, seed) for lr in tiny_workload.LRS for seed in range(3)]


class Augmented(TensorDataset):
    def __getitem__(self, index):
        inputs, label = super().__getitem__(index)
        return -inputs, label


def chosen(workload, asked="auto", expected_updates=1e9, **more):
    return choose_tier(
        workload,
        8,
        MEMBERS,
        asked=asked,
        expected_updates=expected_updates,
        **more,
    )


@pytest.mark.slow
def test_a_small_model_is_stacked_where_the_sweep_is_long():
    # Seconds of it: too few to be compiled.
    choice = chosen(tiny_workload.tiny(), expected_updates=3e5)
    assert choice.tier == "stacked"
    assert choice.gain > 2
    assert "times as fast, timed" in str(choice)


def test_a_short_sweep_is_not_timed_and_takes_over_what_was_timed_before_it():
    before = TierChoice(tier="stacked", reason="timed", gain=8.0)
    workload = tiny_workload.tiny()
    assert chosen(workload, expected_updates=100).reason == "too short to be timed"
    taken_over = chosen(workload, expected_updates=100, at_half=before)
    assert (taken_over.tier, taken_over.gain) == ("stacked", 4.0)
    small = TierChoice(tier="stacked", reason="timed", gain=3.0)
    assert chosen(workload, expected_updates=100, at_half=small).tier == "plain"


def test_a_batch_whose_arithmetic_outweighs_the_overhead_is_not_stacked():
    def loss(model, batch):
        end = time.process_time() + 0.03
        while time.process_time() < end:
            pass
        return tiny_workload.cross_entropy(model, batch)

    choice = chosen(tiny_workload.make(loss=loss))
    assert str(choice) == "plain (arithmetic outweighs overhead)"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train": tiny_workload.Items(tiny_workload.points(99, 0))}, "rows of"),
        ({"train": Augmented(*tiny_workload.points(99, 0).tensors)}, "rows of tensors"),
        ({"collate": lambda items: items}, "collated one by one"),
        ({"example_count": lambda item: 1}, "collated one by one"),
        ({"ema_decay": 0.9}, "averages of its weights"),
        ({"model": tiny_workload.with_dropout}, "random numbers"),
    ],
)
def test_what_cannot_be_stacked_says_why_where_it_is_asked_for(changes, reason):
    workload = tiny_workload.make(**changes)
    assert reason in find_stacking(workload, 8).reason
    with pytest.raises(InputError, match="`tier` stacked cannot be had for tiny: .*"):
        chosen(workload, asked="stacked")
    with pytest.raises(InputError, match="`tier` compiled cannot be had for tiny: .*"):
        chosen(workload, asked="compiled")


def test_a_loss_that_fails_is_left_to_the_run_to_tell_of():
    workload = tiny_workload.failing()
    assert chosen(workload).reason == "it fails"
    with pytest.raises(WorkloadFailedError, match="ZeroDivisionError"):
        chosen(workload, asked="stacked")


def test_a_loss_that_fails_on_a_few_rows_alone_is_left_to_the_plain_tier():
    def loss(model, batch):
        if len(batch[0]) == tiers.PROBE_ROWS:
            raise ZeroDivisionError
        return tiny_workload.cross_entropy(model, batch)

    choice = choose_tier(
        tiny_workload.make(loss=loss), 16, MEMBERS, asked="auto", expected_updates=1e9
    )
    assert str(choice) == "plain (stacked: WorkloadFailedError)"


def adam(parameters, lr):
    return Adam(parameters, lr=lr)


def test_what_can_be_stacked_but_not_compiled_says_why(monkeypatch):
    with pytest.raises(InputError, match=r"compiled cannot be had for tiny: its optim"):
        chosen(tiny_workload.make(optimizer=adam), asked="compiled")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        InputError, match=r"no C\+\+ compiler no-such.*ask for auto, st"
    ):
        chosen(tiny_workload.tiny(), asked="compiled")


@pytest.mark.parametrize(
    ("stacked", "updates", "optimizer", "tier"),
    [
        # Of 12 members' steps: 12 / 2 and 12 / 6 times as fast as one at a time.
        (2e-3, 13 * 60_000, None, "compiled"),
        (2e-3, 11 * 60_000, None, "stacked"),
        (6e-3, 13 * 60_000, None, "stacked"),
        (2e-3, 13 * 60_000, adam, "stacked"),
    ],
)
def test_steps_that_are_overhead_are_compiled_where_there_are_many(
    stacked, updates, optimizer, tier, monkeypatch
):
    seconds = iter([1e-3, stacked, 1e-3])
    monkeypatch.setattr(tiers, "_seconds_per_step", lambda step, _: next(seconds))
    monkeypatch.setenv("CXX", "python3")
    changes = {} if optimizer is None else {"optimizer": optimizer}
    choice = chosen(tiny_workload.make(**changes), expected_updates=updates)
    assert choice.tier == tier
    assert ("compiling pays in 130 s" in choice.reason) == (tier == "compiled")


def test_one_run_has_no_other_to_be_stacked_with():
    choice = choose_tier(
        tiny_workload.tiny(), 8, MEMBERS[:1], asked="auto", expected_updates=1e9
    )
    assert choice.reason == "one run"


def test_an_unknown_tier_is_refused():
    with pytest.raises(InputError, match=r"`tier` cannot be 'fast'.*stacked, comp"):
        SweepSettings(batch_sizes=(8,), tier="fast")
    with pytest.raises(InputError, match="`tier` cannot be 'fast'"):
        chosen(tiny_workload.tiny(), asked="fast")


@pytest.mark.parametrize(("num_seeds", "num_lrs"), [(1, 1), (10, 6), (3, 40), (25, 1)])
def test_groups_of_seeds_are_of_about_one_size_and_fit(num_seeds, num_lrs):
    groups = seed_groups(range(num_seeds), num_lrs)
    assert [seed for group in groups for seed in group] == list(range(num_seeds))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * num_lrs <= max(24, num_lrs)


@pytest.mark.parametrize("tier", ["stacked", "compiled"])
def test_a_resumed_sweep_goes_on_with_the_tier_of_the_runs_that_are_there(
    tier, tmp_path, monkeypatch
):
    monkeypatch.setattr(graphs, "compile_steps", traced_only())
    workload, path = tiny_workload.tiny(), tmp_path / "runs.sqlite"
    begun = SweepSettings(batch_sizes=(32,), seeds=(0, 1), max_steps=60, tier=tier)
    more = SweepSettings(batch_sizes=(32,), seeds=(0, 1, 2), max_steps=60)
    with open_store(path, workload) as store:
        first = sweep(workload, begun, store=store)
        again = sweep(workload, more, store=store, resume=True)
        assert [run.tier for run in store.runs()] == [tier] * 12
    assert [run.outcome() for run in again if run.seed < 2] == [
        run.outcome() for run in first
    ]
