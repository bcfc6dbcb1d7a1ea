"""Which processes a command has left."""

import time
from pathlib import Path

import pytest


def processes_of_session(session):
    """The processes of a session that still run, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def none_left_of(process):
    give_up_at = time.monotonic() + 15
    while processes_of_session(process.pid) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return not processes_of_session(process.pid)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
