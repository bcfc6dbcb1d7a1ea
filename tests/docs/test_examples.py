"""The scripts and snippets of the documentation run."""

import doctest
import runpy
import sys
from pathlib import Path

import pytest

from rightbatch.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


def test_the_readme_s_snippets_print_what_they_say():
    failed, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried >= 4
    assert failed == 0


def test_the_picture_of_a_plan_is_drawn_from_its_json(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    runs = [f"{b},{100 + 6400 / b}" for b in (4, 16, 64, 256, 1024)]
    times = [f"{b},{0.01 + 0.0001 * b}" for b in (1, 16, 256, 1024)]
    Path("r.csv").write_text("\n".join(["batch_size,steps", *runs]))
    Path("t.csv").write_text("\n".join(["batch_size,seconds", *times]))
    with pytest.raises(SystemExit):
        main(["plan", "--runs", "r.csv", "--times", "t.csv", "--json"])
    Path("plan.json").write_text(capsys.readouterr().out)
    monkeypatch.setattr(sys, "argv", ["plan_picture.py", "plan.json", "plan.svg"])
    runpy.run_path(str(EXAMPLES / "plan_picture.py"))
    assert "<svg" in Path("plan.svg").read_text(encoding="utf-8")
