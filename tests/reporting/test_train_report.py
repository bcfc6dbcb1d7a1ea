"""The report of training and of replays: tables, figures, words, and no torch."""

import copy
import json
import os
import subprocess
import sys

import pytest
from reporting.example_training import (
    comparison_of,
    document_of,
    grown,
    replayed,
    spread,
    trained,
    training,
)

from rightbatch.errors import InputError
from rightbatch.reporting.figures import charts
from rightbatch.reporting.html import check_document, render_html
from rightbatch.reporting.replay_figures import replay_charts
from rightbatch.reporting.replay_tables import replay_sheets
from rightbatch.reporting.sheet import as_text
from rightbatch.reporting.style import color
from rightbatch.reporting.train_figures import train_charts
from rightbatch.reporting.train_tables import (
    course_sheet,
    payoff_sheet,
    spread_text,
    train_sheets,
    trained_sheet,
)

NAMES = [
    "train-loss-seconds-1",
    "train-loss-seconds-8",
    "train-loss-examples",
    "train-loss-steps",
    "train-batch-examples",
    "train-batch-steps",
]


# Tables -------------------------------------------------------------------------------


def several():
    """Return a document of three seeds of a policy with a long name."""
    name = "geodamp:delay=5,factor=2"
    runs = [trained(name, grown, seed=seed) for seed in range(3)]
    runs += [trained("constant", lambda _: 16, seed=s, baseline=True) for s in range(3)]
    return document_of(*runs, comparison=[comparison_of(name, (1.2, 0.4), seeds=3)])


@pytest.mark.parametrize(
    "document", [training(), several(), replayed()], ids=["train", "seeds", "replay"]
)
def test_every_table_fits_80_columns(document):
    sheets = train_sheets(document) + replay_sheets(document)
    assert sheets
    for sheet in sheets:
        lines = as_text(sheet, width=80).splitlines()
        head = [line for line in lines if "──" in line]
        assert head, f"{sheet.caption}: printed as blocks"
        table = lines[: lines.index(head[0]) + 1 + len(sheet.rows)]
        assert max(map(len, table)) <= 80


def test_runs_show_their_measured_and_their_priced_time():
    (row, other) = trained_sheet(training()["trained"]).rows
    assert row[:4] == ("adadamp", "0", "493", "24,192")
    assert other[0] == "constant"
    assert len(row) == 9
    assert trained_sheet([]).rows == ()


def test_a_run_that_broke_off_is_marked():
    lost = trained("adadamp", grown, status="diverged")
    cut = trained("geodamp", grown, status="interrupted")
    rows = trained_sheet([lost, cut]).rows
    assert rows[0][4] == "diverged"
    assert rows[1][4].endswith(" *")


def test_money_is_shown_where_a_price_was_given():
    document = training()
    for run in document["trained"]:
        for priced in run["prices"]:
            priced["cost"] = 1.5
    sheet = trained_sheet(document["trained"])
    assert sheet.columns[-1].heading == "cost at P = 8"
    assert sheet.rows[0][-1] == "1.5"


def test_a_comparison_says_per_number_of_replicas_whether_it_pays():
    sheet = payoff_sheet([comparison_of("adadamp", (1.2, 0.4))])
    assert sheet.rows[0][-2:] == ("no", "yes")
    assert sheet.rows[0][5:7] == ("1.2×", "0.4×")
    assert "as multiples of what constant took" in sheet.notes[0]


def test_a_comparison_of_seeds_shows_their_range():
    sheet = payoff_sheet([comparison_of("adadamp", (1.2, 0.4), seeds=3)])
    assert sheet.columns[8].heading == "range at P = 8"
    assert sheet.rows[0][8] == "0.36–0.44"
    assert any("3 seeds" in note for note in sheet.notes)


def test_a_target_missed_is_no_gain():
    one = comparison_of("adadamp", (0.5, 0.4))
    for priced in one["seconds"]:
        priced["pays"] = "not_reached"
    sheet = payoff_sheet([one])
    assert sheet.rows[0][-2:] == ("missed", "missed")
    assert any(note.startswith("missed: the target") for note in sheet.notes)


def test_what_cannot_be_compared_is_a_dash():
    one = comparison_of("adadamp", (1.2, 0.4))
    one |= {"loss": None, "steps": None, "examples": None, "seconds": [], "taken": None}
    assert payoff_sheet([one]).rows[0][1:5] == ("–", "–", "–", "–")
    assert spread_text(None) == "–"
    assert spread_text(spread(2.0)) == "2×"


def test_a_moment_without_noise_scale_has_a_dash():
    sheet = course_sheet([{"examples": 8, "step": 1, "batch_size": 8, "lr": 0.1}], "x")
    assert sheet.rows[0][3:7] == ("–", "0.1", "–", "–")


def test_a_replay_shows_the_recorded_run_first_and_says_that_its_loop_is_open():
    totals, moments = replay_sheets(replayed())
    assert totals.rows[0][0] == "recorded"
    assert totals.rows[1][0] == "geodamp:delay=5,factor=2"
    assert "Open loop" in totals.notes[0]
    assert len(moments.rows[0]) == 6


# Figures ------------------------------------------------------------------------------


def test_each_quantity_is_drawn_against_examples_and_against_updates():
    made = charts(training())
    assert [chart.name for chart in made] == NAMES
    for chart in made:
        assert chart.figure.data  # plotly checks every setting
        assert chart.title
        if chart.name != "train-batch-steps":
            assert chart.sheet.rows


def test_the_baseline_is_grey_and_policies_are_not():
    by_name = {chart.name: chart for chart in train_charts(training())}
    lines = [
        one
        for one in by_name["train-loss-steps"].drawing.data
        if one["mode"] == "lines"
    ]
    assert [one["line"]["color"] for one in lines] == [color("first"), color("muted")]
    assert max(lines[1]["x"]) == 1500


def test_batches_are_drawn_as_stairs():
    by_name = {chart.name: chart for chart in train_charts(training())}
    line = by_name["train-batch-steps"].drawing.data[0]
    assert line["x"][:4] == [0.0, 1, 1, 2]
    assert line["y"][:4] == [16, 16, 16, 16]
    assert "16 to 512" in by_name["train-batch-steps"].title


def test_the_priced_figure_tells_the_ratio_of_its_replicas():
    one, eight = train_charts(training())[:2]
    assert one.title.endswith("adadamp 1.2×")
    assert eight.title.endswith("adadamp 0.4×")
    assert any(trace.get("line", {}).get("dash") == "dot" for trace in one.drawing.data)


def test_more_policies_than_colours_share_a_ramp():
    runs = [trained(f"policy-{k}", grown) for k in range(5)]
    runs.append(trained("constant", lambda _: 16, baseline=True))
    runs.append(trained("constant", lambda _: 16, baseline=True, seed=1))
    chart = train_charts(document_of(*runs))[2]
    shades = [t["line"]["color"] for t in chart.drawing.data if t["mode"] == "lines"]
    assert len(set(shades)) == 6
    assert shades[5] == shades[6] == color("muted")


def test_policies_past_the_colours_are_dashed():
    chart = train_charts(document_of(*(trained(f"p{k}", grown) for k in range(8))))[2]
    lines = [t["line"] for t in chart.drawing.data if t["mode"] == "lines"]
    looks = {(line["color"], line.get("dash")) for line in lines}
    assert len(looks) == 8


def test_names_of_curves_that_end_apart_stay_at_their_ends():
    runs = [trained("adadamp", grown), trained("constant", lambda _: 16)]
    by_name = {chart.name: chart for chart in train_charts(document_of(*runs))}
    data = by_name["train-loss-steps"].drawing.data
    lines = [one for one in data if one["mode"] == "lines"]
    names = {one["text"][0].strip(): one for one in data if one["mode"] == "text"}
    for line, name in zip(lines, ("adadamp", "constant"), strict=True):
        assert names[name]["x"][0] == line["x"][-1]
        assert names[name]["y"][0] == pytest.approx(line["y"][-1])


def test_a_title_names_the_best_of_many_or_says_that_there_is_none():
    names = ("adadamp", "geodamp", "planned")
    runs = [trained(name, grown) for name in names]
    some = [
        comparison_of(n, (1.2, r)) for n, r in zip(names, (0.6, 0.3, 1), strict=True)
    ]
    one, eight = train_charts(document_of(*runs, comparison=some))[:2]
    assert one.title.startswith("On 1 replica no policy is sooner")
    assert eight.title.startswith("On 8 replicas geodamp gains most: 0.3×")


def test_runs_without_prices_have_no_priced_figures():
    document = training(comparison=[])
    for run in document["trained"]:
        run["prices"] = []
    assert [chart.name for chart in charts(document)] == NAMES[2:]


def test_a_run_that_was_lost_is_left_out_of_what_cannot_be_drawn():
    lost = trained("adadamp", grown, status="diverged")
    lost["loss"] = None
    lost["evaluations"][-1]["loss"] = None
    document = document_of(lost, trained("constant", lambda _: 16, baseline=True))
    made = {chart.name: chart for chart in charts(document)}
    assert made["train-loss-steps"].title.startswith(
        "The lowest final loss is constant"
    )
    for run in document["trained"]:
        run["evaluations"] = []
    assert charts(document) == []


def test_a_replay_is_drawn_beside_the_recorded_batches():
    (chart,) = charts(replayed())
    assert chart.figure.data
    assert "noise-following 100" in chart.title
    assert "The noise scale" not in chart.caption
    assert "Dashed" in chart.caption
    assert replay_charts({"replays": [{}], "recorded": {}}) == []


# The page -----------------------------------------------------------------------------


@pytest.mark.parametrize("document", [training(), replayed()], ids=["train", "replay"])
def test_the_page_is_one_offline_file_that_answers_first(document):
    page = render_html(document)
    assert page == render_html(copy.deepcopy(document))
    first = document["sentence"].partition(". ")[0]
    assert f"<h1>{first}" in page
    for outside in ('src="http', "<link", "@import", "fetch("):
        assert outside not in page.split("plotly.js")[0]
    assert "made <up>" not in page


def test_the_page_says_what_the_comparison_rests_on():
    page = render_html(training())
    assert "How they are compared" in page
    assert "the law of step times" in page
    assert "1 replica and 8 replicas" in page


def test_a_document_without_runs_is_refused():
    with pytest.raises(InputError, match="no trained in the result of train"):
        check_document({"schema": 1, "command": "train"})
    with pytest.raises(InputError, match="no replays in the result of replay"):
        check_document({"schema": 1, "command": "replay"})


def test_the_report_command_draws_training_without_torch(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(training()))
    code = (
        "import sys\nfrom rightbatch.cli import main\n"
        "try:\n    main(['report', 'train.json', '-o', 'r.html', '--quiet'])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True
    )
    assert "<html" in (tmp_path / "r.html").read_text(encoding="utf-8")
