"""The tables and figures of a cluster's result."""

import json
from pathlib import Path

import pytest

from rightbatch.cli import main
from rightbatch.reporting.cluster_figures import cluster_charts
from rightbatch.reporting.cluster_tables import (
    cluster_sheets,
    mix_sheet,
    pareto_sheet,
)
from rightbatch.reporting.html import render_html
from rightbatch.reporting.sheet import as_text

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "clusters"


@pytest.fixture(params=["two-components", "rent-by-the-hour", "several-jobs"])
def document(request, capsys):
    with pytest.raises(SystemExit):
        main(["cluster", str(EXAMPLES / f"{request.param}.toml"), "--json"])
    return json.loads(capsys.readouterr().out)


def test_every_table_of_a_cluster_fits_80_columns(document):
    for sheet in cluster_sheets(document):
        text = as_text(sheet, width=80)
        assert max(len(line) for line in text.splitlines()) <= 80
        assert len(text.splitlines()) < len(sheet.rows) + 10, "printed as blocks"


def test_the_best_mix_is_marked_on_the_front(document):
    rows = pareto_sheet(document).rows
    assert sum(row[0].startswith("*") for row in rows) == 1


def test_the_figures_are_the_front_and_the_time_against_replicas(document):
    front, replicas = cluster_charts(document)
    assert front.name == "time-against-money"
    assert replicas.name == "time-against-replicas"
    # The line, the points on it and the best; then the budget or deadline.
    line, points, best = front.figure.data[:3]
    assert list(line.x) == [mix["money"] for mix in document["pareto"]]
    assert len(points.x) == len(document["pareto"])
    assert (best.x[0], best.y[0]) == (
        document["best"]["money"],
        document["best"]["seconds"],
    )
    assert len(replicas.sheet.rows) == len(document["scaling"]["replicas"])


def test_plotly_accepts_every_chart_of_a_cluster_and_writes_it_as_we_do(document):
    for chart in cluster_charts(document):
        written = json.loads(chart.figure.to_json())
        del written["layout"]["template"]
        assert written == chart.drawing.to_dict()


def test_a_report_of_a_cluster_holds_its_figures(document):
    page = render_html(document)
    assert "time-against-money" in page
    assert document["sentence"].partition(". ")[0][:30] in page


def test_a_document_without_a_front_has_no_figures():
    assert cluster_charts({"command": "cluster"}) == []
    assert cluster_sheets({"command": "cluster"}) == []


def test_where_an_amount_stands_is_said_in_words():
    parts = [
        {"component": "a", "gain": 0.5, "at": "interior"},
        {"component": "b", "gain": None, "at": "step", "next_amount": None},
        {"component": "c", "gain": 0.25, "at": "step", "next_amount": 16.0},
    ]
    best = {"amounts": {"a": 2.5, "b": 8.0, "c": 8.0}, "prices": {"a": 10.0}}
    found = mix_sheet({"best": best, "marginal": {"components": parts}})
    assert [row[4] for row in found.rows] == [
        "any amount",
        "the largest sold",
        "next: 16",
    ]
    assert [row[3] for row in found.rows] == ["0.5", "–", "0.25"]
