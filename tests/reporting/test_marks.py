import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.reporting import marks, style
from rightbatch.reporting.drawing import Drawing

places = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


@given(places, st.floats(0.01, 5))
def test_names_that_were_spread_keep_their_order_and_their_distance(values, gap):
    moved = marks.spread(values, gap)
    order = sorted(range(len(values)), key=lambda i: values[i])
    above = [moved[i] for i in order]
    assert all(b - a >= gap - 1e-9 for a, b in zip(above, above[1:], strict=False))


@given(places)
def test_names_with_room_enough_stay_where_they_are(values):
    assert marks.spread(sorted(set(values)), 0.0) == pytest.approx(sorted(set(values)))


@given(places, st.floats(0.01, 5))
def test_names_stay_within_the_axis(values, gap):
    moved = marks.spread(values, gap, within=(-110, 110))
    assert min(moved) >= -110 - 1e-9
    assert max(moved) <= 110 + 1e-9


def test_a_band_leaves_out_what_is_unbounded():
    drawing = Drawing()
    marks.band(drawing, [1, 2, 3], [None, 1.0, 0.0], [5.0, 4.0, None], "#000000")
    assert drawing.data[0]["x"] == [2, 2]
    assert drawing.data[0]["y"] == [4.0, 1.0]


def test_a_band_unbounded_everywhere_is_not_drawn():
    drawing = Drawing()
    marks.band(drawing, [1, 2], [None, None], [3.0, 3.0], "#000000")
    assert not drawing.data


def test_a_name_at_an_end_is_text_not_markup():
    drawing = Drawing()
    ends = [(1.0, 2.0, '<a href="x">& more', "#000000")]
    marks.name_ends(drawing, ends, style.log_axis([1, 10]))
    (text,) = drawing.data[0]["text"]
    assert text.strip() == "&lt;a href=&quot;x&quot;&gt;&amp; more"


def test_error_bars_never_point_the_wrong_way():
    bars = marks.error_bars([2.0], [(2.5, 3.0)], "#000000")
    assert bars["array"] == [1.0]
    assert bars["arrayminus"] == [0.0]


def test_a_titled_figure_carries_its_title_and_leaves_the_chart_alone():
    chart = marks.Chart(name="x", title="a < b", caption="", drawing=Drawing())
    assert chart.titled().layout.title.text == "<b>a &lt; b</b>"
    assert chart.figure.layout.title.text is None
