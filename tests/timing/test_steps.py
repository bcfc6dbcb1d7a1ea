"""Seconds per step: what is timed, what stops it, what it costs."""

import itertools
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rightbatch.engine import Update
from rightbatch.errors import InputError, NotReachedError, WorkloadFailedError
from rightbatch.experiments.workloads.digits import mlp
from rightbatch.timing import StepTiming, StepTimings, measure_step_times

QUICK = 0.05


def with_loss(loss: Any):
    return replace(mlp(), loss=loss)


def sleeping(seconds_per_example: float):
    def loss(model: nn.Module, batch: Any) -> Tensor:
        time.sleep(seconds_per_example * len(batch[1]))
        return mlp().loss(model, batch)

    return with_loss(loss)


def failing_above(limit: int, error: Exception):
    def loss(model: nn.Module, batch: Any) -> Tensor:
        if len(batch[1]) > limit:
            raise error
        return mlp().loss(model, batch)

    return with_loss(loss)


def test_every_batch_size_asked_for_is_timed_once_in_ascending_order():
    times = measure_step_times(mlp(), [64, 8, 64, 1], budget_seconds=QUICK)
    assert times.batch_sizes == (1, 8, 64)
    assert times.stopped == ""
    for timing in times.timings:
        assert 0 < timing.spread[0] <= timing.seconds <= timing.spread[1]
        assert timing.num_replicas == 1
        assert timing.memory_bytes is None


def test_the_seconds_are_those_of_the_step():
    # Sleeping 2 and 16 ms; a sleep may overrun on a busy machine, never underrun.
    times = measure_step_times(sleeping(1e-3), [2, 16], budget_seconds=0.3)
    assert times.seconds[0] >= 2e-3
    assert times.seconds[1] >= 16e-3
    assert times.seconds[1] > times.seconds[0]


def test_what_is_timed_is_a_whole_update_of_the_batch_size_asked_for(monkeypatch):
    seen: list[int] = []
    real = Update.__call__

    def spy(self: Update, batch: Any) -> Tensor:
        seen.append(len(batch[1]))
        return real(self, batch)

    monkeypatch.setattr(Update, "__call__", spy)
    times = measure_step_times(mlp(), [4, 9], budget_seconds=QUICK)
    counts = {timing.batch_size: timing.num_steps for timing in times.timings}
    for size in (4, 9):
        assert seen.count(size) > counts[size] >= 3
    assert set(seen) == {4, 9}
    # Rounds: the sizes come in turn, not one after the other's end.
    turns = [size for size, _ in itertools.groupby(seen)]
    assert len(turns) >= 5


def test_the_budget_is_kept_beyond_three_rounds_of_one_step():
    times = measure_step_times(sleeping(1e-2), [1, 2], budget_seconds=0.2)
    assert all(3 <= timing.num_steps <= 20 for timing in times.timings)
    slow = measure_step_times(sleeping(1e-2), [4], budget_seconds=1e-3)
    assert slow.timings[0].num_steps == 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nmore lines"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_ends_the_list_and_keeps_the_smaller_ones(error):
    workload = failing_above(32, error)
    times = measure_step_times(workload, [8, 32, 64, 128], budget_seconds=QUICK)
    assert times.batch_sizes == (8, 32)
    assert "batch size 64 does not fit in memory" in times.stopped
    assert "\n" not in times.stopped
    assert times.stopped in str(times)


def test_out_of_memory_in_a_later_round_drops_that_size_and_larger_ones():
    calls = itertools.count()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if len(batch[1]) == 64 and next(calls) >= 2:
            raise MemoryError("late")
        time.sleep(2e-3)
        return mlp().loss(model, batch)

    times = measure_step_times(with_loss(loss), [8, 64, 128], budget_seconds=1e-3)
    assert times.batch_sizes == (8,)
    assert times.stopped == "batch size 64 does not fit in memory: late"
    assert times.timings[0].num_steps == 3


def test_nothing_that_fits_is_an_error_of_its_own():
    with pytest.raises(NotReachedError, match="batch size 8 does not fit in memory"):
        measure_step_times(failing_above(1, MemoryError()), [8], budget_seconds=QUICK)
    calls = itertools.count()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if next(calls) >= 2:
            raise MemoryError
        time.sleep(2e-3)
        return mlp().loss(model, batch)

    with pytest.raises(NotReachedError, match="MemoryError"):
        measure_step_times(with_loss(loss), [8], budget_seconds=1e-3)


def test_another_error_of_the_workload_is_shown_as_its_own():
    workload = failing_above(1, RuntimeError("shapes differ"))
    with pytest.raises(
        WorkloadFailedError, match=r"a training step raised RuntimeError: shapes differ"
    ):
        measure_step_times(workload, [8], budget_seconds=QUICK)


def test_threads_are_one_while_timing_and_put_back_after():
    seen: set[int] = set()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        seen.add(torch.get_num_threads())
        return mlp().loss(model, batch)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measure_step_times(with_loss(loss), [2], budget_seconds=QUICK)
        assert torch.get_num_threads() == 2
        with pytest.raises(WorkloadFailedError):
            measure_step_times(failing_above(1, ValueError("x")), [2])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_progress_rises_to_one():
    fractions: list[float] = []
    measure_step_times(
        mlp(), [2, 4], budget_seconds=QUICK, on_progress=fractions.append
    )
    assert fractions == sorted(fractions)
    assert fractions[0] > 0
    assert fractions[-1] == 1


def test_items_that_count_for_several_examples_can_be_timed():
    workload = replace(mlp(), example_count=lambda item: 3)
    assert measure_step_times(workload, [30], budget_seconds=QUICK).batch_sizes == (30,)


def test_the_result_is_readable_by_a_person_and_a_program():
    timing = StepTiming(batch_size=8, seconds=2e-3, spread=(1e-3, 3e-3), num_steps=9)
    times = StepTimings(timings=(timing,), device="cpu", num_threads=1)
    assert "8           2 ms  (1 to 3)" in str(times)
    assert times.to_dict()["times"] == [
        {
            "batch_size": 8,
            "num_replicas": 1,
            "seconds": 2e-3,
            "low": 1e-3,
            "high": 3e-3,
            "num_steps": 9,
            "memory_bytes": None,
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"batch_sizes": []}, "`batch_sizes` must not be empty"),
        ({"batch_sizes": [0]}, "`batch_sizes` must be a whole number >= 1, got 0"),
        ({"batch_sizes": [-8]}, "must be a whole number >= 1, got -8"),
        ({"batch_sizes": [8, 2000]}, "at most the data set's 1438 examples, got 2000"),
        ({"repeats": 0}, "`repeats` must be"),
        ({"budget_seconds": 0}, "`budget_seconds` must be positive"),
        ({"num_threads": 0}, "`num_threads` must be"),
        ({"device": "gpu9"}, "there is no device 'gpu9'"),
        ({"device": "meta"}, "`device` cannot be 'meta'"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments, match):
    with pytest.raises(InputError, match=match):
        measure_step_times(mlp(), **{"batch_sizes": [8], **arguments})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_cuda_device_is_said_so():
    with pytest.raises(InputError, match="finds no CUDA device"):
        measure_step_times(mlp(), [8], device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_memory_peak_grows_with_the_batch():
    times = measure_step_times(mlp(), [8, 1024], device="cuda", budget_seconds=1)
    assert times.timings[0].memory_bytes < times.timings[1].memory_bytes
