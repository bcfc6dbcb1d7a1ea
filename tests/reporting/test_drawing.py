import json
import math
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from rightbatch.reporting import figures
from rightbatch.reporting import page as frame
from rightbatch.reporting.drawing import Drawing

DOCUMENTS = (
    "plan_document",
    "targets_document",
    "bare_document",
    "unidentifiable_document",
)


def written(figure: go.Figure):
    """What plotly writes of a figure, less its template."""
    content = json.loads(figure.to_json())
    content["layout"].pop("template", None)
    return content


@pytest.fixture
def both():
    """The same changes made to a drawing and to plotly's figure."""
    return Drawing(), go.Figure()


@pytest.mark.parametrize("fixture", DOCUMENTS)
def test_plotly_accepts_every_chart_and_writes_it_as_we_do(fixture, request):
    charts = figures.charts(request.getfixturevalue(fixture))
    assert len(charts) >= 5
    for chart in charts:
        assert written(chart.figure) == frame._finite(chart.drawing.to_dict())


def test_plotly_would_tell_of_a_setting_it_does_not_know():
    wrong = Drawing()
    wrong.add_scatter(x=[1], y=[1], mode="lines", colour="red")
    with pytest.raises(ValueError, match="colour"):
        go.Figure(wrong.to_dict())


def test_changes_reach_what_they_name_alone_as_in_plotly(both):
    first = {"title": {"text": "steps", "font": {"size": 12}}, "tickvals": [1, 2, 3]}
    then = {"title": {"font": {"color": "red"}}, "tickvals": [4]}
    for figure in both:
        figure.update_layout(margin={"l": 1, "r": 2}, showlegend=False)
        figure.update_layout(margin={"r": 3})
        figure.update_xaxes(first)
        figure.update_xaxes(then)
        figure.update_yaxes({"type": "log"})
        figure.add_annotation(text="a", x=1, showarrow=False)
        figure.add_annotation(text="b", x=2, font=None)
    ours, theirs = both
    assert ours.to_dict() == written(theirs)


def test_two_rows_are_those_of_plotly():
    ours = Drawing()
    ours.split(spacing=0.17)
    theirs = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.17)
    assert ours.to_dict() == written(theirs)
    for row in (1, 2):
        ours.update_yaxes({"range": [0, row]}, row=row)
        theirs.update_yaxes({"range": [0, row]}, row=row, col=1)
    ours.update_xaxes({"showline": True})
    theirs.update_xaxes({"showline": True})
    assert ours.to_dict() == written(theirs)


def test_settings_given_to_two_axes_stay_apart():
    drawing, shared = Drawing(), {"font": {"size": 12}}
    drawing.split(spacing=0.1)
    drawing.update_yaxes({"title": shared})
    drawing.update_yaxes({"title": {"font": {"size": 9}}}, row=2)
    assert drawing.layout["yaxis"]["title"] == shared == {"font": {"size": 12}}
    assert drawing.layout["yaxis2"]["title"] == {"font": {"size": 9}}


def test_numbers_of_numpy_become_those_of_json_and_what_is_not_finite_null():
    drawing = Drawing()
    x = (np.float64(1.5), np.int64(2), math.inf, None)
    drawing.add_scatter(x=x, y=np.array([1.0, np.nan]), line={"dash": None, "width": 2})
    assert json.loads(
        json.dumps(frame._finite(drawing.to_dict()), allow_nan=False)
    ) == {
        "data": [
            {
                "type": "scatter",
                "x": [1.5, 2, None, None],
                "y": [1.0, None],
                "line": {"width": 2},
            }
        ],
        "layout": {},
    }


def test_a_report_is_written_without_the_figures_of_plotly(plan_document):
    program = """
import json, sys
from rightbatch.reporting.html import render_html
assert "data-figure" in render_html(json.load(sys.stdin))
print(*(name for name in sys.modules if name.split(".")[0] == "plotly"))
"""
    run = [sys.executable, "-c", program]
    text = json.dumps(plan_document)
    done = subprocess.run(run, input=text, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"plotly"}, "its data are found through it"
