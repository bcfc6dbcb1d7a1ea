"""The reproduced paper, computed once for all tests that look at it."""

from functools import cache

from rightbatch.quadratic.paper import Paper, PaperSetting, reproduce_paper


@cache
def paper() -> Paper:
    """Return the paper on its own problem, without grids and with fewer targets."""
    targets = (0.1, 0.01, 0.001)
    return reproduce_paper(setting=PaperSetting(targets=targets, with_grids=False))


def claim(number):
    """Return one of its claims."""
    return paper().claims[number - 1]


def condition(number, key):
    """Return one condition of one of its claims."""
    return next(one for one in claim(number).conditions if one.key == key)


def rows(number, key):
    """Return the numbers that a condition looks at, by row."""
    return condition(number, key).evidence.rows
