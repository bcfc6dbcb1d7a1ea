"""Every page of theory prints what it says, and its figure is drawn by its script."""

import doctest
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page for page in (ROOT / "docs" / "theory").glob("*.md") if page.stem != "README"
)


def test_there_is_a_page_for_each_law():
    assert len(PAGES) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_a_page_print_what_they_say(page):
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried >= 1
    assert failed == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_figure_of_a_page_is_drawn_by_its_script(page, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    name = f"theory_{page.stem.replace('-', '_')}.py"
    target = tmp_path / "figure.svg"
    monkeypatch.setattr(sys, "argv", [name, str(target)])
    runpy.run_path(str(ROOT / "docs" / "examples" / name))
    assert "<svg" in target.read_text(encoding="utf-8")
    assert f"images/theory-{page.stem}.svg" in page.read_text(encoding="utf-8")
    assert (ROOT / "docs" / "images" / f"theory-{page.stem}.svg").exists()


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "theory" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"({page.name})" not in index] == []


NAMED = re.compile(r"(?<![\w./-])(?:tests|benchmarks|docs|src)/[\w./*-]*\w")


def test_every_path_that_the_docs_name_is_there():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    missing = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in pages
        for path in NAMED.findall(page.read_text(encoding="utf-8"))
        if not any(ROOT.glob(path))
    ]
    assert missing == []
