"""Replicas start and end together: a clear end on all, in bounded time."""

import os
import re
import subprocess
import sys

import pytest
import torch
from collectives import example_replicas
from collectives.example_replicas import ENDS, SILENCE_SECONDS, WORLD

from rightbatch.collectives import ThisReplica, replicas
from rightbatch.collectives.launch import FAREWELL_SECONDS
from rightbatch.errors import InputError, ReplicaError

# Starting, noticing and saying farewell, on a machine that does other things too.
LIMIT_SECONDS = 2 * SILENCE_SECONDS + FAREWELL_SECONDS + 25


@pytest.fixture
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """What each replica was told and after how long, by how the second one ended."""
    folder = tmp_path_factory.mktemp("ends")
    started = {
        how: example_replicas.start(
            example_replicas.end, how, folder / f"meeting-{ENDS.index(how)}", folder
        )
        for how in ENDS
    }
    for processes in started.values():
        example_replicas.stop(processes, LIMIT_SECONDS)
    return {how: [read(folder, how, own) for own in range(WORLD)] for how in ENDS}


def read(folder, how, own):
    path = folder / f"{how} {own}.pt"
    return torch.load(path) if path.exists() else None


FIRST_IS_TOLD = {
    "died": r"ReplicaError: replica 0 of 2 cannot go on: another died without a word",
    "raised": "cannot go on: replica 1 raised ZeroDivisionError: a loss of its own",
    "stopped early": "replica 1 has ended while this one waits for it",
    "silent": "cannot go on: another was silent for 3 s",
    "never started": r"could not begin with the others within 3 s: replica 1 never",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDS)
def test_the_other_replica_is_told_how_one_ended(ends, how):
    told, seconds = ends[how][0]
    assert re.search(FIRST_IS_TOLD[how], told)
    assert seconds < LIMIT_SECONDS
    assert "look" in told


@pytest.mark.slow
def test_the_replica_that_raised_keeps_its_own_error(ends):
    assert ends["raised"][1][0] == "ZeroDivisionError: a loss of its own"


@pytest.mark.slow
def test_a_silent_replica_is_told_that_the_other_gave_up(ends):
    assert "replica 0 gave up: another was silent" in ends["silent"][1][0]


@pytest.mark.slow
def test_replicas_under_torchrun_end_when_one_raises():
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [sys.executable, *command, example_replicas.__file__],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: a loss of its own" in done.stderr


@pytest.mark.slow
def test_a_model_that_outlives_the_block_does_not_hang_the_process(tmp_path):
    processes = example_replicas.start(example_replicas.leave_often, tmp_path)
    example_replicas.stop(processes, 90)
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.usefixtures("alone")
def test_without_torchruns_variables_it_is_a_block_of_one_replica():
    with replicas() as this:
        assert (this.rank, this.num_replicas, this.is_first) == (0, 1, True)
        assert not torch.distributed.is_initialized()


@pytest.mark.usefixtures("alone")
def test_one_process_raises_its_own_error():
    with pytest.raises(ZeroDivisionError), replicas():
        raise ZeroDivisionError


@pytest.mark.usefixtures("alone")
def test_a_group_of_one_is_taken_down_at_the_end(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with replicas("gloo", init_method=f"file://{tmp_path}/meeting") as this:
        assert this == ThisReplica(rank=0, num_replicas=1)
        assert torch.distributed.is_initialized()
    assert not torch.distributed.is_initialized()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"backend": "glo"}, r"`backend` cannot be 'glo'. \(did you mean gloo"),
        ({"timeout_seconds": 0}, "`timeout_seconds` must be positive, got 0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(arguments, match):
    with pytest.raises(InputError, match=match), replicas(**arguments):
        pass


@pytest.mark.parametrize(
    ("own", "world"), [("2", "2"), ("x", "2"), ("-1", "2"), ("0", None), (None, "1")]
)
@pytest.mark.usefixtures("alone")
def test_variables_that_torchrun_would_not_set_are_refused(monkeypatch, own, world):
    for name, value in (("RANK", own), ("WORLD_SIZE", world)):
        if value is not None:
            monkeypatch.setenv(name, value)
    match = f"0 <= RANK < WORLD_SIZE, got {own} and {world}"
    with pytest.raises(InputError, match=match), replicas("gloo"):
        pass


@pytest.mark.usefixtures("alone")
def test_a_meeting_place_that_is_not_there_is_said_so(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with (
        pytest.raises(ReplicaError, match="replica 0 of 1 could not begin"),
        replicas("gloo", timeout_seconds=1, init_method="nowhere://"),
    ):
        pass
