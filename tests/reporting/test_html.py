import copy
import json
import os
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs

from rightbatch.errors import InputError, RightbatchError
from rightbatch.reporting import html
from rightbatch.reporting import page as frame

FETCHING = {"src", "href", "action", "data", "poster", "srcset", "background", "ping"}
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """What a browser would see: tags with attributes, text, scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.content: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        self.content.get(inside, self.text).append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def json(self, name: str):
        places = [i for i, s in enumerate(self.named("script")) if s.get("id") == name]
        return json.loads(self.content["script"][places[0]])


@pytest.fixture(scope="module")
def page(shared_targets_document) -> Page:
    return Page(html.render_html(shared_targets_document))


@pytest.fixture
def without_plotly(page, monkeypatch):
    """A page is parsed in no time without its five megabytes of script."""
    monkeypatch.setattr(frame, "_plotly", lambda: "")


def test_the_page_is_one_html_document_and_every_tag_is_closed(page):
    counts = Counter(tag for tag, _ in page.tags)
    for tag in ("html", "head", "body", "main", "header", "footer", "h1", "title"):
        assert counts[tag] == 1
    assert page.open == []


def test_the_page_asks_the_network_for_nothing(page):
    for tag, attrs in page.tags:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base"}
        for name in FETCHING & set(attrs):
            assert attrs[name].startswith("#"), (tag, name, attrs[name])
        assert "url(" not in (attrs.get("style") or "")
    for style in page.content["style"]:
        assert not re.search(r"@import|url\(|@font-face", style)
    policy = next(m["content"] for m in page.named("meta") if "http-equiv" in m)
    assert "default-src 'none'" in policy
    assert "connect" not in policy


def test_the_script_of_the_page_neither_fetches_nor_shows_plotlys_links(page):
    own = next(s for s in page.content["script"] if "displayModeBar" in s[:2000])
    for script in page.content["script"]:
        if len(script) < 1_000_000:
            assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(", script)
    assert "displayModeBar: false" in own
    assert "displaylogo: false" in own
    assert "showLink: false" in own


def test_plotly_is_in_the_page_once(page):
    big = [script for script in page.content["script"] if len(script) > 1_000_000]
    assert len(big) == 1
    assert "plotly.js v" in big[0][:200]


def test_the_script_is_the_one_plotly_would_give_with_its_licence():
    script = frame._plotly()
    assert script == re.sub(r"<(?=/script|!--)", r"<\\", get_plotlyjs())
    assert "Licensed under the MIT license" in script[:300]


def test_every_id_is_there_once_and_every_reference_has_its_id(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        for name in ("aria-labelledby", "href"):
            if name in attrs:
                assert attrs[name].lstrip("#") in ids


def test_headings_go_down_by_one(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))


def test_the_answer_stands_at_the_top(page, shared_targets_document):
    first = shared_targets_document["sentence"].partition(". ")[0]
    assert page.words.count(first) == 2  # the title of the window, and the heading
    assert page.words.index("Train at") < page.words.index("To bear in mind")


def test_the_numbers_of_the_plan_and_the_fits_are_in_words(
    page, shared_targets_document
):
    for entry in shared_targets_document["optimal"]:
        assert f" {entry['batch_size']:,} " in page.words.replace("<", " ") or (
            str(entry["batch_size"]) in page.words
        )
        assert f"{1000 * entry['seconds']:.1f}".rstrip("0").rstrip(".") in page.words
    for part in ("28.8 (23.1–34.6)", "45 (36–54)", "6,700", "212 µs", "206–218 µs"):
        assert part in page.words
    for setting in ("smoothed", "torch 2.13.0", "scikit-learn's digits"):
        assert setting in page.words


def test_every_number_of_the_document_is_kept_in_the_page(
    page, shared_targets_document
):
    assert page.json("result-data") == shared_targets_document


def test_every_figure_has_its_data_a_place_a_title_and_a_name(page):
    data = page.json("figures-data")
    places = [a for _, a in page.tags if "data-figure" in a]
    assert [place["data-figure"] for place in places] == list(data)
    assert len(places) == 9
    assert all(place["role"] == "img" and place["aria-label"] for place in places)
    panel = ("time", "pareto")
    assert len(page.named("figcaption")) == len(places) + len(panel)


def test_every_table_has_a_caption_and_headed_rows_and_columns(page):
    tables = page.named("table")
    assert len(tables) == len(page.named("caption")) >= 7
    scopes = Counter(attrs["scope"] for attrs in page.named("th"))
    assert scopes["col"] > 7
    assert scopes["row"] == len(page.named("tr")) - len(tables)


def test_every_colour_of_a_figure_has_its_pair_for_the_dark(page):
    dark_of = page.json("dark-of-data")
    used = set(re.findall(r"#[0-9a-f]{6,8}", json.dumps(page.json("figures-data"))))
    assert used
    assert used <= set(dark_of)


def test_every_figure_has_its_numbers_folded_below_it(page):
    folded = [a for a in page.named("details") if a.get("class") == "numbers"]
    figures = page.json("figures-data")
    assert len(folded) == len(figures) + 1  # the panel's


def test_a_plan_has_its_panel_and_what_it_starts_from(page):
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    model = page.json("what-if-data")
    assert {"what-if-panel", "what-if-answer", "what-if-reset", "what-if-copy"} <= ids
    for knob in model["knobs"]:
        assert {f"knob-{knob['name']}", f"knob-{knob['name']}-slider"} <= ids
    labels = {attrs["for"] for attrs in page.named("label")}
    boxes = [a for a in page.named("input") if a["type"] == "number"]
    assert {box["id"] for box in boxes} == labels
    sliders = [a for a in page.named("input") if a["type"] == "range"]
    assert all(slider["aria-labelledby"] in ids for slider in sliders)
    answer = next(a for a in page.named("output"))
    assert answer["aria-live"] == "polite"
    assert "The panel needs JavaScript" in page.words


@pytest.mark.usefixtures("without_plotly")
def test_a_plan_whose_runs_were_bought_tells_of_its_regret(plan_document):
    said = "Regret: at most 3.2 % for all replicas, by 5 purchases of 20 s in all."
    document = {**plan_document, "regret": {"sentence": said}}
    assert said in Page(html.render_html(document)).words
    assert said not in Page(html.render_html(plan_document)).words


@pytest.mark.usefixtures("without_plotly")
def test_a_result_that_is_no_plan_has_no_panel(plan_document):
    fits = plan_document["convergence"]
    made = Page(html.render_html({"schema": 1, "command": "fit", "workloads": fits}))
    assert "what-if" not in {attrs.get("id") for _, attrs in made.tags}
    assert len(made.named("script")) == 5


def test_the_same_document_gives_the_same_page(plan_document):
    assert html.render_html(plan_document) == html.render_html(plan_document)


@pytest.mark.parametrize(
    "nasty",
    [
        "<!--<script>alert(1)</script>",
        "</script><img src=x onerror=alert(1)> \u2028",
        '" onmouseover="alert(1) &amp; </title></style>',
    ],
)
@pytest.mark.usefixtures("without_plotly")
def test_text_from_users_stays_text(page, shared_targets_document, nasty):
    honest = Counter(tag for tag, _ in page.tags)
    plan_document = copy.deepcopy(shared_targets_document)
    plan_document["workload"]["name"] = nasty
    plan_document["inputs"][nasty] = nasty
    plan_document["warnings"] = [nasty]
    plan_document["sentence"] = nasty
    for fit in plan_document["convergence"]:
        fit["workload"] = fit["example_unit"] = nasty
    fit = plan_document["convergence"][0]
    fit["target"] = fit["advice"] = fit["status"] = nasty
    plan_document["optimal"][0]["limited_by"] = nasty
    plan_document["runs"][0]["status"] = nasty
    spoilt = Page(html.render_html(plan_document))
    counts = Counter(tag for tag, _ in spoilt.tags)
    for tag in ("script", "style", "title", "img", "h1", "table"):
        assert counts[tag] == honest[tag]
    assert not any(name.startswith("on") for _, attrs in spoilt.tags for name in attrs)
    assert " ".join(nasty.split()) in spoilt.words
    assert spoilt.json("result-data")["warnings"] == [nasty]


@pytest.mark.usefixtures("without_plotly")
def test_a_nan_becomes_null_and_the_page_stays_json(plan_document):
    plan_document["optimal"][0]["speedup"] = float("nan")
    plan_document["seconds_to_target"][0]["curve"]["low"][0] = float("inf")
    page = Page(html.render_html(plan_document))
    assert page.json("result-data")["optimal"][0]["speedup"] is None


@pytest.mark.parametrize(
    "key",
    [
        "inputs",
        "workload",
        "optimal",
        "optimal_measured",
        "convergence",
        "step_time",
        "seconds_to_target",
        "scaling",
        "runs",
        "verification",
        "warnings",
        "sentence",
    ],
)
@pytest.mark.usefixtures("without_plotly")
def test_any_part_of_the_document_may_be_absent(plan_document, key):
    del plan_document[key]
    assert Page(html.render_html(plan_document)).open == []


@pytest.mark.usefixtures("without_plotly")
def test_every_part_of_the_document_may_be_null(plan_document):
    empty = dict.fromkeys(plan_document)
    page = Page(
        html.render_html({"optimal": [], **empty, "schema": 1, "command": "plan"})
    )
    assert page.open == []


@pytest.mark.usefixtures("without_plotly")
def test_a_document_with_nothing_in_it_is_still_a_page():
    page = Page(html.render_html({"schema": 1, "command": "plan", "runs": []}))
    assert "Result of rightbatch plan" in page.words


@pytest.mark.usefixtures("without_plotly")
def test_documents_at_the_edges_are_pages(bare_document, unidentifiable_document):
    bare = Page(html.render_html(bare_document)).words
    assert "121*" in bare
    assert "beyond the batch sizes that were run" in bare
    words = Page(html.render_html(unidentifiable_document)).words
    assert "≥ 96" in words
    assert "unidentifiable" in words


@pytest.mark.usefixtures("without_plotly")
def test_a_fit_a_timing_and_a_sweep_have_their_pages(plan_document):
    fits = plan_document["convergence"]
    fit = {"schema": 1, "command": "fit", "workloads": fits}
    assert "45 examples per step" in Page(html.render_html(fit)).words
    fit["workloads"] = [*fits, {**fits[0], "workload": "b", "status": "misfit"}]
    assert (
        "2 tables of runs fitted: 1 ok, 1 misfit" in Page(html.render_html(fit)).words
    )
    step_time = plan_document["step_time"]
    timing = {"schema": 1, "command": "time", "times": step_time["points"]}
    assert "A step takes" in Page(html.render_html(timing)).words
    timing["step_time"] = {**step_time, "points": None}
    assert "A step costs 212 µs" in Page(html.render_html(timing)).words
    sweep = {"schema": 1, "command": "sweep", "runs": plan_document["runs"]}
    assert "Every run, 33 rows" in Page(html.render_html(sweep)).words


@pytest.mark.usefixtures("without_plotly")
def test_many_lines_of_advice_are_folded(plan_document):
    fit = plan_document["convergence"][0]
    fits = [{**fit, "workload": f"table {k}", "target": None} for k in range(8)]
    page = Page(html.render_html({"schema": 1, "command": "fit", "workloads": fits}))
    assert "Advice, 8 lines" in page.words
    assert "table 7: The law describes these runs" in page.words
    alone = {"schema": 1, "command": "fit", "workloads": fits[:1]}
    assert "Advice, " not in Page(html.render_html(alone)).words


@pytest.mark.usefixtures("without_plotly")
def test_a_cluster_has_its_page():
    mixes = [
        {"amounts": {"replicas": count}, "money": money, "seconds": 90.0 / count}
        for count, money in ((1.0, 1.0), (2.0, 2.5), (4.0, 7.0))
    ]
    document = {"schema": 1, "command": "cluster", "best": mixes[1], "pareto": mixes}
    words = Page(html.render_html(document)).words
    assert "The best mix" in words
    assert "45 s" in words


@pytest.mark.usefixtures("without_plotly")
def test_batch_sizes_compared_and_definitions_have_their_tables(plan_document):
    one = {"num_replicas": 1, "batch_size": 64, "than": 121}
    plan_document["comparisons"] = [one]
    phi = {"name": "even_trade", "value": 45.0, "low": 40.0, "high": 52.0}
    plan_document["convergence"][0]["definitions"] = [phi]
    words = Page(html.render_html(plan_document)).words
    assert "Compared with the recommended batch size" in words
    assert "Critical batch sizes, by definition, 1 row" in words


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1, 2], "not a result of rightbatch"),
        ({"command": "plan"}, "no 'schema' in it"),
        ({"schema": 1}, "no 'command' in it"),
        ({"schema": 2, "command": "plan"}, "schema 2, this version"),
        ({"schema": 1, "command": "transfer"}, "no report of 'transfer'"),
        ({"schema": 1, "command": "fit"}, "nothing to show, no workloads"),
        (
            {"schema": 1, "command": "plan", "error": {"message": "plan: no runs."}},
            "no optimal or runs in the result of plan: plan: no runs.",
        ),
        ({"schema": 1, "command": "plan", "optimal": 7}, "not as rightbatch writes it"),
        ({"schema": 1, "command": "plan", "runs": ["x"], "warnings": 3}, "TypeError"),
    ],
)
def test_what_is_not_a_result_is_refused(document, message):
    with pytest.raises(InputError, match=message):
        html.render_html(document)


def test_a_report_is_written_whole_and_nothing_beside_it(plan_document, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("older")
    assert html.write_html(plan_document, path) == path
    assert path.read_text(encoding="utf-8") == html.render_html(plan_document)
    assert os.listdir(tmp_path) == ["report.html"]


def test_text_that_is_no_unicode_can_be_written(plan_document, tmp_path):
    plan_document["sentence"] = "half a pair \ud800 here"
    path = html.write_html(plan_document, tmp_path / "report.html")
    assert "half a pair" in path.read_text(encoding="utf-8")


def test_a_full_disk_keeps_the_older_report(plan_document, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("older")

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(RightbatchError, match="could not be written: No space left"):
        html.write_html(plan_document, path)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_device_is_written_to_and_never_replaced(plan_document):
    html.write_html(plan_document, "/dev/null")
    assert not os.path.isfile("/dev/null")
