import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from experiments.example_stores import IDENTITY, made_by_schema_1, run_of

from rightbatch.errors import StoreError, StoreMismatchError
from rightbatch.experiments import migrations
from rightbatch.experiments.migrations import SCHEMA
from rightbatch.experiments.store import RunStore, StoreIdentity


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite"


def schema_of(path):
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT value FROM meta WHERE key = 'schema'")
        return int(found.fetchone()[0])


def columns_of(path):
    with sqlite3.connect(path) as connection:
        names = [n for (n,) in connection.execute("SELECT name FROM sqlite_master")]
        return {
            name: {row[1:4] for row in connection.execute(f"PRAGMA table_info({name})")}
            for name in names
        }


def test_a_store_of_the_first_schema_is_read_as_it_is(path):
    runs = made_by_schema_1(path)
    before = path.read_bytes()
    with RunStore(path) as store:
        assert store.runs() == runs
        assert store.identity.workload == "tiny"
        assert store.identity.example_unit is None
    assert path.read_bytes() == before
    assert schema_of(path) == 1


def test_to_be_written_to_it_is_brought_up_and_a_copy_is_kept(path):
    runs = made_by_schema_1(path)
    more = run_of(seed=9, held_out_trace=((0, 2.0),))
    with RunStore(path, IDENTITY) as store:
        assert store.runs() == runs
        assert store.add_run(more)
        assert store.runs(seed=9) == (more,)
    assert schema_of(path) == SCHEMA
    kept = path.with_name("runs.sqlite.schema-1")
    assert schema_of(kept) == 1
    with RunStore(kept) as store:
        assert store.runs() == runs


def test_a_store_brought_up_has_the_columns_of_a_new_one(path, tmp_path):
    made_by_schema_1(path, without_trainings=True)
    RunStore(path, IDENTITY).close()
    RunStore(tmp_path / "new.sqlite", IDENTITY).close()
    assert columns_of(path) == columns_of(tmp_path / "new.sqlite")


def test_a_run_of_the_older_store_is_not_stored_a_second_time(path):
    runs = made_by_schema_1(path)
    with RunStore(path, IDENTITY) as store:
        store.begin(resume=True)
        assert not any(store.add_run(run) for run in runs)


def test_a_store_that_is_current_gets_no_copy(path, tmp_path):
    for _ in range(2):
        RunStore(path, IDENTITY).close()
    assert [file.name for file in tmp_path.iterdir()] == ["runs.sqlite"]


def test_an_earlier_copy_is_not_overwritten(path):
    kept = path.with_name("runs.sqlite.schema-1")
    kept.write_text("mine")
    made_by_schema_1(path)
    RunStore(path, IDENTITY).close()
    assert kept.read_text() == "mine"
    assert schema_of(path.with_name("runs.sqlite.schema-1.2")) == 1


def test_another_workloads_older_store_is_refused_and_left_alone(path, tmp_path):
    made_by_schema_1(path)
    before = path.read_bytes()
    with pytest.raises(StoreMismatchError, match="belongs to workload 'tiny'"):
        RunStore(path, StoreIdentity(workload="big", fingerprint={}))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["runs.sqlite"]


def test_a_newer_schema_is_refused_with_both_versions_and_left_alone(path):
    made_by_schema_1(path)
    with sqlite3.connect(path) as connection:
        newer = SCHEMA + 1
        connection.execute(
            "UPDATE meta SET value = ? WHERE key = 'schema'", (str(newer),)
        )
        connection.execute("UPDATE meta SET value = '9.1' WHERE key = 'written_by'")
    connection.close()
    before = path.read_bytes()
    for identity in (None, IDENTITY):
        with pytest.raises(
            StoreMismatchError,
            match=rf"schema {newer}, of rightbatch 9\.1; .* with schema {SCHEMA}",
        ):
            RunStore(path, identity)
    assert path.read_bytes() == before


def test_a_step_that_fails_leaves_the_store_as_it_was(path, monkeypatch):
    runs = made_by_schema_1(path)

    def failing(cursor):
        migrations._to_2(cursor)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(migrations, "STEPS", {1: failing})
    with pytest.raises(StoreError, match="the disk is full; what was stored is kept"):
        RunStore(path, IDENTITY)
    assert schema_of(path) == 1
    with RunStore(path) as store:
        assert store.runs() == runs


def test_a_copy_that_cannot_be_finished_leaves_nothing_and_changes_nothing(
    path, tmp_path, monkeypatch
):
    made_by_schema_1(path)
    monkeypatch.setattr(migrations.Path, "replace", _no_room)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        migrations._keep_copy(path, 1)
    assert not [file for file in tmp_path.iterdir() if "schema-" in file.name]
    assert schema_of(path) == 1


def _no_room(*_):
    raise sqlite3.OperationalError("database or disk is full")


def test_two_that_open_it_at_once_bring_it_up_once(path, tmp_path):
    made_by_schema_1(path, num_runs=200)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: RunStore(path, IDENTITY).close(), range(4)))
    assert schema_of(path) == SCHEMA
    copies = [file.name for file in tmp_path.iterdir() if "schema-" in file.name]
    assert copies == ["runs.sqlite.schema-1"]


def test_what_is_written_meanwhile_by_an_older_release_is_in_the_copy_or_the_store(
    path,
):
    made_by_schema_1(path)
    older = sqlite3.connect(path)
    older.execute("UPDATE runs SET seed = 7 WHERE seed = 2")
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(lambda: RunStore(path, IDENTITY).close())
        older.commit()
        opened.result(timeout=30)
    older.close()
    for file in (path, path.with_name("runs.sqlite.schema-1")):
        with RunStore(file) as store:
            assert [run.seed for run in store.runs()] == [0, 1, 7]
