"""What a run records beside its target, checks at an interval, and runs out of."""

import pytest
import tiny_workload
import torch
from torch.nn import functional

from rightbatch.errors import InputError, WorkloadError
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.evaluation import Evaluation
from rightbatch.experiments.record import reread
from rightbatch.experiments.run import LiveRun, RunSettings, default_crossing
from rightbatch.experiments.sweep import SweepSettings
from rightbatch.workload import Target, Workload

HELD_OUT = tiny_workload.points(60, 2)
BOTH = tiny_workload.make(held_out=HELD_OUT)


def live_run(workload=BOTH, crossing=None, **changes):
    values = {"batch_size": 16, "lr": 0.1, "seed": 0, "targets": (0.4,)} | changes
    settings = RunSettings(**values, crossing=crossing or Crossing())
    return LiveRun(workload, settings, Evaluation(workload))


def run(workload=BOTH, crossing=None, budget=400, **changes):
    live = live_run(workload, crossing, **changes)
    live.advance(budget)
    return live.result(budget)


def test_the_held_out_loss_is_recorded_at_each_check_and_changes_nothing_else():
    both, alone = run(record_held_out=True), run()
    assert both.trace == alone.trace
    assert [step for step, _ in both.held_out_trace] == [s for s, _ in both.trace]
    model = BOTH.model(0)
    inputs, labels = HELD_OUT.tensors
    with torch.no_grad():
        expected = functional.cross_entropy(model(inputs), labels)
    assert both.held_out_trace[0][1] == pytest.approx(float(expected), rel=1e-6)


def test_steps_to_a_held_out_target_are_read_off_its_trace():
    both = run(record_held_out=True)
    steps = both.held_out_steps(0.5)
    assert steps == Crossing().steps(both.held_out_trace, 0.5)
    assert steps > 0
    with pytest.raises(InputError, match="held-out set was not recorded"):
        run().held_out_steps(0.5)


def test_a_run_read_again_for_an_easier_target_keeps_the_held_out_points():
    both = run(record_held_out=True)
    again = reread(both, (0.5,), 400)
    assert again.held_out_trace == both.held_out_trace[: len(again.trace)]


def test_a_workload_without_a_held_out_set_is_refused():
    workload = tiny_workload.tiny()
    with pytest.raises(InputError, match="has no held-out set to record"):
        run(workload, record_held_out=True)
    wanted = SweepSettings(batch_sizes=(8,), record_held_out=True)
    with pytest.raises(InputError, match="tiny has no held-out set to record"):
        wanted.resolved(workload)


def test_a_recording_interval_gives_the_first_of_its_steps_that_meets_the_target():
    every_update = run(crossing=Crossing(definition="first"), budget=2000)
    at_intervals = run(crossing=Crossing(definition="first", every=7), budget=2000)
    values = dict(at_intervals.trace)
    assert all(step % 7 == 0 for step in values)
    assert all(every_update.trace[0][0] == 0 for _ in values)
    steps = at_intervals.steps()
    assert values[steps] <= 0.4
    assert all(value > 0.4 for step, value in values.items() if step < steps)
    assert steps >= every_update.steps()
    assert at_intervals.crossings[0].grid_spacing == 7


def test_a_workloads_recording_interval_is_that_of_its_runs():
    target = Target(value=0.4, crossing="first", every=100)
    assert default_crossing(tiny_workload.make(target=target)).every == 100


def share_right(model, dataset):
    inputs, labels = dataset.tensors
    return float((model(inputs).argmax(1) == labels).float().mean())


def of_corpus(metric=share_right) -> Workload:
    target = Target(metric="right", value=0.8, direction="max", crossing="first")
    return tiny_workload.make(
        corpus_metrics={"right": metric}, target=target, held_out=HELD_OUT
    )


def test_a_metric_of_the_whole_set_is_a_target_like_any_other():
    target = Target(metric="accuracy", value=0.8, direction="max", crossing="first")
    mean_of_examples = tiny_workload.make(target=target)
    crossing = default_crossing(mean_of_examples)
    whole = run(of_corpus(), crossing, targets=(0.8,), record_held_out=True)
    one_by_one = run(mean_of_examples, crossing, targets=(0.8,))
    assert whole.steps() == one_by_one.steps()
    assert len(whole.held_out_trace) == len(whole.trace)


def test_a_corpus_metric_must_be_one_number():
    with pytest.raises(WorkloadError, match="must return one number, got Tensor"):
        run(of_corpus(lambda model, dataset: torch.ones(3)), targets=(0.8,))


def test_a_batch_that_does_not_fit_in_memory_is_a_result():
    def loss(model, batch):
        if model.training and len(batch[0]) == 32:
            raise MemoryError
        return tiny_workload.cross_entropy(model, batch)

    workload = tiny_workload.make(loss=loss)
    assert run(workload).status == "reached"
    too_large = run(workload, batch_size=32)
    assert (too_large.status, too_large.last_step) == ("out_of_memory", 0)
    assert too_large.rows()[0]["status"] == "out_of_memory"
    assert reread(too_large, (0.5,), 100).status == "out_of_memory"
