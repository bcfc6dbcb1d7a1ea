"""Sums over replicas, between real processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from example_replicas import forks_with_torch
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError, RightbatchError
from rightbatch.timing import (
    CommTiming,
    communication,
    measure_comm,
    ring_communication,
)


def timed(num_replicas: int, num_bytes: int, full: float, tiny: float) -> CommTiming:
    return CommTiming(
        num_replicas=num_replicas,
        num_bytes=num_bytes,
        seconds=full,
        spread=(full, full),
        tiny_seconds=tiny,
    )


@given(
    num_replicas=st.integers(2, 64),
    num_bytes=st.integers(10**3, 10**9),
    tiny=st.floats(1e-6, 1e-2),
    transfer=st.floats(1.1e-3, 1.0),
)
def test_the_ring_gives_back_the_two_measured_times(
    num_replicas, num_bytes, tiny, transfer
):
    full = tiny + tiny * transfer * 100
    ring = ring_communication(timed(num_replicas, num_bytes, full, tiny))
    assert ring.comm_seconds(num_replicas) == pytest.approx(full)
    latency = 2 * (num_replicas - 1) * ring.latency_seconds
    assert latency == pytest.approx(tiny)


def test_a_transfer_too_short_to_see_leaves_a_finite_bandwidth():
    for full in (1.0, 0.8):
        ring = ring_communication(timed(2, 1000, full, 1.0))
        # n / bandwidth is the whole transfer at two replicas.
        assert ring.num_bytes / ring.bytes_per_second == pytest.approx(0.01 * full)
        assert 2 * ring.latency_seconds <= full


def test_one_replica_has_no_ring():
    with pytest.raises(InputError, match="one replica sums nothing"):
        ring_communication(timed(1, 1000, 0.0, 0.0))


def test_one_replica_takes_no_time_and_no_process():
    timing = measure_comm(1000, 1)
    assert (timing.seconds, timing.tiny_seconds, timing.spread) == (0.0, 0.0, (0, 0))
    assert timing.to_dict()["num_replicas"] == 1


@pytest.mark.slow
def test_two_processes_sum_and_are_gone():
    fractions: list[float] = []
    timing = measure_comm(8_000_000, 2, repeats=10, on_progress=fractions.append)
    assert 0 < timing.spread[0] <= timing.seconds <= timing.spread[1]
    assert 0 < timing.tiny_seconds < timing.seconds
    assert (timing.num_replicas, timing.num_bytes) == (2, 8_000_000)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert not multiprocessing.active_children()


def dying(plan: Any, rank: int, meeting: str, pipe: Any) -> None:
    if rank == 1:
        os._exit(7)
    communication._work(plan, rank, meeting, pipe)


def hanging(plan: Any, rank: int, meeting: str, pipe: Any) -> None:
    communication.dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=3
    )


def failing(plan: Any, rank: int, meeting: str, pipe: Any) -> None:
    def raising(plan: Any) -> Any:
        raise ValueError("no such wire")

    communication._timed_sums = raising
    communication._work(plan, rank, meeting, pipe)


def silent(plan: Any, rank: int, meeting: str, pipe: Any) -> None:
    pipe.send(("times", None))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "seconds", "match"),
    [
        (dying, 90.0, r"process 1 died \(exit code 7\)"),
        (hanging, 4.0, "2 of 2 processes had not finished after 4 s"),
        (failing, 90.0, "failed: ValueError: no such wire"),
        (silent, 90.0, "no process sent its times"),
    ],
)
def test_processes_that_die_hang_or_fail_end_in_an_error_and_leave_nobody(
    monkeypatch, work, seconds, match
):
    # Quickly: torch is imported once for all of them.
    monkeypatch.setattr(communication, "get_context", lambda _: forks_with_torch())
    # By name: a new process imports this file again under it.
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    name = os.path.basename(__file__).removesuffix(".py")
    monkeypatch.setattr(
        communication, "_work", getattr(__import__(name), work.__name__)
    )
    with pytest.raises(RightbatchError, match=match):
        measure_comm(1000, 2, timeout_seconds=seconds)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_script_without_a_guarded_main_gets_an_error_and_does_not_hang(tmp_path):
    script = tmp_path / "bare.py"
    script.write_text(
        "from rightbatch.timing import measure_comm\nmeasure_comm(1000, 2)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "RightbatchError: measure_comm: process" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of a process group")
def test_ctrl_c_ends_all_processes_at_once_and_only_the_parent_speaks(tmp_path):
    script = tmp_path / "long.py"
    script.write_text(
        "from rightbatch.timing import measure_comm\n"
        "if __name__ == '__main__':\n"
        "    print('started', flush=True)\n"
        "    measure_comm(10**7, 2, repeats=10**6, budget_seconds=90)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(3.0)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert told.count("KeyboardInterrupt") == 1
    assert _gone_within(process.pid, seconds=10)


def _gone_within(group: int, seconds: float) -> bool:
    """Return whether a process group empties in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_bytes": 0}, "`num_bytes` must be"),
        ({"num_replicas": 0}, "`num_replicas` must be"),
        ({"repeats": 0}, "`repeats` must be"),
        ({"budget_seconds": 0}, "`budget_seconds` must be positive"),
        ({"timeout_seconds": -1}, "`timeout_seconds` must be positive"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments, match):
    with pytest.raises(InputError, match=match):
        measure_comm(**{"num_bytes": 1000, "num_replicas": 2, **arguments})


def test_a_torch_without_gloo_is_said_so(monkeypatch):
    monkeypatch.setattr(communication.dist, "is_gloo_available", lambda: False)
    with pytest.raises(RightbatchError, match="has no gloo"):
        measure_comm(1000, 2)
