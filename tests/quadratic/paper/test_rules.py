"""Rules: thresholds include their ends, and numbers are read by power."""

import pytest
from example_paper import paper

from rightbatch.quadratic.paper.claims import Evidence
from rightbatch.quadratic.paper.rules import Rule, at_least, at_most, by_power


def evidence(*values):
    columns = tuple(str(place) for place in range(len(values)))
    return Evidence(heading="", columns=columns, rows={"row": values})


@pytest.mark.parametrize(
    ("judge", "values", "holds"),
    [
        (at_most(1), (0.5, 1.0), True),
        (at_most(1), (0.5, 1.1), False),
        (at_least(1), (1.0, 2.0), True),
        (at_least(1), (0.9, 2.0), False),
        (at_least(1), (float("nan"), 2.0), True),
    ],
)
def test_a_limit_counts_as_kept(judge, values, holds):
    assert judge(paper().results.tuned, evidence(*values)) is holds


def test_values_are_read_for_each_optimizer_and_power():
    setting = paper().results.setting
    found = by_power(setting, "number", ("sgd", "ema"), lambda n, p: len(n) + p)
    assert found.columns == ("0", "0.25", "0.5", "0.75")
    assert found.rows["EMA"] == (3, 3.25, 3.5, 3.75)


def test_a_rule_without_grids_has_nothing_beside_its_evidence():
    rule = Rule("k", "s", lambda _table: evidence(1.0), at_most(2), counts=False)
    found = rule.on(paper().results)
    assert found.holds
    assert found.on_grid is None
    assert found.holds_on_grid is None
    assert not found.counts
