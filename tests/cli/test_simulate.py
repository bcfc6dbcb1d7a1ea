"""The command ``simulate``: what it prints, writes and refuses."""

import csv
from importlib.util import find_spec

import pytest

from rightbatch.cli import simulate_paper, simulate_problem, simulate_results
from rightbatch.cli.simulate_tuning import quickest_backend, read_optimizers
from rightbatch.cli.spectrum_file import read_spectrum
from rightbatch.errors import TableError
from rightbatch.quadratic import Spectrum
from rightbatch.quadratic.paper import PaperSetting, reproduce_paper
from rightbatch.quadratic.recursions import powers
from rightbatch.quadratic.table import Tuning

CELL_KEYS = [
    "optimizer", "power", "batch_size", "steps", "lr", "momentum", "ema_decay",
    "max_likelihood_bound", "bayes_bound",
]  # fmt: skip
QUICK = ("--optimizer", "sgd", "--batch-sizes", 64)


def test_every_cell_has_its_stable_keys(rightbatch):
    ended = rightbatch(
        "simulate", "--optimizer", "sgd,ema", "--power", "0,.5", "--batch-sizes",
        "64:1024:x16", "--json",
    )  # fmt: skip
    assert ended.code == 0
    document = ended.document
    assert (document["schema"], document["command"]) == (1, "simulate")
    assert document["seconds"] > 0
    assert len(document["cells"]) == 8
    assert all(list(cell)[:9] == CELL_KEYS for cell in document["cells"])
    assert document["inputs"]["batch_sizes"] == [64, 1024]
    assert document["inputs"]["optimizer"] == ["sgd", "ema"]


def test_the_standard_problem_is_the_default(rightbatch):
    document = rightbatch("simulate", *QUICK, "--json").document
    (cell,) = document["cells"]
    # On the exact spectrum the Bayes bound is 495 016 examples.
    assert cell["bayes_bound"] == pytest.approx(495_016 / 64, rel=1e-4)
    assert cell["max_likelihood_bound"] == pytest.approx(7812.5)
    assert document["bins"]["num_dims"] == 10_000
    assert document["bins"]["error"] < 0.01
    # 95 633 on the published bins, which move steps by a few percent.
    assert cell["steps"] == pytest.approx(95_633, rel=0.03)


def test_the_published_grid_on_the_published_bins_is_reproduced(rightbatch):
    ended = rightbatch(
        "simulate", "--optimizer", "sgd", "--batch-sizes", "64,256,1024", "--bins",
        "notebook:100", "--search", "grid", "--json",
    )  # fmt: skip
    # First passage is one more than the last step above the target.
    published = [95_759, 25_880, 10_609]
    steps = [cell["steps"] for cell in ended.document["cells"]]
    # The published code has 1e-8 in a denominator, which moves some cells a little.
    assert steps == pytest.approx([n + 1 for n in published], rel=1e-4)
    assert ended.document["bins"]["rule"] == "notebook"


def test_for_a_person_the_tables_fit_80_columns(rightbatch, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ended = rightbatch(
        "simulate", "--optimizer", "sgd,ema", "--batch-sizes", "4:1048576:x16"
    )
    assert max(len(line) for line in ended.out.splitlines()) <= 80
    assert "sgd: steps to a loss of 0.01, preconditioner power 0" in ended.out
    assert "84 nodes stand for 10,000 directions" in ended.out
    assert "The inverse law fitted to these steps" in ended.out
    assert "10 cells in" in ended.err


def test_the_fitted_critical_batch_size_is_that_of_the_reference(rightbatch):
    ended = rightbatch(
        "simulate", "--optimizer", "sgd,ema", "--bins", "notebook:100", "--json"
    )
    phis = [fit["critical_batch_size"] for fit in ended.document["fits"]]
    assert phis == pytest.approx([821, 108], rel=0.05)


def test_two_batch_sizes_are_too_few_for_a_law(rightbatch):
    ended = rightbatch("simulate", *QUICK[:2], "--batch-sizes", "4,16", "--json")
    assert ended.document["fits"] == []


# Settings ---------------------------------------------------------------------------


def test_given_settings_are_followed_to_the_target(rightbatch):
    ended = rightbatch(
        "simulate", "--optimizer", "sgd,momentum", "--batch-sizes", 4096, "--lr",
        "1,.5", "--momentum", ".5", "--dims", 100, "--settling", "--json",
    )  # fmt: skip
    sgd, momentum = ended.document["cells"]
    assert (sgd["lr"], momentum["lr"], momentum["momentum"]) == (1, 1, 0.5)
    assert momentum["steps"] < sgd["steps"] <= sgd["settling_steps"]
    assert ended.document["fits"] == []


def test_a_learning_rate_beyond_the_edge_is_unreachable(rightbatch):
    ended = rightbatch("simulate", *QUICK, "--lr", 3, "--json")
    assert ended.code == 3
    (cell,) = ended.document["cells"]
    assert (cell["steps"], cell["lr"]) == (None, 3)
    assert cell["why"] == "lr 3 is not below the stability edge, 2"
    assert ended.document["error"]["exit_code"] == 3
    shown = rightbatch("simulate", *QUICK, "--lr", 3)
    assert shown.code == 3
    assert "unreachable" in shown.out
    assert "stability edge" in shown.last_line


def test_one_cell_that_reaches_the_target_is_enough_for_success(rightbatch):
    ended = rightbatch(
        "simulate",
        *QUICK[:2],
        "--batch-sizes",
        "4,4096",
        "--max-steps",
        10_000,
        "--json",
    )
    assert ended.code == 0
    assert [cell["steps"] is None for cell in ended.document["cells"]] == [True, False]
    assert "more than 10,000" in ended.document["cells"][0]["why"]


def test_a_schedule_needs_fewer_steps_and_growing_the_batch_fewer_still(rightbatch):
    words = ("simulate", *QUICK[:2], "--batch-sizes", 16, "--dims", 100, "--json")
    (constant,) = rightbatch(*words).document["cells"]
    ended = rightbatch(*words, "--schedule", "pieces:4", "--grow")
    (pieces,) = ended.document["cells"]
    assert pieces["growth"]["updates"] < pieces["steps"] < constant["steps"]
    assert sum(pieces["lengths"]) == pieces["steps"]
    assert pieces["schedule"] == "pieces:4"


def test_all_means_every_optimizer_once():
    assert len(read_optimizers("all")) == 8
    assert read_optimizers("tail_average, momentum+ema") == (
        "tail-average",
        "momentum+ema",
    )


def test_a_small_table_does_not_wait_for_numba():
    auto = Tuning()
    assert quickest_backend(auto, ["ema"], 10, 84) == "numpy"
    large = quickest_backend(auto, ["momentum+ema"], 40, 84)
    assert large == ("numba" if find_spec("numba") else "numpy")
    asked = Tuning(backend="numpy")
    assert quickest_backend(asked, ["momentum+ema"], 40, 84) == "numpy"


# Problems ---------------------------------------------------------------------------


def test_noise_and_start_and_spectrum_are_what_was_asked_for(rightbatch):
    words = (
        *("simulate", *QUICK, "--dims", 200, "--spectrum", "power:1.5", "--json"),
        *("--irreducible", 1, "--target", 1.05),
    )
    document = rightbatch(
        *words, "--noise", "mixed:curvature=1,isotropic=.1", "--initial", 2
    ).document
    trace = sum(i**-1.5 for i in range(1, 201))
    assert document["initial_loss"] == pytest.approx(1 + trace)
    mixed = document["cells"][0]["max_likelihood_bound"]
    inverse_trace = sum(i**1.5 for i in range(1, 201))
    exact = (200 + 0.1 * inverse_trace) / (2 * 0.05 * 64)
    assert mixed == pytest.approx(exact, rel=0.01)
    flat = rightbatch(*words, "--noise", "isotropic:.1", "--bins", "exact").document
    assert flat["cells"][0]["max_likelihood_bound"] == pytest.approx(
        0.1 * inverse_trace / (2 * 0.05 * 64)
    )
    assert flat["bins"] == {
        "rule": "exact", "num_dims": 200, "num_nodes": 200, "error": 0,
    }  # fmt: skip


def test_a_spectrum_is_read_from_a_file_as_a_spreadsheet_writes_it(
    rightbatch, tmp_path
):
    # Out of order, with a byte-order mark, blank lines and a column of no interest.
    text = "\ufeffweight,Curvature,noise,start,name\r\n6,.1,.2,2,c\r\n\r\n1,1,1,1,a\r\n"
    (tmp_path / "h.csv").write_text(text, encoding="utf-8")
    document = rightbatch("simulate", *QUICK, "--spectrum", "h.csv", "--json").document
    assert document["bins"]["num_dims"] == 7
    assert document["initial_loss"] == pytest.approx(0.5 * (1 + 6 * 0.1 * 2))
    likelihood = (1 / 1 + 6 * 0.2 / 0.1) / (2 * 0.01 * 64)
    assert document["cells"][0]["max_likelihood_bound"] == pytest.approx(likelihood)
    other = rightbatch(
        "simulate", *QUICK, "--spectrum", "h.csv", "--noise", "curvature", "--initial",
        1, "--json",
    )  # fmt: skip
    assert other.document["initial_loss"] == pytest.approx(0.5 * (1 + 6 * 0.1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("curvature\n", "has a header and no rows"),
        ("curvature\n1\nhigh\n", "row 3, column curvature must be a finite number"),
        ("h\n1\n-2\n", "row 3, column h must be positive, got -2.*no minimum"),
        ("eigenvalue\n0\n", "row 2, column eigenvalue must be positive.*leave"),
        ("curvature\nnan\n", "row 2, column curvature must be a finite"),
        ("curvature\ninf\n", "row 2, column curvature must be a finite"),
        ("curvature,weight\n1,0\n", "row 2, column weight must be positive"),
        ("curvature,noise\n1,-1\n", "column noise must not be negative"),
        ("curvature,noise\n1\n", "row 2 has 1 values for 2 columns"),
        ("curvatur\n1\n", "no column 'curvature'; it has curvatur.*did you mean"),
        ("curvature;weight\n1;2\n", "separate the columns with commas"),
        ("1\n.5\n", "has no header"),
        ("h,curvature\n1,1\n", "curvature stands twice, as h and curvature"),
    ],
)
def test_a_spectrum_file_that_cannot_be_used_names_row_and_column(
    tmp_path, text, message
):
    path = tmp_path / "h.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=message):
        read_spectrum(path)


def test_a_spectrum_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "h.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TableError, match="cannot be read"):
        read_spectrum(path)


# Files ------------------------------------------------------------------------------


def test_cells_are_written_as_csv_and_the_report_as_one_page(rightbatch, tmp_path):
    ended = rightbatch(
        "simulate", *QUICK[:2], "--batch-sizes", "4:4096:x4", "--max-steps", 100_000,
        "--csv", "cells.csv", "--report", "table.html",
    )  # fmt: skip
    assert ended.code == 0
    with (tmp_path / "cells.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == CELL_KEYS
    assert (rows[0]["steps"], rows[0]["momentum"]) == ("", "")
    assert float(rows[-1]["steps"]) > 1000
    page = (tmp_path / "table.html").read_text(encoding="utf-8")
    assert "figure-power-0" in page
    assert "report: table.html" in ended.err


def test_ctrl_c_keeps_the_cells_that_are_done(rightbatch, monkeypatch):
    def interrupted(*arguments: object, **options: object):
        groups = iter(list(table_cells(*arguments, **options))[:1])
        yield next(groups)
        raise KeyboardInterrupt

    table_cells = simulate_results.table_cells
    monkeypatch.setattr(simulate_results, "table_cells", interrupted)
    words = ("simulate", "--optimizer", "sgd,ema", "--batch-sizes", "64,256")
    ended = rightbatch(*words, "--json")
    assert ended.code == 130
    assert [cell["optimizer"] for cell in ended.document["cells"]] == ["sgd", "sgd"]
    assert ended.document["error"]["exit_code"] == 130
    shown = rightbatch(*words)
    assert shown.code == 130
    assert "2 of 4 cells are done" in shown.last_line
    assert "sgd: steps to" in shown.out


@pytest.mark.slow
def test_the_paper_is_a_report_and_verdicts(rightbatch, monkeypatch, tmp_path):
    def small_paper(**options: object):
        setting = PaperSetting(
            spectrum=Spectrum.inverse(30),
            powers=(0.0, 0.5),
            batch_sizes=(4.0, 16.0, 64.0, 256.0),
            targets=(0.1, 0.05),
            num_pieces=(2, 4),
            with_grids=False,
        )
        return reproduce_paper(setting=setting, **options)

    monkeypatch.setattr(simulate_paper, "reproduce_paper", small_paper)
    ended = rightbatch("simulate", "--paper", "--backend", "numpy", "--json")
    assert ended.code == 0
    assert [claim["number"] for claim in ended.document["claims"]] == list(range(1, 9))
    assert {"verdict", "claim"} <= set(ended.document["claims"][0])
    assert set(CELL_KEYS) <= set(ended.document["cells"][0])
    page = (tmp_path / ended.document["report"]).read_text(encoding="utf-8")
    assert "simulate --paper" in page


def test_ctrl_c_leaves_the_paper_unwritten(rightbatch, monkeypatch, tmp_path):
    def interrupted(**_: object):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate_paper, "reproduce_paper", interrupted)
    ended = rightbatch("simulate", "--paper")
    assert ended.code == 130
    assert "no report is written" in ended.last_line
    assert list(tmp_path.iterdir()) == []


# Refusals ---------------------------------------------------------------------------

BAD = {
    "--target 5": "--target: `target` must be below the loss at the start",
    "--target 0": "must be above the irreducible loss 0",
    "--irreducible 1 --target .5": "must be above the irreducible loss 1",
    "--irreducible nan": "--irreducible: must be a finite number",
    "--batch-sizes 0": "--batch-sizes: must be whole and >= 1, got 0",
    "--batch-sizes -4": "--batch-sizes: must be whole and >= 1, got -4",
    "--batch-sizes few": "'few' is not a number",
    "--power 1.5": "--power: must be between 0 and 1, got 1.5",
    "--optimizer sdg": "did you mean sgd",
    "--optimizer sgd,sgd": "--optimizer: sgd stands twice",
    "--search gird": "did you mean grid",
    "--schedule cosin": "did you mean cosine",
    "--backend cuda": "one of auto, numpy, numba",
    "--spectrum invers": "did you mean inverse",
    "--spectrum inverse:2": "inverse takes no number",
    "--spectrum power": "power needs its exponent",
    "--spectrum power:-1": "the exponent must be positive, got -1",
    "--spectrum power:steep": "'steep' is not a number",
    "--spectrum none.csv": "none.csv: cannot be read",
    "--bins centriod": "did you mean centroid",
    "--bins exact:3": "exact takes no number",
    "--bins centroid:few": "'few' is no number of bins",
    "--bins centroid:20000": "20000 bins are more than the 10000 curvatures",
    "--bins notebook --dims 50": "100 bins are more than the 50 curvatures",
    "--noise mixd": "did you mean mixed",
    "--noise mixed": "mixed needs both its parts",
    "--noise mixed:curvature=1,curvature=2": "curvature stands twice",
    "--noise mixed:isotropic=1,curved=2": "mixed has no 'curved'",
    "--noise isotropic:-1": "isotropic must not be negative",
    "--noise isotropic:x": "'x' is not a number",
    "--initial -1": "--initial: must not be negative",
    "--tail-fraction 2": "--tail-fraction: must be in (0, 1], got 2",
    "--lr 0": "--lr: must be positive, got 0",
    "--lr .1 --schedule cosine": "--lr: is for a constant learning rate",
    "--lr .1 --search grid": "--lr: leaves nothing to --search grid",
    "--settling --schedule cosine": "--settling: is for a constant learning rate",
    "--search grid --schedule cosine": "--search grid: is for a constant",
    "--grow": "--grow: needs a --schedule that decays",
    "--momentum .9": "--momentum: needs --lr",
    "--lr .1 --momentum .9": "--momentum: sgd has none",
    "--lr .1 --optimizer ema": "--ema-decay: is missing; ema",
    "--lr .1 --optimizer momentum --momentum 1": "--momentum: must be in [0, 1), got 1",
    "--lr .1 --optimizer ema --ema-decay -.1": "--ema-decay: must be in [0, 1)",
    "--optimizer tail-average --schedule pieces:4": "cannot serve tail-average",
    "--optimizer tail-average --search grid": "there is none for tail-average",
    "--csv none/cells.csv": "--csv: there is no folder none",
    "--report none/table.html": "--report: there is no folder none",
    "--paper --power 0": "has no use beside --paper",
}


@pytest.mark.parametrize(("words", "message"), BAD.items(), ids=BAD)
def test_bad_input_ends_with_one_clear_line(rightbatch, words, message):
    given = words.split()
    usual = [] if "--optimizer" in given else list(QUICK[:2])
    if "--batch-sizes" not in given and "--paper" not in given:
        usual += QUICK[2:]
    ended = rightbatch("simulate", *usual, *given)
    assert ended.code == 2
    assert message in ended.last_line
    assert "Traceback" not in ended.err


def test_directions_beside_a_file_are_refused(rightbatch, tmp_path):
    (tmp_path / "h.csv").write_text("curvature\n1\n")
    ended = rightbatch("simulate", *QUICK, "--spectrum", "h.csv", "--dims", 3)
    assert (ended.code, "--dims: has no use" in ended.last_line) == (2, True)


def test_numba_that_is_not_installed_is_asked_for_in_vain(rightbatch, monkeypatch):
    powers.compiled.cache_clear()
    monkeypatch.setattr(powers.util, "find_spec", lambda name: None)
    ended = rightbatch("simulate", *QUICK, "--backend", "numba")
    powers.compiled.cache_clear()
    assert ended.code == 2
    assert "rightbatch[fast]" in ended.last_line


def test_a_report_is_made_again_from_a_table_of_cells(rightbatch, tmp_path):
    result = tmp_path / "cells.json"
    result.write_text(rightbatch("simulate", *QUICK, "--json").out, encoding="utf-8")
    page = tmp_path / "again.html"
    ended = rightbatch("report", result, "-o", page)
    assert ended.code == 0
    assert "95,837" in page.read_text(encoding="utf-8")


def test_a_result_without_cells_has_no_report(rightbatch, tmp_path):
    result = tmp_path / "none.json"
    result.write_text('{"schema": 1, "command": "simulate"}', encoding="utf-8")
    ended = rightbatch("report", result)
    assert ended.code == 2
    assert "no table of cells" in ended.err.splitlines()[-1]


# What was once accepted, or said wrongly ---------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--dims 10000000000", "--dims: must be at most 10000000, got 10000000000"),
        ("--schedule pieces:1001", "--schedule: takes at most 1000 pieces, got 1001"),
        ("--tail-fraction .5", "--tail-fraction: sgd has none"),
        ("--csv h.csv", "--csv: h.csv is the file of --spectrum too"),
        ("--csv link.csv", "--csv: link.csv is the file of --spectrum too"),
        ("--csv a --report ./a", "--report: a is the file of --csv too"),
        ("--bins centroid:2", "2 bins are more than the 1 curvature."),
    ],
)
def test_what_cannot_be_meant_is_refused(rightbatch, tmp_path, words, message):
    table = tmp_path / "h.csv"
    table.write_text("curvature\n1\n")
    (tmp_path / "link.csv").symlink_to(table)
    given = words.split()
    shape = () if "--dims" in given else ("--spectrum", "h.csv")
    ended = rightbatch("simulate", *QUICK, *shape, *given)
    assert ended.code == 2
    assert message in ended.last_line
    assert table.read_text() == "curvature\n1\n"


def test_the_tail_that_is_usual_is_told(rightbatch):
    ended = rightbatch(
        "simulate", "--optimizer", "tail-average", "--batch-sizes", 64, "--json"
    )
    assert ended.document["inputs"]["tail_fraction"] == 0.5


@pytest.mark.parametrize(
    ("header", "meant"), [("wieght", "weight"), ("nosie", "noise"), ("strat", "start")]
)
def test_a_misspelt_column_is_refused(tmp_path, header, meant):
    path = tmp_path / "h.csv"
    path.write_text(f"curvature,{header}\n1,2\n")
    with pytest.raises(TableError, match=f"{header!r}.*did you mean {meant}"):
        read_spectrum(path)


def test_columns_that_are_not_read_are_told(rightbatch, tmp_path):
    (tmp_path / "h.csv").write_text("layer,curvature,,curvature_std\na,1,0,.1\n")
    ended = rightbatch("simulate", *QUICK, "--spectrum", "h.csv")
    assert ended.code == 0
    told = "h.csv: not read: layer, a column without a name, curvature_std"
    assert told in ended.err
    assert "1 cell in" in ended.err


@pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
def test_following_momentum_past_the_target_is_worth_loading_numba():
    settling = Tuning(settling=True)
    assert quickest_backend(settling, ["momentum"], 1, 84) == "numba"
    assert quickest_backend(settling, ["sgd"], 1, 84) == "numpy"


@pytest.mark.parametrize("installed", [True, False])
def test_numba_is_offered_where_it_is_missing(rightbatch, monkeypatch, installed):
    monkeypatch.setattr(simulate_results, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(
        simulate_results, "find_spec", lambda _: object() if installed else None
    )
    ended = rightbatch("simulate", *QUICK, "--backend", "numpy")
    assert ("pip install" in ended.err) is not installed


@pytest.mark.parametrize("place", ["table_cells", "bin_by"])
def test_ctrl_c_before_the_first_cell_keeps_nothing(
    rightbatch, monkeypatch, tmp_path, place
):
    def interrupted(*_: object, **__: object):
        raise KeyboardInterrupt

    module = simulate_results if place == "table_cells" else simulate_problem
    monkeypatch.setattr(module, place, interrupted)
    ended = rightbatch("simulate", *QUICK, "--csv", "cells.csv")
    assert ended.code == 130
    assert "interrupted; nothing is written" in ended.last_line
    assert not (tmp_path / "cells.csv").exists()


def test_a_tail_fraction_that_a_schedule_would_not_take_is_refused(rightbatch):
    ended = rightbatch(
        "simulate", "--optimizer", "tail-average", "--schedule", "cosine",
        "--tail-fraction", ".3", "--batch-sizes", 64,
    )  # fmt: skip
    assert ended.code == 2
    assert "--tail-fraction: is a half" in ended.err.splitlines()[-1]
