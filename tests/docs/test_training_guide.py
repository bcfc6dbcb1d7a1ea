"""The guide to training says what is printed, and its script runs on any replicas."""

import doctest
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = DOCS / "examples" / "train_on_replicas.py"


@pytest.mark.parametrize("page", ["training.md", "from-adadamp.md"])
def test_the_snippets_of_a_page_print_what_they_say(page):
    failed, tried = doctest.testfile(str(DOCS / "guide" / page), module_relative=False)
    assert tried >= 10
    assert failed == 0


def test_the_script_runs_as_one_process(capsys):
    runpy.run_path(str(SCRIPT))
    assert capsys.readouterr().out.startswith("1 replicas, 101 updates, batch 80")


@pytest.mark.slow
def test_torchrun_makes_the_same_updates_on_two(capsys):
    runpy.run_path(str(SCRIPT))
    alone = capsys.readouterr().out.partition(",")[2]
    ran = subprocess.run(
        [
            sys.executable,
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            str(SCRIPT),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    assert ran.stdout.startswith("2 replicas")
    assert ran.stdout.partition(",")[2] == alone


def test_the_picture_of_mnist_is_drawn_from_its_runs(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    lines = [{"times": [[16], [0.01], 0.0, 0.0]}]
    for seed, sizes in ((0, [16] * 9), (1, [16, 32, 64])):
        key = f"GeoDamp|geodamp|16|none|1|0.1|{seed}"
        lines.append({key: {"reached": True, "batch_sizes": sizes}})
    source, target = tmp_path / "runs.jsonl", tmp_path / "figure.svg"
    source.write_text("\n".join(map(json.dumps, lines)))
    given = ["adaptive_mnist_picture.py", str(source), str(target)]
    monkeypatch.setattr(sys, "argv", given)
    runpy.run_path(str(DOCS / "examples" / "adaptive_mnist_picture.py"))
    assert "<svg" in target.read_text(encoding="utf-8")
