import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_workload
import torch
from experiments.example_processes import needs_proc, none_left_of

from rightbatch.errors import InputError, RightbatchError, WorkloadFailedError
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.identity import open_store
from rightbatch.experiments.run import default_crossing, run_to_target
from rightbatch.experiments.store import RunStore
from rightbatch.experiments.sweep import (
    SweepSettings,
    auto_batch_sizes,
    sweep,
)

TINY = tiny_workload.tiny()
FILE = Path(tiny_workload.__file__)
# Bit by bit the same, however often it is interrupted.
SETTINGS = SweepSettings(
    batch_sizes=(8, 32, 128), seeds=(0, 1), max_steps=2000, tier="plain"
)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def outcomes(runs):
    return [run.outcome() for run in runs]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite"


def test_a_workload_that_was_loaded_is_not_loaded_again():
    few = replace(SETTINGS, batch_sizes=(128,), seeds=(0,))
    known = sweep(("nowhere:nothing", TINY), few, processes=1)
    assert outcomes(known) == outcomes(sweep(TINY, few))


def test_a_sweep_holds_one_run_per_batch_size_lr_and_seed_in_order():
    runs = sweep(TINY, SETTINGS)
    assert [(run.batch_size, run.lr, run.seed) for run in runs] == [
        (batch_size, lr, seed)
        for batch_size in (8, 32, 128)
        for lr in tiny_workload.LRS
        for seed in (0, 1)
    ]


def test_a_run_of_a_sweep_is_the_run_made_alone(one_thread):
    for run in sweep(TINY, replace(SETTINGS, seeds=(1,))):
        alone = run_to_target(
            TINY,
            batch_size=run.batch_size,
            lr=run.lr,
            seed=run.seed,
            max_steps=run.budget,
        )
        assert run.outcome() == alone.outcome()


def test_no_run_goes_beyond_the_cap_its_fastest_rival_sets():
    runs = sweep(TINY, replace(SETTINGS, cap_factor=2.0))
    for run in runs:
        rivals = [
            r for r in runs if (r.batch_size, r.seed) == (run.batch_size, run.seed)
        ]
        fastest = min(r.last_step for r in rivals if r.status == "reached")
        assert run.last_step <= max(64, 2 * fastest)
        if run.status == "not_reached":
            assert run.budget == max(64, 2 * fastest)


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_a_run():
    spec = f"{FILE}:dropout"
    one, two, three = (sweep(spec, SETTINGS, processes=n) for n in (1, 2, 3))
    assert outcomes(one) == outcomes(two) == outcomes(three)


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_runs_made_together():
    spec, settings = f"{FILE}:tiny", replace(SETTINGS, seeds=range(8), tier="stacked")
    one, two = (sweep(spec, settings, processes=n) for n in (1, 2))
    assert {run.tier for run in one} == {"stacked"}
    assert outcomes(one) == outcomes(two)


def test_the_callers_threads_are_left_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sweep(TINY, SweepSettings(batch_sizes=(64,), seeds=(0,), max_steps=50))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_progress_is_told_run_by_run():
    told = []
    runs = sweep(TINY, SETTINGS, on_progress=lambda *news: told.append(news))
    assert [done for done, _, _ in told] == list(range(1, 25))
    assert {total for _, total, _ in told} == {24}
    assert sorted(run.outcome() for *_, run in told) == sorted(outcomes(runs))


def test_each_run_is_in_the_store_before_the_next_one_is_told_of(path):
    with open_store(path, TINY) as store:
        seen = []
        sweep(
            TINY,
            SETTINGS,
            store=store,
            on_progress=lambda done, *_: seen.append(len(store.runs()) == done),
        )
        assert all(seen)


def test_resuming_a_finished_sweep_trains_nothing(path):
    with open_store(path, TINY) as store:
        runs = sweep(TINY, SETTINGS, store=store)

    def refused(model, batch):
        raise AssertionError("trained again")

    with open_store(path, TINY) as store:
        again = sweep(
            tiny_workload.make(loss=refused), SETTINGS, store=store, resume=True
        )
        assert len(store.runs()) == len(runs)
    assert outcomes(again) == outcomes(runs)


def test_without_resume_all_is_measured_anew_beside_the_earlier_runs(path):
    for _ in range(2):
        with open_store(path, TINY) as store:
            sweep(TINY, SETTINGS, store=store)
    with RunStore(path) as store:
        assert outcomes(store.runs(session=1)) == outcomes(store.runs(session=2))
        assert len(store.runs()) == 48


@pytest.mark.parametrize(
    "changes",
    [
        {"lrs": (0.02, 0.5)},
        {"batch_sizes": (8, 64)},
        {"seeds": (1, 2)},
        {"targets": (0.45,)},
        {"targets": (0.45, 0.38)},
        {"max_steps": 40},
        {"max_steps": 3000},
        {"crossing": Crossing(definition="first")},
    ],
)
def test_a_resumed_sweep_that_asks_for_something_else_answers_as_a_fresh_one(
    path, changes
):
    base = replace(SETTINGS, crossing=Crossing(), targets=(0.4,))
    asked = replace(base, **changes)
    with open_store(path, TINY) as store:
        sweep(TINY, base, store=store)
    with open_store(path, TINY) as store:
        resumed = sweep(TINY, asked, store=store, resume=True)
    assert outcomes(resumed) == outcomes(sweep(TINY, asked))


def test_a_resumed_sweep_takes_runs_that_were_checked_past_another_gate(path):
    few = replace(SETTINGS, batch_sizes=(32,), targets=(0.4,))
    with open_store(path, TINY) as store:
        first = sweep(TINY, replace(few, crossing=Crossing(gate=1.5)), store=store)
    with open_store(path, TINY) as store:
        asked = replace(few, crossing=Crossing(gate=3.0))
        again = sweep(TINY, asked, store=store, resume=True)
        assert len(store.runs()) == len(first)
    assert [run.steps() for run in again] == [run.steps() for run in first]


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (Crossing(gate=1.5), Crossing()),
        (Crossing(), Crossing(direction="max")),
        (Crossing(), Crossing(definition="first")),
    ],
)
def test_a_resumed_sweep_takes_no_runs_of_another_quantity(path, stored, asked):
    few = replace(SETTINGS, batch_sizes=(32,), lrs=(0.5,), seeds=(0,), max_steps=60)
    with open_store(path, TINY) as store:
        sweep(TINY, replace(few, crossing=stored), store=store)
    target = (0.4,) if asked.direction == "min" else (3.0,)
    with open_store(path, TINY) as store:
        again = replace(few, crossing=asked, targets=target)
        sweep(TINY, again, store=store, resume=True)
        assert len(store.runs()) == 2


def starving(tried):
    def loss(model, batch):
        if torch.is_grad_enabled():
            tried.append(len(batch[0]))
            if len(batch[0]) >= 32:
                raise MemoryError
        return tiny_workload.cross_entropy(model, batch)

    return tiny_workload.make(loss=loss)


@pytest.mark.parametrize("tier", ["plain", "auto"])
def test_batches_larger_than_one_that_does_not_fit_are_recorded_and_not_tried(tier):
    tried = []
    settings = replace(SETTINGS, seeds=(0, 1), targets=(0.1,), max_steps=20, tier=tier)
    runs = sweep(starving(tried), settings, processes=1)
    assert {run.last_step for run in runs if run.batch_size == 8} == {20}
    larger = [run for run in runs if run.batch_size > 8]
    assert {run.status for run in larger} == {"out_of_memory"}
    assert {run.last_step for run in larger} == {0}
    assert [crossed.status for crossed in larger[-1].crossings] == ["out_of_memory"]
    # To time it, or not: 128 may be tried for that, but not by a run.
    assert tried.count(128) <= (1 if tier == "auto" else 0)


def test_what_did_not_fit_is_known_to_a_resumed_sweep(path):
    settings = replace(SETTINGS, batch_sizes=(8, 32), seeds=(0,), max_steps=20)
    with open_store(path, TINY) as store:
        sweep(starving([]), settings, store=store)
        tried = []
        more = replace(settings, batch_sizes=(8, 32, 128), tier="plain")
        runs = sweep(starving(tried), more, store=store, resume=True)
    assert not tried
    assert [run.status for run in runs[-8:]] == ["out_of_memory"] * 8


def test_an_error_of_the_workload_ends_the_sweep_and_keeps_the_runs_before_it(path):
    workload = tiny_workload.failing()
    settings = replace(SETTINGS, batch_sizes=(2, 8))
    told = pytest.raises(WorkloadFailedError, match="ZeroDivisionError: as it was")
    with open_store(path, workload) as store, told:
        sweep(workload, settings, store=store)
    # The smaller batch, the longer one, came first.
    with RunStore(path) as store:
        assert [run.batch_size for run in store.runs()] == [2] * 8


@pytest.mark.slow
def test_a_killed_worker_is_an_error_and_not_a_wait():
    with pytest.raises(
        RightbatchError,
        match=r"killed by SIGKILL in the middle of batch size 8, seed 0",
    ):
        sweep(f"{FILE}:killed", replace(SETTINGS, seeds=(0,)), processes=2)


@pytest.mark.slow
def test_an_error_of_the_workload_in_another_process_arrives_whole():
    with pytest.raises(
        WorkloadFailedError, match=r"batch size 8.*ZeroDivisionError: as it was told"
    ):
        sweep(f"{FILE}:failing", replace(SETTINGS, seeds=(0,)), processes=2)


SWEEP_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from rightbatch.experiments.identity import open_store
from rightbatch.experiments.sweep import SweepSettings, sweep
from rightbatch.workload import load_workload

if __name__ == "__main__":
    spec, path = sys.argv[1:3]
    settings = SweepSettings(
        batch_sizes=(8, 32, 128), seeds=(0, 1), max_steps=300, tier="plain"
    )
    with open_store(Path(path), load_workload(spec)) as store:
        print("begun", flush=True)
        sweep(spec, settings, processes=2, store=store, resume=True,
              on_progress=lambda done, *_: print(done, flush=True))
"""


def started(tmp_path, path):
    script = tmp_path / "script.py"
    script.write_text(SWEEP_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script, f"{FILE}:slow", path, FILE.parent],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.slow
@needs_proc
def test_a_sweep_killed_again_and_again_ends_as_one_that_never_was(tmp_path, path):
    settings = replace(SETTINGS, max_steps=300)
    chance = random.Random(0)
    stored = []
    for _ in range(3):
        process = started(tmp_path, path)
        # In the middle of the work: some after a few runs, some before any.
        for _ in range(chance.randrange(4)):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert none_left_of(process)
        with RunStore(path) as store:
            now = outcomes(store.runs())
        assert all(outcome in now for outcome in stored), "a finished run was lost"
        stored = now
    assert stored
    process = started(tmp_path, path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    undisturbed = sweep(tiny_workload.slow(), settings, processes=1)
    with RunStore(path) as store:
        assert outcomes(store.runs()) == outcomes(undisturbed)
        assert outcomes(store.runs(session=1)) == outcomes(undisturbed)


@pytest.mark.slow
@needs_proc
def test_ctrl_c_ends_the_sweep_with_its_workers_and_keeps_what_is_finished(
    tmp_path, path
):
    process = started(tmp_path, path)
    told = int(process.stdout.readline())
    # As a terminal does: to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    # Which code an uncaught KeyboardInterrupt ends with is the interpreter's affair.
    assert process.returncode != 0
    assert errors.count("Traceback") == 1
    assert "KeyboardInterrupt" in errors
    assert none_left_of(process)
    told = int(([str(told), *output.split()])[-1])
    with RunStore(path) as store:
        assert len(store.runs()) >= told


@pytest.mark.slow
def test_two_sweeps_into_one_store_share_a_session_and_repeat_nothing(tmp_path, path):
    both = [started(tmp_path, path) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    with RunStore(path) as store:
        assert len(store.runs()) == 24
        assert len(store.runs(session=1)) == 24


def test_the_default_batch_sizes_double_and_fit_the_data():
    for num_examples in (1, 3, 20, 40, 500, 10**6):
        sizes = auto_batch_sizes(num_examples)
        assert sizes[-1] <= min(num_examples, 512)
        ratios = {b // a for a, b in zip(sizes, sizes[1:], strict=False)}
        assert ratios <= {2}


def test_settings_that_are_not_given_are_the_workloads():
    resolved = SETTINGS.resolved(TINY)
    assert resolved.lrs == TINY.lrs
    assert resolved.targets == (0.4,)
    assert resolved.crossing == default_crossing(TINY)


def test_a_batch_size_above_the_data_set_is_refused():
    with pytest.raises(InputError, match="batch size 512 is above the 256 examples"):
        sweep(TINY, replace(SETTINGS, batch_sizes=(8, 512)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_sizes": ()}, "`batch_sizes` must be a list of numbers"),
        ({"batch_sizes": (8, -4)}, "`batch_sizes` must be positive, got -4 at 1"),
        ({"batch_sizes": (2.5,)}, "`batch_sizes` must be a whole number"),
        ({"lrs": ()}, "`lrs` must be a list of numbers"),
        ({"lrs": (0.0,)}, "`lrs` must be positive"),
        ({"seeds": ()}, "`seeds` must not be empty"),
        ({"targets": ()}, "`targets` must not be empty"),
        ({"max_steps": 0}, "`max_steps` must be a whole number >= 1"),
        ({"cap_factor": 1.5}, r"`cap_factor` must be at least 2, got 1\.5"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **changes)


def test_a_number_of_processes_below_one_is_refused():
    with pytest.raises(InputError, match="`processes` must be a whole number >= 1"):
        sweep(TINY, SETTINGS, processes=0)
