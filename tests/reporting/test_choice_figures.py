import pytest

from rightbatch.reporting.choice_figures import best_batch_chart, regret_chart


@pytest.fixture
def series():
    """Regret on 1 and 16 replicas, 1/4 of the squared log of the ratio to the best."""
    sizes = [2.0**k for k in range(3, 12)]

    def regrets(best):
        lost = [(k - best) ** 2 * 0.05 for k in range(3, 12)]
        return {
            "batch_size": sizes,
            "value": lost,
            "low": [max(0.0, each - 0.02) for each in lost],
            "high": [None, *(each + 0.02 for each in lost[1:])],
        }

    return [
        {
            "num_replicas": count,
            "optimum": {"batch_size": 2**best, "seconds": 1.0},
            "regret_curve": regrets(best),
        }
        for count, best in ((1, 5), (4, 6), (16, 8))
    ]


def test_the_regret_says_what_half_and_twice_the_best_batch_cost(series):
    chart = regret_chart(series)
    assert chart is not None
    assert chart.title == (
        "On 16 replicas, half the best batch costs 5 % of time, twice it 5 %"
    )
    lines = [t for t in chart.figure.data if t.mode == "lines" and t.fill is None]
    assert [line.y[place] for line, place in zip(lines, (2, 5), strict=True)] == [0, 0]
    assert chart.sheet is not None
    assert len(chart.sheet.rows) == 18


def test_the_axis_of_regrets_ends_where_nobody_would_train(series):
    chart = regret_chart(series)
    assert chart is not None
    low, high = chart.figure.layout.yaxis.range
    assert low == 0
    assert 0.1 <= high <= 1
    texts = chart.figure.layout.yaxis.ticktext
    assert 2 <= len(texts) <= 7
    assert texts[0] == "0 %"


def test_regrets_that_are_open_or_absent_are_no_trouble(series):
    series[0]["regret_curve"] = None
    series[1]["regret_curve"]["value"][-1] = None
    chart = regret_chart(series[:2])
    assert chart is not None
    assert regret_chart(series[:1]) is None
    del series[1]["optimum"]
    chart = regret_chart(series[:2])
    assert chart is not None
    assert chart.title == "What another batch size costs in time"


def test_the_best_batch_is_drawn_against_the_replicas(plan_document):
    chart = best_batch_chart(plan_document["optimal"], plan_document["scaling"])
    assert chart is not None
    best = [entry["batch_size"] for entry in plan_document["optimal"]]
    points = next(t for t in chart.figure.data if t.mode == "markers")
    assert list(points.y) == best
    assert points.error_y.array is not None
    assert chart.title == (
        f"The best batch goes from {best[0]} on 1 replica to {best[-1]} on 16"
    )


def test_where_optimal_becomes_weak_is_marked(plan_document):
    scaling = plan_document["scaling"] | {"optimal_becomes_weak_at": 6.2}
    chart = best_batch_chart(plan_document["optimal"], scaling)
    assert chart is not None
    assert chart.title.endswith("in step with the replicas from 7 on")
    assert any(trace.line.dash == "dot" for trace in chart.figure.data)


@pytest.mark.parametrize("scaling", [None, {}, {"replicas": [1, 2]}, {"optimal": None}])
def test_the_best_batch_needs_no_scaling_and_no_intervals(plan_document, scaling):
    for entry in plan_document["optimal"]:
        entry["batch_size_interval"] = None
    chart = best_batch_chart(plan_document["optimal"], scaling)
    assert chart is not None
    assert "Bars" not in chart.caption


def test_one_number_of_replicas_makes_no_figure(bare_document):
    assert best_batch_chart(bare_document["optimal"], None) is None
    assert best_batch_chart([], None) is None
