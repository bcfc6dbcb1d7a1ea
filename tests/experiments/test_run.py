import math
import random
from functools import cache

import numpy as np
import pytest
import tiny_workload
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from rightbatch.errors import InputError, WorkloadError, WorkloadFailedError
from rightbatch.experiments.crossing import Crossing, grid_step
from rightbatch.experiments.evaluation import Evaluation
from rightbatch.experiments.randomness import derived_seed
from rightbatch.experiments.record import reread
from rightbatch.experiments.run import (
    LiveRun,
    RunSettings,
    default_budget,
    default_crossing,
    run_to_target,
)
from rightbatch.experiments.workloads import digits
from rightbatch.sampler import ExampleStream
from rightbatch.workload import Target

TINY = tiny_workload.tiny()
FIRST = Crossing(definition="first")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def losses_after_every_update(batch_size, lr, seed, steps):
    """A plain loop: zero_grad, backward, step; everything is evaluated each time."""
    model = TINY.model(seed)
    optimizer = TINY.optimizer(model.parameters(), lr)
    stream = ExampleStream(TINY.train, derived_seed(seed, 1))
    inputs, labels = TINY.evaluate_on.tensors
    losses = []
    for step in range(steps + 1):
        if step:
            optimizer.zero_grad()
            TINY.loss(model, stream.next(batch_size)).mean().backward()
            optimizer.step()
        with torch.no_grad():
            losses.append(float(functional.cross_entropy(model(inputs), labels)))
    return losses


def live_run(workload=TINY, crossing=None, **changes):
    values = {"batch_size": 16, "lr": 0.1, "seed": 0, "targets": (0.4,)} | changes
    one = RunSettings(**values, crossing=crossing or Crossing())
    return LiveRun(workload, one, Evaluation(workload))


@pytest.mark.parametrize("batch_size", [1, 7, 64, 256])
def test_the_trace_is_that_of_a_plain_loop(batch_size):
    run = run_to_target(
        TINY, batch_size=batch_size, lr=0.1, seed=3, targets=[0.01], max_steps=150
    )
    plain = losses_after_every_update(batch_size, 0.1, 3, 150)
    assert [v for _, v in run.trace] == pytest.approx(
        [plain[step] for step, _ in run.trace], rel=1e-4
    )


def test_without_a_gate_every_grid_point_is_checked():
    run = run_to_target(
        TINY,
        batch_size=16,
        lr=0.1,
        seed=0,
        targets=[0.01],
        max_steps=300,
        crossing=Crossing(),
    )
    steps = [grid_step(index) for index in range(200)]
    assert [step for step, _ in run.trace] == [s for s in steps if s <= 300]
    assert run.status == "not_reached"
    assert run.budget == 300
    assert run.nearest == pytest.approx(min(v for _, v in run.trace), rel=0.05)


@pytest.mark.parametrize("batch_size", [1, 4, 16, 128])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_first_passage_is_that_of_evaluating_everything_every_step(batch_size, seed):
    targets = (0.5, 0.42, 0.38)
    run = run_to_target(
        TINY,
        batch_size=batch_size,
        lr=0.05,
        seed=seed,
        targets=targets,
        max_steps=600,
        crossing=FIRST,
    )
    plain = losses_after_every_update(batch_size, 0.05, seed, 600)
    for target, crossed in zip(targets, run.crossings, strict=True):
        wanted = next((s for s, loss in enumerate(plain) if loss <= target), None)
        assert crossed.steps == wanted


def test_first_passage_of_a_metric_to_be_maximised_is_exact():
    target = Target(metric="accuracy", direction="max", value=0.8)
    workload = tiny_workload.make(target=target)
    run = run_to_target(workload, batch_size=16, lr=0.02, seed=2, crossing=None)
    assert run.crossing == Crossing(direction="max")
    first = Crossing(definition="first", direction="max")
    run = run_to_target(workload, batch_size=16, lr=0.02, seed=2, crossing=first)
    before, at = run.trace[-2:]
    assert before[1] < 0.8 <= at[1]
    assert run.steps() == run.last_step == at[0]
    assert [step for step, _ in run.trace] == list(range(run.last_step + 1))


def test_first_passage_is_the_same_for_items_as_for_tensors():
    items = tiny_workload.make(evaluate_on=tiny_workload.Items(TINY.evaluate_on))
    wanted, found = (
        run_to_target(w, batch_size=4, lr=0.05, seed=1, crossing=FIRST)
        for w in (TINY, items)
    )
    assert found.steps() == wanted.steps()


def test_first_passage_of_a_loss_that_can_be_negative_is_exact():
    def shifted(model, batch):
        return tiny_workload.cross_entropy(model, batch) - 1

    workload = tiny_workload.make(loss=shifted)
    run = run_to_target(
        workload, batch_size=4, lr=0.05, seed=1, targets=[-0.6], crossing=FIRST
    )
    plain = losses_after_every_update(4, 0.05, 1, 600)
    assert run.steps() == next(s for s, loss in enumerate(plain) if loss - 1 <= -0.6)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_gate_of_first_passage_saves_checks_and_changes_no_crossing(batch_size):
    values = {"batch_size": batch_size, "lr": 0.02, "seed": 0, "targets": (0.38,)}
    gate = Crossing(definition="first", gate=1.5)
    gated, free = (live_run(crossing=c, **values) for c in (gate, FIRST))
    for live in (gated, free):
        live.advance(3000)
    assert gated.result(3000).steps() == free.result(3000).steps()
    assert len(gated.result(3000).trace) < len(free.result(3000).trace)


@pytest.mark.parametrize(("batch_size", "lr"), [(8, 0.5), (64, 1.0), (512, 1.0)])
def test_the_default_gate_changes_no_crossing_on_digits(batch_size, lr):
    workload = digits.mlp()
    values = {"batch_size": batch_size, "lr": lr, "seed": 0, "targets": (0.3, 0.15)}
    gated, free = (
        live_run(workload, crossing, **values)
        for crossing in (default_crossing(workload), Crossing())
    )
    for live in (gated, free):
        live.advance(2000)
    gated, free = gated.result(2000), free.result(2000)
    assert gated.status == "reached"
    assert gated.crossings == free.crossings
    assert len(gated.trace) < len(free.trace)


def test_while_the_gate_is_closed_one_grid_point_in_ten_is_checked():
    live = live_run(crossing=Crossing(gate=1.01), targets=(0.01,))
    live.advance(200)
    assert [step for step, _ in live.result(200).trace] == [
        grid_step(index) for index in range(0, 130, 10) if grid_step(index) <= 200
    ]


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.integers(0, 150), max_size=5), st.sampled_from(["smoothed", "first"])
)
def test_a_run_taken_in_pieces_has_the_outcome_of_one_taken_in_one_go(pieces, kind):
    crossing = Crossing(definition=kind, gate=2.0)
    values = {"batch_size": 2, "lr": 0.02, "targets": (0.45, 0.37)}
    whole, cut = (live_run(crossing=crossing, **values) for _ in range(2))
    whole.advance(150)
    for budget in (*pieces, 150):
        cut.advance(budget)
    assert cut.result(150).outcome() == whole.result(150).outcome()


def test_runs_with_dropout_do_not_see_each_other():
    workload = tiny_workload.dropout()
    alone = live_run(workload, seed=1)
    alone.advance(100)
    one, other = live_run(workload, seed=1), live_run(workload, seed=2)
    for budget in range(0, 101, 5):
        other.advance(budget)
        one.advance(budget)
    assert one.result(100).outcome() == alone.result(100).outcome()


def test_the_callers_random_numbers_are_left_alone():
    def draws():
        return torch.rand(1).item(), np.random.rand(), random.random()

    for seeded in (torch.manual_seed, np.random.seed, random.seed):
        seeded(0)
    wanted = draws()
    for seeded in (torch.manual_seed, np.random.seed, random.seed):
        seeded(0)
    run_to_target(tiny_workload.dropout(), batch_size=16, lr=0.1, seed=0, max_steps=20)
    assert draws() == wanted


@pytest.mark.parametrize("definition", ["smoothed", "first"])
def test_a_reread_run_is_the_run_a_smaller_budget_would_have_made(definition):
    crossing = Crossing(definition=definition)
    for targets, budget in (((0.38,), 60), ((0.45,), 3000), ((0.45, 0.38), 77)):
        short = live_run(crossing=crossing, targets=targets)
        long = live_run(crossing=crossing, targets=(0.3, 0.38, 0.45))
        long.advance(3000)
        short.advance(budget)
        again = reread(long.result(3000), targets, budget)
        assert again.outcome() == short.result(budget).outcome()


def test_another_seed_is_another_run():
    one, other = (live_run(seed=seed) for seed in (0, 1))
    one.advance(20)
    other.advance(20)
    assert one.result(20).trace[0] != other.result(20).trace[0]


def test_several_targets_cost_one_run_that_goes_on_to_the_hardest():
    alone = run_to_target(TINY, batch_size=16, lr=0.1, seed=0, targets=[0.45])
    both = run_to_target(TINY, batch_size=16, lr=0.1, seed=0, targets=[0.45, 0.38])
    assert both.steps(0.45) == alone.steps()
    assert both.steps(0.45) < both.steps(0.38) == both.steps()
    assert both.last_step >= both.steps()


def test_a_run_that_blows_up_diverges_and_says_where_it_stood():
    def squared(model, batch):
        return (model(batch[0]).sum(1) - batch[1]) ** 2

    workload = tiny_workload.make(loss=squared)
    run = run_to_target(workload, batch_size=16, lr=3.0, seed=0, targets=[0.01])
    assert run.status == "diverged"
    assert run.last_step < 200
    assert run.crossings[0].status == "diverged"
    assert run.steps() is None
    assert run.nearest == pytest.approx(run.trace[0][1])


def test_a_run_that_hovers_far_above_its_start_diverges_without_a_nan():
    def pinned(model, batch):
        # 1 before the first update, about 30 after it for ever.
        grown = (model.weight.detach() != pinned.start).any()
        value = model.weight.sum() * 0 + (30.0 if grown else 1.0)
        return (value + model.weight.sum() * 1e-6).expand(len(batch[0]))

    pinned.start = TINY.model(0).weight.detach().clone()
    workload = tiny_workload.make(loss=pinned)
    run = run_to_target(workload, batch_size=16, lr=3.0, seed=0, targets=[0.01])
    assert run.status == "diverged"
    assert 50 <= run.last_step <= 100
    assert all(math.isfinite(value) for _, value in run.trace)


def test_seconds_are_counted_apart_for_training_and_checking():
    run = run_to_target(TINY, batch_size=16, lr=0.1, seed=0)
    assert run.seconds_training > 0
    assert run.seconds_checking > 0
    assert 0 < run.median_step_seconds < run.seconds_training


def test_the_default_budget_is_ten_thousand_steps_or_five_epochs():
    assert default_budget(60_000, 512) == 10_000
    assert default_budget(60_000, 7) == math.ceil(300_000 / 7)


def test_a_metric_that_the_batches_do_not_tell_has_no_gate():
    assert default_crossing(TINY).gate == 3.0
    target = Target(value=0.1, crossing="first")
    assert default_crossing(tiny_workload.make(target=target)).gate == 2.0
    target = Target(metric="accuracy", value=0.9, direction="max")
    assert default_crossing(tiny_workload.make(target=target)).gate is None


def test_a_target_met_before_the_first_update_is_refused():
    with pytest.raises(InputError, match="met before the first update"):
        run_to_target(TINY, batch_size=16, lr=0.1, seed=0, targets=[0.3, 9.0])


def test_an_error_in_the_workload_is_shown_with_its_type_and_place():
    with pytest.raises(
        WorkloadFailedError,
        match=r"batch size 8.* ZeroDivisionError: as it was told .*tiny_workload\.py:",
    ):
        run_to_target(tiny_workload.failing(), batch_size=8, lr=0.1, seed=0)


def test_a_loss_that_is_a_mean_is_refused():
    def mean(model, batch):
        return tiny_workload.cross_entropy(model, batch).mean()

    with pytest.raises(
        WorkloadError, match=r"one value per example, .* got shape \(\)"
    ):
        run_to_target(tiny_workload.make(loss=mean), batch_size=8, lr=0.1, seed=0)


def test_a_batch_above_the_data_set_is_refused():
    with pytest.raises(
        InputError, match="at most the data set's 256 examples, got 257"
    ):
        run_to_target(TINY, batch_size=257, lr=0.1, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be a whole number >= 1, got 0"),
        ({"lr": -1.0}, "`lr` must be positive"),
        ({"seed": -1}, "`seed` must be a whole number >= 0, got -1"),
        ({"targets": []}, "`targets` must not be empty"),
        ({"targets": [math.nan]}, "`target` must be a finite number"),
        ({"max_steps": 0}, "`max_steps` must be a whole number >= 1"),
    ],
)
def test_a_setting_out_of_range_is_refused(changes, message):
    values = {"batch_size": 8, "lr": 0.1, "seed": 0} | changes
    with pytest.raises(InputError, match=message):
        run_to_target(TINY, **values)
