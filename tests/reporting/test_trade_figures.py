import math

import pytest

from rightbatch.reporting.trade_figures import trade_charts


def trade(document):
    fits = document.get("convergence") or document["workloads"]
    return trade_charts(fits, document.get("optimal") or [])[0]


def test_the_law_is_mccandlishs_hyperbola(plan_document):
    chart = trade(plan_document)
    law = next(
        t
        for t in chart.figure.data
        if t.mode == "lines" and t.line.dash is None and t.fill is None
    )
    for examples, steps in zip(law.x, law.y, strict=True):
        assert (steps / 80 - 1) * (examples / 3600 - 1) == pytest.approx(1)


def test_the_title_says_what_the_best_batch_costs(plan_document):
    best = plan_document["optimal"][0]
    chart = trade(plan_document)
    steps, examples = best["steps"] / 80, best["batch_size"] * best["steps"] / 3600
    assert chart.title == (
        f"Batch 121 takes {steps:.3g}× the fewest steps, {examples:.3g}× the fewest "
        "examples"
    )


def test_the_chosen_batches_lie_on_the_curve(plan_document):
    chart = trade(plan_document)
    rings = [t for t in chart.figure.data if t.marker.size == 11]
    picked = (plan_document["optimal"][0], plan_document["optimal"][-1])
    for ring, entry in zip(rings, picked, strict=True):
        assert ring.y[0] == entry["steps"]
        assert ring.x[0] == pytest.approx(entry["steps"] * entry["batch_size"])


def test_the_even_trade_takes_twice_of_both(plan_document):
    figure = trade(plan_document).figure
    diamond = next(t for t in figure.data if t.marker.symbol == "diamond")
    assert diamond.y[0] == pytest.approx(160)
    assert diamond.x[0] == pytest.approx(7200)
    assert any("even trade, 45" in str(t.text) for t in figure.data if t.mode == "text")


def test_both_limits_are_drawn(plan_document):
    figure = trade(plan_document).figure
    across, up = (t for t in figure.data if t.line.dash == "dash")
    assert set(across.y) == {80.0}
    assert set(up.x) == {3600.0}


def test_the_runs_are_points_and_rows(plan_document):
    chart = trade(plan_document)
    points = plan_document["convergence"][0]["points"]
    drawn = next(t for t in chart.figure.data if t.mode == "markers")
    assert list(drawn.y) == [point["mean_steps"] for point in points]
    assert chart.sheet is not None
    assert len(chart.sheet.rows) == len(points)


def test_a_fit_alone_says_how_steps_fall_and_examples_grow(plan_document):
    (fit,) = plan_document["convergence"]
    chart = trade({"workloads": [fit]})
    fall, grow = (80 + 3600) / (80 + 3600 / 1024), 1024 * (80 + 3600 / 1024) / 3680
    assert chart.title == (
        f"From batch 1 to 1,024 steps fall {fall:.3g}×, examples grow {grow:.3g}×"
    )


def test_a_flat_table_claims_no_limits(unidentifiable_document):
    chart = trade(unidentifiable_document)
    assert chart.title.startswith("From batch 1 to 1,024 steps fall")
    unidentifiable_document["convergence"][0]["curve"]["steps"] = [
        5000 / size**1.1
        for size in unidentifiable_document["convergence"][0]["curve"]["batch_size"]
    ]
    assert "examples fall to 0.5×" in trade(unidentifiable_document).title
    assert not [t for t in chart.figure.data if t.marker.symbol == "diamond"]
    dashed = [t for t in chart.figure.data if t.line.dash == "dash"]
    assert all(len({*t.x}) == 1 for t in dashed)  # of steps, none


def test_examples_are_in_their_unit(plan_document):
    plan_document["convergence"][0]["example_unit"] = "token"
    chart = trade(plan_document)
    assert "fewest tokens" in chart.title
    assert chart.figure.layout.xaxis.title.text == "tokens to the target"


@pytest.mark.parametrize("law", [{"knee_exponent": 2.0}, {"min_batch_size": 1.0}])
def test_other_laws_have_their_own_even_trade(plan_document, law):
    fit = plan_document["convergence"][0]
    fit.update({k: {"value": v} if "batch" in k else v for k, v in law.items()})
    diamonds = [
        t for t in trade(plan_document).figure.data if t.marker.symbol == "diamond"
    ]
    steps, examples = diamonds[0].y[0], diamonds[0].x[0]
    if "knee_exponent" in law:
        assert steps == pytest.approx(math.hypot(80, 80))
    else:
        # A little to either side, what steps lose examples gain.
        logs = [
            math.log(80 + 3600 / (examples / steps * k - 1)) for k in (0.999, 1.001)
        ]
        assert logs[1] - logs[0] == pytest.approx(
            -math.log(1.001 / 0.999) / 2, rel=1e-4
        )
