"""The guide to gradient noise says what is printed, and its script runs."""

import doctest
import re
import runpy
from pathlib import Path

import pytest

from rightbatch.cli import main

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = DOCS / "guide" / "gradient-noise.md"


def test_the_snippets_of_the_guide_print_what_they_say():
    failed, tried = doctest.testfile(str(GUIDE), module_relative=False)
    assert tried >= 30
    assert failed == 0


def test_the_script_prints_a_noise_scale_that_grows(capsys):
    runpy.run_path(str(DOCS / "examples" / "noise_in_a_loop.py"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    scales = [float(re.search(r"noise scale (\d+\.?\d*)", line)[1]) for line in lines]
    assert scales[0] < scales[3]
    shown = GUIDE.read_text("utf-8")
    # In single precision the last digits are the machine's own.
    for scale, line in zip(scales, lines, strict=True):
        (said,) = re.findall(rf"^{line.split(':')[0]}: noise scale (\S+)", shown, re.M)
        assert float(said) == pytest.approx(scale, rel=0.1)


def test_the_table_in_the_guide_is_what_the_command_prints(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["noise", "digits-mlp", "--quiet"])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = GUIDE.read_text("utf-8").partition("$ ./run noise digits-mlp\n")[2]
    rows = [line.split() for line in shown.splitlines()[4:9]]
    for row in rows:
        (same,) = [found for found in printed if found[:1] == row[:1]][:1]
        assert float(same[5]) == pytest.approx(float(row[5]), rel=0.1)
