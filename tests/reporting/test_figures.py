import json
import math

import pytest

from rightbatch.reporting import figures, fit_figures

MAKE = {
    "time-to-target": lambda d: figures.time_to_target_chart(d["seconds_to_target"]),
    "steps-1": lambda d: fit_figures.steps_charts(d["convergence"], d["runs"])[0],
    "step-time": fit_figures.step_time_chart,
    "scaling": lambda d: figures.scaling_chart(d["scaling"]),
    "lr": lambda d: fit_figures.lr_chart(d["convergence"]),
}


def chart_of(document, name):
    return MAKE[name](document)


def names(document):
    return [chart.name for chart in figures.charts(document)]


@pytest.fixture(scope="module")
def drawn(shared_targets_document):
    """The charts of three targets by name, for tests that only look."""
    return {c.name: c for c in figures.charts(shared_targets_document)}


def test_a_plan_has_all_its_figures_in_reading_order(drawn):
    assert list(drawn) == [
        "time-to-target",
        "steps-1",
        "trade-1",
        "step-time",
        "scaling",
        "best-batch",
        "targets",
        "lr",
        "verification",
    ]


def test_figures_without_data_are_left_out(bare_document):
    kept = ["time-to-target", "steps-1", "trade-1", "step-time", "lr"]
    assert names(bare_document) == kept
    assert names({}) == []


@pytest.mark.parametrize("missing", ["optimum", "measured", "within_5_percent"])
def test_a_series_may_lack_any_of_its_marks(plan_document, missing):
    for one in plan_document["seconds_to_target"]:
        del one[missing]
    assert chart_of(plan_document, "time-to-target").title


def test_every_figure_can_be_written_as_json_without_nan(drawn):
    for chart in drawn.values():
        text = chart.figure.to_json()
        assert "NaN" not in text
        assert json.loads(text)["data"]


def test_every_figure_has_a_table_of_its_numbers(drawn):
    for chart in drawn.values():
        assert chart.sheet is not None
        assert chart.sheet.rows
        assert all(len(row) == len(chart.sheet.columns) for row in chart.sheet.rows)


def test_titles_state_the_finding_in_the_documents_numbers(plan_document):
    titles = {chart.name: chart.title for chart in figures.charts(plan_document)}
    assert titles["steps-1"] == (
        "45 examples per step is where steps and examples trade evenly"
    )
    assert titles["step-time"] == "A step costs 212 µs, plus 0.65 µs per example"
    assert titles["time-to-target"].startswith(
        "Batch 121 reaches the target soonest on 1 replica, in 31.9 ms; on 16, batch "
    )
    assert titles["lr"].endswith("goes from 0.05 at batch 1 to 1 at batch 1,024")
    assert titles["verification"].endswith("to within 13 %")


def test_a_tighter_target_costs_what_the_laws_say(drawn):
    title = drawn["targets"].title
    assert "0.3 to 0.1" in title
    assert f"{118 / 52:.2f}× the steps and {6700 / 1500:.2f}× the examples" in title
    steps = drawn["steps-1"].title
    assert "28.8 examples per step for target 0.3, 56.8 for target 0.1" in steps


def test_what_is_not_known_is_not_claimed(unidentifiable_document):
    title = chart_of(unidentifiable_document, "steps-1").title
    assert title == "These runs do not pin down the critical batch size: ≥ 96"


def test_a_misfit_is_called_one(plan_document):
    plan_document["convergence"][0]["status"] = "misfit"
    assert (
        "does not describe these runs well" in chart_of(plan_document, "steps-1").title
    )


def test_replicas_that_slow_down_are_said_to(plan_document):
    plan_document["scaling"]["optimal"]["speedup"][-1] = 0.5
    title = chart_of(plan_document, "scaling").title
    assert title == "16 replicas take 2× as long as one"


def test_a_seen_knee_is_in_the_title_and_in_the_figure(plan_document):
    step_time = plan_document["step_time"]
    step_time["knee_seen"] = True
    step_time["saturation_batch_size"]["value"] = 32.0
    chart = chart_of(plan_document, "step-time")
    assert chart.title.endswith("per example beyond 32")
    assert any("flat below 32" in note.text for note in chart.figure.layout.annotations)


def test_step_times_alone_make_a_figure():
    timings = [
        {"batch_size": 1, "num_replicas": 1, "seconds": 2e-4},
        {"batch_size": 64, "num_replicas": 2, "seconds": 3e-4},
    ]
    (chart,) = figures.charts({"times": timings})
    assert chart.title == "A step takes 200 µs at batch 1 and 300 µs at batch 64"


def test_the_thick_part_of_a_curve_is_what_lies_within_5_percent(plan_document):
    chart = chart_of(plan_document, "time-to-target")
    thick = [trace for trace in chart.figure.data if trace.line.width == 6]
    for one, trace in zip(plan_document["seconds_to_target"], thick, strict=True):
        low, high = one["within_5_percent"]
        assert trace.x[0] == pytest.approx(low)
        assert trace.x[-1] == pytest.approx(high)
        # The curve is given at four points an octave: chords lie a little above it.
        assert max(trace.y) <= 1.055 * one["optimum"]["seconds"]


def test_only_runs_at_the_chosen_rate_stand_behind_a_mean(plan_document):
    other = {**plan_document["runs"][0], "lr": 9.0}
    lost = {**plan_document["runs"][0], "status": "diverged"}
    elsewhere = {**plan_document["runs"][0], "target": 0.3}
    runs = len(plan_document["runs"])
    plan_document["runs"] += [other, lost, elsewhere]
    figure = chart_of(plan_document, "steps-1").figure
    faint = [trace for trace in figure.data if trace.marker.opacity == 0.35]
    assert len(faint[0].x) == runs


def test_an_excluded_batch_is_drawn_as_a_cross(drawn):
    figure = drawn["steps-1"].figure
    crosses = [t for t in figure.data if t.mode == "markers" and t.marker.symbol == "x"]
    assert [list(trace.x) for trace in crosses] == [[1]]


def test_the_limits_of_a_law_meet_at_the_critical_batch(plan_document):
    figure = chart_of(plan_document, "steps-1").figure
    dashed = [trace for trace in figure.data if trace.line.dash == "dash"]
    fewest, falling = dashed
    assert set(fewest.y) == {80.0}
    assert falling.x[-1] == pytest.approx(45)
    assert falling.y[-1] == pytest.approx(80)


def test_a_law_without_fewest_steps_has_no_limits_drawn(unidentifiable_document):
    figure = chart_of(unidentifiable_document, "steps-1").figure
    assert not [trace for trace in figure.data if trace.line.dash == "dash"]


def test_each_workload_of_a_fit_has_its_own_figure(plan_document):
    one = plan_document["convergence"][0]
    fits = [{**one, "workload": name, "target": None} for name in ("bert", "resnet")]
    charts = figures.charts({"workloads": fits})
    drawn = [c.name for c in charts if c.name.startswith(("steps", "trade"))]
    assert drawn == ["steps-1", "trade-1", "steps-2", "trade-2"]
    assert charts[2].title.startswith("resnet: 45 examples")


def test_rates_held_fixed_have_no_figure(plan_document):
    for entry in plan_document["convergence"][0]["lrs"]:
        entry["lr"] = 0.5
    assert chart_of(plan_document, "lr") is None


def test_a_rate_at_the_edge_of_the_grid_is_an_open_circle(plan_document):
    figure = chart_of(plan_document, "lr").figure
    symbols = next(trace.marker.symbol for trace in figure.data if trace.marker.symbol)
    assert list(symbols) == ["circle"] * 9 + ["circle-open"] * 2


def test_a_law_of_the_best_rate_is_drawn_with_its_band(plan_document):
    sizes = [1.0, 32.0, 1024.0]
    rates = [0.05 * size**0.5 for size in sizes]
    plan_document["convergence"][0]["lr_law"] = {
        "status": "ok",
        "exponent": {"value": 0.5, "low": 0.4, "high": 0.62, "level": 0.9},
        "plateau_batch_size": {"value": None, "low": 512.0, "high": None},
        "curve": {
            "batch_size": sizes,
            "lr": rates,
            "low": [0.9 * rate for rate in rates],
            "high": [1.1 * rate for rate in rates],
        },
    }
    chart = chart_of(plan_document, "lr")
    assert chart.title == (
        "The best learning rate grows as the batch to the 0.5 (0.4–0.62)"
    )
    law = next(t for t in chart.figure.data if t.mode == "lines" and t.fill is None)
    assert list(law.y) == rates
    plan_document["convergence"][0]["lr_law"]["plateau_batch_size"]["value"] = 700.0
    assert chart_of(plan_document, "lr").title.endswith("(0.4–0.62) up to about 700")
    assert any(trace.fill == "toself" for trace in chart.figure.data)


def test_the_data_lie_within_the_axes(drawn):
    for chart in drawn.values():
        axis = chart.figure.layout.xaxis
        if axis.type != "log":
            continue
        low, high = axis.range
        for trace in chart.figure.data:
            assert all(low <= math.log10(x) <= high for x in trace.x or ())


def test_batch_sizes_are_in_the_unit_of_the_fit(plan_document):
    plan_document["convergence"][0]["example_unit"] = "token"
    charts = {chart.name: chart for chart in figures.charts(plan_document)}
    for name in ("time-to-target", "steps-1", "step-time", "lr"):
        title = charts[name].figure.layout.xaxis.title.text
        assert title == "batch size, tokens per step"
    assert charts["steps-1"].title == (
        "45 tokens per step is where steps and tokens trade evenly"
    )
