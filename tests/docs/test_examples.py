"""The scripts and snippets of the documentation run."""

import doctest
import re
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


def test_the_picture_of_noise_is_drawn_from_json(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    for name, seed in (("one.json", "0"), ("two.json", "1")):
        with pytest.raises(SystemExit):
            main(["noise", "--max-steps", "40", "--seed", seed, "--json", "--quiet"])
        Path(name).write_text(capsys.readouterr().out)
    given = ["noise_picture.py", "one.json", "two.json", "noise.svg"]
    monkeypatch.setattr(sys, "argv", given)
    runpy.run_path(str(EXAMPLES / "noise_picture.py"))
    drawn = Path("noise.svg").read_text(encoding="utf-8")
    assert "<svg" in drawn
    assert "<!-- seed 1 -->" in drawn  # what differs names a run


def test_the_rise_of_noise_is_printed_for_runs_and_pooled_for_their_starts(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for steps in ("20", "160"):
        with pytest.raises(SystemExit):
            main(["noise", "--max-steps", steps, "--json", "--quiet"])
        Path(f"{steps}.json").write_text(capsys.readouterr().out)
    monkeypatch.setattr(sys, "argv", ["noise_rise.py", "20.json", "160.json"])
    runpy.run_path(str(EXAMPLES / "noise_rise.py"))
    heads, row, pooled = capsys.readouterr().out.splitlines()
    assert heads.split()[:4] == ["batch", "lr", "seed", "first"]
    first, lowest, last = (float(cell) for cell in re.findall(r"(\S+) \(", row))
    assert lowest < min(first, last)
    rises = [float(cell) for cell in re.findall(r"(\S+)×", row)]
    assert rises == pytest.approx([last / first, last / lowest], rel=0.1)
    # Twice the same first window: their average is that window's.
    assert float(re.search(r"noise scale (\S+)", pooled)[1]) == first
