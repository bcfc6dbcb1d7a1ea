"""A training run: its numbers, and its way into a store and out again."""

import math
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from experiments.example_trainings import evaluated, run_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import StoreError
from rightbatch.experiments.store import RunStore, StoreIdentity
from rightbatch.experiments.train_record import pack, unpack

IDENTITY = StoreIdentity(workload="tiny", fingerprint={"parameters": 10})
numbers = st.floats(allow_infinity=False, allow_nan=True, width=64)


def known(run):
    return {
        "policy": run.policy,
        "seed": run.seed,
        "settings": run.settings,
        "status": run.status,
    }


def assert_equal(found, run):
    assert known(found) == known(run)
    assert found.rows() == run.rows()
    assert found.evaluations == run.evaluations
    assert found.summary() == run.summary()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite"


@settings(deadline=None, max_examples=30)
@given(
    losses=st.lists(numbers, min_size=1, max_size=20),
    lr=st.floats(1e-9, 1e3),
    seed=st.integers(0, 2**31),
)
def test_a_run_is_unpacked_as_it_was_packed_to_the_last_bit(losses, lr, seed):
    run = run_of([8] * len(losses), lr=lr, seed=seed, batch_losses=losses)
    found = unpack(pack(run), **known(run))
    assert found.rows() == run.rows()
    np.testing.assert_array_equal(found.trace.losses, run.trace.losses)
    for name, column in run.trace.measurements.items():
        np.testing.assert_array_equal(found.trace.measurements[name], column)


def test_a_run_without_updates_has_its_start_alone():
    run = run_of([], evaluations=evaluated((0, 0, 2.3)))
    assert (run.steps, run.examples, run.seconds) == (0, 0, 0.0)
    assert run.loss == run.initial_loss == run.best_loss == 2.3
    assert unpack(pack(run), **known(run)).rows() == []


def test_a_lost_loss_is_none_and_the_best_one_is_the_lowest_that_was_finite():
    run = run_of(
        [8, 8], evaluations=evaluated((0, 0, 2.0), (1, 8, 1.0), (2, 16, math.nan))
    )
    assert run.loss is None
    assert run.best_loss == 1.0
    assert run_of([8], evaluations=evaluated((0, 0, math.nan))).best_loss is None


def test_rows_hold_how_each_update_was_served():
    run = run_of([8, 16])
    assert run.rows()[1]["batch_size"] == 16
    assert run.rows()[1]["micro_batch_size"] == 8
    assert run.rows()[1]["accumulation_steps"] == 2
    assert run.rows()[1]["wish"] == 16


def test_a_store_keeps_runs_beside_each_other_once_per_session(path):
    one, other = run_of([8] * 3), run_of([8, 16], policy="adadamp")
    with RunStore(path, IDENTITY) as store:
        assert store.add_training(one)
        assert store.add_training(other)
        assert not store.add_training(one)
        assert store.add_training(replace(one, seed=1))
        assert store.add_training(replace(one, settings={"lr": 0.3}))
        store.begin(resume=False)
        assert store.add_training(one)
    with RunStore(path) as store:
        assert len(store.trainings()) == 5
        assert len(store.trainings(session=2)) == 1
        assert len(store.trainings(policy="adadamp")) == 1
        (found,) = store.trainings(settings={"lr": 0.3})
        assert found.settings == {"lr": 0.3}
        assert_equal(store.trainings(policy="adadamp")[0], other)
        assert store.runs() == ()


def test_a_store_of_before_has_no_training_and_takes_one(path):
    with RunStore(path, IDENTITY):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE trainings")
    connection.close()
    with RunStore(path) as store:
        assert store.trainings() == ()
    with RunStore(path, IDENTITY) as store:
        assert store.add_training(run_of([8]))
        assert len(store.trainings()) == 1


def test_a_damaged_run_is_told(path):
    with RunStore(path, IDENTITY) as store:
        store.add_training(run_of([8]))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trainings SET content = x'00'")
    connection.close()
    with (
        RunStore(path) as store,
        pytest.raises(StoreError, match="a training run that cannot be read"),
    ):
        store.trainings()
