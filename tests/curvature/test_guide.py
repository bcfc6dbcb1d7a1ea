"""The guide to curvature says what is printed."""

import doctest
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "curvature.md"


def test_the_snippets_of_the_guide_print_what_they_say():
    failed, tried = doctest.testfile(str(GUIDE), module_relative=False)
    assert tried >= 40
    assert failed == 0
