import subprocess
import sys

import pytest

from rightbatch.experiments import freed_memory
from rightbatch.experiments.freed_memory import keep_freed_memory

# Blocks above the 32 MB from which glibc always gives memory back, over and over: how
# many pages are faulted in after the first. Huge ones, of 2 MB, make that 640 or so.
FAULTS = """
import resource, sys
import numpy as np
from rightbatch.experiments.freed_memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)

def fill():
    np.empty(64 * 2**20, dtype=np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = fill()
for _ in range(20):
    after = fill()
print(after - before)
"""


def faults(mode):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, mode],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode == 3:
        pytest.skip("the C library of this machine is not glibc")
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_memory_that_was_freed_is_not_faulted_in_anew():
    assert faults("keep") < 0.1 * faults("free")


def test_where_there_is_no_glibc_nothing_is_told(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


def test_a_c_library_without_the_call_is_left_alone(monkeypatch):
    class Library:
        def __init__(self, name):
            pass

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", Library)
    assert not keep_freed_memory()


@pytest.mark.parametrize(
    ("most", "told", "wanted"),
    [
        (2**31 - 1, True, [(-3, 2**31 - 1), (-1, 2**31 - 1)]),
        (2**25, True, [(-3, 2**31 - 1), (-3, 2**25), (-1, 2**31 - 1)]),
        (0, False, [(-3, 2**31 - 1), (-3, 2**25)]),
    ],
)
def test_the_trim_threshold_is_set_only_with_the_other(monkeypatch, most, told, wanted):
    # Older releases take 32 MiB at most for the size from which memory is mapped.
    calls = []

    class Library:
        def __init__(self, name):
            pass

        def mallopt(self, name, value):
            calls.append((name, value))
            return int(name == -1 or value <= most)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", Library)
    assert keep_freed_memory() == told
    assert calls == wanted
