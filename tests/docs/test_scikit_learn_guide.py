"""The guide to the estimators says what is printed, and its script runs."""

import doctest
import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_snippets_of_the_guide_print_what_they_say():
    page = DOCS / "guide" / "scikit-learn.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried >= 15
    assert failed == 0


def test_the_script_searches_a_grid(capsys):
    runpy.run_path(str(DOCS / "examples" / "sklearn_estimators.py"))
    best, score, updates = capsys.readouterr().out.splitlines()
    assert best.startswith("{'adaptiveclassifier__module__hidden': ")
    assert float(score.split()[0]) > 0.9
    assert " updates, batch " in updates


def test_the_script_is_twenty_lines_of_one_s_own():
    text = (DOCS / "examples" / "sklearn_estimators.py").read_text("utf-8")
    body = text.partition('"""\n\n')[2]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20
