"""The frame of a page, and its parts."""

import json
import re

import pytest

from rightbatch.errors import InputError, RightbatchError
from rightbatch.reporting import page as frame
from rightbatch.reporting import style
from rightbatch.reporting.marks import Chart, line
from rightbatch.reporting.sheet import Column, Sheet


def sheet(rows=(("a<b", "1"),), notes=()):
    columns = (Column("name", align="left"), Column("many"))
    return Sheet(caption="What & how", columns=columns, rows=rows, notes=notes)


def chart(numbers=None):
    drawing = style.blank("risk")
    line(drawing, [1.0, 2.0], [3.0, 4.0], style.color("first"))
    return Chart(
        name="made-up", title="5 % < 6", caption="x", drawing=drawing, sheet=numbers
    )


def test_a_page_holds_header_sections_data_and_scripts_in_this_order(monkeypatch):
    monkeypatch.setattr(frame, "_plotly", lambda: "/* plotly */")
    body = ["<header>Top</header>", "<section>One</section>"]
    html = frame.page(
        "A <title>",
        body,
        {"value": float("nan")},
        [chart()],
        styles=["paper.css"],
        scripts=["<script>/* last */</script>"],
    )
    order = [
        "<title>A &lt;title&gt; · rightbatch</title>",
        ".verdict",
        "<header>Top</header>",
        '<main id="main">',
        "<section>One</section>",
        'id="result-data">{"value":null}<',
        'id="figures-data">{"made-up":',
        "/* plotly */",
        "/* last */",
    ]
    places = [html.index(part) for part in order]
    assert places == sorted(places)


def test_a_section_without_parts_is_not_there():
    assert frame.section("Empty", []) == ""


def test_a_section_is_named_by_its_title_or_as_asked():
    assert '<section id="fitted-laws"' in frame.section("Fitted laws", ["x"])
    assert 'aria-labelledby="laws-title"' in frame.section("Fitted", ["x"], "laws")


def test_a_figure_has_title_caption_numbers_and_what_comes_after():
    html = frame.figure(chart(sheet()), "<p>after</p>")
    assert "5\N{NO-BREAK SPACE}% &lt; 6" in html
    assert "<summary>Numbers</summary>" in html
    assert html.index("</details>") < html.index("<p>after</p>")


@pytest.mark.parametrize("numbers", [None, sheet(rows=())])
def test_a_figure_without_numbers_has_no_place_for_them(numbers):
    assert "Numbers" not in frame.figure(chart(numbers))


def test_a_table_is_escaped_and_its_first_cells_are_headings():
    html = frame.table(sheet(), "plan")
    assert '<th scope="row" class="left">a&lt;b</th>' in html
    assert "What &amp; how" in html
    assert 'class="table plan"' in html


def test_many_notes_are_folded():
    few = frame.table(sheet(notes=("one",) * 5))
    many = frame.table(sheet(notes=("one",) * 6))
    assert "<summary>" not in few
    assert "<summary>Advice, 6 lines</summary>" in many


@pytest.mark.parametrize(
    ("rows", "words"), [((("a", "1"),), "1 row<"), ((("a", "1"),) * 3, "3 rows<")]
)
def test_a_folded_table_says_how_long_it_is(rows, words):
    assert words in frame.folded(sheet(rows=rows))


def test_no_data_can_end_its_script():
    html = frame.json_script("x", {"a": "</script><!--"})
    inside = re.sub(r"^<script[^>]*>|</script>$", "", html)
    assert "<" not in inside
    assert json.loads(inside) == {"a": "</script><!--"}


def test_a_page_is_written_whole_and_nothing_is_left_beside(tmp_path):
    path = frame.write_page("a page", tmp_path / "a.html")
    assert path.read_text() == "a page"
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_page_is_kept_where_the_disk_fails(tmp_path, monkeypatch):
    path = frame.write_page("old", tmp_path / "a.html")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(RightbatchError, match="No space left on device"):
        frame.write_page("new", path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_no_page(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        frame.write_page("a page", tmp_path)
