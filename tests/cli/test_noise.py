"""``noise``: its document, its table, its files, and what it refuses."""

import csv
import json
import math

import pytest
from tiny_workload import LRS, make

from rightbatch.cli.calibration import calibrated_factor, read_fitted
from rightbatch.cli.noise import middle_lr
from rightbatch.errors import InputError
from rightbatch.experiments.identity import identify
from rightbatch.experiments.run import run_to_target
from rightbatch.experiments.store import RunStore
from rightbatch.fitting import Interval

TINY = "tiny_workload:tiny"
QUICK = ("--max-steps", 40, "--target", "none", "--batch-size", 32)
ROW_KEYS = {
    "step",
    "examples",
    "loss",
    "grad_sq_norm",
    "grad_variance",
    "simple_noise_scale",
    "diversity_batch_bound",
    "suggested",
    "status",
    "lower_bound",
    "coverage",
    "parts",
}


@pytest.fixture
def workload_file(tmp_path):
    """Return a function that writes a workload with a loss of its own."""

    def write(body):
        path = tmp_path / "own.py"
        path.write_text(
            "import torch\nfrom tiny_workload import cross_entropy, make\n"
            f"def loss(model, batch):\n    {body}\n"
            "def own():\n    return make(name='own', loss=loss)\n"
        )
        return f"{path}:own"

    return write


def interval_of(value, low, high, level=0.9):
    return Interval(value=value, low=low, high=high, level=level)


# What it prints -----------------------------------------------------------------------


def test_the_document_has_the_stable_keys(rightbatch):
    ended = rightbatch("noise", TINY, *QUICK, "--json")
    assert ended.code == 0
    document = ended.document
    assert (document["schema"], document["command"]) == (1, "noise")
    assert document["status"] == "finished"
    assert [row["step"] for row in document["measurements"]] == [0, 20, 40]
    for row in document["measurements"]:
        assert row.keys() >= ROW_KEYS
        assert row["simple_noise_scale"].keys() >= {"value", "low", "high", "level"}
        assert row["simple_noise_scale"]["level"] == 0.95
        for one in row["suggested"].values():
            assert one.keys() == {"value", "definition", "source"}
        for part in row["parts"].values():
            assert part.keys() >= {"share_of_variance", "share_of_sq_norm", "status"}
    assert document["run_average"]["definition"].endswith("weighted by their steps")
    assert document["workload"]["name"] == "tiny"
    assert document["inputs"]["unit_sizes"] == [4] * 8
    assert document["inputs"]["lr"] == LRS[2]
    assert document["coverage"] == 1
    assert document["calibration"] is None
    assert "not the critical batch size" in document["warnings"][0]


def test_a_person_reads_rows_definitions_layers_and_a_sentence(rightbatch):
    ended = rightbatch("noise", TINY, *QUICK)
    assert ended.code == 0
    assert "Gradient noise along training" in ended.out
    assert "McCandlish et al. (2018)" in " ".join(ended.out.split())
    assert "Layers, in the window that ends at update 40" in ended.out
    assert "The noise scale is" in ended.out
    assert "nan" not in ended.out


def test_the_same_seed_measures_the_same(rightbatch):
    one, again, other = (
        rightbatch("noise", TINY, *QUICK, "--json", "--seed", seed).document
        for seed in (0, 0, 1)
    )
    assert one["measurements"] == again["measurements"] != other["measurements"]


def test_options_reach_the_measurement(rightbatch):
    document = rightbatch(
        "noise", TINY, "--batch-size", 20, "--lr", 0.02, "--max-steps", 90,
        "--rows", 3, "--micro-batch-size", 8, "--every", 2, "--target", "none",
        "--json",
    ).document  # fmt: skip
    assert document["inputs"]["unit_sizes"] == [8, 8, 4]
    assert document["inputs"]["lr"] == 0.02
    rows = document["measurements"]
    assert [row["step"] for row in rows] == [0, 20, 42, 90]
    assert [row["measured_steps"] for row in rows[1:]] == [10, 11, 24]


def test_single_examples_are_read_on_request(rightbatch):
    document = rightbatch(
        "noise", TINY, *QUICK, "--source", "examples", "--json"
    ).document
    assert document["inputs"]["source"] == "examples"
    assert document["measurements"][1]["status"] in ("resolved", "at least")


def test_a_run_stops_at_the_target(rightbatch):
    document = rightbatch("noise", TINY, "--target", 0.45, "--json").document
    assert document["status"] == "reached"
    assert document["inputs"]["target"] == 0.45


def test_rows_are_written_to_a_csv_and_a_report(rightbatch, tmp_path):
    words = ("--csv", "noise.csv", "--report", "noise.html")
    ended = rightbatch("noise", TINY, *QUICK, *words, "--json")
    with (tmp_path / "noise.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["step"] for row in rows] == ["0", "20", "40"]
    first = ended.document["measurements"][0]
    assert float(rows[0]["noise_scale"]) == first["simple_noise_scale"]["value"]
    assert float(rows[0]["suggested_cabs"]) == first["suggested"]["cabs"]["value"]
    assert "What it does not mean" in (tmp_path / "noise.html").read_text("utf-8")


def test_no_report_is_written_unless_asked_for(rightbatch, tmp_path):
    rightbatch("noise", TINY, *QUICK)
    assert list(tmp_path.iterdir()) == []


def test_the_middle_rate_is_the_upper_of_two():
    assert middle_lr(make(lrs=(1.0, 0.1, 0.5))) == 0.5
    assert middle_lr(make(lrs=(0.1, 0.2))) == 0.2


def test_a_window_that_is_not_resolved_says_at_least_and_what_to_do(rightbatch):
    ended = rightbatch(
        "noise", TINY, "--batch-size", 8, "--target", "none", "--max-steps", 640
    )
    said = " ".join(ended.out.split())
    assert "≥" in ended.out
    assert "is not resolved in the windows" in said
    assert "a larger --batch-size narrows it" in said


# Runs that break off ------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_with_3_and_keeps_its_rows(
    rightbatch, workload_file, tmp_path
):
    spec = workload_file(
        "loss.calls = getattr(loss, 'calls', 0) + 1\n"
        "    return cross_entropy(model, batch) * (1 if loss.calls < 420 else "
        "float('nan'))"
    )
    words = ("--target", "none", "--csv", "rows.csv", "--json")
    ended = rightbatch("noise", spec, *words)
    assert ended.code == 3
    assert "own: the loss is lost after" in ended.last_line
    assert "try a smaller --lr" in ended.last_line
    document = ended.document
    assert document["status"] == "diverged"
    assert document["error"]["exit_code"] == 3
    assert document["measurements"][1]["step"] == 20
    assert len((tmp_path / "rows.csv").read_text().splitlines()) > 2


def test_an_untrained_loss_that_is_not_finite_ends_with_3(rightbatch, workload_file):
    spec = workload_file("return cross_entropy(model, batch) * float('inf')")
    ended = rightbatch("noise", spec)
    assert ended.code == 3
    assert "the untrained loss is not finite" in ended.last_line


def test_a_rate_that_is_too_large_ends_with_3(rightbatch, workload_file):
    spec = workload_file("return (model(batch[0])[:, 0] - batch[1]).square()")
    ended = rightbatch("noise", spec, "--lr", 3, "--target", "none")
    assert ended.code == 3
    assert "at lr 3" in ended.last_line
    assert "Gradient noise along training" in ended.out


@pytest.mark.parametrize("is_json", [False, True])
def test_ctrl_c_keeps_what_was_measured(rightbatch, workload_file, is_json):
    spec = workload_file(
        "loss.calls = getattr(loss, 'calls', 0) + 1\n"
        "    if loss.calls == 480: raise KeyboardInterrupt\n"
        "    return cross_entropy(model, batch)"
    )
    words = ("--target", "none", *(["--json"] if is_json else []))
    ended = rightbatch("noise", spec, *words)
    assert ended.code == 130
    assert "what was measured until then is kept" in ended.last_line
    if is_json:
        assert ended.document["status"] == "interrupted"
        assert [row["step"] for row in ended.document["measurements"]][:2] == [0, 20]
    else:
        assert "Gradient noise along training" in ended.out


# Calibration --------------------------------------------------------------------------


def test_the_factor_s_interval_has_both_in_it():
    fitted, noise = interval_of(50, 40, 62.5), interval_of(100, 80, 125)
    factor = calibrated_factor(fitted, noise)
    wide = math.exp(math.hypot(math.log(1.25), math.log(1.25)))
    assert factor.value == pytest.approx(0.5)
    assert (factor.low, factor.high) == pytest.approx((0.5 / wide, 0.5 * wide))
    # A 95 % interval is narrower at 90 %.
    narrower = calibrated_factor(fitted, interval_of(100, 80, 125, 0.95))
    assert factor.low < narrower.low < narrower.high < factor.high


def test_an_open_side_leaves_the_factor_open_on_the_other():
    fitted = interval_of(50, 40, 62.5)
    factor = calibrated_factor(fitted, interval_of(100, 80, None))
    assert factor.low is None
    assert factor.high is not None
    factor = calibrated_factor(interval_of(50, None, 60), interval_of(100, 80, 120))
    assert factor.low is None


def test_a_factor_needs_two_values():
    with pytest.raises(InputError, match="both must have a value above zero"):
        calibrated_factor(interval_of(None, 1, 2), interval_of(1, 1, 1))
    with pytest.raises(InputError, match="level"):
        calibrated_factor(interval_of(1, 1, 1), interval_of(1, 1, 1), 90)


def fit_document(workload="tiny", command="fit", **phi):
    known = {"value": 12.0, "low": 9.0, "high": 16.0, "level": 0.9} | phi
    entry = {"workload": workload, "target": 0.4, "status": "ok"}
    entry["critical_batch_size"] = known
    key = {"fit": "workloads", "plan": "convergence"}.get(command, "times")
    return {"schema": 1, "command": command, key: [entry]}


@pytest.mark.parametrize("command", ["fit", "plan"])
def test_a_result_calibrates_the_noise_scale(rightbatch, tmp_path, command):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(fit_document(command=command)))
    words = ("--calibrate", path, "--lr", 0.5)
    document = rightbatch("noise", TINY, *words, "--json").document
    found = document["calibration"]
    assert found["critical_batch_size"]["value"] == 12
    assert found["noise_scale"] == document["run_average"]
    ratio = 12 / found["noise_scale"]["value"]
    assert found["factor"]["value"] == pytest.approx(ratio)
    assert found["factor"]["definition"].startswith("calibrated factor")
    said = rightbatch("noise", TINY, *words).out
    assert "calibrated factor" in said
    assert "critical batch size, fitted to runs" in said


def test_a_store_of_runs_calibrates_it_too(rightbatch, tmp_path):
    workload, path = make(), tmp_path / "runs.sqlite"
    with RunStore(path, identify(workload)) as store:
        for batch_size in (4, 16, 64):
            for seed in range(2):
                store.add_run(
                    run_to_target(
                        workload,
                        batch_size=batch_size,
                        lr=0.5,
                        seed=seed,
                        max_steps=900,
                    )
                )
    fitted = read_fitted(path, "tiny")
    assert fitted.target == 0.4
    assert fitted.interval.value > 0
    ended = rightbatch("noise", TINY, "--calibrate", path, "--json")
    assert ended.code == 0
    assert ended.document["calibration"]["target"] == 0.4


def test_a_run_short_of_the_target_is_no_full_calibration(rightbatch, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(fit_document()))
    ended = rightbatch("noise", TINY, *QUICK, "--calibrate", path, "--json")
    assert any("ended before the target" in text for text in ended.document["warnings"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(fit_document("other")), "is of other, not of tiny"),
        (json.dumps(fit_document(command="time")), "a result of time, which fits no"),
        (json.dumps(fit_document(value=None)), "has no critical batch size"),
        (json.dumps({"command": "fit", "workloads": []}), "holds no fitted law"),
        ("batch_size,steps", "neither JSON nor a store"),
        ("[1]", "no result of rightbatch"),
    ],
)
def test_what_calibrates_nothing_is_refused(rightbatch, tmp_path, content, said):
    path = tmp_path / "result.json"
    path.write_text(content)
    ended = rightbatch("noise", TINY, "--calibrate", path)
    assert ended.code == 2
    assert said in ended.last_line


# Bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digit-mlp"], "did you mean digits-mlp"),
        ([TINY, "--batch-size", 257], "--batch-size: 257 is above the 256 examples"),
        ([TINY, "--batch-size", 1], "one example alone tells no noise"),
        ([TINY, "--micro-batch-size", 64], "must be below the batch size 64, got 64"),
        (
            [TINY, "--micro-batch-size", 4, "--source", "examples"],
            "single examples are read from whole batches",
        ),
        ([TINY, "--source", "replicas"], "one of units, examples"),
        ([TINY, "--lr", 0], "`lr` must be positive, got 0.0"),
        ([TINY, "--lr=-1"], "`lr` must be positive, got -1.0"),
        ([TINY, "--lr", "nan"], "`lr` must be positive, got nan"),
        ([TINY, "--target", "low"], "--target"),
        ([TINY, "--target", "0.3,0.2"], "--target: one at a time, got 2"),
        ([TINY, "--target", "100"], "met before the first update"),
        ([TINY, "--max-steps", 0], "--max-steps"),
        ([TINY, "--rows", 0], "--rows"),
        ([TINY, "--every", 0], "--every"),
        ([TINY, "--device", "tpu"], "--device"),
        ([TINY, "--calibrate", "missing.json"], "missing.json cannot be read"),
        ([TINY, "--csv", "missing/rows.csv"], "there is no folder missing"),
        ([TINY, "--report", "."], "is a folder"),
    ],
)
def test_bad_input_ends_with_2_and_says_the_way_out(rightbatch, words, said):
    ended = rightbatch("noise", *words)
    assert ended.code == 2
    assert said in ended.last_line


def test_a_loss_over_the_batch_is_refused_by_name(rightbatch, workload_file):
    spec = workload_file(
        "scores = torch.nn.functional.normalize(model(batch[0]))\n"
        "    return -(scores @ scores.T).log_softmax(dim=1).diagonal()"
    )
    ended = rightbatch("noise", spec)
    assert ended.code == 2
    assert "own: the loss of an example depends on the others" in ended.last_line


def test_a_mean_loss_is_refused_with_the_way_out(rightbatch, workload_file):
    ended = rightbatch(
        "noise", workload_file("return cross_entropy(model, batch).mean()")
    )
    assert ended.code == 2
    assert "with reduction='none'" in ended.last_line


def test_an_error_of_the_workload_ends_with_1(rightbatch, workload_file):
    ended = rightbatch("noise", workload_file("raise ZeroDivisionError('told to')"))
    assert ended.code == 1
    assert "ZeroDivisionError: told to" in ended.last_line
