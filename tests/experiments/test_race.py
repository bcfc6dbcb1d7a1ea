import math
from itertools import permutations

import pytest
import tiny_workload
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.evaluation import Evaluation
from rightbatch.experiments.race import Resumed, race
from rightbatch.experiments.record import Run, read_crossings
from rightbatch.experiments.run import LiveRun, RunSettings

TINY = tiny_workload.tiny()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Pretended:
    """Reaches its target, or diverges, after a given number of steps; or never."""

    def __init__(self, lr, reaches=None, diverges=None):
        self.lr, self.reaches, self.diverges = lr, reaches, diverges
        self.status, self.step = None, 0

    def advance(self, budget):
        ends = {"reached": self.reaches, "diverged": self.diverges}
        for status, step in ends.items():
            if self.status is None and step is not None and step <= budget:
                self.status, self.step = status, step
        if self.status is None:
            self.step = max(self.step, budget)

    def result(self, budget):
        value = 0.1 if self.status == "reached" else 1.0
        trace = ((0, 1.0), (self.step, value))
        status, first = self.status or "not_reached", Crossing(definition="first")
        return Run(
            batch_size=8,
            lr=self.lr,
            seed=0,
            status=status,
            last_step=self.step,
            budget=budget,
            trace=trace,
            crossings=read_crossings(first, trace, (0.5,), status),
            nearest=value,
            crossing=first,
            seconds_training=0.0,
            seconds_checking=0.0,
            median_step_seconds=None,
        )


def raced(reached_after, max_steps=10_000, cap_factor=2.5):
    contenders = [Pretended(lr, steps) for lr, steps in reached_after.items()]
    finished = race(contenders, max_steps=max_steps, cap_factor=cap_factor)
    return {run.lr: run for _, run in finished}


@settings(deadline=None)
@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=6), st.floats(2, 5))
def test_those_within_the_cap_of_the_fastest_are_reached_and_no_others(steps, factor):
    runs = raced(dict(enumerate(steps)), 10_000, factor)
    cap = min(10_000, max(64, math.ceil(factor * min(steps))))
    for lr, needed in enumerate(steps):
        reached = needed <= cap
        assert runs[lr].status == ("reached" if reached else "not_reached")
        assert runs[lr].last_step == (needed if reached else cap)
        assert runs[lr].budget == (10_000 if reached else cap)


def test_the_order_of_the_learning_rates_does_not_matter():
    steps = {0.1: 700, 0.2: 300, 0.5: 760, 1.0: 740}
    outcomes = [
        sorted(run.outcome() for run in raced(dict(order)).values())
        for order in permutations(steps.items())
    ]
    assert all(outcome == outcomes[0] for outcome in outcomes)


@settings(deadline=None)
@given(st.lists(st.integers(65, 20_000), min_size=2, max_size=6))
def test_no_race_costs_more_than_the_cap_for_each(steps):
    runs = raced(dict(enumerate(steps)), 1_000_000)
    total = sum(run.last_step for run in runs.values())
    assert total <= len(steps) * math.ceil(2.5 * min(steps))


def test_one_that_diverges_sets_no_cap():
    contenders = [Pretended(2.0, diverges=10), Pretended(0.1, reaches=5_000)]
    runs = [r for _, r in race(contenders, max_steps=10_000, cap_factor=2.5)]
    assert [(run.lr, run.status) for run in runs] == [
        (2.0, "diverged"),
        (0.1, "reached"),
    ]


def test_runs_come_as_they_end_not_all_at_the_end():
    runs = race(
        [Pretended(0.1), Pretended(0.5, reaches=10)], max_steps=10_000, cap_factor=2.5
    )
    _, first = next(runs)
    assert first.lr == 0.5


def test_where_none_arrives_all_spend_the_whole_budget():
    runs = raced({0.1: 10**6, 0.2: 10**6}, 5_000)
    assert {run.last_step for run in runs.values()} == {5_000}


def live(targets=(0.4,), seed=0):
    one = RunSettings(
        batch_size=16, lr=0.05, seed=seed, targets=targets, crossing=Crossing()
    )
    return LiveRun(TINY, one, Evaluation(TINY))


def finished(targets, budget):
    run = live(targets)
    run.advance(budget)
    return run.result(budget)


def refused():
    raise AssertionError("trained although the store answers")


@pytest.mark.parametrize("budget", [10, 40, 3000])
def test_a_stored_run_that_answers_is_not_trained_again(budget):
    stored = finished((0.4,), 3000)
    resumed = Resumed([stored], (0.4,), refused)
    resumed.advance(5)
    assert resumed.status is None
    resumed.advance(budget)
    assert not resumed.measured
    assert resumed.result(budget).outcome() == finished((0.4,), budget).outcome()


def test_a_stored_run_that_was_stopped_too_early_is_trained_anew():
    resumed = Resumed([finished((0.4,), 10)], (0.4,), live)
    resumed.advance(10)
    assert not resumed.measured
    resumed.advance(3000)
    assert resumed.measured
    assert resumed.result(3000).outcome() == finished((0.4,), 3000).outcome()


def test_the_first_stored_run_that_answers_is_taken():
    stored = [finished((0.4,), 10), finished((0.3, 0.4), 3000)]
    resumed = Resumed(stored, (0.4,), refused)
    for budget in (10, 3000):
        resumed.advance(budget)
    assert resumed.result(3000).outcome() == finished((0.4,), 3000).outcome()


def test_a_stored_run_for_an_easier_target_is_not_taken():
    resumed = Resumed([finished((0.45,), 3000)], (0.4,), live)
    resumed.advance(3000)
    assert resumed.measured


def test_with_nothing_stored_the_run_is_live_from_the_start():
    assert Resumed([], (0.4,), live).measured
