"""The paper as one value: complete, and readable by persons and programs."""

import json
from dataclasses import replace
from itertools import product

import pytest
from example_paper import paper

from rightbatch.quadratic.paper import results as module
from rightbatch.quadratic.paper.optimizer_claims import judge_optimizers
from rightbatch.quadratic.paper.results import COMPARED, FittedTable
from rightbatch.quadratic.paper.schedule_claims import judge_schedules

KEYS = {"number", "claim", "verdict", "evidence"}


def test_there_are_eight_claims_in_order_and_each_has_its_figures():
    names = {figure.name for figure in paper().figures}
    assert [one.number for one in paper().claims] == list(range(1, 9))
    for one in paper().claims:
        assert one.figures
        assert set(one.figures) <= names


def test_the_headline_counts_the_verdicts():
    assert paper().headline == ("6 of the paper's 8 claims are reproduced, 2 partly")


def test_the_paper_is_json_with_a_verdict_and_evidence_for_each_claim():
    document = json.loads(json.dumps(paper().to_dict(), allow_nan=False))
    for told in document["claims"]:
        assert set(told) >= KEYS
        assert told["evidence"]
    for told in document["figures"]:
        assert told["title"]
        for panel in told["panels"]:
            assert all(len(c["x"]) == len(c["y"]) for c in panel["curves"])
    assert document["max_likelihood_examples"] == 500_000
    assert document["bayes_examples"] == pytest.approx(494_785, abs=1)


def test_in_words_it_is_a_line_per_claim_and_all_numbers_on_request():
    lines = str(paper()).splitlines()
    assert len(lines) == 9
    assert lines[2].startswith("2  reproduced")
    assert "SGD: 821, 3,147" in paper().details()


def test_what_lies_beyond_the_paper_holds():
    assert [one.key for one in paper().beyond] == [
        "momentum_and_ema",
        "uniform_average",
    ]
    assert all(one.holds for one in paper().beyond)
    gains = paper().beyond[0].evidence.rows["power 0"]
    assert gains[4] > 5.7


def test_an_unknown_figure_is_not_there():
    with pytest.raises(StopIteration):
        paper().figure("5")


@pytest.mark.slow
def test_the_published_grids_change_one_verdict():
    # All but the grids is what `paper` has computed.
    setting = replace(paper().results.setting, with_grids=True)
    work = module._Work(setting, "auto")
    for key in product(COMPARED, setting.powers):
        work._search_grid(key).run()
    results = replace(
        paper().results, setting=setting, grid=FittedTable(fits=work.grid)
    )
    claims = (*judge_optimizers(results), *judge_schedules(results))
    grid = {one.number: one.verdict_on_grid for one in claims}
    assert grid == {
        1: "reproduced",
        2: "partly",
        3: "reproduced",
        4: "reproduced",
        5: "reproduced",
        6: None,
        7: None,
        8: None,
    }
    more = claims[1].conditions[1].on_grid
    assert more is not None
    assert more.rows["momentum"][0] == pytest.approx(0.131, abs=5e-4)
