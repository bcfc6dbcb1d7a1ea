"""What the guide to Dask shows is what happens."""

import doctest
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "dask.md"


def test_the_guide_does_what_it_says():
    failed, tried = doctest.testfile(str(GUIDE), module_relative=False)
    assert tried > 5
    assert failed == 0
