"""The report of the reproduced paper: complete, offline, escaped."""

import json
import re
from dataclasses import replace
from html import unescape

import pytest
from example_paper import paper

from rightbatch.errors import InputError
from rightbatch.quadratic.paper import Condition, Evidence
from rightbatch.reporting import page
from rightbatch.reporting.paper_report import (
    evidence_sheet,
    render_paper,
    verdict_sheet,
    write_paper_report,
)
from rightbatch.reporting.sheet import as_text


@pytest.fixture(scope="module")
def html():
    """Return the report without the code of plotly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "_plotly", lambda: "")
        return render_paper(paper())


def text_of(html):
    text = re.sub(r"<[^>]+>", " ", html)
    return unescape(text).replace("\N{NO-BREAK SPACE}", " ")


def test_the_report_states_every_claim_with_its_verdict(html):
    for claim in paper().claims:
        start = html.index(f'<section id="claim-{claim.number}"')
        section = text_of(html[start : html.index("</section>", start)])
        assert claim.verdict in section
        for one in claim.conditions:
            assert one.statement in section


def test_every_figure_is_there_once_with_its_numbers_and_its_command(html):
    for figure in paper().figures:
        place = f'data-figure="figure-{figure.name}"'
        assert html.count(place) == 1
        start = html.index(place)
        shown = text_of(html[start : html.index("</figure>", start)])
        assert "Numbers" in shown
        assert re.sub(r"\s+", " ", shown).count(f"rightbatch {figure.command}") == 1


def test_every_link_leads_somewhere(html):
    for name in re.findall(r'href="#([^"]+)"', html):
        assert f'id="{name}"' in html


def test_the_result_in_the_page_is_that_of_the_paper(html):
    data = html.split('id="result-data">', 1)[1].split("</script>", 1)[0]
    document = json.loads(data)
    assert document["command"] == "simulate"
    assert [one["verdict"] for one in document["claims"]] == [
        one.verdict for one in paper().claims
    ]


def test_the_page_asks_the_network_for_nothing(html):
    assert "default-src 'none'" in html
    assert not re.search(r'(?:src|href)="https?:', html)


def test_words_are_escaped(monkeypatch):
    monkeypatch.setattr(page, "_plotly", lambda: "")
    claims = (replace(paper().claims[0], claim="<b>bold</b>"), *paper().claims[1:])
    html = render_paper(replace(paper(), claims=claims))
    assert "<b>bold</b>" not in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html


def test_a_verdict_that_the_grids_change_says_so(monkeypatch):
    monkeypatch.setattr(page, "_plotly", lambda: "")
    first, *rest = paper().claims
    one = replace(
        first.conditions[0], on_grid=first.conditions[0].evidence, holds_on_grid=False
    )
    claim = replace(first, conditions=(one, *first.conditions[1:]))
    html = render_paper(replace(paper(), claims=(claim, *rest)))
    assert "by the published grids: partly" in html


def test_the_report_is_written_to_a_file(tmp_path):
    path = write_paper_report(tmp_path / "paper.html", paper())
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        write_paper_report(tmp_path / "nowhere" / "paper.html", paper())


def test_the_terminal_has_a_row_for_each_claim():
    text = as_text(verdict_sheet(paper()), width=100)
    assert text.startswith("6 of the paper's 8 claims")
    assert len(verdict_sheet(paper()).rows) == 8
    assert "growing B replaces decaying lr" in text


def condition(kind, *values):
    columns = tuple(str(place) for place in range(len(values)))
    found = Evidence(heading="power", columns=columns, rows={"SGD": values}, kind=kind)
    return Condition(
        key="k", statement="It is so.", evidence=found, holds=True, on_grid=found
    )


def test_the_numbers_of_a_condition_have_those_of_the_grids_below():
    sheet = evidence_sheet(condition("count", 821.4, float("nan")))
    assert sheet.rows == (("SGD", "821", "–"), ("SGD (grid)", "821", "–"))


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("percent", 0.168, "17 %"),
        ("percent", -0.011, "−1.1 %"),
        ("percent", 1e-7, "0 %"),
        ("percent", 27999.0, "28,000×"),
        ("times", 4.352, "4.35×"),
        ("number", -1e-17, "0"),
    ],
)
def test_a_number_of_the_evidence_reads_as_what_it_is(kind, value, text):
    assert evidence_sheet(condition(kind, value)).rows[0][1] == text
