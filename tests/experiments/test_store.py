import json
import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import InputError, StoreError, StoreMismatchError
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.database import connect
from rightbatch.experiments.record import Run, read_crossings
from rightbatch.experiments.store import (
    APPLICATION_ID,
    RunStore,
    StoredTiming,
    StoreIdentity,
)

IDENTITY = StoreIdentity(workload="tiny", fingerprint={"parameters": 10, "train": "x"})
TIMING = StoredTiming(
    batch_size=8, num_replicas=1, seconds=0.002, spread=(0.001, 0.004), device="cpu"
)


def run_of(batch_size=8, lr=0.1, seed=0, **changes):
    trace = ((0, 2.5), (1, 0.1 + 1e-17), (2, 1 / 3))
    crossing = changes.pop("crossing", Crossing(gate=3.0))
    run = Run(
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        status="reached",
        last_step=2,
        budget=100,
        trace=trace,
        crossings=read_crossings(crossing, trace, (0.5, 0.2), "reached"),
        nearest=0.1,
        crossing=crossing,
        seconds_training=0.5,
        seconds_checking=0.25,
        median_step_seconds=None,
    )
    return replace(run, **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite"


@pytest.fixture
def store(path):
    with RunStore(path, IDENTITY) as opened:
        yield opened


@settings(deadline=None, max_examples=30)
@given(
    lr=st.floats(1e-9, 1e9),
    values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=20),
)
def test_a_run_comes_back_as_it_was_to_the_last_bit(tmp_path_factory, lr, values):
    path = tmp_path_factory.mktemp("store") / "runs.sqlite"
    run = run_of(lr=lr, trace=tuple(enumerate(values)), nearest=None)
    with RunStore(path, IDENTITY) as store:
        assert store.add_run(run)
        assert store.runs() == (run,)


def test_a_trace_may_hold_nan(store):
    store.add_run(run_of(trace=((0, 1.0), (1, float("nan")))))
    (found,) = store.runs()
    assert found.trace[1][1] != found.trace[1][1]


def test_a_closed_store_opens_again_with_all_it_had(path):
    with RunStore(path, IDENTITY) as store:
        store.add_run(run_of())
        store.add_timing(TIMING)
    with RunStore(path, IDENTITY) as store:
        assert store.runs() == (run_of(),)
        assert store.timings() == (TIMING,)


def test_the_same_run_is_stored_once_per_session(store):
    assert store.add_run(run_of())
    assert not store.add_run(run_of())
    assert not store.add_run(replace(run_of(), seconds_training=9.0))
    store.begin(resume=False)
    assert store.add_run(run_of())
    assert len(store.runs()) == 2


def test_runs_that_differ_in_a_setting_are_stored_beside_each_other(store):
    runs = [
        run_of(),
        run_of(batch_size=16),
        run_of(lr=0.2),
        run_of(seed=1),
        run_of(budget=50),
        run_of(crossing=Crossing()),
    ]
    assert all(store.add_run(run) for run in runs)
    assert len(store.runs()) == len(runs)


def test_a_session_is_gone_on_with_or_begun_anew(path):
    with RunStore(path, IDENTITY) as store:
        assert store.session is None
        assert store.begin(resume=True) == 1
        assert store.begin(resume=True) == 1
        assert store.begin(resume=False) == 2
    with RunStore(path, IDENTITY) as store:
        assert store.begin(resume=True) == 2


def test_runs_are_filtered_and_sorted(store):
    for seed, lr, batch_size in ((1, 0.1, 8), (0, 0.1, 8), (0, 0.2, 8), (0, 0.1, 4)):
        store.add_run(run_of(batch_size, lr, seed))
    store.add_run(run_of(4, 0.9, 0, status="diverged"))
    found = [(run.batch_size, run.lr, run.seed) for run in store.runs()]
    assert found == sorted(found)
    assert len(store.runs(batch_size=8, lr=0.1)) == 2
    assert len(store.runs(seed=1)) == 1
    assert len(store.runs(status="diverged")) == 1
    assert len(store.runs(session=1)) == 5
    assert store.runs(session=2) == ()


def test_a_timing_is_stored_once_per_session_and_listed(store):
    assert store.add_timing(TIMING)
    assert not store.add_timing(replace(TIMING, seconds=9.0))
    assert store.timings(session=1) == (TIMING,)
    assert store.timings(session=2) == ()


def test_the_versions_a_run_was_made_with_are_kept(store, path):
    store.add_run(run_of())
    (text,) = sqlite3.connect(path).execute("SELECT versions FROM runs").fetchone()
    assert set(json.loads(text)) == {"rightbatch", "torch", "python"}
    assert "unknown" not in text


def test_the_store_of_another_workload_is_refused_by_name(store, path):
    with pytest.raises(
        StoreMismatchError, match=r"belongs to workload 'tiny', not to 'big'.*--store"
    ):
        RunStore(path, StoreIdentity(workload="big", fingerprint={}))


def test_the_store_of_a_changed_workload_is_refused_with_what_changed(store, path):
    other = replace(IDENTITY, fingerprint={"parameters": 12, "train": "x"})
    with pytest.raises(
        StoreMismatchError, match=r"another 'tiny': parameters 10, now 12\..*--store"
    ):
        RunStore(path, other)


def test_the_store_of_another_version_is_refused_with_both(store, path):
    with connect(path, APPLICATION_ID) as other:
        other.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    for identity in (IDENTITY, None):
        with pytest.raises(
            StoreMismatchError, match=r"has schema 99, of rightbatch .* with schema 3"
        ):
            RunStore(path, identity)


def test_a_store_that_lost_its_marks_is_refused(store, path):
    with connect(path, APPLICATION_ID) as other:
        other.execute("DELETE FROM meta WHERE key = 'workload'")
    with pytest.raises(StoreError, match="its entry 'workload' is missing"):
        RunStore(path)


def test_a_store_opened_to_be_read_tells_whose_it_is_and_cannot_be_changed(store, path):
    store.add_run(run_of())
    with RunStore(path) as reader:
        assert reader.identity == IDENTITY
        assert reader.runs() == (run_of(),)
        with pytest.raises(StoreError, match="cannot be written to: no permission"):
            reader.add_run(run_of(seed=1))


def test_reading_a_store_that_does_not_exist_makes_none(path):
    with pytest.raises(InputError, match=r"runs\.sqlite does not exist"):
        RunStore(path)
    assert not path.exists()


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no folder .*nowhere"):
        RunStore(tmp_path / "nowhere" / "runs.sqlite", IDENTITY)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        RunStore(tmp_path, IDENTITY)


def test_a_text_file_is_refused_and_left_alone(path):
    text = "batch_size,steps\n" * 100
    path.write_text(text)
    for identity in (IDENTITY, None):
        with pytest.raises(InputError, match="is not a database"):
            RunStore(path, identity)
    assert path.read_text() == text


def test_another_programs_database_is_refused_and_left_alone(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    for identity in (IDENTITY, None):
        with pytest.raises(InputError, match="but not a store of rightbatch"):
            RunStore(path, identity)
    assert path.read_bytes() == before


def test_a_damaged_file_is_an_error_in_words(path):
    with RunStore(path, IDENTITY) as store:
        for seed in range(200):
            store.add_run(run_of(seed=seed))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with (
        pytest.raises(StoreError, match="the file is damaged"),
        RunStore(path) as store,
    ):
        store.runs()


def test_a_full_disk_is_an_error_and_what_was_stored_is_kept(path):
    with RunStore(path, IDENTITY, max_bytes=100_000) as store:
        stored = 0

        def fill():
            nonlocal stored
            while store.add_run(run_of(seed=stored)):
                stored += 1

        with pytest.raises(StoreError, match=r"the disk is full; .*--resume"):
            fill()
        assert stored > 10
        assert len(store.runs()) == stored
    with RunStore(path, IDENTITY) as store:
        assert len(store.runs()) == stored
        assert store.add_run(run_of(seed=20_000))


def in_subprocess(code, *arguments, **options):
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", script + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


def test_a_file_that_may_not_grow_is_an_error_and_what_was_stored_is_kept(path):
    code = """
    import sys
    from pathlib import Path
    from test_store import *
    with RunStore(Path(sys.argv[1]), IDENTITY) as store:
        try:
            for seed in range(10_000):
                store.add_run(run_of(seed=seed))
        except StoreError as error:
            print(seed, error)
    """
    limit = (200_000, 200_000)
    done = in_subprocess(
        code, path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    assert done.returncode == 0, done.stderr
    stored, _, message = done.stdout.partition(" ")
    assert "what was stored is kept" in message
    with RunStore(path, IDENTITY) as store:
        assert len(store.runs()) == int(stored) > 10


def test_a_store_without_permission_to_write_is_an_error_but_can_be_read(path):
    with RunStore(path, IDENTITY) as store:
        store.add_run(run_of())
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        if os.access(path, os.W_OK):
            pytest.skip("this user may write anywhere")
        with pytest.raises(StoreError, match="no permission"):
            RunStore(path, IDENTITY)
        with RunStore(path) as reader:
            assert reader.runs() == (run_of(),)
    finally:
        path.parent.chmod(0o755)


def test_processes_that_write_at_once_lose_and_repeat_nothing(path):
    code = """
    import sys
    from pathlib import Path
    from test_store import *
    with RunStore(Path(sys.argv[1]), IDENTITY) as store:
        store.begin(resume=True)
        print(sum(store.add_run(run_of(seed=seed)) for seed in range(200)))
    """
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: in_subprocess(code, path), range(3)))
    assert [run.stderr for run in done] == [""] * 3
    assert sum(int(run.stdout) for run in done) == 200
    with RunStore(path) as store:
        assert [run.seed for run in store.runs(session=1)] == list(range(200))
