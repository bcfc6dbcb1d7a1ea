"""Figures of the noisy quadratic as they are drawn."""

import json
import math

import pytest
from example_paper import paper

from rightbatch.quadratic.paper import Curve, Figure, Panel
from rightbatch.reporting import style
from rightbatch.reporting.quadratic_figures import MOST_ROWS, quadratic_chart


@pytest.fixture(scope="module")
def drawn():
    """Return the charts of the paper by name."""
    return {figure.name: quadratic_chart(figure) for figure in paper().figures}


def figure(*curves, **changed):
    settings = {
        "name": "made-up",
        "title": "It falls",
        "caption": "",
        "x_title": "steps",
        "panels": (Panel(y_title="risk", curves=curves),),
        "x_scale": "linear",
    }
    return Figure(**(settings | changed))


def curve(name="a", **changed):
    settings = {"x": (0.0, 1.0, 2.0), "y": (4.0, 2.0, 1.0), "group": name}
    return Curve(name=name, **(settings | changed))


def traces(chart):
    return [t for t in chart.drawing.to_dict()["data"] if t["mode"] != "text"]


def labels(chart):
    found = [t for t in chart.drawing.to_dict()["data"] if t["mode"] == "text"]
    return [trace["text"][0].strip() for trace in found]


def test_every_figure_is_one_that_plotly_accepts(drawn):
    for chart in drawn.values():
        assert json.loads(chart.figure.to_json())["data"]


def test_every_figure_has_a_table_of_its_numbers(drawn):
    for chart in drawn.values():
        assert chart.sheet is not None
        assert chart.sheet.rows
        assert all(len(row) == len(chart.sheet.columns) for row in chart.sheet.rows)


def test_every_colour_has_its_dark_one(drawn):
    known = style.dark_of()
    for chart in drawn.values():
        for trace in traces(chart):
            assert trace["line"]["color"] in known


def test_names_of_figures_are_fit_for_html(drawn):
    names = [chart.name for chart in drawn.values()]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() for name in names)


def test_batch_sizes_are_ticks(drawn):
    axis = drawn["3a"].drawing.to_dict()["layout"]["xaxis"]
    assert axis["ticktext"] == ["4", "64", "1,024", "16,384", "262,144"]
    assert axis["type"] == "log"


def test_the_table_of_a_figure_has_a_column_for_each_curve(drawn):
    sheet = drawn["3a"].sheet
    assert sheet.columns[1].heading == "momentum, power 0"
    assert len(sheet.columns) == 11
    assert sheet.rows[2][:3] == ("64", "80,323", "95,633")


def test_curves_with_places_of_their_own_have_rows_of_their_own(drawn):
    sheet = drawn["growth"].sheet
    assert [column.heading for column in sheet.columns[:2]] == ["curve", "updates"]
    assert sheet.rows[0][0] == "decaying lr"


def test_long_curves_are_thinned_in_the_table_alone():
    x = tuple(float(i) for i in range(100))
    chart = quadratic_chart(figure(curve(x=x, y=tuple(v + 1 for v in x))))
    assert len(chart.sheet.rows) == MOST_ROWS
    assert chart.sheet.rows[0][0] == "0"
    assert chart.sheet.rows[-1][0] == "99"
    assert len(traces(chart)[0]["x"]) == 100


def test_momentum_is_shown_by_what_it_lacks_to_one(drawn):
    chart = drawn["2"]
    layout = chart.drawing.to_dict()["layout"]
    assert traces(chart)[0]["x"][0] == 1
    assert layout["xaxis"]["range"][0] > layout["xaxis"]["range"][1]
    assert layout["xaxis2"]["ticktext"][:2] == ["0", "0.9"]


def test_two_panels_share_an_axis_named_below(drawn):
    layout = drawn["2"].drawing.to_dict()["layout"]
    assert layout["xaxis2"]["title"]["text"] == "momentum"
    assert layout["xaxis"]["title"]["text"] == ""
    assert traces(drawn["2"])[1]["yaxis"] == "y2"
    told = [note["text"] for note in layout["annotations"]]
    assert told[1] == "steady-state risk"


def test_one_group_has_one_colour_and_what_is_compared_is_dashed():
    solid = curve("a, new", group="power 0")
    dashed = curve("a, old", group="power 0", dashed=True)
    other = curve("b", group="power 1")
    first, second, third = traces(quadratic_chart(figure(solid, dashed, other)))
    assert first["line"]["color"] == second["line"]["color"]
    assert first["line"]["color"] != third["line"]["color"]
    assert second["line"]["dash"] == "dash"
    assert "dash" not in first["line"]


def test_a_line_of_reference_is_grey():
    one = traces(quadratic_chart(figure(curve(group=""))))[0]
    assert one["line"]["color"] == style.color("muted")


def test_an_optimizer_has_the_same_colour_in_every_figure(drawn):
    shades = {
        trace["line"]["color"]
        for name in ("phi", "lr", "momentum-and-ema")
        for trace, one in zip(
            traces(drawn[name]), paper().figure(name).panels[0].curves, strict=True
        )
        if one.group == "momentum"
    }
    assert len(shades) == 1


def test_a_label_stands_where_the_curve_ends():
    gone = curve("a", label="end of a", y=(4.0, 2.0, math.nan))
    chart = quadratic_chart(figure(gone, curve("b")))
    assert labels(chart) == ["end of a"]
    text = next(t for t in chart.drawing.to_dict()["data"] if t["mode"] == "text")
    assert text["x"] == [1.0]


def test_steps_of_a_schedule_are_drawn_as_steps():
    one = traces(quadratic_chart(figure(curve(stepped=True))))[0]
    assert one["line"]["shape"] == "hv"


def test_a_linear_height_begins_at_zero():
    panel = Panel(y_title="share", curves=(curve(),), y_scale="linear")
    layout = quadratic_chart(figure(panels=(panel,))).drawing.to_dict()["layout"]
    assert layout["yaxis"]["rangemode"] == "tozero"


def test_hovering_tells_name_height_and_place():
    one = traces(quadratic_chart(figure(curve("a"))))[0]
    assert one["text"][0] == "a: 4 at 0"
