"""The guide to Hugging Face says what is printed, and its scripts run."""

import doctest
import re
import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_snippets_of_the_page_print_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = DOCS / "guide" / "hugging-face.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried >= 20
    assert failed == 0


def test_the_trainer_s_batch_grows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(DOCS / "examples" / "hf_trainer.py"))
    printed = capsys.readouterr().out
    assert float(re.search(r"loss (\S+); batches of", printed)[1]) < 4.5
    assert "8, " in printed
    assert "64]" in printed


def test_the_loop_with_accelerate_counts_tokens(capsys):
    runpy.run_path(str(DOCS / "examples" / "accelerate_loop.py"))
    said = re.fullmatch(
        r"(\d+) updates, batch (\d+), (\d+) tokens, loss (\S+)\n",
        capsys.readouterr().out,
    )
    assert int(said[3]) > 10_000
    assert float(said[4]) < 4.5
