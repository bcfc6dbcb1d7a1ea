"""What a run leaves behind: a record per update, and its trace."""

import numpy as np
import pytest
from controller.example_training import (
    Listed,
    Watching,
    controlled,
    data,
    losses_of,
    net,
    run,
    stream_of,
)

from rightbatch.controller import MeanLoss, Sensing, trace_of
from rightbatch.policies import Constant
from rightbatch.simulation import read_trace, replay


def test_examples_updates_and_epochs_add_up():
    controller = run(controlled(Listed((8,))), epochs=3)
    assert controller.step * 8 == controller.examples == 3 * 96
    record = controller.records[-1]
    assert (record.step, record.examples, record.epoch) == (36, 288, 3)
    assert (record.micro_batch_size, record.accumulation_steps) == (8, 1)
    assert (record.num_replicas, record.reason, record.wish) == (1, "number 35", 8)


def test_examples_that_are_skipped_are_not_taken():
    stream = stream_of(data(100), 30, tail="drop")
    controller = run(controlled(Listed((30,)), stream=stream), epochs=2)
    assert [r.examples for r in controller.records] == [30, 60, 90, 120, 150, 180]
    assert controller.records[2].epoch == 1


def test_a_batch_that_grew_at_the_end_of_the_last_epoch_is_left_out():
    stream = stream_of(data(100), 10, tail="drop")
    controller = run(controlled(Listed((40, 40, 30)), stream=stream), epochs=1)
    assert [r.batch_size for r in controller.records] == [40, 40]
    run(controller, epochs=2)
    assert [r.batch_size for r in controller.records[2:]] == [30, 40]


def test_a_wish_that_cannot_be_served_stands_beside_what_was():
    controller = run(controlled(Listed((9.4, 1e9))), max_steps=2)
    assert [r.wish for r in controller.records] == [9.4, 1e9]
    assert [r.batch_size for r in controller.records] == [8, 96]


def test_the_trace_has_the_loss_after_each_update():
    model = net()
    controller = run(
        controlled(
            Watching(8, frozenset({"eval_loss"}), []),
            model,
            sensing=Sensing(evaluate=MeanLoss(model, losses_of, data())),
        ),
        max_steps=5,
    )
    trace, records = controller.trace(), controller.records
    assert trace.initial_loss == records[0].eval_loss
    assert list(trace.losses[:-1]) == [r.eval_loss for r in records[1:]]
    assert np.isnan(trace.losses[-1])
    assert list(trace.measurements["batch_loss"]) == [r.loss for r in records]


def test_without_an_evaluated_loss_the_next_batch_s_stands_for_it():
    controller = run(controlled(Listed((8,))), max_steps=4)
    losses = [r.loss for r in controller.records]
    assert list(controller.trace().losses[:-1]) == losses[1:]


def test_a_trace_survives_its_rows_and_another_policy_reads_it():
    controller = run(
        controlled(Watching(16, frozenset({"moments"}), []), sensing=Sensing(every=1)),
        max_steps=6,
    )
    trace = read_trace(controller.trace().rows())
    again = replay(Constant(batch_size=32), trace)
    assert list(again.batch_sizes) == [32] * 6
    assert "noise_scale" in trace.measurements


def test_the_trace_of_nothing_is_empty():
    assert len(trace_of([])) == 0


@pytest.mark.parametrize("largest", [4, 8, 32])
def test_passes_are_counted(largest):
    stream = stream_of(micro_batch_size=4, largest_pass=largest)
    controller = run(controlled(Listed((32,)), stream=stream), max_steps=1)
    record = controller.records[0]
    assert record.micro_batch_size == largest
    assert record.accumulation_steps == 32 // largest
