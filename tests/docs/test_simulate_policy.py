"""The example that drives a policy of its own runs and draws its figure."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_example_of_a_policy_prints_its_runs_and_draws_them(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("matplotlib")
    target = tmp_path / "figure.svg"
    monkeypatch.setattr(sys, "argv", ["simulate_policy.py", str(target)])
    runpy.run_path(str(ROOT / "docs" / "examples" / "simulate_policy.py"))
    assert "<svg" in target.read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert printed.count("updates") == 4
    assert "Open loop" in printed
    assert (ROOT / "docs" / "images" / "simulate-policy.svg").exists()
