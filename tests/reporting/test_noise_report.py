"""The report of a measured noise scale: tables, figures, words, and no torch."""

import copy
import json
import os
import re
import subprocess
import sys

import pytest

from rightbatch.errors import InputError
from rightbatch.reporting.figures import charts
from rightbatch.reporting.html import check_document, render_html
from rightbatch.reporting.noise_figures import (
    by_examples_chart,
    by_loss_chart,
    noise_charts,
    parts_chart,
)
from rightbatch.reporting.noise_tables import (
    calibration_sheet,
    noise_sheet,
    noise_sheets,
    noise_text,
    parts_sheet,
    quick_sheet,
    suggestions_sheet,
)
from rightbatch.reporting.sheet import as_text

LAYERS = ("conv.0", "conv.3", "head")


def row(step, loss, phi, *, resolved=True):
    scale = {"value": phi, "low": 0.7 * phi, "high": 1.6 * phi, "level": 0.95}
    if not resolved:
        scale |= {"high": None}
    shares = (0.5, 0.3, 0.2)
    return {
        "first_step": step // 2,
        "step": step,
        "examples": 64 * step,
        "loss": loss,
        "grad_sq_norm": 10 / phi,
        "grad_variance": 10.0,
        "simple_noise_scale": scale,
        "status": "resolved" if resolved else "at least",
        "lower_bound": 0.75 * phi,
        "diversity_batch_bound": 1 + phi if resolved else None,
        "suggested": {
            "noise_scale": {
                "value": phi if resolved else None,
                "definition": "tr(Sigma)/|G|^2",
                "source": "McCandlish et al. (2018)",
            },
            "cabs": {"value": 3.2, "definition": "lr tr(Sigma)/loss", "source": "CABS"},
        },
        "coverage": 1.0,
        "parts": {
            name: {
                "share_of_variance": share,
                "share_of_sq_norm": 1 - share,
                "grad_variance": 10 * share,
                "simple_noise_scale": scale,
                "lower_bound": 0.75 * phi,
                "status": "resolved" if resolved else "at least",
            }
            for name, share in zip(LAYERS, shares, strict=True)
        },
    }


def document_of(*rows, **more):
    return {
        "schema": 1,
        "command": "noise",
        "inputs": {"workload": "made <up>", "batch_size": 64},
        "workload": {"name": "made <up>"},
        "measurements": list(rows),
        "status": "reached",
        "run_average": {"value": 90.0, "low": 70.0, "high": 120.0, "level": 0.95},
        "warnings": ["a noise scale is not the critical batch size"],
        "sentence": "The noise scale is 40 images at initialisation.",
        **more,
    }


@pytest.fixture
def document():
    return document_of(
        row(0, 2.3, 40),
        row(20, 1.9, 55),
        row(40, 1.0, 80),
        row(80, 0.4, 150),
        row(160, 0.2, 400, resolved=False),
    )


CALIBRATION = {
    "critical_batch_size": {"value": 48, "low": 40, "high": 60, "level": 0.9},
    "noise_scale": {"value": 90, "low": 70, "high": 120, "level": 0.95},
    "factor": {"value": 0.53, "low": 0.4, "high": 0.7, "level": 0.9},
}


# Tables -------------------------------------------------------------------------------


def test_every_table_fits_80_columns(document):
    document["calibration"] = CALIBRATION
    sheets = noise_sheets(document)
    assert len(sheets) == 4
    for sheet in sheets:
        lines = as_text(sheet, width=80).splitlines()
        assert max(map(len, lines)) <= 80
        assert any("──" in line for line in lines), "printed as blocks"


def test_a_row_says_its_value_or_at_least(document):
    rows = noise_sheet(document["measurements"]).rows
    assert rows[0][-3:] == ("40", "28–64", "41")
    assert rows[-1][-3:] == ("≥ 300", "–", "–")


@pytest.mark.parametrize(
    ("status", "text"),
    [("unresolved", "unresolved"), ("too few steps", "too few steps")],
)
def test_what_is_not_known_is_said_in_words(status, text):
    assert noise_text({"status": status, "lower_bound": 0.0}) == text


def test_suggestions_stand_by_their_definition_and_source(document):
    sheet = suggestions_sheet(document["measurements"])
    assert [column.heading for column in sheet.columns][2:] == ["noise scale", "CABS"]
    assert sheet.rows[0][2:] == ("40", "3")
    assert sheet.rows[-1][2:] == ("–", "3")
    assert "none is the critical batch size" in sheet.caption
    assert any("McCandlish et al. (2018)" in note for note in sheet.notes)


def test_the_factor_is_called_calibrated():
    rows = calibration_sheet(CALIBRATION).rows
    assert [name for name, *_ in rows] == [
        "critical batch size, fitted to runs",
        "noise scale, averaged over the run",
        "calibrated factor",
    ]
    assert rows[-1][1:] == ("0.53", "0.4–0.7", "90 %")
    assert calibration_sheet(None).rows == ()


def test_the_noisiest_layer_comes_first_and_the_rest_is_counted(document):
    assert [one[0] for one in parts_sheet(document["measurements"]).rows] == [*LAYERS]
    parts = document["measurements"][-1]["parts"]
    many = {f"layer {i}": parts["head"] | {"grad_variance": i} for i in range(30)}
    sheet = parts_sheet([{"step": 9, "parts": many}])
    assert len(sheet.rows) == 12
    assert sheet.rows[0][0] == "layer 29"
    assert sheet.notes == ("and 18 more, with less noise",)


def test_a_quick_plan_shows_both_ends_of_its_band():
    entry = {
        "num_replicas": 1,
        "batch_size": 89,
        "batch_size_interval": {"low": 82, "high": 101},
        "micro_batch_size": 89,
        "accumulation_steps": 1,
        "speedup": 1.0,
        "limited_by": "balance",
    }
    plan = {
        "optimal": [entry],
        "noise_scale": {"phi": {"value": 60, "low": 51, "high": 76}, "label": "as is"},
        "band": {"low": {"optimal": [{"batch_size": 31}]}, "high": None},
    }
    sheet = quick_sheet(plan)
    assert sheet.rows[0][:5] == ("1", "89", "82–101", "31", "–")
    assert sheet.caption.endswith("phi 60 (51–76), as is")


# Figures ------------------------------------------------------------------------------


def test_the_figures_are_by_loss_by_examples_and_by_layers(document):
    names = [chart.name for chart in charts(document)]
    assert names == ["noise-by-loss", "noise-by-examples", "noise-parts"]


def test_plotly_accepts_every_chart_and_writes_it_as_we_do(document):
    document["calibration"] = CALIBRATION
    for chart in noise_charts(document):
        written = json.loads(chart.figure.to_json())
        del written["layout"]["template"]
        assert written == chart.drawing.to_dict()


def test_loss_falls_to_the_right_on_a_logarithmic_axis(document):
    layout = by_loss_chart(document, document["measurements"]).drawing.to_dict()[
        "layout"
    ]
    first, last = layout["xaxis"]["range"]
    assert layout["xaxis"]["type"] == layout["yaxis"]["type"] == "log"
    assert first > last


@pytest.mark.parametrize(
    ("phis", "way"),
    [
        ((90, 20, 100), "from 90 down to 20, then up to 100"),
        ((90, 70, 100), "from 90 to 100"),  # within the ends' intervals
        ((40, 80, 100), "from 40 to 100"),
    ],
)
def test_the_way_of_the_noise_scale_names_a_valley(phis, way):
    rows = [row(20 * i, 2 / i, phi) for i, phi in enumerate(phis, start=1)]
    assert by_loss_chart({}, rows).title.endswith(f"the noise scale goes {way}")


def test_initialisation_has_no_place_on_an_axis_of_examples(document):
    chart = by_examples_chart(document, document["measurements"])
    points = [t for t in chart.drawing.data if t.get("mode") == "markers"]
    assert min(x for trace in points for x in trace["x"]) == 64 * 20


def test_what_is_at_least_is_a_triangle_at_its_bound(document):
    chart = by_loss_chart(document, document["measurements"])
    (trace,) = [
        trace
        for trace in chart.drawing.data
        if trace.get("marker", {}).get("symbol") == "triangle-up"
    ]
    assert (trace["x"], trace["y"]) == ([0.2], [300.0])
    assert "Triangles: at least so much" in chart.caption
    resolved = by_loss_chart(document, document["measurements"][:-1])
    assert "Triangles" not in resolved.caption


def test_a_band_never_spans_a_window_that_is_not_resolved():
    rows = [
        row(20, 2.0, 50),
        row(40, 1.0, 60),
        row(80, 0.5, 70, resolved=False),
        row(160, 0.2, 80),
        row(320, 0.1, 90),
    ]
    chart = by_loss_chart({}, rows)
    bands = [trace for trace in chart.drawing.data if trace.get("fill") == "toself"]
    assert [sorted(set(band["x"])) for band in bands] == [[1.0, 2.0], [0.1, 0.2]]


def test_a_fitted_critical_batch_size_is_a_dashed_line(document):
    document["calibration"] = CALIBRATION
    chart = by_loss_chart(document, document["measurements"])
    dashed = [t for t in chart.drawing.data if t.get("line", {}).get("dash") == "dash"]
    assert [trace["y"] for trace in dashed] == [[48, 48]]
    assert "Dashed: the critical batch size fitted to runs" in chart.caption


def test_shares_of_both_moments_are_drawn_over_each_other(document):
    chart = parts_chart(document["measurements"])
    lines = [t for t in chart.drawing.data if t["mode"] == "lines+markers"]
    assert len(lines) == 2 * len(LAYERS)
    upper = [trace["y"][0] for trace in lines if "yaxis" not in trace]
    assert sum(upper) == pytest.approx(1)
    assert chart.title == "Layer conv.0 has 50 % of the noise at the end"


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows_make_no_figure(document, count):
    document["measurements"] = document["measurements"][:count]
    assert noise_charts(document) == []
    if count:
        assert "What it does not mean" in render_html(document)


def test_a_row_nothing_is_known_of_is_in_the_table_alone(document):
    nothing = copy.deepcopy(document["measurements"][0]) | {
        "status": "too few steps",
        "lower_bound": 0.0,
        "simple_noise_scale": {"value": None, "low": 0.0, "high": None},
    }
    document["measurements"].insert(1, nothing)
    chart = noise_charts(document)[0]
    assert len(chart.sheet.rows) == len(document["measurements"]) - 1
    assert "too few steps" in as_text(noise_sheet(document["measurements"]))


# The page -----------------------------------------------------------------------------


def test_the_page_says_what_it_does_not_mean(document):
    text = render_html(document)
    assert '<h2 id="what-it-does-not-mean-title">What it does not mean</h2>' in text
    assert "It is not the critical batch size" in text
    assert "<code>rightbatch noise --calibrate</code>" in text
    assert "made &lt;up&gt;" in text
    assert "made <up>" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_the_page_is_offline_and_always_the_same(document):
    text = render_html(document)
    assert text == render_html(copy.deepcopy(document))
    assert "default-src 'none'" in text


def test_a_document_without_rows_says_why(document):
    del document["measurements"]
    with pytest.raises(InputError, match="no measurements in the result of noise"):
        check_document(document)


def test_the_report_of_a_stored_noise_document_needs_no_torch(document, tmp_path):
    (tmp_path / "noise.json").write_text(json.dumps(document))
    code = (
        "import sys\nfrom rightbatch.cli import main\n"
        "try: main(['report', 'noise.json', '--quiet'])\n"
        "finally: assert 'torch' not in sys.modules, 'torch'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "noise-by-loss" in (tmp_path / "report.html").read_text("utf-8")
