"""What the guide to clusters and the page on hardware print is what is printed."""

import doctest
import re
import runpy
import sys
from pathlib import Path

import pytest

from rightbatch.cli import main

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide" / "cluster.md"
BLOCK = re.compile(r"```console\n\$ \./run (cluster [^\n]+)\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    ("command", "printed"),
    BLOCK.findall(GUIDE.read_text(encoding="utf-8")),
    ids=lambda part: part.rpartition("/")[2][:20] if "cluster " in part else "",
)
def test_a_command_of_the_guide_prints_what_it_says(
    command, printed, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert not ended.value.code
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == printed.splitlines()


@pytest.mark.parametrize(
    "name", re.findall(r"clusters/([\w-]+\.toml)", GUIDE.read_text("utf-8"))
)
def test_the_guide_shows_the_files_as_they_are(name):
    text = (ROOT / "docs" / "examples" / "clusters" / name).read_text(encoding="utf-8")
    assert text.strip() in GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["guide/cluster.md", "theory/hardware.md"])
def test_snippets_print_what_they_say(page):
    failed, tried = doctest.testfile(str(ROOT / "docs" / page), module_relative=False)
    assert tried >= 7
    assert failed == 0


def test_the_figure_of_hardware_is_drawn(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "hardware.svg"
    monkeypatch.setattr(sys, "argv", ["theory_hardware.py", str(picture)])
    runpy.run_path(str(ROOT / "docs" / "examples" / "theory_hardware.py"))
    assert "<svg" in picture.read_text(encoding="utf-8")
