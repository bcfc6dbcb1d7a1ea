"""``sweep``: what it reads, and what its rows hold."""

from pathlib import Path

import pytest

COUNTED = """
from dataclasses import replace
from tiny_workload import points, tiny

def counted():
    with open("loaded", "a") as file:
        file.write("x")
    return replace(tiny(), held_out=points(100, 7))
"""
GRID = ("--batch-sizes", "32,64", "--lr", ".5", "--seeds", "1", "--max-steps", "40")


@pytest.mark.slow
def test_the_data_are_read_once_and_steps_on_the_held_out_set_are_listed(
    rightbatch,
) -> None:
    Path("counted.py").write_text(COUNTED)
    words = (
        "sweep",
        "counted.py:counted",
        *GRID,
        "--processes",
        "1",
        "--tier",
        "plain",
    )
    ended = rightbatch(*words, "--record-held-out", "--csv", "runs.csv", "--json")
    assert Path("loaded").read_text() == "x"
    found = [row["held_out_steps"] for row in ended.document["runs"]]
    assert len(found) == 2
    head, *lines = Path("runs.csv").read_text().splitlines()
    assert head.endswith("status,held_out_steps")
    written = [line.rpartition(",")[2] for line in lines]
    assert written == ["" if steps is None else str(steps) for steps in found]
    assert "held out" in rightbatch(*words, "--record-held-out", "--resume").out
