"""The guide to Lightning says what is printed, and its script runs."""

import doctest
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

# What Lightning says of small loaders and where it is not wholly installed, and what
# torch says of how Lightning looks at loaders.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{one}")
    for one in (
        "The 'train_dataloader' does not have many workers",
        ".*LeafSpec.* is deprecated:FutureWarning",
        "GPU available but not used",
        "Starting from v1.9.0, `tensorboardX` has been removed",
        "Checkpoint directory .* exists and is not empty",
    )
]


def test_the_snippets_of_the_guide_print_what_they_say():
    page = DOCS / "guide" / "lightning.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried >= 20
    assert failed == 0


def test_the_script_s_batch_grows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran = runpy.run_path(str(DOCS / "examples" / "lightning_callback.py"))
    assert ran["callback"].batch_size > 32
    assert "noise scale" in capsys.readouterr().out.splitlines()[-1]


def test_the_script_is_twenty_lines_of_a_user_s_own():
    text = (DOCS / "examples" / "lightning_callback.py").read_text(encoding="utf-8")
    code = text.rpartition('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
