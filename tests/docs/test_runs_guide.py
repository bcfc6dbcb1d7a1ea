"""The guide to stores says what is printed."""

import doctest
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "runs.md"


@pytest.mark.slow
def test_the_snippets_of_the_guide_print_what_they_say():
    ran = doctest.testfile(str(GUIDE), module_relative=False)
    assert ran.failed == 0
    assert ran.attempted > 10
