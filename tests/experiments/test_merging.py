import math
import os
import re
import resource
import sqlite3
from dataclasses import replace

import pytest
from experiments.example_stores import IDENTITY, made_by_schema_1, run_of, written
from experiments.example_trainings import run_of as training_of

from rightbatch.errors import InputError, StoreError, StoreMismatchError
from rightbatch.experiments.merging import merge_stores
from rightbatch.experiments.store import RunStore, StoredTiming, StoreIdentity

TIMING = StoredTiming(
    batch_size=8, num_replicas=1, seconds=0.002, spread=(0.001, 0.004), device="cpu"
)


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "a.sqlite", tmp_path / "b.sqlite"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "both.sqlite"


def runs_in(path, **filters):
    with RunStore(path) as store:
        return store.runs(**filters)


def files_beside(path):
    # A reader of SQLite leaves an empty log and an index.
    names = {file.name for file in path.parent.iterdir()}
    return {name for name in names if not name.endswith(("-wal", "-shm"))}


def test_a_merged_store_has_the_runs_of_all_each_in_its_session(paths, out):
    written(paths[0], [run_of(seed=0), run_of(seed=1)])
    written(paths[1], [run_of(seed=2)])
    merged = merge_stores(paths, out)
    assert [run.seed for run in runs_in(out, session=1)] == [0, 1]
    assert [run.seed for run in runs_in(out, session=2)] == [2]
    assert [part.sessions for part in merged.parts] == [{1: 1}, {1: 2}]
    assert merged.num_runs == 3


def test_equal_runs_are_kept_once_whatever_seconds_they_took(paths, out):
    written(paths[0], [run_of(seed=0), run_of(seed=1)])
    again = replace(run_of(seed=1), seconds_training=99.0)
    written(paths[1], [again, run_of(seed=2)])
    merged = merge_stores(paths, out)
    assert [run.seed for run in runs_in(out)] == [0, 1, 2]
    assert runs_in(out, seed=1)[0].seconds_training == 1.0
    assert [part.num_equal for part in merged.parts] == [0, 1]


def test_a_copy_gives_nothing_and_takes_no_session(paths, out):
    written(paths[0], [run_of()])
    paths[1].write_bytes(paths[0].read_bytes())
    merged = merge_stores(paths, out)
    assert merged.parts[1].sessions == {}
    assert len(runs_in(out)) == 1
    with RunStore(out, IDENTITY) as store:
        assert store.begin(resume=True) == 1


def test_runs_with_a_nan_in_their_trace_can_be_equal_too(paths, out):
    lost = run_of(steps=None, status="diverged", trace=((0, 2.5), (3, math.nan)))
    for path in paths:
        written(path, [lost])
    assert merge_stores(paths, out).num_runs == 1


def test_of_equal_runs_the_one_with_held_out_losses_is_kept(paths, out):
    fuller = run_of(held_out_trace=((0, 2.0),))
    written(paths[0], [run_of()])
    written(paths[1], [fuller])
    assert merge_stores(paths, out).num_runs == 1
    assert runs_in(out) == (fuller,)


def test_runs_of_one_seed_that_ended_differently_are_both_kept_and_counted(paths, out):
    written(paths[0], [run_of(steps=100)])
    written(paths[1], [run_of(steps=101)])
    merged = merge_stores(paths, out)
    assert (merged.num_runs, merged.num_contradicting) == (2, 1)


def test_the_order_of_the_stores_does_not_decide_which_runs_there_are(paths, out):
    written(paths[0], [run_of(seed=seed) for seed in (0, 1, 2)])
    written(paths[1], [run_of(seed=seed) for seed in (2, 3)])
    merge_stores(paths, out)
    turned = out.with_name("turned.sqlite")
    merge_stores(paths[::-1], turned)
    assert runs_in(out) == runs_in(turned)


def test_merging_a_merged_store_with_its_parts_adds_nothing(paths, out):
    written(paths[0], [run_of(seed=0)])
    written(paths[1], [run_of(seed=1)])
    merge_stores(paths, out)
    again = out.with_name("again.sqlite")
    assert merge_stores([out, *paths], again).num_runs == 2


def test_timings_and_training_runs_come_along_with_when_they_were_made(paths, out):
    with RunStore(paths[0], IDENTITY) as store:
        store.add_timing(TIMING)
        store.add_training(training_of([8, 16]))
    written(paths[1], [run_of()])
    merge_stores(paths, out)
    with RunStore(out) as store, RunStore(paths[0]) as first:
        assert store.timings() == (TIMING,)
        assert len(store.trainings()) == 1
        merged_row, row = (one.contents()["trainings"][0] for one in (store, first))
    assert merged_row == row
    assert row["finished"]


def test_a_store_of_the_first_schema_is_merged_as_it_would_be_today(paths, out):
    runs = made_by_schema_1(paths[0])
    written(paths[1], runs)
    before = paths[0].read_bytes()
    merged = merge_stores(paths, out)
    assert merged.parts[1].num_equal == 3
    assert runs_in(out) == runs
    # The one that knows what it counts tells.
    assert merged.identity.example_unit == "example"
    assert paths[0].read_bytes() == before


def test_a_merged_store_is_gone_on_with_by_a_sweep(paths, out):
    for path, seed in zip(paths, (0, 1), strict=True):
        written(path, [run_of(seed=seed)])
    merge_stores(paths, out)
    with RunStore(out, IDENTITY) as store:
        assert store.begin(resume=True) == 2
        assert store.add_run(run_of(seed=5))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            StoreIdentity(workload="big", fingerprint={}),
            r"b\.sqlite belongs to workload 'big', and .*a\.sqlite to 'tiny'",
        ),
        (
            replace(IDENTITY, fingerprint={**IDENTITY.fingerprint, "parameters": 12}),
            r"different 'tiny': parameters 10, in .*b\.sqlite 12\..*--compare",
        ),
        (
            replace(IDENTITY, example_unit="token"),
            r"different 'tiny': unit 'example', in .*b\.sqlite 'token'",
        ),
    ],
)
def test_stores_of_different_workloads_are_refused_with_what_differs(
    paths, out, other, message
):
    written(paths[0], [run_of()])
    written(paths[1], [run_of()], other)
    with pytest.raises(StoreMismatchError, match=message):
        merge_stores(paths, out)
    assert not out.exists()


def test_nothing_that_is_there_is_overwritten(paths, out):
    for path in paths:
        written(path, [run_of()])
    before = paths[0].read_bytes()
    with pytest.raises(InputError, match=r"a\.sqlite is there already"):
        merge_stores(paths, paths[0])
    assert paths[0].read_bytes() == before
    with pytest.raises(InputError, match="two stores or more, got 1"):
        merge_stores(paths[:1], out)
    with pytest.raises(InputError, match=r"a\.sqlite stands twice"):
        merge_stores([paths[0], paths[1], paths[0].parent / "." / "a.sqlite"], out)
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        merge_stores(paths, out.parent / "nowhere" / "out.sqlite")


def test_a_file_that_came_meanwhile_is_not_overwritten(paths, out, monkeypatch):
    for path in paths:
        written(path, [run_of()])

    def late(*_):
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr("rightbatch.experiments.merging.os.link", late)
    with pytest.raises(StoreError, match="File exists"):
        merge_stores(paths, out)
    assert files_beside(out) == {"a.sqlite", "b.sqlite"}


def test_where_there_are_no_links_the_file_is_renamed(paths, out, monkeypatch):
    for path in paths:
        written(path, [run_of()])

    def without(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("rightbatch.experiments.merging.os.link", without)
    merge_stores(paths, out)
    assert len(runs_in(out)) == 1


def test_what_is_no_store_is_refused(paths, out):
    written(paths[0], [run_of()])
    paths[1].write_text("batch_size,steps\n" * 100)
    with pytest.raises(InputError, match=r"not a database\. \(name another file\)$"):
        merge_stores(paths, out)
    paths[1].unlink()
    with pytest.raises(InputError, match=r"b\.sqlite does not exist"):
        merge_stores(paths, out)


def test_a_store_that_is_being_written_to_is_taken_as_it_was_committed(paths, out):
    written(paths[0], [run_of(seed=0)])
    written(paths[1], [run_of(seed=1)])
    writer = sqlite3.connect(paths[1], isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE runs SET seed = 7")
    try:
        merge_stores(paths, out)
    finally:
        writer.execute("ROLLBACK")
        writer.close()
    assert [run.seed for run in runs_in(out)] == [0, 1]


def test_a_folder_that_only_can_be_read_gives_but_does_not_take(paths, tmp_path, out):
    folder = tmp_path / "theirs"
    folder.mkdir()
    theirs = written(folder / "a.sqlite", [run_of(seed=3)])
    written(paths[1], [run_of()])
    folder.chmod(0o555)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write anywhere")
        assert merge_stores([theirs, paths[1]], out).num_runs == 2
        with pytest.raises(InputError, match="cannot be written: Permission denied"):
            merge_stores([theirs, paths[1]], folder / "both.sqlite")
    finally:
        folder.chmod(0o755)


@pytest.mark.slow
def test_a_full_disk_leaves_no_merged_store_at_whatever_byte_it_comes(paths, out):
    long = tuple((step, 1.0 / (step + 1)) for step in range(2000))
    for path, seed in zip(paths, (0, 1), strict=True):
        written(path, [run_of(seed=seed, lr=lr, trace=long) for lr in (0.1, 0.2, 0.3)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ends = []
    for limit in range(40_000, 900_000, 95_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        said = ""
        try:
            merge_stores(paths, out)
        except StoreError as error:
            said = str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        ends.append(said.partition(":")[0])
        if said:
            assert re.search("there is none: .*free some space", said)
            assert files_beside(out) == {"a.sqlite", "b.sqlite"}
        else:
            assert len(runs_in(out)) == 6
            out.unlink()
    assert len(set(ends)) == 2
