"""The guide to Hugging Face says what is printed, and its scripts run."""

import ast
import doctest
import re
import runpy
from pathlib import Path

import pytest

IMPORTS = (ast.Import, ast.ImportFrom)
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
    said = re.search(r"(\d+) updates of 8 to (\d+) rows, loss (\S+)\n$", printed)
    # 512 rows an epoch, in batches of 8, 16, 32 and 64.
    assert int(said[1]) == 64 + 32 + 16 + 8
    assert int(said[2]) == 64
    assert float(said[3]) < 4


def test_the_loop_with_accelerate_counts_tokens(capsys):
    made = runpy.run_path(str(DOCS / "examples" / "accelerate_loop.py"))
    said = re.fullmatch(r"(\d+) updates, loss (\S+)\n", capsys.readouterr().out)
    records, labels = made["controller"].records, made["rows"][:, 1:]
    assert int(said[1]) == len(records)
    assert float(said[2]) < 4
    counted = int((labels != -100).sum()) * records[-1].examples / len(labels)
    assert records[-1].tokens == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("name", ["hf_trainer", "accelerate_loop"])
def test_an_example_is_twenty_lines_of_one_s_own(name):
    text = (DOCS / "examples" / f"{name}.py").read_text()
    docstring, *rest = ast.parse(text).body
    others = [docstring, *(one for one in rest if isinstance(one, IMPORTS))]
    left_out = {
        line for one in others for line in range(one.lineno, one.end_lineno + 1)
    }
    lines = enumerate(text.splitlines(), 1)
    own = [line for number, line in lines if line.strip() and number not in left_out]
    assert len(own) <= 20
