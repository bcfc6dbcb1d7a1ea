"""The guide to the noisy quadratic and its page of results say what is printed."""

import doctest
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RESULTS = (DOCS / "results" / "noisy-quadratic.md").read_text(encoding="utf-8")


def test_the_snippets_of_the_guide_print_what_they_say():
    failed, tried = doctest.testfile(
        str(DOCS / "guide" / "noisy-quadratic.md"), module_relative=False
    )
    assert tried >= 50
    assert failed == 0


@pytest.mark.slow
def test_the_table_of_choices_is_the_one_in_the_results(capsys):
    runpy.run_path(str(DOCS / "examples" / "noisy_quadratic_choices.py"))
    assert capsys.readouterr().out.strip() in RESULTS


@pytest.mark.slow
def test_the_regression_is_predicted_and_trained_as_the_results_say(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("matplotlib")
    target = tmp_path / "figure.svg"
    monkeypatch.setattr(sys, "argv", ["predict_linear_regression.py", str(target)])
    runpy.run_path(str(DOCS / "examples" / "predict_linear_regression.py"))
    assert capsys.readouterr().out.strip() in RESULTS
    assert "<svg" in target.read_text(encoding="utf-8")
    assert (DOCS / "images" / "predict-linear-regression.svg").exists()
